"""Settings as options: every field has one, a YAML file and options in layers, and run.yaml is the same run."""

from __future__ import annotations

import json
from importlib import import_module

import click
import pytest

from luthier.cli import COMMANDS, run
from luthier.commands.quickstart import command as quickstart
from luthier.commands.settings import Setting, config_of, given
from luthier.commands.train import command as train
from luthier.config.resolve import read_yaml, resolve, write_yaml
from luthier.config.run import QUICKSTART, fields
from luthier.core.errors import InputError
from luthier.core.storage.files import read_json
from sentences import sentence

pytestmark = pytest.mark.medium


def test_train_has_an_option_for_every_setting():
    names = {p.setting for p in train.params if isinstance(p, Setting)}
    assert names == set(fields()) - {"version", "data.path"}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "lm-eval"])
def test_whoever_reads_rows_can_be_told_what_their_columns_and_codes_are(name):
    """A code that could mean two things is refused with `--data.values` as the way out: so it must be one."""
    command = import_module(f"luthier.commands.{name}").command
    names = {p.setting for p in command.params if isinstance(p, Setting)}
    assert ("data.layout" in names) == ("data.columns" in names) == ("data.values" in names)


@pytest.mark.parametrize("name", [name for name in fields() if name not in ("version", "data.path")])
def test_an_option_given_its_default_changes_nothing(name):
    default = resolve()
    value = default
    for part in name.split("."):
        value = getattr(value, part)
    option = next(p for p in train.params if isinstance(p, Setting) and p.setting == name)
    if value is None or value == {} or value == ():
        return
    if isinstance(value, bool):
        arguments = [f"--{name}" if value else f"--no-{name}"]
    else:
        arguments = [x for item in (value if isinstance(value, tuple) else (value,)) for x in (f"--{name}", str(item))]
    context = train.make_context("train", list(arguments))
    assert option.name in context.params
    assert resolve(given(context.params)) == default


def test_a_commands_own_defaults_are_those_of_its_help():
    help_ = " ".join(quickstart.get_help(click.Context(quickstart)).split())
    for name, value in QUICKSTART.items():
        option = next((p for p in quickstart.params if isinstance(p, Setting) and p.setting == name), None)
        if option is not None:
            assert option.help.endswith(f"[{value:g}]" if isinstance(value, float) else f"[{value}]")
            assert " ".join(option.help.split()) in help_
    assert "hash of these settings" not in help_


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("seed: 5\ntrain:\n  lr: 1e-3\n  epochs: 2\ndata.path: [a.jsonl]\n")
    config = config_of([str(path)], {"train__epochs": "4", "train__lr": None}, {"train.batch": 3, "seed": 1})
    assert (config.seed, config.train.lr, config.train.epochs, config.train.batch) == (5, 1e-3, 4.0, 3)
    assert config.data.path == ("a.jsonl",)
    assert config_of([str(path), "b.jsonl", "c.jsonl"], {}).data.path == ("b.jsonl", "c.jsonl")


def test_columns_and_lists():
    context = train.make_context(
        "train",
        [
            "--data.columns",
            "output=answer",
            "--data.columns",
            "prompt=q",
            "--lora.targets",
            "*q*",
            "--lora.targets",
            "*v*",
        ],
    )
    config = resolve(given(context.params))
    assert config.data.columns == {"output": "answer", "prompt": "q"}
    assert config.lora.targets == ("*q*", "*v*")
    for wrong in ("output", "=a", "output="):
        with pytest.raises(InputError, match=sentence("not a pair", example="output=answer")):
            given({"data__columns": (wrong,)})


def test_values_for_the_template():
    words = ['{"enable_thinking": false, "n": 3}', "mode=short", "think=True", "year=2024", "quoted=a=b"]
    context = train.make_context("train", [part for word in words for part in ("--text.template_kwargs", word)])
    assert resolve(given(context.params)).text.template_kwargs == {
        "enable_thinking": False, "n": 3, "mode": "short", "think": True, "year": 2024, "quoted": "a=b",
    }  # fmt: skip
    for wrong, said in (
        ("enable_thinking", sentence("not a template value", example="enable_thinking=false")),
        ("{x", sentence("template value not json")),
    ):
        with pytest.raises(InputError, match=said):
            given({"text__template_kwargs": (wrong,)})


def test_settings_survive_yaml(tmp_path):
    config = resolve(
        {
            "text.template_kwargs": {"enable_thinking": False, "list": [1, None]},
            "data.columns": {"output": "answer"},
            "data.path": ["é.jsonl"],
            "train.lr": 1e-7,
            "text.system": "no\nyes: 'x'",
        }
    )
    path = tmp_path / "run.yaml"
    path.write_text(write_yaml(config), encoding="utf-8")
    assert resolve(read_yaml(path)) == config


