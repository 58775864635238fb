"""Packing: where tokens, nodes and targets stand, by hand and by property."""

from __future__ import annotations

import inspect
import random
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import random_tree
from luthier.core.types.trees import Media, Node, TokenTree
from luthier.text.arrange import MIN_SHARED, Shared, arrange, bins, shared, shared_nodes, shared_tokens
from luthier.text.loss_weights import RULES, example_mean, token_mean
from luthier.text.pack import pack


def ones(trees):
    return [[1.0] * tree.trained for tree in trees]


def node(ids, trained=None, parent=-1):
    return Node(tuple(ids), tuple(trained or [False] * len(ids)), parent)


def test_one_node_by_hand():
    tree = TokenTree((node([5, 6, 7, 8], [False, False, True, True]),), row=3)
    batch = pack([tree], [[0.25, 0.75]])
    assert batch.tokens.tolist() == [5, 6, 7, 8]
    assert batch.positions.tolist() == [0, 1, 2, 3]
    assert (batch.source.tolist(), batch.label.tolist()) == ([1, 2], [7, 8])
    assert batch.weight.tolist() == [0.25, 0.75]
    assert (batch.rows, batch.tree.tolist(), batch.real) == ((3,), [0, 0], 4)


def test_children_start_after_the_prompt_and_are_predicted_from_its_last_token():
    tree = TokenTree((node([1, 2]), node([3], [True], 0), node([4, 5], [True, True], 0)))
    batch = pack([tree], ones([tree]))
    assert batch.tokens.tolist() == [1, 2, 3, 4, 5]
    assert batch.positions.tolist() == [0, 1, 2, 2, 3]
    assert (batch.node_start, batch.node_parent) == ((0, 2, 3, 5), (-1, 0, 0))
    assert (batch.source.tolist(), batch.label.tolist()) == ([1, 1, 3], [3, 4, 5])


def test_a_shared_prefix_stands_once_and_weights_stay_with_their_tokens():
    trees = [TokenTree((node([9, 9, 9, 9, i, i + 1], [False] * 5 + [True]),), row=i) for i in (1, 2, 3)]
    batch = pack(trees, [[0.1], [0.2], [0.7]])
    assert batch.tokens.tolist() == [9, 9, 9, 9, 1, 2, 2, 3, 3, 4]
    assert batch.node_parent == (-1, 0, 0, 0)
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 4, 5]
    assert batch.label.tolist() == [2, 3, 4]
    assert [round(w, 6) for w in batch.weight.tolist()] == [0.1, 0.2, 0.7]
    assert batch.tree.tolist() == [0, 1, 2]


def test_beginnings_within_beginnings_stand_once_each():
    starts = [[9] * 4 + [5] * 4, [9] * 4 + [5] * 4, [9] * 4 + [6, 7, 8]]
    trees = [TokenTree((node([*start, i], [False] * len(start) + [True]),), row=i) for i, start in enumerate(starts)]
    batch = pack(trees, ones(trees))
    assert batch.tokens.tolist() == [9, 9, 9, 9, 5, 5, 5, 5, 0, 1, 6, 7, 8, 2]
    assert (batch.node_start, batch.node_parent) == ((0, 4, 8, 9, 10, 14), (-1, 0, 1, 1, 0))
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 4, 5, 6, 7]
    assert (batch.source.tolist(), batch.label.tolist()) == ([7, 7, 12], [0, 1, 2])


def test_shared_nodes_by_hand():
    assert shared_nodes([]) == ([], [-1])
    assert shared_nodes([3, 0]) == ([], [-1, -1, -1])
    assert shared_nodes([4, 9, 9, 0, 5]) == (
        [Shared(0, 4, -1), Shared(4, 9, 0), Shared(0, 5, -1)], [0, 1, 1, 1, 2, 2],
    )  # fmt: skip
    assert shared_nodes([6, 4]) == ([Shared(0, 4, -1)], [0, 0, 0])  # two more are not worth a node


def test_a_trained_token_is_never_part_of_a_shared_beginning():
    trees = [TokenTree((node([1, 2, 3, 4, 5, 6, i], [False] * 5 + [True] * 2),)) for i in (7, 8)]
    assert shared_tokens(trees) == [5]
    assert pack(trees, ones(trees)).tokens.tolist() == [1, 2, 3, 4, 5, 6, 7, 6, 8]


@given(st.lists(st.integers(0, 2), max_size=200), st.lists(st.integers(0, 2), max_size=200), st.integers(0, 150))
@pytest.mark.medium
def test_shared_is_the_length_of_the_common_beginning(a, b, start):
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert shared(a, b, min(start, expected)) == expected


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(8, 60))
@pytest.mark.medium
def test_rows_hold_every_tree_once_and_fit(seed, count, capacity):
    draw = random.Random(seed)
    begin = [tuple(draw.randrange(3) for _ in range(6)) for _ in range(3)]
    trees = [random_tree(draw, prefix=draw.choice(begin), children=draw.choice([0, 2]), row=i) for i in range(count)]
    rows = arrange(trees, capacity)
    assert sorted(i for row in rows for i in row) == list(range(count))
    for row in rows:
        members = [trees[i] for i in row]
        slack = (MIN_SHARED - 1) * len(row)
        assert len(row) == 1 or pack(members, ones(members)).real <= capacity + slack


