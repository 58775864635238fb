"""Reports from run directories: made at the end of a run, made again from its files, refused where there is nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from conftest import changed
from luthier.cli import run as cli
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.diagnose.errors import errors
from luthier.report.page.run_report import RewardedAnswer
from luthier.runs.folder import RunFolder, read_run
from luthier.tune import write_report
from luthier.tune.train import run
from sentences import sentence


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    """A run, and one with the same files that says it had another rank."""
    folder = tmp_path_factory.mktemp("runs")
    with open(folder / "rows.jsonl", "w") as handle:
        for i in range(40):
            handle.write(json.dumps({"prompt": f"cat {i}?", "completion": "dog" if i % 2 else "tree"}) + "\n")
    run(resolve({
        "model": str(tiny_folder), "data.path": [str(folder / "rows.jsonl")], "out": str(folder / "a"), "train.batch": 8,
        "train.tokens": 128, "data.holdout": 0.25, "eval.max_new_tokens": 4, "lora.rank": 2, "threads": 1,
        "device": "cpu", "dtype": "float32", "eval.every": 2,
    }))  # fmt: skip
    shutil.copytree(folder / "a", folder / "b")
    settings = folder / "b" / "run.yaml"
    settings.write_text(settings.read_text().replace("rank: 2\n", "rank: 3\n"))
    changed(folder / "b", "run.yaml")
    return folder


@pytest.fixture
def runs(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.medium
def test_a_run_ends_with_its_report_and_its_files_alone_make_it_again(finished, runs, tmp_path):
    again = write_report.write_report([finished / "a"], tmp_path / "again.html")
    assert again.read_bytes() == (finished / "a" / "report.html").read_bytes()
    for unneeded in ("report.html", "checkpoints", "loss.svg"):
        path = runs / "a" / unneeded
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert write_report.write_report([runs / "a"]) == runs / "a" / "report.html"
    assert len((runs / "a" / "report.html").read_bytes()) > 10_000


@pytest.mark.medium
def test_a_view_has_what_the_run_measured(runs):
    folder, config = read_run(runs / "a")
    view = write_report.read_run_report(folder, config, folder.result)
    assert [row["name"] for row in view.rows] == list(folder.result["metrics"])
    assert view.rows[0]["title"] == "loss per token"
    assert len(view.samples) == folder.result["metrics"]["length"]["n"]
    assert {sample.reference for sample in view.samples} <= {"dog", "tree"}
    assert len(view.series("loss")) == folder.result["steps"]
    assert len(view.series("eval_loss", "tokens")) == -(-folder.result["steps"] // 2)  # every second step, and the last
    assert len(view.forgotten) == folder.result["forgetting"]["n"]
    assert view.errors.n == len(view.samples)


@pytest.mark.medium
def test_the_lost_answers_carry_the_drift_of_the_result(runs):
    """sum of drift x tokens / sum of tokens is the drift that the result reports."""
    folder, config = read_run(runs / "a")
    lines = [line for line in folder.records("evals/before.jsonl") if "general" in line]
    lost = write_report.read_run_report(folder, config, folder.result).forgotten
    total = sum(one.drift * line["tokens"] for one, line in zip(lost, lines, strict=True))
    assert total / sum(line["tokens"] for line in lines) == pytest.approx(folder.result["forgetting"]["drift"])


@pytest.mark.medium
def test_a_run_that_is_not_finished_has_no_report(runs):
    (runs / "a" / "result.json").unlink()
    changed(runs / "a", "result.json")
    for make in (lambda path: write_report.write_report([path]), write_report.write_coding_page):
        with pytest.raises(InputError, match=sentence("run not finished")):
            make(runs / "a")
    with pytest.raises(InputError, match=sentence("not a run directory")):
        write_report.write_report([runs])


@pytest.mark.medium
def test_a_run_ends_with_what_its_data_and_its_errors_are(runs):
    about = json.loads((runs / "a" / "data.json").read_text())
    assert about["layout"] == "prompt_completion"
    assert (
        0 < about["lengths"]["min"] <= about["lengths"]["median"] <= about["lengths"]["p95"] <= about["lengths"]["max"]
    )
    assert (about["duplicates"], about["looked_at"]) == (
        0,
        json.loads((runs / "a" / "result.json").read_text())["data"]["rows"],
    )
    folder, config = read_run(runs / "a")
    found = write_report.read_run_report(folder, config, folder.result).errors
    assert found.n == folder.result["metrics"]["length"]["n"]
    result = errors(runs / "a")
    assert [found.sound.row, *(category.row for category in found.categories)] == result["rows"]


@pytest.mark.medium
def test_errors_writes_the_page_again(runs, capsys):
    page = runs / "a" / "report.html"
    whole = page.read_bytes()
    page.write_text("old")
    assert cli(["errors", str(runs / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(page)
    assert page.read_bytes() == whole
    page.unlink()
    assert cli(["errors", str(runs / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] is None and not page.exists()


@pytest.mark.medium
def test_runs_side_by_side_are_told_apart_and_compared_on_the_same_prompts(runs, monkeypatch):
    monkeypatch.chdir(runs)
    path = write_report.write_report([runs / "a", runs / "b"])
    assert path.resolve() == runs / "report-compare.html"
    page = path.read_text()
    assert ">lora.rank<" in page
    assert "b against a" in page
    (runs / "deep").mkdir()
    shutil.copytree(runs / "a", runs / "deep" / "a")
    page = write_report.write_report([runs / "a", runs / "deep" / "a"], runs / "two.html").read_text()
    assert f"{runs}/deep/a" in page
    assert "None: these runs have the same settings." in page
    with pytest.raises(InputError, match=sentence("too many runs", count=7, most=6)):
        write_report.write_report([runs / "a"] * 7)


@pytest.mark.medium
def test_coding_takes_the_held_out_answers_or_what_errors_found(runs):
    path = write_report.write_coding_page(runs / "a")
    assert path == runs / "a" / "errors" / "coding.html"
    assert '"prompt": "cat ' in path.read_text()
    record = {
        "row": 3, "file": "rows.jsonl", "line": 4, "prompt": "who?", "reference": "cat", "before": "x", "after": "y",
        "before_findings": [], "after_findings": [{"category": "gone", "why": "of a later version", "span": None}],
        "bad": True, "slices": {},
    }  # fmt: skip
    (runs / "a" / "errors" / "records.jsonl").write_text(json.dumps(record) + "\n")
    changed(runs / "a", "errors/records.jsonl")
    page = write_report.write_coding_page(runs / "a").read_text()
    assert '"tag": "gone", "why": "of a later version"' in page
    assert "cat 1?" not in page


@pytest.mark.medium
def test_coding_goes_on_from_an_export(runs):
    code = {"id": "0" * 12, "tags": ["odd"], "note": "n"}
    (runs / "a" / "errors" / "codes.jsonl").write_text(json.dumps(code) + "\n")
    assert '"tags": ["odd"]' in write_report.write_coding_page(runs / "a").read_text()
    assert "Coded by hand" in write_report.write_report([runs / "a"]).read_text()
    for wrong in ("no json", "[]", '{"tags": "odd"}', '{"tags": [], "headings": []}'):
        (runs / "a" / "errors" / "codes.jsonl").write_text(f"{json.dumps(code)}\n{wrong}\n")
        with pytest.raises(InputError, match=sentence("not a line of codes", where="codes.jsonl:2")):
            write_report.write_report([runs / "a"])


@pytest.mark.medium
def test_a_run_without_answers_has_nothing_to_code(runs):
    for stage in ("before", "after"):
        (runs / "a" / "evals" / f"{stage}.jsonl").write_text(json.dumps({"row": 0, "loss": 1.0, "units": 1}) + "\n")
    (runs / "a" / "errors" / "records.jsonl").unlink()
    changed(runs / "a", "errors/records.jsonl", "evals/before.jsonl", "evals/after.jsonl")
    with pytest.raises(InputError, match=sentence("no answers to read")):
        write_report.write_coding_page(runs / "a")
    assert (
        "generated no answers in which errors could be looked for"
        in write_report.write_report([runs / "a"]).read_text()
    )


def test_answers_of_rollouts_are_those_of_the_first_the_middle_and_the_last(tmp_path):
    """Versions before kept the best answer of one prompt, and nothing else of it."""
    old = [{"rollout": n, "row": n, "answer": f"old {n}", "reward": 0.5} for n in range(3)]
    new = [
        {"rollout": n, "among": among, "row": 1, "prompt": "who?", "answer": among, "reward": 1, "ended": "length", "length": 4}
        for n in (3, 4) for among in ("best", "worst")
    ]  # fmt: skip
    evaluated = {"step": 2, "prompt": "held out?", "answer": "yes"}
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*old, evaluated, *new]))
    found = write_report.rollouts_of(RunFolder(tmp_path))
    assert [one.number for one in found] == [0, 2, 4]
    assert (found[0].best, found[0].worst) == ([RewardedAnswer("", "old 0", 0.5)], [])
    assert found[2].worst == [RewardedAnswer("who?", "worst", 1, "length", 4)]
    (tmp_path / "samples.jsonl").write_text(json.dumps({"rollout": 1, "answer": "a", "reward": "high"}) + "\n")
    with pytest.raises(InputError, match=sentence("record of another form", where="samples.jsonl:1", key="…reward…")):
        write_report.rollouts_of(RunFolder(tmp_path))
    (tmp_path / "samples.jsonl").unlink()
    assert write_report.rollouts_of(RunFolder(tmp_path)) == []
