"""Whether rows are fit to test a model by: each once, with a right answer that is beyond doubt, unseen in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from luthier.core.types.examples import Example
from luthier.data.clean import duplicates, near_duplicates
from luthier.data.example_text import answer_text, prompt_key, prompt_text
from luthier.data.near_duplicates import near_pairs
from luthier.data.split import leaks

LABELS, LONGEST, REPEATS = (
    200,
    100,
    4,
)  # answers are labels where so few of such a length each stand so often on average
SIMILAR_PROMPTS = 0.9  # least similarity of two prompts that should not have two labels
MAX_LABEL_SHARE = 0.9  # of the rows: a label that has more hides everything else in an accuracy


@dataclass(frozen=True)
class DoubtfulRow:
    """A row whose right answer is in doubt, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class TestRows:
    """What about rows to test by is good or not.

    duplicates   {exact, near}: rows equal to an earlier one in prompt and answer; of the rest, those nearly so
    doubts       rows with an answer that another row contradicts, or a label in a spelling of its own
    seen         {exact, near}: rows that training sees; None where no rows to learn from were given
    empty        {prompt, answer}: rows with nothing in it
    labels       label -> rows, the commonest first, where answers are labels; else None
    """

    rows: int
    duplicates: dict[str, int]
    doubts: tuple[DoubtfulRow, ...]
    seen: dict[str, int] | None
    empty: dict[str, int]
    labels: dict[str, int] | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"doubts": [asdict(doubt) for doubt in self.doubts]}


def examine(examples: Sequence[Example], learned: Sequence[Example] | None) -> TestRows:
    """Look at rows to test by, beside those that are learned from where they are given."""
    answers = [answer_text(example).strip() for example in examples]
    labels = _labels(answers)
    again = {j for _, j in duplicates(examples)}
    rest = [example for i, example in enumerate(examples) if i not in again]
    found = None if learned is None else Counter(leak.kind for leak in leaks(learned, examples))
    empty = {
        "prompt": sum(not prompt_text(e).strip() for e in examples),
        "answer": sum(not answer for answer in answers),
    }
    return TestRows(
        rows=len(examples),
        duplicates={"exact": len(again), "near": len(near_duplicates(rest))},
        doubts=tuple(_doubts(examples, answers, labels)),
        seen=None if found is None else {"exact": found["exact"], "near": found["near"]},
        empty=empty,
        labels=labels,
    )


def _labels(answers: Sequence[str]) -> dict[str, int] | None:
    counts = Counter(answer for answer in answers if answer)
    few = counts and len(counts) <= LABELS and REPEATS * len(counts) <= counts.total()
    return dict(counts.most_common()) if few and max(map(len, counts)) <= LONGEST else None


def _doubts(
    examples: Sequence[Example], answers: Sequence[str], labels: dict[str, int] | None
) -> Iterator[DoubtfulRow]:
    """Each row once, with the first reason to doubt it."""
    first: dict[str, int] = {}
    told: set[int] = set()
    for i, example in enumerate(examples):
        j = first.setdefault(prompt_key(example), i) if prompt_text(example).strip() else i
        if _folded(answers[j]) != _folded(answers[i]) and answers[i] and answers[j]:
            told.add(i)
            yield DoubtfulRow(str(example.origin), f"another answer than {examples[j].origin} to the same prompt")
    if labels is None:
        return
    usual: dict[str, str] = {}
    for label in labels:
        usual.setdefault(_folded(label), label)
    prompts = [prompt_text(example) for example in examples]
    pairs = near_pairs(
        prompts,
        SIMILAR_PROMPTS,
        lambda i, j: bool(_folded(answers[i]) != _folded(answers[j]) and answers[i] and answers[j]),
    )
    alike = {pair.second: pair.first for pair in pairs}
    for i, example in enumerate(examples):
        if i in told or not answers[i]:
            continue
        if usual[_folded(answers[i])] != answers[i]:
            yield DoubtfulRow(
                str(example.origin), f"label '{answers[i]}' is spelled '{usual[_folded(answers[i])]}' elsewhere"
            )
        elif i in alike:
            yield DoubtfulRow(
                str(example.origin), f"another label than {examples[alike[i]].origin} for nearly the same text"
            )
        elif labels[answers[i]] == 1:
            yield DoubtfulRow(str(example.origin), f"label '{answers[i]}' stands in this row alone")


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")


def faults(found: TestRows) -> Iterator[str]:
    """What is wrong with the rows, one line each, with what to do."""
    if found.seen and any(found.seen.values()):
        yield (
            f"rows that training sees: {found.seen['exact']} exact, {found.seen['near']} nearly the same; take them out of one of the two, "
            "or scores on them will be too good"
        )
    if again := sum(found.duplicates.values()):
        yield f"equal or nearly equal to an earlier row: {again}; they count twice and narrow every interval: `luthier data --clean`"
    if found.doubts:
        yield f"right answers in doubt: {len(found.doubts)}, the first at {found.doubts[0].where}: {found.doubts[0].why}"
    for name, rows in found.empty.items():
        if rows:
            yield f"empty {name}: {rows} {'row' if rows == 1 else 'rows'}; fill it in, or remove the row"
    if found.labels:
        label, rows = next(iter(found.labels.items()))
        if len(found.labels) == 1:
            yield f"every row has the label '{label}': whoever always says it is right"
        elif rows >= MAX_LABEL_SHARE * found.rows:
            yield f"label '{label}' has {rows} of {found.rows} rows: whoever always says it has an accuracy of {rows / found.rows:.0%}"
        if few := [label for label, rows in found.labels.items() if rows < 5]:
            yield f"labels of fewer than 5 rows: {len(few)}, such as '{few[0]}'; nothing can be said of each"
