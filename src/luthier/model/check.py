"""The check at load: a packed tree and transformers' own attention must give the same log-probabilities.

A tree of 24 tokens (a beginning with two continuations) is read by Luthier, at once and then its continuations after a beginning that
was remembered, as when text is generated, and its two paths one by one by the model as transformers made it, on the very weights
that were loaded. What Luthier does not compute of an architecture shows
here, whatever it is called: another mask, a cap, a sink, a state between tokens, a norm that was fused wrongly. Windows of
attention that a row can outgrow are narrowed for the check, so that they are shorter than the paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from luthier.core.errors import InputError
from luthier.core.types.batch import Batch
from luthier.model.folder.limits import context
from luthier.model.forward import head_output
from luthier.model.layers.chosen_experts import Choices, chosen
from luthier.model.layers.prefix import Prefix, hidden_after

NODE_TOKENS = 8  # tokens of each of the three nodes
WINDOW = 6  # a window for the check: shorter than a path of two nodes, and no divisor of it
OWN = (
    "_attn_implementation_internal",
    "_experts_implementation_internal",
)  # where transformers keeps whose functions it calls
WINDOWS = ("sliding_window", "attention_chunk_size")
# Largest |difference| of log p over the spread of log p. Of tiny random models of 95 architectures, in float32, right ones were
# at most 1.6e-5 apart in log p and wrong ones in whole units.
FINE = 1e-3
# In 16 bits, the mean |difference| of one path's eight tokens, over the spread: rounding makes that of one token as large as a fault's.
# Of tiny bfloat16 models of 16 architectures, 12 to 24 sets of weights each, experts chosen alike, right ones came to 0.054 at most,
# and ones whose rows saw each other, or whose windows were passed over, to 0.094 at least. Where experts are chosen in a way of
# their own (JetMoE, LongCat, Llama 4) right ones came to 0.21: up to MOST, a difference may be twice what rounding alone makes.
COARSE, MOST = 0.08, 0.225


@dataclass(frozen=True)
class Reference:
    """What transformers makes of the check's tokens: log p of the 16 targets, and in 16 bits the experts that the 24 tokens took."""

    logp: torch.Tensor
    choices: Choices | None


def expected(model: nn.Module) -> Reference:
    """The reference of a model that is as transformers made it, path by path."""
    ids = _ids(model)
    device = next(model.parameters()).device
    found, choices, root = [], None, None
    with torch.no_grad(), _narrow(model), _own_attention(model) as windows:
        for tail in (ids[NODE_TOKENS : 2 * NODE_TOKENS], ids[2 * NODE_TOKENS :]):
            row = torch.cat([ids[:NODE_TOKENS], tail]).to(device)
            with chosen(model, root) as taken:
                logits = model(input_ids=row[None], use_cache=False).logits[0, NODE_TOKENS - 1 : -1]
            found.append(logits.double().log_softmax(-1).gather(-1, row[NODE_TOKENS:, None])[:, 0])
            choices = taken if choices is None else choices.before(taken.of(NODE_TOKENS, 2 * NODE_TOKENS))
            root = choices.of(0, NODE_TOKENS) if _coarse(model) else None
    wide = max(windows, default=0)
    if wide > WINDOW and not _beyond_reach(model, wide):
        raise _refusal(model, f"it looks back {wide:,} tokens by a rule of its own")
    return Reference(torch.cat(found), choices if _coarse(model) else None)


def check(model: nn.Module, wanted: Reference) -> None:
    """Raise InputError unless Luthier gives the log-probabilities of `wanted` for the packed tree, and unless these are numbers."""
    if not bool(wanted.logp.isfinite().all()):
        raise InputError(
            "transformers itself computes NaN or infinity with these weights", where="--model",
            fix="fetch the weights again; a training run that diverged leaves such weights",
        )  # fmt: skip
    try:
        found = computed(model, wanted.choices)
    except InputError as error:
        raise _refusal(model, error.what) from error
    except torch.OutOfMemoryError:
        raise
    except AssertionError as error:  # of `attention`: StableLM's layers drop the argument
        raise _refusal(model, "its layers do not hand the tree to their attention") from error
    except Exception as error:  # whatever the code of an architecture that takes no `tree=` comes to
        raise _refusal(model, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}") from error
    spread = max(float(wanted.logp.std()), 1e-3)
    for what, logp in zip(("packed rows", "text that is read piece by piece"), found, strict=True):
        apart = float((logp - wanted.logp).abs().max())
        far = _path(logp, wanted.logp) / spread if _coarse(model) else apart / spread
        if not far <= (COARSE if _coarse(model) else FINE) and not (
            far <= MOST and far <= 2 * _rounding(model, wanted.choices) / spread
        ):
            raise _refusal(model, f"log-probabilities of {what} are up to {apart:.2g} from those of transformers")


