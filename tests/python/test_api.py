"""Luthier from Python: the same settings, the same runs, the same bits as from the command line."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import luthier
from luthier.cli import run as cli
from sentences import sentence

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {
    "train.steps": 8, "train.batch": 4, "train.checkpoint": 50, "eval.rows": 4, "eval.samples": 2, "eval.max_new_tokens": 4,
    "eval.forgetting": False, "threads": 1, "device": "cpu",
}  # fmt: skip


def rows(path: Path, count: int, first: int = 0) -> str:
    lines = (json.dumps({"prompt": f"the cat {i}?", "completion": f"dog {i % 7}"}) for i in range(first, first + count))
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def place(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    return {
        "folder": folder, "model": str(tiny_folder), "train": rows(folder / "train.jsonl", 30),
        "test": rows(folder / "test.jsonl", 8, 100),
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(place):
    return luthier.train(
        place["train"], settings=SETTINGS, model=place["model"], out=str(place["folder"] / "run"),
        data={"eval": [place["test"]]},
    )  # fmt: skip


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.medium
def test_a_run_from_python_is_the_command_s(run, place, capsys):
    options = [f"--{name}={value}" for name, value in SETTINGS.items() if value is not False]
    out = str(place["folder"] / "command")
    told = cli(
        ["train", place["train"], "--data.eval", place["test"], "--model", place["model"], "--out", out, "--no-eval.forgetting",
         "--json", *options]
    )  # fmt: skip
    assert told == 0
    result = json.loads(capsys.readouterr().out)
    assert run.metrics == result["metrics"]
    assert same(adapter(run.path / "adapter"), adapter(Path(out) / "adapter"))
    assert luthier.open(run.path).result == run.result
    assert repr(run).splitlines()[0] == f"TrainingRun('{run.path}')"
    loss = run.metrics["loss"]
    assert f"  loss: {loss['before']:.4g} -> {loss['after']:.4g}" in repr(run)
    made_up = {"metrics": {"loss": {"before": 3, "after": 2, "low": -1.5, "high": -0.5}}}
    assert repr(luthier.TrainingRun(run.path, run.config, made_up)).endswith("loss: 3 -> 2  (-1.5 to -0.5)")


def example(name: str):
    """A file of examples/, as a module; a flat loop on a page."""
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 150
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_supervised_loop_of_the_examples_makes_the_same_bits(run, place):
    out = place["folder"] / "loop"
    example("sft_loop").sft(place["train"], out, place["model"])
    assert same(adapter(run.path / "adapter"), adapter(out))


@pytest.mark.medium
def test_the_loop_that_learns_from_rewards_makes_the_same_bits(place, capsys):
    """On a reward that a model which knows nothing gets for some of its answers, and not for others."""
    prompts = place["folder"] / "letters.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"the cat {i}?", "completion": "ea"[i % 2]}) + "\n" for i in range(30))
    )
    command = luthier.train(
        prompts, settings=SETTINGS | {"rollout.samples": 4, "rollout.max_new_tokens": 16}, method="grpo",
        reward={"use": ["contains"]}, model=place["model"], out=str(place["folder"] / "grpo"), data={"eval": [place["test"]]},
    )  # fmt: skip
    out, loop = place["folder"] / "grpo_loop", example("grpo_loop")
    said = capsys.readouterr()
    assert said.out == "" and "training" in said.err, "standard output belongs to the program"
    assert not {"\r", "\x1b"} & set(said.err), "whole lines, where nobody draws them again"
    loop.learn(str(prompts), out, place["model"], lambda answer, reference: float(reference in answer))
    assert same(adapter(command.path / "adapter"), adapter(out))
    told = re.findall(r"reward (\S+), gradient norm (\S+)", capsys.readouterr().out)
    assert sum(float(norm) > 0 for _, norm in told) >= 4, "where nothing is learned, equal bits say nothing"
    logged = [json.loads(line) for line in (command.path / "metrics.jsonl").read_text().splitlines()]
    assert [f"{line['reward']:.3f}" for line in logged] == [reward for reward, _ in told]
    assert loop.right(" dog 3\n", "dog 3") == 1 and loop.right("dog 33", "dog 3") == 0


def test_a_model_answers_and_scores(run):
    model = run.open()
    answer = model.chat("the cat 3?", max_new_tokens=5)
    assert answer == model.generate(["the cat 3?"], max_new_tokens=5)[0][0]
    assert "".join(model.stream([{"role": "user", "content": "the cat 3?"}], max_new_tokens=5)) == answer
    asked = {"role": "user", "content": "the cat 3?"}
    good, bad = model.score(
        [[asked, {"role": "assistant", "content": text}] for text in ("dog 3", "sat on the red mat by the tree")]
    )
    assert bad < good < 0
    (alone,) = model.score([[asked, {"role": "assistant", "content": "dog 3"}]])
    longer = [{"role": "user", "content": "a tree " * 30}, {"role": "assistant", "content": "red"}, asked]
    (after,) = model.score([[*longer, {"role": "assistant", "content": "dog 3"}]])
    assert alone == pytest.approx(good, rel=1e-4)
    assert after > 5 * alone, "only the last message counts, however long the others are"


def unknown(kind, name, nearest):
    return sentence("unknown name", kind=kind, name=name, fix=f"did you mean '{nearest}'?")


WRONG = [
    (sentence("message with other keys", where="message 0", fault="has the keys role, content, tool_calls"),
     lambda m: m.chat([{"role": "user", "content": "a", "tool_calls": []}])),
    (sentence("message with other keys", where="message 1", fault="is no mapping"),
     lambda m: m.chat([{"role": "user", "content": "a"}, "b"])),
    (sentence("unknown name", where="message 0", kind="role", name="bot"), lambda m: m.chat([{"role": "bot", "content": "a"}])),
    (sentence("content of a type", where="message 0", type="NoneType"), lambda m: m.chat([{"role": "user", "content": None}])),
    (sentence("content of a type", where="message 0", type="list"),
     lambda m: m.chat([{"role": "user", "content": [{"type": "text", "text": "a"}]}])),
    (sentence("ends with the assistant"), lambda m: m.chat([{"role": "assistant", "content": "a"}])),
    (sentence("no messages"), lambda m: m.chat([])),
    (sentence("prompt not a list"), lambda m: m.generate("hi")),
    (unknown("sampling setting", "temprature", "temperature"), lambda m: m.chat("a", temprature=1)),
    (sentence("sampling value", setting="temperature", given="'1'", range="a number"), lambda m: m.chat("a", temperature="1")),
    (sentence("sampling value", setting="top_k", given="2.5", range="a whole number"), lambda m: m.chat("a", top_k=2.5)),
    (sentence("chat has one answer"), lambda m: m.chat("a", n=3)),
    (sentence("more tokens than context"),
     lambda m: m.score([[{"role": "user", "content": "a"}, {"role": "assistant", "content": "it is " * 600}]])),
    (sentence("no answer to score", where="conversation 0"), lambda m: m.score([[{"role": "user", "content": "a"}]])),
    (unknown("option", "limt", "limit"), lambda m: luthier.evaluate("x", "arc_easy", limt=3)),
    (unknown("option", "dtyp", "dtype"), lambda m: luthier.load("x", dtyp="float32")),
    (unknown("type", "f32", "float32"), lambda m: m.opened and luthier.load(m.opened.config.model, dtype="f32")),
    (sentence("no file to read"), lambda m: luthier.read()),
    (unknown("setting", "data.limt", "data.limit"), lambda m: luthier.read("rows.jsonl", limt=3)),
    (sentence("section not a value", key="reward", key2="reward", short=" (`--reward` is reward.use)"),
     lambda m: luthier.train("rows.jsonl", reward="exact")),
]  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize(("told", "call"), WRONG)
def test_what_is_wrong_is_told_and_not_guessed(run, told, call):
    with pytest.raises(luthier.InputError, match=told):
        call(run.open())


@pytest.mark.medium
def test_an_adapter_is_asked_as_it_learned_to_be(run, place):
    """Its template and system prompt, one answer or many; a stop of one's own counts beside the template's."""
    other = luthier.train(
        place["train"], settings=SETTINGS | {"train.steps": 2, "text.template": "alpaca", "text.system": "the red mat"},
        model=place["model"], out=str(place["folder"] / "alpaca"), data={"eval": [place["test"]]},
    )  # fmt: skip
    beside = luthier.load(place["model"], adapter=str(other.path), dtype="float32", device="cpu")
    answer = beside.chat("the cat 3?", max_new_tokens=8)
    assert beside.generate(["the cat 3?"], max_new_tokens=8) == [[answer]]
    asked = [{"role": "user", "content": "the cat 3?"}, {"role": "assistant", "content": "dog 3"}]
    assert beside.score([asked]) == pytest.approx(other.open(dtype="float32", device="cpu").score([asked]), abs=1e-4)
    assert beside.chat("the cat 3?", max_new_tokens=8, stop=[answer[1:3]]) == answer[: answer.index(answer[1:3])]


@pytest.mark.medium
def test_several_adapters_answer_in_the_same_passes(run, place):
    """Each prompt with the adapter it names, asked as that one learned to be, under its own system prompt."""
    other = luthier.train(
        place["train"], settings=SETTINGS | {"train.steps": 4, "train.lr": 0.05, "text.system": "the red mat"},
        model=place["model"], out=str(place["folder"] / "other"), data={"eval": [place["test"]]},
    )  # fmt: skip
    model = luthier.load(place["model"], adapter=[run.path, other.path], dtype="float32", device="cpu")
    assert model.adapters == ("run", "other", "base")
    prompts, names = ["the cat 3?", "a dog 4?", "who is it?"], ["other", "base", None]
    mixed = model.generate(prompts, adapter=names, max_new_tokens=6, temperature=0.5, n=2)
    alone = luthier.load(place["model"], adapter=other.path, dtype="float32", device="cpu")
    assert mixed[0] == alone.generate(prompts, max_new_tokens=6, temperature=0.5, n=2)[0]
    assert mixed[1] == model.generate(prompts, adapter="base", max_new_tokens=6, temperature=0.5, n=2)[1]
    assert mixed[2] == model.generate(prompts, max_new_tokens=6, temperature=0.5, n=2)[2]
    assert model.chat(prompts[0], adapter="other", max_new_tokens=6) == alone.chat(prompts[0], max_new_tokens=6)
    said = [{"role": "user", "content": "the cat 3?"}, {"role": "assistant", "content": "dog 3"}]
    scores = [model.score([said], adapter=name)[0] for name in (None, "other", "base")]
    assert scores[1] == pytest.approx(alone.score([said])[0], rel=1e-4)
    assert len({round(score, 3) for score in scores}) == 3
    assert model.score([said]) == scores[:1], "nothing was switched"
    with pytest.raises(luthier.InputError, match=sentence("no such adapter", name="othr", there="base, run, other")):
        model.chat("a", adapter="othr")
    with pytest.raises(luthier.InputError, match=sentence("adapters not one a prompt", adapters=2, prompts=1)):
        model.generate(["a"], adapter=["run", "other"])


@pytest.mark.medium
def test_rows_are_read_and_models_compared(run, place):
    assert [example.messages[-1].content for example in luthier.read(place["test"], limit=2)] == ["dog 2", "dog 3"]
    found = luthier.compare(
        place["model"], run.path, data=place["test"], settings={"eval.rows": 8, "eval.samples": 0, "device": "cpu"}
    )
    assert found["rows"]
    with pytest.raises(
        luthier.InputError,
        match=sentence("unknown name", kind="setting", name="trane.steps", fix="did you mean 'train.steps'?"),
    ):
        luthier.train(place["train"], trane={"steps": 1})


def test_importing_it_takes_no_time_and_loads_nothing():
    """Of Luthier its own first file, of what else is installed nothing; its time is counted on the processor, so that a busy
    machine changes little of it. 0.01 s is usual."""
    code = """
