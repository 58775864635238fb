"""Names that would write on the screen, in the errors of every command and on the screens of some: what is printed for people is
clean, `--json` reads back exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from luthier.cli import COMMANDS, run
from luthier.core.screen import UNSEEN

EVIL = "\x1b[31mx\x1b]0;own\x07\x9b2J\u202egnp\u2066\u200b\U000e0041\x7f[red]y[bold]:smile:"
NAME = f"{EVIL}\udcff"  # as a file name: bytes that are not UTF-8


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {f"prompt{EVIL}": EVIL, f"answer{EVIL}\n": f"{EVIL}\nluthier: fine", EVIL: EVIL}
    (tmp_path / f"{NAME}.jsonl").write_text(json.dumps(row) + "\n")
    asked = [{"prompt": f"{EVIL} {i}", "completion": EVIL} for i in range(12)]
    (tmp_path / f"good{NAME}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    (tmp_path / f"{NAME}.csv").write_text(f'"{EVIL}",b\n1,2,3\n')
    (tmp_path / f"{NAME}.yaml").write_text(json.dumps({EVIL: 1}))
    foreign = {
        "base_model": EVIL,
        "rl": "dpo",
        EVIL: EVIL,
        "datasets": [{"path": EVIL, "type": EVIL, EVIL: EVIL}],
        "lora_r": EVIL,
    }
    (tmp_path / f"axolotl{NAME}.yaml").write_text(json.dumps(foreign))
    group = {"name": EVIL, "cases": [{"prompt": "x", "checks": [{"regex": f"({EVIL}"}]}]}
    (tmp_path / "suite.yaml").write_text(json.dumps({"groups": [group]}))
    duel = {
        "prompt": EVIL,
        "models": [EVIL, "b"],
        "answers": ["x", "y"],
        "verdict": [1, 2],
        "annotator": EVIL,
        "order": [0, 1],
    }
    (tmp_path / f"duels{NAME}.jsonl").write_text((json.dumps(duel) + "\n") * 4)
    (tmp_path / f"bad{NAME}.jsonl").write_text(json.dumps(duel | {EVIL: 1}) + "\n")
    (tmp_path / f"run{NAME}").mkdir()
    (tmp_path / f"template{NAME}.jinja").write_text("{{ raise_exception('" + EVIL + "') }}")
    return tmp_path


LINES = [
    ("data", f"{NAME}.jsonl"), ("data", f"good{NAME}.jsonl"), ("data", f"{NAME}.csv"), ("data", NAME), ("data", f"{NAME}*"),
    ("data", f"good{NAME}.jsonl", "--data.columns", f"prompt={EVIL}"), ("data", f"good{NAME}.jsonl", "--data.layout", EVIL),
    ("show", f"good{NAME}.jsonl"), ("show", f"{NAME}.jsonl"), ("show", f"good{NAME}.jsonl", "--text.template", f"template{NAME}.jinja"),
    ("train", f"{NAME}.yaml"), ("train", f"{NAME}.jsonl"), ("train", f"good{NAME}.jsonl", "--method", EVIL),
    ("train", f"good{NAME}.jsonl", "--tune", EVIL), ("train", f"good{NAME}.jsonl", f"--{EVIL}", "1"),
    ("train", f"good{NAME}.jsonl", "--train.lr", EVIL), ("train", f"good{NAME}.jsonl", "--eval.metrics", EVIL),
    ("train", f"good{NAME}.jsonl", "--model", NAME), ("train", f"good{NAME}.jsonl", "--reward", f"regex:({EVIL}"),
    ("sample", NAME, f"good{NAME}.jsonl"), ("score", NAME, f"good{NAME}.jsonl"), ("eval", NAME, "--tasks", EVIL), ("chat", NAME),
    ("compare", NAME, EVIL, "--data", NAME), ("errors", f"run{NAME}"), ("errors", NAME, f"--{EVIL}"),
    ("test", "suite.yaml", "--model", NAME), ("test", NAME, "--model", NAME), ("judge", NAME, EVIL, "--data", f"good{NAME}.jsonl"),
    ("judge", NAME, EVIL, "--endpoint", f"http://{EVIL}/", "--endpoint-model", EVIL, "--data", f"good{NAME}.jsonl"),
    ("elo", f"duels{NAME}.jsonl"), ("elo", f"bad{NAME}.jsonl"), ("elo", f"duels{NAME}.jsonl", "--anchor", f"{EVIL}=x"),
    ("report", f"run{NAME}"), ("merge", f"run{NAME}"), ("verify", NAME, "--resume"), ("models", EVIL),
    ("fit", NAME), ("train", "--from", f"{NAME}.yaml"), ("train", "--from", f"axolotl{NAME}.yaml"),
    ("quickstart", f"--{EVIL}"), (EVIL,),
]  # fmt: skip


@pytest.mark.parametrize(
    "arguments", LINES, ids=lambda arguments: f"{LINES.index(arguments)}-{arguments[0][:7].strip(EVIL)}"
)
def test_nothing_that_a_terminal_would_act_on_is_printed(folder, capsys, tiny_folder, arguments):
    model = (
        ["--model", str(tiny_folder)]
        if arguments[0] in ("show", "data", "train") and "--model" not in arguments
        else []
    )
    status = run([*arguments, *model])
    out, err = capsys.readouterr()
    assert not UNSEEN.findall(out + err)
    assert status in (0, 1, 2)
    assert "Error:" not in err  # an exception that nobody expected
    assert len([line for line in err.splitlines() if line.startswith("luthier: ")]) == (status != 0)
    if status == 0:
        assert "[red]y[bold]" in out + err  # as it was written: no colour, no emoji


def test_every_command_is_among_them():
    of_another_program = {"lm-eval"}  # what it prints goes through Screen
    assert {arguments[0] for arguments in LINES} >= set(COMMANDS) - of_another_program


def test_json_reads_back_exactly(folder, capsys):
    assert run(["elo", f"duels{NAME}.jsonl", "--json"]) == 0
    out = capsys.readouterr().out
    assert not UNSEEN.findall(out)
    assert {line["model"] for line in json.loads(out)["ratings"]} == {EVIL, "b"}


@pytest.mark.medium
def test_a_traceback_is_clean_too(folder):
    code = "from luthier.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "--debug", "data", os.fsencode(f"{NAME}.csv")], capture_output=True
    )
    said = ran.stderr.decode()
    assert ran.returncode == 1
    assert "Traceback" in said
    assert "own" in said
    assert not UNSEEN.findall(said)
