"""The losses of preference methods: numbers by hand, pairs one by one, shared prompts, mirrored pairs."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from conftest import gradient, random_tree, tiny_model
from luthier.config.resolve import resolve
from luthier.config.training import PreferenceConfig
from luthier.core.types.batch import Output
from luthier.core.types.trees import Node, TokenTree
from luthier.methods import preference
from luthier.model.adapt import heads
from luthier.model.forward import forward
from luthier.text.loss_weights import RULES
from luthier.text.pack import pack
from luthier.training.method_table import METHODS
from luthier.training.passes import sums
from luthier.training.steps import Packing, make_step, scoring_step
from luthier.tune.evaluator import loss_of

PAIRED = ["dpo", "simpo", "orpo", "response", "reward"]  # the methods that compare answers


def node(length, trained=True, parent=0):
    return Node(tuple(range(length)), (trained,) * length, parent)


def pair_tree(better=2, worse=1, reference=(-4.0, -2.5), **more):
    """A prompt of two tokens, and two answers of `better` and `worse` tokens."""
    nodes = (node(2, False, -1), node(better), node(worse))
    return TokenTree(nodes, pairs=((0, 1),), leaf_columns={"reference": reference}, **more)


def batch_of(*trees):
    (batch,) = make_step(trees, RULES["token"], Packing(10_000)).micro
    return batch


def said(*logp):
    return Output(torch.tensor(logp))


def softplus(x):
    """-log s(-x)"""
    return math.log1p(math.exp(x))


# The better answer: tokens of log-probability -1 and -2, reference -4: r = 1. The worse: -3 and -2.5: r = -0.5.
LOGP, D = (-1.0, -2.0, -3.0), 1.5


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, softplus(-0.1 * D)),
        ({"beta": 2.0}, softplus(-2 * D)),
        ({"smoothing": 0.1}, 0.9 * softplus(-0.1 * D) + 0.1 * softplus(0.1 * D)),
        ({"loss": "robust", "smoothing": 0.1}, (0.9 * softplus(-0.1 * D) - 0.1 * softplus(0.1 * D)) / 0.8),
        ({"loss": "hinge", "beta": 0.5}, 1 - 0.5 * D),
        ({"loss": "hinge", "beta": 1.0}, 0.0),
        ({"loss": "ipo", "beta": 0.25}, ((1 / 2 + 0.5 / 1) - 2) ** 2),
        ({"likelihood": 0.5}, softplus(-0.1 * D) + 0.5 * 1.5),
    ],
)
def test_dpo_by_hand(settings, expected):
    loss = preference.dpo(batch_of(pair_tree()), said(*LOGP), PreferenceConfig(**settings))
    assert float(loss.total) == pytest.approx(expected)
    assert loss.each.tolist() == pytest.approx([expected])
    assert loss.count.tolist() == [1]


def test_what_dpo_reports():
    loss = preference.dpo(
        batch_of(pair_tree(), pair_tree(reference=(0.0, -9.0))), said(*LOGP, *LOGP), PreferenceConfig()
    )
    assert {name: values.tolist() for name, values in loss.items.items()} == {
        "accuracy": [1.0, 0.0], "margin": pytest.approx([0.15, 0.1 * (-3 - 6)]),
        "chosen_logp": [-3.0, -3.0], "rejected_logp": [-3.0, -3.0],
    }  # fmt: skip
    equal = preference.dpo(batch_of(pair_tree(reference=(-3.0, -3.0))), said(*LOGP), PreferenceConfig())
    assert equal.items["accuracy"].tolist() == [0.5]
    assert float(equal.total) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, softplus(1.0 - 2.0 * 1.5)),
        ({"beta": 0.5, "target_margin": 0.25}, softplus(0.25 - 0.5 * 1.5)),
        ({"smoothing": 0.2}, 0.8 * softplus(-2.0) + 0.2 * softplus(2.0)),
    ],
)
def test_simpo_by_hand(settings, expected):
    """Per token: -1.5 and -3, a difference of 1.5. References are not looked at."""
    loss = preference.simpo(batch_of(replace(pair_tree(), leaf_columns={})), said(*LOGP), PreferenceConfig(**settings))
    assert float(loss.total) == pytest.approx(expected)


def log_odds(mean):
    return mean - math.log(1 - math.exp(mean))


def test_orpo_by_hand():
    ratio = softplus(log_odds(-3.0) - log_odds(-1.5))
    tree = replace(pair_tree(), leaf_columns={})
    assert float(preference.orpo(batch_of(tree), said(*LOGP), PreferenceConfig()).total) == pytest.approx(
        1.5 + 0.1 * ratio
    )
    settings = PreferenceConfig(beta=0.5, likelihood=2.0)
    assert float(preference.orpo(batch_of(tree), said(*LOGP), settings).total) == pytest.approx(3.0 + 0.5 * ratio)


def test_orpo_of_a_certain_answer_is_finite():
    logp = torch.tensor([0.0, 0.0, -3.0], requires_grad=True)
    loss = preference.orpo(batch_of(replace(pair_tree(), leaf_columns={})), Output(logp), PreferenceConfig()).total
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert torch.isfinite(logp.grad).all()


def test_orpo_takes_rows_without_a_pair():
    """A pair, and a demonstration of three tokens: the likelihood is a mean over all five better tokens, the odds
    are averaged over the prompts that have a pair."""
    demonstration = TokenTree((Node((1, 2, 3, 4), (False, True, True, True)),))
    batch = batch_of(replace(pair_tree(), leaf_columns={}), demonstration)
    loss = preference.orpo(batch, said(*LOGP, -1.0, -4.0, -1.0), PreferenceConfig())
    ratio = softplus(log_odds(-3.0) - log_odds(-1.5))
    assert float(loss.total) == pytest.approx((3 + 6) / 5 + 0.1 * ratio)
    assert loss.each.tolist() == pytest.approx([1.5 + 0.1 * ratio, 2.0])


def kto_tree(label, reference, baseline):
    nodes = (node(2, False, -1), node(2))
    return TokenTree(nodes, columns={"label": label, "baseline": baseline}, leaf_columns={"reference": (reference,)})


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_kto_by_hand():
    """r = 2 for the wanted answer and 0.5 for the unwanted one; z0 = 0.75."""
    batch = batch_of(kto_tree(True, -5.0, 0.75), kto_tree(False, -3.5, 0.75))
    settings = PreferenceConfig(beta=0.5, desirable=1.5, undesirable=0.25)
    loss = preference.kto(batch, said(-1.0, -2.0, -1.0, -2.0), settings)
    wanted, unwanted = 1.5 * (1 - sigmoid(0.5 * (2 - 0.75))), 0.25 * (1 - sigmoid(0.5 * (0.75 - 0.5)))
    assert loss.each.tolist() == pytest.approx([wanted, unwanted])
    assert float(loss.total) == pytest.approx((wanted + unwanted) / 2)
    assert loss.items["accuracy"].tolist() == [1.0, 0.0]
    start = preference.kto(
        batch_of(kto_tree(True, -3.0, 0.0), kto_tree(False, -3.0, 0.0)), said(*[-1.0, -2.0] * 2), settings
    )
    assert start.items["accuracy"].tolist() == [0.5, 0.5], "at the start nothing is preferred"
    assert loss.metrics["reward_wanted"] == (1.0, 1.0)
    assert loss.metrics["reward_unwanted"] == (0.25, 1.0)
    assert loss.metrics["kl_baseline"] == (1.5, 2.0)


def test_response_is_dpo_with_the_likelihood_of_the_accepted():
    tree = TokenTree(
        (node(3, parent=-1), node(2, parent=-1)), pairs=((0, 1),), leaf_columns={"reference": (-4.0, -2.5)}
    )
    batch = batch_of(tree)
    assert len(batch.source) == 3, "nothing predicts the first token of a text without a prompt"
    found = preference.response(batch, said(*LOGP), PreferenceConfig())
    assert float(found.total) == pytest.approx(softplus(-0.1 * D) + 1.5)
    none = preference.response(batch, said(*LOGP), PreferenceConfig(likelihood=0.0))
    assert float(none.total) == pytest.approx(softplus(-0.1 * D))


def ranking_tree(draw, answers, row=0, *, prefix=()):
    """Random answers to a prompt, all pairs of them in order, with a random reference."""
    tree = random_tree(draw, children=answers, row=row, longest=12, prefix=prefix)
    pairs = tuple((a, b) for a in range(answers) for b in range(a + 1, answers))
    reference = [-5.0 * len(tree.nodes[leaf].ids) + draw.gauss(0, 1) for leaf in tree.leaves]
    given = {"reference": reference, "rank": [float(a) for a in range(answers)]}
    return replace(tree, pairs=pairs, columns={"margin": 0.0}, leaf_columns=given)


def objective(method, trees, likelihood=0.0, share=True):
    """The loss and gradient of one step in float64, and the method's items."""
    model, row = tiny_model(dtype=torch.float64), METHODS[method]
    heads.attach(model, heads.widths(row.needs))
    torch.manual_seed(1)
    for head in heads.on(model).values():
        torch.nn.init.normal_(head.weight)
    weights = RULES["token"](trees)
    batch = pack(trees, weights, tree_weight=1 / len(trees), share=share)
    loss = loss_of(row, resolve({"preference.likelihood": likelihood}))(batch, forward(model, batch, row.needs))
    loss.total.backward()
    return float(loss.total.detach()), gradient(model), loss


