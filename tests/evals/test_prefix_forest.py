"""Every shared beginning stands once, and every sequence can be read back from the row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.evals.prefix_forest import PREFIX_MULTIPLE, grow, prefix_batches, shared

token = st.integers(0, 2)  # few tokens, so that many sequences share
sequences_ = st.lists(st.lists(token, min_size=1, max_size=14).map(tuple), min_size=1, max_size=12)


def row(forest):
    return [token for node in forest.nodes for token in node.ids]


@given(sequences_)
@settings(max_examples=150, deadline=None)
@pytest.mark.medium
def test_every_sequence_is_a_path_of_the_tree(sequences):
    forest = grow(sequences, range(len(sequences)))
    tokens = row(forest)
    assert len(tokens) == forest.tokens == len(forest.tree)
    for index, ids in enumerate(sequences):
        assert tuple(tokens[place] for place in forest.places(index, 0, len(ids))) == ids
        half = len(ids) // 2
        assert forest.places(index, half, len(ids)) == forest.places(index, 0, len(ids))[half:]
        assert _through_ancestors(forest, forest.places(index, 0, len(ids)))


def _through_ancestors(forest, places) -> bool:
    """Each token's predecessor is in its own node, or is the last of its parent node."""
    owner, starts = [], []
    for number, node in enumerate(forest.nodes):
        starts.append(len(owner))
        owner += [number] * len(node.ids)
    for before, place in zip([None, *places], places, strict=False):
        node = forest.nodes[owner[place]]
        first = place == starts[owner[place]]
        expected = place - 1 if not first else None
        if first and node.parent >= 0:
            expected = starts[node.parent] + len(forest.nodes[node.parent].ids) - 1
        if before != expected:
            return False
    return True


def test_a_question_with_four_letters_is_computed_once():
    context = tuple(range(50))
    forest = grow([context] * 4, range(4))
    assert forest.tokens == 50
    assert len(forest.nodes) == 1


def test_examples_question_and_choices_become_one_tree():
    examples, first, second = tuple(range(100, 120)), tuple(range(10)), tuple(range(20, 30))
    sequences = [examples + q + c for q in (first, second) for c in ((1, 2, 3, 4), (1, 2, 3, 9, 9), (7, 7))]
    forest = grow(sequences, range(6))
    # the 20 examples once, each question once; three shared tokens of two choices are not worth a node
    assert forest.tokens == 20 + 2 * 10 + 2 * (4 + 5 + 2)
    assert [node.parent for node in forest.nodes] == [-1, 0, 1, 1, 1, 0, 5, 5, 5]


@given(
    st.lists(st.lists(token, min_size=1, max_size=300).map(tuple), min_size=1, max_size=8),
    st.integers(1, 400),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_loads_hold_every_sequence_once_and_never_claim_to_know_too_much(sequences, tokens, data):
    prefix = data.draw(st.lists(token, max_size=200).map(tuple))
    sequences = [prefix + ids for ids in sequences]
    free = [data.draw(st.integers(0, len(ids) - 1)) for ids in sequences]
    kept, seen = prefix[: len(prefix) // PREFIX_MULTIPLE * PREFIX_MULTIPLE], []
    for load in prefix_batches(sequences, free, tokens, kept):
        seen += load.members
        forest = grow(sequences, load.members)
        assert load.known % PREFIX_MULTIPLE == load.keep % PREFIX_MULTIPLE == 0
        assert load.known <= len(kept)
        for index in load.members:
            assert sequences[index][: load.known] == kept[: load.known]
            assert load.known <= free[index]
        first = sequences[load.members[0]]
        assert forest.tokens - load.known <= max(tokens, len(first)) + 4 * len(load.members)
        assert load.keep <= min(shared(first, sequences[index]) for index in load.members)
        kept = first[: load.keep]
    assert sorted(seen) == list(range(len(sequences)))


def test_what_the_documents_of_a_subject_share_is_computed_once_in_all():
    examples = tuple(range(1000, 1128))
    sequences = [examples + (index,) * 10 for index in range(30)]
    parts = list(prefix_batches(sequences, [130] * 30, 200))
    assert len(parts) > 1
    assert [part.known for part in parts] == [0] + [128] * (len(parts) - 1)
    new = sum(grow(sequences, part.members).tokens - part.known for part in parts)
    assert new == 128 + 30 * 10


def test_examples_longer_than_a_pass_still_work():
    examples = tuple(range(1000, 1640))  # 640 tokens, where a pass has 100
    sequences = [examples + (index,) * 10 for index in range(20)]
    parts = list(prefix_batches(sequences, [645] * 20, 100))
    assert [len(part.members) for part in parts] == [1, 10, 9]
    assert [part.known for part in parts] == [0, 640, 640]
