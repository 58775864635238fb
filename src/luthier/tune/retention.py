"""What is measured beside the held-out rows, to tell what a model kept: its answers to general prompts, and general texts.

These are no rows of the data: they have no reference and are not compared one by one. They stand in the same file of a stage as
the held-out rows, in lines with other keys:

    {"general": ids, "prompt_ids", "logp", "tokens"}       an answer that the untuned model gave, as this one reads it
    {"own": ids, "prompt_ids", "said": text, "ended"}      what this one answers to the same prompt
    {"text": number, "loss", "units"}                      a text of `eval.general`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.evals.forgetting import OwnAnswer

AnswerPairs = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]  # (prompt ids, answer ids)


@dataclass(frozen=True, slots=True)
class MeasuredRetention:
    """What one model makes of general prompts and texts: (log-likelihood, tokens) of each of the untuned model's `answers`, its
    `own` answers to the same prompts, and (number, loss, tokens) of each of the `texts`."""

    answers: AnswerPairs = ()
    logps: tuple[tuple[float, int], ...] = ()
    own: tuple[OwnAnswer, ...] = ()
    texts: tuple[tuple[int, float, int], ...] = ()

    def as_records(self) -> list[dict[str, Any]]:
        """Its lines."""
        general: list[dict[str, Any]] = [
            {"general": list(answer), "prompt_ids": list(prompt), "logp": logp, "tokens": count}
            for (prompt, answer), (logp, count) in zip(self.answers, self.logps, strict=True)
        ]
        own = [
            {"own": list(one.ids), "prompt_ids": list(one.prompt_ids), "said": one.text, "ended": one.ended}
            for one in self.own
        ]
        return [*general, *own, *({"text": row, "loss": loss, "units": count} for row, loss, count in self.texts)]

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]]) -> MeasuredRetention:
        """The reverse of `as_records`; lines of held-out rows are passed over."""
        general = [record for record in records if "general" in record]
        return cls(
            tuple((tuple(r["prompt_ids"]), tuple(r["general"])) for r in general),
            tuple((r["logp"], r["tokens"]) for r in general),
            tuple(
                OwnAnswer(tuple(r["prompt_ids"]), tuple(r["own"]), r["said"], r["ended"]) for r in records if "own" in r
            ),
            tuple((r["text"], r["loss"], r["units"]) for r in records if "text" in r),
        )
