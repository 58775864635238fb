"""Settings of what is measured, and of when to stop for it."""

from __future__ import annotations

from pydantic import Field

from luthier.config.section import Section

EVAL_ROWS, EVAL_SAMPLES = 200, 64  # that are measured where nobody says how many


class EvalConfig(Section):
    every: int = Field(0, ge=0, description="Steps between evaluations; 0 means before and after only.")
    rows: int | None = Field(
        None, ge=1, description="Held-out rows whose loss is measured; by default 200, fewer for a short training."
    )
    samples: int | None = Field(
        None, ge=0, description="Held-out rows that are generated and scored, 0 for none; by default 64. For a short training "
        "there are fewer (at least 16, and 32 rows for the loss), so that measuring takes at most half as long as training."
    )  # fmt: skip
    metrics: tuple[str, ...] = Field(
        ("auto",), description="Metrics of the generated answers: names from docs/data.md, or python:FILE:FUNCTION; 'auto' "
        "chooses by the data."
    )  # fmt: skip
    max_new_tokens: int = Field(128, ge=1, description="Longest generated answer in tokens.")
    temperature: float = Field(
        0.0,
        ge=0,
        description="How held-out answers are generated: 0 takes the likeliest token, 1 samples from the model.",
    )
    repeat: int = Field(
        1, ge=1, description="Answers sampled to each of 32 held-out prompts, beside answers to its paraphrases, to see whether "
        "they agree and what in them is unsupported or wrong; 1 for none."
    )  # fmt: skip
    patience: int = Field(
        0, ge=0, description="Stop after this many evaluations without a better loss; needs --eval.every."
    )
    forgetting: bool = Field(True, description="Measure what the model lost of its own answers.")
    general: tuple[str, ...] = Field(
        (), description="File of general texts or chats whose likelihood is measured before and after; may be repeated."
    )
    benchmark: str | None = Field(
        None, description="Benchmarks measured before and after, as `luthier eval --tasks`, such as hellaswag,arc_easy."
    )
    benchmark_dir: str | None = Field(None, description="Folder with the files of these benchmarks.")
    benchmark_limit: int = Field(50, ge=1, description="Documents of each of these benchmarks.")


class StopConfig(Section):
    forgetting: float | None = Field(
        None,
        gt=0,
        description="Stop when more nats per token than this are lost of the model's own answers; needs --eval.every.",
    )
