"""The answers that a rule can write for a row to learn from: shorter, spelled right, with the likely label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from luthier.core.errors import nearest
from luthier.data.languages import languages
from luthier.diagnose.nearest import Nearest
from luthier.diagnose.run_data import TrainingRow
from luthier.evals.detectors.answer import Finding
from luthier.evals.detectors.spelling import misspelled
from luthier.evals.detectors.task import Task
from luthier.evals.detectors.words import words

LABEL_NEIGHBOURS = 10  # rows that are asked for a label
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*(?=\s|$)|[。！？]|\n""")

# What ends with a point and ends no sentence: the number of a list, a letter of a name, an abbreviation.
NO_END = re.compile(
    r"(^[ \t>#*_(]*((\d{1,3}\.)*\d{1,3}|[ivxIVX]{1,5})|\b[^\W\d_]|\b(Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|Gen|Rev|vs|etc|cf|al|"
    r"approx|ca|No|Nr|Fig|Eq|Vol|pp|Inc|Ltd|Co|Corp|Dept|bzw|usw|vgl))\.$"
)
FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)


class Labels:
    """The labels of a closed set, and which of them a row's neighbours have."""

    def __init__(self, rows: Sequence[TrainingRow]) -> None:
        self.rows = rows
        self.counts = Counter(row.answer.strip() for row in rows)
        self.index = Nearest([row.prompt for row in rows])

    def likely(self, place: int) -> str | None:
        """The label that a row's nearest other rows are most for, by how near they are; None unless it outvotes the row's
        own."""
        own = self.rows[place].answer.strip()
        votes = {own: 0.0}
        for i, score in self.index.find(self.rows[place].prompt, LABEL_NEIGHBOURS + 1):
            if i != place:
                label = self.rows[i].answer.strip()
                votes[label] = votes.get(label, 0.0) + score
        best = max(votes, key=lambda label: votes[label])  # its own stands first: a tie leaves it
        return best if best != own else None

    def spelled(self, answer: str) -> str | None:
        """The more frequent label that is spelled most like the answer."""
        own = self.counts[answer.strip()]
        return nearest(answer.strip(), [label for label, count in self.counts.items() if count > own])


def corrected(row: TrainingRow, finding: Finding, action: str, task: Task, labels: Labels | None) -> str | None:
    """The answer of the row without what was found; None where that is for a person to write."""
    if action == "shorten":
        if finding.span:  # what is said again and again begins there; a word more, so that all before it may be kept
            return shortened(f"{row.answer[: finding.span[0]]} again", float("inf"))
        usual = task.bounds(row.question)
        return shortened(row.answer, usual[1]) if usual else None
    if finding.category == "misspelling":
        return spelled(row, task)
    if finding.category == "template_leak" and finding.span:
        return row.answer[: finding.span[0]].rstrip() or None
    return labels.spelled(row.answer) if labels else None


def shortened(answer: str, longest: float) -> str | None:
    """The answer up to the last end of a sentence within `longest` words; None when there is none, or nothing to cut."""
    for found in reversed(list(SENTENCE_END.finditer(answer.rstrip()))):
        text = answer[: found.end()].rstrip()
        inside = len(FENCE.findall(text)) % 2
        if inside or NO_END.search(text.rpartition("\n")[2]):
            continue
        if text != answer.rstrip() and len(words(text)) <= longest:
            return text or None
    return None


def spelled(row: TrainingRow, task: Task) -> str | None:
    """The answer with every misspelled word as it was meant; None where no word is."""
    asked, text = set(words(row.question)), row.answer
    guesses = (next(iter(languages([said]))) for said in (text, f"{row.question} {text}"))
    language = next((guess for guess in guesses if guess != "unknown"), "")
    while found := misspelled(text, language, lambda word: word in asked or word in task.known_words):
        word, right, (start, end) = found
        text = f"{text[:start]}{right.capitalize() if word[0].isupper() else right}{text[end:]}"
    return text if text != row.answer else None
