"""A method of the user's own, from the command line: trained with, resumed, refused when it changed, and tried beforehand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from safetensors.torch import load_file

from luthier.cli import run as cli
from whole_runs import WORDS

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_method.py"
PLAIN = """
import torch
from luthier.kernel import Loss, likelihood
from pathlib import Path

(Path(__file__).parent / "ran").touch()

def mine(batch, output):
    \"\"\"Twice the likelihood.\"\"\"
    found = likelihood(batch, output)
    return Loss(2 * found.total, 2 * found.each, found.count)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of its own with rows, in which commands run."""
    monkeypatch.chdir(tmp_path)
    draw, chats, pairs = random.Random(0), [], []
    for i in range(24):
        question = " ".join(draw.choice(WORDS) for _ in range(3)) + f" {i}?"
        chats.append({"prompt": question, "completion": question.split()[0]})
        pairs.append({"prompt": question, "chosen": question.split()[0], "rejected": f"no {draw.choice(WORDS)}"})
    for name, rows in (("chats", chats), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(PLAIN)
    return tmp_path


@pytest.fixture
def train(place, tiny_folder, capsys):
    """Train; what the command printed, its exit status first."""

    def go(method: str, out: str, *more: str, data: str = "chats.jsonl") -> tuple[int, str]:
        status = cli(
            ["train", data, "--method", method, "--out", out, "--model", str(tiny_folder), "--train.steps", "4", "--train.batch", "4",
             "--train.checkpoint", "2", "--eval.rows", "4", "--eval.samples", "2", "--eval.max_new_tokens", "4",
             "--no-eval.forgetting", "--threads", "1", "--device", "cpu", "--dtype", "float32", "--lora.rank", "2", *more]
        )  # fmt: skip
        return status, capsys.readouterr().err

    return go


def bits(run: str):
    found = load_file(Path(run) / "adapter" / "adapter_model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in found.items()}


SAMPLED = ("--reward", "contains", "--rollout.samples", "2", "--rollout.max_new_tokens", "4")


@pytest.mark.medium
@pytest.mark.parametrize(("name", "data", "more"), [("dpo", "pairs.jsonl", ()), ("grpo", "chats.jsonl", SAMPLED)])
def test_a_row_of_one_s_own_is_as_good_as_a_built_in_one(place, train, name, data, more):
    """The same row under a name of one's own gives the same bits: reference, rollouts, rates and schedules included."""
    (place / "rows.py").write_text(f"from luthier.kernel import METHODS\n\ndef mine():\n    return METHODS['{name}']\n")
    assert train("python:rows.py:mine", "own", *more, data=data)[0] == 0
    assert train(name, "built_in", *more, data=data)[0] == 0
    assert bits("own") == bits("built_in")
    results = [json.loads((place / run / "result.json").read_text())["metrics"] for run in ("own", "built_in")]
    assert results[0] == results[1]


@pytest.mark.medium
def test_the_example_s_methods_train_and_are_measured(place, train):
    status, said = train(f"python:{EXAMPLE}:SLIC", "slic", data="pairs.jsonl")
    assert status == 0, said
    result = json.loads((place / "slic" / "result.json").read_text())
    assert {"loss", "accuracy"} <= result["metrics"].keys()
    assert train(f"python:{EXAMPLE}:focal", "focal")[0] == 0
    page = (place / "focal" / "report.html").read_text()
    assert "what the model knows already counts for less" in page, "the first line of the loss's docstring"


@pytest.mark.medium
def test_a_changed_file_is_refused_and_one_that_failed_may_be_fixed(place, train):
    file, later = place / "mine.py", "python:mine.py:mine"
    file.write_text(PLAIN + "\nbefore = mine\ncalls = []\n\ndef mine(batch, output):\n    calls.append(0)\n"
                    "    assert len(calls) < 5, 'the fifth batch'\n    return before(batch, output)\n")  # fmt: skip
    status, said = train(later, "run")
    assert status == 1
    assert "method 'python:mine.py:mine': AssertionError: the fifth batch (mine.py:18); fix it, then run" in said
    file.write_text(PLAIN)
    status, said = train(later, "run")
    assert status == 0, said
    assert "the method was fixed since this run stopped at an error in it: it learns by both" in said
    assert train(later, "whole")[0] == 0
    assert bits("run") == bits("whole"), "what failed changed nothing"
    lineage = json.loads((place / "whole" / "lineage.json").read_text())
    assert list(lineage["inputs"]["method"]) == ["mine.py"]
    file.write_text(PLAIN + "\n")
    status, said = train(later, "whole")
    assert status == 2
    assert "the method changed since this run began (mine.py), so it cannot resume exactly" in said


