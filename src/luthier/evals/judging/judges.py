"""Who judges: a model here, by probability, or a model behind an endpoint, by what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar

from luthier.core import log
from luthier.core.errors import InputError, Stopped
from luthier.core.journal import Journal
from luthier.core.storage.opening import holding
from luthier.core.types.examples import Message, Messages
from luthier.evals.judging.endpoint import Endpoint, UnusableReply, open_endpoint
from luthier.evals.judging.prompt import PAIR_OPTIONS, TIE, YES_OR_NO, Choice, Comparison, pair_messages, read_choice
from luthier.evals.likelihood import LikelihoodRequest, LikelihoodScorer
from luthier.model.folder.limits import longest_input
from luthier.runs.open import Opened, open_model, weights
from luthier.text.encode import encode_prompt_ids

T = TypeVar("T")
Stop = Callable[[], bool]


class Judge(Protocol):
    """One that chooses. What cannot be judged comes as None: too long for a local judge, unreadable from an endpoint."""

    @property
    def name(self) -> str:
        """Who the judgments are by."""
        ...

    @property
    def batch_size(self) -> int:
        """How many questions are read in one pass, so that each answer's last bits depend on the others'."""
        ...

    def digest(self) -> str:
        """What makes its judgments those of the same judge: weights or address, and all that is said to it but the pair."""
        ...

    def compare(self, asked: Sequence[Comparison], stop: Stop) -> Iterator[tuple[int, Choice | None]]:
        """(index, which answer is better) of every contest, as they become known."""
        ...

    def answer_questions(self, asked: Sequence[Messages], stop: Stop) -> Iterator[tuple[int, Choice | None]]:
        """(index, 'Yes' or 'No') of every question."""
        ...


@dataclass(frozen=True)
class LocalJudge:
    """Chooses the option of which it gives the higher probability as its answer. `tokens` bounds a forward pass."""

    name: str
    opened: Opened
    tokens: int = 4096
    batch_size: int = 64

    def digest(self) -> str:
        opened = self.opened
        return _digest(weights(self.name), opened.template.fingerprint, opened.config.text.system, written=False)

    def compare(self, asked: Sequence[Comparison], stop: Stop) -> Iterator[tuple[int, Choice | None]]:
        return self._choose([contest.messages for contest in asked], PAIR_OPTIONS, stop)

    def answer_questions(self, asked: Sequence[Messages], stop: Stop) -> Iterator[tuple[int, Choice | None]]:
        return self._choose(asked, YES_OR_NO, stop)

    def _choose(
        self, asked: Sequence[Messages], options: tuple[str, str], stop: Stop
    ) -> Iterator[tuple[int, Choice | None]]:
        opened = self.opened
        answers = [tuple(ids) for ids in opened.tokenizer.encode_pieces([("\n", option) for option in options])]
        requests = [
            LikelihoodRequest(
                tuple(encode_prompt_ids(m, (), opened.template, opened.tokenizer, system=opened.config.text.system)),
                ids,
            )
            for m in asked
            for ids in answers
        ]
        opened.model.eval()
        scorer = LikelihoodScorer(opened.model, longest_input(opened.model.config, opened.tokenizer.fast), self.tokens)
        for start in range(0, len(requests), 2 * self.batch_size):
            scorer.forget()
            half: dict[int, tuple[int, float]] = {}
            for index, answer in scorer.answer(requests[start : start + 2 * self.batch_size]):
                if stop():
                    raise Stopped("stopped while judging")
                place, option = divmod(start + index, 2)
                if place not in half:
                    half[place] = (option, answer.logp)
                    continue
                other, logp = half.pop(place)
                first, second = (logp, answer.logp) if other == 0 else (answer.logp, logp)
                chosen = options[0] if first >= second else options[1]
                yield place, None if answer.cut else Choice(chosen, first - second)


@dataclass(frozen=True)
class CachedJudge:
    """A judge whose answers to questions are kept in a file, {"judge", "asked", "said"} a line, and not asked for again."""

    judge: Judge
    path: Path

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def batch_size(self) -> int:
        return self.judge.batch_size

    @cached_property
    def _who(self) -> str:
        return self.judge.digest()  # reads all the weights of a local judge

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self.path, "delete the line, and that comparison is asked again")

    def digest(self) -> str:
        return self._who

    def compare(self, asked: Sequence[Comparison], stop: Stop) -> Iterator[tuple[int, Choice | None]]:
        return self.judge.compare(asked, stop)

    def answer_questions(self, asked: Sequence[Messages], stop: Stop) -> Iterator[tuple[int, Choice | None]]:
        keys = [
            _digest(*((message.role, message.content) for message in messages), written=False) for messages in asked
        ]
        with holding(self.path, lambda: log.note(f"another process writes {self.path}; waiting for it")):
            known = self._known()
            yield from ((i, Choice(known[key])) for i, key in enumerate(keys) if key in known)
            rest = in_unfinished_batches([key in known for key in keys], self.batch_size)
            for place, choice in self.judge.answer_questions([asked[i] for i in rest], stop):
                if (key := keys[rest[place]]) in known:
                    continue
                if choice is not None:
                    self._journal.add({"judge": self._who, "asked": key, "said": choice.option})
                yield rest[place], choice

    def _known(self) -> dict[str, str]:
        """What this judge said: question -> answer. Lines of others are passed over, and what earlier versions left of a line
        that a kill cut short."""
        found = self._journal.read(dict, fragments=True)
        return {
            line["asked"]: line["said"]
            for line in found
            if line.get("judge") == self._who and line.get("said") in YES_OR_NO and isinstance(line.get("asked"), str)
        }


@dataclass(frozen=True)
class EndpointJudge:
    """Asks a model behind an endpoint, `parallel` questions at a time."""

    endpoint: Endpoint
    parallel: int = 4
    batch_size: int = 1

    @property
    def name(self) -> str:
        return self.endpoint.model

    def digest(self) -> str:
        endpoint = self.endpoint
        return _digest(endpoint.url, endpoint.model, dict(endpoint.extra), written=True)

    def compare(self, asked: Sequence[Comparison], stop: Stop) -> Iterator[tuple[int, Choice | None]]:
        shown = [pair_messages(c.prompt, c.answers[c.order[0]], c.answers[c.order[1]], written=True) for c in asked]
        return self._choose(shown, (*PAIR_OPTIONS, TIE), stop)

    def answer_questions(self, asked: Sequence[Messages], stop: Stop) -> Iterator[tuple[int, Choice | None]]:
        return self._choose(asked, YES_OR_NO, stop)

    def _choose(
        self, asked: Sequence[Messages], options: tuple[str, ...], stop: Stop
    ) -> Iterator[tuple[int, Choice | None]]:
        def accept(text: str) -> Choice:
            option = read_choice(text, options)
            if option is None:
                raise UnusableReply(f"the answer names none of {', '.join(options)}: {text[-80:]!r}")
            return Choice(option)

        def one(messages: Messages) -> Choice | None:
            try:
                return self.endpoint.complete(messages, accept, stop)
            except UnusableReply as error:
                log.warn(f"left out: {error}")
                return None

        yield from _in_parallel(one, asked, self.parallel, stop)


def in_unfinished_batches(known: Sequence[bool], together: int) -> list[int]:
    """What is still to be asked: of every `together` one after the other all, where one of them is not known."""
    return [
        i
        for start in range(0, len(known), together)
        if not all(known[start : start + together])
        for i in range(start, min(start + together, len(known)))
    ]


def _digest(*parts: Any, written: bool) -> str:
    wording = pair_messages((Message("user", ""),), "", "", written=written)[0].content
    return sha256(json.dumps([*parts, wording], sort_keys=True).encode()).hexdigest()[:16]


def _in_parallel(
    one: Callable[[T], Choice | None], asked: Sequence[T], parallel: int, stop: Stop
) -> Iterator[tuple[int, Choice | None]]:
    """(index, one(item)) as they are done, `parallel` at a time; those under way when one fails are given out first."""
    waiting = iter(enumerate(asked))
    running: dict[Future[Choice | None], int] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(parallel) as pool:
        while True:
            while len(running) < parallel and failure is None and not stop():
                item = next(waiting, None)
                if item is None:
                    break
                running[pool.submit(one, item[1])] = item[0]
            if not running:
                break
            for done in wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done:
                index = running.pop(done)
                if (error := done.exception()) is not None:
                    failure = failure or error
                else:
                    yield index, done.result()
    if stop():
        raise Stopped("stopped while judging")
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class JudgeSpec:
    """The judge that the options of a command name."""

    judge: str | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    key_env: str | None = None
    timeout: float = 120.0
    retries: int = 5
    parallel: int = 4
    request: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"

    def open(self, where: str | None = None) -> Callable[[], Judge]:
        """Check the options now; what comes back opens the judge when it is needed. `where` is what needs one.

        Raises InputError when no judge, or two, are named, and for an endpoint that is none.
        """
        if (self.judge is None) == (self.endpoint is None):
            what = "two judges" if self.judge else "no judge is named"
            raise InputError(what, where=where, fix="give --judge MODEL, or --endpoint URL with --endpoint-model NAME")
        if self.judge is not None:
            name = self.judge
            return lambda: LocalJudge(name, open_model(name, device=self.device, dtype=self.dtype))
        found = open_endpoint(
            self.endpoint or "", self.endpoint_model, self.key_env, self.timeout, self.retries, self.request
        )
        return lambda: EndpointJudge(found, self.parallel)