def test_rows_that_begin_alike_go_together():
    """Two templates, taken in turns: rows of either kind cost less than mixed ones."""
    trees = [TokenTree((node([7 + i % 2] * 20 + [i], [False] * 20 + [True]),)) for i in range(8)]
    assert sorted(sorted(row) for row in arrange(trees, 26)) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_rows_without_a_common_beginning_are_filled():
    trees = [TokenTree((node([i] * size, [False] + [True] * (size - 1)),)) for i, size in enumerate([9, 3, 8, 2])]
    assert len(arrange(trees, 11)) == 2


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


def paths(batch):
    """The tokens that each target is predicted from, first to last."""
    found = []
    for place in batch.source.tolist():
        n = max(n for n, start in enumerate(batch.node_start[:-1]) if start <= place)
        path, end = [], place + 1
        while n >= 0:
            path = batch.tokens[batch.node_start[n] : end].tolist() + path
            n = batch.node_parent[n]
            end = batch.node_start[n + 1]
        found.append(path)
    return found


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_sharing_changes_what_is_computed_but_no_target(seed, count, children):
    draw = random.Random(seed)
    prefix = tuple(draw.randrange(50) for _ in range(draw.choice([0, 3, 6])))
    second = tuple(draw.randrange(50) for _ in range(draw.choice([2, 5])))
    begin = [prefix, prefix + second]
    trees = [random_tree(draw, prefix=begin[i >= count // 2], children=2 * children, row=i) for i in range(count)]
    apart, together = pack(trees, ones(trees), share=False), pack(trees, ones(trees))
    assert together.label.tolist() == apart.label.tolist()
    assert together.positions[together.source].tolist() == apart.positions[apart.source].tolist()
    assert together.tree.tolist() == apart.tree.tolist()
    assert paths(together) == paths(apart)
    nodes, below = shared_nodes(shared_tokens(trees))
    saved = sum(nodes[n].end for n in below if n >= 0) - sum(n.end - n.begin for n in nodes)
    assert together.real == apart.real - saved
    assert saved >= (len(prefix) if len(prefix) >= MIN_SHARED else 0) * (count - 1)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_weights_of_a_step_sum_to_one(rule):
    draw = random.Random(1)
    trees = [random_tree(draw, children=i % 3, row=i) for i in range(9)]
    assert sum(w for row in rule(trees) for w in row) == pytest.approx(1.0)


def test_rules_by_hand():
    trees = [TokenTree((node([1, 2, 3, 4], [False, True, True, True]),)), TokenTree((node([1, 2], [False, True]),))]
    assert token_mean(trees) == [[0.25] * 3, [0.25]]
    assert example_mean(trees) == [[1 / 6] * 3, [0.5]]


def test_what_is_predicted_may_be_another_than_the_token():
    """Distillation of choices: the teacher would have said 70 and 80."""
    tree = TokenTree((Node((5, 6, 7, 8), (False, False, True, True), labels=(0, 0, 70, 80)),))
    batch = pack([tree], ones([tree]))
    assert (batch.source.tolist(), batch.label.tolist()) == ([1, 2], [70, 80])


def test_a_full_node_predicts_labels_from_the_states_of_their_own_tokens():
    """A mask's word (BERT): the first token of a text can be one; the next node's is predicted from what precedes it."""
    tree = TokenTree(
        (Node((0, 6, 0), (True, False, True), labels=(5, 6, 7), mask="full"), Node((8, 9), (True, True), 0))
    )
    batch = pack([tree], RULES["token"]([tree]))
    assert (batch.source.tolist(), batch.label.tolist()) == ([0, 2, 2, 3], [5, 7, 8, 9])
    assert (batch.weight.tolist(), batch.node_mask) == ([0.25] * 4, ("full", "causal"))


def test_labels_stay_with_their_tokens_behind_a_shared_beginning():
    trees = [
        TokenTree((Node((9, 9, 9, 9, i, i), (False,) * 4 + (True,) * 2, labels=(0, 0, 0, 0, i + 50, i + 60)),))
        for i in (1, 2)
    ]
    batch = pack(trees, ones(trees), pad_to=16)
    assert batch.tokens.tolist()[:8] == [9, 9, 9, 9, 1, 1, 2, 2]
    assert (batch.source.tolist(), batch.label.tolist()) == ([3, 4, 3, 6], [51, 61, 52, 62])
    assert batch.node_mask == ()


def test_what_a_full_node_begins_with_is_not_shared():
    """Its states depend on what follows, which another text has not."""
    trees = [TokenTree((Node((9, 9, 9, 9, i), (False,) * 5, mask="full"),)) for i in (1, 2)]
    assert pack(trees, ones(trees)).tokens.tolist() == [9, 9, 9, 9, 1, 9, 9, 9, 9, 2]


def test_columns_of_any_shape_stay_with_their_trees_leaves_and_targets():
    """The two likeliest tokens of a teacher at each target, with their log-probabilities."""
    root = Node((1, 2, 3), (True, False, True))  # the first token has no predecessor, so its values are left out
    tree = TokenTree(
        (root, Node((4,), (True,), 0), Node((5,), (True,), 0)),
        columns={"task": np.array([1.0, 0.0], dtype=np.float32), "name": "text stays behind"},
        leaf_columns={"aspects": [[1.0, 2.0], [3.0, 4.0]]},
        target_columns={
            "teacher": [[10, 11], [30, 31], [40, 41], [50, 51]],
            "teacher_logp": np.arange(8).reshape(4, 2) / -8,
            "advantage": [0.1, 0.3, 0.4, 0.5],
        },
    )
    columns = pack([tree, tree], ones([tree, tree])).columns
    assert columns.keys() == {"task", "aspects", "teacher", "teacher_logp", "advantage"}
    assert columns["task"].tolist() == [[1, 0], [1, 0]]
    assert columns["aspects"].tolist() == [[1, 2], [3, 4]] * 2
    assert columns["teacher"].tolist() == [[30, 31], [40, 41], [50, 51]] * 2
    assert columns["teacher"].dtype.is_floating_point is False
    assert columns["teacher_logp"].tolist() == [[-0.25, -0.375], [-0.5, -0.625], [-0.75, -0.875]] * 2
    assert columns["advantage"].shape == (6,)


def test_positions_on_several_axes():
    """A picture of 2 x 2 tokens as Qwen2-VL counts: one place in time, rows and columns; text goes on after the largest."""
    picture = Node((7,) * 4, (False,) * 4, 0, positions=((2,) * 4, (2, 2, 3, 3), (2, 3, 2, 3)))
    after = Node((3, 4), (True, True), 1, positions=((4, 5),) * 3)
    tree = TokenTree((Node((1, 2), (False, False)), picture, after))
    batch = pack([tree], ones([tree]), pad_to=9)
    assert batch.positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 4, 5, 0], [0, 1, 2, 2, 3, 3, 4, 5, 0], [0, 1, 2, 3, 2, 3, 4, 5, 0],
    ]  # fmt: skip
    one_axis = TokenTree((Node((1, 2), (False, True), positions=((5, 9),)),))
    assert pack([one_axis], ones([one_axis])).positions.tolist() == [5, 9]


def test_a_beginning_at_other_positions_is_not_shared():
    trees = [
        TokenTree((Node((9,) * 6 + (i,), (False,) * 6 + (True,), positions=(tuple(range(5)) + (5 + i, 6 + i),)),))
        for i in (0, 1)
    ]
    assert shared_tokens(trees) == [5]
    assert pack(trees, ones(trees)).positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 7]


