"""Prompts -> answers, with the engine: all of them at once, or one piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.generate.engine import Engine, RunningSample
from luthier.generate.request import Request, Sample
from luthier.generate.sampling import Decode, Sampling
from luthier.model.adapt.roles import Role
from luthier.model.folder import limits

WORTH_PACKING = 256  # tokens from which on packing the weights first takes less time than it saves


@dataclass(frozen=True)
class Pace:
    """Where generation stands after a pass: `step` passes of `most` that there can be at most, `ended` of `total` samples, `made`
    tokens so far."""

    step: int
    most: int
    ended: int
    total: int
    made: int

    @property
    def words(self) -> str:
        return f"step {self.step:,} of at most {self.most:,}, {self.ended:,} of {self.total:,} done"


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    decode: Decode,
    *,
    batch: int | None = None,
    progress: Callable[[Pace], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[Sample]:
    """`sampling.n` samples of each prompt, in the order of the prompts: see `complete`."""
    requests = [Request(ids, sampling, place) for place, ids in enumerate(prompts)]
    return complete(model, requests, decode, batch=batch, progress=progress, cancelled=cancelled)


def complete(
    model: Any,
    requests: Sequence[Request],
    decode: Decode,
    *,
    adapters: Mapping[str, Role] | None = None,
    batch: int | None = None,
    progress: Callable[[Pace], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[Sample]:
    """All samples of all requests, in their order. `adapters` are those that requests name.

    At most `batch` sequences run at once; by default 64, and up to 256 while their cache stays small. A sample depends
    on its request alone, never on `batch` (float rounding of products of other sizes aside). `progress` is
    told after each pass where it stands; when `cancelled` answers True, the samples that have ended by then are
    returned.

    Raises InputError for a prompt without tokens or as long as the model's context and for an unknown adapter, and RunError
    when the model's logits are not finite.
    """
    done: dict[tuple[int, int], Sample] = {}
    batch, made = batch or _rows(model, requests), 0
    total = sum(request.sampling.n for request in requests)
    for step, (active, left) in enumerate(_passes(model, requests, decode, batch, adapters), 1):
        done |= {(s.handle, s.number): s.sample(decode) for s in active if s.ended}
        made += len(active)
        if progress:
            progress(Pace(step, step + left, len(done), total, made))
        if cancelled and cancelled():
            break
    return [done[place] for place in sorted(done)]


def context(model: Any) -> int | None:
    """The most tokens that the model reads, prompt and answer together; None where its configuration does not say."""
    return limits.context(model.config)


def stream(
    model: Any, prompt: Sequence[int], sampling: Sampling, decode: Decode, *, adapter: str | None = None,
    adapters: Mapping[str, Role] | None = None,
) -> Generator[str, None, None]:  # fmt: skip
    """The answer to one prompt in pieces, as soon as they are certain: joined, they are `Sample.text`.

    A piece never ends within a character, and no part of a stop string is ever given out.
    """
    shown = 0
    request = Request(prompt, replace(sampling, n=1), text=True, adapter=adapter)
    for active, _ in _passes(model, [request], decode, 1, adapters):
        for sequence in active:
            assert sequence.text is not None
            safe = len(sequence.text.text) if sequence.ended else sequence.text.safe
            if safe > shown:
                yield sequence.text.text[shown:safe]
                shown = safe


def _passes(
    model: Any, requests: Sequence[Request], decode: Decode, rows: int, adapters: Mapping[str, Role] | None
) -> Iterator[tuple[list[RunningSample], int]]:
    """The sequences that got a token, pass by pass, none in a pass that only read; and how many passes may be left. The last
    is the one in which the last sample ends."""
    most = sum(request.sampling.n for request in requests)
    pack = sum(request.sampling.n * request.sampling.max_new_tokens for request in requests) >= WORTH_PACKING
    with Engine(model, decode, rows=max(1, min(rows, most)), pack=pack, adapters=adapters) as engine:
        engine.submit(requests)
        while engine:
            active = engine.step()
            yield active, engine.left()


def _rows(model: Any, requests: Sequence[Request]) -> int:
    """How many sequences run at once where nobody says; the same on every machine."""
    longest = max((len(one.ids) + one.sampling.max_new_tokens for one in requests), default=1)
    return limits.rows_at_once(model.config, model.dtype.itemsize, longest)
