"""The loss of reward models: numbers by hand, margins, ties, Plackett-Luce, batches of many kinds of rows."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from luthier.config.data import TextConfig
from luthier.config.training import RankingConfig
from luthier.core.types.batch import Output
from luthier.core.types.examples import Message, Preference, Ranking
from luthier.core.types.trees import Node, TokenTree
from luthier.methods.reward import reward
from luthier.text.encode import encode
from luthier.text.loss_weights import RULES
from luthier.text.template import load_template
from luthier.text.tokenizer import Tokenizer
from luthier.training.steps import Packing, make_step


def softplus(x):
    """-log s(-x)"""
    return math.log1p(math.exp(x))


def tree_of(answers, pairs, ties=(), ranks=None, margin=0.0):
    nodes = [Node((1, 2), (False, False)), *(Node((3, 4), (True, True), 0) for _ in range(answers))]
    ranks = ranks or range(1, answers + 1)
    columns = {"rank": [float(rank) for rank in ranks]}
    return TokenTree(
        tuple(nodes), pairs=tuple(pairs), ties=tuple(ties), columns={"margin": margin}, leaf_columns=columns
    )


def loss_of(trees, scores, **settings):
    (batch,) = make_step(trees, RULES["token"], Packing(10_000)).micro
    return reward(batch, Output(torch.zeros(0), score=torch.tensor(scores)), RankingConfig(**settings))


def test_pairs_by_hand():
    loss = loss_of([tree_of(2, [(0, 1)]), tree_of(2, [(1, 0)])], [1.0, -0.5, 2.0, 0.0])
    assert loss.each.tolist() == pytest.approx([softplus(-1.5), softplus(2.0)])
    assert float(loss.total) == pytest.approx((softplus(-1.5) + softplus(2.0)) / 2)
    assert loss.items["accuracy"].tolist() == [1.0, 0.0]
    assert loss.items["margin"].tolist() == [1.5, -2.0]
    assert loss.metrics["score"] == (2.5, 4.0)


def test_all_pairs_of_a_prompt_count_once_together():
    """Three answers, three pairs: their mean, which weighs as much as the one pair of the other prompt."""
    three = tree_of(3, [(0, 1), (0, 2), (1, 2)])
    loss = loss_of([three, tree_of(2, [(0, 1)])], [1.0, 0.0, 3.0, 0.5, 0.5])
    mean = (softplus(-1) + softplus(2) + softplus(3)) / 3
    assert loss.each.tolist() == pytest.approx([mean, math.log(2)])
    assert float(loss.total) == pytest.approx((mean + math.log(2)) / 2)
    assert loss.items["accuracy"].tolist() == pytest.approx([1 / 3, 1 / 2])


def test_only_the_pairs_that_were_compared_are_learned():
    assert float(loss_of([tree_of(3, [(2, 0)])], [1.0, 9.0, 3.0]).total) == pytest.approx(softplus(-2))


def test_a_margin_is_asked_of_the_difference_and_of_its_own_row_alone():
    trees = [tree_of(2, [(0, 1)]), tree_of(2, [(0, 1)], margin=0.75)]
    assert loss_of(trees, [1.0, 0.0, 1.0, 0.0]).each.tolist() == pytest.approx([softplus(-1), softplus(-0.25)])


def test_a_tie_pulls_scores_together_from_both_sides():
    """(0 above 1), (0 above 2), 1 = 2: the tie costs as much whichever way it is written, and margins are not asked of it."""
    for tie in ((1, 2), (2, 1)):
        tree = tree_of(3, [(0, 1), (0, 2)], [tie], margin=0.5)
        even = (softplus(2.0) + softplus(-2.0)) / 2
        found = loss_of([tree], [1.0, 3.0, 1.0])
        assert float(found.total) == pytest.approx((softplus(0.5 + 2) + softplus(0.5) + even) / 3)
        assert found.items["margin"].tolist() == [-1.0], "a tie has no margin"
    scores = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    (batch,) = make_step([tree_of(3, [(0, 1)], [(1, 2)])], RULES["token"], Packing(100)).micro
    reward(batch, Output(torch.zeros(0), score=scores), RankingConfig()).total.backward()
    assert float(scores.grad[2]) == pytest.approx(-math.tanh(1.0) / 2 / 2)


def test_centering_by_hand():
    loss = loss_of([tree_of(2, [(0, 1)])], [1.0, 0.5], center=0.1)
    assert float(loss.total) == pytest.approx(softplus(-0.5) + 0.1 * 1.5**2)
    both = loss_of([tree_of(3, [(0, 1)], [(1, 2)])], [1.0, 0.0, 2.0], center=1.0)
    assert float(both.total) == pytest.approx((softplus(-1) + (softplus(2) + softplus(-2)) / 2) / 2 + (1 + 4) / 2)


def direct(scores, order):
    """-log of the probability of an order under Plackett-Luce: draw without replacement, odds e^score."""
    left, product = list(order), 1.0
    while left:
        product *= math.exp(scores[left[0]]) / sum(math.exp(scores[i]) for i in left)
        left.pop(0)
    return -math.log(product)


def test_plackett_luce_is_a_probability_of_orders():
    scores = [0.3, -1.0, 0.8, 0.1]
    total = 0.0
    for order in itertools.permutations(range(4)):
        ranks = [order.index(i) + 1 for i in range(4)]
        tree = tree_of(4, [(order[0], order[1])], ranks=ranks)
        mean = float(loss_of([tree], scores, loss="plackett-luce").total)
        assert mean == pytest.approx(direct(scores, order) / 3, rel=1e-5)
        total += math.exp(-3 * mean)
    assert total == pytest.approx(1.0, rel=1e-5)


def test_plackett_luce_of_two_answers_is_the_loss_of_their_pair():
    trees = [tree_of(2, [(0, 1)]), tree_of(2, [(1, 0)], ranks=(2, 1))]
    scores = [0.4, -0.3, 1.0, 2.5]
    ours, pairs = (loss_of(trees, scores, loss=name) for name in ("plackett-luce", "pairs"))
    assert ours.each.tolist() == pytest.approx(pairs.each.tolist())


def test_plackett_luce_with_equal_ranks_and_of_trees_of_several_sizes():
    """Ranks 1, 1, 2: each of the first two is compared with all three; the last rank teaches nothing of its own."""
    trees = [tree_of(3, [(0, 2)], ranks=(1, 1, 2)), tree_of(2, [(1, 0)], ranks=(2, 1))]
    scores = [0.5, -0.5, 0.25, 1.0, 3.0]
    norm = math.log(sum(math.exp(s) for s in scores[:3]))
    found = loss_of(trees, scores, loss="plackett-luce")
    assert found.each.tolist() == pytest.approx([norm - (0.5 - 0.5) / 2, softplus(-2.0)])


def said(role, text):
    return (Message(role, text),)


@pytest.fixture
def rows(tiny_tokenizer):
    """A pair without a margin, a pair with one, and a ranking, encoded."""
    tokenizer = Tokenizer(tiny_tokenizer)
    answers = tuple(said("assistant", text) for text in (" red", " blue", " tree"))
    examples = [
        Preference(said("user", "is it"), *answers[:2]), Preference(said("user", "the cat"), *answers[:2], margin=0.75),
        Ranking(said("user", "a mat"), answers, (1, 2, 2)),
    ]  # fmt: skip
    return encode(examples, load_template("plain", tokenizer), tokenizer, TextConfig()).trees


def test_rows_with_and_without_a_margin_and_rankings_share_a_batch(rows):
    """A margin is one row's own: a row without has 0, whatever stands beside it."""
    scores = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.5]
    ranking = (softplus(-1) + softplus(-0.5) + (softplus(0.5) + softplus(-0.5)) / 2) / 3
    expected = {0: softplus(-1), 1: softplus(-0.25), 2: ranking}
    assert loss_of(rows, scores).each.tolist() == pytest.approx(list(expected.values()))
    turned = loss_of(rows[::-1], [1.0, 0.0, 0.5, 1.0, 0.0, 1.0, 0.0])
    assert turned.each.tolist() == pytest.approx(list(expected.values())[::-1])


def test_pairs_and_rankings_share_a_batch_by_plackett_luce(rows):
    """As when pairs were gathered: those alone on their prompt stay pairs."""
    found = loss_of(rows, [1.0, 0.0, 1.0, 3.0, 1.0, 0.0, 0.5], loss="plackett-luce")
    norm = math.log(math.exp(1) + 1 + math.exp(0.5))
    assert found.each.tolist() == pytest.approx([softplus(-1), softplus(2), norm - 1])
