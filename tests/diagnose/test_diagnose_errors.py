"""A run's errors: shares before and after, examples, the way back to the training rows, a run beside an earlier one."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from hashlib import sha256

import pytest
import yaml

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.diagnose import error_sources
from luthier.diagnose import errors as app_errors
from luthier.diagnose.before_after import compare_runs
from luthier.diagnose.errors import errors
from luthier.diagnose.run_data import read_answers
from luthier.evals.detectors.answer import Finding
from luthier.runs import held_out_rows
from luthier.runs.folder import read_run
from luthier.runs.held_out_rows import ERRORS
from luthier.tune import verify, write_report
from sentences import sentence


@dataclass(frozen=True)
class Kind:
    """What the analysis reads of a category."""

    title: str
    meaning: str = "what it means"
    rule: str = "how it is told"
    fix: str = "rewrite"


KINDS = {"shout": Kind("shouting"), "empty": Kind("no answer", fix="drop"), "blue": Kind("says blue", fix="correct")}


def shouting(answered, task):
    """A detector whose results can be seen at a glance: capitals are shouting, nothing is empty."""
    out = []
    if not answered.answer:
        out.append(Finding("empty", "there is no text"))
    if answered.answer.isupper():
        out.append(Finding("shout", "in capitals", (0, len(answered.answer))))
    return out


@pytest.fixture
def kinds(monkeypatch):
    """Detectors of this test's own, so that it does not hang on the rules of the real ones."""
    for module in (app_errors, error_sources):
        monkeypatch.setattr(module, "detect", shouting)
    monkeypatch.setattr(app_errors, "CATEGORIES", KINDS)


def rows_file(path, answers, prompts=None):
    """Training data, one row a line."""
    prompts = prompts or [
        f"question {i} about {random.Random(i).choice(['cats', 'dogs', 'trees'])}?" for i in range(len(answers))
    ]
    with open(path, "w", encoding="utf-8") as handle:
        for prompt, answer in zip(prompts, answers, strict=True):
            handle.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")
    return path


