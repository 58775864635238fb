"""Mixing: exact shares, every item once a pass, and a start anywhere."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data.mix import mix, pick, turns

SOURCES = [[f"a{i}" for i in range(5)], [f"b{i}" for i in range(3)], ["c0"]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5]), min_size=1, max_size=4), st.integers(0, 50), st.integers(0, 9)
)
def test_starting_in_the_middle_equals_going_there(weights, start, seed):
    if not sum(weights):
        return
    walked = list(islice(turns(weights, seed), start + 20))
    assert list(islice(turns(weights, seed, start), 20)) == walked[start:]
    assert all(weights[source] for source, _ in walked)
    for length in range(len(walked)):
        counts = Counter(source for source, _ in walked[:length])
        for source, weight in enumerate(weights):
            assert abs(counts[source] - length * weight / sum(weights)) <= len(weights)


def test_shares_are_exact_over_a_stretch():
    assert Counter(item[0] for item in islice(mix(SOURCES, [2, 1, 1], 0), 400)) == {"a": 200, "b": 100, "c": 100}


def test_every_item_once_a_pass_in_a_new_order():
    items = list(islice(mix(SOURCES[:1], [1.0], 3), 15))
    passes = [items[0:5], items[5:10], items[10:15]]
    assert all(sorted(one) == SOURCES[0] for one in passes)
    assert len({tuple(one) for one in passes}) > 1


def test_pick_is_mix_at_one_position():
    sizes = [len(source) for source in SOURCES]
    found = [pick(sizes, [3, 2, 1], 7, position) for position in range(30)]
    assert [SOURCES[s][i] for s, i in found] == list(islice(mix(SOURCES, [3, 2, 1], 7), 30))
    assert list(islice(mix(SOURCES, [3, 2, 1], 7, 11), 19)) == [SOURCES[s][i] for s, i in found[11:]]


@pytest.mark.parametrize("seed", [1, 2])
def test_seeds_differ(seed):
    assert list(islice(mix(SOURCES, [1, 1, 1], seed), 30)) != list(islice(mix(SOURCES, [1, 1, 1], 0), 30))
