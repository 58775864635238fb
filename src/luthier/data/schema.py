"""The table of layouts: which fields each has, by which names they go, and the function that reads them.

To add a layout: a function in `layouts.py` and a row in LAYOUTS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from luthier.core.types import Chat, Example, Labelled, Pair, Preference, Prompt, Ranking, Text
from luthier.data import flags, layouts
from luthier.data.layouts import Values


@dataclass(frozen=True, slots=True)
class Field:
    """What a layout reads: a column of this name, or of the first of `others` that is there."""

    name: str
    others: tuple[str, ...] = ()
    needed: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """All names it goes by, its own first."""
        return (self.name, *self.others)


def _always(values: Values) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to write examples down. `fits` looks at a row whose columns have the right names."""

    name: str
    example: type[Example]
    fields: tuple[Field, ...]
    parse: Callable[[Values], Example]
    about: str
    fits: Callable[[Values], bool] = _always

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of the fields every row must have."""
        return tuple(field.name for field in self.fields if field.needed)

    @property
    def names(self) -> set[str]:
        """All names its fields go by."""
        return {name for field in self.fields for name in field.names}


def _fields(needed: str, optional: str = "") -> tuple[Field, ...]:
    """'a|b c' -> field a, which may be called b, and field c."""
    split = [(word.split("|"), True) for word in needed.split()]
    split += [(word.split("|"), False) for word in optional.split()]
    return tuple(Field(names[0], tuple(names[1:]), need) for names, need in split)


def _is_truth(values: Values) -> bool:
    return flags.truth(values["label"]) is not None


_BESIDE = "system tools chat_template_kwargs|template_kwargs"  # what any row with a prompt may have
_PROMPT = "prompt|question|query"
_ANSWER = "completion|response|answer|output"
_TALK = "messages|conversations|conversation"
_ANY_PROMPT = "messages|conversations prompt|question instruction input"

# Tried from the top: the first whose needed fields are all there, and whose `fits` holds.
_TABLE = (
    Layout(
        "comparison", Preference, _fields("instruction|prompt|question output_1 output_2 preference", f"input {_BESIDE}"),
        layouts.comparison, "two answers and which is better: 1, 2, or a tie",
    ),
    Layout(
        "ranking", Ranking, _fields("prompt|instruction|question responses", f"ranks {_BESIDE}"),
        layouts.ranking, "several answers to a prompt, best first or with ranks",
    ),
    Layout(
        "preference", Preference,
        _fields("chosen|accepted|preferred rejected|non_preferred", f"{_ANY_PROMPT} margin {_BESIDE}"),
        layouts.preference, "a preferred and a rejected answer, with or without their prompt",
    ),
    Layout(
        "unpaired", Labelled, _fields(f"{_PROMPT}|instruction {_ANSWER} label|kto_tag", _BESIDE),
        layouts.unpaired, "an answer, and whether it was wanted", _is_truth,
    ),
    Layout(
        "unpaired_chat", Labelled, _fields(f"{_TALK} label|kto_tag", _BESIDE),
        layouts.unpaired, "a conversation, and whether its last answer was wanted", _is_truth,
    ),
    Layout(
        "sharegpt", Chat, _fields(_TALK, _BESIDE),
        layouts.conversation, "conversations of from and value", lambda values: _speaks(values, "from"),
    ),
    Layout(
        "chat", Chat, _fields(_TALK, _BESIDE),
        layouts.conversation, "conversations of role and content, as OpenAI writes them",
    ),
    Layout(
        "alpaca", Chat, _fields("instruction output|response|answer|completion", f"input|context history {_BESIDE}"),
        layouts.alpaca, "an instruction, perhaps with an input, and its output",
    ),
    Layout(
        "triplet", Pair,
        _fields("anchor|query|sentence1|text1 positive|pos|sentence2|text2 negative|neg|sentence3|text3", "score"),
        layouts.pair, "a text, one that belongs to it, and one that does not",
    ),
    Layout(
        "pair", Pair, _fields("anchor|sentence1|text1|premise positive|sentence2|text2|hypothesis", "score|similarity"),
        layouts.pair, "two texts that belong together, perhaps with a score",
    ),
    Layout(
        "prompt_completion", Chat, _fields(f"{_PROMPT}|input {_ANSWER}", _BESIDE),
        layouts.prompt_completion, "a prompt and its completion, a question and its answer",
        lambda values: not isinstance(values["completion"], (dict, bool)),
    ),
    Layout(
        "labels", Chat, _fields("text|sentence|utterance label|category|intent|class", _BESIDE),
        layouts.labels, "a text and the label to answer with",
    ),
    Layout("prompt", Prompt, _fields("prompt", f"answer|reference|solution {_BESIDE}"), layouts.prompt, "prompts only"),
    Layout("text", Text, _fields("text|content|document"), layouts.text, "documents"),
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _TABLE}

# Declared, never detected: each row's layout is told from its own columns.
MIXED = Layout("mixed", Example, (), layouts.text, "rows of several layouts, each told by its own columns")

USUAL = ("prompt_completion", "alpaca", "chat", "text")

# Columns of multiple-choice questions: a benchmark, which no layout can train on as it stands.
CHOICES = {"choices", "endings", "mc1_targets", "options"}


def _speaks(values: Values, key: str) -> bool:
    turns = values["messages"]
    return isinstance(turns, list) and any(isinstance(turn, Mapping) and key in turn for turn in turns)
