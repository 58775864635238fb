"""What a run will need at its peak, known before anything large is loaded.

The model is built without weights (on the meta device) and made ready as the run would, so parameters are
counted exactly, module by module; so are activations (`activations`).
"""

from __future__ import annotations

from dataclasses import dataclass
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
from luthier.model.forward import DISTRIBUTION_TOKENS
from luthier.model.layers import fuse
from luthier.model.layers.vocabulary import tile_bytes

# Bytes of optimizer state per trainable weight, and float32 copies of the largest one during its update.
_STATE = {"adamw": (8.0, 1), "adamw8bit": (2.0 + 8 / 256, 8)}
_HEAD_COPIES = 3  # a tile of logits, its softmax, and that cast for the product
# A CPU's allocator leaves holes among the many tensors of a pass: they take 1.4 to 1.6 times their bytes, as measured.
FRAGMENTATION = 1.45
_LIBRARIES = 170_000_000  # of metrics and of torch's own code, read after the estimate is made: as measured
_KERNELS = 150_000_000  # of all sizes that a run meets, once they are few: as measured


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose. `process` is what the program holds already, `libraries` what it reads in later; `loading` is the peak
    while loading, `beside` other models, `mapped` pages of files that are read no more, which the system takes back when it needs them.

    `backward` is what the gradient of one block takes beside the activations, `update` what the optimizer needs beside its state while
    it updates the largest weight, `generating` what answers need beside weights and optimizer, `comparing` what the divergence from the
    starting model does; activations are gone by then, so these do not add up.
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
    backward: int = 0
    libraries: int = 0
    comparing: int = 0
    beside: int = 0
    mapped: int = 0

    @property
    def needed(self) -> int:
        """What must be free: the largest of loading, training, generating and comparing."""
        held = self.weights + self.optimizer + self.kernels + self.libraries + self.beside
        training = self.gradients + max(self.activations + self.backward + self.head, self.update)
        return max(self.loading, held + max(training, self.generating, self.comparing))

    @property
    def total(self) -> int:
        """The peak of the whole process, comparable to `memory.peak`."""
        return self.process + self.needed + self.mapped


@dataclass(frozen=True)
class Ready:
    """A model on shapes, made ready to be tuned, and what of it is held whatever it computes."""

    model: nn.Module
    tuned: tune.Tuned
    device: torch.device
    dense: int
    stored: int
    laid_out: int
    optimizer: int
    update: int
    recompute: bool
    process: int
    mapped: int

    def serving(self, answers: tuple[int, int]) -> int:
        """Bytes that answering takes: weights, and of (how many, tokens with the prompt) at once what each needs."""
        kernels = _KERNELS if self._compiles else 0
        return max(self.dense, self.stored + kernels + _generating(self.model, answers, self.laid_out))

    @property
    def _compiles(self) -> bool:
        return self.device.type == "cpu" and next(self.model.parameters()).element_size() == 2

    def training(self, work: Pass, answers: tuple[int, int] = (0, 0), compared: int = 0) -> Memory:
        """The memory of passes like `work`, of generating `answers`, and of the distributions of `compared` tokens."""
        cpu, kept_bytes, learned = self.device.type == "cpu", kept(self.model, work), self.tuned.parameters.values()
        holes = FRAGMENTATION if cpu else 1
        return Memory(
            parameters=sum(p.numel() for p in self.model.parameters()),
            trainable=self.tuned.trainable,
            process=self.process,
            weights=self.stored,
            gradients=sum(p.nbytes for p in learned),
            optimizer=self.optimizer,
            activations=round((kept_bytes.recomputed if self.recompute else kept_bytes.all) * holes),
            backward=round(kept_bytes.largest * holes),
            head=_head(self.model, work.targets, self.device),
            loading=self.dense,
            update=self.update,
            kernels=_KERNELS if self._compiles else 0,
            libraries=_LIBRARIES if cpu else 0,
            generating=_generating(self.model, answers, self.laid_out),
            comparing=_comparing(self.model, compared) if cpu else 0,
            mapped=self.mapped,
        )


