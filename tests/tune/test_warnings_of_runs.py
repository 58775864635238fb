"""What could hardly be learned, or was not, is said: few steps, rewards that tell nothing apart, inputs that changed."""

from __future__ import annotations

import json

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.tune.train import run
from luthier.tune.warnings import equal_rewards, warn_of_critic, warn_of_rollout
from sentences import sentence


@pytest.fixture
def settings(tiny_folder, tmp_path):
    rows = [{"prompt": f"what is {i}?", "completion": f"{i}"} for i in range(24)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes):
        base = {
            "model": str(tiny_folder), "data.path": [str(path)], "out": str(tmp_path / "run"), "train.batch": 4,
            "eval.samples": 0, "eval.forgetting": False, "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32",
        }  # fmt: skip
        if changes.get("method") in ("ppo", "grpo"):
            base |= {"rollout.samples": 3, "rollout.max_new_tokens": 4}
        return resolve(base | {key.replace("__", "."): value for key, value in changes.items()})

    return make


def warnings(capsys):
    return [
        line.removeprefix("warning: ") for line in capsys.readouterr().err.splitlines() if line.startswith("warning")
    ]


@pytest.mark.medium
@pytest.mark.parametrize(
    ("method", "variant"),
    [("grpo", "grpo"), ("grpo", "rloo"), ("grpo", "dapo"), ("grpo", "reinforce++"), ("ppo", "grpo")],
)
def test_rewards_that_tell_no_answers_apart_are_told_at_once_and_at_the_end(settings, capsys, method, variant):
    one = {"rollout__samples": 1} if method == "ppo" else {}
    result = run(
        settings(method=method, policy__variant=variant, reward__use=["regex:^impossible$"], train__steps=2, **one)
    )
    said = warnings(capsys)
    assert result["equal_rewards"] == 1
    assert any(line.startswith("in the first rollout all answers to each prompt got the same reward") for line in said)
    assert said[-1].startswith(
        "nothing was learned: in every group all answers got the same reward; look at answers with "
    )


@pytest.mark.medium
def test_the_share_of_such_groups_is_told_from_half_of_them_on(settings, capsys, tmp_path):
    """By the prompt: odd numbers get rewards that differ, even ones do not."""
    code = tmp_path / "mine.py"
    code.write_text("def odd(prompts):\n    return [i * (int(p[8:-1]) % 2) for i, p in enumerate(prompts)]\n")
    result = run(settings(method="grpo", reward__use=[f"python:{code}:odd"], train__steps=4))
    assert 0 < result["equal_rewards"] < 1
    found = [line for line in warnings(capsys) if "of the groups had the same reward for all answers" in line]
    assert bool(found) == (result["equal_rewards"] >= 0.5)


def test_shares_are_those_of_all_starts_of_a_run():
    assert equal_rewards([{"equal_rewards": 1.0}, {"loss": 1}, {"equal_rewards": 0.5}]) == 0.75
    assert equal_rewards([{"loss": 1}]) is None


@pytest.mark.medium
@pytest.mark.parametrize(
    ("changes", "told"), [({}, True), ({"train__steps": 2}, False), ({"train__batch": 1, "train__epochs": 2}, False)]
)
def test_few_steps_are_told_unless_they_were_asked_for(settings, capsys, changes, told):
    run(settings(**changes))
    found = [line for line in warnings(capsys) if "optimizer step" in line]
    assert bool(found) == told
    if told:
        assert found[0].startswith("5 optimizer steps are few: ")
        assert found[0].endswith("for more, give --train.batch 1, a larger --train.epochs, or more rows")


@pytest.mark.medium
def test_a_finished_stream_whose_rows_changed_is_not_handed_out(settings, tmp_path, capsys):
    config = settings(data__stream=True, train__steps=3, text__max_length=256)
    first = run(config)
    assert run(config) == first
    with open(tmp_path / "rows.jsonl", "a") as handle:  # a stream may grow
        handle.write('{"prompt": "more?", "completion": "yes"}\n')
    assert run(config) == first
    text = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(text.replace('"completion": "5"', '"completion": "6"'))
    with pytest.raises(InputError, match=sentence("first examples changed", count=12)):
        run(config)


