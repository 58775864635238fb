"""Ranks count from 1, scores rise, and neither is taken for the other."""

from __future__ import annotations

import pytest
from reading_of import loaded

from luthier.core.errors import InputError
from sentences import sentence


def row(**more):
    return {"prompt": "q", "responses": ["a stone", "an oak", "a fir"], **more}


def ranks(tmp_path, *rows, **settings):
    return [example.ranks for example in loaded(tmp_path, list(rows), **settings).examples]


def test_scores_and_ratings_rank_the_highest_first(tmp_path):
    for name in ("scores", "ratings", "rewards"):
        assert ranks(tmp_path, row(**{name: [0.1, 0.9, 0.1]})) == [(2, 1, 2)]
    assert ranks(tmp_path, row(scores=["1", "2.5", "2"])) == [(3, 1, 2)]


@pytest.mark.parametrize(
    "answers",
    [
        [{"response": "a", "overall_score": 2.0}, {"response": "b", "overall_score": 8.5}],
        [{"text": "a", "pm_score": 0, "selected": False}, {"text": "b", "pm_score": 7, "selected": True}],
        [{"answer": "a", "rank": 2.0, "model": "x"}, {"answer": "b", "rank": 1.0, "model": "y"}],
    ],
)
def test_answers_that_carry_their_rating(tmp_path, answers):
    for name in ("completions", "answers", "responses"):
        assert ranks(tmp_path, {"question": "q", name: answers}) == [(2, 1)]


def test_whole_ranks_written_as_floats(tmp_path):
    assert ranks(tmp_path, row(ranks=[2.0, 1.0, 3.0])) == [(2, 1, 3)]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"ranks": [5, 1, 4]}, sentence("ranks do not count")),
        ({"ranks": [0, 1, 2]}, sentence("ranks do not count")),
        ({"ranks": [3, 2, 3]}, sentence("ranks do not count")),
        ({"ranks": [1, 2, 3], "scores": [1, 2, 3]}, sentence("ranks and scores contradict")),
        ({"scores": [1, 2]}, sentence("scores not one a response")),
        ({"scores": [1, "N/A", 2]}, sentence("score not a number")),
        ({"values": [0.5, 0.1, 0.9]}, sentence("column may say how good", column="values")),
        ({"best": 2}, sentence("column may say the best", column="best")),
    ],
)
def test_what_would_turn_an_order_round_is_refused(tmp_path, more, why):
    with pytest.raises(InputError, match=why):
        ranks(tmp_path, row(**more))


def test_only_responses_stand_best_first(tmp_path):
    assert ranks(tmp_path, row()) == [(1, 2, 3)]
    with pytest.raises(InputError, match=sentence("unknown layout, shown")):
        ranks(tmp_path, {"instruction": "q", "generations": ["a", "b"]})
    with pytest.raises(InputError, match=sentence("responses without rank or score")):
        ranks(tmp_path, {"prompt": "q", "responses": [{"text": "a"}, {"text": "b"}]})