def pictured(*digests, end):
    """A text in which each four tokens stand for a picture."""
    ids = (1, 2, *(7,) * 4 * len(digests), 3, end)
    media = tuple(Media("picture", d, 0, 2 + 4 * i, 6 + 4 * i, values=d) for i, d in enumerate(digests))
    return TokenTree((Node(ids, (False,) * (len(ids) - 1) + (True,)),), media=media)


def test_media_stand_at_their_tokens_once_for_all_that_share_them():
    trees = [pictured("cat", "dog", end=4), pictured("cat", "dog", end=5), pictured("cat", "owl", end=6)]
    assert shared_tokens(trees) == [11, 6], "the third goes on with another picture, though its tokens are the same"
    batch = pack(trees, ones(trees))
    assert batch.tokens.tolist() == [1, 2, 7, 7, 7, 7, 7, 7, 7, 7, 3, 4, 5, 7, 7, 7, 7, 3, 6]
    assert [(m.digest, m.values, m.node, m.begin, m.end) for m in batch.media] == [
        ("cat", "cat", 0, 2, 6), ("dog", "dog", 1, 6, 10), ("owl", "owl", 4, 13, 17),
    ]  # fmt: skip


def test_a_picture_is_never_cut_in_two():
    """Two that begin with the same picture, of which the second has one token more for it."""
    one = TokenTree((Node((1, 2, 7, 7, 7, 7, 4), (False,) * 7),), media=(Media("picture", "cat", 0, 2, 6),))
    two = TokenTree((Node((1, 2, 7, 7, 7, 7, 7, 4), (False,) * 8),), media=(Media("picture", "cat", 0, 2, 7),))
    assert shared_tokens([one, two]) == [2]


def test_beginnings_that_grow_row_by_row_are_no_limit(request):
    """Each row of a long transcript begins with the one before: a level of the tree each, far more than calls may be nested."""
    request.addfinalizer(partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    trees = [TokenTree((Node(tuple(range(5 * n)), (False,) * (5 * n - 1) + (True,)),), row=n) for n in range(1, 300)]
    assert sorted(i for row in arrange(trees, 8192) for i in row) == list(range(299))
    nodes, below = shared_nodes([2 * MIN_SHARED * n for n in range(1, 300)])
    assert len(nodes) == 299 and below[-1] == 298
    assert all(node.parent == n - 1 for n, node in enumerate(nodes))
