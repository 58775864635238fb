"""Everything that decides a result is in the lineage: every setting that names a file, and what those files lead to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
import yaml

from luthier.config.resolve import resolve, write_yaml
from luthier.config.run import fields
from luthier.core.errors import InputError, RunError
from luthier.evals.metrics.user_metrics import check as own_metrics
from luthier.rewards.imports import sources
from luthier.runs import start_run
from luthier.runs.lineage import changes, later, require_same
from luthier.runs.method import chosen_method
from luthier.runs.rows import read_examples
from luthier.runs.tokenizer_and_template import open_text_format
from luthier.tune import forgetting
from luthier.tune import train as app_train
from luthier.tune.input_hashes import inputs
from luthier.tune.train import run
from sentences import sentence

ROWS = [{"prompt": f"who sat by tree {i}?", "completion": f"cat {i}"} for i in range(30)]
TEXTS = [{"text": f"the dog ran on mat {i} and sat"} for i in range(12)]
SCENES = [
    {"activity_label": "Cats", "ctx_a": f"A cat {i}.", "ctx_b": "it", "endings": list("wxyz"), "label": i % 4}
    for i in range(6)
]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
CODE = "import beside\n\n\ndef score(answers):\n    return [beside.worth(a) for a in answers]\n"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def place(tmp_path, tiny_folder):
    """A file or folder of each kind that a setting may name."""
    for name, rows in (
        ("rows", ROWS),
        ("eval", ROWS[:4]),
        ("more1", ROWS[:2]),
        ("replay", ROWS[4:9]),
        ("general", TEXTS),
        ("pretrain", TEXTS),
    ):
        (tmp_path / f"{name}.jsonl").write_text(lines(rows))
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "hellaswag_val.jsonl").write_text(lines(SCENES))
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "beside.py").write_text("def worth(a):\n    return float(len(a))\n")
    (tmp_path / "tokens.txt").write_text("<call>")
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    shutil.copytree(tiny_folder, tmp_path / "tiny")
    for name in ("reward", "judge"):
        (tmp_path / name).mkdir()
        settings = {"model": str(tmp_path / "tiny"), "method": "reward", "tune": "full"}
        (tmp_path / name / "run.yaml").write_text(yaml.safe_dump(settings))
        shutil.copytree(tiny_folder, tmp_path / name / "model")
    return tmp_path


# setting -> (the settings that name a file with it, the file that is changed, the input that must tell it)
NAMING = {
    "data.path": ({}, "rows.jsonl", "data"),
    "data.eval": ({"data.eval": ["eval.jsonl"]}, "eval.jsonl", "data"),
    "data.replay": ({"data.replay": ["replay.jsonl"]}, "replay.jsonl", "replay"),
    "text.add_tokens": ({"text.add_tokens": "tokens.txt"}, "tokens.txt", "tokenizer"),
    "text.template": ({"text.template": "t.jinja"}, "t.jinja", "template"),
    "eval.metrics": ({"eval.metrics": ["python:mine.py:score"]}, "mine.py", "metrics"),
    "eval.general": ({"eval.general": ["general.jsonl"]}, "general.jsonl", "general"),
    "eval.benchmark_dir": ({"eval.benchmark_dir": "scenes", "eval.benchmark": "hellaswag"}, "scenes/hellaswag_val.jsonl", "benchmark"),
    "policy.pretrain": ({"method": "ppo", "reward.use": ["ended"], "policy.pretrain": ["pretrain.jsonl"]}, "pretrain.jsonl", "pretrain"),
    "reward.use": ({"method": "grpo", "reward.use": ["2*python:mine.py:score"]}, "mine.py", "rewards"),
    "reward.judge": ({"method": "grpo", "reward.use": ["ended"], "reward.judge": ["python:mine.py:score"]}, "mine.py", "rewards"),
    "model": ({}, "tiny/model.safetensors", "model"),
    "base": ({}, "tiny/config.json", "model"),
}  # fmt: skip
# What those files lead to, and the other kinds that a setting may name.
LEADING = [
    ({"eval.metrics": ["python:mine.py:score"]}, "beside.py", "metrics"),
    ({"method": "grpo", "reward.use": ["python:mine.py:score"]}, "beside.py", "rewards"),
    ({"method": "grpo", "reward.use": ["json:schema.json"]}, "schema.json", "rewards"),
    ({"method": "grpo", "reward.use": ["model:reward"]}, "reward/model/model.safetensors", "rewards"),
    (
        {"method": "grpo", "reward.use": ["ended"], "reward.judge": ["model:judge"]},
        "judge/model/config.json",
        "rewards",
    ),
    ({}, "tiny/tokenizer.json", "tokenizer"),
    ({}, "tiny/generation_config.json", "model"),
    ({"data.path": ["rows.jsonl", "more*.jsonl"]}, "more2.jsonl", "data"),
]
# Settings of text that name no file: their values are compared themselves. `out` is where the run is.
VALUES = {
    "method", "tune", "out", "device", "dtype", "track", "data.layout", "data.prompt", "data.completion", "data.columns",
    "data.values", "data.group",
    "text.template_kwargs", "text.system", "text.train_on", "text.too_long", "lora.targets", "lora.init",
    "lora.modules_to_save", "quant.kind",
    "train.schedule", "train.optimizer", "train.recompute", "train.offload",
    "train.weigh", "preference.loss", "preference.span", "ranking.loss", "policy.variant",
    "policy.kl_in", "policy.kl_estimator", "eval.benchmark", "reward.truncated",
}  # fmt: skip


def texts(annotation):
    """Whether a value of this type may be a text, and so the name of a file."""
    return annotation is str or isinstance(annotation, str) or any(map(texts, get_args(annotation)))


def test_every_setting_that_may_name_a_file_is_known():
    """A new setting of text must be added to one of these: those that name files must be in the lineage."""
    assert {name for name, info in fields().items() if texts(info.annotation)} == NAMING.keys() | VALUES


def made_of(values):
    """The inputs of a run of these settings, as `luthier train` finds them."""
    base = {"model": "tiny", "data.path": ["rows.jsonl"], "device": "cpu", "dtype": "float32"}
    config = resolve(base | values)
    read = open_text_format(config)
    found = inputs(config, read_examples(config, chosen_method(config).example), read)
    own = {"metrics": metrics} if (metrics := own_metrics(config.eval.metrics, config.reward)) else {}
    return found | forgetting.open_probes(config, read).inputs | own


@pytest.mark.medium
@pytest.mark.parametrize(("values", "file", "told"), [*NAMING.values(), *LEADING], ids=str)
def test_a_file_that_changed_is_told(place, monkeypatch, values, file, told):
    monkeypatch.chdir(place)
    before = json.loads(json.dumps(made_of(values)))
    path = Path(file)
    if path.suffix == ".safetensors":
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif path.suffix == ".json":
        said = json.loads(path.read_text())
        path.write_text(json.dumps(said, indent=1) + "\n ")
        if path.name == "tokenizer.json":
            said["normalizer"] = {"type": "Lowercase"}
            path.write_text(json.dumps(said))
    elif path.suffix == ".jsonl":
        path.write_text((path.read_text() if path.is_file() else lines(ROWS[:2])).replace("cat 3", "dog 3") + lines(
            [TEXTS[0] if "general" in file or "pre" in file else SCENES[0] if "scenes" in file else ROWS[0]]
        ))  # fmt: skip
    else:
        path.write_text(path.read_text() + ("\n# more\n" if path.suffix == ".py" else "{# more #}"))
    found = changes(before, made_of(values))
    assert told in found
    assert not found[told] or Path(file).name in found[told]


def test_what_a_function_imports_from_beside_it(tmp_path):
    for name, text in {
        "mine.py": "import json, near\nfrom pack import deep\n\ndef f():\n    from pack.inner import other\n",
        "near.py": "import far.away\nimport mine\n", "far/__init__.py": "", "far/away.py": "from . import beside\n",
        "far/beside.py": "from .more.deepest import x\n", "far/more/deepest.py": "from ..last import y\n", "far/last.py": "",
        "pack/__init__.py": "", "pack/deep.py": "def broken(\n", "pack/inner.py": "", "other.py": "", "json.txt": "",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [path.relative_to(tmp_path).as_posix() for path in sources(tmp_path / "mine.py")]
    wanted = ["far/__init__.py", "far/away.py", "far/beside.py", "far/last.py", "far/more/deepest.py", "near.py"]
    assert found == ["mine.py", *wanted, "pack/__init__.py", "pack/deep.py", "pack/inner.py"]


FAILING = "def score(answers, prompts):\n    return [1.0 + 'x' if 'tree 3?' in p else float(len(a)) for a, p in zip(answers, prompts)]\n"


@pytest.fixture
def grpo(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "mine.py").write_text(FAILING)
    return resolve({
        "model": "tiny", "data.path": ["rows.jsonl"], "method": "grpo", "reward.use": ["python:mine.py:score"], "out": "run",
        "data.holdout": 0, "train.batch": 4, "rollout.samples": 2, "rollout.max_new_tokens": 3, "eval.forgetting": False,
        "train.checkpoint": 1, "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32",
    })  # fmt: skip


@pytest.mark.medium
def test_a_reward_may_be_fixed_once_the_run_stopped_at_an_error_of_it(grpo, place, capsys):
    with pytest.raises(
        RunError,
        match=sentence(
            "function failed", fault="TypeError: unsupported operand type(s) for +: 'float' and 'str' (mine.py:2)"
        ),
    ):
        run(grpo)
    (place / "mine.py").write_text(FAILING.replace("1.0 + 'x'", "0.0"))
    raised = grpo.model_copy(update={"reward": grpo.reward.model_copy(update={"timeout": 70.0})})  # as errors advise
    assert run(raised)["steps"] > 1
    assert (
        "the rewards were fixed since this run stopped at an error in them: it learns from both"
        in capsys.readouterr().err
    )
    starts = json.loads((place / "run" / "lineage.json").read_text())["later_starts"]
    assert starts[0]["inputs"]["rewards"].keys() == {"mine.py"}
    (place / "mine.py").write_text(FAILING.replace("1.0 + 'x'", "1.0"))
    with pytest.raises(InputError, match=sentence("inputs changed", name="rewards", files=" (mine.py)")):
        run(raised)


@pytest.mark.medium
def test_a_reward_that_did_not_fail_may_not_change_on_the_way(grpo, place, monkeypatch):
    (place / "mine.py").write_text("def score(answers):\n    return [float(len(a)) for a in answers]\n")
    with monkeypatch.context() as stopping:
        stopping.setattr(app_train.export, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(grpo)
    (place / "mine.py").write_text("def score(answers):\n    return [-float(len(a)) for a in answers]\n")
    says = sentence("inputs changed", name="rewards", fix="give another --out …; it may be fixed only …")
    with pytest.raises(InputError, match=says):
        run(grpo)


def test_a_run_of_an_older_version_goes_on_and_notes_what_was_not_named_then(tmp_path):
    """It named no metrics, nothing that a reward imports, of an adapter no tokenizer."""
    beside = {"code": "a", "luthier": "0", "environment": {"threads": 1}}
    old = {**beside, "inputs": {"data": {"r": "1"}, "model": {"w": "2"}, "rewards": {"f.py": "3"}, "tokenizer": "4"}}
    inputs = {
        "data": {"r": "1"}, "model": {"w": "2", "adapter/t": "5"}, "rewards": {"f.py": "3", "g.py": "6"}, "tokenizer": "4",
        "metrics": {"m.py": "7"},
    }  # fmt: skip
    now = {**beside, "inputs": inputs, "sums": "sums"}
    require_same(old, now, tmp_path)
    made = later(old, now)
    assert made["later_starts"][0]["inputs"] == {name: inputs[name] for name in ("model", "rewards", "metrics")}
    assert later(made, now) is None
    for name, file in (
        ("model", "adapter/t"),
        ("rewards", "g.py"),
        ("metrics", "m.py"),
        ("model", "w"),
        ("data", "new"),
    ):
        with pytest.raises(InputError, match=sentence("inputs changed", name=name, files=f" ({file})")):
            require_same(made, {**now, "inputs": inputs | {name: inputs[name] | {file: "8"}}}, tmp_path)
    with pytest.raises(
        InputError, match=sentence("inputs changed", name="model")
    ):  # of a run of this version, every file was named
        require_same({**old, "sums": "sums"}, now, tmp_path)


@pytest.mark.medium
def test_a_metric_may_be_fixed_once_the_run_stopped_at_an_error_of_it(grpo, place, capsys):
    (place / "mine.py").write_text("def score(answers):\n    return [len(a) / 0 for a in answers]\n")
    settings = {"eval": {"metrics": ("python:mine.py:score",), "samples": 2, "forgetting": False, "max_new_tokens": 3}}
    config = resolve({
        "model": "tiny", "data.path": ["rows.jsonl"], "out": "run", "train.steps": 1, "lora.rank": 2, "threads": 1,
        "device": "cpu", "dtype": "float32", **settings,
    })  # fmt: skip
    with pytest.raises(
        RunError, match=sentence("function failed", fault="ZeroDivisionError: division by zero (mine.py:2)")
    ):
        run(config)
    (place / "mine.py").write_text("def score(answers):\n    return [float(len(a)) for a in answers]\n")
    assert run(config)["steps"] == 1
    said = "the metrics were fixed since this run stopped at an error in them: its answers are scored by the new"
    assert said in capsys.readouterr().err


def test_defaults_that_changed_stop_only_runs_that_read_them(tmp_path):
    """An unfinished run of the version before goes on, whatever the defaults of methods that it is not of are now."""
    for method in ("sft", "grpo"):
        folder = tmp_path / method
        folder.mkdir()
        old = resolve({"method": method, "policy.clip": 0.2, "policy.lam": 0.95})
        (folder / "run.yaml").write_text(write_yaml(old))
        if method == "sft":
            start_run.require_same_settings(folder, resolve({"method": method}))
        else:
            with pytest.raises(InputError, match=sentence("another run", name="policy.clip", there="0.2")):
                start_run.require_same_settings(folder, resolve({"method": method}))
