"""The system prompt that training rows have in common: the run is opened with it, since it was learned under it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from luthier.core import log
from luthier.core.types.examples import Chat, Example, Labelled, Messages, Preference, Prompt, Ranking

FILE_NAME = "system_prompt.txt"  # beside what a run wrote
COMMON_SHARE = 0.95  # share of the rows that makes a system prompt the run's own
MAX_COUNTED = 1000  # different ones that are told apart


def trained_system(folder: Path) -> str | None:
    """The system prompt that the rows had which the model or adapter in `folder` learned from; None where it has none."""
    path = folder / FILE_NAME
    return path.read_text(encoding="utf-8") if path.is_file() else None


@dataclass
class SystemPrompts:
    """How many rows begin with which system prompt; "" counts those without one."""

    found: Counter[str] = field(default_factory=Counter)

    def add(self, examples: Iterable[Example], default: str | None) -> None:
        """Count the rows that have messages; `default` is for those without a system prompt of their own."""
        for example in examples:
            if (messages := _asked(example)) is not None:
                own = messages[0].content if messages and messages[0].role == "system" else default or ""
                self.found[own if own in self.found or len(self.found) < MAX_COUNTED else "\0others"] += 1

    def common(self) -> str | None:
        """The one that all or nearly all rows have; None where there is none."""
        (text, count), *_ = self.found.most_common(1) or [("", 0)]
        return text if text and count >= COMMON_SHARE * self.found.total() else None

    def say(self) -> None:
        """Say under which one the run will be asked, where the rows bring any."""
        rows, common = self.found.total(), self.common()
        having = rows - self.found[""]
        if common is not None:
            share = "every row has" if self.found[common] == rows else f"{self.found[common]} of {rows} rows have"
            log.note(f"{share} the same system prompt; the tuned model will be prompted with it")
        elif having:
            kinds = len(self.found) - (1 if self.found[""] else 0)
            what = "the same system prompt" if kinds == 1 else f"{kinds} different system prompts"
            log.note(
                f"{having} of {rows} rows have {what}: the tuned model will be prompted without one, unless --system or chat's "
                "--system names it"
            )


def _asked(example: Example) -> Messages | None:
    if isinstance(example, (Chat, Prompt)):
        return example.messages
    return example.prompt if isinstance(example, (Preference, Ranking, Labelled)) else None
