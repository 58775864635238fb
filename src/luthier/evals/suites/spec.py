"""What a suite may hold: every key on one screen. Texts may hold {columns} where the group has rows."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Field(default=None, ge=0, le=1)


class Part(BaseModel):
    """A mapping of the suite. `short` is the key that a bare value stands for, as `equals: x` for `equals: {text: x}`."""

    short: ClassVar[str] = ""
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return {cls.short: value} if cls.short and not isinstance(value, dict) else value


class Equals(Part):
    """The whole answer is this text, but for white space around it."""

    short = "text"
    text: str
    ignore_case: bool = False


class Contains(Part):
    """The answer holds this text; of a list, `all` of them or `any` of them."""

    short = "all"
    all: list[str] | str = []
    any: list[str] = []
    ignore_case: bool = False


class Regex(Part):
    """The pattern is found in the answer; `^` and `$` tie it to the ends of the answer."""

    short = "pattern"
    pattern: str
    ignore_case: bool = False


class Json(Part):
    """The answer is one JSON value, bare or in one fenced block; with `inside`, it may have text around it. Of a JSON
    Schema, written here or in a file."""

    short = "valid"
    valid: Literal[True] = True
    inside: bool = False
    json_schema: dict[str, Any] | str | None = Field(None, alias="schema")


class Length(Part):
    """The answer is this long."""

    min: int = Field(0, ge=0)
    max: int | None = Field(None, ge=0)
    unit: Literal["characters", "words", "lines"] = "characters"


class Number(Part):
    """The last number in the answer is this one, give or take `within`, or the share `relative` of it."""

    short = "value"
    value: float | str
    within: float = Field(0.0, ge=0, allow_inf_nan=False)
    relative: float = Field(0.0, ge=0, allow_inf_nan=False)


class OneOf(Part):
    """The whole answer is one of these texts, but for white space around it."""

    short = "texts"
    texts: list[str]
    ignore_case: bool = False


class Similar(Part):
    """The answer is at least this like a text: by a metric of the generated answers, such as rouge_l or chrf, or with
    `by: embedding` by the cosine of what a sentence encoder makes of the two. Half of the best there is, when nobody says:
    0.5, or 50 for metrics that run to 100."""

    to: str
    at_least: float | None = Field(None, allow_inf_nan=False)
    by: str = "rouge_l"
    encoder: str = "all-minilm-l6-v2"


class Python(Part):
    """FILE.py:FUNCTION, written like a reward function, gives the answer this much or more."""

    short = "function"
    function: str
    at_least: float = Field(1.0, allow_inf_nan=False)


class Judged(Part):
    """A judge model answers yes to this question about the answer."""

    short = "question"
    question: str


class Check(Part):
    """Exactly one of these."""

    equals: Equals | None = None
    contains: Contains | None = None
    regex: Regex | None = None
    json_: Json | None = Field(None, alias="json")
    length: Length | None = None
    number: Number | None = None
    one_of: OneOf | None = None
    similar: Similar | None = None
    python: Python | None = None
    judged: Judged | None = None
    not_: Check | None = Field(None, alias="not")

    @model_validator(mode="after")
    def _one(self) -> Check:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a check is exactly one of {', '.join(names(Check))}")
        return self

    @property
    def kind(self) -> str:
        """The name of the check that is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)


class Turn(Part):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Sampling(Part):
    """How answers are made. `n` answers of each prompt are checked."""

    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    max_new_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    n: int | None = Field(None, ge=1)


class PromptSpec(Part):
    """What is asked and what is checked: a case, or what all cases of a group have in common."""

    prompt: str | None = None
    messages: list[Turn] | None = None
    system: str | None = None
    reference: str | None = None
    checks: list[Check] = []


class Case(PromptSpec):
    """One prompt. It passes when this share of its answers passes all checks."""

    name: str | None = None
    pass_rate: float | None = Share


class Group(PromptSpec):
    """Cases that belong together; with `rows`, a table whose every row makes the cases anew.

    `threshold` is the least share of the group's cases that must pass.
    """

    name: str
    cases: list[Case] = []
    rows: str | None = None
    limit: int | None = Field(None, ge=1)
    sampling: Sampling = Sampling()
    pass_rate: float | None = Share
    threshold: float | None = Share


class Suite(Part):
    """A file. `threshold` is the least share of all cases that must pass; 1 when no threshold is given anywhere."""

    name: str | None = None
    system: str | None = None
    sampling: Sampling = Sampling()
    pass_rate: float | None = Share
    threshold: float | None = Share
    groups: list[Group]


def names(part: type[Part]) -> list[str]:
    """The keys that a mapping may have, as they are written."""
    return [info.alias or name for name, info in part.model_fields.items()]
