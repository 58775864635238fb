"""Comparisons: verdicts, correction, several runs of a model, and how rarely equal models are called different."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from luthier.core.errors import RunError
from luthier.core.verdicts import LEVEL, NONE_SHOWN, TOO_FEW
from luthier.evals.metrics.measure_answers import about_metric
from luthier.evals.stats import paired as compare_module
from luthier.evals.stats.intervals import difference
from luthier.evals.stats.paired import Question, compare, false_alarms
from luthier.evals.stats.significance import mcnemar, sign_flip
from sentences import sentence


def asked(name="accuracy", weights=None, better=True, **values):
    return Question(
        name,
        {k: np.atleast_2d(np.asarray(v, dtype=float)) for k, v in values.items()},
        weights,
        higher_is_better=better,
    )


def test_one_run_each_is_the_paired_interval():
    random = np.random.default_rng(0)
    a, b = random.normal(size=40), random.normal(0.2, 1, 40)
    row, found = compare([asked(a=a, b=b)])[0], difference(list(a), list(b))
    assert (row.low, row.high, row.before, row.after) == (found.low, found.high, found.before, found.after)
    assert (row.model, row.against, row.n, row.runs, row.test) == ("b", "a", 40, (1, 1), "sign-flip permutation")


def test_what_neither_model_ever_did_is_not_seen():
    """No difference of refusals is shown, and there were none: the reader is told which."""
    nothing, some = [0.0] * 12, [0.0] * 11 + [1.0]
    none = Question("refused", {name: np.array([nothing]) for name in "ab"}, unit="%")
    one = Question("refused", {"a": np.array([nothing]), "b": np.array([some])}, unit="%")
    few = Question("refused", {name: np.array([nothing[:3]]) for name in "ab"}, unit="%")
    assert [row.verdict for row in compare([one, none, few])] == [NONE_SHOWN, "not seen in 12", "not seen in 3"]
    assert compare([asked(a=nothing, b=nothing)])[0].verdict == NONE_SHOWN, "a number of no share"


def test_verdicts_and_their_order():
    rise, fall = [0.0] * 10 + [1.0] * 2, [1.0] * 10 + [0.0] * 2
    rows = compare([
        asked("same", a=rise, b=rise), asked("up", a=rise, b=[1.0] * 12), asked("loss", better=False, a=rise, b=[1.0] * 12),
        asked("length", better=None, a=fall, b=[0.0] * 12), asked("few", a=[0.0] * 5, b=[1.0] * 5),
    ])  # fmt: skip
    assert [(row.name, row.verdict) for row in rows] == [
        ("loss", "worse"), ("up", "better"), ("length", "lower"), ("same", NONE_SHOWN), ("few", TOO_FEW)
    ]  # fmt: skip
    assert rows[-1].p is rows[-1].corrected is rows[-1].low is None
    assert rows[3].needed is None  # equal on every item: nothing to show
    assert rows[1].test == "exact McNemar"
    assert rows[1].p == pytest.approx(2 / 2**10)
    assert rows[1].corrected == pytest.approx(4 * 2 / 2**10)
    assert json.loads(json.dumps(rows[0].as_dict()))["verdict"] == "worse"


def test_a_single_finding_among_many_questions_is_not_called():
    """Six of six gained: p = 1/32 alone, and 1 of twenty tables like it would show one by chance."""
    found = asked("found", a=[0.0] * 6, b=[1.0] * 6)
    random = np.random.default_rng(1)
    noise = [asked(f"n{i}", a=random.normal(size=30), b=random.normal(size=30)) for i in range(3)]
    assert compare([found])[0].verdict == "better"
    row = next(row for row in compare([found, *noise]) if row.name == "found")
    assert row.verdict == TOO_FEW  # six items cannot show anything among four rows
    assert row.low > 0
    assert row.corrected == pytest.approx(4 / 32)


def test_a_test_alone_calls_nothing_when_the_interval_reaches_zero():
    random = np.random.default_rng(9)
    for _ in range(400):
        row = compare([asked(a=np.zeros(8), b=random.normal(0.8, 1, 8))], rounds=300)[0]
        if row.p <= 0.05 and row.low <= 0:
            break
    assert row.p <= 0.05
    assert row.low <= 0 <= row.high
    assert row.verdict == NONE_SHOWN


def test_the_first_model_is_the_one_compared_with():
    rows = compare([asked(base=[0.0] * 12, b=[1.0] * 12, c=[0.0] * 12)])
    assert [(row.model, row.against, row.verdict) for row in rows] == [
        ("b", "base", "better"),
        ("c", "base", NONE_SHOWN),
    ]


def test_weights_make_ratios():
    """Summed losses over tokens: (4 + 1) / 10 - (10 + 1) / 10."""
    weights = np.array([8.0, 2.0] * 6)
    row = compare([asked("loss", weights, False, a=[10.0, 1.0] * 6, b=[4.0, 1.0] * 6)])[0]
    assert (row.before, row.after) == (pytest.approx(1.1), pytest.approx(0.5))
    assert row.difference == pytest.approx(-0.6)
    assert row.verdict == "better"


def test_what_is_needed_is_as_many_times_the_items_as_the_square_of_the_distance():
    random = np.random.default_rng(2)
    noise = random.normal(size=200)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    row = compare([asked(a=np.zeros(200), b=0.1 + noise)])[0]
    assert row.verdict == NONE_SHOWN
    assert row.needed == 785  # (2.8016 / 0.1)^2 = 784.9
    assert row.detectable == pytest.approx(2.8016 / 200**0.5, rel=1e-3)


def test_values_that_are_no_numbers_name_model_and_item():
    with pytest.raises(RunError, match=sentence("measured not finite", where="b, item 2", value="nan")):
        compare([asked(a=[0.0] * 6, b=[0, 0, float("nan"), 0, 0, 0])])


def test_a_metric_brings_its_own_title():
    found = Question("length", {"a": np.zeros((1, 6)), "b": np.ones((1, 6))}, **about_metric("length"))
    assert compare([found])[0].verdict == "higher"


# --- Equal models are rarely called different -----------------------------------------------------------


KINDS = {
    "0/1": lambda random, skill: (random.random(len(skill)) < skill).astype(float),
    "numbers": lambda random, skill: skill + random.normal(0, 0.3, len(skill)),
    "skewed": lambda random, skill: skill + random.lognormal(0, 1, len(skill)),
}


@pytest.mark.medium
@pytest.mark.parametrize("kind", KINDS)
def test_two_exchangeable_models_are_called_different_in_at_most_5_percent_of_200(kind):
    """Of 200 fresh pairs at most 10, and of five times 200 exchanges of one table at most 10 on average: by chance, single ones
    of these have up to 15, which is why the check tells its interval."""
    random = np.random.default_rng(3)
    skill = random.random(80)
    table = asked(a=KINDS[kind](random, skill), b=KINDS[kind](random, skill))
    alarms = [false_alarms(table, seed=1000 * i, rounds=400) for i in range(5)]
    assert sum(found.value for found in alarms) / len(alarms) <= 10 / 200
    assert all(found.low <= LEVEL and found.n == 200 for found in alarms)
    fresh = sum(
        compare([asked(a=KINDS[kind](random, skill), b=KINDS[kind](random, skill))], seed=i, rounds=1000)[0].verdict
        != NONE_SHOWN
        for i in range(200)
    )
    assert fresh <= 10


@pytest.mark.medium
@pytest.mark.parametrize("kind", KINDS)
def test_of_all_exchanges_at_most_5_percent_are_called_different(kind):
    """All 512 of ten items (the other 512 are these with the models' names exchanged): chance has no part in it."""
    random = np.random.default_rng(4)
    one, other = (KINDS[kind](random, np.full(10, 0.5)) for _ in range(2))
    if kind == "0/1":
        other = 1 - one  # else hardly any exchange changes anything
    called = 0
    for way in range(2**9):
        swap = (way >> np.arange(10) & 1).astype(bool)
        table = asked(a=np.where(swap, other, one), b=np.where(swap, one, other))
        called += compare([table], seed=way, rounds=500)[0].verdict != NONE_SHOWN
    assert 0 < called <= LEVEL * 2**9


def test_the_check_says_how_far_200_draws_can_be_trusted(monkeypatch):
    """Wilson's limits of 11 in 200, by hand: (0.055 + 0.009604 ± 1.96 sqrt(0.00025988 + 0.00004802)) / 1.019208."""
    verdicts = iter(["better"] * 11 + [NONE_SHOWN] * 189)
    row = compare([asked(a=[0.0] * 8, b=[1.0] * 8)])[0]
    monkeypatch.setattr(compare_module, "compare", lambda *_: [replace(row, verdict=next(verdicts))])
    found = false_alarms(asked(a=[0.0] * 8, b=[1.0] * 8))
    assert (found.value, found.n) == (0.055, 200)
    assert (found.low, found.high) == (pytest.approx(0.0310, abs=1e-4), pytest.approx(0.0957, abs=1e-4))


def runs_of(random, runs, items, spread, skill, gap=0.0):
    """Values of several runs: each has a skill of its own and noise on every item."""
    return skill + gap + random.normal(0, spread, (runs, 1)) + random.normal(0, 0.5, (runs, items))


@pytest.mark.medium
@pytest.mark.parametrize(("runs", "spread"), [(3, 0.3), (5, 0.1), (2, 0.2)])
def test_runs_of_one_recipe_are_rarely_called_different(runs, spread):
    """Between two sets of runs of the same recipe, chance in training is all there is: pooling must count it. Of 1,200 tables
    with two runs each 6.3 % were called different, with three 4.0 %: Satterthwaite's freedom is a little high for two."""
    random = np.random.default_rng(4)
    called = naive = 0
    for i in range(200):
        skill = random.normal(0, 1, 60)
        a, b = (runs_of(random, runs, 60, spread, skill) for _ in range(2))
        called += compare([asked(a=a, b=b)], seed=i, rounds=500)[0].verdict != NONE_SHOWN
        naive += compare([asked(a=a.mean(0), b=b.mean(0))], seed=i, rounds=500)[0].verdict != NONE_SHOWN
    assert called <= (14 if runs == 2 else 10)
    assert naive > 40 or spread < 0.2  # taking the runs for one would call far too many different


def test_several_runs_find_a_difference_that_is_there():
    random = np.random.default_rng(5)
    skill = random.normal(0, 1, 200)
    a, b = runs_of(random, 4, 200, 0.05, skill), runs_of(random, 4, 200, 0.05, skill, gap=0.5)
    row = compare([asked(a=a, b=b)])[0]
    assert row.verdict == "better"
    assert row.runs == (4, 4)
    assert row.low < 0.5 < row.high
    assert row.test == "Student's t over runs and items"


@pytest.mark.parametrize(("runs", "spread"), [(2, 0.2), (3, 0.3), (6, 0.05)])
def test_the_interval_over_runs_and_items_holds_the_truth_about_as_often_as_it_says(runs, spread):
    """Truth: both recipes' mean over all runs and items, so skills differ by gaps of mean 0.3 that are drawn anew."""
    random = np.random.default_rng(8)
    hits = 0
    for i in range(200):
        skill = random.normal(0, 1, 60)
        a = runs_of(random, runs, 60, spread, skill)
        b = runs_of(random, runs, 60, spread, skill + random.normal(0.3, 0.4, 60))
        row = compare([asked(a=a, b=b)], seed=i, rounds=500)[0]
        hits += row.low <= 0.3 <= row.high
    assert 0.91 <= hits / 200 <= 0.995


def test_when_runs_vary_more_items_do_not_help():
    random = np.random.default_rng(6)
    skill = random.normal(0, 1, 400)
    row = compare([asked(a=runs_of(random, 3, 400, 0.5, skill), b=runs_of(random, 3, 400, 0.5, skill))])[0]
    assert (row.verdict, row.needed) == (NONE_SHOWN, None)


def test_runs_in_which_nothing_was_ever_seen_leave_room_for_what_was_not():
    """Two runs of 16 items, never right: z² / (16 + z²) = 0.1936 may be, either way; all right after: not for certain."""
    none, all_ = np.zeros((2, 16)), np.ones((2, 16))
    (row,) = compare([asked(a=none, b=none)])
    assert (row.low, row.high, row.p, row.verdict) == (
        pytest.approx(-0.1936, abs=1e-4), pytest.approx(0.1936, abs=1e-4), 1.0, NONE_SHOWN
    )  # fmt: skip
    (row,) = compare([asked(a=none, b=all_)])
    assert row.low == pytest.approx(1 - 2 * 0.1936, abs=1e-4)  # Wilson's 16 of 16, from -1 to 1
    assert row.p == 2.0**-15


def test_of_all_exchanges_of_two_models_at_most_one_in_twenty_has_a_p_value_of_5_percent():
    """Not a sample of exchanges but all of them, so that chance has no part in it: the tests below a verdict are exact."""
    ways = 1 - 2 * ((np.arange(2**10)[:, None] >> np.arange(10)) & 1)
    numbers = np.random.default_rng(2).lognormal(0, 1, 10)
    assert np.mean([sign_flip(way * numbers) <= LEVEL for way in ways]) <= LEVEL
    right = np.mean([mcnemar((way > 0).tolist(), (way < 0).tolist()) <= LEVEL for way in ways])
    assert 0 < right <= LEVEL
