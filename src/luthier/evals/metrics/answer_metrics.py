"""Metrics of one generated answer: text in, one number out; `METRICS` is all of them on one screen.

Every metric is a function (answer, reference, prompt) -> float of one item, so that a paired interval
can be drawn over the items; what is reported is the plain mean. A metric that only a whole set has (macro-F1,
BLEU) gives each item a number too: how much the set's value would move if the item counted more, added to that
value. With v(w) the value of the set when item i counts w_i times, and n items,

    x_i = v + n dv/dw_i    at w = 1.

v does not change when every item counts double, so the x_i have exactly the mean v, and the spread of their mean is
that of v to first order (the infinitesimal jackknife, Jaeckel 1972).
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from luthier.core import numbers
from luthier.core.errors import unknown
from luthier.evals.detectors.words import words
from luthier.evals.metrics import labels, tool_calls
from luthier.evals.metrics.json_fields import field_f1, parsed

MetricFunction = Callable[[str, str, str], float]
SetFunction = Callable[[Sequence[str], Sequence[str]], list[float]]

SHORT_WORDS, SHORT_SHARE = 3, 0.95  # of short answers, such as names and places
MATCH_EXTRA = 8  # words that an answer may put around a short reference
CORRECTNESS = (
    "accuracy",
    "labels",
    "first_line",
    "number",
    "tool_calls",
    "json_f1",
    "match",
)  # metrics that tell right answers from wrong: 1 is right
USER_METRIC = "python:"  # metrics of the user's (evals/metrics/user_metrics.py)


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of `METRICS`.

    `function(answer, reference, prompt)` scores one item; where `whole(answers, references)` is given, it gives the
    numbers of the items of a set instead, whose mean is the value of the set. `higher_is_better` is None where neither
    is. `unit` '%' marks a share from 0 to 1 that people read as a percentage. `top` is the best
    value there is, None where there is none. `finished`: an answer that was broken off at its length limit scores 0, because
    nobody knows how it would have gone on.
    """

    name: str
    title: str
    function: MetricFunction
    higher_is_better: bool | None
    unit: str
    top: float | None
    description: str
    whole: SetFunction | None = None
    finished: bool = False


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


@cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)  # of a sentence; the set's own value leaves no order out


def rouge_l(answer: str, reference: str, prompt: str = "") -> float:
    """ROUGE-L: F1 of the longest common subsequence of words, from 0 to 1 (Lin 2004).

    With L the length of that subsequence, precision P = L / words of the answer, recall
    R = L / words of the reference, F = 2PR / (P + R). The `rouge-score` library with its own
    tokenizer (lower case, runs of a-z and 0-9) and no stemmer. A text in another script has no such
    words and scores 0: `auto` leaves this metric out there.
    """
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def chrf(answer: str, reference: str, prompt: str = "") -> float:
    """chrF2 of a sentence: F-score (recall counts twice) of character 1- to 6-grams, from 0 to 100.

    Popović 2015, by sacrebleu with its defaults. Reported as the mean over sentences, not the corpus
    statistic, because the interval is drawn over items. Works in every script.
    """
    return float(_chrf().sentence_score(answer, [reference]).score)


def exact(answer: str, reference: str, prompt: str = "") -> float:
    """1 when answer and reference are equal but for the white space around them, else 0."""
    return float(answer.strip() == reference.strip())


def token_f1(answer: str, reference: str, prompt: str = "") -> float:
    """F1 of the words as bags, from 0 to 1, as SQuAD defines it (Rajpurkar et al. 2016).

    Lower case, without ASCII punctuation and the English articles. When either side has no words
    left: 1 if neither has, else 0, as in SQuAD 2.0.
    """
    said, wanted = _squad_words(answer), _squad_words(reference)
    if not said or not wanted:
        return float(said == wanted)
    common = (Counter(said) & Counter(wanted)).total()
    return 2 * common / (len(said) + len(wanted))


def one_line(answer: str, reference: str = "", prompt: str = "") -> float:
    """1 when the answer is exactly one line that is not blank, else 0."""
    return float(sum(bool(line.strip()) for line in answer.splitlines()) == 1)


def length(answer: str, reference: str = "", prompt: str = "") -> float:
    """Characters (code points) of the answer without the white space around it; neither more nor less is better."""
    return float(len(answer.strip()))


def number(answer: str, reference: str, prompt: str = "") -> float:
    """1 when the last number in the answer equals the last in the reference, GSM8K's rule, in any spelling that
    `core/numbers.py` reads; 0 where one of them has none that can be read."""
    return float(numbers.same(answer, reference))


