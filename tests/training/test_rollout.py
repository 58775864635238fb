"""The online step source, with models whose every answer is known."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from luthier.config.rewards import PolicyConfig
from luthier.core.errors import InputError
from luthier.training.rollout import RolloutModels, RolloutPrompt, Rollouts, with_defaults
from luthier.training.steps import Packing, chosen_places
from sentences import sentence

LOGP = -2.0


@dataclass
class RolloutSample:
    ids: tuple[int, ...]
    text: str = ""
    ended: str = "stop"

    @property
    def logp(self) -> tuple[float, ...]:
        return (LOGP - 1,) * len(self.ids)


class Table:
    """Models that answer with tokens of the prompt's row and the seed, and count how often they were asked."""

    def __init__(self, rewards=None, drift: float = 0.5) -> None:
        self.drawn: list[int] = []
        self.rewards, self.drift = rewards or (lambda row, number: float(number)), drift

    def models(self, critic: bool = False) -> RolloutModels:
        def answers(asked, seed):
            self.drawn.append(seed)
            return [[RolloutSample((a.row + 3, 40 + n, 50 + seed % 7)[: 2 + n % 2]) for n in range(3)] for a in asked]

        def rewards(asked, drawn):
            totals = [
                [self.rewards(a.row, n) for n in range(len(group))] for a, group in zip(asked, drawn, strict=True)
            ]
            return totals, {"part": totals}

        def level(value):
            return lambda trees: [[[value] * len(n.ids) for n in tree.nodes[1:]] for tree in trees]

        return RolloutModels(answers, rewards, level(LOGP), level(LOGP - self.drift), level(0.25) if critic else None)


def rollouts(table=None, *, critic=False, batch=2, total=12, **settings):
    settings = with_defaults(PolicyConfig(**settings), critic)
    prompts = [RolloutPrompt((1, 2, 3 + row), row) for row in range(6)]
    table = table or Table()
    return Rollouts(prompts, table.models(critic), settings, batch, total, 8, Packing(1000), seed=0, critic=critic)


def tokens(step):
    return [batch.tokens.tolist() for batch in step.micro], [
        batch.columns["advantage"].tolist() for batch in step.micro
    ]


def test_a_rollout_serves_all_its_passes_and_minibatches():
    table = Table()
    steps = rollouts(table, epochs=2, minibatches=2)
    seen = [sorted(row for batch in steps.step(i).micro for row in batch.rows) for i in range(4)]
    assert len(table.drawn) == 1  # four steps of one rollout
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3])
    assert len(set(seen[0] + seen[1])) == 4  # every prompt once a pass
    steps.step(4)
    assert len(table.drawn) == 2
    assert table.drawn[0] != table.drawn[1]


@pytest.mark.parametrize("critic", [False, True])
def test_a_rollout_under_way_is_taken_up_from_json(critic):
    whole = rollouts(critic=critic, epochs=2, kl_target=1.0, kl=0.1)
    expected = [tokens(whole.step(i)) for i in range(6)]
    first = rollouts(critic=critic, epochs=2, kl_target=1.0, kl=0.1)
    for i in range(3):
        first.step(i)
    table = Table()
    later = rollouts(table, critic=critic, epochs=2, kl_target=1.0, kl=0.1)
    later.load(json.loads(json.dumps(first.state(0))))
    assert [tokens(later.step(i)) for i in range(3, 6)] == expected[3:]
    assert len(table.drawn) == 1  # the rollout of step 3 was not drawn again
    assert later.kl == whole.kl


def test_groups_of_equal_rewards_are_skipped_and_counted_and_leave_their_weight():
    steps = rollouts(Table(lambda row, number: float(number) * (row > 2)), batch=6)
    step = steps.step(0)
    assert sorted(row for batch in step.micro for row in batch.rows) == [3, 4, 5]
    assert step.metrics["groups_skipped"] == 0.5
    assert sum(float(batch.weight.sum()) for batch in step.micro) == pytest.approx(0.5)


def test_all_equal_still_makes_a_step_that_teaches_nothing():
    """Three rewards of 0.1 have a mean that is not 0.1."""
    step = rollouts(Table(lambda row, number: 0.1)).step(0)
    assert [set(batch.columns["advantage"].tolist()) for batch in step.micro] == [{0.0}]
    assert step.metrics["groups_skipped"] == 1.0