import sys, time
standard, before = {*sys.stdlib_module_names, *sys.builtin_module_names}, set(sys.modules)
began = time.process_time()
import luthier
spent = time.process_time() - began
loaded = {name.partition('.')[0] for name in sys.modules.keys() - before} - standard
own = [name for name in sys.modules if name.startswith('luthier')]
print(sorted(loaded), own, spent < 0.2, luthier.__version__)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == f"['luthier'] ['luthier'] True {luthier.__version__}"
    assert set(luthier.__all__) <= set(dir(luthier))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        luthier.trian  # noqa: B018


@pytest.mark.parametrize("module", ["luthier", "luthier.kernel"])
def test_every_public_name_is_there_says_what_it_is_and_is_in_the_documents(module):
    """`make check` holds that the reference is what docs/make.py writes."""
    public = importlib.import_module(module)
    pages = {name: (EXAMPLES.parent / "docs" / f"{name}.md").read_text() for name in ("python", "python_reference")}
    part = pages["python_reference"].split(f"## {module}\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (\w+)$", part, re.MULTILINE) == sorted(public.__all__)
    for name in public.__all__:
        value = getattr(public, name)
        assert not callable(value) or value.__doc__ or hasattr(value, "model_fields"), name
        assert module != "luthier" or f"`luthier.{name}" in pages["python"], name
