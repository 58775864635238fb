"""What a command imports before it answers."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from luthier.cli import COMMANDS

pytestmark = pytest.mark.medium

THREADLESS = {"elo", "report", "models"}  # they compute next to nothing
PROGRAM = """
import sys
from luthier.cli import main
try:
    main()
finally:
    print("loaded:", *{"torch._C", "scipy", "pyarrow", "datasets"} & sys.modules.keys(), file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["data", "show"])
def test_data_and_show_do_without_torch_and_say_the_same(
    command: str, tiny_folder: Path, tmp_path: Path, capsys
) -> None:
    from luthier.cli import run

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Say <|im_end|>.", "completion": "the cat sat"}\n' * 3)
    arguments = [command, str(rows), "--model", str(tiny_folder), "--json"]
    alone = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    assert [line for line in alone.stderr.splitlines() if line.startswith("loaded:")] == ["loaded:"]
    assert "PyTorch" not in alone.stderr
    assert run(arguments) == 0  # here, beside torch
    assert json.loads(alone.stdout) == json.loads(capsys.readouterr().out)


def test_a_run_says_something_before_torch_is_loaded(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None\n" + PROGRAM
    words = [sys.executable, "-c", program, "train", str(tmp_path / "absent.jsonl")]
    told = subprocess.run(words, capture_output=True, text=True, check=False).stderr.splitlines()
    assert told[0].startswith("loading")
    told = subprocess.run([*words, "--tune", "lora", "--train.lr", "-1"], capture_output=True, text=True, check=False)
    assert "--train.lr" in told.stderr.splitlines()[0]


def test_importing_the_app_builds_no_models_part_of_transformers() -> None:
    program = (
        "import sys, luthier.tune.train; print(*{'transformers.modeling_utils', 'torch._dynamo'} & sys.modules.keys())"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in THREADLESS])
def test_every_command_that_computes_says_on_how_many_threads(name: str) -> None:
    command = import_module(f"luthier.commands.{name.replace('-', '_')}").command
    options = [
        option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts
    ]
    assert "--threads" in options or "threads" in command.help


def test_a_command_computes_on_the_threads_it_is_given(tiny_folder: Path, monkeypatch, capsys) -> None:
    import torch

    from luthier.cli import run
    from luthier.core import machine

    chat = ["chat", str(tiny_folder), "--prompt", "the cat", "--max-new-tokens", "2"]
    assert run([*chat, "--threads", "2"]) == 0
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(machine, "crowded", lambda taken, here, threads: f"busy, {threads}")
    assert run([*chat, "--threads", "1"]) == 0
    assert torch.get_num_threads() == 1
    assert "warning: busy, 1" in capsys.readouterr().err
