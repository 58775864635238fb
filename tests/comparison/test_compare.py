"""Comparisons from names to a table: rows, suites and records; pooled runs; what cannot be compared."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from luthier.comparison.compare import CompareOptions, compare_all
from luthier.comparison.row_questions import MeasuredRun, loss_question
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message, Origin
from luthier.runs.held_out_rows import MeasuredRow
from luthier.tune.train import run
from sentences import sentence

SETTINGS = {"device": "cpu", "dtype": "float32", "threads": 1}
CASES = ", ".join(f"{{prompt: 'who {i}?', checks: [{{contains: cat}}]}}" for i in range(8))
SUITE = f"""\
sampling: {{max_new_tokens: 3}}
groups:
  - name: says cat
    cases: [{CASES}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_folder):
    """Rows, a suite, and three runs of one recipe that learn to say cat."""
    folder = tmp_path_factory.mktemp("compare")
    rows = [{"prompt": f"who {i}?", "completion": "cat"} for i in range(24)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite.yaml").write_text(SUITE)
    for seed in range(3):
        run(resolve({**SETTINGS, "model": str(tiny_folder), "data.path": [str(folder / "rows.jsonl")], "seed": seed,
                     "out": str(folder / f"s{seed}"), "train.lr": 3e-2, "train.epochs": 3, "eval.samples": 0,
                     "eval.forgetting": False, "eval.rows": 1}))  # fmt: skip
    return folder


@pytest.fixture
def wish(place, tiny_folder):
    """Compare the tiny model with its runs; settings may be changed."""

    def make(*sides, data=True, **changes):
        given = SETTINGS | ({"eval.rows": 12, "eval.samples": 8, "eval.max_new_tokens": 3} if data else {})
        config = resolve({**given, "data.path": [str(place / "rows.jsonl")] if data else []})
        labelled = tuple(side.replace("BASE", str(tiny_folder)).replace("RUN", str(place / "s")) for side in sides)
        return replace(CompareOptions(labelled, config, given), **changes)

    return make


def by_name(result):
    return {(row["name"], row["model"]): row for row in result["rows"]}


@pytest.mark.medium
def test_rows_before_and_after_tuning(wish, tmp_path, place):
    result = compare_all(wish("base=BASE", "tuned=RUN0", out=tmp_path / "items.jsonl", check=True))
    rows = by_name(result)
    assert rows["loss", "tuned"]["verdict"] == "better"
    assert rows["loss", "tuned"]["title"] == "loss per token"
    assert (rows["loss", "tuned"]["n"], rows["accuracy", "tuned"]["n"]) == (12, 8)
    assert rows["accuracy", "tuned"]["after"] == 1.0
    assert rows["accuracy", "tuned"]["test"] == "exact McNemar"
    assert result["gains"][0]["texts"].keys() == {"base", "tuned"} or result["gains"][0]["question"] == "loss"
    assert set(result["false_alarms"]) == {row["name"] for row in result["rows"]}
    assert all(found["low"] <= 0.05 and found["n"] == 200 for found in result["false_alarms"].values())
    items = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    losses = [item for item in items if item["question"] == "loss"]
    assert len(losses) == 12
    assert losses[0]["place"].startswith(str(place / "rows.jsonl"))
    total = sum(item["weight"] for item in losses)
    assert sum(item["values"]["tuned"][0] for item in losses) / total == pytest.approx(rows["loss", "tuned"]["after"])


def test_rows_that_a_run_learned_from_are_said(wish, capsys):
    compare_all(wish("base=BASE", "tuned=RUN0"))
    said = capsys.readouterr().err
    assert "learned from 20 of these 24 prompts, and from near copies of 0, in " in said  # four are held out
    assert "rows.jsonl: compare on rows that it has not seen" in said


def test_rows_that_a_run_learned_from_are_said_by_another_name_too(wish, place, tmp_path, capsys):
    copy = tmp_path / "test.jsonl"
    rows = [json.loads(line) for line in (place / "rows.jsonl").read_text().splitlines()]
    fresh = [{"prompt": f"where {i}?", "completion": "dog"} for i in range(12)]
    copy.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:12], *fresh]))
    found = wish("base=BASE", "tuned=RUN0")
    compare_all(replace(found, config=resolve({**found.given, "data.path": [str(copy)]})))
    said = capsys.readouterr().err
    count = re.search(r"learned from (\d+) of these 24 prompts", said)
    assert count
    assert 8 <= int(count[1]) <= 12


