"""A task that a policy learns in 20 steps: a tiny model, two rewards, and what is gained on prompts it was never asked.

    tokens   share of the answer's tokens that are of the first half of the vocabulary
    length   closeness of the answer's length to 6 tokens: max(0, 1 - |tokens - 6| / 6)

The model has random weights and 24 words: half of its tokens are wanted, and a third of its answers end within 12 tokens. A gain is the
mean reward of 512 drawn answers to 16 held-out prompts after learning less that before, in units of these rewards, whatever affine
map of them was learned from. All that learn with one seed start from the same model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache, partial
from statistics import fmean, stdev

import torch
from torch import nn

from conftest import WORDS, tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.config.rewards import PolicyConfig
from luthier.config.training import TrainConfig
from luthier.core import seeds
from luthier.core.types.batch import LOGP
from luthier.generate.generate import generate
from luthier.generate.sampling import Sampling
from luthier.model.adapt import tune
from luthier.training.loop import State, train
from luthier.training.method_table import METHODS
from luthier.training.optim import Optimizer
from luthier.training.rollout import RolloutModels, RolloutPrompt, Rollouts, with_defaults
from luthier.training.steps import Packing, scoring_batches
from luthier.tune import policy_models

VOCABULARY, END, TARGET = len(WORDS) + 1, len(WORDS), 6
STEPS, BATCH, SAMPLES, TOKENS = 20, 8, 16, 12
HELD_OUT, EACH = 16, 32  # prompts, and answers to each
CPU, PACKING = torch.device("cpu"), Packing(1024)
LORA = LoraConfig(rank=16, alpha=32)
VARIANTS = ("ppo", "grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo")


def of_tokens(ids: Sequence[int]) -> float:
    """The reward `tokens` of an answer."""
    said = [i for i in ids if i != END]
    return sum(i < VOCABULARY // 2 for i in said) / max(1, len(said))


def of_length(ids: Sequence[int]) -> float:
    """The reward `length` of an answer."""
    count = sum(i != END for i in ids)
    return max(0.0, 1 - abs(count - TARGET) / TARGET)


REWARDS: dict[str, Callable[[Sequence[int]], float]] = {"tokens": of_tokens, "length": of_length}
SCALES = {"r": (1.0, 0.0), "0.1 r - 1": (0.1, -1.0)}  # what is learned from: a r + b


def prompts(count: int, seed: int) -> list[tuple[int, ...]]:
    """Prompts of three to six words."""
    draw = random.Random(seed)
    return [tuple(draw.randrange(END) for _ in range(draw.randint(3, 6))) for _ in range(count)]


def start(seed: int, attention: str = "luthier") -> nn.Module:
    """The model before it learns."""
    model = tiny_model(attention, vocabulary=VOCABULARY, seed=seed)
    model.generation_config.eos_token_id = model.config.eos_token_id = END
    model.generation_config.pad_token_id = model.config.pad_token_id = END
    model.config.bos_token_id = model.generation_config.bos_token_id = None
    return model


def answered(model: nn.Module, prompts: Sequence[Sequence[int]], each: int, seed: int):
    """So many drawn answers to each prompt."""
    sampling = Sampling(temperature=1.0, max_new_tokens=TOKENS, n=each, seed=seed % 2**31, stop_ids=(END,))
    out = generate(model, prompts, sampling, lambda ids: "", batch=256)
    return [out[i * each : (i + 1) * each] for i in range(len(prompts))]


def measured(model: nn.Module, kind: str) -> list[float]:
    """The mean reward of the drawn answers to each held-out prompt."""
    groups = answered(model.eval(), prompts(HELD_OUT, seed=-1), EACH, seed=1)
    return [fmean(REWARDS[kind](sample.ids) for sample in group) for group in groups]


@cache
def before(seed: int, kind: str) -> list[float]:
    """What the model of this seed has before it learns."""
    return measured(start(seed), kind)


def gain(model: nn.Module, seed: int, kind: str) -> tuple[float, float]:
    """What the model that started from this seed gained, in units of r, and its standard error over the prompts."""
    changes = [now - then for now, then in zip(measured(model, kind), before(seed, kind), strict=True)]
    return fmean(changes), stdev(changes) / HELD_OUT**0.5


def learned(variant: str, seed: int, kind: str, scale: str, rate: float | None = None) -> nn.Module:
    """The model of this seed after ppo, or grpo in this variant, learned from a reward at a scale. Where no rate is given, it is
    the method's own."""
    method = METHODS["ppo" if variant == "ppo" else "grpo"]
    critic = method.needs.value
    settings = with_defaults(PolicyConfig() if critic else PolicyConfig(variant=variant), critic)
    seeds.seed_torch(seed, "adapter")
    tuned = tune.prepare(start(seed), "lora", LORA, QuantConfig())
    models = policy_models.open_policy_models(tuned, critic)
    rate = rate or tune.peak_rate(tuned.kind, tuned.model.config.hidden_size) * method.rate
    a, b = SCALES[scale]

    def rewards(prompts, drawn):
        return [[a * REWARDS[kind](sample.ids) + b for sample in group] for group in drawn], {}

    def read(part, needs, trees):
        return models.read(part, needs, trees, partial(scoring_batches, packing=PACKING), CPU, lambda: False)

    rollout_models = RolloutModels(
        answers=lambda prompts, seed: answered(tuned.model.eval(), [p.ids for p in prompts], SAMPLES, seed),
        rewards=rewards, policy=None, reference=partial(read, models.reference, LOGP),
        values=partial(read, models.critic, policy_models.VALUE) if critic else None,
    )  # fmt: skip
    rollout_prompts = [RolloutPrompt(ids, row) for row, ids in enumerate(prompts(STEPS * BATCH, seed))]
    source = Rollouts(rollout_prompts, rollout_models, settings, BATCH, STEPS, TOKENS, PACKING, seed, critic=critic)
    config = TrainConfig(batch=BATCH, steps=STEPS, schedule="constant", warmup=0.0)
    state = State(tuned.model, Optimizer({**tuned.parameters, **models.critic_parameters}, config, {}))
    forward = partial(models.forward, needs=method.needs)
    for _ in train(
        state, source, lambda x, y: method.loss(x, y, settings), forward, config, lr=rate, seed=seed, device=CPU
    ):
        pass
    return tuned.model