@pytest.mark.parametrize("method", PAIRED)
def test_answers_in_one_pass_are_the_weighted_sum_over_pairs_one_by_one(method):
    """K answers as one example = each of the K (K - 1) / 2 pairs as an example of its own, the prompt counting once;
    and a prompt with many pairs counts as much as a prompt with one."""
    draw = random.Random(0)
    trees = [ranking_tree(draw, 4), ranking_tree(draw, 2)]
    value, slope, _ = objective(method, trees)
    apart, total = 0.0, torch.zeros_like(slope)
    for tree in trees:
        for a, b in tree.pairs:
            leaves = [tree.leaves[a], tree.leaves[b]]
            given = {name: [values[a], values[b]] for name, values in tree.leaf_columns.items()}
            nodes = (tree.nodes[0], *(tree.nodes[leaf] for leaf in leaves))
            one, part, _ = objective(
                method, [TokenTree(nodes, pairs=((0, 1),), columns=tree.columns, leaf_columns=given)]
            )
            apart, total = apart + one / len(tree.pairs) / 2, total + part / len(tree.pairs) / 2
    assert value == pytest.approx(apart, rel=1e-6)
    assert float((slope - total).norm() / total.norm()) < 1e-5


@pytest.mark.parametrize("method", PAIRED)
def test_a_shared_prompt_equals_separate_sequences(method):
    """Every answer a sequence of its own behind its own copy of the prompt: the same loss and gradient."""
    draw = random.Random(1)
    prefix = tuple(draw.randrange(512) for _ in range(6))
    trees = [ranking_tree(draw, 3, prefix=prefix), ranking_tree(draw, 2, prefix=prefix)]
    apart = []
    for tree in trees:
        root, *answers = tree.nodes
        nodes = [Node(root.ids + a.ids, root.trained + a.trained) for a in answers]
        apart.append(replace(tree, nodes=tuple(nodes)))
    value, slope, _ = objective(method, trees, likelihood=0.3)
    value2, slope2, _ = objective(method, apart, likelihood=0.3, share=False)
    assert value == pytest.approx(value2, rel=1e-6)
    assert float((slope - slope2).norm() / slope2.norm()) < 1e-5