@pytest.mark.parametrize(("first", "weights"), [(2, [1.0, 0.5, 0.5]), (5, [0.5, 0.0, 0.0])])
def test_what_is_left_is_dealt_out_evenly_and_nothing_is_learned_twice(first, weights):
    """Of six prompts, those from `first` on teach; whatever the minibatch, an answer weighs what it would among all."""
    steps = rollouts(Table(lambda row, number: float(number) * (row >= first)), minibatches=3)
    micro = [batch for i in range(3) for batch in steps.step(i).micro]
    assert sorted(row for batch in micro for row in batch.rows if float(batch.weight.sum())) == list(range(first, 6))
    assert [float(batch.weight.sum()) for batch in micro] == pytest.approx(weights)


def test_dapo_draws_other_prompts_in_the_place_of_useless_groups():
    table = Table(lambda row, number: float(number) * (row > 2))
    steps = rollouts(table, batch=3, variant="dapo")
    step = steps.step(0)
    rows = sorted(row for batch in step.micro for row in batch.rows)
    assert len(rows) == 3
    assert min(rows) > 2
    assert step.metrics["rounds"] > 1
    left_out = step.metrics["equal_rewards"] * 3 * step.metrics["rounds"]  # of three prompts a round
    assert left_out == pytest.approx(3 * step.metrics["rounds"] - 3)  # and none of the three that are learned from
    assert sum(float(batch.weight.sum()) for batch in step.micro) == pytest.approx(1.0)
    rows_drawn = (
        3 * step.metrics["rounds"]
    )  # the reward is of all that was drawn: the mean of 0, 1, 2 in each of three groups
    assert step.metrics["reward"] == step.metrics["reward/part"] == pytest.approx(3 / rows_drawn)


def test_the_divergence_is_taken_from_the_reward_of_ppo_token_by_token():
    """gamma = lambda = 1 and v = 0.25: the advantage of token t is what is still to come less v_t, with -kl d a token."""
    steps = rollouts(critic=True, batch=1, kl=0.1, whiten=False, normalize=False)
    (batch,) = steps.step(0).micro
    found = {}
    for leaf, value in zip(batch.leaf.tolist(), batch.columns["return"].tolist(), strict=True):
        found.setdefault(leaf, []).append(value)
    for number, values in found.items():
        count = len(values)
        assert values == pytest.approx([number - 0.1 * 0.5 * (count - t) for t in range(count)])
    assert batch.columns["advantage"].tolist() == pytest.approx([r - 0.25 for r in batch.columns["return"].tolist()])


def test_the_weight_of_the_divergence_is_steered_to_its_target():
    far = rollouts(Table(drift=5.0), kl=0.1, kl_target=1.0)
    far.step(0)
    near = rollouts(Table(drift=0.01), kl=0.1, kl_target=1.0)
    near.step(0)
    assert far.kl > 0.1 > near.kl
    assert math.isclose(far.kl, 0.1 * (1 + 0.1 * 0.2 * 6 / 64))


def test_the_steered_weight_reaches_the_loss():
    steps = rollouts(Table(drift=5.0), kl=0.1, kl_target=1.0)
    found = [steps.step(i).micro[0].columns["kl_weight"].tolist() for i in range(2)]
    assert found[0] == pytest.approx([0.1, 0.1])
    assert found[1] == pytest.approx([0.1 * (1 + 0.1 * 0.2 * 6 / 64)] * 2)


def test_reinforce_plus_plus_by_hand():
    """Token t of answer n is given n at its end, less kl d = 0.05 for itself and each to come; then all are scaled."""
    (batch,) = rollouts(batch=1, variant="reinforce++", kl=0.1).step(0).micro
    plain = np.array([n - 0.05 * left for n, count in enumerate((2, 3, 2)) for left in range(count, 0, -1)])
    assert batch.columns["advantage"].tolist() == pytest.approx(((plain - plain.mean()) / plain.std()).tolist())


def test_ppo_with_the_divergence_in_the_loss_leaves_the_reward_alone():
    (batch,) = rollouts(critic=True, batch=1, kl=0.1, kl_in="loss", normalize=False).step(0).micro
    assert batch.columns["return"].tolist() == pytest.approx([0, 0, 1, 1, 1, 2, 2])


def test_defaults_by_method_and_variant():
    assert (with_defaults(PolicyConfig(), True).kl, with_defaults(PolicyConfig(), True).kl_in) == (0.05, "reward")
    assert (with_defaults(PolicyConfig(), False).kl, with_defaults(PolicyConfig(), False).kl_in) == (0.0, "loss")
    assert with_defaults(PolicyConfig(variant="rloo"), False).kl_in == "reward"
    assert with_defaults(PolicyConfig(variant="dapo"), False).clip_high == 0.28
    assert with_defaults(PolicyConfig(variant="dapo", clip_high=0.3, kl=0.2), False).clip_high == 0.3


