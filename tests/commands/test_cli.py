"""The command line as a whole: help, exit statuses, and every kind of bad input as one line that says how to fix it."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module

import click
import pytest

from luthier import cli as cli_module
from luthier.cli import COMMANDS, run
from luthier.core.errors import InputError, RunError, Stopped
from luthier.diagnose.errors import WRONG
from luthier.evals.detectors.table import CATEGORIES

GOOD = [{"prompt": f"the cat {i}?", "completion": "dog"} for i in range(12)]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "good.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in GOOD))
    return path


@pytest.fixture
def refused(capsys, tmp_path, tiny_folder):
    """Run a command line that must fail; return its last line on standard error, checked for its form."""

    def go(*arguments, status=2, model=True):
        capsys.readouterr()
        extra = ["--model", str(tiny_folder)] if model else []
        assert run([str(a) for a in arguments] + extra) == status
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert [line for line in lines if line.startswith("luthier: ")] == lines[-1:]
        assert "Traceback" not in err
        assert out == ""
        return lines[-1]

    return go


# --- Help -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_every_option_and_has_an_example(name, capsys):
    assert run([name, "--help-all" if name == "train" else "--help"]) == 0
    text = capsys.readouterr().out
    for parameter in import_module(f"luthier.commands.{name.replace('-', '_')}").command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.opts[0] in text
            assert parameter.help
    assert "Example" in text
    assert f"  luthier {name}" in text
    assert "PATH...\n" not in text.partition("Options:")[2]


def examples(text):
    """The command lines among the indented lines of a text; what stands after two blanks is a remark."""
    found = (re.split(r"  +", line.strip())[0] for line in text.splitlines() if line.startswith((" ", "\t")))
    return [shlex.split(line)[1:] for line in found if line.startswith("luthier ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_the_help_is_a_command_that_is_understood(name):
    """Not run: options, their values and the number of arguments are checked."""
    told = examples(import_module(f"luthier.commands.{name.replace('-', '_')}").command.help)
    assert told
    for example, *arguments in told:
        command = import_module(f"luthier.commands.{example.replace('-', '_')}").command
        values = command.make_context(example, list(arguments)).params
        assert values.get("category") in (None, WRONG, *CATEGORIES)


def test_the_first_help_lists_every_command(capsys):
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text and line in text for name, line in COMMANDS.items())


def test_the_first_help_imports_nothing_heavy():
    code = (
        "import sys; from luthier.cli import run; run(['--help']);"
        "print(sorted({'torch', 'transformers', 'pydantic', 'numpy', 'rich', 'yaml'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("luthier ")


# --- Exit statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("wrong", where="a.txt:3", fix="fix it"), 2, "luthier: a.txt:3: wrong; fix it"),
        (RunError("broke"), 1, "luthier: broke"),
        (Stopped("stopped"), 130, "luthier: stopped"),
        (KeyboardInterrupt(), 130, "luthier: interrupted"),
        (MemoryError(), 1, "luthier: out of memory; lower --train.tokens"),
        (ValueError("two\nlines"), 1, "luthier: ValueError: two lines; --debug shows where"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 2, "luthier: out/x: the disk is full; free"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "luthier: the disk is full; free"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "luthier: out: no permission; "),
        (OSError(errno.EIO, "Input/output error", "out"), 1, "luthier: out: Input/output error"),
    ],
)
def test_errors_become_one_line_and_a_status(monkeypatch, capsys, error, status, text):
    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(cli_module.luthier, "main", fail)
    assert run(["models"]) == status
    err = capsys.readouterr().err
    assert err.startswith(text)
    assert err.count("\n") == 1


def test_debug_shows_where(monkeypatch):
    monkeypatch.setattr(cli_module.luthier, "main", lambda *a, **n: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(["models"], debug=True)


# --- Names with a typo --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], "unknown command 'trian'; did you mean `luthier train`?"),
        (["finetune"], "unknown command 'finetune'; did you mean `luthier train`?"),
        (["dpo"], "unknown command 'dpo'; did you mean `luthier train --method dpo`?"),
        (["QLoRA"], "unknown command 'QLoRA'; did you mean `luthier train --tune qlora`?"),
        (["inference"], "unknown command 'inference'; did you mean `luthier chat`?"),
        (["xyzzy"], "unknown command 'xyzzy'; see `luthier --help`"),
        (["train", "--train.rl", "1"], "unknown option '--train.rl'; did you mean '--train.lr'?"),
        (["train", "--learning_rate", "1e-4"], "'--learning_rate'; here it is --train.lr: Peak learning rate"),
        (["train", "--lora-r", "8"], "unknown option '--lora-r'; here it is --lora.rank: Rank of the adapters"),
        (["train", "--dataset", "x"], "'--dataset'; give it without an option: `luthier train [DATA]...`"),
        (
            ["train", "--lerning_rate", "1e-4"],
            "unknown option '--lerning_rate'; did you mean '--train.lr'? It is what others call learning_rate",
        ),
        (
            ["train", "--kl_coef", "0"],
            "unknown option '--kl_coef'; here it is --policy.kl: Weight of the KL divergence from "
            "the starting model; ppo 0.05, others 0",
        ),
        (
            ["train", "--logging_steps", "1"],
            "unknown option '--logging_steps'; every step is logged, in metrics.jsonl of the run",
        ),
        (["train", "--train.epochs"], "--train.epochs needs a value; see --help"),
        (["train", "--packing"], "unknown option '--packing'; rows are always packed, and none sees another"),
        (["merge", "--model", "x"], "unknown option '--model'; give it without an option: `luthier merge RUN`"),
        (["merge", "--learning_rate", "1"], "unknown option '--learning_rate'; see --help"),
        (
            ["data", "--data.columns", "prompt=q", "completion=a"],
            "or an option of its own: --data.columns completion=a",
        ),
        (["train", "--limt", "1"], "unknown option '--limt'; did you mean '--limit'?"),
        (["train", "--data.limt", "1"], "unknown option '--data.limt'; did you mean '--limit'?"),
        (["train", "--eval.max-new-tokns", "1"], "did you mean '--eval.max_new_tokens'?"),
        (["eval", "--data_di", "x"], "unknown option '--data_di'; did you mean '--data-dir'?"),
        (
            ["train", "--max_samples", "1"],
            "unknown option '--max_samples'; here it is --limit: Use only the first N rows",
        ),
        (["train", "--limit", "0"], "--limit: should be greater than or equal to 1, not '0'"),
        (["data", "--clea"], "unknown option '--clea'; did you mean '--clean'?"),
        (["train", "--train.schedule", "cosin"], "--train.schedule: unknown value 'cosin'; did you mean 'cosine'?"),
        (["train", "ROWS", "--dtype", "float16"], "--dtype: unknown value 'float16'; did you mean 'bfloat16'?"),
        (["quickstart", "--dtype", "float16"], "--dtype: unknown value 'float16'; did you mean 'bfloat16'?"),
        (["train", "ROWS", "--method", "stf"], "--method: unknown method 'stf'; did you mean 'sft'?"),
        (["train", "ROWS", "--tune", "loar"], "--tune: unknown tune kind 'loar'; did you mean 'lora'?"),
        (["train", "ROWS", "--data.layout", "alpca"], "; did you mean 'alpaca'?"),
        (["train", "ROWS", "--eval.metrics", "rouge"], "unknown metric 'rouge'; did you mean 'rouge_l'?"),
        (["train", "ROWS", "--text.template", "alpacca"], "no template 'alpacca'; did you mean 'alpaca'?"),
        (["train", "ROWS", "--data.columns", "prompt"], "'prompt' is not FIELD=COLUMN; such as output=answer"),
        (["train", "ROWS", "--data.columns", "prompt=quest"], "unknown column 'quest', in "),
        (["train", "--train.lr", "abc"], "--train.lr: should be a valid number, not 'abc'"),
        (["train", "--train.epochs", "-1"], "--train.epochs: should be greater than 0, not '-1'"),
        (["data", "--near", "2"], "--near: 2.0 is not in the range 0<=x<=1"),
        (["chat"], "MODEL is missing; see `luthier chat --help`"),
        (["verify", "x"], "say what to verify: --resume"),
        (["chat", "smollm2"], "unknown model 'smollm2'; did you mean 'smollm2-135m'?"),
        (["train"], "no data given; luthier train DATA"),
        (["data"], "no data given; luthier data PATH"),
        (["show"], "no data given; luthier show PATH"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_that_is_not_known_gets_the_nearest(refused, rows, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    with_data = "ROWS" in arguments
    found = refused(*[rows if a == "ROWS" else a for a in arguments], model=with_data)
    assert line in found
    assert os.listdir(tmp_path) == ["good.jsonl"]


# --- Files that cannot be read ------------------------------------------------------------------------

WHOLE = "".join(json.dumps(row) + "\n" for row in GOOD * 50).encode()
FILES = {
    "zzz.csv": (None, "no such file or folder; check the path"),
    "godo.jsonl": (None, "did you mean"),
    "rows.jsonl.gz": (gzip.compress(WHOLE)[:30], "the file is truncated: fetch it again"),
    "rows.parquet": (b"PAR1abc", "rows.parquet: cannot read the parquet file"),
    "array.json": (b'[{"prompt": "a", "completion": "b"}, {"pro', "array.json:1: broken JSON"),
    "latin.jsonl": ('{"prompt": "é", "completion": "b"}\n'.encode("latin-1"), "latin.jsonl:1: not UTF-8"),
    "wide.csv": ("prompt,completion\na,b\n".encode("utf-16"), "iconv -f UTF-16"),
    "broken.jsonl": (WHOLE[:WHOLE.index(b"\n") + 1] + b'{"prompt": "b", \n', "broken.jsonl:2: broken JSON"),
    "cells.csv": (b"prompt,completion\na,b,c\n", "cells.csv:2: 3 cells, but the first row has 2"),
    "odd.jsonl": (b'{"foo": 1, "bar": 2}\n', "odd.jsonl:1: unknown layout: found foo, bar; nearest: "),
    "empty.jsonl": (b"", "empty.jsonl: no rows; give"),
    "rows.xlsx": (b"PK", "rows.xlsx: this is a spreadsheet; save it as CSV"),
    "number.jsonl": (b"3\n", "number.jsonl:1: a row must be a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["data", "show", "train"])
def test_a_file_that_cannot_be_read(refused, tmp_path, monkeypatch, rows, command, name):
    content, line = FILES[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = sorted(os.listdir(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = refused(command, path, *(["--clean", "--split"] if command == "data" else []))
    assert name in found
    assert line in found
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("options", [["--clean"], ["--split"]])
def test_a_file_in_place_of_the_folder_is_refused(refused, rows, options):
    assert "is a file" in refused("data", rows, *options, "--out", rows)
    assert rows.read_text().count("\n") == len(GOOD)


def test_a_stream_is_not_rewritten(refused, rows, tmp_path):
    line = refused("data", rows, "--data.stream", "--clean", "--out", tmp_path / "new")
    assert "--data.stream: a stream is only described; leave it out to write new files" in line
    assert not (tmp_path / "new").exists()


def test_bad_rows_are_skipped_only_when_asked(rows, tmp_path, tiny_folder, capsys):
    rows.write_text(rows.read_text() + "{broken\n")
    arguments = ["data", str(rows), "--model", str(tiny_folder), "--json"]
    assert run(arguments) == 2
    assert capsys.readouterr().out == ""
    assert run([*arguments, "--data.skip_bad"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["rows"], result["skipped"], sum(result["dropped"].values())) == (len(GOOD), 1, 1)


# --- Settings files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 9\n", "settings of version 9, but this Luthier knows version 1; install a newer Luthier"),
        (
            "train: [\n",
            "settings.yaml:2: not valid YAML: expected the node content, but found '<stream end>'; check indentation and quotes",
        ),
        ("train:\n  rl: 3\n", "settings.yaml: unknown setting 'train.rl'; did you mean 'train.lr'?"),
        ("train: 3\n", "settings.yaml: 'train' is a section, not a value; write its settings below `train:`"),
        ("train:\n  lr: fast\n", "settings.yaml: train.lr: should be a valid number, not 'fast'"),
        ("train:\n  schedule: cosin\n", "settings.yaml: unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("- a\n", "settings.yaml: settings must be names with values"),
        ("a: \xe9\n", "settings.yaml: cannot read the settings: not UTF-8"),
        (None, "settings.yaml: cannot read the settings: No such file or directory"),
    ],
    ids=lambda value: (value or "none")[:20],
)
def test_settings_that_cannot_be_read(refused, tmp_path, text, line):
    path = tmp_path / "settings.yaml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    assert line in refused("train", path, model=False)


# --- Models that are refused --------------------------------------------------------------------------


def _broken(folder, fault):
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if fault == "pickle":
        weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"never read")
    elif fault == "code":
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "x.Y"}}))
    elif fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif fault == "json":
        (folder / "config.json").write_text("{")
    else:
        (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("pickle", "only pickled weights (pytorch_model.bin), which can run code when read and are refused; convert"),
        ("code", "config.json: the model wants to run its own code ('auto_map'), which is refused; take"),
        ("truncated", "model.safetensors: truncated or broken weights"),
        ("json", "config.json: not readable as JSON"),
        ("no config", "no config.json; give the folder that holds the model"),
    ],
)
@pytest.mark.parametrize("command", ["train", "show", "data", "chat"])
def test_a_model_that_is_refused(refused, rows, tmp_path, tiny_folder, monkeypatch, command, fault, line):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, tmp_path / "model")
    _broken(tmp_path / "model", fault)
    what = ["chat", "model", "--prompt", "the"] if command == "chat" else [command, rows, "--model", "model"]
    assert line in refused(*what, model=False)
    assert sorted(os.listdir(tmp_path)) == ["good.jsonl", "model"]


def test_a_model_folder_that_is_not_there(refused, rows):
    assert "models/none: no such model folder; check the path" in refused(
        "train", rows, "--model", "./models/none", model=False
    )


# --- Run directories ----------------------------------------------------------------------------------


def test_a_folder_that_holds_something_else(refused, rows, tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    assert "full: the folder holds something that is not a run; give another --out" in refused(
        "train", rows, "--out", folder
    )
    assert os.listdir(folder) == ["mine.txt"]
    assert "good.jsonl: this is a file, not a folder; give another --out" in refused("train", rows, "--out", rows)


def test_a_run_that_is_not_there(refused, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where there is no run: a checkout has one after `make quickstart`
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.yaml").write_text("version: 1\n")
    assert "no such run; did you mean" in refused("chat", tmp_path / "runs" / "onne", model=False)
    assert "no such run; luthier train --out NAME makes one" in refused("chat", "runs/none", model=False)
    assert "no such run; give a folder under runs/" in refused("merge", tmp_path / "none", model=False)
    assert "no adapter here; nothing to merge" in refused("merge", tmp_path / "runs" / "one", model=False)
    assert "this run is not finished; run its command again" in refused("chat", tmp_path / "runs" / "one", model=False)
    assert "no run.yaml in it" in refused("verify", tmp_path, "--resume", model=False)


# --- A full disk --------------------------------------------------------------------------------------


def _full(monkeypatch, module, name, last):
    """Let `name` of `module` fail for want of space from call `last` on."""
    real = getattr(module, name)
    calls = 0

    def fail(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls >= last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, fail)


def test_a_full_disk_while_cleaning(refused, rows, tmp_path, monkeypatch):
    _full(monkeypatch, os, "fsync", 1)
    line = refused("data", rows, "--clean", "--out", tmp_path / "new")
    assert "clean.jsonl: the disk is full; free some space and run the command again" in line
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.medium
@pytest.mark.parametrize("last", [1, 3, 6, 9, 20, 35])
def test_a_full_disk_while_training_leaves_nothing_half_written(
    refused, rows, tmp_path, monkeypatch, tiny_folder, last
):
    options = ["--json", "--train.checkpoint", "1", "--train.batch", "4", "--eval.samples", "0", "--no-eval.forgetting",
               "--device", "cpu", "--threads", "1", "--data.holdout", "0.2", "--out", tmp_path / "run"]  # fmt: skip
    with monkeypatch.context() as patch:
        _full(patch, os, "fsync", last)
        assert "the disk is full" in refused("train", rows, *options)
    assert not [p for p in tmp_path.rglob("*") if ".tmp" in p.name]
    assert run([str(a) for a in ("train", rows, *options, "--model", tiny_folder)]) == 0
    assert (tmp_path / "run" / "result.json").is_file()


PLACES = {
    "train": "train ROWS --out FILE/run --threads 1",
    "sample": "sample TINY ROWS --reward length:6 --out FILE/a.jsonl",
    "score": "score nothing ROWS --out FILE/a.jsonl",
    "eval": "eval nothing --tasks perplexity --text notes.txt --out FILE/records",
    "judge": "judge ROWS ROWS2 --judge nothing --out FILE/a.jsonl",
    "compare": "compare TINY other=TINY --data ROWS --out FILE/a.jsonl",
    "data": "data ROWS --clean --out FILE/new",
    "test": "test nothing.yaml --junit FILE/a.xml",
}


@pytest.mark.parametrize("name", PLACES)
def test_where_nothing_can_be_written_is_one_line_before_the_work(
    refused, rows, tmp_path, tiny_folder, name, monkeypatch
):
    """Also of a read-only place, which the same look finds: `test_where_nothing_can_be_written_is_found_before_the_work`."""
    monkeypatch.chdir(tmp_path)
    for file in ("plain", "nothing.yaml", "notes.txt"):
        (tmp_path / file).write_text("a text" if file == "notes.txt" else "")
    (tmp_path / "good2.jsonl").write_bytes(rows.read_bytes())
    places = {"ROWS2": "good2.jsonl", "ROWS": str(rows), "TINY": str(tiny_folder), "FILE": "plain"}
    words = PLACES[name].split()
    for place, path in places.items():
        words = [word.replace(place, path) for word in words]
    line = refused(*words, model=name in ("train", "data", "test"))
    assert re.match(
        r"luthier: \S*plain(/run)?: (there is a file where a folder is needed; move it away|cannot make the run)", line
    ), line
    assert (tmp_path / "plain").read_text() == ""


def test_sigterm_ends_as_ctrl_c_does(monkeypatch, capsys):
    def work(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(cli_module.luthier, "main", work)
    monkeypatch.setattr(cli_module, "guard", lambda: None)
    monkeypatch.setattr(sys, "argv", ["luthier", "elo"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            cli_module.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("luthier: interrupted\n")