def test_where_what_a_run_learned_cannot_be_read_it_is_said(wish, place, tmp_path, capsys):
    moved = (place / "rows.jsonl").rename(tmp_path / "rows.jsonl")
    try:
        found = wish("base=BASE", "tuned=RUN0")
        compare_all(replace(found, config=resolve({**found.given, "data.path": [str(moved)]})))
    finally:
        moved.rename(place / "rows.jsonl")
    assert "learned from these rows is not known: " in capsys.readouterr().err


def test_a_name_that_is_wrong_is_told_before_any_model_answers(wish, monkeypatch):
    monkeypatch.setattr(
        "luthier.comparison.row_questions.open_model", lambda *a, **k: pytest.fail("a model was opened")
    )
    with pytest.raises(InputError, match=sentence("unknown name", kind="model", name="nobody")):
        compare_all(wish("base=BASE", "other=nobody"))


def test_the_loss_is_that_of_transformers(wish, tiny_folder, tmp_path):
    """Row by row: the summed loss of the answer's tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    compare_all(wish("base=BASE", "tuned=RUN0", out=tmp_path / "items.jsonl"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_folder), AutoTokenizer.from_pretrained(tiny_folder)
    for line in (tmp_path / "items.jsonl").read_text().splitlines():
        item = json.loads(line)
        if item["question"] != "loss":
            continue
        row = int(item["place"].rpartition(":")[2]) - 1
        prompt = f"<|im_start|>user\nwho {row}?<|im_end|>\n<|im_start|>assistant\n"
        first, answer = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, "cat<|im_end|>"))
        logp = model(torch.tensor([first + answer])).logits[0].log_softmax(-1).detach()
        nats = -sum(float(logp[len(first) - 1 + k, token]) for k, token in enumerate(answer))
        assert item["values"]["base"][0] == pytest.approx(nats, abs=1e-4)
        assert item["weight"] == len(answer)


@pytest.mark.medium
def test_runs_are_pooled(wish):
    result = compare_all(wish("base=BASE", "tuned=RUN0,RUN1,RUN2"))
    row = by_name(result)["loss", "tuned"]
    assert row["runs"] == (1, 3)
    assert row["test"] == "Student's t over runs and items"
    assert [len(names) for names in result["models"].values()] == [1, 3]
    singles = [by_name(compare_all(wish("base=BASE", f"tuned=RUN{i}")))["loss", "tuned"]["after"] for i in range(3)]
    assert row["after"] == pytest.approx(np.mean(singles), abs=1e-5)


@pytest.mark.medium
def test_a_suite_for_all(wish, place):
    result = compare_all(wish("base=BASE", "one=RUN0", "two=RUN1", data=False, suite=place / "suite.yaml"))
    rows = by_name(result)
    assert set(rows) == {("all cases", "one"), ("all cases", "two")}
    assert rows["all cases", "one"]["after"] == 1.0
    assert rows["all cases", "one"]["verdict"] == "better"
    assert result["regressions"] == []
    assert "✗ does not contain 'cat'" in result["gains"][0]["texts"]["base"]


def test_different_vocabularies_are_measured_by_the_byte():
    examples = [
        Chat(messages=(Message("user", "q"), Message("assistant", "abcd")), origin=Origin("f", i)) for i in range(6)
    ]
    one = MeasuredRun({i: MeasuredRow(i, 8.0, 4) for i in range(6)}, "t")
    other = MeasuredRun({i: MeasuredRow(i, 4.0, 2) for i in range(1, 6)}, "t")
    question = loss_question({"a": [one], "b": [other]}, [one, other], examples)[0].question
    assert question.title == "loss per byte"
    assert question.weights.tolist() == [4.0] * 5
    assert question.values["b"].tolist() == [[4.0] * 5]
    same = loss_question({"a": [one], "b": [one]}, [one, one], examples)[0].question
    assert (same.title, same.weights.tolist()) == ("loss per token", [4.0] * 6)


# --- Records of benchmarks --------------------------------------------------------------------------------


def records(folder, task, right, card=None, /, **more):
    """Records as `luthier eval` writes them: document i is right or not."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"doc": i, "question": f"q{i}", "choices": ["x", "y"], "gold": 1, "pick": int(hit), "logp": [-1.0, -2.0], "acc": float(hit),
         "cut": 0, **more} for i, hit in enumerate(right)
    ]  # fmt: skip
    (folder / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if card:
        (folder / f"{task}.json").write_text(json.dumps(card))


def tasks(wish, tmp_path, names="all", *sides):
    return compare_all(wish(*(sides or (str(tmp_path / "a"), str(tmp_path / "b"))), data=False, tasks=names))


def test_tasks_on_the_same_documents(wish, tmp_path):
    records(tmp_path / "a" / "evals", "boolq", [0, 1] * 20)
    records(tmp_path / "b", "boolq", [1, 1] * 20)
    records(tmp_path / "b", "other", [1])
    result = tasks(wish, tmp_path)
    assert [(row["name"], row["verdict"], row["before"], row["after"]) for row in result["rows"]] == [
        ("boolq acc", "better", 0.5, 1.0)
    ]
    assert result["rows"][0]["p"] == pytest.approx(2 / 2**20)
    assert result["gains"][0] | {"place": ""} == {
        "question": "boolq acc", "model": "b", "against": "a", "before": 0.0, "after": 1.0, "place": "", "prompt": "q0",
        "reference": "y", "texts": {"a": "x", "b": "y"},
    }  # fmt: skip


def test_texts_are_compared_by_bits_per_byte(wish, tmp_path):
    for name, logp in (("a", -8.0), ("b", -4.0)):
        folder = tmp_path / name
        folder.mkdir()
        lines = [
            {"doc": i, "logp": logp * (1 + i % 2), "tokens": 3, "words": 2, "bytes": 4 * (1 + i % 2)} for i in range(12)
        ]
        (folder / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = tasks(wish, tmp_path)["rows"][0]
    assert (row["name"], row["verdict"]) == ("text bits_per_byte", "better")
    assert (row["before"], row["after"]) == (pytest.approx(2 / np.log(2)), pytest.approx(1 / np.log(2)))


def test_only_documents_that_all_have(wish, tmp_path, capsys):
    records(tmp_path / "a", "boolq", [1] * 20)
    records(tmp_path / "b", "boolq", [1] * 15)
    assert tasks(wish, tmp_path, "boolq")["rows"][0]["n"] == 15
    assert "boolq: 15 of 20 documents were measured for all" in capsys.readouterr().err


def test_records_that_do_not_fit_are_refused(wish, tmp_path):
    card = {"files": {"x/boolq.jsonl": "hash"}, "shots": 0}
    records(tmp_path / "a", "boolq", [1] * 6, card)
    with pytest.raises(
        InputError,
        match=sentence("no benchmark records", where="b", command="luthier eval …/b --tasks NAMES …"),
    ):
        tasks(wish, tmp_path)
    with pytest.raises(
        InputError,
        match=sentence(
            "no benchmark records",
            command="luthier eval …/b --tasks boolq,piqa --data-dir FOLDER, "
            "luthier eval …/b --tasks mmlu --data-dir FOLDER --shots 5 --chat",
        ),
    ):
        tasks(wish, tmp_path, "boolq,piqa,mmlu-5shot-chat")
    records(tmp_path / "b", "boolq", [1] * 6, card | {"files": {"y/boolq.jsonl": "hash"}})
    assert tasks(wish, tmp_path)["rows"]
    with pytest.raises(InputError, match=sentence("no records of task", task="boolqq", fix="did you mean 'boolq'…")):
        tasks(wish, tmp_path, "boolqq")
    records(tmp_path / "b", "boolq", [1] * 6, card | {"shots": 5})
    with pytest.raises(
        InputError, match=sentence("measured differently", task="boolq", key="shots", difference=": 5, not 0")
    ):
        tasks(wish, tmp_path)
    for key, values, words in (
        (
            "dtype",
            ("float32", "bfloat16"),
            sentence("measured differently", key="dtype", difference=": bfloat16, not float32"),
        ),
        ("spare", (True, False), sentence("measured differently", key="examples")),
    ):
        for side, value in zip("ab", values, strict=True):
            records(tmp_path / side, "boolq", [1] * 6, card | {key: value})
        with pytest.raises(InputError, match=words):
            tasks(wish, tmp_path)
    records(tmp_path / "a", "boolq", [1] * 6, card)
    records(tmp_path / "b", "boolq", [1] * 6, card, question="another")
    with pytest.raises(InputError, match=sentence("another document", number=0, task="boolq")):
        tasks(wish, tmp_path)
    (tmp_path / "b" / "boolq.jsonl").write_text('{"doc": 0, "question": "q0"}\n')
    with pytest.raises(InputError, match=sentence("records without a value", task="boolq", what="'acc'")):
        tasks(wish, tmp_path)
    for odd in ({"pick": 7}, {"pick": "x"}, {"gold": -1}):
        records(tmp_path / "b", "boolq", [1] * 6, card)
        records(tmp_path / "a", "boolq", [1] * 6, card, **odd)
        with pytest.raises(
            InputError, match=sentence("records without a value", task="boolq", what="a choice number …")
        ):
            tasks(wish, tmp_path)
    records(tmp_path / "a", "boolq", [1] * 6, card)
    (tmp_path / "b" / "boolq.jsonl").write_text('{"doc": "0"}\n')
    with pytest.raises(InputError, match=sentence("record without its number", where="boolq.jsonl:1")):
        tasks(wish, tmp_path)


def test_a_runs_own_benchmarks_are_no_tasks(wish, tmp_path):
    """--tasks leaves benchmarks-before.jsonl, several tasks in one file, in the same folder."""
    for side in "ab":
        records(tmp_path / side, "boolq", [0, 1] * 6)
        records(tmp_path / side, "benchmarks-after", [1] * 6, task="piqa")
    assert {row["name"] for row in tasks(wish, tmp_path)["rows"]} == {"boolq acc"}


def test_a_suite_of_benchmarks_is_its_columns_and_their_average(wish, tmp_path):
    """Each by the metric that counts: of MMLU the plain mean of the subjects, not of the documents."""
    names = ["arc_challenge-25shot", "hellaswag-10shot", "mmlu-5shot", "truthfulqa_mc2"]
    keys = ["acc_norm", "acc_norm", "acc_subjects", "mc2"]

    def compared():
        return compare_all(wish(str(tmp_path / "a"), str(tmp_path / "b"), data=False, tasks="leaderboard"))

    def measured(side, name, right):
        records(tmp_path / side, name, right)
        path = tmp_path / side / f"{name}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for i, line in enumerate(lines):
            line |= {"acc_norm": 1 - line["acc"], "pick_norm": 0, "mc2": line["acc"] / 2, "group": "abbb"[i % 4]}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    for side, right, count in (("a", [0, 1, 1, 1] * 6, 4), ("b", [1, 0, 1, 1] * 6, 3)):
        for name in names[:count]:
            measured(side, name, right)
    with pytest.raises(
        InputError,
        match=sentence(
            "no records of task",
            task="truthfulqa_mc2",
            fix="…luthier eval … --tasks leaderboard --data-dir…",
        ),
    ):
        compared()
    measured("b", names[3], [1, 0, 1, 1] * 6)
    result = compared()
    spelt_before = compare_all(wish(str(tmp_path / "a"), str(tmp_path / "b"), data=False, suite=Path("leaderboard")))
    assert spelt_before["rows"] == result["rows"]
    rows = {row["name"]: row for row in result["rows"]}
    titles = [f"{name} {key}" for name, key in zip(names, keys, strict=True)]
    assert rows.keys() == {*titles, "leaderboard average"}
    assert [rows[title]["before"] for title in titles] == pytest.approx([1 / 4, 1 / 4, 1 / 2, 3 / 8])
    assert [rows[title]["after"] for title in titles] == pytest.approx([1 / 4, 1 / 4, (1 + 2 / 3) / 2, 3 / 8])
    average = rows["leaderboard average"]
    assert average["before"] == pytest.approx(np.mean([rows[title]["before"] for title in titles]))
    assert average["after"] == pytest.approx(np.mean([rows[title]["after"] for title in titles]))
    assert (average["n"], average["low"] < average["difference"] < average["high"]) == (96, True)
    changed = [one for one in result["gains"] if one["question"] == titles[2]]
    assert (changed[0]["before"], changed[0]["after"]) == (0.0, 1.0)


def test_groups_of_tasks_are_their_tasks(wish, tmp_path):
    for side in "ab":
        for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
            records(tmp_path / side, name, [0, 1] * 6)
    found = tasks(wish, tmp_path, "truthfulqa,truthfulqa_mc1")
    assert {row["name"] for row in found["rows"]} == {"truthfulqa_mc1 acc", "truthfulqa_mc2 acc"}
    with pytest.raises(InputError, match=sentence("no records of task", task="arc_easy")):
        tasks(wish, tmp_path, "arc")


def test_words_are_compared_by_their_perplexity_too(wish, tmp_path):
    for side, logp in (("a", -2.0), ("b", -1.0)):
        records(tmp_path / side, "lambada", [0, 1] * 6, None, logp=logp)
    rows = {row["name"]: row for row in tasks(wish, tmp_path)["rows"]}
    assert rows.keys() == {"lambada acc", "lambada log_perplexity"}
    found = rows["lambada log_perplexity"]
    assert (found["before"], found["after"], found["verdict"]) == (2.0, 1.0, "better")


@pytest.mark.parametrize("name", ["data.limit", "eval.rows", "text.system"])
def test_settings_of_rows_are_refused_where_no_rows_are_measured(wish, name):
    for way in ({"tasks": "all"}, {"suite": Path("suite.yaml")}):
        with pytest.raises(InputError, match=sentence("only for rows of data", where=f"--{name}")):
            compare_all(replace(wish("a=BASE", "b=BASE", data=False, **way), given={**SETTINGS, name: 1}))


def test_one_way_to_compare_must_be_named(wish, tmp_path):
    with pytest.raises(InputError, match=sentence("one of data and suite and tasks", fault="nothing to compare on")):
        compare_all(wish("a=BASE", "b=BASE", data=False))
    with pytest.raises(
        InputError, match=sentence("one of data and suite and tasks", fault="more than one thing to compare on")
    ):
        compare_all(wish("a=BASE", "b=BASE", tasks="all"))
    with pytest.raises(InputError, match=sentence("run given twice", where="b")):
        compare_all(wish("a=BASE", "b=RUN0,RUN0"))


def test_rows_that_have_no_loss_per_text(wish, tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 8)
    made = wish("a=BASE", "b=BASE")
    config = made.config.model_copy(
        update={"data": made.config.data.model_copy(update={"path": (str(tmp_path / "pairs.jsonl"),)})}
    )
    with pytest.raises(InputError, match=sentence("rows that nothing is answered for", kind="preference")):
        compare_all(replace(made, config=config))


@pytest.mark.medium
def test_asking_again_and_a_metric_of_the_users(wish, tmp_path):
    (tmp_path / "mine.py").write_text("def cats(answers):\n    return [answer.count('cat') for answer in answers]\n")
    own = f"python:{tmp_path / 'mine.py'}:cats"
    asked = wish("base=BASE", "tuned=RUN0")
    config = resolve(asked.config.model_dump(), {"eval.repeat": 2, "eval.metrics": ["auto", own]})
    result = compare_all(replace(asked, config=config))
    rows = {row["name"]: row for row in result["rows"]}
    assert {"accuracy", "macro_f1", "agreement", "paraphrases", "unsupported", own} <= set(rows)
    assert rows["accuracy"]["baseline"] == {"answer": "cat", "share": 1.0}
    assert all(0 <= rows["unsupported"][side] <= 1 for side in ("before", "after"))
    assert rows[own]["after"] > rows[own]["before"]
    assert result["first"] == []  # always the same answer, but so are the references


def test_a_record_with_a_number_that_nothing_measures_is_refused(wish, tmp_path):
    for side in "ab":
        records(tmp_path / side, "boolq", [1] * 6, {"shots": 0})
    path = tmp_path / "b" / "boolq.jsonl"
    first, *rest = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(one) + "\n" for one in [first | {"acc": 1e300}, *rest]))
    with pytest.raises(
        InputError, match=sentence("record value out of range", where="boolq.jsonl:1", key="acc", given="1e+300")
    ):
        tasks(wish, tmp_path)


def test_a_pipe_among_records_is_not_waited_for(wish, tmp_path):
    for side in "ab":
        records(tmp_path / side, "boolq", [0, 1] * 6)
        os.mkfifo(tmp_path / side / "another.jsonl")
    assert {row["name"] for row in tasks(wish, tmp_path)["rows"]} == {"boolq acc"}
