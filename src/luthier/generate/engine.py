"""The engine: requests come and go while it runs, and each pass gives every running sequence its next token.

One forward pass serves everything that runs: its row of tokens holds the newest token of each running sequence, then pieces of
prompts that are still to be read. So the batch stays full while answers end and new prompts enter, nothing is padded, and a prompt
is read once however many samples it has. Requests may have adapters of their own over the one base (`model/adapt/mixed.py`): they
run in the same pass.

    waiting prompts --read--> keys and values of the prompt --copied--> a row of the cache, while it runs

A sample depends on its request alone: its prompt, its adapter, its sampling and its random numbers, never on what runs beside it
(float rounding of products of other sizes aside; which adapters the others have changes no bit).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import torch

from luthier.core.errors import InputError, unknown
from luthier.generate.cache import DecodeCache, ReadPrompt
from luthier.generate.request import Ended, Request, Sample
from luthier.generate.sampling import TORN, Decode, Sampling, Text, draw, random_numbers
from luthier.model.adapt.lora import cast_once
from luthier.model.adapt.mixed import TokenAdapters, mixed
from luthier.model.adapt.roles import Role
from luthier.model.folder import limits
from luthier.model.forward import as_pass, logits_of
from luthier.model.layers.attention import NAME
from luthier.model.layers.decoder import decoder
from luthier.model.layers.packed_weights import packed

PASS = 1024  # prompt tokens read in one pass, at most
SHARED = 16  # a common beginning of at least so many tokens is read once for all prompts that are submitted together


@dataclass(eq=False)
class RunningSample:
    """A sample that runs: number `number` of the request `handle`."""

    handle: int
    number: int
    prompt: ReadPrompt
    request: Request
    limit: int
    share: np.ndarray
    text: Text | None
    seen: torch.Tensor | None
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    ended: Ended | None = None

    def push(self, token: int, logp: float) -> None:
        """One more token, and whether the sample ends with it."""
        self.ids.append(token)
        self.logp.append(logp)
        if token in self.request.sampling.stop_ids:
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
        """The answer, once it has ended."""
        assert self.ended
        body = self.ids[:-1] if self.ended == "stop" else self.ids
        text = self.text.text if self.text else decode(body).rstrip(TORN)
        return Sample(self.handle, tuple(self.ids), text, tuple(self.logp), self.ended)


class Engine:
    """Answers requests with a model, at most `rows` sequences at once. `adapters` are sets of adapters for the model's base by the
    names that requests call them by; `Role({}, {})` is the bare base.

    `submit` takes requests at any time and returns a handle for each, `step` makes one pass, `cancel` drops a request. A context
    manager: inside, the model is without dropout, its adapters are cast once, and `pack` lays its weights out for quick products,
    which pays from a few hundred tokens on; so nothing of the model may change meanwhile.
    """

    def __init__(
        self, model: Any, decode: Decode, *, rows: int, pack: bool = True, adapters: Mapping[str, Role] | None = None
    ) -> None:
        assert rows >= 1
        assert model.config.get_text_config()._attn_implementation == NAME, "the model must attend through its cache"
        self.model, self.decode, self.rows, self.pack = model, decode, rows, pack
        self.adapters = dict(adapters or {})
        self._tokens: TokenAdapters | None = None
        self.context = limits.context(model.config)
        self.cache = DecodeCache(rows, 0)
        self.running: list[RunningSample] = []
        self.ready: deque[RunningSample] = deque()
        self.waiting: deque[tuple[int, Request, ReadPrompt]] = deque()
        self._submitted = 0
        self._open = ExitStack()

    def __enter__(self) -> Engine:
        self._open.enter_context(_evaluating(self.model))
        if self.adapters:
            self._tokens = self._open.enter_context(mixed(self.model, list(self.adapters.values())))
        self._open.enter_context(cast_once(self.model))
        if self.pack:
            self._open.enter_context(packed(self.model))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __bool__(self) -> bool:
        """Whether there is something left to do."""
        return bool(self.running or self.ready or self.waiting)

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Take requests; what those with one adapter all begin with is read once. Returns a handle for each, which their samples carry
        as `prompt`. Raises InputError for a prompt without tokens or as long as the model's context, and for an unknown adapter."""
        handles = list(range(self._submitted, self._submitted + len(requests)))
        for handle, request in zip(handles, requests, strict=True):
            _check(handle, request.ids, self.context)
            if request.adapter is not None and request.adapter not in self.adapters:
                raise unknown("adapter", request.adapter, self.adapters, where=f"prompt {handle}")
        self._submitted += len(requests)
        longest = max((len(one.ids) + one.sampling.max_new_tokens for one in requests), default=0)
        self.cache.longest = max(self.cache.longest, longest)
        numbers = {None: 0} | {name: number for number, name in enumerate(self.adapters, 1)}
        prefixes = {
            name: self._prefix([one.ids for one in requests if one.adapter == name], numbers[name])
            for name in dict.fromkeys(one.adapter for one in requests)
        }
        for handle, request in zip(handles, requests, strict=True):
            prefix, number = prefixes[request.adapter], numbers[request.adapter]
            read = prefix.read if prefix else 0
            prompt = ReadPrompt(request.ids, request.sampling.n, prefix, read=read, adapter=number)
            self.waiting.append((handle, request, prompt))
        return handles

    @torch.inference_mode()
    def cancel(self, handle: int) -> None:
        """Drop what is left of a request; its samples that have not ended are not given."""
        self.waiting = deque(entry for entry in self.waiting if entry[0] != handle)
        for sequence in [one for one in self.ready if one.handle == handle]:
            self.ready.remove(sequence)
            sequence.prompt.release()
        for row in reversed([row for row, one in enumerate(self.running) if one.handle == handle]):
            self._close(row)

    @torch.inference_mode()
    def step(self) -> list[RunningSample]:
        """One pass; returns the sequences that got a token, none where it only read."""
        pieces = self._pieces()
        logits = [self._forward([piece[2:] for piece in pieces])[: len(self.running)]] if self.running or pieces else []
        for handle, request, prompt, _ in pieces:
            if prompt.read == len(prompt.ids):
                self.waiting.popleft()
                self.ready += [self._start(handle, request, prompt, n) for n in range(request.sampling.n)]
        free = self.rows - len(self.running)
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
        entering += [self._limit(request) for _, request, prompt in self.waiting for _ in range(prompt.left)]
        unread = sum(len(prompt.ids) - prompt.read for _, _, prompt in self.waiting)
        longest = max(running + entering, default=0) - (-unread // PASS)
        if len(running) + len(entering) <= self.rows:
            return longest
        return longest - (-sum(running + entering) // self.rows)

    @torch.inference_mode()
    def _prefix(self, prompts: Sequence[Sequence[int]], adapter: int) -> ReadPrompt | None:
        """What all prompts begin with, read with their adapter; None where that is little."""
        common = _common(prompts) if len(prompts) > 1 else 0
        if common < SHARED:
            return None
        prefix = ReadPrompt(prompts[0][:common], left=1, adapter=adapter)
        while prefix.read < common:
            self._forward([(prefix, min(PASS, common - prefix.read))], alone=True)
        return prefix

    def _limit(self, request: Request) -> int:
        """How long an answer to a request may be."""
        limit = request.sampling.max_new_tokens
        return limit if self.context is None else min(limit, self.context - len(request.ids))

    def _pieces(self) -> list[tuple[int, Request, ReadPrompt, int]]:
        """The pieces of prompts that this pass reads: enough for the free rows, in order, PASS tokens at most."""
        free, budget = self.rows - len(self.running) - len(self.ready), PASS
        pieces = []
        for handle, request, prompt in self.waiting:
            if free <= 0 or budget <= 0:
                break
            size = min(budget, len(prompt.ids) - prompt.read)
            pieces.append((handle, request, prompt, size))
            free, budget = free - request.sampling.n, budget - size
        return pieces

    def _forward(self, pieces: Sequence[tuple[ReadPrompt, int]], alone: bool = False) -> torch.Tensor:
        """One forward pass of the running sequences, or of `pieces` alone. Returns logits [B, V] of the running sequences; prompts
        read to the end keep theirs."""
        running = [] if alone else self.running
        tokens = [sequence.ids[-1] for sequence in running]
        positions = [] if alone else list(self.cache.lengths)
        last = list(range(len(tokens)))
        for prompt, size in pieces:
            tokens += prompt.ids[prompt.read : prompt.read + size]
            positions += range(prompt.read, prompt.read + size)
            if prompt.read + size == len(prompt.ids):
                last.append(len(tokens) - 1)
        device = self.model.device
        if self._tokens:
            which = [sequence.prompt.adapter for sequence in running]
            which += [prompt.adapter for prompt, size in pieces for _ in range(size)]
            self._tokens.assign(which, device)
        self.cache.plan(pieces, device, alone)
        both, at = torch.tensor([tokens, positions], device=device), torch.tensor(last, dtype=torch.long, device=device)
        logits: torch.Tensor = as_pass(self.model, _logits, both, at, self.cache)
        self.cache.advance()
        row = len(running)
        for prompt, _ in pieces:
            if prompt.read == len(prompt.ids):
                prompt.logits = logits[row : row + 1]
                row += 1
        return logits

    def _start(self, handle: int, request: Request, prompt: ReadPrompt, number: int) -> RunningSample:
        limit, sampling = self._limit(request), request.sampling
        assert prompt.logits is not None
        seen = None
        if sampling.repetition_penalty != 1:
            seen = torch.zeros(prompt.logits.shape[-1], dtype=torch.bool, device=prompt.logits.device)
            seen[torch.tensor(prompt.ids, device=seen.device)] = True
        share = random_numbers(sampling, request.place, number, limit)
        text = Text(self.decode, sampling.stop) if request.text or sampling.stop else None
        return RunningSample(handle, number, prompt, request, limit, share, text, seen)

    def _draw(self, active: Sequence[RunningSample], logits: torch.Tensor) -> None:
        """A token for each, drawn as its request says; those that say the same are drawn at once."""
        groups: dict[tuple[float, ...], list[int]] = {}
        for row, sequence in enumerate(active):
            groups.setdefault(_sampling_key(sequence.request.sampling), []).append(row)
        for rows in groups.values():
            chosen = [active[row] for row in rows]
            share = torch.tensor([s.share[len(s.ids)] for s in chosen], dtype=logits.dtype, device=logits.device)
            seen = [s.seen for s in chosen if s.seen is not None]
            some = logits if len(rows) == len(active) else logits[rows]
            ids, logp = draw(some, chosen[0].request.sampling, share, torch.stack(seen) if seen else None)
            for sequence, token, value in zip(chosen, ids.tolist(), logp.tolist(), strict=True):
                sequence.push(token, value)
                if sequence.seen is not None:
                    sequence.seen[token] = True

    def _settle(self, entering: Sequence[RunningSample]) -> None:
        """Rows whose sequence ended go to those that enter; rows still empty are closed up."""
        holes = [row for row, sequence in enumerate(self.running) if sequence.ended]
        for sequence in entering:
            if not sequence.ended:
                row = holes.pop(0) if holes else len(self.running)
                self.cache.enter(row, sequence.prompt)
                self.running[row : row + 1] = [sequence]
            sequence.prompt.release()
        for row in reversed(holes):
            self._close(row)

    def _close(self, row: int) -> None:
        """Empty a row; the last one moves into its place."""
        self.cache.leave(row)
        last = self.running.pop()
        if row < len(self.running):
            self.running[row] = last


def _logits(model: Any, both: torch.Tensor, at: torch.Tensor, cache: DecodeCache) -> torch.Tensor:
    """Logits [M, V] at some places of a row, of which `both` are the tokens and their positions, [2, T]."""
    hidden = decoder(model)(input_ids=both[:1], position_ids=both[1:], use_cache=False, tree=cache).last_hidden_state[0]
    return logits_of(model, hidden[at])


def _sampling_key(sampling: Sampling) -> tuple[float, ...]:
    """What decides how a token is drawn from its logits and a random number."""
    return sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, sampling.repetition_penalty


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
        raise InputError("the prompt has no tokens", where=f"prompt {index}", fix="start it with text or a BOS token")
    if context is not None and len(ids) >= context:
        raise InputError(
            f"the prompt has {len(ids)} tokens, the model's context {context}",
            where=f"prompt {index}", fix="shorten it",
        )  # fmt: skip


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, at least one token of each left over."""
    low, high = min(map(tuple, prompts)), max(map(tuple, prompts))
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return min(same, min(len(ids) for ids in prompts) - 1)