@pytest.mark.parametrize("name", ["data__path", "data__eval"])
@pytest.mark.medium
def test_rows_that_changed_are_told_and_the_old_run_is_not_handed_out(settings, tmp_path, name):
    (tmp_path / "test.jsonl").write_text('{"prompt": "a?", "completion": "b"}\n')
    config = settings(train__steps=1, data__eval=[str(tmp_path / "test.jsonl")])
    run(config)
    path = tmp_path / ("rows.jsonl" if name == "data__path" else "test.jsonl")
    path.write_text(path.read_text().replace('"completion": "', '"completion": "never '))
    with pytest.raises(
        InputError,
        match=sentence("inputs changed", name="data", fix="give another --out to start over, or put it back as it was"),
    ):
        run(config)


@pytest.mark.medium
def test_a_reward_that_changed_after_the_run_is_told(settings, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("def length(answers):\n    return [len(a) for a in answers]\n")
    config = settings(method="grpo", reward__use=[f"python:{code}:length"], train__steps=1)
    run(config)
    code.write_text("def length(answers):\n    return [-len(a) for a in answers]\n")
    with pytest.raises(
        InputError,
        match=sentence(
            "inputs changed",
            name="rewards",
            files="…mine.py…",
            fix="give another --out to start over, or put it back as it was; it may be fixed only if the run stopped at an error in it",
        ),
    ):
        run(config)


@pytest.mark.medium
def test_right_answers_that_a_reward_cannot_read_are_told_or_refused(settings, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    text = path.read_text()
    path.write_text(text.replace('"completion": "3"', '"completion": "three"'))
    run(settings(method="grpo", reward__use=["number"], train__steps=1))
    assert any(
        "rows.jsonl:4: reward 'number' cannot read the right answer of 1 of 24 rows, and gives 0" in w
        for w in warnings(capsys)
    )
    path.write_text('{"prompt": "a", "answer": "ten"}\n{"prompt": "b", "answer": "two"}\n')
    with pytest.raises(
        InputError,
        match=sentence(
            "no right answers",
            fault="reward 'number' cannot read the right answer of 2 of 2 rows, and gives 0 to whatever is answered",
        ),
    ):
        run(settings(method="grpo", reward__use=["number"], train__steps=1, out=str(tmp_path / "other")))
    path.write_text('{"prompt": "a", "answer": " "}\n{"prompt": "b", "answer": "two"}\n')
    with pytest.raises(
        InputError, match=sentence("row without right answer", where="rows.jsonl:1", referring="contains")
    ):
        run(settings(method="grpo", reward__use=["contains"], train__steps=1, out=str(tmp_path / "other")))


@pytest.mark.medium
def test_rows_of_a_stream_that_are_held_out_are_told(settings, tmp_path, capsys):
    (tmp_path / "test.jsonl").write_text(
        '{"prompt": "What is  3?", "completion": "x"}\n{"prompt": "b?", "completion": "y"}\n'
    )
    run(settings(data__stream=True, train__steps=6, text__max_length=256, data__eval=[str(tmp_path / "test.jsonl")]))
    told = "the prompts of 1 of 24 rows of the stream are held out too; scores on these will be too good"
    assert told in warnings(capsys)


def test_a_critic_that_misleads_for_long_is_told_once(capsys):
    count = 0
    for explained in (0.1, -3.0, -0.5, -2.0, -2.0, -2.5, -2.0):
        count = warn_of_critic(explained, count)
    assert warnings(capsys) == [
        "the critic predicts the returns worse than their mean does (explained variance -2.5 after 3 rollouts "
        "in a row), so the advantages are mostly its errors; lower --policy.critic_lr, or use --method grpo"
    ]
    assert warn_of_critic(None, 2) == 0


def test_many_cut_answers_are_told_after_the_first_rollout(capsys):
    warn_of_rollout({"ended": 0.25}, first=True)
    warn_of_rollout({"ended": 0.25}, first=False)
    warn_of_rollout({"ended": 0.75}, first=True)
    assert [line.split(";")[0] for line in warnings(capsys)] == [
        "75% of the answers in the first rollout were cut before their end"
    ]
