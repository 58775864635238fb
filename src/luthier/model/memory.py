"""What a run will need at its peak, known before anything large is loaded, and what there is.

The model is built without weights (on the meta device) and made ready as the run would, so parameters are
counted exactly, module by module; so are activations (`activations`).
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.log import size
from luthier.model.activations import Pass, kept, on_shapes
from luthier.model.adapt import tune
from luthier.model.adapt.quantize import quantizable, stored_bytes
from luthier.model.adapt.stacks import stacks
from luthier.model.folder.limits import attention_widths, rows_at_once
from luthier.model.layers import fuse
from luthier.model.layers.vocabulary import tile_bytes

# Bytes of optimizer state per trainable weight, and float32 copies of the largest one during its update.
_STATE = {"adamw": (8.0, 1), "adamw8bit": (2.0 + 8 / 256, 8)}
_HEAD_COPIES = 3  # a tile of logits, its softmax, and that cast for the product
CPU_TOKENS, GPU_TOKENS = 1024, 8192  # tokens of a forward pass on a CPU, and on a GPU with room for them
# A CPU's allocator leaves holes among the many tensors of a pass: 1.3 to 1.5 times their bytes, as measured.
FRAGMENTATION = 1.3
_KERNELS = 100_000_000  # of all sizes that a run meets, once they are few: as measured


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose. `process` is what the program holds already; `loading` is the peak while loading.

    `update` is what the optimizer needs beside its state while it updates the largest weight, `generating` what answers need
    beside weights and optimizer; activations are gone by then, so these do not add up.
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
    kernels: int = 0
    generating: int = 0

    @property
    def needed(self) -> int:
        """What must be free: the largest of loading, training and generating."""
        held = self.weights + self.optimizer
        training = self.gradients + max(self.activations + self.head, self.update)
        return max(self.loading, held + self.kernels + max(training, self.generating))

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
    work: Pass | None = None,
    recompute: bool = False,
    offload: bool = False,
    answers: tuple[int, int] = (0, 0),
    process: int | None = None,
) -> Memory:
    """The memory of training the model of `config` with passes like `work`, by default one row of `tokens` tokens, all of them
    targets, and of generating `answers` of (how many, tokens with the prompt) at once.

    weights     every parameter in its type (adapters are float32); for qlora the bits of `quantize`,
                plus the largest weight expanded for its product
    gradients   one per trainable weight, in its type
    optimizer   two moments, and float32 masters of weights kept in 16 bits
    activations bytes kept for the backward pass: what autograd saves that is not a weight; with `recompute` of each block its
                input alone, and one block whole
    head        logits of one tile, hidden states of the targets and their gradient
    kernels     in 16 bits on a processor, what oneDNN keeps for the sizes that it met

    An `offload`ed optimizer takes nothing of the device. `process` is what the program takes without a model, by default what it takes now.
    On a CPU activations are taken larger by a share for the holes that the allocator leaves. bench/memory.py holds the sum against
    measured peaks. Raises InputError as `tune.prepare` does.
    """
    model = on_shapes(config, dtype)
    dense = sum(p.nbytes for p in model.parameters())
    layers = sum(p.nbytes for p in {id(m.weight): m.weight for m in quantizable(model, skip=()).values()}.values())
    tuned, stored = _prepared(model, tune_kind, lora, quant)
    if recompute:
        fuse.keep_gates(model)
    cpu = device.type == "cpu"
    work = work or Pass.row(tokens, dtype, device)
    kept_bytes = kept(model, work)
    learned = list(tuned.parameters.values())
    state, copies = _STATE[optimizer]
    optimizer_bytes = round(state * tuned.trainable) + sum(4 * p.numel() for p in learned if p.element_size() == 2)
    packed = [p for p in model.parameters() if stored[id(p)] != p.nbytes]  # of a stack one expert is expanded at a time
    expanded = max(((p[0] if p.dim() > 2 else p).nbytes for p in packed), default=0)
    return Memory(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=tuned.trainable,
        process=process if process is not None else psutil.Process().memory_info().rss if cpu else 0,
        weights=sum(stored.values()) + expanded,
        gradients=sum(p.nbytes for p in learned),
        optimizer=0 if offload else optimizer_bytes,
        activations=round((kept_bytes.recomputed if recompute else kept_bytes.all) * (FRAGMENTATION if cpu else 1)),
        head=_head(model, work.targets, device),
        loading=dense,
        update=0 if offload else 4 * copies * max(p.numel() for p in learned),
        kernels=_KERNELS if cpu and dtype.itemsize == 2 else 0,
        generating=_generating(model, answers, layers if cpu and tune_kind != "qlora" else 0),
    )


def _prepared(model: nn.Module, kind: str, lora: LoraConfig, quant: QuantConfig) -> tuple[tune.Tuned, dict[int, int]]:
    """The model made ready on shapes, and the bytes that each of its weights is stored in then, by identity."""
    quantized: dict[int, int] = {}
    if (
        kind == "qlora"
    ):  # a class of its own stands in for a quantized layer: adapters treat it as one that is not plain
        for linear in quantizable(model).values():
            linear.__class__ = type("_Frozen", (type(linear),), {})
            count = linear.weight.numel()
            quantized[id(linear.weight)] = stored_bytes(count, quant.kind, quant.block, quant.double)
        for name in stacks(model):  # each expert by itself
            weight = model.get_parameter(name)
            one = stored_bytes(weight[0].numel(), quant.kind, quant.block, quant.double)
            quantized[id(weight)] = len(weight) * one
    tuned = tune.prepare(model, "lora" if kind == "qlora" else kind, lora, quant)
    return tuned, {id(p): p.nbytes for p in model.parameters()} | quantized


def weights(config: Any, dtype: torch.dtype) -> int:
    """Bytes of the weights of the model of `config` alone."""
    return sum(p.nbytes for p in on_shapes(config, dtype).parameters())


def _head(model: nn.Module, targets: int, device: torch.device) -> int:
    """Logits of a tile, the hidden states of all targets with their slope, a trained head's gradient."""
    weight = model.get_output_embeddings().weight  # type: ignore[operator]
    vocabulary, hidden = weight.shape
    tiles = _HEAD_COPIES * tile_bytes(targets, vocabulary, device)
    return int(tiles + 3 * targets * hidden * weight.element_size() + (weight.nbytes if weight.requires_grad else 0))


