"""`luthier eval` from files to scores, and on from where it stopped."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from luthier.comparison import benchmark_records as compare_records
from luthier.core.errors import InputError
from luthier.evals.benchmarks import evaluation, files
from luthier.evals.benchmarks.evaluation import BenchmarkOptions, evaluate
from luthier.evals.benchmarks.task_records import TaskRecords
from luthier.evals.benchmarks.tasks import TASKS
from sentences import sentence

LABELS = "ABCD"


def arc(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as handle:
        for i in range(count):
            choices = [{"text": f"the {word} {i}", "label": LABELS[k]} for k, word in enumerate(("cat", "dog", "mat"))]
            question = {"stem": f"Who ran by tree {i}?", "choices": choices}
            handle.write(json.dumps({"question": question, "answerKey": LABELS[i % 3]}) + "\n")


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    arc(folder / "ARC-Challenge-Test.jsonl", 8)
    arc(folder / "ARC-Challenge-Train.jsonl", 30)
    (folder / "test").mkdir()
    (folder / "dev").mkdir()
    for subject in ("anatomy", "virology"):
        for part, count in (("test", 8), ("dev", 5)):
            lines = [f"what is {i} of {subject},one,two,three,four,{LABELS[i % 4]}\n" for i in range(count)]
            (folder / part / f"{subject}_{part}.csv").write_text("".join(lines))
    scenes = [
        {
            "activity_label": "Cats",
            "ctx_a": f"A cat sat on mat {i}.",
            "ctx_b": "it",
            "endings": list("wxyz"),
            "label": i % 4,
        }
        for i in range(14)
    ]
    (folder / "hellaswag_val.jsonl").write_text("".join(json.dumps(scene) + "\n" for scene in scenes))
    truths = [
        {"question": f"who {i}", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0, "c": 0}}
        for i in range(9)
    ]
    (folder / "mc_task.json").write_text(json.dumps(truths))
    return folder


def lines(path: str | Path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.medium
def test_the_leaderboard_from_files_to_its_average(tiny_folder, data, tmp_path):
    result = evaluate(
        str(tiny_folder), BenchmarkOptions(tasks="leaderboard", data_dir=data, out=tmp_path / "out", dtype="float32")
    )
    assert result["shots"] == {"arc_challenge": 25, "hellaswag": 10, "mmlu": 5, "truthfulqa_mc2": 0}
    columns = result["suite"]["columns"]
    assert list(columns) == ["ARC", "HellaSwag", "MMLU", "TruthfulQA"]
    assert result["suite"]["average"]["value"] == pytest.approx(sum(c["value"] for c in columns.values()) / 4)
    assert columns["MMLU"]["value"] == result["tasks"]["mmlu"]["acc_subjects"]["value"]
    assert (
        columns["ARC"]
        == {"task": "arc_challenge", "shots": 25, "metric": "acc_norm"} | result["tasks"]["arc_challenge"]["acc_norm"]
    )
    for metrics in result["tasks"].values():
        for estimate in metrics.values():
            assert set(estimate) == {"value", "low", "high", "n"}
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert set(result["subjects"]["mmlu"]) == {"anatomy", "virology"}
    assert result["chat_template"] is False and result["template"] is None
    assert result["truncated"]["arc_challenge"] == 8  # 25 examples do not fit in 512 tokens of bytes
    assert result["documents"] == 8 + 14 + 16 + 9
    assert result["documents_per_second"] > 0 and result["peak_memory_bytes"] > 0 and result["seconds"] > 0
    assert set(result["files"]["mmlu"]) == {
        f"{p}/{s}_{p}.csv" for p in ("test", "dev") for s in ("anatomy", "virology")
    }
    assert "drawn from the measured documents" in result["notes"]["hellaswag"]
    assert result["notes"]["mmlu"] == "2 of 57 subjects"
    assert list(result["notes"]) == ["hellaswag", "mmlu"]
    records = lines(tmp_path / "out" / "arc_challenge-25shot.jsonl")
    assert sorted(r["doc"] for r in records) == list(range(8))
    card = json.loads((tmp_path / "out" / "arc_challenge-25shot.json").read_text())
    assert card["shots"] == 25 and card["metrics"] == result["tasks"]["arc_challenge"] and card["weights"]


def test_the_same_command_goes_on_where_it_stopped(tiny_folder, data, tmp_path, monkeypatch):
    asked = BenchmarkOptions(
        tasks="arc_challenge", shots=2, data_dir=data, out=tmp_path / "out", dtype="float32", tokens=256
    )
    whole = evaluate(str(tiny_folder), BenchmarkOptions(**{**vars(asked), "out": tmp_path / "whole"}))
    path = tmp_path / "out" / "arc_challenge-2shot.jsonl"

    class PowerCut(Exception):
        pass

    original, seen = TaskRecords.add, []

    def add(self, record):
        if len(seen) == 4:
            with open(path, "ab") as half:  # of a line reaches the disk
                half.write(json.dumps(record).encode()[:25])
            raise PowerCut
        seen.append(record["doc"])
        original(self, record)

    monkeypatch.setattr(TaskRecords, "add", add)
    with pytest.raises(PowerCut):
        evaluate(str(tiny_folder), asked)
    monkeypatch.setattr(TaskRecords, "add", original)
    assert path.read_text().count("\n") == 4
    result = evaluate(str(tiny_folder), asked)
    assert result["documents"] == 4
    assert result["tasks"] == whole["tasks"]
    records = {r["doc"]: r for r in lines(path)}
    assert len(lines(path)) == len(records) == 8
    expected = {r["doc"]: r for r in lines(tmp_path / "whole" / "arc_challenge-2shot.jsonl")}
    assert records == expected  # every bit
    assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    again = evaluate(str(tiny_folder), asked)
    assert again["documents"] == 0 and again["documents_per_second"] is None
    assert again["tasks"] == result["tasks"]


@pytest.mark.medium
@pytest.mark.parametrize("task", ["mmlu", "hellaswag", "perplexity"])
def test_killed_after_any_record_every_bit_is_as_if_never_killed(tiny_folder, data, tmp_path, monkeypatch, task):
    """Windows of five documents, cut at every place: the records of each are packed as if there had been no kill."""
    monkeypatch.setattr("luthier.evals.benchmarks.measure.WINDOW", 5)
    monkeypatch.setattr("luthier.evals.benchmarks.measure.WINDOW_CHARACTERS", 150)
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": f"the cat sat on mat {i} by tree " * (i + 1)}) + "\n" for i in range(7))
    )
    asked = BenchmarkOptions(
        tasks=task, data_dir=data, out=tmp_path / "out", dtype="float32", tokens=64, texts=(str(texts),)
    )
    opened = evaluation.open_model(str(tiny_folder), dtype="float32")
    monkeypatch.setattr(evaluation, "open_model", lambda *a, **k: opened)
    whole = evaluate(str(tiny_folder), asked)
    path = Path(whole["records"][task])
    kept = path.read_bytes().splitlines(keepends=True)
    card = json.loads(path.with_suffix(".json").read_text())
    unfinished = {name: value for name, value in card.items() if name not in ("metrics", "subjects", "records", "sum")}
    for count in range(len(kept)):
        path.write_bytes(b"".join(kept[:count]) + kept[count][: count % 7])
        path.with_suffix(".json").write_text(json.dumps(unfinished))
        again = evaluate(str(tiny_folder), asked)
        assert path.read_bytes() == b"".join(kept)
        assert again["tasks"] == whole["tasks"] and again["documents"] == len(kept) - count


@pytest.mark.parametrize(
    ("name", "damage", "measured", "compared"),
    [
        ("jsonl", "cut", "records changed", "records changed"),
        ("jsonl", "emptied", "records changed", "no benchmark records"),
        ("jsonl", "changed", "records changed", "records changed"),
        ("jsonl", "gone", "records gone", "no benchmark records"),
        ("json", "cut", "not a file of eval", "summary of records changed"),
        ("json", "emptied", "not a file of eval", "summary of records changed"),
        ("json", "changed", "line changed", "line changed"),
        ("json", "gone", "not a file of eval", "settings of records gone"),
    ],
)
def test_damaged_records_are_refused_and_not_believed(tiny_folder, data, tmp_path, name, damage, measured, compared):
    asked = BenchmarkOptions(tasks="hellaswag", data_dir=data, out=tmp_path / "out", dtype="float32", limit=4)
    evaluate(str(tiny_folder), asked)
    path = tmp_path / "out" / f"hellaswag.{name}"
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        changed = content.replace(b'"acc": 0.0', b'"acc": 1.0', 1).replace(b'"shots": 0', b'"shots": 1')
        path.write_bytes({"cut": content[: len(content) // 2], "emptied": b"", "changed": changed}[damage])
        assert path.read_bytes() != content
    with pytest.raises(InputError, match=sentence(measured)):
        evaluate(str(tiny_folder), asked)
    sides = {"a": [str(tmp_path / "out")], "b": [str(tmp_path / "out")]}
    with pytest.raises(InputError, match=sentence(compared)):
        compare_records.questions(sides, ["hellaswag"])


def test_an_unfinished_record_with_one_digit_changed(tiny_folder, data, tmp_path):
    path = tmp_path / "piqa.jsonl"
    TaskRecords(path, {"task": "piqa"}, "m").add({"doc": 0, "acc": 1.0})
    path.write_text(path.read_text().replace("1.0", "0.0"))
    with pytest.raises(
        InputError,
        match=sentence(
            "line changed",
            where="piqa.jsonl:1",
            fix="put it back from a copy, or remove it and the other files of its name, to measure again",
        ),
    ):
        TaskRecords(path, {"task": "piqa"}, "m")


def test_a_limit_is_a_beginning_that_a_larger_limit_goes_on_with(tiny_folder, data, tmp_path):
    def run(limit):
        return evaluate(
            str(tiny_folder), BenchmarkOptions(tasks="mmlu", data_dir=data, out=tmp_path, limit=limit, dtype="float32")
        )

    assert run(3)["documents"] == 6  # of each of the two subjects
    more = run(5)
    assert more["documents"] == 4 and more["tasks"]["mmlu"]["acc"]["n"] == 10
    less = run(2)
    assert less["documents"] == 0 and less["tasks"]["mmlu"]["acc"]["n"] == 4


def test_records_of_something_else_are_not_gone_on_with(tiny_folder, data, tmp_path, capsys):
    asked = BenchmarkOptions(tasks="arc_challenge", data_dir=data, out=tmp_path / "out", dtype="float32")
    assert evaluate(str(tiny_folder), asked)["documents"] == 8
    chat = evaluate(str(tiny_folder), BenchmarkOptions(**{**vars(asked), "chat": True}))
    assert chat["documents"] == 8 and chat["chat_template"] is True and chat["template"] == "chat"
    assert (tmp_path / "out" / "arc_challenge-chat.jsonl").is_file()
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    (other / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert evaluate(str(other), asked)["documents"] == 8
    assert "was measured with other weights: it is measured again" in capsys.readouterr().err
    arc(data / "ARC-Challenge-Test.jsonl", 11)
    assert evaluate(str(other), asked)["documents"] == 11
    assert "was measured with other files" in capsys.readouterr().err


def test_examples_that_are_drawn_otherwise_are_other_records(data, tmp_path, capsys):
    """A suite draws none too much for HellaSwag, so its examples are not those of the task alone."""
    task, material = TASKS["hellaswag"], files.from_folder(TASKS["hellaswag"], data, 10)
    alone, suite = (
        evaluation.about_task(evaluation.TaskFiles(one, 10, material), {}) for one in (task, replace(task, spare=False))
    )
    TaskRecords(tmp_path / "hellaswag.jsonl", suite, "m")
    (tmp_path / "hellaswag.jsonl").write_text('{"doc": 0}\n')
    assert TaskRecords(tmp_path / "hellaswag.jsonl", suite, "m").found.keys() == {0}
    assert not TaskRecords(tmp_path / "hellaswag.jsonl", alone, "m").found
    assert "was measured with other spare" in capsys.readouterr().err


def test_a_file_that_eval_did_not_write_is_left_alone(tiny_folder, tmp_path, monkeypatch):
    """The records of piqa are called as its data may be: --out and --data-dir of one folder would empty it."""
    monkeypatch.setattr(evaluation, "open_model", lambda *_, **__: pytest.fail("the model was loaded"))
    row = json.dumps({"goal": "g", "sol1": "a", "sol2": "b", "label": 0}) + "\n"
    (tmp_path / "piqa.jsonl").write_text(row * 3)
    asked = BenchmarkOptions(tasks="piqa", data_dir=tmp_path, out=tmp_path)
    with pytest.raises(InputError, match=sentence("not a file of eval", where="piqa.jsonl")):
        evaluate(str(tiny_folder), asked)
    (tmp_path / "piqa.json").write_text('{"rows": 3}')
    with pytest.raises(InputError, match=sentence("not a file of eval")):
        TaskRecords(tmp_path / "piqa.jsonl", {"task": "piqa"}, "m")
    assert (tmp_path / "piqa.jsonl").read_text() == row * 3
    (tmp_path / "piqa.jsonl").unlink()
    with pytest.raises(InputError, match=sentence("not a file of eval", where="piqa.json")):
        TaskRecords(tmp_path / "piqa.jsonl", {"task": "piqa"}, "m")
    assert (tmp_path / "piqa.json").read_text() == '{"rows": 3}'


@pytest.mark.parametrize(
    ("line", "told", "values"),
    [
        ("no json", "not json", {}),
        ("[]", "record of another form", {"key": "this", "wanted": "a valid dictionary", "given": "a list"}),
        ('{"doc": "0"}', "record of another form", {"key": "'doc'", "wanted": "a valid integer"}),
        ('{"question": "q"}', "record lacks", {"key": "doc"}),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, told, values):
    path = tmp_path / "piqa.jsonl"
    TaskRecords(path, {"task": "piqa"}, "m")
    path.write_text(f'{{"doc": 0}}\n{line}\n')
    with pytest.raises(InputError, match=sentence(told, where="piqa.jsonl:2", fix="put it back …", **values)):
        TaskRecords(path, {"task": "piqa"}, "m")


def test_texts_of_ones_own(tiny_folder, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat\n" * 40)
    (tmp_path / "b.jsonl").write_text('{"text": "a dog ran"}\n{"text": "by the tree"}\n')
    texts = (str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl"))
    result = evaluate(
        str(tiny_folder), BenchmarkOptions(tasks="perplexity", texts=texts, out=tmp_path / "out", dtype="float32")
    )
    found = result["tasks"]["perplexity"]
    assert set(found) == {"token_perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"}
    assert found["token_perplexity"]["n"] == 3 and found["token_perplexity"]["value"] > 1
    assert set(result["files"]["perplexity"]) == set(texts)


def test_a_text_without_blanks_is_one_word_that_no_perplexity_holds(tiny_folder, tmp_path):
    (tmp_path / "a.txt").write_text("猫坐在垫子上" * 60)
    asked = BenchmarkOptions(
        tasks="perplexity", texts=(str(tmp_path / "a.txt"),), out=tmp_path / "out", dtype="float32"
    )
    result = evaluate(str(tiny_folder), asked)
    found = result["tasks"]["perplexity"]
    assert found["word_perplexity"]["value"] is None and found["byte_perplexity"]["value"] > 1
    assert result["notes"]["perplexity"] == "perplexity per word: more than a number holds"
    assert json.loads((tmp_path / "out" / "perplexity.json").read_text())["metrics"] == found


def test_another_text_from_standard_input_is_another_measurement(tiny_folder, tmp_path, monkeypatch):
    asked = BenchmarkOptions(tasks="perplexity", texts=("-",), out=tmp_path, dtype="float32")
    for text, documents in ((b"the cat sat\n", 1), (b"the cat sat\n", 0), (b"a dog ran by\n", 1)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        result = evaluate(str(tiny_folder), asked)
        assert result["documents"] == documents
    assert list(result["files"]["perplexity"]) == ["<stdin>"]


def test_generated_answers_are_recorded(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_NEW_TOKENS", 8)
    rows = [{"question": f"what is {i}", "answer": f"it is\n#### {i}"} for i in range(6)]
    (tmp_path / "gsm8k_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = BenchmarkOptions(tasks="gsm8k", shots=1, data_dir=tmp_path, out=tmp_path / "out", dtype="float32", limit=2)
    result = evaluate(str(tiny_folder), asked)
    assert set(result["tasks"]["gsm8k"]) == {"exact_match", "exact_match_flexible"}
    for record in lines(tmp_path / "out" / "gsm8k-1shot.jsonl"):
        assert {"answer", "gold", "found", "exact_match"} <= set(record)


def test_what_is_wrong_is_found_before_the_model_is_loaded(tiny_folder, data, monkeypatch):
    monkeypatch.setattr(evaluation, "open_model", lambda *_, **__: pytest.fail("the model was loaded"))
    faults = [
        (BenchmarkOptions(), sentence("no task given")),
        (BenchmarkOptions(tasks="arc_challenge"), sentence("no files of task", name="arc_challenge")),
        (BenchmarkOptions(tasks="perplexity"), sentence("task needs texts", name="perplexity")),
        (
            BenchmarkOptions(suite="leaderbord", data_dir=data),
            sentence("unknown name", fix="did you mean 'leaderboard'?"),
        ),
        (BenchmarkOptions(tasks="piqa", data_dir=data), sentence("no file of task", name="piqa")),
        (BenchmarkOptions(tasks="piqa", data_dir=data, hub=True), sentence("hub and folder")),
        (
            BenchmarkOptions(suite="leaderboard", shots=3, data_dir=data),
            sentence("suite has its own shots", where="--shots", suite="leaderboard"),
        ),
        (
            BenchmarkOptions(suite="leaderboard", tasks="mmlu", shots=3, data_dir=data),
            sentence("suite has its own shots", suite="leaderboard"),
        ),
        (
            BenchmarkOptions(tasks="mmlu", shots=6, data_dir=data),
            sentence("too few examples", count=6, found=5, of_subject=" of anatomy"),
        ),
        (
            BenchmarkOptions(tasks="arc_challenge", shots=31, data_dir=data),
            sentence("too few examples", count=31, found=30),
        ),
    ]
    for asked, words in faults:
        with pytest.raises(InputError, match=words):
            evaluate(str(tiny_folder), asked)


def test_a_subject_without_examples_is_found_before_the_model_is_loaded(tiny_folder, data, monkeypatch):
    monkeypatch.setattr(evaluation, "open_model", lambda *_, **__: pytest.fail("the model was loaded"))
    (data / "dev" / "virology_dev.csv").unlink()
    with pytest.raises(InputError, match=sentence("too few examples", count=5, found=0, of_subject=" of virology")):
        evaluate(str(tiny_folder), BenchmarkOptions(suite="leaderboard", data_dir=data))


def test_a_fixed_task_keeps_its_examples(tiny_folder, data, tmp_path, capsys):
    asked = BenchmarkOptions(tasks="truthfulqa", shots=3, data_dir=data, out=tmp_path / "out", limit=2, dtype="float32")
    result = evaluate(str(tiny_folder), asked)
    assert result["shots"] == {"truthfulqa_mc1": 0, "truthfulqa_mc2": 0}
    assert "truthfulqa_mc1 is always measured with 0 examples" in capsys.readouterr().err
