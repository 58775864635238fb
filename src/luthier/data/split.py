"""Training and held-out parts by hash, and what leaks from one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from luthier.core.seeds import derive
from luthier.core.types import Example
from luthier.data.near import near_pairs
from luthier.data.texts import full_text, prompt_key


class Leak(NamedTuple):
    """A held-out example that training has seen: the same prompt ('exact') or nearly the same words ('near')."""

    train: Example
    test: Example
    kind: str


def place(example: Example, seed: int) -> float:
    """Where the example falls in [0, 1): held out when below the held-out share.

    A function of its group alone, or of its prompt where it has no group (of its text where it has no
    prompt): equal ones fall together, and rows added later move no other.
    """
    return derive(seed, "split", example.group or prompt_key(example)) / 2.0**63


def split(examples: Sequence[Example], holdout: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(train, held out), each in the order given. The held-out share is near `holdout`, not exact: see `place`.

    With few groups one part could be empty; then it gets the group that is nearest to it, when there are two.
    """
    places = [place(example, seed) for example in examples]
    least, most = min(places, default=0.0), max(places, default=0.0)
    border = holdout
    if 0 < holdout <= least < most:
        border = min(spot for spot in places if spot > least)
    elif least < most < holdout:
        border = most
    train = [example for example, spot in zip(examples, places, strict=True) if spot >= border]
    return train, [example for example, spot in zip(examples, places, strict=True) if spot < border]


def leaks(train: Sequence[Example], test: Sequence[Example], *, near: float = 0.8) -> list[Leak]:
    """For each held-out example, one training example with the same prompt (or text, without a prompt), or
    else one whose words (see `near`) are at least so similar. One leak a held-out row."""
    seen: dict[str, Example] = {}
    for example in train:
        seen.setdefault(prompt_key(example), example)
    found = {i: Leak(seen[key], e, "exact") for i, e in enumerate(test) if (key := prompt_key(e)) in seen}
    texts, border = [full_text(example) for example in (*train, *test)], len(train)
    for pair in near_pairs(texts, near, lambda i, j: i < border <= j and j - border not in found):
        found[pair.second - border] = Leak(train[pair.first], test[pair.second - border], "near")
    return [found[i] for i in sorted(found)]
