"""Training rows whose answer is doubtful: the model lost more on them than on others, or the rows most like them have
other answers.

Where answers are a closed set of K labels, two witnesses speak of each row, in nats, and their sum is its doubt:

    the model        how far the row's loss, -ln p(label), was above the usual loss of that step
    the neighbours   ln(p(another label) / p(label)), by the labels of the training prompts that share most words with its own

The sum is about the log odds of another label against the row's own. If one label in twenty is wrong, drawn from the K - 1 others, a
label is wrong with a chance of one in four or more where those odds are above 19 (K - 1) / 3: these rows are worth a look. Nothing is
fitted to labels known to be wrong, and how many are need not be known: too many in the list, or too few, is all it changes.

Other answers have the model alone: by how many standard deviations their loss per token was above that of answers as long;
above 3.5 (Iglewicz & Hoaglin 1993) a row is worth a look.

Wrong labels are learned late (Arpit et al. 2017), which losses over training show (Swayamdipta et al. 2020, Pleiss et al. 2020);
asking the neighbours is as old as Wilson (1972).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from luthier.diagnose.nearest import Nearest

# The share of labels taken to be wrong; the chance of it that makes a row worth a look.
WRONG_SHARE, LIKELY_WRONG = 1 / 20, 1 / 4
OUTLIER_DEVIATIONS = 3.5  # standard deviations
NEIGHBOURS = 10
REPEATED, CLOSED = 5, 0.9  # answers are labels when this share of the rows have one that stands in so many rows
WINDOW = 256  # neighbouring sightings that say what is usual, or an eighth of them where there are few
UPPER = 0.6745  # the upper quartile of a normal distribution, in standard deviations
_PUNCTUATION = re.compile(r"[.,;:!?]+(?=\s|$)|(?<=[^\W\d_])-(?=[^\W\d_])")
SMOOTHINGS = tuple(2.0**power for power in range(-8, 9))

Losses = Mapping[int, Sequence[tuple[int, float, int]]]
Values = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DoubtfulRow:
    """A row worth a look: how doubtful its answer is, in nats (labels) or standard deviations (other answers), and why in
    words."""

    row: int
    score: float
    why: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one witness says against a row's answer, and in words."""

    doubt: float
    why: str


NO_EVIDENCE = Evidence(0.0, "")


def rank_doubtful(
    losses: Losses, prompts: Sequence[str], answers: Sequence[str], progress: Callable[[int], None] = lambda rows: None
) -> list[DoubtfulRow]:
    """Rows worth a look, the most doubtful first; rows are places in `prompts` and `answers`.

    `losses`: row -> (step, loss summed over its units, units) of each time it was seen. Rows may be absent from it.
    `progress` is told of every so many rows that are done: of labels each is looked up among all others.
    """
    labels = [folded(answer) for answer in answers]
    if not is_closed(labels):
        model, limit = by_length(losses), OUTLIER_DEVIATIONS
        progress(len(prompts))
        neighbours: Mapping[int, Evidence] = {}
    else:
        model, limit = by_label(losses), threshold(len(set(labels)))
        neighbours = by_neighbours(prompts, answers, progress)
    found = []
    for row in range(len(prompts)):
        witnesses = model.get(row, NO_EVIDENCE), neighbours.get(row, NO_EVIDENCE)
        if (score := sum(w.doubt for w in witnesses)) > limit:
            found.append(DoubtfulRow(row, score, "; ".join(w.why for w in witnesses if w.doubt > limit / 4)))
    return sorted(found, key=lambda s: (-s.score, s.row))


def conflicts(prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[int, ...]]:
    """All rows of each prompt that has different answers. Case, spacing, marks that end a clause and hyphens between letters
    make no difference to a prompt, case and spacing none to an answer."""
    groups: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(folded(_PUNCTUATION.sub(" ", prompt)), []).append(row)
    return [tuple(rows) for rows in groups.values() if len({folded(answers[row]) for row in rows}) > 1]


def folded(text: str) -> str:
    """The text without case and spacing."""
    return " ".join(text.casefold().split())


def is_closed(labels: Sequence[str]) -> bool:
    """Whether answers are a closed set of labels: nearly all rows have one that at least five rows have, and there are two."""
    counts = Counter(labels)
    return len(counts) > 1 and sum(n for n in counts.values() if n >= REPEATED) >= CLOSED * len(labels)


@dataclass(frozen=True)
class RowLosses:
    """Every time a row was seen in training, in order of steps: [sightings] each, `loss` summed over `units`."""

    row: Rows
    step: Rows
    loss: Values
    units: Values

    @classmethod
    def of(cls, losses: Losses) -> RowLosses:
        sightings = sorted((step, row, loss, units) for row, times in losses.items() for step, loss, units in times)
        step, row, loss, units = np.array(sightings, dtype=np.float64).reshape(-1, 4).T
        return cls(row.astype(np.int64), step.astype(np.int64), loss, units)


def threshold(labels: int) -> float:
    """The log odds against a label from which on it is wrong with the chance LIKELY."""
    return log((1 - WRONG_SHARE) / WRONG_SHARE * (labels - 1) * LIKELY_WRONG / (1 - LIKELY_WRONG))