def ready(
    config: Any,
    *,
    tune_kind: str,
    lora: LoraConfig,
    quant: QuantConfig,
    dtype: torch.dtype,
    optimizer: str,
    device: torch.device,
    recompute: bool = False,
    offload: bool = False,
    process: int | None = None,
) -> Ready:
    """The model of `config` on shapes, made ready as a run would: see `estimate`. Raises InputError as `tune.prepare` does."""
    model, cpu = on_shapes(config, dtype), device.type == "cpu"
    dense = sum(p.nbytes for p in model.parameters())
    layers = sum(p.nbytes for p in {id(m.weight): m.weight for m in quantizable(model, skip=()).values()}.values())
    tuned, stored = _prepared(model, tune_kind, lora, quant)
    if recompute:
        fuse.keep_gates(model)
    learned = list(tuned.parameters.values())
    state, copies = _STATE[optimizer]
    states = round(state * tuned.trainable) + sum(4 * p.numel() for p in learned if p.element_size() == 2)
    packed = [p for p in model.parameters() if stored[id(p)] != p.nbytes]  # of a stack one expert is expanded at a time
    expanded = max(((p[0] if p.dim() > 2 else p).nbytes for p in packed), default=0)
    laid_out = model.get_output_embeddings().weight.nbytes  # type: ignore[operator]
    if tune_kind != "qlora":
        # A processor has them in another order, in float32 with the adapter added in, which the weights then have too.
        laid_out += layers * (1 + (tune_kind == "lora" and dtype == torch.float32))
    # Weights that need no other type are mapped from their files, and stay so beside what they were quantized to.
    mapped = sum(p.nbytes for p in packed) if cpu and getattr(config, "dtype", None) == dtype else 0
    return Ready(
        model, tuned, device, dense, sum(stored.values()) + expanded, laid_out if cpu else 0,
        optimizer=0 if offload else states, update=0 if offload else 4 * copies * max(p.numel() for p in learned),
        recompute=recompute, process=process if process is not None else psutil.Process().memory_info().rss if cpu else 0,
        mapped=mapped,
    )  # fmt: skip


def estimate(
    config: Any,
    *,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    work: Pass | None = None,
    answers: tuple[int, int] = (0, 0),
    compared: int = 0,
    **settings: Any,
) -> Memory:
    """The memory of training the model of `config` with passes like `work`, by default one row of `tokens` tokens, all of them
    targets, of generating `answers` of (how many, tokens with the prompt) at once, and of comparing the distributions at `compared`
    tokens with the starting model's. The `settings` are those of `ready`.

    weights     every parameter in its type (adapters are float32); for qlora the bits of `quantize`,
                plus the largest weight expanded for its product
    gradients   one per trainable weight, in its type
    optimizer   two moments, and float32 masters of weights kept in 16 bits
    activations bytes kept for the backward pass: what autograd saves that is not a weight; with `recompute` of each block its
                input alone, and one block whole
    backward    gradients of what one block keeps
    head        logits of one tile, hidden states of the targets and their gradient
    kernels     in 16 bits on a processor, what oneDNN keeps for the sizes that it met

    An `offload`ed optimizer takes nothing of the device. `process` is what the program takes without a model, by default what it takes now.
    On a CPU activations are taken larger by a share for the holes that the allocator leaves. bench/memory.py holds the sum against
    measured peaks. Raises InputError as `tune.prepare` does.
    """
    made = ready(config, dtype=dtype, device=device, **settings)
    return made.training(work or Pass.row(tokens, dtype, device), answers, compared)


def _prepared(model: nn.Module, kind: str, lora: LoraConfig, quant: QuantConfig) -> tuple[tune.Tuned, dict[int, int]]:
    """The model made ready on shapes, and the bytes that each of its weights is stored in then, by identity."""
    quantized: dict[int, int] = {}
    if kind == "qlora":
        for linear in quantizable(model).values():
            # A class of its own stands in for a quantized layer: it keeps nothing either, and adapters treat it as one not plain.
            linear.__class__ = type("_Frozen", (type(linear),), {})
            count = linear.weight.numel()
            quantized[id(linear.weight)] = stored_bytes(count, quant.kind, quant.block, quant.double)
        for name in stacks(model):  # each expert by itself
            weight = model.get_parameter(name)
            one = stored_bytes(weight[0].numel(), quant.kind, quant.block, quant.double)
            quantized[id(weight)] = len(weight) * one
    tuned = tune.prepare(model, "lora" if kind == "qlora" else kind, lora, quant)
    return tuned, {id(p): p.nbytes for p in model.parameters()} | quantized


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


def _comparing(model: nn.Module, tokens: int) -> int:
    """Log-probabilities of the whole vocabulary at so many tokens, and twice those of one pass while it is read."""
    row = 4 * int(model.config.get_text_config().vocab_size)  # type: ignore[operator, union-attr]
    return row * (tokens + 2 * min(tokens, DISTRIBUTION_TOKENS)) if tokens else 0


def describe(memory: Memory) -> str:
    """One line: what learns, and where the memory goes."""
    names = ("weights", "gradients", "optimizer", "activations", "head", "kernels")
    parts = {name: getattr(memory, name) for name in names if name != "kernels" or memory.kernels}
    share = 100 * memory.trainable / memory.parameters
    listed = ", ".join(f"{name} {size(value)}" for name, value in parts.items())
    learning = f"{memory.trainable:,} of {memory.parameters:,} weights learn ({share:.2f} %)"
    return f"{learning}; about {size(memory.total)} at the peak: {listed}"
