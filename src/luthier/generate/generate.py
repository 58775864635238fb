"""Prompts -> answers, with the engine: all of them at once, or one piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.generate.engine import Engine, RunningSample
from luthier.generate.request import Request, Sample
from luthier.generate.sampling import Decode, Sampling
from luthier.model.folder import limits

ROWS = 64, 256  # sequences that run at once where nobody says: the more, the quicker, while their cache is small
CACHE = 1 << 30  # bytes of keys and values that are small
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
    """`sampling.n` samples of each prompt, in the order of the prompts.

    At most `batch` sequences run at once; by default 64, and up to 256 while their cache stays small. A sample depends
    on its prompt, its place and the seed, never on `batch` (float rounding of products of other sizes aside). `progress` is
    told after each pass where it stands; when `cancelled` answers True, the samples that have ended by then are
    returned.

    Raises InputError for a prompt without tokens or as long as the model's context, and RunError when the
    model's logits are not finite.
    """
    done: dict[tuple[int, int], Sample] = {}
    batch, made = batch or _rows(model, prompts, sampling), 0
    for step, (active, left) in enumerate(_passes(model, prompts, sampling, decode, batch), 1):
        done |= {(s.handle, s.number): s.sample(decode) for s in active if s.ended}
        made += len(active)
        if progress:
            progress(Pace(step, step + left, len(done), len(prompts) * sampling.n, made))
        if cancelled and cancelled():
            break
    return [done[place] for place in sorted(done)]


def context(model: Any) -> int | None:
    """The most tokens that the model reads, prompt and answer together; None where its configuration does not say."""
    return limits.context(model.config)


def stream(model: Any, prompt: Sequence[int], sampling: Sampling, decode: Decode) -> Generator[str, None, None]:
    """The answer to one prompt in pieces, as soon as they are certain: joined, they are `Sample.text`.

    A piece never ends within a character, and no part of a stop string is ever given out.
    """
    shown = 0
    for active, _ in _passes(model, [prompt], replace(sampling, n=1), decode, 1, text=True):
        for sequence in active:
            assert sequence.text is not None
            safe = len(sequence.text.text) if sequence.ended else sequence.text.safe
            if safe > shown:
                yield sequence.text.text[shown:safe]
                shown = safe


def _passes(
    model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, decode: Decode, rows: int, *, text: bool = False
) -> Iterator[tuple[list[RunningSample], int]]:
    """The sequences that got a token, pass by pass, none in a pass that only read; and how many passes may be left. The last
    is the one in which the last sample ends."""
    most = len(prompts) * sampling.n
    with Engine(
        model, decode, rows=max(1, min(rows, most)), pack=most * sampling.max_new_tokens >= WORTH_PACKING
    ) as engine:
        engine.submit([Request(ids, sampling, place, text) for place, ids in enumerate(prompts)])
        while engine:
            active = engine.step()
            yield active, engine.left()


def _rows(model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling) -> int:
    """How many sequences run at once where nobody says; the same on every machine."""
    config = model.config.get_text_config()
    try:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    except RuntimeError:  # layers of several shapes, as Gemma 4 has, where transformers names no one number
        return ROWS[0]
    token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    longest = max(map(len, prompts), default=0) + sampling.max_new_tokens
    least, most = ROWS
    return int(min(most, max(least, CACHE // (token * longest))))
