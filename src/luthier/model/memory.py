"""What a run will need at its peak, known before anything large is loaded, and what there is.

The model is built without weights (on the meta device) and made ready as the run would, so parameters are
counted exactly, module by module. Activations are counted in the same way: one forward pass is run on
shapes alone, and what autograd keeps for the backward pass is added up.
"""

from __future__ import annotations

import copy
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.core.log import size
from luthier.model.adapt import tune
from luthier.model.adapt.quantize import quantizable, stored_bytes
from luthier.model.adapt.stacks import stacks
from luthier.model.folder.limits import attention_widths
from luthier.model.layers import attention, experts, fuse
from luthier.model.layers.decoder import auto_class, decoder
from luthier.model.layers.scoring import Scoring
from luthier.model.layers.vocabulary import tile_bytes

# Bytes of optimizer state per trainable weight, and float32 copies of the largest one during its update.
_STATE = {"adamw": (8.0, 1), "adamw8bit": (2.0 + 8 / 256, 8)}
_HEAD_COPIES = 3  # a tile of logits, its softmax, and that cast for the product
CPU_TOKENS, GPU_TOKENS = 1024, 8192  # tokens of a forward pass on a CPU, and on a GPU with room for them
# A CPU's allocator leaves holes among the many tensors of a pass: 1.3 to 1.5 times their bytes, as measured.
FRAGMENTATION = 1.4


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose. `process` is what the program holds already; `loading` is the peak while loading.

    `update` is what the optimizer needs beside its state while it updates the largest weight; activations
    are gone by then, so the two do not add up.
    """

    parameters: int
    trainable: int
    process: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    loading: int
    update: int

    @property
    def needed(self) -> int:
        """What must be free: the larger of loading and training."""
        held = self.weights + self.gradients + self.optimizer
        return max(self.loading, held + max(self.activations + self.head, self.update))

    @property
    def total(self) -> int:
        """The peak of the whole process, comparable to `peak`."""
        return self.process + self.needed


def estimate(
    config: Any,
    *,
    tune_kind: str,
    lora: LoraConfig,
    quant: QuantConfig,
    dtype: torch.dtype,
    tokens: int,
    optimizer: str,
    device: torch.device,
) -> Memory:
    """The memory of training the model of `config` with micro-batches of `tokens` tokens, all of them targets.

    weights     every parameter in its type (adapters are float32); for qlora the bits of `quantize`,
                plus the largest weight expanded for its product
    gradients   one per trainable weight, in its type
    optimizer   two moments, and float32 masters of weights kept in 16 bits
    activations bytes kept for the backward pass: what autograd saves that is not a weight
    head        logits of one slice, hidden states of the targets and their gradient

    The measured peak on a CPU is within 25 % of `total` (a test holds it there), of which activations are
    taken 1.4 times for the holes that the allocator leaves. Raises InputError as `tune.prepare` does.
    """
    model = _on_shapes(config, dtype)
    dense = sum(p.nbytes for p in model.parameters())
    quantized: list[torch.Tensor] = []  # what is quantized together: a linear layer, one expert of a stack
    if tune_kind == "qlora":
        for linear in quantizable(model).values():
            linear.__class__ = _Frozen
            quantized.append(linear.weight)
        for name in stacks(model):
            quantized.extend(model.get_parameter(name).detach())
    prepared = tune.prepare(model, "lora" if tune_kind == "qlora" else tune_kind, lora, quant)
    learned = list(prepared.parameters.values())
    weights = sum(p.nbytes for p in model.parameters()) - sum(w.nbytes for w in quantized)
    if quantized:
        packed = sum(stored_bytes(w.numel(), quant.kind, quant.block, quant.double) for w in quantized)
        weights += packed + max(w.nbytes for w in quantized)
    kept = activations_of(model, tokens)
    kept += _shared(model, tokens) if kept else 0
    state, copies = _STATE[optimizer]
    master = sum(4 * p.numel() for p in learned if p.element_size() == 2)
    return Memory(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=prepared.trainable,
        process=psutil.Process().memory_info().rss if device.type == "cpu" else 0,
        weights=weights,
        gradients=sum(p.nbytes for p in learned),
        optimizer=round(state * prepared.trainable) + master,
        activations=round(kept * (FRAGMENTATION if device.type == "cpu" else 1)),
        head=_head(model, tokens),
        loading=dense,
        update=4 * copies * max(p.numel() for p in learned),
    )


def weights(config: Any, dtype: torch.dtype) -> int:
    """Bytes of the weights of the model of `config` alone."""
    return sum(p.nbytes for p in _on_shapes(config, dtype).parameters())


def _on_shapes(config: Any, dtype: torch.dtype) -> nn.Module:
    """The model of `config` without values, as `load` makes it. A copy of the configuration: making a model ready may change it."""
    attention.register()
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
    fuse.fuse(model)
    return model


class _Frozen(nn.Linear):
    """Stands in for a quantized layer: it keeps nothing either, and adapters treat it as one that is not plain."""


class _Attend(torch.autograd.Function):
    """Stands in for tree attention on shapes: keeps what it keeps (q, k, v, the output in the order of the groups
    and one number per row), and gives the output in the order of the tokens, which is another tensor."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q.transpose(1, 2))
        ctx.save_for_backward(q, k, v, torch.empty_like(out), out.new_empty(out.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> None:
        raise AssertionError("only the forward pass is traced")


class _Shapes:
    """The `tree=` of a traced pass."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
        return _Attend.apply(q, k, v)  # type: ignore[no-untyped-call]


def activations_of(model: nn.Module, tokens: int) -> int:
    """Bytes that autograd keeps of one pass of `tokens` tokens through the blocks, weights not counted.

    Each storage counts once. For a Llama block of hidden size H, q width Q, k width K, feed-forward width F and
    16-bit values with adapters on all linear layers that is, per token, 2 (4H + 3Q + 2K + 2F) bytes and a
    little for the adapters: inputs of the norms and of the linear layers but the last, q, k, v, the attention's output,
    gate and up. Blocks that cannot be traced on shapes count so too.
    """
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in weights:
            kept[key] = tensor
        return tensor

    row = torch.zeros(1, tokens, dtype=torch.int64, device="meta")
    try:
        with fuse.counted(keep):
            decoder(model)(input_ids=row, position_ids=row, attention_mask=row, use_cache=False, tree=_Shapes())
    except (RuntimeError, NotImplementedError):  # mixtures of experts route by value
        return tokens * bytes_per_token(model.config, next(model.parameters()).element_size())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _shared(model: nn.Module, tokens: int) -> int:
    """What the attention of all layers shares: the mask of the groups, at most square, and three lists of places."""
    return tokens * tokens * next(model.parameters()).element_size() + 24 * tokens


def bytes_per_token(config: Any, width: int) -> int:
    """The sum in `activations_of`' description, over all blocks, with 4F for each expert that one token passes through;
    `width` is the bytes of a value."""
    config = config.get_text_config()
    experts = getattr(config, "num_experts_per_tok", None) or 0
    width_of_one = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None)
    wide = (width_of_one or 4 * config.hidden_size) * (4 * experts or 2)
    return int(width * sum(4 * config.hidden_size + 3 * q + 2 * k + wide for q, k in attention_widths(config)))


def _head(model: nn.Module, tokens: int) -> int:
    """Logits of a tile, the hidden states of all targets with their slope, a trained head's gradient."""
    weight = model.get_output_embeddings().weight  # type: ignore[operator]
    vocabulary, hidden = weight.shape
    tiles = _HEAD_COPIES * tile_bytes(tokens, vocabulary, weight.device)
    return int(tiles + 3 * tokens * hidden * weight.element_size() + (weight.nbytes if weight.requires_grad else 0))


# --- What there is --------------------------------------------------------------------------------


def pass_tokens(config: Any, tune_kind: str, dtype: torch.dtype, device: torch.device) -> int:
    """How many tokens a forward pass takes where nobody says: 1024 on a CPU, whose caches they fill; on a GPU, which needs
    many to be busy, 8192 or the largest half, quarter, ... of that whose activations take half of what the weights leave
    of its memory. Weights that learn count with their gradients, moments and masters: eight times in 16 bits, else four.

    The same on one machine whatever else runs there, since a run goes on exactly only with the same passes.
    """
    if device.type == "cpu":
        return CPU_TOKENS
    cuda = device.type == "cuda"
    whole = torch.cuda.get_device_properties(device).total_memory if cuda else torch.mps.recommended_max_memory()
    beside = 1 if tune.is_adapter(tune_kind) else 8 if dtype.itemsize == 2 else 4
    model = _on_shapes(config, dtype)
    room = (whole - beside * sum(p.nbytes for p in model.parameters())) / 2
    tokens, each = GPU_TOKENS, activations_of(model, CPU_TOKENS) // CPU_TOKENS
    while tokens > CPU_TOKENS and tokens * each > room:
        tokens //= 2
    return tokens


def available(device: torch.device) -> int:
    """Bytes free on the device. On a CPU the limit of the container counts too."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(int(psutil.virtual_memory().available), container_room())


def container_room(root: Path = Path("/sys/fs/cgroup")) -> int:
    """What the control group (v2, then v1) still allows, file cache that can be dropped counted as free."""
    for folder, limit, used, droppable in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            room = int((folder / limit).read_text()) - int((folder / used).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # absent, or the word "max"
            continue
        return room + sum(int(line.split()[1]) for line in lines if line.startswith(f"{droppable} "))
    return sys.maxsize


def peak(device: torch.device | None = None) -> int:
    """The most memory so far: of this process on a CPU, of torch's allocations on a GPU. Bytes."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        # Linux's getrusage would give the peak of the program that started this one, were it higher.
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def describe(memory: Memory) -> str:
    """One line: what learns, and where the memory goes."""
    parts = {name: getattr(memory, name) for name in ("weights", "gradients", "optimizer", "activations", "head")}
    share = 100 * memory.trainable / memory.parameters
    listed = ", ".join(f"{name} {size(value)}" for name, value in parts.items())
    learning = f"{memory.trainable:,} of {memory.parameters:,} weights learn ({share:.2f} %)"
    return f"{learning}; about {size(memory.total)} at the peak: {listed}"
