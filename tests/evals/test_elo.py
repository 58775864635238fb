"""Ratings: values by hand, known strengths found again, intervals, and what cannot be rated."""

from __future__ import annotations

import json
from math import log10

import numpy as np
import pytest

from luthier.core.errors import InputError
from luthier.evals.judging.judgments import Duel, duels, read
from luthier.evals.stats import bradley_terry
from luthier.evals.stats.elo import Anchor, rate
from sentences import sentence


def games(first, second, wins, losses, ties=0, start=0):
    """Duels, each on a prompt of its own."""
    assert first < second
    outcomes = [1.0] * wins + [0.0] * losses + [0.5] * ties
    return [Duel(start + i, start + i, first, second, outcome, "judge", (1, 1)) for i, outcome in enumerate(outcomes)]


def by_name(table):
    return {rating.model: rating for rating in table.ratings}


def test_two_models_by_hand():
    """75 of 100: a difference of 400 log10(3) = 190.8 points."""
    table = rate(games("a", "b", 75, 25))
    found = by_name(table)
    assert found["a"].rating - found["b"].rating == pytest.approx(400 * log10(3), abs=0.1)
    assert found["a"].rating + found["b"].rating == pytest.approx(2000)
    assert (found["a"].rank, found["b"].rank) == (1, 2)
    assert (found["a"].score, found["a"].duels, table.prompts) == (0.75, 100, 100)


def test_a_tie_is_half_a_win():
    ties, halves = rate(games("a", "b", 5, 1, ties=4), rounds=10), rate(games("a", "b", 7, 3), rounds=10)
    assert ties.ratings[0].rating == pytest.approx(halves.ratings[0].rating)


def test_nothing_but_ties_is_no_certainty():
    """Drawn again, ten ties are ten ties: no interval, but that of the anchor, which is given."""
    ties = games("a", "b", 0, 0, ties=10)
    assert {(row.low, row.high) for row in rate(ties, rounds=100).ratings} == {(None, None)}
    rows = by_name(rate(ties, rounds=100, anchor=Anchor("a", 1000.0)))
    assert (rows["a"].low, rows["a"].high) == (1000.0, 1000.0)
    assert rows["b"].low is None


def test_a_chain_adds_up_and_an_anchor_moves_all():
    """a over b and b over c, both 3 to 1; a and c never met."""
    both = games("a", "b", 30, 10) + games("b", "c", 30, 10, start=40)
    found = by_name(rate(both, anchor=Anchor("c", 500.0), rounds=50))
    assert found["a"].rating == pytest.approx(500 + 800 * log10(3), abs=1)
    assert (found["c"].rating, found["c"].low, found["c"].high) == (500, 500, 500)


def test_the_matrix_holds_who_took_what():
    table = rate(games("a", "b", 1, 3, ties=1), rounds=10)
    assert [rating.model for rating in table.ratings] == ["b", "a"]
    assert table.points.tolist() == [[0, 3.5], [1.5, 0]]
    assert json.loads(json.dumps(table.as_dict()))["matrix"] == {
        "b": {"a": {"points": 3.5, "duels": 5}}, "a": {"b": {"points": 1.5, "duels": 5}}
    }  # fmt: skip


def simulated(random, strengths, prompts, slope=0.0, verbose=None):
    """Duels of random pairs of models of known strength, in points; `slope` points for one unit of (Li - Lj) / (Li + Lj)."""
    names = sorted(strengths)
    out = []
    for prompt in range(prompts):
        i, j = sorted(random.choice(len(names), 2, replace=False))
        lengths = random.integers(50, 500, 2) * [3 if names[model] == verbose else 1 for model in (i, j)]
        gap = strengths[names[i]] - strengths[names[j]] + slope * (lengths[0] - lengths[1]) / lengths.sum()
        won = random.random() < 1 / (1 + 10 ** (-gap / 400))
        out.append(Duel(prompt, prompt, names[i], names[j], float(won), "judge", (int(lengths[0]), int(lengths[1]))))
    return out


TRUTH = {"a": 1150.0, "b": 1050.0, "c": 1000.0, "d": 800.0}


@pytest.mark.medium
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(7)
    hits = 0
    for i in range(60):
        found = by_name(rate(simulated(random, TRUTH, 200), rounds=200, seed=i))
        hits += sum(found[name].low <= value <= found[name].high for name, value in TRUTH.items())
    assert 0.89 <= hits / 240 <= 0.99