def test_run_yaml_reproduces_a_run(tmp_path, tiny_folder, capsys):
    rows = tmp_path / "rows.csv"
    rows.write_text("question,reply\n" + "".join(f"who {i},cat {i % 3}\n" for i in range(20)))
    options = ["--model", tiny_folder, "--out", tmp_path / "one", "--data.columns", "completion=reply", "--train.lr", "0.01",
               "--train.batch", "4", "--eval.samples", "2", "--eval.max_new_tokens", "4", "--threads", "1", "--device", "cpu",
               "--lora.dropout", "0.1", "--seed", "3", "--json"]  # fmt: skip
    assert run([str(a) for a in ("train", rows, *options)]) == 0
    one = json.loads(capsys.readouterr().out)
    assert run(["train", str(tmp_path / "one" / "run.yaml"), "--out", str(tmp_path / "two"), "--json"]) == 0
    two = json.loads(capsys.readouterr().out)
    same = ("steps", "tokens", "trainable", "parameters", "loss", "metrics", "forgetting", "kept", "data")
    assert {key: one[key] for key in same} == {key: two[key] for key in same}
    weights = [(tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    assert (
        read_json(tmp_path / "one" / "lineage.json")["inputs"] == read_json(tmp_path / "two" / "lineage.json")["inputs"]
    )
    assert run(["train", str(tmp_path / "one" / "run.yaml"), "--seed", "4"]) == 2
    assert (
        "this folder holds another run: seed was 3 there and is 4 here; give another --out" in capsys.readouterr().err
    )
    assert run(["verify", str(tmp_path / "one"), "--resume", "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert set(proof) == {"run", "from", "to", "same_bits", "largest_difference", "changed_since"}
    assert proof["same_bits"] is True


def test_train_prints_the_documented_keys(tmp_path, tiny_folder, capsys):
    import re
    from pathlib import Path

    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": f"who {i}", "completion": "cat", "intent": "x"}) + "\n" for i in range(20))
    )
    options = ["--model", tiny_folder, "--out", tmp_path / "run", "--eval.max_new_tokens", "4", "--threads", "1", "--device", "cpu",
               "--data.holdout", "0.3", "--json"]  # fmt: skip
    assert run([str(a) for a in ("train", rows, *options)]) == 0
    captured = capsys.readouterr()
    first = captured.out
    result = json.loads(first)
    assert "read: prompt, completion; not read: intent\n" in captured.err
    assert "warning: column 'intent' is not read (it may hold what is to be answered)" in captured.err
    for told in (result["data"], json.loads((tmp_path / "run" / "data.json").read_text())):
        assert (told["read"], told["unread"]) == ({"prompt": "prompt", "completion": "completion"}, ["intent"])
        assert len(told["warnings"]) == 1
    page = (Path(__file__).parents[2] / "docs" / "run.md").read_text().partition("`luthier data`:")[0]
    table = page.partition("| key | meaning |")[2]
    documented = {
        key
        for line in table.splitlines()
        if line.startswith("| `")
        for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert set(result) == documented
    for metric in result["metrics"].values():
        shown = {"before", "after", "difference", "low", "high", "n", "p", "corrected", "verdict"}
        assert set(metric) - {"baseline"} == shown
    assert run([str(a) for a in ("train", rows, *options)]) == 0
    captured = capsys.readouterr()
    assert captured.out == first
    assert "this run is finished" in captured.err


def test_models_prints_one_object(capsys):
    assert run(["models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert models[0]["name"] == "smollm2-135m"
    assert set(models[0]) == {"name", "kind", "bytes", "parameters", "licence", "folder", "damage"}
    assert run(["models"]) == 0
    assert "smollm2-135m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (["--data.skip_bad"], True),
        (["--data.skip_bad", "yes"], True),
        (["--data.skip-bad", "True"], True),
        (["--data.skip_bad=on"], True),
        (["--data.skip_bad", "false"], False),
        (["--data.skip_bad=no"], False),
        (["--no-data.skip_bad"], False),
        ([], None),
    ],
)
def test_a_truth_value_is_given_as_other_programs_take_it(written, value):
    context = train.make_context("train", [*written, "rows.jsonl"])
    assert context.params["data__skip_bad"] is value
    assert context.params["data"] == ("rows.jsonl",)


def test_a_file_called_as_a_truth_value_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "on").write_text("{}")
    context = train.make_context("train", ["--data.skip_bad", "on", "--", "--seed"])
    assert (context.params["data__skip_bad"], context.params["data"]) == (True, ("on", "--seed"))
