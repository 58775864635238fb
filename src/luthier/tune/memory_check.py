"""Whether a run fits into memory, asked before its model is loaded, and what it does without so that it fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from luthier.config.evaluation import EVAL_SAMPLES
from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.types.batch import Batch
from luthier.core.types.trees import Node, TokenTree
from luthier.evals.forgetting import GENERAL_ANSWERS, compared_tokens
from luthier.model import estimate, memory
from luthier.model.activations import Pass
from luthier.model.adapt import tune
from luthier.model.folder.configuration import load_config
from luthier.model.load import pick_device
from luthier.rewards.specs import models
from luthier.runs.locate import resolve_model
from luthier.runs.method import chosen_method
from luthier.runs.reward_model import fits_base
from luthier.runs.tokenizer_and_template import TextFormat
from luthier.text.loss_weights import RULES
from luthier.training.steps import make_step
from luthier.tune.build import packing
from luthier.tune.prepare import EncodedData, lora_settings, pass_tokens

LOOKED_AT = 256  # examples whose passes are packed to see what the largest computes


def check_offload(config: RunConfig) -> None:
    """Raise InputError where `train.offload` asks for what is there already."""
    if config.train.offload != "none" and pick_device(config.device).type == "cpu":
        raise InputError(
            "the optimizer is already in CPU memory", where="--train.offload",
            fix="leave it out, or train on a GPU",
        )  # fmt: skip


def check_memory(
    texts: TextFormat, config: RunConfig, ready: EncodedData, dtype: torch.dtype, device: torch.device
) -> tuple[estimate.Memory, bool]:
    """Estimate the peak before loading, say it, and refuse what cannot fit unless forced. Returns the estimate, and whether blocks
    are to be computed again in the backward pass."""
    free, beside = memory.available(device), _beside(texts, config, dtype, device)
    again = config.train.recompute == "blocks"
    found = replace(_estimate(texts, config, ready, dtype, device, again), beside=beside)
    if config.train.recompute == "auto" and not again and found.needed > free:
        smaller = replace(_estimate(texts, config, ready, dtype, device, recompute=True), beside=beside)
        if smaller.needed < found.needed:
            log.note(
                f"activations would take {log.size(found.activations)}: blocks are recomputed in the backward pass "
                "(--train.recompute none keeps them)"
            )
            found, again = smaller, True
    log.note(estimate.describe(found))
    if found.needed > free and not config.force:
        raise InputError(
            f"this needs about {log.size(found.needed)} more and {log.size(free)} are free",
            where=f"--tune {config.tune}",
            fix="lower --train.tokens, use --tune lora or qlora, or a smaller model; --force tries anyway",
        )  # fmt: skip
    return found, again


def _estimate(
    texts: TextFormat, config: RunConfig, ready: EncodedData, dtype: torch.dtype, device: torch.device, recompute: bool
) -> estimate.Memory:
    tokens = pass_tokens(texts, config, dtype, device)
    batches = _batches(config, ready, tokens, dtype, device)
    # An example longer than a micro-batch gets one of its own.
    longest = max((len(tree) for tree in (*ready.train, *ready.replay, *ready.test)), default=config.text.max_length)
    return estimate.estimate(
        load_config(texts.resolved.source.folder), tune_kind=config.tune, lora=lora_settings(texts, config), quant=config.quant,
        dtype=dtype, tokens=max(tokens, longest), optimizer=config.train.optimizer, device=device,
        work=Pass.largest(batches, dtype, device) if batches else None, recompute=recompute,
        offload=config.train.offload == "optimizer", answers=_answers(config, ready), compared=_compared(config),
    )  # fmt: skip


def _batches(
    config: RunConfig, ready: EncodedData, tokens: int, dtype: torch.dtype, device: torch.device
) -> list[Batch]:
    """Passes like those of the run: of some of its examples and the longest one. None of a stream, of which nothing is known."""
    trees: Sequence[TokenTree] = [*ready.train[:LOOKED_AT], *ready.replay[:LOOKED_AT]]
    if not trees:
        return []
    longest = max((*ready.train, *ready.replay), key=len)
    trees = [*trees, longest]
    if chosen_method(config).online:
        trees = [_sampled(tree, config) for tree in trees]
    size, how = config.train.batch, packing(tokens, dtype, device)
    steps = [trees[first : first + size] for first in range(0, len(trees), size)]
    return [batch for step in steps for batch in make_step(step, RULES[config.train.weigh], how).micro]


def _sampled(tree: TokenTree, config: RunConfig) -> TokenTree:
    """A prompt with answers of the full length, as a rollout gives at most."""
    count = config.rollout.max_new_tokens
    answer = Node((0,) * count, (True,) * count, 0)
    prompt = tree.nodes[0]
    return TokenTree((Node(prompt.ids, (False,) * len(prompt.ids)), *[answer] * config.rollout.samples), row=tree.row)


def _answers(config: RunConfig, ready: EncodedData) -> tuple[int, int]:
    """(How many answers are generated at once, tokens of the longest with its prompt): when held-out rows are measured, or
    in a rollout."""
    method, s = chosen_method(config), config.eval.samples
    count = min(EVAL_SAMPLES if s is None else s, len(ready.test)) if method.needs.logp else 0
    longest = max((len(tree.nodes[0].ids) for tree in ready.test), default=0)
    measured = [(count, longest + config.eval.max_new_tokens)]
    if _compared(config):
        measured.append(GENERAL_ANSWERS)
    if not method.online:
        return max(measured, key=math.prod)
    r = config.rollout
    drawn = config.train.batch * config.policy.minibatches * r.samples
    prompt = max((len(tree.nodes[0].ids) for tree in ready.train), default=0)
    rollout = min(drawn, r.batch or drawn), prompt + r.max_new_tokens
    return max(*measured, rollout, key=math.prod)


def _compared(config: RunConfig) -> int:
    """Tokens of the model's own answers, before and after, at which the whole distributions are compared."""
    asked = config.eval.forgetting and chosen_method(config).needs.logp
    return compared_tokens() if asked else 0


def _beside(texts: TextFormat, config: RunConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Bytes of models beside the one that learns, each said."""
    method, beside = chosen_method(config), 0
    if method.online and not tune.is_adapter(config.tune):  # reference and critic are models of their own
        critic = bool(method.needs.value)
        own = estimate.estimate(
            load_config(texts.resolved.source.folder), tune_kind=config.tune, lora=config.lora, quant=config.quant,
            dtype=dtype, tokens=1, optimizer=config.train.optimizer, device=device,
            offload=config.train.offload == "optimizer",
        )  # fmt: skip
        beside = own.weights * (1 + critic) + critic * (own.gradients + own.optimizer)
        log.note(f"and {log.size(beside)} for the reference{' and the critic' if critic else ''}")
    if others := _reward_models(texts, config, dtype):
        log.note(f"and {log.size(others)} for reward models")
        beside += others
    return beside


def _reward_models(texts: TextFormat, config: RunConfig, dtype: torch.dtype) -> int:
    """Bytes of the reward models that the model that learns cannot play."""
    init = lora_settings(texts, config).init
    reward_models = [resolve_model(run) for run in models((*config.reward.use, *config.reward.judge))]
    separate = [resolved for resolved in reward_models if not fits_base(resolved, texts.resolved, config.tune, init)]
    return sum(memory.weights(load_config(resolved.source.folder), dtype) for resolved in separate)
