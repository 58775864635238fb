"""The one forward pass: Batch -> Output, for every method, benchmark and score.

The vocabulary head runs only where a target is predicted, in tiles (`vocabulary`), and no [tokens, vocabulary]
tensor is ever made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from luthier.core.types.batch import LOGP, Batch, Needs, Output
from luthier.model.adapt.lora import cast_once
from luthier.model.layers import experts, routing
from luthier.model.layers.decoder import decoder, text_config
from luthier.model.layers.plan import TreePlan, by_row
from luthier.model.layers.pooling import pooled
from luthier.model.layers.vocabulary import HeadLogp, blocks, wide

DISTRIBUTION_TOKENS = 512  # of a pass whose distributions are wanted: they are many times its hidden states
SLICE_BYTES = 24 << 20  # logits of one slice of targets, in float32, where whole rows of them are needed


def forward(model: nn.Module, batch: Batch, needs: Needs = LOGP) -> Output:
    """What `needs` asks of `batch`, in float32 (float64 for a float64 model).

    Scores and values come from the linear heads `model.score` and `model.value` (see `heads`).
    """
    return Output(**as_pass(model, _outputs, batch, needs))


def as_pass(model: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    """function(model, *args) as one forward pass of `model`: by a call of the root module, so that hooks on it fire, such as
    those with which FSDP gathers its weights. What it returns must be tensors, or a dict of them, for hooks to see."""
    attributes = vars(model)
    before = attributes.get("forward")

    def restore() -> None:
        attributes.pop("forward", None)
        if before is not None:
            attributes["forward"] = before

    def run(*given: Any) -> Any:
        restore()  # the root may be the decoder too, which `function` calls
        return function(model, *given)

    attributes["forward"] = run
    try:
        return model(*args)
    finally:
        restore()


def _outputs(model: Any, batch: Batch, needs: Needs) -> dict[str, torch.Tensor]:
    """The fields of the `Output`."""
    out = dict[str, torch.Tensor]()
    with experts.watched() as chosen:
        decoded = _decoded(model, batch, **({"output_router_logits": True} if needs.balance else {}))
    hidden = decoded.last_hidden_state[0]
    if needs.balance:
        out["balance"] = routing.balance(decoded.router_logits, batch, experts.taken(model))
    if needs.load and chosen:
        out["load"] = routing.load(chosen, batch.real or len(batch.tokens))
    if needs.score:
        out["score"] = model.score(hidden[batch.leaf_end].to(model.score.weight.dtype))
    if needs.value:
        out["value"] = model.value(hidden[batch.source].to(model.value.weight.dtype)).squeeze(-1)
    if needs.embed:
        out["embed"] = pooled(hidden, batch, needs.embed)
    if not needs.logp:
        return out | {"logp": hidden.new_zeros(0)}
    read = head_output(model, hidden[batch.source], batch.label, entropy=needs.entropy, temperature=needs.temperature)
    return out | {"logp": read.logp} | ({} if read.entropy is None else {"entropy": read.entropy})


def hidden_states(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The decoder's last hidden states of the packed row, [T, H]."""
    hidden: torch.Tensor = _decoded(model, batch).last_hidden_state[0]
    return hidden


def _decoded(model: nn.Module, batch: Batch, **others: Any) -> Any:
    """What the decoder gives for the packed row."""
    with cast_once(model):
        return decoder(model)(
            input_ids=batch.tokens[None],
            position_ids=by_row(batch.positions),
            use_cache=False,
            tree=TreePlan(batch, batch.tokens.device),
            **others,
        )


