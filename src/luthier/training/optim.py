"""AdamW with float32 master weights, its state in float32 or in 8 bits, and the learning rate schedule.

    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
    w = w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) - lr decay w        (Loshchilov & Hutter 2019)

Parameters in bfloat16 or float16 are copied to float32 masters: an update smaller than half a step of
the 8-bit mantissa would otherwise be lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from luthier.config.training import TrainConfig
from luthier.core.ranks import here

EPS = 1e-8
BLOCK = 256  # state values that share one scale in 8-bit AdamW
CAST = 64 << 20  # bytes of gradients copied to float32 that may wait for their update together


def schedule(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the peak learning rate at optimizer step `step` (0-based) of `steps`.

    Linear warm-up over the first `warmup` share, then constant, or down to zero linearly or, where no schedule is named, on
    a cosine.
    """
    warm = round(steps * config.warmup)
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(1, steps - warm)
    if config.schedule == "linear":
        return 1.0 - done
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _is_cut(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "to_local")


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this rank has."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _norm(grads: list[torch.Tensor]) -> float:
    wide = torch.float64 if any(g.dtype == torch.float64 for g in grads) else torch.float32
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads, dtype=wide))))


class Moments(Protocol):
    """Moments of one parameter. `update` steps many parameters at once: on a GPU, a call each is mostly waiting."""

    def tensors(self) -> dict[str, torch.Tensor]: ...
    @staticmethod
    def update(group: Sequence[Update], t: int, lr: float, decay: float, betas: tuple[float, float]) -> None: ...


Update = tuple[torch.Tensor, torch.Tensor, Any]  # weight, gradient, its moments


class Adam:
    """Float32 moments."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.m, self.v = torch.zeros_like(weight), torch.zeros_like(weight)

    @staticmethod
    def update(group: Sequence[Update], t: int, lr: float, decay: float, betas: tuple[float, float]) -> None:
        weights, grads, moments = zip(*group, strict=True)
        count = torch.full((), float(t), device=weights[0].device)
        torch._fused_adamw_(
            weights, grads, [x.m for x in moments], [x.v for x in moments], [], [count] * len(group),
            lr=lr, beta1=betas[0], beta2=betas[1], weight_decay=decay, eps=EPS, amsgrad=False, maximize=False,
        )  # fmt: skip

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"m": self.m, "v": self.v}


class _Adam8:
    """Moments in 8 bits, blocks of 256 values sharing a scale.

    m is stored as sign(m) sqrt(|m| / max|m|) in 127 steps and v as (v / max v)^(1/4) in 255 steps: finer
    steps near zero, as the dynamic code of Dettmers et al. 2022 has them. v is rounded up, so that a small
    v never becomes zero and its update never explodes.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        blocks = -(-weight.numel() // BLOCK)
        self.m = torch.zeros(blocks, BLOCK, dtype=torch.int8, device=weight.device)
        self.v = torch.zeros(blocks, BLOCK, dtype=torch.uint8, device=weight.device)
        self.m_scale = torch.zeros(blocks, 1, device=weight.device)
        self.v_scale = torch.zeros(blocks, 1, device=weight.device)

    @staticmethod
    def update(group: Sequence[Update], t: int, lr: float, decay: float, betas: tuple[float, float]) -> None:
        for weight, grad, moments in group:
            moments.step(weight, grad, t, lr, decay, betas)

    def step(
        self, weight: torch.Tensor, grad: torch.Tensor, t: int, lr: float, decay: float, betas: tuple[float, float]
    ) -> None:
        b1, b2 = betas
        g = torch.nn.functional.pad(grad.reshape(-1).float(), (0, self.m.numel() - grad.numel())).view_as(self.m)
        codes = self.m.float() / 127
        m = (codes * codes.abs() * self.m_scale).lerp_(g, 1 - b1)
        v = ((self.v.float() / 255) ** 4 * self.v_scale).lerp_(g * g, 1 - b2)
        self.m_scale = m.abs().amax(1, keepdim=True)
        self.v_scale = v.amax(1, keepdim=True)
        share = (m / self.m_scale.clamp(min=1e-38)).clamp_(-1, 1)
        self.m = (share.abs().sqrt() * share.sign() * 127).round().to(torch.int8)
        self.v = ((v / self.v_scale.clamp(min=1e-38)) ** 0.25 * 255).ceil().clamp_(0, 255).to(torch.uint8)
        step = m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + EPS)
        weight.mul_(1 - lr * decay)
        weight.sub_((lr * step).reshape(-1)[: weight.numel()].view_as(weight))

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"m": self.m, "v": self.v, "m_scale": self.m_scale, "v_scale": self.v_scale}