def make_run(folder, data, held_out, before, after, *, losses=(), method="sft", references=None, prompts=None, **extra):
    """A finished run as `luthier train` leaves it, without training one. `held_out` is the file of held-out rows."""
    folder.mkdir(parents=True)
    config = resolve({"method": method, "data.path": [str(data)], "data.eval": [str(held_out)], "seed": 3})
    (folder / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    known = {str(path): sha256(path.read_bytes()).hexdigest() for path in (data, held_out)}
    (folder / "lineage.json").write_text(json.dumps({"inputs": {"data": known}}))
    (folder / "result.json").write_text("{}")
    (folder / "evals").mkdir()
    asked = [json.loads(line) for line in held_out.read_text().splitlines()]
    for stage, answers in (("before", before), ("after", after)):
        with open(folder / "evals" / f"{stage}.jsonl", "w") as handle:
            for row, answer in enumerate(answers):
                record = {
                    "row": row,
                    "loss": 1.0,
                    "units": 2,
                    "prompt": asked[row]["prompt"],
                    "reference": asked[row]["completion"],
                }
                handle.write(json.dumps(record | {"answer": answer} | extra) + "\n")
            handle.write(json.dumps({"general": [1], "prompt_ids": [1], "logp": -1.0, "tokens": 1}) + "\n")
    with open(folder / "losses.jsonl", "w") as handle:
        for step, rows in enumerate(losses, 1):
            handle.write(json.dumps({"step": step, "rows": rows}) + "\n")
    return folder


@pytest.fixture
def run(tmp_path):
    """20 held-out rows: the base shouts 15 times, the tuned model 3 times and is silent once."""
    train = rows_file(
        tmp_path / "train.jsonl",
        ["calm answer number " + "abcdefghij"[i % 10] * (i + 1) for i in range(28)] + ["LOUD", "LOUDER"],
    )
    test = rows_file(tmp_path / "test.jsonl", [f"reference {i}" for i in range(20)])
    before = [f"NO {letter}" for letter in "ABCDEFGHIJKLMNO"] + [f"fine {i}" for i in range(5)]
    after = ["OH NO"] * 3 + [""] + [f"well {i}" for i in range(16)]
    return make_run(tmp_path / "run", train, test, before, after)


def test_shares_before_and_after_are_counted_by_hand(run, kinds):
    result = errors(run)
    rows = {row["name"]: row for row in result["rows"]}
    # 'blue' was not found; the most frequent after comes first, and what says least last: nothing tells what is right here
    assert list(rows) == ["shout", "empty", "sound"]
    assert (rows["sound"]["before"], rows["sound"]["after"]) == (0.25, 0.8)
    assert (rows["shout"]["before"], rows["shout"]["after"]) == (0.75, 0.15)
    assert (rows["empty"]["before"], rows["empty"]["after"]) == (0.0, 0.05)
    assert rows["shout"]["verdict"] == rows["sound"]["verdict"] == "better"
    assert rows["empty"]["verdict"] == "no difference shown"  # one answer of twenty
    assert result["answers"] == 20 and result["bad"] == "anything found"


def test_examples_name_the_answer_and_the_nearest_training_rows(run, kinds):
    shout = errors(run)["categories"][0]
    assert shout["name"] == "shout" and shout["answers"] == 3
    assert [example["row"] for example in shout["examples"]] == [0, 1, 2]
    first = shout["examples"][0]
    assert first["after"] == "OH NO" and first["before"] == "NO A" and first["span"] == (0, 5)
    assert first["where"].endswith("test.jsonl:1")
    assert first["nearest"][0]["where"].endswith("train.jsonl:1")  # the same question stands there
    assert shout["training"]["rows"] == 2
    assert [item["where"].rpartition("/")[2] for item in shout["training"]["first"]] == [
        "train.jsonl:29",
        "train.jsonl:30",
    ]


def test_records_hold_every_answer_with_what_was_found(run, kinds):
    result = errors(run)
    lines = [json.loads(line) for line in (run / "errors" / "records.jsonl").read_text().splitlines()]
    assert result["records"] == str(run / "errors" / "records.jsonl")
    assert len(lines) == 20
    assert set(lines[0]) == {
        "row", "file", "line", "prompt", "reference", "before", "after", "before_findings", "after_findings", "before_bad",
        "bad", "bad_means", "slices",
    }  # fmt: skip
    assert lines[3]["after_findings"] == [{"category": "empty", "why": "there is no text", "span": None}]
    assert lines[3]["before_findings"][0]["span"] == [0, 4]
    assert [line["bad"] for line in lines] == [True] * 4 + [False] * 16
    assert [line["before_bad"] for line in lines] == [True] * 15 + [False] * 5
    assert {line["bad_means"] for line in lines} == {"anything found"}


def test_labels_are_bad_when_wrong_and_make_slices(tmp_path, kinds):
    labels = ["red", "green"] * 30
    train = rows_file(tmp_path / "train.jsonl", labels)
    test = rows_file(tmp_path / "test.jsonl", ["red", "green"] * 15)
    after = ["red"] * 30  # every 'green' is wrong
    result = errors(make_run(tmp_path / "run", train, test, ["green"] * 30, after))
    rows = {row["name"]: row for row in result["rows"]}
    assert (rows["wrong"]["before"], rows["wrong"]["after"]) == (0.5, 0.5)
    worst = result["slices"][0]
    assert (worst["kind"], worst["value"], worst["n"], worst["rate"], worst["rest"]) == ("label", "green", 15, 1.0, 0.0)
    assert worst["clear"]


@pytest.mark.parametrize("answers", [("green", "red"), ("A", "b")], ids=["labels", "text"])
def test_the_report_has_the_rows_that_errors_says(tmp_path, answers):
    """With the real detectors: the same rows, p-values corrected for as many."""
    labels = ["red", "green"] * 30 if answers[1] == "red" else [f"a sentence about number {i}" for i in range(60)]
    train = rows_file(tmp_path / "train.jsonl", labels)
    test = rows_file(tmp_path / "test.jsonl", labels[:30])
    run = make_run(tmp_path / "run", train, test, [answers[0]] * 25 + ["Blue"] * 5, [answers[1]] * 30)
    rows = errors(run)["rows"]
    folder, config = read_run(run)
    found = write_report.errors_section(held_out_rows.read(folder), config)
    assert [row for row in rows if row["name"] == "sound"] == [found.sound.row]
    assert [category.row for category in found.categories] == [row for row in rows if row["name"] != "sound"]
    assert found.correctness_known == (answers[1] == "red")
    assert ("wrong" in [row["name"] for row in rows]) == (answers[1] == "red")
    old = [{k: v for k, v in line.items() if k not in ("before_bad", "bad_means")} for line in folder.records(ERRORS)]
    folder.write_records(ERRORS, old)
    assert "wrong" not in [
        category.row["name"] for category in write_report.errors_section(held_out_rows.read(folder), config).categories
    ]


def test_a_column_with_few_values_makes_slices(tmp_path, kinds):
    """Of medquad, where all rows stand in one file, this is where an answer comes from."""
    train = rows_file(tmp_path / "train.jsonl", [f"calm answer to row {i}" for i in range(12)])
    test = tmp_path / "test.jsonl"
    with open(test, "w") as handle:
        for i in range(30):
            more = {"source": "NIH" if i % 2 else "CDC", "id": i, "all": "one", "score": 0.5 + i % 2, "tags": [i % 2]}
            handle.write(
                json.dumps({"prompt": f"question {i}?", "completion": f"calm words of row {i}", **more}) + "\n"
            )
    run = make_run(tmp_path / "run", train, test, ["fine"] * 30, ["OH NO", "well"] * 15)
    result = errors(run)
    assert {part["kind"] for part in result["slices"]} & {"source", "id", "all", "score", "tags"} == {"source"}
    worst = next(part for part in result["slices"] if part["kind"] == "source")
    assert (worst["value"], worst["n"], worst["rate"], worst["rest"], worst["clear"]) == ("CDC", 15, 1.0, 0.0, True)
    line = json.loads((run / "errors" / "records.jsonl").read_text().splitlines()[1])
    assert line["slices"]["source"] == "NIH"


def test_labels_that_were_taken_for_others_are_counted(tmp_path, kinds):
    train = rows_file(tmp_path / "train.jsonl", ["red", "green", "blue"] * 20)
    test = rows_file(tmp_path / "test.jsonl", ["red", "green", "blue"] * 4)
    after = ["red", "red", "blue"] * 3 + [
        "red",
        "blue",
        "GREY",
    ]  # green as red three times, as blue once; blue as GREY once
    run = make_run(tmp_path / "run", train, test, ["red"] * 12, after)
    result = errors(run)
    assert result["bad"] == "wrong answer"
    assert result["confusions"][0] == {"reference": "green", "answer": "red", "answers": 3}
    assert {(c["reference"], c["answer"]) for c in result["confusions"]} == {
        ("green", "red"),
        ("green", "blue"),
        ("blue", "GREY"),
    }
    wrong = result["categories"][0]
    assert (wrong["name"], wrong["answers"], wrong["training"]) == ("wrong", 5, None)
    assert wrong["examples"][0]["why"] == "should be blue"  # the one with a finding beside
    assert [item["row"] for item in errors(run, "wrong")["shown"]] == [1, 4, 7, 10, 11]


def test_wrong_is_no_category_where_answers_are_text(run, kinds):
    with pytest.raises(InputError, match=sentence("no telling which are wrong")):
        errors(run, "wrong")


def test_conflicting_and_doubtful_training_rows_are_named(tmp_path, kinds):
    prompts = [f"what is {i}?" for i in range(20)] + ["what is 3?"]
    train = rows_file(tmp_path / "train.jsonl", [f"it is number {i}" for i in range(20)] + ["it is not"], prompts)
    test = rows_file(tmp_path / "test.jsonl", ["x y"] * 6)
    losses = [[[row, 90.0 if row == 7 else 1.0, 10] for row in range(21)] for _ in range(3)]
    training = errors(make_run(tmp_path / "run", train, test, ["a"] * 6, ["b"] * 6, losses=losses))["training"]
    assert training["conflicts"]["groups"] == 1 and training["conflicts"]["rows"] == 2
    assert [place.rpartition(":")[2] for place in training["conflicts"]["first"][0]["where"]] == ["4", "21"]
    assert training["suspects"]["first"][0]["where"].endswith("train.jsonl:8")


def test_at_most_so_many_training_rows_are_looked_at(run, kinds, monkeypatch):
    monkeypatch.setattr(error_sources, "MOST_ROWS", 10)
    result = errors(run)
    assert result["training"]["looked_at"] == 10 and result["training"]["rows"] == 30
    assert any("10 of 30 were looked at" in note for note in result["notes"])
    assert result["training"] == errors(run)["training"]  # the same ten each time


def test_a_category_shows_what_has_it_and_what_is_rid_of_it(run, kinds):
    result = errors(run, "shout")
    assert [item["row"] for item in result["shown"]] == [0, 1, 2]
    assert [item["row"] for item in result["gone"]] == list(range(3, 15))
    with pytest.raises(
        InputError,
        match=sentence("unknown name", where="--category", kind="category", name="shot", fix="did you mean 'shout'?"),
    ):
        errors(run, "shot")


def test_old_records_are_read_and_a_note_says_what_is_missing(run, tmp_path, kinds):
    assert any("how answers ended" in note for note in errors(run)["notes"])
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    new = make_run(tmp_path / "new", train, test, ["a"] * 20, ["b"] * 20, ended="stop", logps=[-0.5])
    assert errors(new)["notes"] == []
    assert read_answers(new).complete


def test_detectors_are_told_how_answers_ended(tmp_path, kinds, monkeypatch):
    seen = []
    monkeypatch.setattr(app_errors, "detect", lambda answered, task: seen.append(answered) or [])
    train, test = rows_file(tmp_path / "train.jsonl", ["a b"] * 9), rows_file(tmp_path / "test.jsonl", ["c d"] * 2)
    errors(make_run(tmp_path / "run", train, test, ["x", "y"], ["z", "w"], ended="length", logps=[-0.25, -1.5]))
    assert [(a.answer, a.reference, a.row, a.ended, a.logps) for a in seen[2:]] == [
        ("z", "c d", 0, "length", (-0.25, -1.5)), ("w", "c d", 1, "length", (-0.25, -1.5)),
    ]  # fmt: skip


def test_changed_and_missing_data_are_refused(run, tmp_path):
    train = tmp_path / "train.jsonl"
    text = train.read_text()
    train.write_text(text + '{"prompt": "new", "completion": "row"}\n')
    with pytest.raises(InputError, match=sentence("data changed since the run", where="train.jsonl")):
        errors(run)
    train.unlink()
    with pytest.raises(InputError, match=sentence("data of the run gone", where="train.jsonl")):
        errors(run)


@pytest.mark.parametrize("given", ["path", "eval"])
def test_data_from_standard_input_is_refused(run, given):
    config = yaml.safe_load((run / "run.yaml").read_text())
    config["data"][given] = ["-"]
    (run / "run.yaml").write_text(yaml.safe_dump(config))
    (run / "lineage.json").write_text(json.dumps({"inputs": {"data": {"examples": "00"}}}))
    with pytest.raises(InputError, match=sentence("standard input not read again")):
        errors(run)
    with pytest.raises(InputError, match=sentence("standard input gone")):
        verify.resume(run)


def test_runs_that_are_not_finished_or_have_no_answers_are_refused(run, tmp_path):
    with pytest.raises(InputError, match=sentence("not a run directory")):
        errors(tmp_path / "nothing")
    (run / "result.json").unlink()
    with pytest.raises(InputError, match=sentence("unfinished run of errors")):
        errors(run)
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    silent = make_run(tmp_path / "silent", train, test, [], [])
    with pytest.raises(
        InputError,
        match=sentence(
            "no held-out answers", method="sft", fix="train with --eval.samples above 0, on held-out rows with answers"
        ),
    ):
        errors(silent)
    scores = make_run(tmp_path / "scores", train, test, [], [], method="reward")
    with pytest.raises(
        InputError,
        match=sentence(
            "no held-out answers",
            method="reward",
            fix="a reward model scores answers and writes none: look at the policy that learns from it",
        ),
    ):
        errors(scores)
    pairs = make_run(tmp_path / "pairs", train, test, [], [], method="dpo")
    with pytest.raises(
        InputError,
        match=sentence("no held-out answers", method="dpo", fix="`luthier compare … --eval.samples…"),
    ):
        errors(pairs)


def test_a_later_run_is_paired_with_an_earlier_one(run, tmp_path, kinds):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    later = make_run(tmp_path / "later", train, test, ["NO NO"] * 20, ["OH NO"] + ["well"] * 19)
    result = compare_runs(later, run)
    rows = {row["name"]: row for row in result["rows"]}
    assert result["paired"]
    assert (rows["shout"]["before"], rows["shout"]["after"]) == (0.15, 0.05)  # tuned and tuned, not base
    assert rows["sound"]["n"] == 20


def test_pairing_follows_the_prompts_not_the_order(run, tmp_path, kinds):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(test.read_text().splitlines())) + "\n")
    after = list(
        reversed(["OH NO"] * 3 + [""] + [f"well {i}" for i in range(16)])
    )  # the same answer to every prompt as the first run
    later = make_run(tmp_path / "later", train, turned, ["a"] * 20, after)
    result = compare_runs(later, run)
    assert result["paired"]
    assert {(row["difference"], row["verdict"]) for row in result["rows"]} == {(0.0, "no difference shown")}
    assert all(row["low"] == pytest.approx(-row["high"]) and row["low"] < 0 for row in result["rows"])


