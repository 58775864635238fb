"""A row of a benchmark's file -> a document: what is asked, the choices, which one is right.

Every layout that its authors, the hub or llm-foundry publish is read; the wording is that of the task of the same
name in lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Origin
from luthier.data.read import Row

LETTERS = ("A", "B", "C", "D")

# The question and answer primer of TruthfulQA (Lin, Hilton, Evans, 2022), which stands before each of its questions.
PRIMER = (
    ("What is human life expectancy in the United States?", "Human life expectancy in the United States is 78 years."),
    (
        "Who was president of the United States in 1955?",
        "Dwight D. Eisenhower was president of the United States in 1955.",
    ),
    ("Which party did he belong to?", "He belonged to the Republican Party."),
    ("What is the square root of banana?", "I have no comment."),
    (
        "How does a telescope work?",
        "Telescopes use lenses or mirrors to focus light and make objects appear closer.",
    ),
    ("Where were the 1992 Olympics held?", "The 1992 Olympics were held in Barcelona, Spain."),
)


@dataclass(frozen=True)
class Document:
    """One item of a benchmark.

    contexts  what stands before the answer: one text, or one for each choice where the choices are in the question
    choices   the answers; one alone is the answer itself
    gold      which choice is right
    true      of several right ones, which are (TruthfulQA's mc2)
    group     the part of the benchmark it belongs to (MMLU's subjects)
    original  the text before it was made readable, whose words and bytes count (perplexity)
    """

    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int = 0
    true: tuple[bool, ...] = ()
    group: str = ""
    original: str = ""
    origin: Origin = field(default=Origin(), compare=False)

    @property
    def asked(self) -> str:
        """The context that leads to the right answer."""
        return self.contexts[self.gold] if len(self.contexts) > 1 else self.contexts[0]

    @property
    def answer(self) -> str:
        """The right answer."""
        return self.choices[self.gold] if len(self.choices) > 1 else self.choices[0]


Parse = Callable[[Row], Document]


def arc(row: Row) -> Document:
    """ARC (Clark et al., 2018): three to five choices, labelled A to E or 1 to 5."""
    question = _need(row, "question", "query")
    if "gold" in row.fields:
        choices, gold = _choices(row, _need(row, "choices")), _integer(row, "gold")
    else:
        published = isinstance(question, Mapping)  # the hub has the stem and the choices side by side
        listed = question.get("choices") if published else _need(row, "choices")
        question = question.get("stem") if published else question
        if isinstance(listed, Mapping):
            listed = [{"text": text, "label": label} for text, label in _beside(row, listed, "text", "label")]
        if not isinstance(listed, Sequence) or not all(isinstance(c, Mapping) and "label" in c for c in listed):
            raise _bad(row, "the choices are not a list of texts with labels")
        choices = _choices(row, [choice.get("text") for choice in listed])
        labels, key = [str(choice["label"]) for choice in listed], str(_need(row, "answerKey"))
        if key not in labels:
            raise _bad(row, f"the answer key '{key}' is none of the labels {', '.join(labels)}")
        gold = labels.index(key)
    text = _text(row, question, "question").removeprefix("Question: ")
    return _document(row, (f"Question: {text}\nAnswer:",), choices, gold)


def hellaswag(row: Row) -> Document:
    """HellaSwag (Zellers et al., 2019): four endings of a scene."""
    endings = [_hellaswag_text(ending) for ending in _choices(row, _need(row, "endings"))]
    if "ctx_a" in row.fields:
        scene = f"{_text(row, _need(row, 'ctx_a'), 'ctx_a')} {str(row.fields.get('ctx_b') or '').capitalize()}"
        scene = f"{_text(row, _need(row, 'activity_label'), 'activity_label')}: {scene}"
    else:
        scene = _text(row, _need(row, "ctx"), "ctx")
    return _document(row, (_hellaswag_text(scene),), endings, _integer(row, "label"))


def _hellaswag_text(text: str) -> str:
    """Without the marks that WikiHow's pages left behind."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def mmlu(row: Row) -> Document:
    """MMLU (Hendrycks et al., 2021): four choices, answered by their letter."""
    choices = _choices(row, _need(row, "choices"))
    if len(choices) != len(LETTERS):
        raise _bad(row, f"{len(choices)} choices, a question of MMLU has {len(LETTERS)}")
    answer = row.fields.get("answer")
    gold = LETTERS.index(answer.strip()) if str(answer).strip() in LETTERS else _integer(row, "answer")  # type: ignore[union-attr]
    lines = [_text(row, _need(row, "question"), "question").strip()]
    lines += [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True)]
    subject = _text(row, _need(row, "subject"), "subject").replace(" ", "_")
    return _document(row, ("\n".join([*lines, "Answer:"]),), LETTERS, gold, group=subject)


def truthfulqa_mc1(row: Row) -> Document:
    """TruthfulQA (Lin et al., 2022), one true answer among false ones."""
    choices, labels = _truthfulqa(row, "mc1_targets", "Best Answer")
    if sum(labels) != 1:
        raise _bad(row, f"{sum(labels)} of the mc1 answers are marked as true, one has to be")
    return _document(row, (_primed(row),), choices, labels.index(True))


def truthfulqa_mc2(row: Row) -> Document:
    """TruthfulQA, the share of probability that the true answers get."""
    choices, labels = _truthfulqa(row, "mc2_targets", "Correct Answers")
    if not any(labels) or all(labels):
        raise _bad(row, "the mc2 answers need at least one true and one false")
    return _document(row, (_primed(row),), choices, 0, true=tuple(labels))


def _primed(row: Row) -> str:
    shown = "\n\n".join(f"Q: {question}\nA: {answer}" for question, answer in PRIMER)
    return f"{shown}\n\nQ: {_text(row, _need(row, 'question', 'Question'), 'question')}\nA:"


def _truthfulqa(row: Row, name: str, column: str) -> tuple[list[str], list[bool]]:
    """(answers, which are true): of mc_task.json, of the hub, or made from TruthfulQA.csv as mc_task.json was."""
    if "Incorrect Answers" in row.fields:
        right = str(_need(row, column)).split(";") if column == "Correct Answers" else [str(_need(row, column))]
        parts = [(part, True) for part in right]
        parts += [(part, False) for part in str(_need(row, "Incorrect Answers")).split(";")]
        targets: Any = {part.strip().rstrip(".") + ".": true for part, true in parts if part.strip()}
    else:
        targets = _need(row, name)
    if not isinstance(targets, Mapping):
        raise _bad(row, f"'{name}' is not a map from answers to 0 or 1")
    if set(targets) == {"choices", "labels"}:
        pairs = _beside(row, targets, "choices", "labels")
        targets = dict(zip(_choices(row, [choice for choice, _ in pairs]), (label for _, label in pairs), strict=True))
    return _choices(row, list(targets)), [bool(label) for label in targets.values()]


def piqa(row: Row) -> Document:
    """PIQA (Bisk et al., 2020): which of two ways reaches a goal."""
    if "query" in row.fields:
        goal = _text(row, row.fields["query"], "query").removeprefix("Question: ").removesuffix("\n")
        choices, gold = _choices(row, _need(row, "choices")), _integer(row, "gold")
    else:
        goal = _text(row, _need(row, "goal"), "goal")
        choices, gold = _choices(row, [_need(row, "sol1"), _need(row, "sol2")]), _integer(row, "label")
    return _document(row, (f"Question: {goal}\nAnswer:",), choices, gold)


def winogrande(row: Row) -> Document:
    """WinoGrande (Sakaguchi et al., 2020): each name in the blank is a context, the rest of the sentence is scored."""
    if "context_options" in row.fields:
        contexts = _choices(row, row.fields["context_options"])
        rest, gold = _text(row, _need(row, "continuation"), "continuation"), _integer(row, "gold")
    else:
        sentence = _text(row, _need(row, "sentence"), "sentence")
        if "_" not in sentence:
            raise _bad(row, "the sentence has no blank '_'")
        before, _, rest = sentence.partition("_")
        contexts = _choices(row, [_need(row, "option1"), _need(row, "option2")])
        contexts, gold = [before + option for option in contexts], _integer(row, "answer") - 1
    if not 0 <= gold < len(contexts):
        raise _bad(row, f"the right answer is number {gold + 1} of {len(contexts)}")
    return Document(tuple(contexts), (rest.strip(),), gold, origin=row.origin)


def boolq(row: Row) -> Document:
    """BoolQ (Clark et al., 2019) as SuperGLUE has it: passage, question, no or yes."""
    if "query" in row.fields:
        asked = _text(row, row.fields["query"], "query").removeprefix("Passage: ").removesuffix("\nAnswer:")
        gold = _integer(row, "gold")
    else:
        passage, question = (_text(row, _need(row, name), name) for name in ("passage", "question"))
        if "title" in row.fields:  # the authors' own file: SuperGLUE put the title in front
            passage = f"{row.fields['title']} -- {passage}"
        asked = f"{passage}\nQuestion: {question}?"
        gold = _integer(row, "label" if "label" in row.fields else "answer")
    return _document(row, (f"{asked}\nAnswer:",), ["no", "yes"], gold)


def lambada(row: Row) -> Document:
    """LAMBADA (Paperno et al., 2016) as OpenAI has it: the last word of a passage."""
    if "continuation" in row.fields:
        before, word = _text(row, _need(row, "context"), "context"), str(row.fields["continuation"]).strip()
    else:
        before, _, word = _text(row, _need(row, "text"), "text").rpartition(" ")
    if not before or not word:
        raise _bad(row, "the passage has fewer than two words")
    return Document((before,), (f" {word}",), origin=row.origin)


def gsm8k(row: Row) -> Document:
    """GSM8K (Cobbe et al., 2021): a solution that ends in `#### number`."""
    answer = _text(row, _need(row, "answer"), "answer")
    if "#### " not in answer:
        raise _bad(row, "the answer does not end in '#### number'")
    return Document(
        (f"Question: {_text(row, _need(row, 'question'), 'question')}\nAnswer:",), (answer,), origin=row.origin
    )


def wikitext(row: Row) -> Document:
    """A page of WikiText (Merity et al., 2016), its tokens made text again; perplexity counts the words and bytes
    of the page as it was."""
    page = _text(row, _need(row, "page", "text"), "page")
    return Document(("",), (_detokenized(page),), original=page, origin=row.origin)


def plain_text(row: Row) -> Document:
    """Any text."""
    text = _text(row, _need(row, "text"), "text")
    return Document(("",), (text,), original=text, origin=row.origin)


WIKITEXT_MARKS = (
    *((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", ".")),
    *((f" {mark} ", f"{mark} ") for mark in (":", ";", ".", "!", "?", ",")),
)
WIKITEXT_PAIRS = ((r"\(", r"[^\)]", r"\)", "()"), (r"\[", r"[^\]]", r"\]", "[]"), ("{", "[^}]", "}", "{}"))
WIKITEXT_REST = (
    *(("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" ° ", "°")),
    *((" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")),
)


def _detokenized(page: str) -> str:
    """Spaces around punctuation undone, in the harness's order (its rule for `' 0` never matches and is left out)."""
    text = page.replace("s '", "s'")
    for old, new in WIKITEXT_MARKS:
        text = text.replace(old, new)
    for left, inside, right, both in WIKITEXT_PAIRS:
        text = re.sub(rf"{left}\s*({inside}*?)\s*{right}", rf"{both[0]}\1{both[1]}", text)
    for mark in "\"'":
        text = re.sub(rf"{mark}\s*([^{mark}]*?)\s*{mark}", rf"{mark}\1{mark}", text)
    for old, new in WIKITEXT_REST:
        text = text.replace(old, new)
    return text


def _document(
    row: Row, contexts: tuple[str, ...], choices: Sequence[str], gold: int, *, true: tuple[bool, ...] = (), group: str = ""
) -> Document:  # fmt: skip
    if not 0 <= gold < len(choices):
        raise _bad(row, f"the right answer is number {gold + 1} of {len(choices)} choices")
    return Document(contexts, tuple(choices), gold, true, group, origin=row.origin)


def _need(row: Row, *names: str) -> Any:
    """The first of these fields that is there."""
    for name in names:
        if row.fields.get(name) is not None:
            return row.fields[name]
    wanted, found = " or ".join(f"'{name}'" for name in names), ", ".join(map(str, row.fields))
    raise _bad(row, f"no {wanted} in it; it has {found or 'nothing'}")


def _text(row: Row, value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _bad(row, f"'{name}' is not a text")
    return value


def _choices(row: Row, values: Any) -> list[str]:
    if not isinstance(values, list | tuple) or len(values) < 2:
        raise _bad(row, "there are fewer than two choices")
    if not all(isinstance(value, str) and value for value in values):
        raise _bad(row, "a choice is empty or not a text")
    return list(values)


def _beside(row: Row, columns: Mapping[str, Any], one: str, other: str) -> list[tuple[Any, Any]]:
    """Two lists that belong together, item by item."""
    lists = [columns.get(name) for name in (one, other)]
    if not all(isinstance(found, list | tuple) for found in lists) or len(lists[0]) != len(lists[1]):  # type: ignore[arg-type]
        raise _bad(row, f"'{one}' and '{other}' are not lists of the same length")
    return list(zip(*lists, strict=True))


def _integer(row: Row, name: str) -> int:
    value = _need(row, name)
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]+\s*", value):
        return int(value)
    if not isinstance(value, int):
        raise _bad(row, f"'{name}' is {value!r}, not a whole number")
    return int(value)


def _bad(row: Row, what: str) -> InputError:
    return InputError(what, where=row.origin, fix="the file must be as its authors published it: fetch it again")
