"""Whether a run fits into memory, asked before its model is loaded."""

from __future__ import annotations

import torch

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.model import memory
from luthier.model.adapt import tune
from luthier.model.folder.configuration import load_config
from luthier.rewards.specs import models
from luthier.runs.locate import resolve_model
from luthier.runs.method import chosen_method
from luthier.runs.reward_model import fits_base
from luthier.runs.tokenizer_and_template import TextFormat
from luthier.tune.prepare import EncodedData, lora_settings, pass_tokens


def check_memory(
    texts: TextFormat, config: RunConfig, ready: EncodedData, dtype: torch.dtype, device: torch.device
) -> memory.Memory:
    """Estimate the peak before loading, say it, and refuse what cannot fit unless forced."""
    # An example longer than a micro-batch gets one of its own.
    longest = max((len(tree) for tree in (*ready.train, *ready.replay, *ready.test)), default=config.text.max_length)
    tokens = pass_tokens(texts, config, dtype, device)
    estimate = memory.estimate(
        load_config(texts.resolved.source.folder), tune_kind=config.tune, lora=lora_settings(texts, config), quant=config.quant,
        dtype=dtype, tokens=max(tokens, longest), optimizer=config.train.optimizer, device=device,
    )  # fmt: skip
    log.note(memory.describe(estimate))
    method, beside = chosen_method(config), 0
    if method.online and not tune.is_adapter(config.tune):  # reference and critic are models of their own
        critic = method.needs.value
        beside = estimate.weights * (1 + critic) + critic * (estimate.gradients + estimate.optimizer)
        log.note(f"and {log.size(beside)} for the reference{' and the critic' if critic else ''}")
    if others := _reward_models(texts, config, dtype):
        log.note(f"and {log.size(others)} for reward models")
        beside += others
    free = memory.available(device)
    if estimate.needed + beside > free and not config.force:
        raise InputError(
            f"this needs about {log.size(estimate.needed + beside)} more and {log.size(free)} are free",
            where=f"--tune {config.tune}",
            fix="lower --train.tokens, use --tune lora or qlora, or a smaller model; --force tries anyway",
        )  # fmt: skip
    return estimate


def _reward_models(texts: TextFormat, config: RunConfig, dtype: torch.dtype) -> int:
    """Bytes of the reward models that the model that learns cannot play."""
    init = lora_settings(texts, config).init
    reward_models = [resolve_model(run) for run in models((*config.reward.use, *config.reward.judge))]
    separate = [resolved for resolved in reward_models if not fits_base(resolved, texts.resolved, config.tune, init)]
    return sum(memory.weights(load_config(resolved.source.folder), dtype) for resolved in separate)