def head_output(
    model: nn.Module, hidden: torch.Tensor, target: torch.Tensor, *, entropy: bool = False, temperature: float = 1.0
) -> Output:
    """Run the vocabulary head on hidden [M, H] and read off the token ids target [M]."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    scale, cap = _logit_settings(model)
    if temperature != 1.0:  # cap tanh(x / cap) / t = cap/t tanh((x / t) / (cap / t))
        scale, cap = scale / temperature, cap / temperature if cap else None
    if type(head) is nn.Linear and head.bias is None:
        logp, spread = HeadLogp.apply(hidden, head.weight, target, scale, cap, entropy)
    else:
        logp, spread = _sliced(head, hidden, target, scale, cap)
    return Output(logp=logp, entropy=spread if entropy else None)


@torch.no_grad()
def logp_of(
    model: nn.Module, hidden: torch.Tensor, place: torch.Tensor, token: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of token[m], each predicted from the state hidden[place[m]], and whether it is the likeliest there.

    hidden [T, H], place and token [M] -> float32 [M], bool [M]. The head runs once for each place, however many
    tokens are asked of it, as for the choices of one letter of a question.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    scale, cap = _logit_settings(model)
    places, row = place.unique(return_inverse=True)
    logp = torch.empty(len(token), dtype=wide(hidden.dtype), device=hidden.device)
    best = torch.empty(len(token), dtype=torch.bool, device=hidden.device)
    for part in _slices(len(places), getattr(head, "out_features", text_config(model).vocab_size)):
        logits = _whole_logits(head, hidden[places[part]], scale, cap)
        asked = ((row >= part.start) & (row < part.stop)).nonzero().squeeze(-1)
        at, wanted = row[asked] - part.start, token[asked]
        logp[asked] = logits[at, wanted] - logits.logsumexp(-1)[at]
        best[asked] = logits.argmax(-1)[at] == wanted
    return logp, best


@torch.no_grad()
def distributions(model: nn.Module, batch: Batch) -> torch.Tensor:
    """log p of every token of the vocabulary at every target of `batch`: [M, V] float32. For few targets."""

    def run(model: Any, batch: Batch) -> torch.Tensor:
        hidden = hidden_states(model, batch)[batch.source]
        parts = _slices(len(hidden), text_config(model).vocab_size) or [slice(0)]  # of no target: [0, V]
        return torch.cat([logits_of(model, hidden[part]).log_softmax(-1) for part in parts])

    found: torch.Tensor = as_pass(model, run, batch)
    return found


def logits_of(model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """The logits of the whole vocabulary at hidden states [M, H]: [M, V] in float32 or wider."""
    return _whole_logits(model.get_output_embeddings(), hidden, *_logit_settings(model))  # type: ignore[operator]


def _logit_settings(model: nn.Module) -> tuple[float, float | None]:
    """By what logits are multiplied, and their cap. Cohere and Falcon-H1 multiply them, Granite divides them by `logits_scaling`, and
    HyperCLOVA X multiplies them by a setting of the same name."""
    config = text_config(model)
    scale = float(getattr(config, "logit_scale", None) or 1.0) * float(
        getattr(config, "lm_head_multiplier", None) or 1.0
    )
    divided = float(getattr(config, "logits_scaling", None) or 1.0)
    scale = scale * divided if config.model_type == "hyperclovax" else scale / divided
    return scale, getattr(config, "final_logit_softcapping", None)


def _whole_logits(head: Any, hidden: torch.Tensor, scale: float, cap: float | None) -> torch.Tensor:
    """[M, H] -> [M, V], in float32 or wider."""
    logits: torch.Tensor = head(hidden).to(wide(hidden.dtype))
    logits = logits if scale == 1.0 else logits * scale
    return torch.tanh(logits / cap) * cap if cap else logits


def _slices(count: int, vocabulary: int) -> list[slice]:
    return blocks(count, max(1, SLICE_BYTES // (4 * vocabulary)))


def _sliced(
    head: nn.Module, hidden: torch.Tensor, target: torch.Tensor, scale: float, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Any other head (with a bias, an adapter, quantized): slices whose logits are computed again for the gradient."""
    from torch.utils.checkpoint import checkpoint

    def one(h: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logp = _whole_logits(head, h, scale, cap).log_softmax(-1)
        return logp.gather(-1, t[:, None]).squeeze(-1), -(logp.exp() * logp).sum(-1).detach()

    size = next(iter(head.parameters()), hidden)
    parts = _slices(len(hidden), getattr(head, "out_features", len(size))) or [slice(0, 0)]
    done = [checkpoint(one, hidden[part], target[part], use_reentrant=False) for part in parts]
    return torch.cat([a for a, _ in done]), torch.cat([b for _, b in done])