@torch.no_grad()
def computed(model: nn.Module, choices: Choices | None) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of the 16 targets as Luthier computes them: of the packed tree at once, and of its leaves after its root."""
    batch = _batch(_ids(model)).to(next(model.parameters()).device)
    with _narrow(model):
        with chosen(model, choices):
            whole, beginning = hidden_after(model, batch, Prefix(), 0, NODE_TOKENS)
        with chosen(model, choices and choices.of(NODE_TOKENS, 3 * NODE_TOKENS)):
            later, _ = hidden_after(model, batch, beginning, NODE_TOKENS, 0)
        pieces = torch.cat([whole[:NODE_TOKENS], later])
        packed, piecewise = (head_output(model, h[batch.source], batch.label).logp.double() for h in (whole, pieces))
    return packed, piecewise


def _path(logp: torch.Tensor, other: torch.Tensor) -> float:
    """The mean |difference| over the tokens of a path, of the path where it is larger."""
    return float((logp - other).abs().view(2, NODE_TOKENS).mean(1).max())


def _rounding(model: nn.Module, choices: Choices | None) -> float:
    """How far rounding alone takes the log-probabilities of a path: by the worst of four passes in which the embedding's last bit
    is another. 0 where the model does not compute in 16 bits, in which rounding is no excuse."""
    if not _coarse(model):
        return 0.0
    draw = torch.Generator().manual_seed(0)

    def rounded(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
        sign = 2 * torch.randint(0, 2, out.shape, generator=draw).to(out.device) - 1
        return (out.float() * (1 + sign * torch.finfo(out.dtype).eps)).to(out.dtype)

    plain, _ = computed(model, choices)
    hook = model.get_input_embeddings().register_forward_hook(rounded)  # type: ignore[operator]
    try:
        return max(_path(computed(model, choices)[0], plain) for _ in range(4))
    finally:
        hook.remove()


def _coarse(model: nn.Module) -> bool:
    """Whether the model computes in 16 bits."""
    return next(model.parameters()).dtype in (torch.bfloat16, torch.float16)


def _refusal(model: nn.Module, why: str) -> InputError:
    kind = getattr(model.config, "model_type", type(model).__name__)
    return InputError(
        f"Luthier does not compute models of type '{kind}' exactly: {why}", where="--model",
        fix="use another model, such as one of the Llama, Qwen3, Mistral, Gemma 3 or Phi families",
    )  # fmt: skip


def _ids(model: nn.Module) -> torch.Tensor:
    """The 24 tokens: the same for every model of this vocabulary, and none that stands for a picture or for padding."""
    config: Any = model.config
    taken = {value for part in (config, config.get_text_config()) for value in _token_ids(part)}
    size = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    drawn = torch.randint(0, size, (20 * NODE_TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()
    kept = [index for index in drawn if index not in taken] or drawn
    return torch.tensor((kept * 3 * NODE_TOKENS)[: 3 * NODE_TOKENS])


def _token_ids(config: Any) -> set[int]:
    values = [value for name, value in vars(config).items() if name.endswith(("token_id", "token_index"))]
    return {item for value in values for item in (value if isinstance(value, list) else [value]) if item is not None}


def _batch(ids: torch.Tensor) -> Batch:
    none = torch.zeros(0, dtype=torch.int64)
    first, target = torch.arange(NODE_TOKENS), torch.arange(NODE_TOKENS, 3 * NODE_TOKENS)
    source = target - 1
    source[NODE_TOKENS] = NODE_TOKENS - 1  # the second leaf follows the root, not the first leaf
    return Batch(
        tokens=ids, positions=torch.cat([first, first + NODE_TOKENS, first + NODE_TOKENS]),
        node_start=tuple(range(0, 4 * NODE_TOKENS, NODE_TOKENS)), node_parent=(-1, 0, 0), source=source, label=ids[target],
        weight=torch.ones(2 * NODE_TOKENS), tree=none, leaf=none, leaf_tree=none,
        leaf_end=none, pairs=none, ties=none, tree_weight=none, rows=(0,),
    )  # fmt: skip


@contextmanager
def _own_attention(model: nn.Module) -> Iterator[set[int]]:
    """For the block `model` attends, and asks its experts, as transformers wrote it; the windows that its masks were made with are
    collected."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    windows: set[int] = set()
    eager = ALL_MASK_ATTENTION_FUNCTIONS["eager"]

    def noting(*args: Any, local_size: int | None = None, **named: Any) -> Any:
        if local_size is not None:
            windows.add(local_size)
        return eager(*args, **({} if local_size is None else {"local_size": local_size}), **named)

    with ExitStack() as changes:
        changes.enter_context(_set([(config, name, "eager") for config in _configs(model) for name in OWN]))
        ALL_MASK_ATTENTION_FUNCTIONS["eager"] = noting
        try:
            yield windows
        finally:
            ALL_MASK_ATTENTION_FUNCTIONS["eager"] = eager


@contextmanager
def _narrow(model: nn.Module) -> Iterator[None]:
    """For the block, windows of attention are WINDOW tokens wide."""
    places = [*_configs(model), *model.modules()]
    wide = [(place, name) for place in places for name in WINDOWS if isinstance(vars(place).get(name), int)]
    most = max((vars(place)[name] for place, name in wide), default=0)
    if most <= WINDOW or _beyond_reach(model, most):
        yield
        return
    with _set([(place, name, max(1, vars(place)[name] - most + WINDOW)) for place, name in wide]):
        yield


def _beyond_reach(model: nn.Module, window: int) -> bool:
    """Whether no row can be longer than the window."""
    longest = context(model.config)
    return longest is not None and window >= longest


def _configs(model: nn.Module) -> list[Any]:
    found = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    return list(found.values())


@contextmanager
def _set(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """For the block, attributes have these values; written past setters, which would change more."""
    before = [(place, name, vars(place)[name]) for place, name, _ in values]
    try:
        for place, name, value in values:
            vars(place)[name] = value
        yield
    finally:
        for place, name, value in before:
            vars(place)[name] = value
