"""The data card: what is in this data, and what is worth fixing before it is trained on."""

from __future__ import annotations

import itertools
import math
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from luthier.core.seeds import derive
from luthier.core.types.examples import Chat, Example, Labelled, Preference, Prompt, Ranking
from luthier.data.clean import conflicts, duplicates, faults, near_duplicates
from luthier.data.example_text import answer_text, empty_fields, full_text
from luthier.data.held_out_warnings import overlap_warning
from luthier.data.languages import languages, scripts
from luthier.data.split import leaks

SAMPLED_EXAMPLES = 2000  # examples whose script, language and diversity are looked at, evenly spaced
COMPARED_ROWS = 10_000  # rows that equal ones are looked for among, at a glance
DIVERSITY_WORDS = 100_000  # words that the diversity is measured on
MAX_LABELS = 200  # most distinct answers that are taken for labels

T = TypeVar("T")


@dataclass(frozen=True)
class Card:
    """Plain numbers about a set of examples; `as_dict` is what `luthier data --json` prints.

    tokens       {unit, min, median, p95, max, total} of whole examples; characters where nothing counts tokens
    answers      the same of the answers alone
    over_limit   {limit, rows, share} of examples longer than the limit; None where nothing counts tokens
    turns        {min, median, p95, max} messages an example; None for texts and pairs
    scripts      share of the letters, by Unicode block; languages: share of the examples, guessed from stop words
    duplicates   {exact, near}: examples equal to an earlier one; of the rest, those nearly so (see `near`)
    empty        field -> examples in which it is empty
    faults       how many examples each filter of `clean` objects to
    conflicts    prompts with more than one answer
    diversity    {distinct_1, distinct_2}: distinct words (pairs of words) over all, in 100,000 words of answers
                 (Li et al. 2016; a longer sample has a smaller share); {compression}: their bytes over the
                 bytes zlib makes of them: about 2.5 for English prose, more when answers repeat each other
    labels       {distinct, top: {label: rows}, least} where a few short answers make up all rows
    leaks        {exact, near}: held-out examples that training has seen; None without held-out examples
    dropped      rows that gave no example: reason -> how many
    """

    layout: str
    rows: int
    tokens: Mapping[str, Any]
    answers: Mapping[str, Any]
    over_limit: Mapping[str, Any] | None
    turns: Mapping[str, Any] | None
    scripts: Mapping[str, float]
    languages: Mapping[str, float]
    duplicates: Mapping[str, int]
    empty: Mapping[str, int]
    faults: Mapping[str, int]
    conflicts: int
    diversity: Mapping[str, float]
    labels: Mapping[str, Any] | None
    leaks: Mapping[str, int] | None
    dropped: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The card as JSON objects, with its warnings."""
        return {**asdict(self), "warnings": warnings(self)}


def card(
    examples: Sequence[Example],
    *,
    count: Callable[[str], int] | None,
    limit: int,
    test: Sequence[Example] | None = None,
    layout: str = "",
    dropped: Mapping[str, int] | None = None,
) -> Card:
    """Describe at least one example. `count` gives the tokens of a text, `limit` is the longest example in tokens.

    The template's own tokens are not counted. All examples are held; for a stream, take a `sample` of it.
    """
    measure = count or len
    unit = "tokens" if count else "characters"
    lengths = [measure(full_text(example)) for example in examples]
    answers = [answer_text(example) for example in examples]
    over = sum(length > limit for length in lengths)
    looked = [full_text(example) for example in _spaced(examples, SAMPLED_EXAMPLES)]
    found = None if test is None else Counter(leak.kind for leak in leaks(examples, test))
    return Card(
        layout=layout or type(examples[0]).__name__.lower(),
        rows=len(examples),
        tokens=_summary(lengths, unit) | {"total": sum(lengths)},
        answers=_summary([measure(answer) for answer in answers], unit),
        over_limit={"limit": limit, "rows": over, "share": over / len(examples)} if count else None,
        turns=_summary(turns, "messages") if (turns := [n for n in map(_turns, examples) if n]) else None,
        scripts=scripts(looked),
        languages=languages(looked),
        duplicates=_duplicates(examples),
        empty=dict(Counter(field for example in examples for field in empty_fields(example))),
        faults=dict(Counter(name for reasons in faults(examples).values() for name, _ in reasons).most_common()),
        conflicts=len(conflicts(examples)),
        diversity=_diversity(answers),
        labels=_labels(examples, answers),
        leaks=None if found is None else {"exact": found["exact"], "near": found["near"]},
        dropped=dict(dropped or {}),
    )


def outline(examples: Sequence[Example], lengths: Sequence[int], layout: str) -> dict[str, Any]:
    """A card at a glance, for rows that are learned from: `lengths` are their tokens. Equal rows are counted among the first
    `compared`, languages are guessed from `looked_at`. What is not known, of a stream, is None."""
    looked = [full_text(example) for example in _spaced(examples, SAMPLED_EXAMPLES)]
    first = examples[:COMPARED_ROWS]
    return {
        "layout": layout,
        "lengths": _summary(lengths, "tokens") if lengths else None,
        "duplicates": len(duplicates(first)) if first else None,
        "compared": len(first),
        "languages": languages(looked) if looked else None,
        "looked_at": len(looked),
    }


def sample(items: Iterable[T], size: int, seed: int = 0) -> tuple[list[T], int]:
    """`size` items of a stream, every one with the same chance, in their order, and how many there were
    (reservoir sampling, algorithm R of Vitter 1985)."""
    draw = random.Random(derive(seed, "sample"))
    held: list[tuple[int, T]] = []
    total = 0
    for total, item in enumerate(items, start=1):
        if len(held) < size:
            held.append((total, item))
        elif (place := draw.randrange(total)) < size:
            held[place] = (total, item)
    return [item for _, item in sorted(held, key=lambda pair: pair[0])], total


def warnings(card: Card) -> list[str]:
    """What is worth fixing, one line each, with what to do."""
    return list(_warnings(card))


def _warnings(card: Card) -> Iterator[str]:
    cleaning = "`luthier data --clean` drops them"
    documents = card.layout == "text"  # few and long is how they come
    if card.rows < 50 and not documents:
        yield f"few rows: {card.rows}, hardly enough to measure what is learned"
    if card.over_limit and card.over_limit["rows"] and not documents:
        rows, share, limit = (card.over_limit[name] for name in ("rows", "share", "limit"))
        yield f"longer than {limit} tokens: {_rows(rows)} ({share:.1%}); raise --text.max_length, or their ends are cut"
    for name, rows in card.faults.items():
        detail = f" ({', '.join(card.empty)})" if name == "empty" else ""
        yield f"{name}{detail}: {_rows(rows)}; {cleaning}"
    if card.duplicates["exact"]:
        yield f"equal to an earlier row: {_rows(card.duplicates['exact'])}; {cleaning}"
    if card.duplicates["near"] > card.rows / 100:
        yield f"nearly equal to an earlier row: {_rows(card.duplicates['near'])}; {cleaning}"
    if card.conflicts:
        yield f"more than one answer: {card.conflicts} prompts; check which answer is right"
    if card.leaks and any(card.leaks.values()):
        yield overlap_warning(card.leaks["exact"], card.leaks["near"])
    if card.labels and card.labels["least"] < 5:
        yield f"rarest label: {_rows(card.labels['least'])}, too few to learn it"
    if not card.labels and card.diversity["compression"] > 6:
        yield f"repetitive answers: zlib makes them {card.diversity['compression']:.1f} times smaller"
    for reason, rows in card.dropped.items():
        yield f"no example in {_rows(rows)}: {reason}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _summary(values: Sequence[int], unit: str) -> dict[str, Any]:
    """Smallest, middle, 95th percentile and largest; a percentile is the least value with so many at or below it."""
    ordered = sorted(values)
    middle, high = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))
    return {"unit": unit, "min": ordered[0], "median": middle, "p95": high, "max": ordered[-1]}


def _turns(example: Example) -> int:
    match example:
        case Chat(messages=turns) | Prompt(messages=turns):
            return len(turns)
        case Preference(prompt=prompt, chosen=answer) | Labelled(prompt=prompt, completion=answer):
            return len(prompt) + len(answer)
        case Ranking(prompt=prompt, responses=responses):
            return len(prompt) + len(responses[0])
    return 0


def _duplicates(examples: Sequence[Example]) -> dict[str, int]:
    again = {j for _, j in duplicates(examples)}
    rest = [example for i, example in enumerate(examples) if i not in again]
    return {"exact": len(again), "near": len(near_duplicates(rest))}


def _diversity(answers: Sequence[str]) -> dict[str, float]:
    words: list[str] = []
    pairs: set[tuple[str, str]] = set()
    many = 0
    read = []
    for answer in _spaced(answers, SAMPLED_EXAMPLES):
        said = answer.lower().split()
        words += said
        pairs.update(itertools.pairwise(said))
        many += max(0, len(said) - 1)
        read.append(answer)
        if len(words) >= DIVERSITY_WORDS:
            break
    raw = "\n".join(read).encode("utf-8", "replace")
    return {
        "distinct_1": len(set(words)) / max(1, len(words)),
        "distinct_2": len(pairs) / max(1, many),
        "compression": len(raw) / len(zlib.compress(raw, 6)),
    }


def _labels(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, Any] | None:
    """A few short answers to many prompts are labels: at least five rows a label on average, no long ones."""
    counts = Counter(answers)
    few = len(counts) <= min(MAX_LABELS, len(answers) // 5) and max(map(len, counts), default=0) <= 100
    if not few or not isinstance(examples[0], Chat):
        return None
    return {"distinct": len(counts), "top": dict(counts.most_common(20)), "least": min(counts.values())}


def _spaced(items: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly spaced."""
    return [items[i * len(items) // most] for i in range(most)] if len(items) > most else list(items)