@pytest.mark.medium
def test_what_reads_a_run_runs_none_of_its_code(place, train, tiny_folder, capsys):
    """Whoever is given a run is not given its author's code: it runs only where it is named."""
    assert train("python:mine.py:mine", "run")[0] == 0
    assert (place / "ran").exists()
    (place / "ran").unlink()
    from luthier.training import method_table as table

    table.OWN_METHODS.clear()  # as in another process
    comparing = ["compare", str(tiny_folder), "run", "--data", "chats.jsonl", "--eval.rows", "2", "--eval.samples", "2"]
    for command in (
        ["errors", "run"],
        ["report", "run"],
        ["merge", "run"],
        ["chat", "run", "--prompt", "a?"],
        comparing,
    ):
        assert cli(command) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert cli(["verify", "run", "--resume"]) == 2
    assert "whose code runs only where it is named; give --method python:mine.py:mine" in capsys.readouterr().err
    assert cli(["verify", "run", "--resume", "--method", "sft"]) == 2
    assert "this run learned by python:mine.py:mine, not by sft" in capsys.readouterr().err
    assert not (place / "ran").exists()
    assert cli(["verify", "run", "--resume", "--method", "python:mine.py:mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_bits"]
    assert (place / "ran").exists()


@pytest.mark.medium
def test_a_method_is_tried_before_anything_is_trained(place, capsys):
    assert cli(["verify", "--method", f"python:{EXAMPLE}:focal", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["holds"] and [one["name"] for one in found["checks"]][:3] == ["micro-batches", "padding", "sharing"]
    assert set(found["checks"][0]) == {"name", "holds", "found", "difference"}
    (place / "wrong.py").write_text(
        "from dataclasses import replace\nfrom luthier.kernel import likelihood\n\n"
        "def mean(batch, output):\n    return replace(likelihood(batch, output), total=-output.logp.mean())\n"
    )
    with pytest.raises(SystemExit, match="1"):
        cli(["verify", "--method", "python:wrong.py:mean"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("FAILS")] == ["micro-batches", "weights"]
    assert lines[-1].startswith("a loss is a sum of terms times batch.weight or batch.tree_weight")
    assert cli(["verify", "--method", "dpo"]) == 0


WRONG = {
    "python:mine.py": "'python' needs a file and a name in it; write python:FILE.py:NAME",
    "python:none.py:mine": "no such file: none.py; check the path",
    "python:mine.py:mien": "unknown method 'mien'; did you mean 'mine'?",
    "python:broken.py:a": "did not load: SyntaxError: '(' was never closed",
    "python:late.py:a": "did not load: NameError: name 'nothing' is not defined (late.py:1); fix the file",
    "python:rows.py:number": "it is int; give a loss, or a Method",
    "python:rows.py:gives": "it gives int, not a Method",
    "python:rows.py:KINDS": "its `example` is not a tuple of kinds of examples; write such as (Chat,)",
    "python:rows.py:SCOPE": "its `scope` is 'steps'; give batch or step",
    "python:rows.py:READS": "its `reads` is not a tuple; write such as",
    "python:rows.py:LOSS": "its `loss` is not a function; give a function of a batch and an output",
    "python:rows.py:VALUE": "a value of each token is the critic's",
    "python:rows.py:TURNED": "its `prepare` may change the rows",
    "python:rows.py:SINGLE": "its `prepare` may change the rows",
    "python:rows.py:SECTION": "its `section` is 'data'; give one of preference, ranking, policy, or none",
}


@pytest.mark.parametrize("method", WRONG)
def test_what_is_no_method_is_said_before_anything_is_read(place, train, method):
    (place / "broken.py").write_text("def a(\n")
    (place / "late.py").write_text("nothing\n")
    (place / "rows.py").write_text(
        "from luthier.kernel import METHODS, Chat, Method, Needs, likelihood\n\nnumber = 3\n\ndef gives():\n    return 3\n\n"
        "SCOPE = Method((Chat,), likelihood, '', scope='steps')\nREADS = Method((Chat,), likelihood, '', reads='train.weigh')\n"
        "LOSS = Method((Chat,), None, '')\nVALUE = Method((Chat,), likelihood, '', needs=Needs(value=True))\n"
        "TURNED = Method((Chat,), likelihood, '', prepare=lambda rows, config: rows[::-1])\nSINGLE = METHODS['kto']\n"
        "KINDS = Method([Chat], likelihood, '')\nSECTION = Method((Chat,), likelihood, '', 'data')\n"
    )
    status, said = train(method, "run", data="absent.jsonl")
    assert status == 2
    assert f"method '{method}': {WRONG[method]}" in said


@pytest.mark.parametrize(("returned", "words"), [
    ("found.total", "it returned Tensor, not a Loss"),
    ("Loss(found.each, found.each, found.count)", "the `total` of its Loss is not one number"),
    ("Loss(found.total.detach(), found.each, found.count)", "the `total` of its Loss has no gradient"),
    ("Loss(found.total, found.each, found.count, metrics={'x': 3.0})", "'x' in the `metrics` of its Loss is not (sum, weight)"),
    ("Loss(found.total, found.total, found.count)", "the `each` of its Loss is not one number for each of the "),
])  # fmt: skip
@pytest.mark.medium
def test_what_a_loss_returns_is_looked_at(place, train, returned, words):
    (place / "odd.py").write_text(
        "from luthier.kernel import Loss, likelihood\n\ndef a(batch, output):\n"
        f"    found = likelihood(batch, output)\n    return {returned}\n"
    )
    status, said = train("python:odd.py:a", "run")
    assert status == 1
    assert words in said


@pytest.mark.medium
def test_what_it_makes_of_trees_needs_no_settings_and_its_errors_are_of_its_file(place, train):
    (place / "trees.py").write_text(
        "from luthier.kernel import Chat, Method, likelihood\n\nSAME = Method((Chat,), likelihood, '', tree=lambda tree, settings: tree)\n"
        "FAILS = Method((Chat,), likelihood, '', tree=lambda tree, settings: 1 / 0)\n"
    )
    assert train("python:trees.py:SAME", "same")[0] == 0
    status, said = train("python:trees.py:FAILS", "fails")
    assert status == 1
    assert "ZeroDivisionError: division by zero (trees.py:4)" in said
    assert "please report" not in said
