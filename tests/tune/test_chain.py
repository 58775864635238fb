"""One run after another: preferences after demonstrations, what the reference is, resuming, rows that are bad."""

from __future__ import annotations

import json
import math
import random
from functools import partial

import pytest
import torch

from conftest import changed
from luthier.cli import run as cli
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.model.forward import forward
from luthier.runs.locate import resolve_model
from luthier.runs.method import chosen_method
from luthier.runs.open import open_model
from luthier.runs.rows import read_examples
from luthier.text.encode import encode
from luthier.training import annotate
from luthier.training.steps import Packing
from luthier.tune import verify
from luthier.tune.train import run
from sentences import sentence
from whole_runs import WORDS, bits, run_until, same

pytestmark = pytest.mark.medium

METHODS = ["reward", "dpo", "simpo", "orpo", "kto", "response"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Files of the same 40 small questions: answered, with a better and a worse answer, and with labels."""
    folder, draw, out = tmp_path_factory.mktemp("rows"), random.Random(0), {"chat": [], "pairs": [], "labels": []}
    for i in range(40):
        question = " ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 6))) + f" {i}?"
        good, bad = f"{question.split()[0]} it is", f"no {draw.choice(WORDS)}"
        out["chat"].append({"prompt": question, "completion": good})
        out["pairs"].append({"prompt": question, "chosen": good, "rejected": bad})
        out["labels"].append({"prompt": question, "completion": bad if i % 2 else good, "label": not i % 2})
    for name, found in out.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return lambda name: folder / f"{name}.jsonl"


def data_of(method):
    return {"sft": "chat", "kto": "labels"}.get(method, "pairs")


@pytest.fixture(scope="module")
def settings_in(tiny_folder, rows):
    def make(folder, method, out="run", **changes):
        base = {
            "method": method, "model": str(tiny_folder), "data.path": [str(rows(data_of(method)))], "out": str(folder / out),
            "train.batch": 4, "train.tokens": 128, "train.checkpoint": 2, "train.keep": 9, "data.holdout": 0.2,
            "eval.samples": 0, "eval.forgetting": False, "lora.rank": 3, "threads": 1, "device": "cpu", "dtype": "float32",
            "train.lr": 1e-2,
        }  # fmt: skip
        return resolve(base | {key.replace("__", "."): value for key, value in changes.items()})

    return make


@pytest.fixture
def settings(settings_in, tmp_path):
    return partial(settings_in, tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_its_table_says_what_changed(settings, tmp_path, method):
    result = run(settings(method, train__epochs=2))
    metrics = result["metrics"]
    names = {"loss", "accuracy"} if method == "kto" else {"loss", "accuracy", "margin"}
    if method not in ("kto", "reward"):
        names |= {"chosen_logp", "rejected_logp"}
    assert set(metrics) == names
    assert metrics["loss"]["after"] < metrics["loss"]["before"]
    assert metrics["accuracy"]["after"] > 0.9
    assert metrics["loss"]["n"] == result["data"]["held_out"] == len(lines(tmp_path / "run" / "evals" / "after.jsonl"))
    every = lines(tmp_path / "run" / "metrics.jsonl")
    assert all(math.isfinite(value) for line in every for value in line.values())
    if method == "reward":
        record = lines(tmp_path / "run" / "evals" / "after.jsonl")[0]["items"]
        assert record["scores"][0] > record["scores"][1]
        assert len(record["lengths"]) == 2
    if method == "kto":
        assert {"reward_wanted", "reward_unwanted", "kl_baseline"} <= set(every[-1])


@pytest.fixture(scope="module")
def sft(settings_in, tmp_path_factory):
    """A finished sft run, whose adapter has a shape of its own."""
    folder = tmp_path_factory.mktemp("runs")
    run(settings_in(folder, "sft", "sft", lora__rank=5, lora__alpha=7.0, train__epochs=2))
    return folder / "sft"


def logps(model, trees):
    device = torch.device("cpu")
    return annotate.answer_logps(forward, model, trees, Packing(4096), device, "", bool)


def held_out(settings, folder, tmp_path):
    """The held-out trees of a run, in the order of its file, and their records before training."""
    examples = read_examples(settings, chosen_method(settings).example).test
    opened = open_model(str(folder), device="cpu", dtype="float32")
    trees = encode(examples, opened.template, opened.tokenizer, settings.text).trees
    return trees, lines(tmp_path / "evals" / "before.jsonl")


def assert_starts_from(before, first, trees, start):
    """Its first loss is log 2, held-out margins are 0, and the chosen answers are as likely as under `start`."""
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    assert [record["items"]["margin"] for record in before] == [0.0] * len(trees)
    assert [record["items"]["accuracy"] for record in before] == [0.5] * len(trees)
    wanted = [values[0] for values in logps(start, trees)]
    assert [record["items"]["chosen_logp"] for record in before] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_dpo_after_sft_starts_from_the_sft_model_and_is_held_to_it(settings, sft, tmp_path, tune):
    changes = {} if tune == "lora" else {"tune": "full", "lora__rank": 16}
    config = settings("dpo", "dpo", model=str(sft), **({"lora__rank": 16} | changes))
    result = run(config)
    bare = open_model(str(resolve_model(str(sft)).source.folder), device="cpu", dtype="float32").model
    tuned = open_model(str(sft), device="cpu", dtype="float32").model
    trees, before = held_out(config, sft, tmp_path / "dpo")
    assert_starts_from(before, lines(tmp_path / "dpo" / "metrics.jsonl")[0], trees, tuned)
    apart = [abs(a[0] - b[0]) for a, b in zip(logps(bare, trees), logps(tuned, trees), strict=True)]
    assert min(apart) > 0.1, "the bare base is another reference"
    kept = [record["logp"] for file in (tmp_path / "dpo" / "evals").glob("reference-*") for record in lines(file)]
    assert len(kept) == 40
    for wanted in logps(tuned, trees):
        assert min(max(abs(a - b) for a, b in zip(wanted, found, strict=True)) for found in kept) < 1e-3
    assert result["metrics"]["margin"]["after"] > 0.1
    if tune == "lora":
        made = json.loads((tmp_path / "dpo" / "adapter" / "adapter_config.json").read_text())
        assert (made["r"], made["lora_alpha"]) == (5, 7.0), "it goes on with the adapter, whatever a new one would be"
        base = json.loads((sft / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert made["base_model_name_or_path"] == base


def test_dpo_after_sft_differs_from_dpo_on_the_bare_base(settings, sft, tmp_path):
    """trl#1240 and kin: the reference of an adapter is not the bare base, but where training starts."""
    after = run(settings("dpo", "after", model=str(sft), lora__rank=16))
    bare = run(settings("dpo", "bare", lora__rank=5, lora__alpha=7.0))
    assert after["trainable"] == bare["trainable"]
    assert after["loss"]["first"] == pytest.approx(bare["loss"]["first"], abs=1e-6)
    left, right = bits(tmp_path / "after"), bits(tmp_path / "bare")
    assert left.keys() == right.keys()
    assert not same(left, right)
    assert after["metrics"]["chosen_logp"]["before"] > bare["metrics"]["chosen_logp"]["before"] + 1


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_one_step_too_small_to_matter_leaves_the_sft_model(settings, sft, tmp_path, tune):
    """What a run goes on from is what it was given: to the bit for an adapter, to rounding once it is merged."""
    config = settings("dpo", "dpo", model=str(sft), tune=tune, lora__rank=16, train__steps=1, train__lr=1e-30)
    run(config)
    if tune == "lora":
        assert same(bits(tmp_path / "dpo"), bits(sft))
        return
    trees, _ = held_out(config, sft, tmp_path / "dpo")
    ours, theirs = (open_model(str(folder), device="cpu", dtype="float32").model for folder in (tmp_path / "dpo", sft))
    torch.testing.assert_close(
        torch.tensor(logps(ours, trees)), torch.tensor(logps(theirs, trees)), atol=1e-3, rtol=1e-5
    )


def test_a_chain_of_three(settings, sft, tmp_path):
    """sft, then dpo on its adapter, then kto on the whole model that comes of them."""
    run(settings("dpo", "dpo", model=str(sft), lora__rank=16))
    config = settings("kto", "kto", model=str(tmp_path / "dpo"), tune="full")
    result = run(config)
    assert result["metrics"]["accuracy"]["after"] > 0.9
    assert resolve_model(str(tmp_path / "dpo")).source == resolve_model(str(sft)).source, (
        "an adapter on an adapter has the bare base"
    )
    assert resolve_model(str(tmp_path / "kto")).adapter is None


def test_another_shape_than_the_adapter_has_is_refused(settings, sft):
    with pytest.raises(InputError, match=sentence("setting of the adapter", name="rank", theirs=5)):
        run(settings("dpo", "dpo", model=str(sft), lora__rank=4))


TAKEN = {
    "dora": {"lora__dora": True},
    "int8": {"tune": "qlora", "quant__kind": "int8", "quant__block": 32},
    "template": {"text__template": "alpaca"},
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_a_run_took_from_the_one_before_holds_when_it_is_used(settings, tmp_path, what):
    """It was trained and measured so; opened, it once had no magnitudes, stood on another base, was asked otherwise."""
    run(settings("sft", "one", **TAKEN[what]))
    kept = {key: value for key, value in TAKEN[what].items() if key == "tune"}
    config = settings("dpo", "two", model=str(tmp_path / "one"), **kept)
    run(config)
    trees, _ = held_out(config, tmp_path / "two", tmp_path / "two")
    after = lines(tmp_path / "two" / "evals" / "after.jsonl")
    wanted = [
        values[0] for values in logps(open_model(str(tmp_path / "two"), device="cpu", dtype="float32").model, trees)
    ]
    assert [record["items"]["chosen_logp"] for record in after] == pytest.approx(wanted, rel=1e-4)


def test_another_base_than_the_adapter_has_is_refused(settings, tmp_path):
    run(settings("sft", "one", tune="qlora", quant__kind="int8"))
    with pytest.raises(
        InputError, match=sentence("setting of the adapter", where="--quant.block", name="block", theirs=64)
    ):
        run(settings("dpo", "two", model=str(tmp_path / "one"), tune="qlora", quant__block=32))


def test_a_reward_model_goes_on_from_an_adapter_and_from_a_reward_model(settings, sft, tmp_path):
    first = run(settings("reward", "one", model=str(sft), lora__rank=16))
    assert first["loss"]["first"] == pytest.approx(math.log(2), abs=1e-6), "a new head scores everything the same"
    again = run(settings("reward", "two", model=str(tmp_path / "one"), lora__rank=16))
    assert again["metrics"]["loss"]["before"] == pytest.approx(first["metrics"]["loss"]["after"], rel=1e-3)


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_transformers_reads_the_reward_model_of_a_run(settings, tmp_path, tiny_folder, tune):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    config = settings("reward", tune=tune)
    run(config)
    if tune == "full":
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    else:
        base = AutoModelForSequenceClassification.from_pretrained(tiny_folder, num_labels=1, pad_token_id=None)
        theirs = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter")
    trees = encode(
        read_examples(config, chosen_method(config).example).test,
        (opened := open_model(str(tmp_path / "run"), device="cpu", dtype="float32")).template, opened.tokenizer, config.text,
    ).trees  # fmt: skip
    with torch.no_grad():
        for tree, record in zip(trees, lines(tmp_path / "run" / "evals" / "after.jsonl"), strict=True):
            answers = [[i for i, t in zip(n.ids, n.trained, strict=True) if t] for n in tree.nodes[1:]]
            scores = [float(theirs.eval()(torch.tensor([[*tree.nodes[0].ids, *answer]])).logits) for answer in answers]
            assert record["items"]["scores"] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize(
    ("method", "extra"),
    [
        ("dpo", {}), ("dpo", {"tune": "qlora"}), ("kto", {"tune": "full"}), ("reward", {}),
        ("orpo", {"preference__span": "all"}),
    ],
    ids=str,
)  # fmt: skip
def test_stopped_and_gone_on_equals_uninterrupted(settings, tmp_path, method, extra, monkeypatch):
    """The reference is of the starting point, also for a run that goes on from later weights."""
    changes = {"lora__dropout": 0.1, "eval__every": 3, **extra}
    whole = run(settings(method, "whole", **changes))
    config = settings(method, "parts", **changes)
    run_until(3, config)
    parts = run(config)
    assert same(bits(tmp_path / "whole"), bits(tmp_path / "parts"))
    for name in ("loss", "metrics", "steps", "tokens", "kept"):
        assert parts[name] == whole[name]
    left, right = ((tmp_path / name / "losses.jsonl").read_text() for name in ("whole", "parts"))
    assert left == right
    assert verify.resume(tmp_path / "parts")["same_bits"]


def test_references_are_made_once(settings, tmp_path, monkeypatch):
    """A run that goes on reads them from its folder; without that file it makes the same again."""
    config = settings("dpo")
    run_until(3, config)
    (file, other) = sorted((tmp_path / "run" / "evals").glob("reference-*"))
    kept = file.read_text(), other.read_text()
    file.unlink()
    other.unlink()
    changed(tmp_path / "run", f"evals/{file.name}", f"evals/{other.name}")
    run(config)
    assert (file.read_text(), other.read_text()) == kept
    (tmp_path / "run" / "result.json").unlink()
    changed(tmp_path / "run", "result.json")
    monkeypatch.setattr(annotate, "answer_logps", lambda *a, **k: pytest.fail("made again"))
    run(config)


GOOD = [{"prompt": f"{word} {i}?", "chosen": f"it is {word}", "rejected": "no"} for i, word in enumerate(WORDS)]


def talk(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def command(config, rows, tmp_path, *more):
    """The exit status of `luthier train` on these rows."""
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"model": config.model, "method": config.method, "out": config.out, "device": "cpu", "dtype": "float32"}
    options = [x for key, value in given.items() for x in (f"--{key}", str(value))]
    quick = ["--eval.samples", "0", "--no-eval.forgetting", "--threads", "1", "--train.batch", "4"]
    return cli(["train", str(path), *options, *quick, *more])


REFUSED = {
    "a ranking of one answer": (
        "reward", [{"prompt": "who?", "responses": ["a", "b"]}, {"prompt": "what?", "responses": ["a"]}],
        ":2: field 'responses' is not a list of two or more answers; write them as a list",
    ),
    "another question": (
        "dpo", [
            {"chosen": talk("who?", "a"), "rejected": talk("who?", "b")},
            {"chosen": talk("what?", "a"), "rejected": talk("where?", "b")},
        ],
        ":2: chosen and rejected do not answer the same prompt; give both the same turns before the answer",
    ),
    "another question later": (
        "dpo", [{"chosen": [*talk("who?", "x"), *talk("what?", "a")], "rejected": [*talk("who?", "x"), *talk("where?", "b")]}],
        ":1: chosen and rejected do not answer the same prompt; give both the same turns before the answer",
    ),
    "only one with its question": (
        "dpo", [{"chosen": talk("who?", "a"), "rejected": [{"role": "assistant", "content": "b"}]}],
        ":1: chosen and rejected do not answer the same prompt; give both the same turns before the answer",
    ),
    "one prompt for kto": (
        "kto", [{"prompt": "who?", "completion": f"it is {i}", "label": bool(i % 2)} for i in range(8)],
        ":1: all prompts are the same, and kto compares with answers to other prompts; use --method dpo or sft",
    ),
    "a margin that is no number": (
        "reward", [*GOOD, GOOD[0] | {"margin": "much"}], ":13: field 'margin' is not a number: 'much'; write a number",
    ),
    "nothing but equal answers": (
        "dpo", [row | {"rejected": row["chosen"]} for row in GOOD],
        ":1: none of 10 rows is left to learn from; 10 of them: the two answers are equal",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_row_is_one_line(settings, tmp_path, capsys, case):
    method, rows, said = REFUSED[case]
    assert command(settings(method), rows, tmp_path) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("luthier:")]
    assert said in line
    assert not (tmp_path / "run" / "adapter").exists()


DROPPED = {
    "equal answers": ("dpo", GOOD[0] | {"rejected": GOOD[0]["chosen"]}, "the two answers are equal"),
    "an empty answer": ("dpo", GOOD[0] | {"rejected": ""}, "an answer is empty"),
    "an empty answer of a ranking": ("reward", GOOD[0] | {"chosen": ""}, "an answer is empty"),
    "an empty labelled answer": ("kto", {"prompt": "a b", "completion": "", "label": True}, "the answer is empty"),
    "a ranking of equals": (
        "reward", {"prompt": "a b", "responses": ["x", "y"], "ranks": [1, 1]}, "no answer is ranked above another",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DROPPED)
def test_a_row_that_teaches_nothing_is_dropped_and_counted(settings, tmp_path, capsys, case):
    method, row, reason = DROPPED[case]
    good = GOOD
    if method == "kto":
        good = [{"prompt": r["prompt"], "completion": r["chosen"], "label": bool(i % 2)} for i, r in enumerate(GOOD)]
    elif "responses" in row:
        good = [{"prompt": r["prompt"], "responses": [r["chosen"], r["rejected"]], "ranks": [1, 2]} for r in GOOD]
    eval_file = tmp_path / "eval.jsonl"
    eval_file.write_text("".join(json.dumps(r) + "\n" for r in good[:3]))
    assert command(settings(method), [*good[3:], row], tmp_path, "--data.eval", str(eval_file)) == 0
    assert f"1 of 10 rows dropped: {reason}" in " ".join(capsys.readouterr().err.split())
    assert json.loads((tmp_path / "run" / "result.json").read_text())["data"]["dropped"] == {reason: 1}


@pytest.mark.parametrize("method", ["dpo", "kto", "simpo", "reward"])
def test_a_stream_is_for_methods_that_look_at_no_other_row(settings, rows, tmp_path, capsys, method):
    found = [json.loads(line) for line in rows(data_of(method)).read_text().splitlines()]
    status = command(settings(method), found, tmp_path, "--data.stream", "--train.steps", "3")
    assert status == (2 if method in ("dpo", "kto") else 0)
    said = "needs all rows before it starts; leave --data.stream out, or use --method orpo or simpo"
    assert (said in capsys.readouterr().err) == (method in ("dpo", "kto"))


def test_bad_rows_can_be_skipped(settings, tmp_path):
    rows = [*GOOD, {"chosen": talk("what?", "a"), "rejected": talk("where?", "b")}]
    assert command(settings("dpo"), rows, tmp_path, "--data.skip_bad") == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["data"]["skipped"] == 1


def test_kto_with_one_prompt_held_out_borrows_the_answer_of_another(settings, tmp_path):
    """Few rows hold out a single prompt: what it is compared with comes from the rows that are learned."""
    rows = [{"prompt": f"{w} {i}?", "completion": w, "label": bool(i % 2)} for i, w in enumerate(WORDS[:6])]
    assert command(settings("kto"), rows, tmp_path) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["data"]["held_out"] == 1


def test_pairs_of_a_prompt_are_one_example_of_a_reward_model(settings, tmp_path):
    """Each answer once: as rankings, half as many rows as pairs, and fewer tokens; --no-ranking.gather leaves pairs."""
    rows = [
        row for r in GOOD for row in (r, r | {"chosen": r["rejected"], "rejected": "what?"}, r | {"rejected": "what?"})
    ]
    assert command(settings("reward"), rows, tmp_path, "--ranking.loss", "plackett-luce") == 0
    together = json.loads((tmp_path / "run" / "result.json").read_text())
    assert command(settings("reward", "apart"), rows, tmp_path, "--no-ranking.gather") == 0
    apart = json.loads((tmp_path / "apart" / "result.json").read_text())
    assert together["data"]["rows"] + together["data"]["held_out"] == 12
    assert apart["data"]["rows"] + apart["data"]["held_out"] == 36
    assert together["tokens"] < apart["tokens"] / 1.5
    assert command(settings("dpo", "dpo"), rows, tmp_path) == 0
    assert json.loads((tmp_path / "dpo" / "result.json").read_text())["data"]["rows"] == apart["data"]["rows"]
    assert command(settings("dpo", "joined"), rows, tmp_path, "--ranking.gather") == 0
    assert json.loads((tmp_path / "joined" / "result.json").read_text())["data"]["rows"] == together["data"]["rows"]
