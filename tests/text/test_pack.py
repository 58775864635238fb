"""Packing: where tokens, nodes and targets stand, by hand and by property."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import random_tree
from luthier.core.types import Node, TokenTree
from luthier.text.pack import bins, pack, shared_prefix
from luthier.text.weigh import RULES, example_mean, token_mean


def ones(trees):
    return [[1.0] * tree.trained for tree in trees]


def node(ids, trained=None, parent=-1):
    return Node(tuple(ids), tuple(trained or [False] * len(ids)), parent)


def test_one_node_by_hand():
    tree = TokenTree((node([5, 6, 7, 8], [False, False, True, True]),), row=3)
    batch = pack([tree], [[0.25, 0.75]])
    assert batch.tokens.tolist() == [5, 6, 7, 8]
    assert batch.positions.tolist() == [0, 1, 2, 3]
    assert (batch.source.tolist(), batch.target.tolist()) == ([1, 2], [2, 3])
    assert batch.weight.tolist() == [0.25, 0.75]
    assert (batch.rows, batch.tree.tolist(), batch.real) == ((3,), [0, 0], 4)


def test_children_start_after_the_prompt_and_are_predicted_from_its_last_token():
    tree = TokenTree((node([1, 2]), node([3], [True], 0), node([4, 5], [True, True], 0)))
    batch = pack([tree], ones([tree]))
    assert batch.tokens.tolist() == [1, 2, 3, 4, 5]
    assert batch.positions.tolist() == [0, 1, 2, 2, 3]
    assert (batch.node_start, batch.node_parent) == ((0, 2, 3, 5), (-1, 0, 0))
    assert (batch.source.tolist(), batch.target.tolist()) == ([1, 1, 3], [2, 3, 4])


def test_a_shared_prefix_stands_once_and_weights_stay_with_their_tokens():
    trees = [TokenTree((node([9, 9, 9, 9, i, i + 1], [False] * 5 + [True]),), row=i) for i in (1, 2, 3)]
    assert shared_prefix(trees) == 4
    batch = pack(trees, [[0.1], [0.2], [0.7]])
    assert batch.tokens.tolist() == [9, 9, 9, 9, 1, 2, 2, 3, 3, 4]
    assert batch.node_parent == (-1, 0, 0, 0)
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 4, 5]
    assert batch.target.tolist() == [5, 7, 9]
    assert [round(w, 6) for w in batch.weight.tolist()] == [0.1, 0.2, 0.7]
    assert batch.tree.tolist() == [0, 1, 2]


def test_a_trained_token_is_never_part_of_a_shared_prefix():
    trees = [TokenTree((node([1, 2, 3, 4, 5, 6, i], [False] * 5 + [True] * 2),)) for i in (7, 8)]
    assert shared_prefix(trees) == 5


def test_the_first_token_of_a_root_has_no_predecessor_and_no_target():
    tree = TokenTree((node([1, 2, 3], [True, True, True]),))
    assert pack([tree], [[9.0, 1.0, 2.0]]).weight.tolist() == [1.0, 2.0]


def test_padding_is_a_node_of_its_own_and_not_counted():
    tree = TokenTree((node([1, 2, 3], [False, True, True]),))
    batch = pack([tree], ones([tree]), pad_to=8)
    assert (len(batch.tokens), batch.real, batch.node_start, batch.node_parent) == (8, 3, (0, 3, 8), (-1, -1))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(10, 80))
def test_bins_hold_everything_once_and_overflow_only_for_one_item(sizes, capacity):
    found = bins(sizes, capacity)
    assert sorted(i for b in found for i in b) == list(range(len(sizes)))
    assert all(len(b) == 1 or sum(sizes[i] for i in b) <= capacity for b in found)
    assert len(found) <= 2 * -(-sum(sizes) // capacity) + sum(size > capacity for size in sizes)


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_sharing_changes_what_is_computed_but_no_target(seed, count, children):
    draw = random.Random(seed)
    prefix = tuple(draw.randrange(50) for _ in range(draw.choice([0, 3, 6])))
    trees = [random_tree(draw, prefix=prefix, children=2 * children, row=i) for i in range(count)]
    apart, together = pack(trees, ones(trees), share=False), pack(trees, ones(trees))
    assert together.tokens[together.target].tolist() == apart.tokens[apart.target].tolist()
    assert together.positions[together.target].tolist() == apart.positions[apart.target].tolist()
    assert together.tree.tolist() == apart.tree.tolist()
    saved = shared_prefix(trees) * (count - 1)
    assert together.real == apart.real - saved


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_weights_of_a_step_sum_to_one(rule):
    draw = random.Random(1)
    trees = [random_tree(draw, children=i % 3, row=i) for i in range(9)]
    assert sum(w for row in rule(trees) for w in row) == pytest.approx(1.0)


def test_rules_by_hand():
    trees = [TokenTree((node([1, 2, 3, 4], [False, True, True, True]),)), TokenTree((node([1, 2], [False, True]),))]
    assert token_mean(trees) == [[0.25] * 3, [0.25]]
    assert example_mean(trees) == [[1 / 6] * 3, [0.5]]
