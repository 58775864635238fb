"""Filters: what is kept, and every dropped example with its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luthier.core.types.examples import Chat, Example, Labelled, Pair, Preference
from luthier.data.example_text import answer_text, empty_fields, full_text, identity, prompt_key
from luthier.data.near_duplicates import Near, near_pairs, repetitions

# Text files hold tabs, line ends and form feeds; nothing else below a blank belongs into text, nor do the C1 codes.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
# UTF-8 that was read as Windows-1252: é became Ã©, ’ became â€™; and U+FFFD, what stands for bytes that were lost.
GARBLED = re.compile(r"\ufffd|[ÃÂ][\u00a0-\u00bf]|â€[™œ\u009d˜¦“”¢\u0153\u017e]|ï»¿")

# An answer of at most so many characters is a label or a number: one changed letter makes it another answer.
REPETITION_MIN_CHARACTERS = 100


@dataclass(frozen=True)
class CleanSettings:
    """Which filters run. Lengths are in characters of the whole example; `near` is the least similarity (see
    `near.py`) of a near duplicate, 0 for no such filter; `repeated` the largest share of an answer that may repeat
    what stood before in it (1 for no limit). Conflicting answers are dropped only on demand: two answers to
    one prompt are often wanted."""

    empty: bool = True
    duplicates: bool = True
    near: float = 0.8
    conflicts: bool = False
    shortest: int = 0
    longest: int | None = None
    repeated: float = 0.5
    garbled: bool = True
    control: bool = True


DEFAULT = CleanSettings()


@dataclass(frozen=True, slots=True)
class Dropped:
    """An example that was left out, by which filter, and why in words."""

    example: Example
    filter: str
    reason: str


@dataclass(frozen=True)
class Cleaned:
    """What is left, in the order given, and what was dropped."""

    kept: list[Example]
    dropped: list[Dropped]

    @property
    def counts(self) -> dict[str, int]:
        """How many examples each filter dropped, the busiest first."""
        return dict(Counter(item.filter for item in self.dropped).most_common())


def clean(examples: Sequence[Example], settings: CleanSettings = DEFAULT) -> Cleaned:
    """Run the filters in the order of cost; the first that objects gives the reason.

    Of duplicates, near duplicates and conflicting answers the earliest is kept.
    """
    bad = faults(examples, settings)
    kept = [example for i, example in enumerate(examples) if i not in bad]
    dropped = [Dropped(examples[i], *reasons[0]) for i, reasons in bad.items()]
    if settings.duplicates:
        kept = _without(kept, "duplicate", {j: (i, "duplicate") for i, j in duplicates(kept)}, dropped)
    if settings.near:
        similar = near_duplicates(kept, settings.near)
        found = {j: (i, f"near duplicate ({similarity:.2f})") for i, j, similarity in similar}
        kept = _without(kept, "near duplicate", found, dropped)
    if settings.conflicts:
        found = {j: (i, "other answer to the prompt") for i, *others in conflicts(kept) for j in others}
        kept = _without(kept, "conflict", found, dropped)
    return Cleaned(kept, dropped)


def _without(
    examples: list[Example], name: str, found: dict[int, tuple[int, str]], dropped: list[Dropped]
) -> list[Example]:
    """`examples` without those in `found`: index -> (index of the earlier one, what they are to each other)."""
    for i, (earlier, relation) in sorted(found.items()):
        dropped.append(Dropped(examples[i], name, f"{relation} of {examples[earlier].origin}"))
    return [example for i, example in enumerate(examples) if i not in found]


def faults(examples: Sequence[Example], settings: CleanSettings = DEFAULT) -> dict[int, list[tuple[str, str]]]:
    """What is wrong with examples by themselves: index -> (filter, reason) of each objection."""
    repeated = repetitions([answer_text(example) for example in examples]) if settings.repeated < 1 else []
    found: dict[int, list[tuple[str, str]]] = {}
    for i, example in enumerate(examples):
        if objections := list(_objections(example, settings)):
            found[i] = objections
        if repeated and repeated[i] > settings.repeated:
            found.setdefault(i, []).append(("repeated", f"{repeated[i]:.0%} of the answer repeats itself"))
    return found


def _objections(example: Example, settings: CleanSettings) -> Iterator[tuple[str, str]]:
    if settings.empty and (fields := empty_fields(example)):
        yield "empty", f"empty {' and '.join(fields)}"
    if settings.empty and isinstance(example, Preference) and example.chosen == example.rejected:
        yield "same answers", "chosen and rejected are equal"
    text = full_text(example)
    if len(text) < settings.shortest:
        yield "too short", f"{len(text)} characters, fewer than {settings.shortest}"
    if settings.longest is not None and len(text) > settings.longest:
        yield "too long", f"{len(text)} characters, more than {settings.longest}"
    if settings.control and (found := CONTROL.search(text)):
        yield "control character", f"control character U+{ord(found.group()):04X}"
    if settings.garbled and (found := GARBLED.search(text)):
        yield "garbled", f"garbled characters {found.group()!r}, as of a wrong encoding"


def duplicates(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """(first, other) for every example whose content equals that of an earlier one."""
    first: dict[bytes, int] = {}
    pairs = ((first.setdefault(identity(example), i), i) for i, example in enumerate(examples))
    return [(i, j) for i, j in pairs if i != j]


def near_duplicates(examples: Sequence[Example], threshold: float = 0.8) -> list[Near]:
    """For each example that has one, an earlier one whose words are nearly the same. Examples that say different things of nearly equal
    texts are not duplicates: other label or score, other short answer, the preference turned round."""
    texts = [full_text(example) for example in examples]
    return near_pairs(texts, threshold, lambda i, j: _agree(examples[i], examples[j]))


def _agree(first: Example, second: Example) -> bool:
    match first, second:
        case Labelled(), Labelled():
            return first.label == second.label
        case Pair(), Pair():
            return first.score == second.score
        case Preference(), Preference():
            return first.chosen != second.rejected and first.rejected != second.chosen
    one, other = answer_text(first), answer_text(second)
    return min(len(one), len(other)) > REPETITION_MIN_CHARACTERS or one.casefold() == other.casefold()


def conflicts(examples: Sequence[Example]) -> list[list[int]]:
    """Groups of chats with one prompt and different answers, one index an answer, in order.

    Preferences, rankings and unpaired answers have several answers to a prompt by design and are not looked at.
    """
    answers: dict[str, dict[str, int]] = {}
    for i, example in enumerate(examples):
        if isinstance(example, Chat):
            answers.setdefault(prompt_key(example), {}).setdefault(answer_text(example).strip(), i)
    return [list(group.values()) for group in answers.values() if len(group) > 1]
