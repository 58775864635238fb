"""Pairs of answers to one prompt -> one ranking of them all, each answer once; or -> single answers, wanted or not.

Trained as pairs, a prompt with many comparisons counts many times and its answers are computed again and again;
as one example they are read in one pass and count once (Ouyang et al. 2022, section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.core.types.examples import Example, Labelled, Preference, Ranking


def group_preferences(examples: Sequence[Example]) -> list[Example]:
    """The examples, with preferences of the same prompt joined to a Ranking that keeps which pairs were compared.

    A joined example stands where its first pair stood. Ranks order the answers by comparisons won less lost.
    Rankings, pairs with a margin, pairs without a prompt and pairs alone on their prompt stay as they are.
    """
    groups: dict[str, list[Preference]] = {}
    for example in examples:
        if isinstance(example, Preference) and example.prompt and example.margin is None:
            groups.setdefault(_prompt_key(example), []).append(example)
    out: list[Example] = []
    for example in examples:
        group = groups.get(_prompt_key(example), []) if isinstance(example, Preference) else []
        if len(group) < 2 or not isinstance(example, Preference) or example.margin is not None:
            out.append(example)
        elif group[0] is example:
            out.append(_ranking_of(group))
    return out


def split_preferences(examples: Sequence[Example]) -> list[Example]:
    """The examples, with each preference taken apart: the chosen answer is wanted, the rejected one is not."""
    out: list[Example] = []
    for example in examples:
        if isinstance(example, Preference):
            for answer, wanted in ((example.chosen, True), (example.rejected, False)):
                out.append(Labelled(example.prompt, answer, wanted, **_shared_fields(example)))
        else:
            out.append(example)
    return out


def _prompt_key(example: Preference) -> str:
    """What both answers answer: equal for equal prompts with equal tools and values of the template."""
    return repr((example.prompt, example.tools, example.template_kwargs))


def _shared_fields(example: Preference) -> dict[str, Any]:
    """What an example keeps in another form."""
    return {name: getattr(example, name) for name in ("origin", "group", "tools", "template_kwargs")}


def _ranking_of(group: Sequence[Preference]) -> Ranking:
    answers = {repr(answer): answer for pair in group for answer in (pair.chosen, pair.rejected)}
    index = {key: i for i, key in enumerate(answers)}
    pairs = [(index[repr(pair.chosen)], index[repr(pair.rejected)]) for pair in group]
    pairs = [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]
    wins = [sum((a == i) - (b == i) for a, b in pairs) for i in range(len(answers))]
    ranks = tuple(1 + sum(other > count for other in wins) for count in wins)
    first = group[0]
    return Ranking(first.prompt, tuple(answers.values()), ranks, tuple(pairs), **_shared_fields(first))