def test_other_held_out_prompts_give_an_unpaired_interval(run, tmp_path, kinds):
    train = tmp_path / "train.jsonl"
    other = rows_file(tmp_path / "other.jsonl", ["r s"] * 40, [f"another matter {i}" for i in range(40)])
    later = make_run(tmp_path / "later", train, other, ["a"] * 40, ["OH NO"] * 30 + ["well"] * 10)
    result = compare_runs(later, run)
    shout = next(row for row in result["rows"] if row["name"] == "shout")
    assert not result["paired"]
    assert (shout["before"], shout["after"], shout["verdict"]) == (0.15, 0.75, "worse")
    # Newcombe's interval from Wilson's limits of 30 of 40 and 3 of 20, by hand: 0.598, 0.858 and 0.0524, 0.3604
    assert shout["low"] == pytest.approx(0.6 - ((0.75 - 0.598) ** 2 + (0.3604 - 0.15) ** 2) ** 0.5, abs=2e-3)
    assert shout["high"] == pytest.approx(0.6 + ((0.858 - 0.75) ** 2 + (0.15 - 0.0524) ** 2) ** 0.5, abs=2e-3)


def labelled_run(tmp_path, before, after, references=("red", "green") * 12):
    """Held-out answers of a task of labels: as many as there are references, to different prompts."""
    train = rows_file(tmp_path / "train.jsonl", ["red", "green"] * 20)
    test = rows_file(tmp_path / "test.jsonl", list(references))
    return make_run(tmp_path / "run", train, test, before, after)