def by_label(losses: Losses) -> dict[int, Evidence]:
    """The nats by which a label cost more than was usual at the step; where the losses of a step are spread by more than a nat,
    as early in training, in units of that spread. Averaged over the times the row was seen, by the weight 1 / spread."""
    sightings = RowLosses.of(losses)
    usual, spread = _usual(sightings.step, sightings.loss)
    spread = np.maximum(spread, 1)
    return _evidence(sightings, (sightings.loss - usual) / spread, 1 / spread, sightings.loss, usual, "")


def by_length(losses: Losses) -> dict[int, Evidence]:
    """The standard deviations by which the loss per unit was above what was usual at the step for an answer as long."""
    sightings = RowLosses.of(losses)
    each = sightings.loss / sightings.units
    # What a length costs is taken off first, for the middle of short and long answers together is a poor one.
    length = _usual(sightings.units, each - _usual(sightings.step, each)[0])[0]
    usual, spread = _usual(sightings.step, each - length)
    above = (each - length - usual) / np.maximum(spread, 0.1)
    above /= np.maximum(_usual(sightings.units, above)[1], 0.1)
    return _evidence(sightings, above, np.ones_like(above), each, usual + length, " per token")


def _usual(keys: NDArray[Any], values: Values) -> tuple[Values, Values]:
    """For each value the median of those around it in the order of the keys, and their spread: upper quartile
    less median, in standard deviations of a normal distribution. Losses lean to one side, and it is the high one that counts."""
    order = np.argsort(keys, kind="stable")
    width = min(WINDOW, max(32, len(values) // 8), len(values))
    if not width:
        return values, values
    starts = np.unique(np.append(np.arange(0, len(values) - width, max(1, width // 8)), len(values) - width))
    middle, upper = np.quantile(sliding_window_view(values[order], width)[starts], [0.5, 0.75], axis=1)
    usual, spread = np.empty_like(values), np.empty_like(values)
    centres = starts + (width - 1) / 2
    usual[order] = np.interp(np.arange(len(values)), centres, middle)
    spread[order] = np.interp(np.arange(len(values)), centres, (upper - middle) / UPPER)
    return usual, spread


def _evidence(
    sightings: RowLosses, above: Values, weights: Values, loss: Values, usual: Values, unit: str
) -> dict[int, Evidence]:
    """For each row the weighted mean of `above`, and its last loss in words."""
    mean = np.bincount(sightings.row, above * weights) / np.maximum(np.bincount(sightings.row, weights), 1e-300)
    last = dict(zip(sightings.row.tolist(), range(len(loss)), strict=True))
    return {
        row: Evidence(float(mean[row]), f"loss {loss[i]:.1f}{unit} at step {sightings.step[i]}, usually {usual[i]:.1f}")
        for row, i in last.items()
    }


def by_neighbours(
    prompts: Sequence[str], answers: Sequence[str], progress: Callable[[int], None] = lambda rows: None
) -> dict[int, Evidence]:
    """The log odds against each row's label, by the labels of the prompts nearest to its prompt.

    A neighbour's vote w is its BM25 score over that of the prompt itself, and p(label) = (votes for it + a n(label) / n) / (all
    votes + a). Of 17 values of a, that is taken by which the votes predict the labels of all rows best; so votes that say nothing
    of labels count for nothing.
    """
    labels = [folded(answer) for answer in answers]
    shown = dict(zip(labels, answers, strict=True))
    index = Nearest(prompts)
    near = []
    for row, prompt in enumerate(prompts):
        near.append(_others(index, prompt, row))
        progress(1)
    votes: list[dict[str, float]] = []
    for found in near:
        votes.append(dict.fromkeys((labels[i] for i, _ in found), 0.0))
        for i, vote in found:
            votes[-1][labels[i]] += vote
    share = {label: n / len(labels) for label, n in Counter(labels).items()}
    own = np.array([tally.get(label, 0.0) for tally, label in zip(votes, labels, strict=True)])
    total, prior = np.array([sum(tally.values()) for tally in votes]), np.array([share[label] for label in labels])
    a = max(SMOOTHINGS, key=lambda a: float(np.log((own + a * prior) / (total + a)).sum()))
    out = {}
    for row, (tally, found) in enumerate(zip(votes, near, strict=True)):
        others = {label: vote + a * share[label] for label, vote in tally.items() if label != labels[row]}
        if others:
            other = max(others, key=lambda label: others[label])
            have = Counter(labels[i] for i, _ in found)
            why = f"of the {len(found)} nearest prompts {have[other]} have {shown[other].strip()!r}, {have[labels[row]]} its own"
            out[row] = Evidence(log(others[other] / (own[row] + a * prior[row])), why)
    return out


def _others(index: Nearest, prompt: str, row: int) -> list[tuple[int, float]]:
    """The prompts nearest to that of a row, without its own, and their scores over that of its own."""
    found = index.find(prompt, NEIGHBOURS + 1)
    full = dict(found).get(row, found[0][1] if found else 1.0)
    return [(i, score / full) for i, score in found if i != row]
