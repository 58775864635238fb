"""Asking again: what `eval.repeat` and metrics of the user's add to a run, its files and its page."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.core.types.examples import Chat, Message
from luthier.runs.held_out_rows import AskedAgain
from luthier.tune import repeated_prompts
from luthier.tune import train as app_train
from luthier.tune.evaluator import Evaluator
from luthier.tune.held_out import HeldOut, Measured, from_records, to_records
from luthier.tune.train import run
from sentences import sentence


def chat(question, answer, group=""):
    return Chat((Message("user", question), Message("assistant", answer)), group=group)


@pytest.fixture
def settings(tiny_folder, tmp_path):
    with open(tmp_path / "rows.jsonl", "w") as handle:
        for i in range(40):
            handle.write(json.dumps({"prompt": f"is {i} red?", "completion": "yes" if i % 3 else "no"}) + "\n")
    (tmp_path / "mine.py").write_text("def shouts(answers):\n    return [answer.isupper() for answer in answers]\n")
    return {
        "model": str(tiny_folder), "data.path": [str(tmp_path / "rows.jsonl")], "out": str(tmp_path / "run"),
        "train.batch": 8, "train.tokens": 512, "train.steps": 2, "data.holdout": 0.4, "eval.samples": 8, "lora.rank": 2,
        "threads": 1, "device": "cpu", "dtype": "float32", "train.lr": 1e-2, "eval.max_new_tokens": 4, "eval.repeat": 3,
        "eval.metrics": ["auto", f"python:{tmp_path / 'mine.py'}:shouts"],
    }  # fmt: skip


@pytest.mark.medium
def test_a_run_that_asks_again_with_a_metric_of_the_users(settings, tmp_path):
    own = settings["eval.metrics"][1]
    found = run(resolve(settings))["metrics"]
    assert {"accuracy", "macro_f1", "agreement", "paraphrases", "unsupported", own} <= set(found)
    assert "chrf" not in found
    for name in ("agreement", "paraphrases", "unsupported"):
        assert 0 <= found[name]["before"] <= 1 and found[name]["n"] == found["accuracy"]["n"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "evals" / "after.jsonl").read_text().splitlines()]
    wanted = [line["reference"] for line in lines if "answer" in line]
    assert found["accuracy"]["baseline"] == {"answer": "yes", "share": wanted.count("yes") / len(wanted)}
    again = [line["again"] for line in lines if "again" in line]
    assert len(again) == found["accuracy"]["n"]
    assert all(len(one["samples"]) == 3 and len(one["paraphrases"]) == len(one["answers"]) == 2 for one in again)
    page = (tmp_path / "run" / "report.html").read_text()
    for words in ("agreement of samples, %", "unsupported or wrong, %", "shouts (mine.py)", "always &#39;yes&#39;"):
        assert words in page, words
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert lineage["inputs"]["metrics"] == {str(tmp_path / "mine.py"): sha256(tmp_path / "mine.py")}
    (tmp_path / "mine.py").write_text("def shouts(answers):\n    return [1.0] * len(answers)\n")
    with pytest.raises(InputError, match=sentence("inputs changed", name="metrics")):
        run(resolve(settings))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("python:absent.py:f", sentence("no such file", where="metric 'python:absent.py:f'")),
        ("python:mine.py", sentence("reward python needs both", where="metric 'python:mine.py'")),
        ("rouge", sentence("unknown name", fix="did you mean 'rouge_l'?")),
    ],
)
def test_what_is_no_metric_is_refused_before_anything_is_read(settings, spec, says):
    with pytest.raises(InputError, match=says):
        run(resolve(settings | {"eval.metrics": [spec], "data.path": ["absent.jsonl"]}))


def held_out(rows):
    """(prompt, reference, group) of each row, as they are asked."""
    examples = [chat(*row) for row in rows]
    prompts, references, _ = zip(*rows, strict=True)
    return HeldOut((), tuple(range(len(rows))), prompts, ((1,),) * len(rows), references, examples)


def test_figures_by_hand():
    asked = held_out([("a?", "yes", ""), ("b?", "no", ""), ("c?", "yes", ""), ("d?", "no", "")])
    again = {
        0: AskedAgain(("yes", "yes"), ("A?",), ("yes",)),
        1: AskedAgain(("yes", "no"), ("B?",), ("no",)),
        2: AskedAgain(("no", "no"), ("C?",), ("no",)),
        3: AskedAgain(("It is no.", "No"), ("D?",), ("maybe",)),
    }
    found = repeated_prompts.repeat_figures(asked, ["yes", "yes", "no", "no"], again, ("accuracy",))
    assert found == {
        "agreement": [1.0, 0.0, 1.0, 1.0], "paraphrases": [1.0, 0.0, 1.0, 0.0], "unsupported": [0.0, 0.5, 1.0, 0.0],
    }  # fmt: skip
    assert repeated_prompts.repeat_figures(asked, ["yes"] * 4, {}, ("accuracy",)) == {}


def test_paraphrases_of_the_data_go_before_made_ones():
    asked = held_out(
        [("a?", "yes", "1"), ("say a?", "yes", "1"), ("b?", "no", "2"), ("tell b?", "no", "2"), ("c?", "no", "")]
    )
    again = {0: AskedAgain(("yes",), ("A?",), ("no",))}
    found = repeated_prompts.repeat_figures(asked, ["yes", "no", "no", "no", "yes"], again, ("accuracy",))
    assert found["paraphrases"] == [0.0, 1.0]


def test_records_keep_what_was_asked_again():
    asked = replace(held_out([("a?", "yes", ""), ("b?", "no", "")]))
    again = {1: AskedAgain(("x", "y"), ("B?",), ("z",))}
    measured = Measured(answers=("yes", "no"), ended=("stop", "stop"), logps=((), ()), again=again)
    records = to_records(asked, measured)
    assert from_records(json.loads(json.dumps(records))).again == again


def test_nothing_is_asked_again_unasked():
    evaluator = SimpleNamespace(config=resolve({}))
    assert Evaluator.ask_again(evaluator, held_out([("a?", "yes", "")]), lambda: False, "before") == {}


def test_what_is_told_first_is_warned_of_when_a_run_ends(tmp_path, monkeypatch, capsys):
    """And kept in the result, for the page."""
    told = {"name": "lost_refusal", "text": "the base model declined 3", "answers": 3, "category": "refusal"}
    monkeypatch.setattr(app_train.errors, "record", lambda *given: [told])
    for name in ("outline", "write_report"):
        monkeypatch.setattr(app_train, name, lambda *given: {})
    examples = SimpleNamespace(train=[], test=[], layout="", facts=dict)
    folder, encoded = (
        SimpleNamespace(path=tmp_path / "run", write_json=lambda *given: None),
        SimpleNamespace(train=[]),
    )
    result = {}
    app_train.diagnose_run(
        SimpleNamespace(folder=folder, config=resolve({}), examples=examples, encoded=encoded), result
    )
    assert result["findings"] == [told]
    said = " ".join(capsys.readouterr().err.split())
    assert "the base model declined 3" in said and f"luthier errors {tmp_path / 'run'} --category refusal" in said