def test_length_control_finds_strength_and_price_of_length():
    """d writes three times as much, and judges like it: with control it falls back to its true place."""
    duels_ = simulated(np.random.default_rng(8), TRUTH, 3000, slope=400, verbose="d")
    plain, controlled = rate(duels_, rounds=100), rate(duels_, rounds=100, length=True)
    assert plain.length is None
    assert by_name(plain)["d"].rating > TRUTH["d"] + 80
    for name, value in TRUTH.items():
        assert by_name(controlled)[name].rating == pytest.approx(value, abs=40)
    x = np.array([(d.lengths[0] - d.lengths[1]) / sum(d.lengths) for d in duels_])
    value, low, high = controlled.length
    assert low <= 400 * x.std() <= high
    assert value == pytest.approx(400 * x.std(), rel=0.2)


def test_prompts_are_drawn_whole():
    """Ten judgments of each prompt that all agree are no more evidence than one: the interval is as wide."""
    single = games("a", "b", 20, 10)
    copied = [
        Duel(d.prompt, 100 * d.unit + i, *("a", "b"), d.outcome, "judge", (1, 1)) for d in single for i in range(10)
    ]
    one, ten = rate(single, seed=1).ratings[0], rate(copied, seed=1).ratings[0]
    assert ten.rating == pytest.approx(one.rating, abs=1)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.05)


def test_fewer_than_six_prompts_give_no_interval():
    found = rate(games("a", "b", 3, 2)).ratings[0]
    assert (found.low, found.high, found.rank) == (None, None, 1)


def test_models_that_never_met_are_named():
    with pytest.raises(InputError, match=sentence("groups never met", groups=2, words="a, b | c, d")):
        rate(games("a", "b", 2, 2) + games("c", "d", 2, 2))
    with pytest.raises(InputError, match=sentence("no models compared")):
        rate([])
    with pytest.raises(
        InputError, match=sentence("no such model judged", where="--anchor", model="xyz", fix="there are: a, b")
    ):
        rate(games("a", "b", 2, 2), anchor=Anchor("xyz", 1000))


def test_who_took_every_point_has_an_open_end():
    """c took every point of 20 duels with b: with probability 1/2 that happens at a gap of 400 log10(1 / (2^(1/20) - 1))."""
    table = rate(games("a", "b", 10, 10) + games("b", "c", 0, 20, start=20))
    found = by_name(table)
    assert found["c"].rating - found["b"].rating == pytest.approx(-400 * log10(2 ** (1 / 20) - 1), abs=1)
    assert found["c"].high is None
    assert found["c"].low < found["c"].rating
    assert found["a"].rating + found["b"].rating == pytest.approx(2000)  # c does not move the others
    assert found["a"].high is not None
    assert table.unbounded == ("took every point from the rest, so how far above it is not known: c",)


def test_of_two_models_one_may_have_won_all():
    table = rate(games("a", "b", 12, 0))
    found = by_name(table)
    assert found["a"].rating - found["b"].rating == pytest.approx(-400 * log10(2 ** (1 / 12) - 1), abs=1)
    assert found["a"].rating + found["b"].rating == pytest.approx(2000)
    assert (found["a"].high, found["b"].low, found["b"].rank) == (None, None, 2)
    assert found["a"].low > found["b"].high


def test_of_who_took_every_point_with_long_answers_length_is_taken_off():
    both = simulated(np.random.default_rng(2), {"a": 1000.0, "b": 1000.0}, 400, slope=400)
    long = [Duel(400 + i, 400 + i, "b", "c", 0.0, "judge", (100, 400)) for i in range(20)]
    table = rate(both + long, length=True, rounds=200)
    found = by_name(table)
    x = np.array([(d.lengths[0] - d.lengths[1]) / sum(d.lengths) for d in both + long])
    bought = table.length[0] / x.std() * 300 / 500
    gap = found["c"].rating - found["b"].rating
    assert gap == pytest.approx(-400 * log10(2 ** (1 / 20) - 1) - bought, abs=3)
    assert bought > 100
    assert found["c"].low < found["c"].rating < -400 * log10(2 ** (1 / 20) - 1) + found["b"].rating


def test_who_took_no_point_is_below_all_that_could_be():
    """2.5 % chance of no point in 20 duels: a gap of 400 log10(1 / (0.025^(-1/20) - 1)) at most, b's own spread aside."""
    table = rate(games("a", "b", 10, 10) + games("b", "c", 20, 0, start=20), anchor=Anchor("b", 0.0))
    worst = by_name(table)["c"]
    assert worst.low is None
    assert worst.high == pytest.approx(400 * log10(0.025 ** (-1 / 20) - 1), abs=40)
    assert worst.rank == 3


