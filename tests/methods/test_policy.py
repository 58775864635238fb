"""PPO, GRPO and kin: numbers by hand, and loss and gradient against TRL."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from conftest import gradient, tiny_model
from luthier.config.rewards import PolicyConfig
from luthier.core.types.batch import Needs, Output
from luthier.core.types.trees import Node, TokenTree
from luthier.methods import advantages, policy
from luthier.methods.variants import VARIANTS
from luthier.model.forward import distributions, forward
from luthier.text.pack import pack
from luthier.training.rollout import rule_of, with_defaults
from luthier.training.steps import Packing, make_step

PROMPTS = [(5, 6, 7, 8), (9, 10, 11)]
ANSWERS = [[(20, 21, 22), (23,), (24, 25)], [(30, 31), (32, 33, 34, 35), (36, 37)]]
REWARDS = [[1.0, 0.0, 0.5], [0.0, 2.0, 1.0]]


def step(settings: PolicyConfig, *, tokens: int = 10_000, old: float | None = None, reference: float | None = None):
    """Two groups of three answers, with the advantages of `settings`."""
    trees = []
    for row, (prompt, answers, rewards) in enumerate(zip(PROMPTS, ANSWERS, REWARDS, strict=True)):
        nodes = [Node(prompt, (False,) * len(prompt)), *(Node(a, (True,) * len(a), 0) for a in answers)]
        if settings.variant == "rloo":
            found = advantages.leave_one_out(rewards)
        else:
            found = advantages.group_relative(rewards, scale=settings.variant != "dr_grpo")
        count = sum(map(len, answers))
        columns = {"advantage": [a for a, answer in zip(found, answers, strict=True) for _ in answer]}
        columns |= {"old_logp": [old - 0.1 * i for i in range(count)]} if old is not None else {}
        columns |= {"reference": [reference - 0.2 * i for i in range(count)]} if reference is not None else {}
        trees.append(TokenTree(tuple(nodes), row=row, target_columns=columns))
    return make_step(trees, rule_of(settings, 8), Packing(tokens))


def ours(settings: PolicyConfig, **more):
    model, value = tiny_model(), 0.0
    for batch in step(settings, **more).micro:
        loss = policy.grpo(batch, forward(model, batch), settings).total
        loss.backward()
        value += float(loss.detach())
    return value, gradient(model)


def inputs(settings: PolicyConfig, old: float | None, reference: float | None):
    """The same as TRL's padded tensors."""
    rows = [(p, a) for p, group in zip(PROMPTS, ANSWERS, strict=True) for a in group]
    longest, width = max(map(len, PROMPTS)), 8
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p, _ in rows])
    answers = torch.tensor([list(a) + [0] * (width - len(a)) for _, a in rows])
    mask = torch.tensor([[1] * len(a) + [0] * (width - len(a)) for _, a in rows])
    found = {
        "prompt_ids": ids, "prompt_mask": (ids > 0).long(), "completion_ids": answers, "completion_mask": mask,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    of = advantages.leave_one_out if settings.variant == "rloo" else None
    scale = settings.variant != "dr_grpo"
    found["advantages"] = torch.tensor(
        [x for group in REWARDS for x in (of(group) if of else advantages.group_relative(group, scale=scale))]
    )
    for name, start, fall in (("old_per_token_logps", old, 0.1), ("ref_per_token_logps", reference, 0.2)):
        if start is not None:
            table, at = torch.zeros(len(rows), width), 0
            for i, (_, a) in enumerate(rows):
                at = 0 if i % 3 == 0 else at
                for t in range(len(a)):
                    table[i, t] = start - fall * at
                    at += 1
            found[name] = table
    if old is not None:
        found["old_logps"] = (found["old_per_token_logps"] * mask).sum(1)
    return found


CASES = {
    "grpo": ({"variant": "grpo", "kl": 0.0}, {"loss_type": "grpo"}),
    "grpo kl": ({"variant": "grpo", "kl": 0.3}, {"loss_type": "grpo"}),
    "dr_grpo": ({"variant": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    "dapo": ({"variant": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "gspo": (
        {"variant": "gspo"},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    ),
}


@pytest.mark.parametrize("old", [None, -5.9])
@pytest.mark.parametrize("case", CASES)
def test_grpo_and_kin_equal_trl(tiny_tokenizer, tmp_path, case, old):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    mine, theirs = CASES[case]
    settings = with_defaults(PolicyConfig(**mine), critic=False)
    reference = -6.2 if settings.kl else None
    config = GRPOConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_completion_length=8, num_generations=3,
        per_device_train_batch_size=6, gradient_checkpointing=False, disable_tqdm=True, **theirs,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=tiny_model("sdpa"), args=config, reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 6), processing_class=tiny_tokenizer,
    )  # fmt: skip
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.beta = settings.kl  # given at the start it would load a reference by name; ours is in the inputs
    expected = trainer._compute_loss(trainer.model, inputs(settings, old, reference))
    expected.backward()
    for tokens in (10_000, 16):
        value, found = ours(settings, tokens=tokens, old=old, reference=reference)
        assert value == pytest.approx(float(expected.detach()), rel=3e-5, abs=1e-6)
        theirs_gradient = gradient(trainer.model)
        assert float((found - theirs_gradient).norm() / theirs_gradient.norm()) < 2e-5
    assert float(theirs_gradient.norm()) > 0


def test_rloo_equals_trl(tiny_tokenizer, tmp_path):
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    settings = with_defaults(PolicyConfig(variant="rloo"), critic=False)
    config = RLOOConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_completion_length=8, num_generations=3,
        per_device_train_batch_size=6, gradient_checkpointing=False, disable_tqdm=True, beta=0.0,
    )  # fmt: skip
    trainer = RLOOTrainer(
        model=tiny_model("sdpa"), args=config, reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 6), processing_class=tiny_tokenizer,
    )  # fmt: skip
    trainer.model.train()
    expected = trainer._compute_loss(trainer.model, inputs(settings, -6.4, None))
    expected.backward()
    value, found = ours(settings, old=-6.4)
    assert value == pytest.approx(float(expected.detach()), rel=3e-5)
    theirs = gradient(trainer.model)
    assert float((found - theirs).norm() / theirs.norm()) < 2e-5


def batch_of(columns: dict[str, list[float]], weights: list[float]):
    count = len(weights)
    answer = Node(tuple(range(2, 2 + count)), (True,) * count, 0)
    tree = TokenTree((Node((1,), (False,)), answer), target_columns=columns)
    return pack([tree], [weights])


def test_ppo_by_hand():
    """One answer of two tokens. Ratios 2 and 0.5 are clipped to 1.2 for a positive advantage, and kept at 0.5 for a
    negative one below 0.8; values are clipped to 0.2 from their old ones and the larger error counts."""
    columns = {"advantage": [1.0, -1.0], "old_logp": [-1.0, -1.0], "old_value": [0.0, 0.0], "return": [1.0, 0.0]}
    batch = batch_of(columns, [0.5, 0.5])
    logp = torch.tensor([-1 + math.log(2), -1 + math.log(0.5)])
    settings = PolicyConfig(value_weight=0.1)
    loss = policy.ppo(batch, Output(logp, value=torch.tensor([0.5, 0.1])), settings)
    gain = 0.5 * (-1.2) + 0.5 * 0.8
    value = 0.5 * 0.5 * (0.2 - 1) ** 2 + 0.5 * 0.5 * 0.1**2
    assert float(loss.total) == pytest.approx(gain + 0.1 * value)
    assert loss.metrics["clipped"] == (2.0, 2.0)


@pytest.mark.parametrize("steered", [None, 0.6])
def test_ppo_learns_from_the_divergence_at_its_weight_of_the_step(steered):
    """Ratios 2 and 0.5, d = log pi_ref - log pi; the weight is that of the settings, or the one it was steered to."""
    columns = {"advantage": [0.0, 0.0], "old_logp": [-1.0, -1.0], "reference": [-1.5, -0.5]}
    columns |= {"old_value": [0.0, 0.0], "return": [0.0, 0.0]}
    batch = batch_of(columns, [0.5, 0.5])
    if steered:
        batch = replace(batch, columns={**batch.columns, "kl_weight": torch.tensor([steered])})
    logp = torch.tensor([-1 + math.log(2), -1 + math.log(0.5)])
    settings = PolicyConfig(kl=0.3, kl_in="loss")
    loss = policy.ppo(batch, Output(logp, value=torch.zeros(2)), settings)
    first, second = -0.5 - math.log(2), 0.5 + math.log(2)
    by_token = [2 * (math.exp(first) - first - 1), 0.5 * (math.exp(second) - second - 1)]
    assert float(loss.total) == pytest.approx((steered or 0.3) * 0.5 * sum(by_token))


def test_the_pretraining_term_is_likelihood_times_its_weight():
    tree = TokenTree((Node((1, 2, 3), (False, True, True)),))
    batch = pack([tree], [[0.5, 0.5]])
    loss = policy.ppo(batch, Output(torch.tensor([-1.0, -3.0])), PolicyConfig(pretrain_weight=0.25))
    assert float(loss.total) == pytest.approx(0.25 * 2)


def test_divergence_estimators():
    d = torch.tensor([0.5, -0.25])
    assert policy.divergence(d, "k1").tolist() == [-0.5, 0.25]
    assert policy.divergence(d, "k2").tolist() == [0.125, 0.03125]
    assert policy.divergence(d, "k3").tolist() == pytest.approx([math.exp(0.5) - 1.5, math.exp(-0.25) - 0.75], rel=1e-5)


def test_gae_is_its_definition():
    rewards, values = np.array([0.1, -0.2, 1.0]), np.array([0.5, 0.3, 0.7])
    delta = [0.1 + 0.9 * 0.3 - 0.5, -0.2 + 0.9 * 0.7 - 0.3, 1.0 - 0.7]
    decay = 0.9 * 0.8
    expected = [delta[0] + decay * delta[1] + decay**2 * delta[2], delta[1] + decay * delta[2], delta[2]]
    assert advantages.gae(rewards, values, 0.9, 0.8) == pytest.approx(expected)
    assert advantages.returns(rewards, 1.0) == pytest.approx([0.9, 0.8, 1.0])


def test_advantages_by_hand():
    assert advantages.leave_one_out([1.0, 0.0, 0.5]) == pytest.approx([0.75, -0.75, 0.0])
    assert advantages.group_relative([1.0, 0.0], scale=False) == [0.5, -0.5]
    spread = math.sqrt(0.5) + 1e-4
    assert advantages.group_relative([1.0, 0.0], scale=True) == pytest.approx([0.5 / spread, -0.5 / spread])
    one, two = advantages.whitened([np.array([1.0, 3.0]), np.array([5.0])])
    both = np.concatenate([one, two])
    assert both.mean() == pytest.approx(0)
    assert both.std() == pytest.approx(1)
    equal = [0.1, 0.1, 0.1]  # whose mean is not 0.1
    assert advantages.leave_one_out(equal) == advantages.group_relative(equal, scale=True) == [0.0] * 3


def test_the_critic_is_explained_by_variance():
    target = np.array([0.0, 1.0, 2.0])
    assert advantages.explained_variance(target, target) == 1.0
    assert advantages.explained_variance(np.ones(3), target) == 0.0
    assert advantages.explained_variance(-target, target) < 0


def test_a_forward_gives_entropy_and_values_beside():
    model = tiny_model()
    model.value = torch.nn.Linear(32, 1, bias=False)
    (batch,) = step(PolicyConfig(), old=-6.0).micro
    out = forward(model, batch, Needs(entropy=True, value=True))
    assert out.entropy is not None
    assert out.value is not None
    assert out.entropy.shape == out.value.shape == out.logp.shape
    assert replace(out, entropy=None).entropy is None


@pytest.mark.parametrize("cap", [None, 5.0])
def test_a_tempered_forward_divides_the_logits(cap):
    """As TRL has it for its log-probabilities; of a model that caps its logits, after the cap."""
    model = tiny_model()
    model.config.final_logit_softcapping = cap
    (batch,) = step(PolicyConfig(), old=-6.0).micro
    plain = distributions(model, batch)
    tempered = (plain / 0.7).log_softmax(-1)
    out = forward(model, batch, Needs(entropy=True, temperature=0.7))
    chosen = tempered.gather(-1, batch.label[:, None]).squeeze(-1)
    assert out.logp.tolist() == pytest.approx(chosen.tolist(), abs=1e-5)
    assert out.entropy.tolist() == pytest.approx((-(tempered.exp() * tempered).sum(-1)).tolist(), abs=1e-5)


def test_every_variant_of_the_settings_is_declared():
    assert set(VARIANTS) == set(get_args(PolicyConfig.model_fields["variant"].annotation))
