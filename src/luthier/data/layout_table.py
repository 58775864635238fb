"""The table of layouts: which fields each has, by which names they go, and the function that reads them.

To add a layout: a function in `layouts.py` or a module beside it, and a row in `_TABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from luthier.core.types.examples import Chat, Example, Labelled, Pair, Preference, Prompt, Ranking, Text
from luthier.data import label_studio, layouts, learned_turns, multiple_choice, preferences, rankings, spans
from luthier.data.codes import BOTH, FIRST, SECOND, VERDICTS, Codes, plain_code
from luthier.data.layouts import Values
from luthier.data.mapping import plain_name
from luthier.data.messages import is_transcript
from luthier.data.preferences import Found
from luthier.data.templated import is_templated


@dataclass(frozen=True, slots=True)
class Field:
    """What a layout reads: a column of this name, or of the first of `others` that is there; one of `better` before both."""

    name: str
    others: tuple[str, ...] = ()
    needed: bool = True
    better: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names it goes by, in the order in which they are looked for."""
        return (*self.better, self.name, *self.others)


Where = Mapping[str, str]  # field -> column
Fits = Callable[[Values, Where], bool]


def _always(values: Values, where: Where) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to write examples down.

    fits     looks at a row whose columns have the right names (field -> value, field -> column)
    code     the field whose values are codes, "" for none; `targets` are what they may mean (any text, where there are none)
    codes    what they mean, once the rows have told (`find_codes`); None reads each value as it stands
    find_codes  how the rows tell it, or are refused; None where only `--data.values` does
    parts    of mixed rows, their layouts by name
    """

    name: str
    example: type[Example]
    fields: tuple[Field, ...]
    parse: Callable[[Values], Example]
    about: str
    fits: Fits = _always
    code: str = ""
    targets: tuple[str, ...] = ()
    codes: Codes | None = None
    find_codes: Callable[[Found, Mapping[str, str]], Codes | None] | None = None
    parts: Mapping[str, Layout] = field(default_factory=dict)

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


def _is_truth(values: Values, where: Where) -> bool:
    """Whether a label says wanted or not, or may say so: then the row is refused until `--data.values` tells."""
    return learned_turns.truth(values["label"]) is not None or plain_code(values["label"]) in VERDICTS


def _is_judged(values: Values, where: Where) -> bool:
    """Whether something says which of two outputs is better, and what they answer."""
    if "outputs" in values and not (isinstance(values["outputs"], (list, tuple)) and len(values["outputs"]) == 2):
        return False
    judged = (
        {"preference"} <= where.keys()
        or {"winner_1", "winner_2"} <= where.keys()
        or {"score_1", "score_2"} <= where.keys()
    )
    output = values.get("output_1", values.get("outputs"))
    return judged and (
        "instruction" in where or isinstance(output, (list, tuple, Mapping)) or is_transcript(str(output))
    )


def _is_answered(values: Values, where: Where) -> bool:
    """Whether an answer is a text or turns; of several (`answers`), SQuAD's, which are all right ones."""
    answer = values["completion"]
    if where["completion"].lower() == "answers":
        texts = answer.get("text") if isinstance(answer, Mapping) else answer
        return isinstance(texts, (list, tuple)) and all(
            isinstance(text, str) if isinstance(answer, Mapping) else isinstance(text, Mapping) and "text" in text
            for text in texts
        )
    return not isinstance(answer, (dict, bool))


def _is_marked(values: Values, where: Where) -> bool:
    """Whether a text's label is its spans (doccano). Columns that are called spans or entities may stand beside any text or label, which
    are read as if they were not there."""
    return plain_name(where["spans"]) not in ("spans", "entities") and spans.are_spans(values["spans"])


def _is_templated(values: Values, where: Where) -> bool:
    return isinstance(values["text"], str) and is_templated(values["text"])


def _is_export(values: Values, where: Where) -> bool:
    return isinstance(values["data"], Mapping) and isinstance(values["annotations"], (list, tuple))


def _never(values: Values, where: Where) -> bool:
    """Of a layout that is declared only."""
    return False


def _is_ranked(values: Values, where: Where) -> bool:
    """Several answers with ranks or scores; without them the best stands first, in a column that is called so only."""
    items = values["responses"]
    several = isinstance(items, (list, tuple)) and len(items) > 1
    return several and (rankings.rated(values) or where["responses"].lower() == "responses")


