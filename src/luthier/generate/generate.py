"""Generation for chat, evaluation and rollouts, on an unmodified transformers decoder.

One forward pass serves everything that runs: its row of tokens holds the newest token of each running
sequence, then pieces of prompts that are still to be read. So the batch stays full while answers end and
new prompts enter, nothing is padded, and a prompt is read once however many samples it has.

    waiting prompts --read--> keys and values of the prompt --copied--> a row of the cache, while it runs

Shape legend: T tokens of a pass, B running sequences, P tokens of a prompt, L tokens stored, D head size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from luthier.core.errors import InputError
from luthier.generate.sampling import TORN, Decode, Sampling, Text, draw, random_numbers
from luthier.model.adapt.lora import cast_once
from luthier.model.folder import limits
from luthier.model.layers.attention import NAME
from luthier.model.layers.packed import packed

PASS = 1024  # prompt tokens read in one pass, at most
SHARED = 16  # a common beginning of at least so many tokens is read once for all prompts
ROWS = 64, 256  # sequences that run at once where nobody says: the more, the quicker, while their cache is small
CACHE = 1 << 30  # bytes of keys and values that are small
WORTH_PACKING = 256  # tokens from which on packing the weights first takes less time than it saves

Ended = Literal["stop", "length", "stop_string"]


@dataclass(frozen=True)
class Sample:
    """One answer.

    prompt  index of its prompt
    ids     the new tokens, the stop token or the tokens of the stop string included
    text    their text without the stop token or from the stop string on, and without a character cut in half
    logp    log p(ids[i] | prompt, ids[:i]) under the model itself, before temperature, penalty and filters
    ended   by a stop token, by length (max_new_tokens, or the model's context is full), or by a stop string
    """

    prompt: int
    ids: tuple[int, ...]
    text: str
    logp: tuple[float, ...]
    ended: Ended


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
    for step, (active, left) in enumerate(_passes(model, prompts, sampling, decode, batch, bool(sampling.stop)), 1):
        done |= {(s.prompt.index, s.number): s.sample(decode) for s in active if s.ended}
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
    for active, _ in _passes(model, [prompt], replace(sampling, n=1), decode, 1, True):
        for sequence in active:
            assert sequence.text is not None
            safe = len(sequence.text.text) if sequence.ended else sequence.text.safe
            if safe > shown:
                yield sequence.text.text[shown:safe]
                shown = safe


@dataclass(eq=False)
class _Prompt:
    """A prompt that is read, piece by piece: its keys and values [kv_heads, P, D] by layer, and the logits after it.

    `left` counts its samples that have not entered the cache: after the last, nothing is kept.
    """

    index: int
    ids: Sequence[int]
    left: int
    prefix: _Prompt | None = None
    read: int = 0
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    logits: torch.Tensor | None = None

    def store(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add k and v [kv_heads, t, D] of the next t tokens; returns those of all tokens so far."""
        if layer not in self.keys:
            self.keys[layer] = k.new_empty(k.shape[0], len(self.ids), k.shape[2])
            self.values[layer] = v.new_empty(v.shape[0], len(self.ids), v.shape[2])
            if self.prefix:
                self.keys[layer][:, : self.read] = self.prefix.keys[layer]
                self.values[layer][:, : self.read] = self.prefix.values[layer]
        until = self.read + k.shape[1]
        self.keys[layer][:, self.read : until] = k
        self.values[layer][:, self.read : until] = v
        return self.keys[layer][:, :until], self.values[layer][:, :until]

    def release(self) -> None:
        """One sample fewer needs it."""
        self.left -= 1
        if not self.left:
            self.prefix = self.logits = None
            self.keys.clear()
            self.values.clear()


@dataclass(eq=False)
class _Sequence:
    """A sample that runs."""

    prompt: _Prompt
    number: int
    limit: int
    share: np.ndarray
    text: Text | None
    seen: torch.Tensor | None
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    ended: Ended | None = None

    def push(self, token: int, logp: float, sampling: Sampling) -> None:
        """One more token, and whether the sample ends with it."""
        self.ids.append(token)
        self.logp.append(logp)
        if token in sampling.stop_ids:
            self.ended = "stop"
            return
        if self.text:
            self.text.add(token)
            if self.text.stopped:
                self.ended = "stop_string"
                return
        if len(self.ids) == self.limit:
            self.ended = "length"

    def sample(self, decode: Decode) -> Sample:
        assert self.ended
        body = self.ids[:-1] if self.ended == "stop" else self.ids
        text = self.text.text if self.text else decode(body).rstrip(TORN)
        return Sample(self.prompt.index, tuple(self.ids), text, tuple(self.logp), self.ended)


class DecodeCache:
    """Keys and values of the running sequences, one row each and no padding: a sequence of l tokens fills
    places 0..l-1 of its row in the buffers [rows, kv_heads, capacity, D] of every layer.

    It is the `tree` of a forward pass: `plan` says what the pass holds, `attend` stores its keys and values
    and attends. Buffers double when a sequence outgrows them, up to the `longest` there will be; a row that ends is
    filled by another.
    """

    def __init__(self, rows: int, longest: int) -> None:
        self.lengths: list[int] = []
        self._rows, self._most = rows, longest
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}

    def plan(self, pieces: Sequence[tuple[_Prompt, int]], device: torch.device) -> None:
        """Prepare for a pass of one token per row, then `size` tokens of each (prompt, size)."""
        self._pieces = pieces
        self._longest = max(self.lengths, default=0) + 1
        self._at = torch.tensor(self.lengths, device=device)
        self._row = torch.arange(len(self.lengths), device=device)
        self._masks: dict[int | None, torch.Tensor | None] = {}

    def advance(self) -> None:
        """The pass is over: what it stored counts."""
        self.lengths = [length + 1 for length in self.lengths]
        for prompt, size in self._pieces:
            prompt.read += size

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """q [1, heads, T, D], k and v [1, kv_heads, T, D] -> [1, T, heads, D]; see `Attender`."""
        q, k, v = q[0], k[0], v[0]
        start = len(self.lengths)
        out = [self._decode(layer, q[:, :start], k[:, :start], v[:, :start], scaling, window)] if start else []
        for prompt, size in self._pieces:
            part = slice(start, start + size)
            out.append(_read(prompt, layer, q[:, part], k[:, part], v[:, part], scaling, window))
            start += size
        return (out[0] if len(out) == 1 else torch.cat(out))[None]

    def _decode(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """One new token per row. The heads that share keys are the queries of one attention [B, kv_heads]."""
        heads, count, size = q.shape
        keys, values = self._buffers(layer, self._longest, k, v)
        keys[self._row, :, self._at] = k.transpose(0, 1)
        values[self._row, :, self._at] = v.transpose(0, 1)
        out = scaled_dot_product_attention(
            q.transpose(0, 1).reshape(count, k.shape[0], -1, size),
            keys[:count, :, : self._longest],
            values[:count, :, : self._longest],
            attn_mask=self._mask(window, q.dtype),
            scale=scaling,
        )
        return out.reshape(count, heads, -1)

    def _mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """[B, 1, 1, L], 0 where a row may look and -inf elsewhere; None when every row may look everywhere."""
        if window not in self._masks:
            whole = min(self.lengths) + 1 == self._longest and (window is None or self._longest <= window)
            self._masks[window] = None if whole else self._visible(window, dtype)
        return self._masks[window]

    def _visible(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        place, last = torch.arange(self._longest, device=self._at.device), self._at[:, None]
        hidden = place > last
        if window is not None:
            hidden |= place <= last - window
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
        return mask[:, None, None]

    def _buffers(self, layer: int, length: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's buffers, made or doubled so that they hold `length` tokens like k and v [kv_heads, _, D]."""
        for buffers, new in ((self._keys, k), (self._values, v)):
            old = buffers.get(layer)
            if old is not None and old.shape[2] >= length:
                continue
            # zeros, since what a mask hides is still multiplied (by 0), and 0 times a stray NaN is NaN
            buffers[layer] = new.new_zeros(
                self._rows, new.shape[0], max(length, min(self._most, max(64, 2 * length))), new.shape[2]
            )
            if old is not None:
                buffers[layer][:, :, : old.shape[2]] = old
        return self._keys[layer], self._values[layer]

    def enter(self, row: int, prompt: _Prompt) -> None:
        """Copy what was read of a prompt into a row: one that ended, or the next unused one."""
        for layer, k in prompt.keys.items():
            v = prompt.values[layer]
            keys, values = self._buffers(layer, prompt.read + 1, k, v)
            keys[row, :, : prompt.read] = k
            values[row, :, : prompt.read] = v
        self.lengths[row : row + 1] = [prompt.read]

    def leave(self, row: int) -> None:
        """Drop a row; the last row moves into its place."""
        length = self.lengths.pop()
        if row == (last := len(self.lengths)):
            return
        for buffers in (self._keys, self._values):
            for buffer in buffers.values():
                buffer[row, :, :length] = buffer[last, :, :length]
        self.lengths[row] = length


def _read(
    prompt: _Prompt, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, window: int | None
) -> torch.Tensor:
    """Attention of the next t tokens of a prompt to all its tokens so far: q [heads, t, D] -> [t, heads, D]."""
    keys, values = prompt.store(layer, k, v)
    size, total = q.shape[1], keys.shape[1]
    plain = size == total and (window is None or total <= window)
    mask = None
    if not plain:
        mask = torch.ones(size, total, dtype=torch.bool, device=q.device).tril_(total - size)
        if window is not None:
            mask.triu_(total - size - window + 1)
    out = scaled_dot_product_attention(
        q[None], keys[None], values[None], attn_mask=mask, is_causal=plain, scale=scaling, enable_gqa=True
    )
    return out[0].transpose(0, 1)


class _Run:
    """What runs and what waits. `step` makes one pass: every running sequence gets its next token."""

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, decode: Decode, batch: int, text: bool
    ) -> None:
        self.model, self.sampling, self.decode, self.text = model, sampling, decode, text
        assert batch >= 1
        assert model.config.get_text_config()._attn_implementation == NAME, "the model must attend through its cache"
        self.batch = min(batch, len(prompts) * sampling.n)
        self.context = context(model)
        for index, ids in enumerate(prompts):
            _check(index, ids, self.context)
        self.cache = DecodeCache(self.batch, _longest(prompts, sampling))
        self.running: list[_Sequence] = []
        self.ready: deque[_Sequence] = deque()
        self.waiting: deque[_Prompt] = deque(self._share(prompts))

    def __bool__(self) -> bool:
        return bool(self.running or self.ready or self.waiting)

    def _share(self, prompts: Sequence[Sequence[int]]) -> list[_Prompt]:
        """The prompts as they wait, after reading what all of them begin with."""
        n, common = self.sampling.n, _common(prompts) if len(prompts) > 1 else 0
        if common < SHARED:
            return [_Prompt(index, ids, n) for index, ids in enumerate(prompts)]
        prefix = _Prompt(-1, prompts[0][:common], left=1)
        while prefix.read < common:
            self._forward([(prefix, min(PASS, common - prefix.read))])
        return [_Prompt(index, ids, n, prefix, common) for index, ids in enumerate(prompts)]

    @torch.inference_mode()
    def step(self) -> list[_Sequence]:
        """One pass; returns the sequences that got a token."""
        pieces = self._choose()
        logits = [self._forward(pieces)[: len(self.running)]] if self.running or pieces else []
        for prompt, _ in pieces:
            if prompt.read == len(prompt.ids):
                self.waiting.popleft()
                self.ready += [self._start(prompt, number) for number in range(self.sampling.n)]
        free = self.batch - len(self.running)
        entering = [self.ready.popleft() for _ in range(min(free, len(self.ready)))]
        active = self.running + entering
        logits += [s.prompt.logits for s in entering if s.prompt.logits is not None]
        if active:
            self._draw(active, torch.cat(logits) if len(logits) > 1 else logits[0])
        self._settle(entering)
        return active

    def left(self) -> int:
        """The most passes that there can still be. While prompts wait for rows, as many as any order of them could take."""
        running = [sequence.limit - len(sequence.ids) for sequence in self.running]
        entering = [sequence.limit for sequence in self.ready]
        entering += [self._limit(prompt) for prompt in self.waiting for _ in range(prompt.left)]
        unread = sum(len(prompt.ids) - prompt.read for prompt in self.waiting)
        longest = max(running + entering, default=0) - (-unread // PASS)
        if len(running) + len(entering) <= self.batch:
            return longest
        return longest - (-sum(running + entering) // self.batch)

    def _limit(self, prompt: _Prompt) -> int:
        """How long an answer to a prompt may be."""
        limit = self.sampling.max_new_tokens
        return limit if self.context is None else min(limit, self.context - len(prompt.ids))

    def _choose(self) -> list[tuple[_Prompt, int]]:
        """The pieces of prompts that this pass reads: enough for the free rows, in order, PASS tokens at most."""
        free, budget = self.batch - len(self.running) - len(self.ready), PASS
        pieces = []
        for prompt in self.waiting:
            if free <= 0 or budget <= 0:
                break
            size = min(budget, len(prompt.ids) - prompt.read)
            pieces.append((prompt, size))
            free, budget = free - self.sampling.n, budget - size
        return pieces

    @torch.inference_mode()
    def _forward(self, pieces: Sequence[tuple[_Prompt, int]]) -> torch.Tensor:
        """One forward pass. Returns logits [B, V] of the running sequences; prompts read to the end keep theirs."""
        tokens = [sequence.ids[-1] for sequence in self.running]
        positions = list(self.cache.lengths)
        last = list(range(len(tokens)))
        for prompt, size in pieces:
            tokens += prompt.ids[prompt.read : prompt.read + size]
            positions += range(prompt.read, prompt.read + size)
            if prompt.read + size == len(prompt.ids):
                last.append(len(tokens) - 1)
        device = self.model.device
        self.cache.plan(pieces, device)
        logits: torch.Tensor = self.model(
            input_ids=torch.tensor([tokens], device=device),
            position_ids=torch.tensor([positions], device=device),
            logits_to_keep=torch.tensor(last, dtype=torch.long, device=device),
            use_cache=False,
            tree=self.cache,
        ).logits[0]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        self.cache.advance()
        row = len(self.running)
        for prompt, _ in pieces:
            if prompt.read == len(prompt.ids):
                prompt.logits = logits[row : row + 1]
                row += 1
        return logits

    def _start(self, prompt: _Prompt, number: int) -> _Sequence:
        limit = self._limit(prompt)
        assert prompt.logits is not None
        seen = None
        if self.sampling.repetition_penalty != 1:
            seen = torch.zeros(prompt.logits.shape[-1], dtype=torch.bool, device=prompt.logits.device)
            seen[torch.tensor(prompt.ids, device=seen.device)] = True
        share = random_numbers(self.sampling, prompt.index, number, limit)
        text = Text(self.decode, self.sampling.stop) if self.text else None
        return _Sequence(prompt, number, limit, share, text, seen)

    def _draw(self, active: Sequence[_Sequence], logits: torch.Tensor) -> None:
        share = torch.tensor([s.share[len(s.ids)] for s in active], dtype=logits.dtype, device=logits.device)
        seen = [s.seen for s in active if s.seen is not None]
        ids, logp = draw(logits, self.sampling, share, torch.stack(seen) if seen else None)
        for sequence, token, value in zip(active, ids.tolist(), logp.tolist(), strict=True):
            sequence.push(token, value, self.sampling)
            if sequence.seen is not None:
                sequence.seen[token] = True

    def _settle(self, entering: Sequence[_Sequence]) -> None:
        """Rows whose sequence ended go to those that enter; rows still empty are closed up."""
        holes = [row for row, sequence in enumerate(self.running) if sequence.ended]
        for sequence in entering:
            if not sequence.ended:
                row = holes.pop(0) if holes else len(self.running)
                self.cache.enter(row, sequence.prompt)
                self.running[row : row + 1] = [sequence]
            sequence.prompt.release()
        for row in reversed(holes):
            self.cache.leave(row)
            last = self.running.pop()
            if row < len(self.running):
                self.running[row] = last


def _passes(
    model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, decode: Decode, batch: int, text: bool
) -> Iterator[tuple[list[_Sequence], int]]:
    """The sequences that got a token, pass by pass, none in a pass that only read; and how many passes may be left. The last
    is the one in which the last sample ends."""
    many = len(prompts) * sampling.n * sampling.max_new_tokens >= WORTH_PACKING
    with _evaluating(model), cast_once(model), packed(model) if many else nullcontext():
        run = _Run(model, prompts, sampling, decode, batch, text)
        while run:
            active = run.step()
            yield active, run.left()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout; the model is left as it was found."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _check(index: int, ids: Sequence[int], context: int | None) -> None:
    if not ids:
        raise InputError("the prompt has no tokens", where=f"prompt {index}", mend="start it with text or a BOS token")
    if context is not None and len(ids) >= context:
        raise InputError(
            f"the prompt has {len(ids)} tokens, the model's context {context}",
            where=f"prompt {index}", mend="shorten it",
        )  # fmt: skip


def _longest(prompts: Sequence[Sequence[int]], sampling: Sampling) -> int:
    """Tokens of the longest sequence there can be."""
    return max(map(len, prompts), default=0) + sampling.max_new_tokens


def _rows(model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling) -> int:
    """How many sequences run at once where nobody says; the same on every machine."""
    config = model.config.get_text_config()
    try:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    except RuntimeError:  # layers of several shapes, as Gemma 4 has, where transformers names no one number
        return ROWS[0]
    token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    least, most = ROWS
    return int(min(most, max(least, CACHE // (token * _longest(prompts, sampling)))))


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, at least one token of each left over."""
    low, high = min(map(tuple, prompts)), max(map(tuple, prompts))
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return min(same, min(len(ids) for ids in prompts) - 1)
