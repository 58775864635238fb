"""The run directory: whose it is, journals that are cut back, and what went in."""

from __future__ import annotations

import json
import shutil

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.storage.leftovers import new_file, new_folder
from luthier.runs.folder import RunFolder, locked, read_run
from luthier.runs.lineage import lineage
from luthier.runs.start_run import open_run
from sentences import sentence


@pytest.fixture
def make(tmp_path):
    def go(inputs=None, **settings):
        config = resolve({"out": str(tmp_path / "run"), **{k.replace("__", "."): v for k, v in settings.items()}})
        return open_run(config, "rows", lineage(config, **(inputs or {"data": {"a": "1"}})))

    return go


def test_the_same_settings_open_the_same_run(make):
    assert make().path == make().path
    folder, config = read_run(make().path)
    assert config.out == str(folder.path)


def test_the_default_folder_is_named_after_method_data_and_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = resolve()
    assert str(open_run(config, "rows", lineage(config)).path) == f"runs/sft-rows-{config.fingerprint()}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1}, sentence("another run", name="seed", there=0, here=1)),
        ({"train__lr": 0.5}, sentence("another run", name="train.lr", there="None", here="0.5")),
        (
            {"inputs": {"data": {"a": "2"}}},
            sentence("inputs changed", name="data", files=" (a)"),
        ),
    ],
    ids=str,
)
def test_another_run_is_refused_untouched(make, settings, message):
    folder = make()
    folder.append("metrics.jsonl", {"step": 1})
    before = {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
    with pytest.raises(InputError, match=message):
        make(**settings)
    assert {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()} == before


def test_force_is_not_another_run(make):
    make()
    make(force=True)


def test_what_a_kill_before_the_first_file_leaves_is_no_obstacle(make, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.yaml.123.tmp").write_text("vers")
    assert (make().path / "run.yaml").is_file()


def test_a_run_of_a_newer_version_is_refused(make):
    folder = make()
    path = folder.path / "run.yaml"
    folder.write("run.yaml", path.read_text().replace("version: 1", "version: 2"))
    for again in (make, lambda: read_run(path.parent)):
        with pytest.raises(InputError, match=sentence("settings of a newer version", where="run.yaml", version=2)):
            again()


def test_journals_are_cut_back_to_their_marks(make):
    folder = make()
    folder.append("metrics.jsonl", {"step": 1, "text": "ü"})
    marks = folder.marks()
    folder.append("metrics.jsonl", {"step": 2})
    folder.append("samples.jsonl", {"step": 2})
    folder.cut(marks)
    assert folder.records("metrics.jsonl") == [{"step": 1, "text": "ü"}]
    assert folder.records("samples.jsonl") == []
    assert folder.records("losses.jsonl") is None


def test_a_line_torn_by_a_kill_is_cut_off(make):
    folder = make()
    folder.append("losses.jsonl", {"step": 1, "rows": []})
    marks = folder.marks()
    with open(folder.path / "losses.jsonl", "a") as handle:
        handle.write('{"step": 2, "ro')
    folder.cut(marks)
    folder.append("losses.jsonl", {"step": 2, "rows": []})
    assert [record["step"] for record in folder.records("losses.jsonl")] == [1, 2]


def test_one_process_at_a_time(make):
    folder = make()
    with (
        locked(folder),
        pytest.raises(InputError, match=sentence("run of another process")),
        locked(RunFolder(folder.path)),
    ):
        pass
    with locked(folder):
        pass


def test_lineage_names_what_went_in(make):
    folder = make({"data": {"rows.jsonl": "ab"}, "model": {"x": "y"}})
    told = json.loads((folder.path / "lineage.json").read_text())
    assert told["inputs"] == {"data": {"rows.jsonl": "ab"}, "model": {"x": "y"}}
    assert set(told["environment"]) == {"python", "platform", "threads", "torch", "transformers", "tokenizers", "numpy"}
    assert len(told["code"]) == 16


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=sentence("not a run directory")):
        read_run(tmp_path)


PLANTED = [
    "metrics.jsonl",
    ".lock",
    "checkpoints",
    "evals/before.jsonl",
    "result.json",
    "run.yaml",
    "checkpoints/step-00000001",
]


@pytest.mark.parametrize("name", PLANTED)
def test_a_link_inside_a_run_is_refused_untouched(make, tmp_path, name):
    """A folder from elsewhere could make this run read, empty or overwrite any file of the user's."""
    folder = make()
    secret = tmp_path / "secret"
    secret.write_text("mine")
    path = folder.path / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(secret)
    for again in (make, lambda: read_run(folder.path)):
        with pytest.raises(InputError, match=sentence("link inside a run", where=name)):
            again()
    assert secret.read_text() == "mine"


def test_a_run_folder_may_be_a_link_itself(make, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with locked(make()):
        read_run(tmp_path / "run")[0].append("metrics.jsonl", {"step": 1})
    assert (tmp_path / "disk" / "metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("name", ["checkpoints", "evals", "errors", "adapter", "model"])
def test_a_file_where_a_folder_belongs_is_refused(make, name):
    path = make().path / name
    shutil.rmtree(path, ignore_errors=True)
    path.write_text("")
    with pytest.raises(InputError, match=sentence("file in the way", where=name)):
        make()


@pytest.mark.parametrize("name", ["run.yaml", "result.json", "metrics.jsonl", "lineage.json", "report.html", ".lock"])
def test_a_folder_where_a_file_belongs_is_refused(make, name):
    path = make().path / name
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(InputError, match=sentence("folder in the way", where=name)):
        make()


def test_what_killed_starts_left_is_cleared_by_the_next(make):
    folder, token = make(), "0123456789abcdef"
    left = [f".run.yaml.{token}.tmp", "evals/.before.jsonl.4711.tmp", f"checkpoints/.step-00000004.{token}.tmp",
            "checkpoints/.step-00000002.tmp", "checkpoints/.step-00000001.old", f".adapter.{token}.old"]  # fmt: skip
    for name in left:
        path = folder.path / name
        path.parent.mkdir(exist_ok=True)
        if ".step" in name or "adapter" in name:
            path.mkdir()
            (path / "a").write_text("1")
        else:
            path.write_text("half")
    (folder.path / "checkpoints" / "step-00000001").mkdir()
    with locked(folder):
        pass
    assert not [path for path in folder.path.rglob(".*") if path.name != ".lock"]
    assert (folder.path / "adapter" / "a").read_text() == "1", "its successor never came: the old one is put back"


def test_what_a_living_process_writes_is_not_cleared(make):
    folder = make()
    report, merged = folder.path / "report.html", folder.path / "merged"
    with new_file(report) as (temporary, _), new_folder(merged) as beside, locked(folder):
        assert temporary.exists()
        assert beside.exists()


def test_hidden_files_of_the_user_are_left_where_benchmarks_are_written(tmp_path):
    for name in (".vimrc.old", ".notes.tmp", ".rows.12.tmp"):
        (tmp_path / name).write_text("mine")
    with locked(RunFolder(tmp_path)):
        pass
    assert len(list(tmp_path.glob(".*.*"))) == 3


def test_one_process_at_a_time_also_when_the_first_removes_the_folder(make):
    """Who waits at a lock that is removed with its folder holds nothing."""
    folder = make()
    with locked(folder):
        folder.remove_if_unused()
    assert not folder.path.exists()
    with locked(make()):
        pass


@pytest.mark.parametrize(
    ("method", "before", "now", "same"),
    [
        ("sft", None, "cosine", True), ("sft", "cosine", None, True), ("sft", None, "constant", False),
        ("sft", "constant", "linear", False), ("grpo", None, "constant", True), ("grpo", "cosine", None, False),
    ],
)  # fmt: skip
def test_a_run_resumes_with_its_schedule_only(make, method, before, now, same):
    """None is the method's own: a run of before, when all methods had a cosine by default, is not another run where it still has."""
    own = {"method": method} | ({"reward__use": ["exact"]} if method == "grpo" else {})
    make(**own, train__schedule=before)
    if same:
        make(**own, train__schedule=now)
        return
    with pytest.raises(InputError, match=sentence("another run", name="train.schedule")):
        make(**own, train__schedule=now)