KINDS: dict[str, type[Adam] | type[_Adam8]] = {"adamw": Adam, "adamw8bit": _Adam8}


class Optimizer:
    """One AdamW over named parameters. `t` counts the updates made."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: TrainConfig, rates: Mapping[str, float],
        home: torch.device | None = None,
    ) -> None:  # fmt: skip
        """`rates` multiplies the learning rate of the parameters it names (LoRA+). With a `home` moments and masters are there,
        gradients are brought to it and updated weights back: of the parameters' own device the optimizer takes nothing."""
        self.parameters, self.config, self.rates = dict(parameters), config, dict(rates)
        self.t = 0
        low = (torch.bfloat16, torch.float16)
        self.masters = {n: p.detach().to(home, torch.float32) for n, p in self.parameters.items() if p.dtype in low}
        self.copies = {} if home is None else {  # of those that need no master
            n: p.detach().to(home, copy=True) for n, p in self.parameters.items() if n not in self.masters
        }  # fmt: skip
        kind = KINDS[config.optimizer]
        self.state: dict[str, Moments] = {n: kind(self.learned_copy(n, p)) for n, p in self.parameters.items()}

    def learned_copy(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        """The tensor that is updated: the master, the copy at home, or the weight itself."""
        return self.masters.get(name, self.copies.get(name, parameter.detach()))

    def clip(self) -> float:
        """Scale all gradients so that their joint norm is at most `clip`; return the norm before. Not finite: NaN or inf.

        Gradients of several ranks are summed first: weights are normalised over all ranks, so nothing is divided. Of a
        parameter that is cut over the ranks (FSDP, which sums by itself) each has a part, and the norm takes in all parts.
        """
        if here().world > 1:
            self._add_ranks()
        grads = [_local(p.grad) for p in self.parameters.values() if p.grad is not None]
        if not grads:
            return 0.0
        norm = _norm(grads)
        if here().world > 1:
            parts = [_local(p.grad) for p in self.parameters.values() if p.grad is not None and _is_cut(p)]
            whole = [p.grad for p in self.parameters.values() if p.grad is not None and not _is_cut(p)]
            squares = here().sum(_norm(parts) ** 2 if parts else 0.0)[0]
            norm = math.sqrt(squares + (_norm(whole) ** 2 if whole else 0.0))
        factor = self.config.clip / (norm + 1e-6)
        if factor < 1:
            torch._foreach_mul_(grads, factor)
        return norm

    def _add_ranks(self) -> None:
        """Sum the gradients of whole parameters over the ranks: of those that have one on any rank."""
        whole = [p for p in self.parameters.values() if p.requires_grad and not _is_cut(p)]
        somewhere = here().sum(*(float(p.grad is not None) for p in whole))
        learned = [p for p, ranks in zip(whole, somewhere, strict=True) if ranks]
        for parameter in learned:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        here().add([p.grad for p in learned if p.grad is not None])

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient, and drop the gradients."""
        self.t += 1
        groups, cast = dict[tuple[Any, ...], list[Update]](), 0
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            weight = self.learned_copy(name, parameter)
            grad = parameter.grad.to(weight.device, weight.dtype)
            cast += 0 if grad is parameter.grad else grad.nbytes
            decay = self.config.weight_decay if parameter.dim() > 1 else 0.0
            alike = (self.rates.get(name, 1.0), decay, weight.dtype, weight.device)
            groups.setdefault(alike, []).append((weight, grad, self.state[name]))
            parameter.grad = None
            if cast > CAST:
                self._update(groups, lr)
                cast = 0
        self._update(groups, lr)
        for name, master in (self.masters | self.copies).items():
            self.parameters[name].data.copy_(master)

    def _update(self, groups: dict[tuple[Any, ...], list[Update]], lr: float) -> None:
        """Step all groups, and empty them."""
        betas = (self.config.beta1, self.config.beta2)
        for (rate, decay, *_), group in groups.items():
            KINDS[self.config.optimizer].update(group, self.t, lr * rate, decay, betas)
        groups.clear()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything to save, flat: moments and masters."""
        out = {f"master/{n}": w for n, w in self.masters.items()}
        for name, state in self.state.items():
            out |= {f"{key}/{name}": tensor for key, tensor in state.tensors().items()}
        return out

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], t: int) -> None:
        """The reverse of `tensors`, into an optimizer over the same parameters, which are as they were then."""
        self.t = t
        for name, master in self.masters.items():
            master.copy_(tensors[f"master/{name}"])
        for name, copy in self.copies.items():
            copy.copy_(self.parameters[name])
        for name, state in self.state.items():
            for key, tensor in state.tensors().items():
                tensor.copy_(tensors[f"{key}/{name}"])