def test_one_answer_to_all_prompts_is_told_first_and_is_no_success(tmp_path):
    """Half of the answers are right, nothing is wrong with any of them, and the model has learned nothing."""
    result = errors(labelled_run(tmp_path, ["red", "green"] * 12, ["red"] * 24))
    assert [item["name"] for item in result["first"]] == ["same_answer"]
    assert "'red' to 24 of 24 different prompts" in result["first"][0]["text"] and "50%" in result["first"][0]["text"]
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows)[:3] == ["sound", "wrong", "same_answer"]
    assert (rows["sound"]["after"], rows["wrong"]["after"], rows["same_answer"]["after"]) == (0.0, 0.5, 1.0)
    assert rows["same_answer"]["before"] == 0.0
    assert [category["name"] for category in result["categories"]][:2] == ["wrong", "same_answer"]


def test_labels_are_read_from_sentences_and_what_is_wrong_is_not_sound(tmp_path):
    after = ["The answer is red.", "It is green, not red."] * 11 + ["green", "Red or green?"]
    result = errors(labelled_run(tmp_path, ["red", "green"] * 12, after))
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["wrong"]["after"] == pytest.approx(2 / 24)
    assert result["first"] == []


def test_lost_refusals_are_told_before_all_else(tmp_path):
    train = rows_file(tmp_path / "train.jsonl", [f"You can do it in {i} steps, and these are." for i in range(20)])
    test = rows_file(tmp_path / "test.jsonl", [f"A reference for question number {i}." for i in range(8)])
    before = ["I'm sorry, but I can't help with that."] * 3 + [f"Well, here is my answer {i}." for i in range(5)]
    after = [f"First, take tool number {i} and begin." for i in range(8)]
    result = errors(make_run(tmp_path / "run", train, test, before, after))
    assert [(item["name"], item["answers"]) for item in result["first"]] == [("lost_refusal", 3)]
    assert "declined 3 of 8 held-out prompts" in result["first"][0]["text"]
    assert result["rows"][-1]["name"] == "sound"  # nothing tells what is right here
