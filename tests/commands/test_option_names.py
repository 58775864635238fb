"""One name for one thing: how options are spelt, which other spellings are understood, and how help is ordered."""

from __future__ import annotations

from importlib import import_module

import click
import pytest

from luthier.cli import COMMANDS, GROUPS, run
from luthier.commands.options import GROUPS as OPTION_GROUPS
from luthier.commands.options import Command, spellings
from luthier.commands.settings import Setting
from luthier.config.run import FLAGS, fields

OURS = [name for name in COMMANDS if name != "lm-eval"]  # lm-eval passes its options on


def command_of(name):
    return import_module(f"luthier.commands.{name.replace('-', '_')}").command


def values(name, *arguments):
    """What the command is called with for these words."""
    return command_of(name).make_context(name, [str(word) for word in arguments]).params


# An option of a command, as it was spelt before and as it is now, with a value (None for a flag).
RENAMED = [
    ("train", "--data.limit", "--limit", 5),
    ("data", "--data.limit", "--limit", 5),
    ("sample", "--data.limit", "--limit", 5),
    ("show", "--rows", "--limit", 5),
    ("train", "--reward.use", "--reward", "exact"),
    ("sample", "--reward.use", "--reward", "exact"),
    ("train", "--text.system", "--system", "Be brief."),
    ("eval", "--text.system", "--system", "Be brief."),
    ("train", "--eval.benchmark", "--tasks", "piqa"),
    ("train", "--eval.benchmark_dir", "--data-dir", "folder"),
    ("compare", "--eval.max_new_tokens", "--max-new-tokens", 7),
    ("compare", "--check", "--false-alarms", None),
    ("sample", "--n", "--samples", 3),
    ("errors", "--to", "--out", "rows.jsonl"),
    ("errors", "--against", "--compare", "runs/old"),
]


@pytest.mark.parametrize(("name", "before", "now", "value"), RENAMED)
def test_a_former_spelling_still_works_and_is_not_shown(name, before, now, value):
    given = ["x", "y"] if name in ("sample", "compare") else ["x"]
    ways = [values(name, *given, option, *([] if value is None else [value])) for option in (before, now)]
    assert ways[0] == ways[1] != values(name, *given)
    help_ = command_of(name).get_help(click.Context(command_of(name))).split("Options:")[-1]
    assert f"  {now} " in help_ or f"  {now}\n" in help_
    assert f"  {before} " not in help_


@pytest.mark.parametrize(
    ("name", "spelt", "other", "value"),
    [
        ("train", "--eval.max_new_tokens", "--eval.max-new-tokens", 4),
        ("train", "--text.template_kwargs", "--text.template-kwargs", "a=1"),
        ("train", "--no-data.skip_bad", "--no-data.skip-bad", None),
        ("train", "--data.skip_bad", "--data.skip-bad", None),
        ("train", "--data-dir", "--data_dir", "folder"),
        ("train", "--eval.benchmark_dir", "--eval.benchmark-dir", "folder"),
        ("eval", "--data-dir", "--data_dir", "folder"),
        ("chat", "--max-new-tokens", "--max_new_tokens", 4),
        ("judge", "--endpoint-model", "--endpoint_model", "big"),
        ("elo", "--length-control", "--length_control", None),
    ],
)
def test_a_hyphen_and_an_underscore_are_the_same(name, spelt, other, value):
    ways = [values(name, "x", option, *([] if value is None else [value])) for option in (spelt, other)]
    assert ways[0] == ways[1] != values(name, "x")


def test_both_spellings_of_a_list_add_to_it():
    assert values("train", "x", "--reward", "exact", "--reward.use", "json")["reward__use"] == ("exact", "json")


@pytest.mark.parametrize("name", OURS)
def test_no_spelling_means_two_options(name):
    command = command_of(name)
    assert isinstance(command, Command)
    shown = [name for option in command.params if isinstance(option, click.Option) for name in option.opts]
    assert len(shown) == len(set(shown))
    understood = spellings(command)
    for option in command.params:
        if isinstance(option, click.Option):
            for other in (*option.opts, *getattr(option, "former", ())):
                assert understood[other.lstrip("-")] == option.opts[0].lstrip("-")


@pytest.mark.parametrize("name", OURS)
def test_a_thing_has_the_same_name_in_every_command(name):
    """No command spells a setting of FLAGS in another way, or gives its name to another setting."""
    for option in command_of(name).params:
        if isinstance(option, Setting):
            assert option.opts[0] == f"--{FLAGS.get(option.setting, option.setting)}" or (
                (name, option.setting, option.opts[0]) == ("compare", "eval.max_new_tokens", "--max-new-tokens")
            )
    assert set(FLAGS) <= set(fields())


def test_the_first_help_has_a_line_for_each_command_in_the_order_of_work(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    after = lines[lines.index("Start:") :]
    assert [line.rstrip(":") for line in after if line and not line.startswith(" ")] == list(GROUPS)
    assert list(GROUPS) == [
        "Start", "Look at data", "Train", "Measure", "Compare and judge", "Use", "Models and runs",
    ]  # fmt: skip
    assert [tuple(line.split(maxsplit=1)) for line in after if line.startswith(" ")] == list(COMMANDS.items())


@pytest.mark.parametrize(
    ("name", "first", "titles"),
    [
        ("train", "--method", ["Run", "Data", "Text", "Training", "Adapters (lora, qlora)", "Evaluation"]),
        ("sample", "--reward", ["Options", "Sampling", "Run", "Data", "Text"]),
        ("compare", "--data", ["Options", "Run", "Data", "Text", "Evaluation"]),
        ("eval", "--tasks", ["Options", "Run", "Text", "Machine", "Output and help"]),
        ("data", "--split", ["Options", "Cleaning (--clean)", "Run", "Data"]),
    ],
)
def test_options_stand_in_groups_and_what_is_needed_first_stands_first(name, first, titles):
    lines = command_of(name).get_help(click.Context(command_of(name))).splitlines()
    known = {title or "Options" for title in OPTION_GROUPS}
    found = [line[:-1] for line in lines if line.endswith(":") and line[:-1] in known]
    assert found[: len(titles)] == titles
    assert found[-1] == "Output and help"
    assert lines[lines.index(f"{titles[0]}:") + 1].split()[0] == first


def test_a_short_list_stands_in_one():
    help_ = command_of("models").get_help(click.Context(command_of("models")))
    assert "Output and help" not in help_
    assert help_.index("--check") < help_.index("--json") < help_.index("--help")


def test_a_command_may_be_spelt_with_an_underscore(capsys):
    assert run(["lm_eval", "--help"]) == 0
    assert "lm-evaluation-harness" in capsys.readouterr().out
