"""`luthier sample` at the command line: what it prints, and that `luthier data` and `train` take what it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from luthier.cli import run

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
USUAL = ["--threads", "1", "--device", "cpu", "--dtype", "float32", "--max_new_tokens", "8", "--samples", "3"]


@pytest.fixture
def sample(tmp_path, tiny_folder, capsys, monkeypatch):
    """Run the command line on ten prompts; returns (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"who is {i}?", "completion": "cat"} for i in range(10)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def go(*arguments, command=("sample", str(tiny_folder), "rows.jsonl", *USUAL)):
        status = run([*command, *arguments])
        return status, *capsys.readouterr()

    return go


def test_one_json_object_whose_keys_are_documented(sample):
    status, out, _ = sample("--reward", "length:4", "--reward", "-0.5*ended", "--json")
    result = json.loads(out)
    assert status == 0
    section = PAGE.split("## What `--json` prints")[1]
    documented = {
        key
        for line in section.splitlines()
        if line.startswith("| `")
        for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert set(result) == documented
    assert result["parts"]["ended"]["weight"] == -0.5
    assert Path("sampled.jsonl").is_file()


def test_the_judge_of_training_is_no_option_here(sample):
    """Nothing would read it."""
    status, _, err = sample("--reward", "length:4", "--reward.judge", "exact")
    assert status == 2
    assert "--reward.judge" in err


def test_what_a_person_sees(sample):
    status, out, _ = sample("--reward", "length:4", "--reward", "0*ended", "--keep-above", "0.1", "--top_p", "0.9")
    assert status == 0
    for words in (
        "the best of several answers", "mean over 10 prompts; estimated without bias from all 3 answers of each",
        "part of the reward", "worst of 3, after its reward", "10, 3 answers each", "rows in sampled.jsonl",
    ):  # fmt: skip
        assert words in out
    assert re.search(r"^ +1 +\d\.\d{3} +\d\.\d{3} … \d\.\d{3}", out, re.MULTILINE)


def test_nothing_kept_is_said(sample):
    status, out, _ = sample("--reward", "ended", "--keep-above", "1")
    assert status == 0
    assert "10 best not above 1" in out
    assert "nothing; the answers stay in sampled.partial.jsonl for another try" in out
    status, out, err = sample("--reward", "length:4", "--samples", "3")
    assert "resuming: the answers to 10 of 10 prompts are there already" in err
    assert "kept     10 of 10 prompts" in out


def test_one_answer_needs_no_side_by_side(sample):
    status, out, _ = sample("--reward", "length:4", "--samples", "1", "--temperature", "0")
    assert status == 0
    assert "worst" not in out


@pytest.mark.medium
@pytest.mark.parametrize(
    ("write", "layout"), [("sft", "prompt_completion"), ("pairs", "preference"), ("rankings", "ranking")]
)
def test_luthier_data_reads_it(sample, write, layout):
    assert sample("--reward", "regex:[a-f]", "--reward", "length:7", "--write", write)[0] == 0
    status, out, _ = sample("--json", command=("data", "sampled.jsonl"))
    assert (status, json.loads(out)["layout"]) == (0, layout)


@pytest.mark.medium
def test_luthier_train_learns_from_it(sample, tiny_folder):
    assert sample("--reward", "length:4")[0] == 0
    status, out, _ = sample(
        "--model", str(tiny_folder), "--train.steps", "1", "--eval.samples", "0", "--no-eval.forgetting", "--out", "run",
        "--threads", "1", "--device", "cpu", "--dtype", "float32", "--json", command=("train", "sampled.jsonl"),
    )  # fmt: skip
    assert (status, json.loads(out)["steps"]) == (0, 1)
    status, out, _ = sample(
        command=("sample", "run", "rows.jsonl", *USUAL, "--reward", "length:4", "--out", "more.jsonl")
    )
    assert status == 0
    assert "in more.jsonl" in out


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ([], 2, "--reward: no reward given; give one, such as exact, or python:FILE:FUNCTION"),
        (["--reward", "exat"], 2, "reward 'exat': unknown reward 'exat'; did you mean 'exact'?"),
        (["--reward", "exact", "--samples", "0"], 2, "--samples: 0 is not in the range x>=1"),
        (["--reward", "exact", "--write", "pair"], 2, "--write: unknown value 'pair'; did you mean 'pairs'?"),
        (["--reward", "exact", "--keep-abov", "1"], 2, "unknown option '--keep-abov'; did you mean '--keep-above'?"),
        (
            ["--reward", "python:bad.py:score"],
            1,
            "reward 'python:bad.py:score': ValueError: no (bad.py:1), given an answer to",
        ),
    ],
)
def test_what_is_wrong_in_one_line(sample, arguments, status, line):
    Path("bad.py").write_text("def score(answers): raise ValueError('no')\n")
    got, out, err = sample(*arguments)
    assert (got, out) == (status, "")
    assert line in err.splitlines()[-1]