def test_prompts_come_in_another_order_than_rows_of_offline_runs():
    """Else the first prompts after supervised tuning on the same file are the rows that it has just learned."""
    steps = Rollouts(
        [RolloutPrompt((1, 2, 3), row) for row in range(100)], Table().models(), with_defaults(PolicyConfig(), False), 20, 1, 8,
        Packing(10_000), seed=0,
    )  # fmt: skip
    asked = [row for batch in steps.step(0).micro for row in batch.rows]
    assert set(asked) != set(chosen_places(0, "order", 100, 0, 20))


def test_without_a_policy_model_samples_say_their_own_log_probabilities():
    table = Table(drift=0.5)
    source = Rollouts(
        [RolloutPrompt((1, 2, 3 + row), row) for row in range(6)], replace(table.models(), policy=None),
        with_defaults(PolicyConfig(epochs=2), False), 2, 12, 8, Packing(1000), seed=0,
    )  # fmt: skip
    (batch,) = source.step(0).micro
    assert set(batch.columns["old_logp"].tolist()) == {LOGP - 1}
    assert source.step(0).metrics["kl_per_answer"] < 0, "the reference is likelier by half a nat a token"


@pytest.mark.parametrize("critic", [False, True])
def test_a_rollout_of_one_step_needs_no_memory_of_the_policy_that_sampled(critic):
    """There the ratio is 1: the policy has not moved."""
    (batch,) = rollouts(critic=critic).step(0).micro
    assert "old_logp" not in batch.columns
    (batch,) = rollouts(critic=critic, epochs=2).step(0).micro
    assert "old_logp" in batch.columns


def test_the_policy_is_read_in_the_packing_of_each_step_that_learns():
    """Every pass learns from the same minibatches, in an order of its own, so one reading of each serves all."""
    read = []

    def learning(trees):
        read.append([tree.row for tree in trees])
        return [[[LOGP] * len(n.ids) for n in tree.nodes[1:]] for tree in trees]

    table = Table()
    source = Rollouts(
        [RolloutPrompt((1, 2, 3 + row), row) for row in range(6)], replace(table.models(), learning=learning),
        with_defaults(PolicyConfig(epochs=3, minibatches=3), False), 2, 12, 8, Packing(1000), seed=0,
    )  # fmt: skip
    learned = [[row for batch in source.step(i).micro for row in batch.rows] for i in range(9)]
    assert sorted(read) == sorted(learned[:3]) == sorted(learned[3:6]) == sorted(learned[6:])


def test_the_reference_reads_all_answers_only_where_something_learns_from_it():
    counts = {}
    for kl in (0.0, 0.1):
        table, read = Table(), []
        models = table.models()

        def reference(trees, models=models, read=read):
            read.append(len(trees))
            return models.reference(trees)

        source = Rollouts(
            [RolloutPrompt((1, 2, 3 + row), row) for row in range(6)], replace(models, reference=reference),
            with_defaults(PolicyConfig(kl=kl), False), 6, 1, 8, Packing(1000), seed=0,
        )  # fmt: skip
        step = source.step(0)
        counts[kl] = sum(read)
        assert step.metrics["kl_per_answer"] != 0
        assert ("reference" in step.micro[0].columns) == (kl > 0)
    assert counts == {0.0: 2, 0.1: 6}


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_ppo_learns_the_same_of_a_reward_and_of_its_affine_map(kl):
    def advantages(rewards):
        (batch,) = rollouts(Table(rewards), critic=True, kl=kl).step(0).micro
        return batch.columns["advantage"].tolist()

    plain = advantages(lambda row, number: number / 2)
    assert advantages(lambda row, number: 0.1 * number / 2 - 1) == pytest.approx(plain, abs=1e-6)
    assert len(set(plain)) > 1


def test_rewards_are_scaled_by_all_rollouts_so_far():
    """0, 1, 2 for each of two prompts, then the same with 3 more: by hand."""
    later = {"more": 0.0}
    steps = rollouts(Table(lambda row, number: number + later["more"]), critic=True, kl=0.0, whiten=False)
    first = steps.step(0)
    assert first.metrics["reward_running_mean"] == 1.0
    assert first.metrics["reward_running_deviation"] == pytest.approx(math.sqrt(2 / 3))
    later["more"] = 3.0
    second = steps.step(1)
    every = np.array([0, 1, 2] * 2 + [3, 4, 5] * 2)
    assert second.metrics["reward_running_mean"] == every.mean() == 2.5
    assert second.metrics["reward_running_deviation"] == pytest.approx(every.std())
    found = sorted(set(np.round(second.micro[0].columns["return"].numpy(), 5).tolist()))
    assert found == pytest.approx([(x - 2.5) / every.std() for x in (3, 4, 5)], abs=1e-5)


