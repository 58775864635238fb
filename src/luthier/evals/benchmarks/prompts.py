"""Examples and the question -> the text that a model reads.

The wording is the harness's: description, examples, question; each example ends in an empty line, a space stands
before an answer. With a chat template every example is a turn of the user and one of the assistant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from luthier.core.errors import InputError
from luthier.core.types.examples import Message
from luthier.evals.benchmarks.documents import Document
from luthier.evals.benchmarks.files import Material
from luthier.evals.benchmarks.tasks import Task

SEED = 1234  # the harness's default for examples

Render = Callable[[Sequence[Message]], str]


@dataclass(frozen=True)
class Prompt:
    """What is scored for one document: every (context, continuation). A document that is generated has contexts alone."""

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """One pair for each choice, wherever the choice stands."""
        count = max(len(self.contexts), len(self.continuations))
        contexts, continuations = (
            part * (count if len(part) == 1 else 1) for part in (self.contexts, self.continuations)
        )
        return list(zip(contexts, continuations, strict=True))


class Shots:
    """Draws the examples of each document; ask for every document, in order, because the generator moves on.

    The harness draws without replacement from Python's generator with seed 1234, anew for each document; MMLU takes
    the first rows of the subject instead. Where the file of examples is absent they come from the measured rows, the
    document itself left out.

    Raises InputError where there are too few rows to take them from, of the file or of any group that is measured.
    """

    def __init__(self, task: Task, material: Material, count: int) -> None:
        self.count, self.first = count, task.first
        self.spare = task.spare or (bool(task.shot_files) and not material.own_shots)
        self.random = Random(SEED)
        self.pool = list(material.shots)
        self.groups: dict[str, list[Document]] = {}
        for document in self.pool if self.first else ():
            self.groups.setdefault(document.group, []).append(document)
        if count and self.first and not material.own_shots:
            raise InputError(
                f"no file with the examples of {task.name}: looked for {', '.join(task.shot_files)}",
                fix="add it beside the measured file, or give --shots 0",
            )  # fmt: skip
        if not self.first and len(self.pool) < count + self.spare:
            raise self._too_few(len(self.pool))
        for group in sorted({document.group for document in material.documents}) if self.first else ():
            if (found := len(self.groups.get(group, ()))) < count:
                raise self._too_few(found, group)

    def draw(self, document: Document) -> list[Document]:
        """The examples to show before `document`."""
        if not self.count:
            return []
        if self.first:
            return self.groups[document.group][: self.count]
        drawn = self.random.sample(self.pool, self.count + self.spare)
        if not self.spare:
            return drawn
        kept = [other for other in drawn if other != document][: self.count]
        if len(kept) < self.count:  # it was there more than once
            kept = self.random.sample([other for other in self.pool if other != document], self.count)
        return kept

    def _too_few(self, found: int, group: str = "") -> InputError:
        of = f" of {group}" if group else ""
        return InputError(
            f"{self.count} examples are asked for, but there are {found} rows{of} to take them from", where="--shots"
        )


def prompt(task: Task, document: Document, shots: Sequence[Document], chat: Render | None) -> Prompt:
    """The texts of one document. `chat` renders messages up to where the model answers; None is the plain wording."""
    description = task.description.format(group=document.group.replace("_", " "))
    contexts = tuple(_context(description, shots, asked, chat) for asked in document.contexts)
    space = "" if chat or task.kind != "choices" else " "
    return Prompt(contexts, tuple(f"{space}{choice}" for choice in document.choices))


def _context(description: str, shots: Sequence[Document], asked: str, chat: Render | None) -> str:
    if not chat:
        return description + "".join(f"{shot.asked} {shot.answer}\n\n" for shot in shots) + asked
    messages = [Message("system", description)] if description else []
    for shot in shots:
        messages += [Message("user", shot.asked), Message("assistant", shot.answer)]
    return chat([*messages, Message("user", asked)])