def test_a_group_that_lost_nothing_to_the_rest_is_named():
    pairs = games("a", "b", 10, 10) + games("c", "d", 10, 10, start=20)
    assert not rate(pairs + games("b", "c", 5, 5, start=40), rounds=10).unbounded
    words = rate(pairs + games("b", "c", 5, 0, start=40), rounds=10).unbounded
    assert words[0].endswith(": a, b")
    assert words[1].endswith(": c, d")


def test_the_fit_is_where_the_likelihood_is_flat():
    """The gradient by hand: the points taken less the points expected, and the prior."""
    random = np.random.default_rng(9)
    duels_ = simulated(random, TRUTH, 300)
    arrays = bradley_terry.arena(duels_, sorted(TRUTH), False)
    theta = bradley_terry.fit(arrays, np.ones((1, 300)), np.zeros(4))[0]
    for i, name in enumerate(sorted(TRUTH)):
        miss = 0.0
        for d in duels_:
            if name in (d.first, d.second):
                j = sorted(TRUTH).index(d.second if name == d.first else d.first)
                miss += (d.outcome if name == d.first else 1 - d.outcome) - 1 / (1 + np.exp(theta[j] - theta[i]))
        assert miss == pytest.approx(bradley_terry.PRIOR * theta[i], abs=1e-6)


def test_rounds_in_blocks_give_the_same(monkeypatch):
    duels_ = simulated(np.random.default_rng(1), TRUTH, 60)
    whole = rate(duels_, rounds=40)
    monkeypatch.setattr(bradley_terry, "AT_ONCE", 100)
    blocks = rate(duels_, rounds=40)
    assert [r.low for r in blocks.ratings] == pytest.approx([r.low for r in whole.ratings])


def test_real_judgments(shared):
    """AlpacaEval's: two judges, two baselines; the ratings put GPT-4 far above text-davinci-001."""
    found = duels(read([str(shared / "alpaca_eval_pref" / "alpaca_eval_pref_test.jsonl.gz")]))
    table = rate(found, anchor=Anchor("text_davinci_003", 1000.0), rounds=50)
    names = by_name(table)
    assert len(found) > 1500
    assert names["gpt4_1106_preview"].low > names["text_davinci_001"].high + 200


def test_many_prompts_are_drawn_in_blocks_of_bounded_size(monkeypatch):
    """20,000 prompts share three rows, so it is the prompts that fill memory, not the rows."""
    arrays = bradley_terry.arena(games("a", "b", 12_000, 8_000), ["a", "b"], False)
    assert (arrays.prompts, len(arrays.outcome)) == (20_000, 2)
    sizes = []
    monkeypatch.setattr(bradley_terry, "fit", lambda arrays, drawn, start: sizes.append(drawn.size) or drawn[:, :2])
    monkeypatch.setattr(bradley_terry, "AT_ONCE", 100_000)
    assert len(bradley_terry.resampled(arrays, np.zeros(2), 12, 0)) == 12
    assert sizes == [100_000, 100_000, 40_000]


@pytest.mark.parametrize("length", [False, True])
def test_a_prompt_counts_in_each_of_its_rows_as_often_as_it_is_drawn(length):
    """Prompt 0 has a win over b and one over c, prompt 1 two wins over b."""
    said = [(0, "b"), (0, "c"), (1, "b"), (1, "b")]
    found = [Duel(prompt, unit, "a", other, 1.0, "judge", (2, 1)) for unit, (prompt, other) in enumerate(said)]
    arrays = bradley_terry.arena(found, ["a", "b", "c"], length)
    weights = arrays.weights(np.array([[1.0, 0.0], [3.0, 10.0]]))
    assert weights.tolist() == ([[1, 0, 0, 1], [3, 10, 10, 3]] if length else [[1, 1], [23, 3]])


def test_held_models_do_not_depend_on_how_many_rounds_fit_in_memory(monkeypatch):
    duels_ = simulated(np.random.default_rng(1), TRUTH, 60) + games("a", "z", 20, 0, start=60)
    whole = rate(duels_, length=True, rounds=40)
    monkeypatch.setattr(bradley_terry, "AT_ONCE", 100)
    assert by_name(rate(duels_, length=True, rounds=40))["z"].high == pytest.approx(by_name(whole)["z"].high)