@pytest.mark.parametrize("method", PAIRED)
def test_a_swapped_pair_has_the_mirrored_loss(method):
    """-log s(z) of a pair and -log s(-z) of the same pair swapped differ by z, the margin; the slopes are opposite
    in sign, in the ratio s(-z) : s(z)."""
    draw = random.Random(2)
    tree = ranking_tree(draw, 2)
    swapped = replace(tree, pairs=((1, 0),))
    (value, slope, loss), (value2, slope2, loss2) = objective(method, [tree]), objective(method, [swapped])
    margin = float(loss.items["margin"])
    assert float(loss2.items["margin"]) == pytest.approx(-margin)
    assert float(loss.items["accuracy"] + loss2.items["accuracy"]) == 1.0
    scale = 1.0
    if method == "simpo":  # the target is asked of both
        assert math.log(math.expm1(value2)) - math.log(math.expm1(value)) == pytest.approx(2 * margin, rel=1e-5)
        return
    if method == "orpo":  # beta stands before the logarithm, and the margin is of likelihoods, not odds
        scale, margin = 0.1, -math.log(math.expm1(value / 0.1))
    assert value2 - value == pytest.approx(scale * margin, rel=1e-5)
    mirrored = -slope * sigmoid(margin) / sigmoid(-margin)
    assert float((slope2 - mirrored).norm() / mirrored.norm()) < 1e-5


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_the_held_out_loss_is_the_training_loss(method):
    """Measured alone, a row's loss is what training on it alone would show: the likelihood is the better answer's."""
    tree = ranking_tree(random.Random(3), 2)
    model, row = tiny_model(), METHODS[method]
    config = resolve({"preference.likelihood": 1.0})
    with torch.no_grad():
        (one,) = make_step([tree], RULES["token"], Packing(4096)).micro
        trained = float(loss_of(row, config)(one, forward(model, one)).total)
        (batch,) = scoring_step([tree], Packing(4096)).micro
        measured = float(loss_of(row, config)(batch, forward(model, batch)).each)
    assert measured == pytest.approx(trained, rel=1e-6)


def test_what_orpo_reports_of_mixed_rows_is_of_those_with_a_pair_however_they_are_packed():
    draw, model = random.Random(0), tiny_model()
    trees = [random_tree(draw, row=i, children=0 if i % 3 else 2) for i in range(6)]
    trees = [replace(tree, pairs=((0, 1),)) if len(tree.leaves) == 2 else tree for tree in trees]
    found = []
    for tokens in (1, 10_000):
        reported = dict.fromkeys(("accuracy", "margin"), (0.0, 0.0))
        for batch in make_step(trees, RULES["token"], Packing(tokens)).micro:
            one = sums(preference.orpo(batch, forward(model, batch), PreferenceConfig()))
            reported = {name: tuple(map(sum, zip(total, one[name], strict=True))) for name, total in reported.items()}
        found.append(reported)
    assert [reported["accuracy"][1] for reported in found] == [2, 2]
    assert found[0]["margin"] == pytest.approx(found[1]["margin"], rel=1e-4)
