"""A test suite and a model -> answers -> checks -> thresholds met or missed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.config.rewards import RewardConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.stop import stopping
from luthier.core.storage.files import writing
from luthier.core.storage.opening import appending, require_writable
from luthier.core.types.examples import Message
from luthier.evals.judging.judges import CachedJudge, Judge, JudgeSpec
from luthier.evals.judging.prompt import YES_OR_NO, question_messages
from luthier.evals.suites import results
from luthier.evals.suites.cases import expand
from luthier.evals.suites.checks import EMBEDDING, AnswerToCheck, Verdict, least
from luthier.evals.suites.document import Document, read
from luthier.evals.suites.junit import junit
from luthier.evals.suites.spec import Check, Judged, Python, Similar
from luthier.model.hub.sources import resolve_encoder
from luthier.model.sentence_encoder import Encoder
from luthier.rewards.answer import Answer
from luthier.rewards.function import Function
from luthier.runs import answers
from luthier.runs.open import open_model

Stop = Callable[[], bool]
ROUNDING = 1e-6  # of the cosine of a text with itself


@dataclass(frozen=True)
class SuiteResult:
    """A suite that was run on a model."""

    document: Document
    outcomes: tuple[results.Outcome, ...]
    groups: tuple[results.Score, ...]
    all: results.Score
    seconds: float

    @property
    def met(self) -> bool:
        """Whether every threshold is."""
        return self.all.met and all(group.met for group in self.groups)

    @property
    def name(self) -> str:
        return self.document.suite.name or self.document.path.stem

    def as_dict(self) -> dict[str, Any]:
        """The keys of `luthier test --json`, but for the model."""
        return {
            "suite": self.name, "file": str(self.document.path), "met": self.met, "all": self.all.as_dict(),
            "groups": [group.as_dict() for group in self.groups], "cases": [outcome.as_dict() for outcome in self.outcomes],
            "seconds": round(self.seconds, 2),
        }  # fmt: skip


class PreparedSuite:
    """A suite made ready, to be run on one model after another. A context manager: its Python checks are processes.

    Opening it raises InputError for everything that is wrong with the suite, before any model is loaded.
    """

    def __init__(self, path: Path, judge: JudgeSpec, settings: RewardConfig, said: Path | None = None) -> None:
        self.document = read(path)
        self.cases = expand(self.document)
        self.ready = results.prepare(self.cases, path.parent)
        self.wanted, self.settings, self.said = judge, settings, said
        self.open_judge: Callable[[], Judge] | None = None
        self.judge: Judge | None = None
        self.functions: dict[str, Function] = {}
        self.encoders: dict[str, Encoder] = {}
        self._closing = ExitStack()

    def __enter__(self) -> PreparedSuite:
        if self.said and not any(check.core.judged for checks in self.ready for check in checks):
            fix = "leave it out, or give the suite a check of the kind `judged`"
            raise InputError("nothing is judged in this suite", where="--judged", fix=fix)
        try:
            for case, checks in zip(self.cases, self.ready, strict=True):
                for check, where in zip(checks, case.places, strict=True):
                    self._open(check.core, where)
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *about: Any) -> None:
        self._closing.close()

    def _open(self, check: Check, where: str) -> None:
        if check.python and check.python.function not in self.functions:
            spec = str(self.document.path.parent / check.python.function)
            _own_code(self.document.path, spec, where)
            function = Function(f"python:{check.python.function}", spec, self.settings)
            self.functions[check.python.function] = self._closing.enter_context(function)
        if check.similar and check.similar.by == EMBEDDING and check.similar.encoder not in self.encoders:
            self.encoders[check.similar.encoder] = self._encoder(check.similar.encoder, where)
        if check.judged and self.open_judge is None:
            self.open_judge = self.wanted.open(where)
            if self.said:
                _touch(self.said)

    def _encoder(self, name: str, where: str) -> Encoder:
        """The sentence encoder called `name`; a folder is looked for beside the suite first."""
        beside = self.document.path.parent / name
        try:
            return Encoder(resolve_encoder(str(beside) if beside.is_dir() else name).folder)
        except InputError as error:
            raise InputError(f"encoder '{name}': {error.what}", where=where, fix=error.fix) from error

    def run(self, model: str, stop: Stop, **opening: Any) -> SuiteResult:
        """Answer every case with the model, opened as `open_model` does with `opening`, and check the answers. Raises Stopped
        when asked to stop."""
        began = time.monotonic()
        said = self._answers(model, stop, opening)
        outcomes = results.check_all(
            self.cases, self.ready, said, lambda check, given: self._outside(check, given, stop)
        )
        groups, all_ = results.score(outcomes, self.document.suite)
        return SuiteResult(self.document, tuple(outcomes), tuple(groups), all_, time.monotonic() - began)

    def _answers(self, model: str, stop: Stop, opening: Mapping[str, Any]) -> list[list[str]]:
        """The answers to every case; cases of the same sampling are answered together."""
        opened = open_model(model, **opening)
        if long := answers.too_long(opened, [case.messages for case in self.cases]):
            raise InputError(long[min(long)], where=self.cases[min(long)].where, fix="shorten it")
        said: list[list[str]] = [[] for _ in self.cases]
        for sampling in {tuple(sorted(case.sampling.items())): case.sampling for case in self.cases}.values():
            asked = [case for case in self.cases if case.sampling == sampling]
            for case, texts in zip(
                asked, answers.write(opened, [c.messages for c in asked], sampling, stop, model), strict=True
            ):
                said[case.number] = texts
        del opened
        gc.collect()
        return said

    def _outside(self, check: Check, given: Sequence[AnswerToCheck], stop: Stop) -> list[Verdict]:
        if check.python:
            return self._python(check.python, given)
        if check.similar:
            return self._alike(check.similar, given)
        assert check.judged
        return self._judged(check.judged, given, stop)

    def _python(self, check: Python, given: Sequence[AnswerToCheck]) -> list[Verdict]:
        asked = [
            Answer(item.prompt, item.answer, item.reference, 0, True, (Message("user", item.prompt),)) for item in given
        ]
        values = self.functions[check.function](asked)
        if len(values) != len(given):
            raise InputError(
                f"gives {len(values)} numbers for {len(given)} answers", where=f"python '{check.function}'",
                fix="return one for each answer",
            )  # fmt: skip
        words = f"{check.function} gives"
        return [
            Verdict(
                value >= check.at_least,
                "" if value >= check.at_least else f"{words} {value:g}, less than {check.at_least:g}",
            )
            for value in values
        ]

    def _alike(self, check: Similar, given: Sequence[AnswerToCheck]) -> list[Verdict]:
        vectors = self.encoders[check.encoder].embed([check.to, *(item.answer for item in given)])
        alike, wanted = (vectors[1:] @ vectors[0]).tolist(), least(check)
        return [
            Verdict(True) if value >= wanted - ROUNDING else Verdict(False, f"cosine {value:.2f}, less than {wanted:g}")
            for value in alike
        ]

    def _judged(self, check: Judged, given: Sequence[AnswerToCheck], stop: Stop) -> list[Verdict]:
        assert self.open_judge
        if self.judge is None:
            self.judge = self.open_judge()
            self.judge = CachedJudge(self.judge, self.said) if self.said else self.judge
        asked = [question_messages(item.prompt, item.answer, check.question, item.reference) for item in given]
        out = [Verdict(False, "the judge's answer could not be read", decided=False)] * len(given)
        with log.progress(f"judged by {self.judge.name}", len(given)) as bar:
            for index, choice in self.judge.answer_questions(asked, stop):
                if choice is not None:
                    passed = choice.option == YES_OR_NO[0]
                    out[index] = Verdict(passed, "" if passed else f"{self.judge.name} says no: {check.question}")
                bar.advance(1)
        return out


def _own_code(suite: Path, spec: str, where: str) -> None:
    """A suite may come from others: the code that it runs is said, and lies beside it. Raises InputError for other code."""
    file, folder = Path(spec.rpartition(":")[0]).resolve(), suite.parent.resolve()
    if not file.is_relative_to(folder):
        raise InputError(
            f"{file} is code from outside the folder of the suite", where=where, fix="put it beside the suite"
        )
    log.once(f"{suite.name} runs {file.relative_to(folder)}")


def _touch(path: Path) -> None:
    """Raise InputError unless lines can be added to the file."""
    with appending(path):
        pass


def run_suite(
    path: Path, model: str, judge: JudgeSpec, *, settings: RewardConfig, xml: Path | None = None, said: Path | None = None,
    **opening: Any,
) -> SuiteResult:  # fmt: skip
    """Run a suite on a model, opened as `open_model` does with `opening`; with `xml`, write the results there for a CI server.
    What a judge says is kept in `said`, and not asked again."""
    if xml:
        require_writable(xml)
    with stopping() as stop, PreparedSuite(path, judge, settings, said) as bench:
        found = bench.run(model, stop, **opening)
    if xml:
        with writing(xml) as handle:
            handle.write(junit(found.name, found.groups, found.all, found.outcomes))
    return found
