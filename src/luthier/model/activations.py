"""What autograd keeps of a forward pass, counted on shapes alone: nothing of a model's size is made.

The model is built on the meta device and one pass is run through its decoder; each tensor that is kept for the backward pass counts
once, for the block that it belongs to.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from luthier.core.errors import InputError
from luthier.core.types.batch import Batch
from luthier.model.folder.limits import attention_widths
from luthier.model.layers import attention, experts, fuse
from luthier.model.layers.decoder import auto_class, decoder
from luthier.model.layers.own_attention import hand_down, know
from luthier.model.layers.plan import BLOCK, Gathered, TreePlan, gathered
from luthier.model.layers.products import unit_of
from luthier.model.layers.recompute import blocks
from luthier.model.layers.scoring import Scoring
from luthier.model.layers.state import Layer, carry


@dataclass(frozen=True)
class Pass:
    """A forward pass: its tokens, those of them that are predicted, and what its attention gathers."""

    tokens: int
    targets: int
    attention: Gathered

    @staticmethod
    def row(tokens: int, dtype: torch.dtype, device: torch.device, rows: int = 1) -> Pass:
        """One row of so many tokens, each predicted; or several `rows` of as many each."""
        sizes = [(min(BLOCK, tokens - first), min(tokens, first + BLOCK)) for first in range(0, tokens, BLOCK)] * rows
        every = rows * tokens
        return Pass(every, every, _whole(every) if device.type == "cuda" else gathered(sizes, unit_of(dtype, device)))

    @staticmethod
    def largest(batches: Sequence[Batch], dtype: torch.dtype, device: torch.device) -> Pass:
        """The most of everything that any of these computes."""
        found = [
            _whole(len(b.tokens)) if device.type == "cuda" else TreePlan(b, device, unit_of(dtype, device)).gathered
            for b in batches
        ]
        return Pass(
            max(len(batch.tokens) for batch in batches),
            max(len(batch.source) for batch in batches),
            Gathered(*map(max, zip(*found, strict=True))),
        )


def _whole(tokens: int) -> Gathered:
    """On a GPU the kernel reads queries and keys where they are, and masks are of blocks of 128."""
    return Gathered(tokens, tokens, 0)


def on_shapes(config: Any, dtype: torch.dtype) -> nn.Module:
    """The model of `config` without values, as `load` makes it. A copy of the configuration: making a model ready may change it.
    Raises InputError for what is no decoder."""
    attention.register()
    know(config)
    with torch.device("meta"):
        try:
            model = auto_class(config).from_config(
                copy.deepcopy(config), dtype=dtype, attn_implementation=attention.NAME
            )
        except ValueError:
            raise InputError(
                f"a model of type '{config.model_type}' is not a causal language model", where="--model",
                fix="use a decoder, such as one of the Llama, Qwen, Gemma or Phi families",
            ) from None  # fmt: skip
    experts.install(model)
    carry(model)
    hand_down(model)
    fuse.fuse(model)
    return model


class _Attend(torch.autograd.Function):
    """Stands in for tree attention on shapes: keeps what it keeps (q, k, v and the output as they are gathered, and one number
    per row), and gives the output in the order of the tokens, which is another tensor."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, size: Gathered) -> torch.Tensor:
        _, heads, tokens, width = q.shape
        keys = [x.new_empty(x.shape[1] * size.keys * x.shape[3]) for x in (k, v)]
        out = q.new_empty(1, tokens, heads, v.shape[3])
        rows = heads * size.queries
        kept = (q.new_empty(rows * width), *keys, q.new_empty(rows * v.shape[3]))
        ctx.save_for_backward(*kept, q.new_empty(rows, dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, ...]:
        raise AssertionError("only the forward pass is traced")


class _Shapes:
    """The `tree=` of a traced pass."""

    def __init__(self, size: Gathered) -> None:
        self.size = size

    def mix(self, layer: int, own: Layer, hidden: torch.Tensor) -> torch.Tensor:
        return own(hidden)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
        return _Attend.apply(q, k, v, self.size)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Kept:
    """Bytes that a pass keeps: of each block, of its input alone, and `beside` the blocks."""

    blocks: tuple[int, ...]
    inputs: tuple[int, ...]
    beside: int

    @property
    def all(self) -> int:
        """Where nothing is computed again."""
        return sum(self.blocks) + self.beside

    @property
    def recomputed(self) -> int:
        """Where blocks are: their inputs, and one block while its gradient is taken."""
        one = max((block - own for block, own in zip(self.blocks, self.inputs, strict=True)), default=0)
        return sum(self.inputs) + one + self.beside

    @property
    def largest(self) -> int:
        """What the largest block keeps: about as much as the gradients of it."""
        return max(self.blocks, default=0)


def kept(model: nn.Module, work: Pass) -> Kept:
    """What autograd keeps of one pass through the decoder, weights not counted.

    For a Llama block of hidden size H, q width Q, k width K, feed-forward width F and 16-bit values with adapters on all linear
    layers that is, per token, 2 (4H + 3Q + 2K + 2F) bytes and a little for the adapters: inputs of the norms and of the linear
    layers but the last, q, k, v, the attention's output, gate and up. Blocks that cannot be traced on shapes count so too.
    """
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    found: dict[int, tuple[torch.Tensor, int]] = {}
    parts = list(blocks(model).values())
    inputs, here = [0] * len(parts), [-1]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (key := tensor.untyped_storage()._cdata) not in weights:
            found.setdefault(key, (tensor, here[0]))
        return tensor

    def enter(index: int, given: Sequence[Any], named: dict[str, Any]) -> None:
        here[0], hidden = index, next((x for x in (*given, *named.values()) if isinstance(x, torch.Tensor)), None)
        inputs[index] = 0 if hidden is None else hidden.nbytes

    def leave(*_: Any) -> None:
        here[0] = -1

    hooks = [
        hook
        for i, part in enumerate(parts)
        for hook in (
            part.register_forward_pre_hook(lambda m, a, k, i=i: enter(i, a, k), with_kwargs=True),
            part.register_forward_hook(leave),
        )
    ]
    row = torch.zeros(1, work.tokens, dtype=torch.int64, device="meta")
    try:
        with fuse.counted(keep):
            decoder(model)(
                input_ids=row, position_ids=row, attention_mask=row, use_cache=False, tree=_Shapes(work.attention)
            )
    except (RuntimeError, NotImplementedError):  # mixtures of experts route by value
        return _by_formula(model, work.tokens)
    finally:
        for hook in hooks:
            hook.remove()
    sizes = [0] * (len(parts) + 1)
    for tensor, index in found.values():
        sizes[index] += tensor.untyped_storage().nbytes()
    shared = work.attention.scores * next(model.parameters()).element_size() + 24 * work.tokens  # masks and places
    return Kept(tuple(sizes[:-1]), tuple(inputs), sizes[-1] + (shared if found else 0))


def _by_formula(model: nn.Module, tokens: int) -> Kept:
    config, width = model.config.get_text_config(), next(model.parameters()).element_size()  # type: ignore[operator, union-attr]
    layers = config.num_hidden_layers
    block = tokens * bytes_per_token(model.config, width) // layers
    return Kept((block,) * layers, (tokens * config.hidden_size * width,) * layers, 0)


def bytes_per_token(config: Any, width: int) -> int:
    """The sum in the description of `kept`, over all blocks, with 4F for each expert that one token passes through; `width` is
    the bytes of a value."""
    config = config.get_text_config()
    experts = getattr(config, "num_experts_per_tok", None) or 0
    width_of_one = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None)
    wide = (width_of_one or 4 * config.hidden_size) * (4 * experts or 2)
    return int(width * sum(4 * config.hidden_size + 3 * q + 2 * k + wide for q, k in attention_widths(config)))