_WITH_PROMPT = "system tools|functions chat_template_kwargs|template_kwargs"  # what any row with a prompt may have
_CONTEXT = "input|context|passage|article|support|evidence"
_PROMPT = "prompt|question|query"
_ANSWER = "completion|response|answer|output"
_THOUGHT = "reasoning_content"  # never by another name of itself: to learn a column of reasoning is for the user to say
_CONVERSATION = "messages|conversations|conversation"
_ANY_PROMPT = f"messages|conversations prompt|question|query instruction {_CONTEXT}"

_PROMPT_NAMES = "instruction|prompt|question|query|history|post|problem|info|context"
_VERDICT = "preference|winner|better_response_id|preferred|preferred_output|better|choice|verdict|labels|label|overall_preference|chosen"
_WINNERS = "winner_1|winner_model_a|winner_a winner_2|winner_model_b|winner_b winner_tie|tie"
_LABEL = Field(
    "label", ("labels", "category", "intent", "class", "sentiment", "emotion"),
    better=("label_text", "label_name", "text_label", "label_str"),
)  # fmt: skip
_BETTER, _WANTED = (FIRST, SECOND, BOTH), ("true", "false")


def _place(stem: str, place: int, stems: tuple[str, ...], others: tuple[str, ...] = ()) -> Field:
    """The field of the first or second of two columns. Of columns that count from 0 the first is free, and the next one
    follows; so the names that count from 0 come before the field's own."""
    zero = tuple(f"{name}{sign}{place}" for name in stems for sign in ("_", ""))
    one = tuple(f"{name}{sign}{place + 1}" for name in stems for sign in ("_", ""))
    letter = tuple(f"{name}{sign}{'ab'[place]}" for name in stems for sign in ("_", ""))
    return Field(f"{stem}_{place + 1}", (*one, *letter, *others), stem == "output", better=zero)


_OUTPUTS = tuple(
    _place(
        "output", place,
        ("output", "response", "answer", "completion", "generation", "summary", "candidate", "continuation"),
        (f"human_ref_{'ab'[place]}", f"conversation_{'ab'[place]}"),
    )
    for place in (0, 1)
)  # fmt: skip
_SCORED = tuple(_place("score", place, ("score", "rating", "reward")) for place in (0, 1))


# As with `_place`, the names that count from 0 come before a choice's own.
_CHOICES = tuple(
    Field(f"choice_{place}", multiple_choice.names_of(place)[1], False, multiple_choice.names_of(place)[0])
    for place in multiple_choice.PLACES
)
_CHOICE = (
    *_fields(
        "question|query|prompt|stem|question_stem|ctx|goal|sentence|startphrase|problem|instruction|premise",
        "choices|options|endings|mc1_targets|alternatives|answer_choices|answer_options|possible_answers|possible_choices|mc_options",
    ),
    *_CHOICES,
    *_fields(
        "",
        " ".join(
            f"distractor_{place}|distractor{place}|incorrect_answer_{place}|wrong_answer_{place}"
            for place in multiple_choice.PLACES
        ),
    ),
    *_fields(
        "",
        "answer|answerkey|answer_key|correct_answer|correct_option|correct|cop|target|gold|answer_idx|answer_index|gold_label|label "
        f"context|passage|article|support|sent1|premise {_WITH_PROMPT}",
    ),
)


