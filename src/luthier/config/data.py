"""Settings of data and of its text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from luthier.config.section import Section
from luthier.core.errors import InputError

STDLIB = "stdlib"  # as data: functions of Python's standard library and their docstrings, the quickstart's task

FORMATS = (
    "openai",
    "trl",
    "alpaca",
    "sharegpt",
)  # what `luthier data --to` writes; here, where its --help reads them without the code


class DataConfig(Section):
    path: tuple[str, ...] = Field((), description="Files, folders or globs to train on; '-' is standard input.")
    eval: tuple[str, ...] = Field(
        (),
        description="Held-out file, folder or quoted glob; may be repeated. Without one, the share `holdout` of the "
        "data is held out.",
    )
    layout: str = Field("auto", description="Layout of the rows; 'auto' detects it.")
    prompt: str | None = Field(
        None,
        description="Prompt of each row, with its columns in braces: '{ticket}'; or a column. `completion` as well; both make "
        "any rows of columns prompts with answers (docs/data.md).",
    )
    completion: str | None = Field(None, description="What is answered: '{category}\\n{why}', or a column.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Column names: FIELD=COLUMN, such as output=answer; nested ones with dots (text=meta.title), several in a "
        "template (text='{title}: {body}'), those of one file with its name (test.csv:output=answer).",
    )
    values: dict[str, str] = Field(
        default_factory=dict,
        description="What coded values mean: VALUE=MEANING, such as 1=output_1,2=output_2,0=tie; good=true; 3=angry.",
    )
    holdout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of the rows kept for evaluation when no eval file is given; by default 0.05, more for small "
        "data: 32 of 200 to 640 rows, 0.16 of fewer.",
    )
    group: str | None = Field(None, description="Column whose equal values stay together on one side of the split.")
    limit: int | None = Field(None, ge=1, description="Use only the first N rows.")
    skip_bad: bool = Field(False, description="Skip and count rows that cannot be read, instead of stopping.")
    max_row: int = Field(
        16, ge=1, le=1000, description="Longest row in MB; with `skip_bad`, longer lines are left out."
    )
    stream: bool = Field(
        False,
        description="Read rows as they are needed, for data larger than memory, a growing file, or standard input.",
    )
    replay: tuple[str, ...] = Field(
        (),
        description="File of general rows to mix in, so that less is forgotten (docs/forgetting.md); may be repeated.",
    )
    replay_share: float = Field(0.1, gt=0, lt=1, description="Share of the examples that are general rows.")

    @property
    def mapping(self) -> dict[str, str]:
        """FIELD -> column, path or template, of `columns`, `prompt` and `completion`. Raises InputError for one that is given twice."""
        own = {"prompt": self.prompt, "completion": self.completion}
        told = {name: column for name, column in own.items() if column is not None}
        if twice := sorted(told.keys() & self.columns.keys()):
            raise InputError(
                f"'{twice[0]}' is mapped twice", where=f"--data.{twice[0]}", fix="leave it out of --data.columns"
            )
        return self.columns | told

    def of_other_rows(self) -> DataConfig:
        """These settings for files beside the data: what is said of the data's own columns, layout and groups does not hold there."""
        own: dict[str, Any] = {
            "columns": {},
            "prompt": None,
            "completion": None,
            "layout": "auto",
            "limit": None,
            "group": None,
        }
        return self.model_copy(update=own)

    @property
    def read_as(self) -> str:
        """The layout; with a prompt and a completion that are told, the one that has these and nothing else."""
        told = self.prompt is not None and self.completion is not None and self.layout == "auto"
        return "prompt_completion" if told else self.layout


class TextConfig(Section):
    template: str = Field(
        "auto", description="'auto' (the model's own, or alpaca), 'alpaca', 'plain', or a Jinja file."
    )
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Value that the template reads: NAME=VALUE, such as enable_thinking=false, or a JSON object of several.",
    )
    add_tokens: str | None = Field(
        None,
        description="File of tokens to add to the tokenizer, one per line or a JSON list; embedding and head then learn in full, beside "
        "adapters too.",
    )
    system: str | None = Field(None, description="System prompt for conversations that have none.")
    train_on: Literal["assistant", "last", "all"] = Field("assistant", description="Which turns are learned.")
    max_length: int = Field(1024, ge=8, description="Longest example in tokens.")
    too_long: Literal["cut", "drop"] = Field(
        "cut", description="What happens to a longer example: cut its end, or drop it. Both are counted."
    )