def test_the_advantages_of_ppo_have_mean_zero_as_the_loss_weighs_them():
    (batch,) = rollouts(critic=True, kl=0.05).step(0).micro
    assert float((batch.weight * batch.columns["advantage"]).sum()) == pytest.approx(0, abs=1e-6)
    assert set(np.round(batch.weight.numpy(), 6)) == {np.float32(round(1 / len(batch.weight), 6))}


@pytest.mark.parametrize("critic", [False, True])
@pytest.mark.parametrize("epochs", [1, 2])
def test_nothing_is_learned_from_answers_that_are_masked(critic, epochs):
    class Cut(Table):
        def models(self, critic=False):
            models = super().models(critic)

            def answers(asked, seed):
                groups = models.answers(asked, seed)
                return [[replace(d, ended="stop" if n else "length") for n, d in enumerate(group)] for group in groups]

            return replace(models, answers=answers)

    settings = with_defaults(PolicyConfig(epochs=epochs), critic)
    source = Rollouts(
        [RolloutPrompt((1, 2, 3 + row), row) for row in range(6)], Cut().models(critic), settings, 2, 12, 8, Packing(1000),
        seed=0, critic=critic, mask=True,
    )  # fmt: skip
    (batch,) = source.step(0).micro
    assert len(batch.columns["advantage"]) == len(batch.weight) == 2 * (3 + 2)
    if critic:  # the mean is over what is learned from, and what is not decides nothing
        assert float((batch.weight * batch.columns["advantage"]).sum()) == pytest.approx(0, abs=1e-6)
    assert float(batch.weight.sum()) == pytest.approx(1.0 if critic else 2 / 3)  # the others weigh what they would
    again = Rollouts(
        [RolloutPrompt((1, 2, 3 + row), row) for row in range(6)], Cut().models(critic), settings, 2, 12, 8, Packing(1000),
        seed=0, critic=critic, mask=True,
    )  # fmt: skip
    again.load(json.loads(json.dumps(source.state(0))))
    assert tokens(again.step(0)) == tokens(source.step(0))


def test_where_all_answers_got_the_same_reward_the_critics_error_is_not_blown_up():
    """Rewards that do not differ are 0 when normalised: what is left of the advantages is v and the divergence, as large as they are."""
    same = rollouts(Table(lambda row, number: 3.0), critic=True, kl=0.05)
    (batch,) = same.step(0).micro
    assert float((batch.weight * batch.columns["advantage"]).sum()) == pytest.approx(0, abs=1e-6)
    assert (
        batch.columns["advantage"].abs().max() < 0.05
    )  # kl 0.05 x 0.5 nats a token; scaled to deviation 1 it would be 1 and more
    (batch,) = rollouts(critic=True, kl=0.05).step(0).micro
    assert float(batch.columns["advantage"].std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_the_divergence_is_that_of_the_policys_own_reading_also_where_only_its_curve_needs_it():
    """Sampling tells log p of the untempered model; what is read again is of the policy that was sampled from."""
    for kl in (0.0, 0.1):
        step = rollouts(Table(drift=0.0), kl=kl).step(0)
        assert step.metrics["kl_per_answer"] == 0


def test_gspo_clips_as_its_paper_does():
    assert (
        with_defaults(PolicyConfig(variant="gspo"), False).clip,
        with_defaults(PolicyConfig(variant="gspo"), False).clip_high,
    ) == (3e-4, 4e-4)
    asked = with_defaults(PolicyConfig(variant="gspo", clip=0.1), False)
    assert (asked.clip, asked.clip_high) == (0.1, None)
    assert with_defaults(PolicyConfig(), False).clip == 0.2


def test_rollouts_of_the_version_before_are_taken_up_or_refused():
    """Its ppo did not normalise rewards; of grpo nothing is missing."""
    for critic in (False, True):
        source = rollouts(critic=critic, epochs=2)
        expected = tokens(source.step(0))
        state = source.state(0)["rollout"]
        del state["moments"]
        for tree in state["trees"]:
            del tree["masked"]
        again = rollouts(critic=critic, epochs=2)
        if critic:
            with pytest.raises(InputError, match=sentence("rewards not normalised")):
                again.load({"rollout": state})
        else:
            again.load({"rollout": state})
            assert tokens(again.step(0)) == expected