def _squad_words(text: str) -> list[str]:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def bleu(answer: str, reference: str, prompt: str = "") -> float:
    """BLEU of one sentence, from 0 to 100, orders that it is too short for left out; by sacrebleu."""
    return float(_bleu().sentence_score(answer, [reference]).score)


def corpus_bleu(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """BLEU of the set (Papineni et al. 2002), by sacrebleu with its defaults, as one number an answer.

    With c_n the matched n-grams of the set, t_n all, S and R the lengths of answers and references:
    dv/dw_i = v (sum over n of (c_ni / c_n - t_ni / t_n) / 4 - [S < R] (R_i / S - R S_i / S^2)); an order without any
    match is smoothed by sacrebleu and taken as it is.
    """
    stats = [_bleu().sentence_score(answer, [reference]) for answer, reference in zip(answers, references, strict=True)]
    matched, all_ = (np.array([getattr(s, name) for s in stats], dtype=float) for name in ("counts", "totals"))
    said, wanted = (np.array([getattr(s, name) for s in stats], dtype=float) for name in ("sys_len", "ref_len"))
    sums = [[int(n) for n in table.sum(axis=0)] for table in (matched, all_)]
    value = float(_bleu().compute_bleu(*sums, int(said.sum()), int(wanted.sum()), smooth_method="exp").score)
    change = np.zeros(len(stats))
    for n, (hits, total) in enumerate(zip(*sums, strict=True)):
        if hits:
            change += (matched[:, n] / hits - all_[:, n] / total) / len(sums[0])
    if 0 < said.sum() < wanted.sum():
        change -= wanted / said.sum() - wanted.sum() * said / said.sum() ** 2
    return (value * (1 + len(stats) * change)).tolist()


def match(answer: str, reference: str, prompt: str = "") -> float:
    """1 when the answer is the reference but for case and the marks around it, or says it once among at most 8 words more,
    not denied; else 0."""
    if labels.folded(answer) == labels.folded(reference):
        return 1.0
    if len(words(answer)) > len(words(reference)) + MATCH_EXTRA or len(labels.folded(reference)) < 3:
        return 0.0
    return labels.right(answer, reference, ())


def json_f1(answer: str, reference: str, prompt: str = "") -> float:
    """F1 of the fields of JSON answers, from 0 to 1 (see `json_fields.field_f1`)."""
    return field_f1(answer, reference)


def label(answer: str, reference: str, prompt: str = "") -> float:
    """1 when the answer names the reference as its only label (see `labels.named`), else 0."""
    return labels.right(answer, reference, ())


def several(answer: str, reference: str, prompt: str = "") -> float:
    """1 when the answer names the labels of the reference and no other, in any order, else 0."""
    return labels.all_right(answer, reference)


def first_line(answer: str, reference: str, prompt: str = "") -> float:
    """1 when the first line of the answer names the label that is the reference's first line, else 0."""
    return labels.right(_opening(answer), _opening(reference), ())


def accuracy(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """`label` of every answer, where one that names another label of the references too is wrong."""
    known = {reference.strip() for reference in references}
    return [labels.right(answer, wanted, known) for answer, wanted in zip(answers, references, strict=True)]


def first_lines(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """`accuracy` of the first lines."""
    return accuracy([_opening(answer) for answer in answers], [_opening(reference) for reference in references])


def _opening(text: str) -> str:
    return text.strip().split("\n", 1)[0].strip()


def macro_f1(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """The mean of F1 over the labels of the references, from 0 to 1, as one number an answer.

    F1 of a label = 2 TP / (2 TP + FP + FN) = 2 TP / D. A right answer that counts more moves it by 2 (FP + FN) / D^2, a wrong one
    moves its reference's label, and the label that it names if there is one, by -2 TP / D^2. An answer that is no label at
    all is wrong for its reference and for no other label, so that free text cannot add labels.
    """
    wanted = [reference.strip() for reference in references]
    kinds = sorted(set(wanted))
    said = [labels.named(answer, kinds) or answer.strip() for answer in answers]
    hits, named, there = Counter(w for s, w in zip(said, wanted, strict=True) if s == w), Counter(said), Counter(wanted)
    size = {label: named[label] + there[label] for label in kinds}
    value = sum(2 * hits[label] / size[label] for label in kinds) / len(kinds)
    right = {label: 2 * (size[label] - 2 * hits[label]) / size[label] ** 2 for label in kinds}
    wrong = {label: -2 * hits[label] / size[label] ** 2 for label in kinds}
    change = [right[w] if s == w else wrong[w] + wrong.get(s, 0.0) for s, w in zip(said, wanted, strict=True)]
    return [value + len(wanted) * moved / len(kinds) for moved in change]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", label, True, "%", 1, "share of answers that name the right label and no other", accuracy),
        Metric("labels", "all labels right", several, True, "%", 1, "share of answers that name the same labels, in any order"),
        Metric("first_line", "first line right", first_line, True, "%", 1,
            "share of answers whose first line names the right label", first_lines
        ),
        Metric("tool_calls", "calls right", tool_calls.calls_right, True, "%", 1, "share of answers with the same calls and arguments"),
        Metric("tool_names", "functions right", tool_calls.names_right, True, "%", 1, "share of answers that call the same functions"),
        Metric("tool_arguments", "fields of calls", tool_calls.arguments_f1, True, "", 1,
            "names and arguments of calls that are equal, F1, 0 to 1"
        ),
        Metric("json_f1", "JSON fields", json_f1, True, "", 1, "fields of JSON that are equal, F1, 0 to 1"),
        Metric("match", "right answer", match, True, "%", 1, "share of short answers that equal or contain the reference"),
        Metric("number", "number", number, True, "%", 1, "share of answers whose last number is the reference's"),
        Metric("exact", "exact", exact, True, "%", 1, "share of answers equal to the reference"),
        Metric("rouge_l", "ROUGE-L", rouge_l, True, "", 1, "words shared in the same order, F1, 0 to 1"),
        Metric("chrf", "chrF", chrf, True, "", 100, "character sequences shared, F2, 0 to 100"),
        Metric("token_f1", "token F1", token_f1, True, "", 1, "words shared in any order, F1, 0 to 1"),
        Metric("macro_f1", "macro-F1", exact, True, "", 1, "F1 of each label, all labels alike, 0 to 1", macro_f1),
        Metric("bleu", "BLEU", bleu, True, "", 100, "short word sequences shared, 0 to 100", corpus_bleu),
        Metric("one_line", "finished in one line", one_line, True, "%", 1,
            "share of answers that stop on their own after one line", finished=True
        ),
        Metric("length", "length", length, None, "", None, "characters of the answer"),
    )
}  # fmt: skip


def auto(references: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics that fit these references, the most telling first.

    Calls of functions are measured by which are called and with what, labels (short lines, each seen four times or more on average)
    by accuracy and macro-F1, several of them by `labels`, JSON by its fields, references that end in `#### N` or are a number by the
    number, other text by ROUGE-L and chrF; before these, `match` where references are short (up to 3 words) and `first_line` where a
    label stands in their first line. one_line joins when every reference is one line. Give the references of the training rows, not
    only the few that are generated: 64 rows of 77 labels hardly repeat.
    """
    kept = [reference.strip() for reference in references if reference.strip()]
    lines = bool(kept) and all(one_line(reference) for reference in kept)
    form = ("one_line", "length") if lines else ("length",)
    if tool_calls.are_calls(kept):
        return ("tool_calls", "tool_names", "tool_arguments", "length")
    if kept and all(parsed(reference) is not None for reference in kept):
        return ("json_f1", "length")
    if lines and labels.is_several(kept):
        return ("labels", *form)
    if labels.is_set(kept):
        return ("accuracy", "macro_f1", *form)
    if kept and all(numbers.is_number(reference) for reference in kept):
        return ("number", *form)
    text = ("rouge_l", "chrf", *form) if _has_words(kept) else ("chrf", *form)
    if labels.is_first_line(kept):
        return ("first_line", *text)
    short = [len(words(reference)) <= SHORT_WORDS and len(reference) <= labels.MAX_CHARACTERS for reference in kept]
    return ("match", *text) if lines and sum(short) >= SHORT_SHARE * len(kept) else text


def chosen_metrics(names: Sequence[str], references: Sequence[str]) -> tuple[str, ...]:
    """The setting `eval.metrics` made definite: 'auto' replaced by `auto(...)`, repeats dropped.

    Raises InputError for a name that is neither in METRICS nor a metric of the user's, python:FILE:FUNCTION.
    """
    chosen: list[str] = []
    for name in names:
        if name != "auto" and name not in METRICS and not name.startswith(USER_METRIC):
            raise unknown("metric", name, [*METRICS, "auto", f"{USER_METRIC}FILE:FUNCTION"], where="--eval.metrics")
        chosen += auto(references) if name == "auto" else (name,)
    return tuple(dict.fromkeys(chosen))


def _has_words(references: Sequence[str]) -> bool:
    """Whether ROUGE's tokenizer, which reads a-z and 0-9 alone, sees at least half of the letters."""
    text = "".join(references)
    letters = sum(character.isalnum() for character in text)
    return 2 * sum(character.isalnum() and character.isascii() for character in text) >= letters
