"""Specs become a weighted sum; what is wrong in them is said before anything runs."""

from __future__ import annotations

import os

import pytest

from luthier.config.rewards import RewardConfig
from luthier.core.errors import InputError, RunError
from luthier.rewards.answer import Answer
from luthier.rewards.specs import parse
from sentences import sentence

SETTINGS = RewardConfig()
ANSWERS = [
    Answer("one?", "1", "1", 3, True, ()),
    Answer("two?", "it is 2", "2", 15, False, ()),
    Answer("three?", "no", "3", 40, True, ()),
]


def test_the_total_is_the_weighted_sum_of_the_parts():
    with parse(["exact", "2*contains", "-0.5*length:10", "1e-1 * ended"], SETTINGS, None) as rewards:
        scored = rewards.score(ANSWERS)
    assert scored.parts == {
        "exact": [1, 0, 0], "contains": [1, 1, 0], "length:10": [1, 0.5, 0], "ended": [1, 0, 1],
    }  # fmt: skip
    assert scored.total == pytest.approx([1 + 2 - 0.5 + 0.1, 2 - 0.25, 0.1])
    assert [part.weight for part in rewards.parts] == [1, 2, -0.5, 0.1]


def test_parts_that_were_kept_are_weighed_anew():
    with parse(["3*exact", "0*ended"], SETTINGS, None) as rewards:
        assert rewards.weigh({"exact": [0.5, 1], "ended": [1, 1]}).total == [1.5, 3]


def test_which_parts_need_a_right_answer_and_which_files_decide(tmp_path):
    schema, code = tmp_path / "s.json", tmp_path / "r.py"
    schema.write_text("{}")
    code.write_text("def f(answers): return [0] * len(answers)\n")
    specs = ["exact", "number", "json", f"json:{schema}", f"python:{code}:f", "regex:x"]
    with parse(specs, SETTINGS, None) as rewards:
        assert rewards.referring == ("exact", "number")
        assert rewards.files == (schema, code)


def test_a_reward_model_is_built_by_whoever_can():
    asked = []

    def build(run):
        asked.append(run)
        return lambda answers: [7.0] * len(answers)

    with parse(["0.5*model:runs/judge"], SETTINGS, build) as rewards:
        assert rewards.score(ANSWERS).total == [3.5] * 3
    assert asked == ["runs/judge"]
    with pytest.raises(InputError, match=sentence("no reward models here", where="reward 'model:runs/judge'")):
        parse(["model:runs/judge"], SETTINGS, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [1.0, float("nan"), 0.0],
            sentence(
                "function gave",
                where="reward 'model:m'",
                value="nan",
                opening="two?",
                fix="fix it and run the same command again; nothing else is lost",
            ),
        ),
        ([float("inf"), 1.0, 0.0], sentence("function gave", value="inf", opening="one?")),
        ([1.0, 2.0], sentence("function gave too few", numbers=2, answers=3, opening="one?")),
    ],
)
def test_numbers_that_cannot_be_used(values, message):
    with (
        parse(["model:m"], SETTINGS, lambda run: lambda answers: values) as rewards,
        pytest.raises(RunError, match=message),
    ):
        rewards.score(ANSWERS)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], sentence("no reward given")),
        (
            ["exat"],
            sentence("unknown name", where="reward 'exat'", kind="reward", name="exat", fix="did you mean 'exact'?"),
        ),
        (
            ["2*lenght:40"],
            sentence(
                "unknown name", where="reward '2*lenght:40'", kind="reward", name="lenght", fix="did you mean 'length'?"
            ),
        ),
        (
            ["zzz"],
            sentence(
                "unknown name",
                kind="reward",
                name="zzz",
                fix="known: contains, ended, exact, json, length, model, number, python, regex",
            ),
        ),
        (["exact", "2*exact"], sentence("reward given twice", where="reward 'exact'")),
        (["model"], sentence("reward model needs a run")),
        (["python:only.py"], sentence("reward python needs both")),
        (["python:absent.py:f"], sentence("no such file", file="absent.py")),
    ],
)
def test_specs_that_are_wrong(specs, message):
    with pytest.raises(InputError, match=message):
        parse(specs, SETTINGS, None)


def test_a_wrong_spec_leaves_no_process_behind(tmp_path):
    code, mark = tmp_path / "r.py", tmp_path / "pid"
    code.write_text(f"import os\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ndef f(answers): return []\n")
    with pytest.raises(InputError, match=sentence("unknown name", kind="reward")):
        parse([f"python:{code}:f", "exat"], SETTINGS, None)
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