def _generating(model: nn.Module, answers: tuple[int, int], packed: int) -> int:
    """Keys and values of all answers, the logits of their next tokens, and `packed`, the weights as they are laid out for it."""
    count, length = answers
    if not count:
        return 0
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    keys, itemsize = sum(width for _, width in attention_widths(config)), next(model.parameters()).element_size()
    rows = min(count, rows_at_once(config, itemsize, length))
    return int(packed + rows * (2 * keys * itemsize * length + 4 * _HEAD_COPIES * config.vocab_size))


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
    model = on_shapes(config, dtype)
    room = (whole - beside * sum(p.nbytes for p in model.parameters())) / 2
    tokens, each = GPU_TOKENS, kept(model, Pass.row(CPU_TOKENS, dtype, device)).all // CPU_TOKENS
    while tokens > CPU_TOKENS and tokens * each > room:
        tokens //= 2
    return tokens


def give_back() -> None:
    """Return what the allocator holds and nobody uses to the system, where it does so when it is asked: glibc. Between the phases of a
    run, whose tensors have other sizes, the holes of one would stay beside the tensors of the next."""
    gc.collect(1)  # the young objects: a look at all that a process with torch holds takes a second
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another system's
        return


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
    names = ("weights", "gradients", "optimizer", "activations", "head", "kernels")
    parts = {name: getattr(memory, name) for name in names if name != "kernels" or memory.kernels}
    share = 100 * memory.trainable / memory.parameters
    listed = ", ".join(f"{name} {size(value)}" for name, value in parts.items())
    learning = f"{memory.trainable:,} of {memory.parameters:,} weights learn ({share:.2f} %)"
    return f"{learning}; about {size(memory.total)} at the peak: {listed}"
