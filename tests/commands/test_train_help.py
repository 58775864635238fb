"""The helps of `luthier train`: one screen, everything, one method."""

from __future__ import annotations

import pytest

from luthier.cli import run
from luthier.config.run import fields, flag_of
from luthier.training.method_table import METHODS


def shown(capsys, *arguments: str) -> str:
    assert run(["train", *arguments]) == 0
    return capsys.readouterr().out


def test_the_help_is_one_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    help_ = shown(capsys, "--help")
    assert len(help_.splitlines()) <= 48  # of a window of 50 lines
    assert all(option in help_ for option in ("--model", "--data.prompt", "--train.lr", "--from", "--help-all"))
    assert shown(capsys, "-h") == help_


def test_all_of_it_has_every_setting(capsys):
    help_ = shown(capsys, "--help-all")
    assert all(flag_of(name) in help_ for name in fields() if name not in ("version", "data.path"))


@pytest.mark.parametrize("name", METHODS)
def test_of_a_method_what_it_reads_and_others_do_not(name, capsys):
    help_ = shown(capsys, "--help", name)
    for setting in fields():
        read = METHODS[name].does_read(setting)
        listed = any(line.startswith(f"  {flag_of(setting)} ") for line in help_.splitlines())
        assert listed == read, setting
    assert METHODS[name].summary.partition(" ")[0] in help_


def test_of_a_method_that_there_is_not(capsys):
    assert run(["train", "--help", "dpoo"]) == 2
    assert "did you mean 'dpo'?" in capsys.readouterr().err


def test_settings_of_another_program_train(tmp_path, capsys):
    """What is not followed is said before anything is read, and so is what another method reads."""
    file = tmp_path / "axolotl.yaml"
    file.write_text(
        "base_model: nowhere/at-all\nmicro_batch_size: 2\nchat_template: chatml\nlora_r: many\ndpo_beta: 0.1\n"
    )
    assert run(["train", "--from", str(file)]) == 2
    said = capsys.readouterr().err
    assert "settings of Axolotl" in said and "not followed: chat_template: chatml" in said
    assert "not followed: lora_r: many" in said
    assert "not followed: preference.beta: 0.1; sft does not read it" in said
    assert "no data given" in said


def test_a_file_after_help_is_no_method(capsys):
    assert shown(capsys, "--help", "rows.jsonl") == shown(capsys, "--help")