# Tried from the top: the first whose needed fields are all there, and whose `fits` holds.
_TABLE = (
    Layout(
        "comparison", Preference,
        (*_OUTPUTS, *_fields("", f"{_PROMPT_NAMES} {_VERDICT} {_CONTEXT} {_WINNERS} {_WITH_PROMPT}"), *_SCORED),
        preferences.comparison, "two answers and which is better", _is_judged,
        "preference", _BETTER, find_codes=preferences.comparison_codes,
    ),
    Layout(
        "comparison_list", Preference,
        _fields(f"outputs|summaries|pair|responses {_VERDICT}", f"{_PROMPT_NAMES} {_CONTEXT} {_WITH_PROMPT}"),
        preferences.comparison_list, "a list of two answers and which is better", _is_judged,
        "preference", _BETTER, find_codes=preferences.comparison_codes,
    ),
    Layout(
        "preference", Preference,
        _fields(
            "chosen|accepted|preferred|preferred_output|chosen_response|response_chosen|response_j "
            "rejected|non_preferred|non_preferred_output|rejected_response|response_rejected|response_k",
            f"{_ANY_PROMPT} margin score_chosen|chosen_score|chosen_rating|chosen-rating|rating_chosen "
            f"score_rejected|rejected_score|rejected_rating|rejected-rating|rating_rejected {_WITH_PROMPT}",
        ),
        preferences.preference, "a preferred and a rejected answer, with or without their prompt",
        find_codes=preferences.check_scores,
    ),
    Layout(
        "ranking", Ranking,
        _fields(
            "prompt|instruction|question|query|input responses|generations|completions|answers|candidates|outputs",
            f"ranks|rank|rankings scores|ratings|rewards|score|rating {_WITH_PROMPT}",
        ),
        rankings.ranking, "several answers to a prompt, with ranks or scores, or best first", _is_ranked,
        find_codes=rankings.check_ranking,
    ),
    Layout(
        "unpaired", Labelled, _fields(f"{_PROMPT}|instruction {_ANSWER} label|kto_tag", f"{_CONTEXT} {_WITH_PROMPT}"),
        preferences.unpaired, "an answer, and whether it was wanted", _is_truth, "label", _WANTED,
    ),
    Layout(
        "unpaired_chat", Labelled, _fields(f"{_CONVERSATION} label|kto_tag", _WITH_PROMPT),
        preferences.unpaired, "a conversation, and whether its last answer was wanted", _is_truth, "label", _WANTED,
    ),
    Layout(
        "sharegpt", Chat, _fields(_CONVERSATION, _WITH_PROMPT),
        layouts.conversation, "conversations of from and value", lambda values, where: _speaks(values, "from"),
    ),
    Layout(
        "chat", Chat, _fields(_CONVERSATION, _WITH_PROMPT),
        layouts.conversation, "conversations of role and content, as OpenAI writes them",
    ),
    Layout(
        "alpaca", Chat, _fields("instruction output|response|answer|completion", f"{_CONTEXT} history {_THOUGHT} {_WITH_PROMPT}"),
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
        "prompt_completion", Chat, _fields(f"{_PROMPT}|input {_ANSWER}|answers", f"{_CONTEXT} {_THOUGHT} {_WITH_PROMPT}"),
        layouts.prompt_completion, "a prompt and its completion, a question and its answer",
        _is_answered,
    ),
    Layout(
        "spans", Chat, _fields("text|sentence|content spans|entities|label|labels", _WITH_PROMPT),
        spans.spans, "a text and the spans that are marked in it: what to extract", _is_marked,
    ),
    Layout(
        "labels", Chat, (*_fields("text|sentence|utterance"), _LABEL, *_fields("", _WITH_PROMPT)),
        layouts.labels, "a text and the label to answer with", code="label",
    ),
    Layout(
        "prompt", Prompt, _fields("prompt", f"answer|reference|solution {_CONTEXT} {_WITH_PROMPT}"), layouts.prompt, "prompts only"
    ),
    Layout(
        "label_studio", Chat, _fields("data annotations|completions"), label_studio.label_studio,
        "Label Studio's export: texts and the choices that people made", _is_export,
    ),
    Layout(
        "choice", Chat,
        _CHOICE,
        multiple_choice.choice, "a question, its choices and the right one", _never, "answer", tuple(multiple_choice.LETTERS),
        find_codes=multiple_choice.answer_codes,
    ),
    Layout(
        "templated", Chat, _fields("text|content|document|conversation", _WITH_PROMPT), layouts.templated,
        "conversations written in a chat template", _is_templated,
    ),
    Layout("text", Text, _fields("text|content|document"), layouts.text, "documents"),
    Layout(
        "tagged", Chat, _fields("tokens|words tags|ner_tags|ner|bio_tags|labels", _WITH_PROMPT),
        spans.tagged, "tokens and their tags (B-X, I-X, O): what to extract", lambda values, where: spans.are_tags(values),
    ),
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _TABLE}

# Declared, never detected: each row's layout is told from its own columns.
MIXED = Layout("mixed", Example, (), layouts.text, "rows of several layouts, each told by its own columns")

USUAL = ("prompt_completion", "alpaca", "chat", "text")

# Columns of multiple-choice questions: a benchmark, which no layout can train on as it stands.
CHOICES = {
    "choices", "endings", "mc1_targets", "options", "answer_choices", "answer_options", "possible_answers", "possible_choices",
    "mc_options",
}  # fmt: skip


def _speaks(values: Values, key: str) -> bool:
    turns = values["messages"]
    return isinstance(turns, list) and any(isinstance(turn, Mapping) and key in turn for turn in turns)
