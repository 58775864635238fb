"""Keys and values while text is generated: of prompts that are read piece by piece, and of the sequences that run.

Shape legend: T tokens of a pass, B running sequences, P tokens of a prompt, L tokens stored, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention

from luthier.generate.states import States
from luthier.model.layers.scoring import Local, Scoring, attended, products
from luthier.model.layers.state import Layer


@dataclass(eq=False)
class ReadPrompt:
    """A prompt that is read, piece by piece: its keys and values [kv_heads, P, D] by layer, and the logits after it.

    `left` counts its samples that have not entered the cache: after the last, nothing is kept. `adapter` is the number of the one
    that it is read with.
    """

    ids: Sequence[int]
    left: int
    prefix: ReadPrompt | None = None
    read: int = 0
    adapter: int = 0
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    states: States = field(default_factory=States)
    logits: torch.Tensor | None = None

    def states_of(self, layer: int) -> States:
        """The states of a layer after the tokens read so far, to go on from: at first as the prefix left them."""
        if self.prefix and not self.states.has_previous_state(layer):
            # Of its own: a layer that reads a single token writes into its state, and others go on from the prefix too.
            self.states.kept |= {key: state.clone() for key, state in self.prefix.states.of(layer).kept.items()}
        return self.states

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
            self.states.kept.clear()


class DecodeCache:
    """Keys and values of the running sequences, one row each and no padding: a sequence of l tokens fills
    places 0..l-1 of its row in the buffers [rows, kv_heads, capacity, D] of every layer.

    It is the `tree` of a forward pass: `plan` says what the pass holds, `attend` stores its keys and values
    and attends. Buffers double when a sequence outgrows them, up to the `longest` there will be, which may be raised; a row that ends is
    filled by another.
    """

    def __init__(self, rows: int, longest: int) -> None:
        self.lengths: list[int] = []
        self._rows, self.longest = rows, longest
        self.layer_keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        self._states = States()

    def plan(self, pieces: Sequence[tuple[ReadPrompt, int]], device: torch.device, alone: bool = False) -> None:
        """Prepare for a pass of one token per row (none where the pieces are `alone`), then `size` tokens of each (prompt, size)."""
        self._pieces, self._count = pieces, 0 if alone else len(self.lengths)
        self._stored = max(self.lengths, default=0) + 1
        self._at = torch.tensor(self.lengths, device=device)
        self._row = torch.arange(len(self.lengths), device=device)
        self._masks: dict[Local | None, torch.Tensor | None] = {}

    def advance(self) -> None:
        """The pass is over: what it stored counts."""
        if self._count:
            self.lengths = [length + 1 for length in self.lengths]
        for prompt, size in self._pieces:
            prompt.read += size

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
        """q [1, heads, T, D], k and v [1, kv_heads, T, D] -> [1, T, heads, D]; see `Attender`."""
        q, k, v = q[0], k[0], v[0]
        start = self._count
        out = [self._decode(layer, q[:, :start], k[:, :start], v[:, :start], scoring)] if start else []
        for prompt, size in self._pieces:
            part = slice(start, start + size)
            out.append(_read(prompt, layer, q[:, part], k[:, part], v[:, part], scoring))
            start += size
        return (out[0] if len(out) == 1 else torch.cat(out))[None]

    def mix(self, layer: int, own: Layer, hidden: torch.Tensor) -> torch.Tensor:
        """A layer with a state, hidden [1, T, H]; see `Mixer`."""
        start, out = self._count, []
        if start:
            states = self._states.of(layer, slice(start))
            out.append(own(hidden[0, :start, None], cache=states)[:, 0])
            self._states.put(states, slice(start), self._rows)
        for prompt, size in self._pieces:
            out.append(own(hidden[:, start : start + size], cache=prompt.states_of(layer))[0])
            start += size
        return torch.cat(out)[None]

    def _decode(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
        """One new token per row. The heads that share keys are the queries of one attention [B, kv_heads]."""
        heads, count, size = q.shape
        keys, values = self._buffers(layer, self._stored, k, v)
        keys[self._row, :, self._at] = k.transpose(0, 1)
        values[self._row, :, self._at] = v.transpose(0, 1)
        q = q.transpose(0, 1).reshape(count, k.shape[0], -1, size)
        keys, values = keys[:count, :, : self._stored], values[:count, :, : self._stored]
        mask = self._mask(scoring.local, q.dtype)
        if scoring.plain:
            out = scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scoring.scaling)
        else:
            out = products(q, keys, values, mask, scoring)
        return out.reshape(count, heads, -1)

    def _mask(self, local: Local | None, dtype: torch.dtype) -> torch.Tensor | None:
        """[B, 1, 1, L], 0 where a row may look and -inf elsewhere; None when every row may look everywhere."""
        if local not in self._masks:
            whole = min(self.lengths) + 1 == self._stored and (local is None or self._stored <= local.size)
            self._masks[local] = None if whole else self._visible(local, dtype)
        return self._masks[local]

    def _visible(self, local: Local | None, dtype: torch.dtype) -> torch.Tensor:
        place, last = torch.arange(self._stored, device=self._at.device), self._at[:, None]
        hidden = place > last
        if local is not None:
            hidden |= place <= last - local.seen(last)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
        return mask[:, None, None]

    def _buffers(self, layer: int, length: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's buffers, made or doubled so that they hold `length` tokens like k and v [kv_heads, _, D]."""
        for buffers, new in ((self.layer_keys, k), (self._values, v)):
            old = buffers.get(layer)
            if old is not None and old.shape[2] >= length:
                continue
            # zeros, since what a mask hides is still multiplied (by 0), and 0 times a stray NaN is NaN
            buffers[layer] = new.new_zeros(
                self._rows, new.shape[0], max(length, min(self.longest, max(64, 2 * length))), new.shape[2]
            )
            if old is not None:
                buffers[layer][:, :, : old.shape[2]] = old
        return self.layer_keys[layer], self._values[layer]

    def enter(self, row: int, prompt: ReadPrompt) -> None:
        """Copy what was read of a prompt into a row: one that ended, or the next unused one."""
        for layer, k in prompt.keys.items():
            v = prompt.values[layer]
            keys, values = self._buffers(layer, prompt.read + 1, k, v)
            keys[row, :, : prompt.read] = k
            values[row, :, : prompt.read] = v
        self._states.put(prompt.states, row, self._rows)
        self.lengths[row : row + 1] = [prompt.read]

    def leave(self, row: int) -> None:
        """Drop a row; the last row moves into its place."""
        length = self.lengths.pop()
        if row == (last := len(self.lengths)):
            return
        for buffers in (self.layer_keys, self._values):
            for buffer in buffers.values():
                buffer[row, :, :length] = buffer[last, :, :length]
        self._states.move(last, row)
        self.lengths[row] = length


def _read(
    prompt: ReadPrompt,
    layer: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scoring: Scoring,
) -> torch.Tensor:
    """Attention of the next t tokens of a prompt to all its tokens so far: q [heads, t, D] -> [t, heads, D]."""
    keys, values = prompt.store(layer, k, v)
    size, total = q.shape[1], keys.shape[1]
    local = scoring.local
    mask = None
    if size != total or (local is not None and total > local.size):
        key, query = torch.arange(total, device=q.device), torch.arange(total - size, total, device=q.device)[:, None]
        hidden = key > query
        if local is not None:
            hidden |= key <= query - local.seen(query)
        mask = torch.zeros(size, total, dtype=q.dtype, device=q.device).masked_fill_(hidden, -torch.inf)
    out = attended(q[None], keys[None], values[None], mask, scoring)
    return out[0].transpose(0, 1)
