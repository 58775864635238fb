"""The same numbers on a GPU as on a processor: forward, gradients, generation, quantization, whole runs."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import pytest
import torch

from conftest import gradient, random_tree, tiny_model
from luthier.config.model import QuantConfig
from luthier.config.resolve import resolve
from luthier.core.types.batch import Needs
from luthier.generate.generate import generate
from luthier.generate.sampling import Sampling
from luthier.model.adapt.base import quantize_base
from luthier.model.forward import forward
from luthier.model.layers import flex
from luthier.model.layers.plan import TreePlan
from luthier.model.layers.scoring import Local, Scoring
from luthier.text.pack import pack
from luthier.tune.train import run
from luthier.tune.verify import resume

if not torch.cuda.is_available():
    pytest.skip("no CUDA device here", allow_module_level=True)
CUDA = torch.device("cuda")


WIDTHS = [32, 64]  # heads of 8, which attend in padded groups, and of 16, which the block-sparse kernel takes


def batch(seed: int, children: tuple[int, ...] = (2, 0, 3), longest: int = 90, pad_to: int = 1):
    draw = random.Random(seed)
    prefix = tuple(draw.randrange(512) for _ in range(17))
    trees = [random_tree(draw, prefix=prefix, children=c, row=i, longest=longest) for i, c in enumerate(children)]
    return pack(trees, [[(i + k) % 5 + 0.5 for k in range(t.trained)] for i, t in enumerate(trees)], pad_to=pad_to)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pad_to", [1, 128])
@pytest.mark.parametrize("width", WIDTHS)
def test_log_probabilities_and_gradients_are_those_of_the_processor(seed, pad_to, width):
    packed = batch(seed, longest=40 * (seed + 1), pad_to=pad_to)
    here = tiny_model(hidden_size=width)
    there = copy.deepcopy(here).to(CUDA)
    ours, theirs = forward(here, packed, Needs(entropy=True)), forward(there, packed.to(CUDA), Needs(entropy=True))
    torch.testing.assert_close(theirs.logp.cpu(), ours.logp, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(theirs.entropy.cpu(), ours.entropy, atol=2e-5, rtol=1e-5)
    (ours.logp * packed.weight).sum().backward()
    (theirs.logp * packed.weight.to(CUDA)).sum().backward()
    ours, theirs = gradient(here), gradient(there).cpu()
    assert float((ours - theirs).norm() / ours.norm()) < 1e-4


def test_the_block_sparse_kernel_is_what_wide_heads_take(monkeypatch):
    monkeypatch.setattr(flex, "compiled", None)
    packed = batch(3, pad_to=128).to(CUDA)
    model = tiny_model(hidden_size=64).to(CUDA)
    forward(model, packed)
    assert flex.compiled not in (None, False)


@pytest.mark.parametrize("width", WIDTHS)
def test_bfloat16_stays_near_float32(width):
    packed = batch(5)
    here = tiny_model(hidden_size=width)
    there = copy.deepcopy(here).to(CUDA, torch.bfloat16)
    with torch.no_grad():
        ours, theirs = forward(here, packed).logp, forward(there, packed.to(CUDA)).logp.cpu()
    assert float((ours - theirs).abs().mean()) < 0.05


@pytest.mark.parametrize(
    "scoring",
    [
        Scoring(0.25),
        Scoring(0.25, Local(8)),
        Scoring(0.25, Local(8, chunked=True)),
        Scoring(0.25, softcap=1.5),
        Scoring(0.25, Local(8), sinks=torch.tensor([0.5, -1.0, 2.0, 0.0])),
    ],
    ids=["plain", "window", "chunks", "softcap", "sinks"],
)
def test_what_layers_ask_of_attention_is_on_the_gpu_what_it_is_on_the_processor(scoring):
    packed = batch(7)
    q, k, v = (torch.randn(1, heads, len(packed.tokens), 16, requires_grad=True) for heads in (4, 2, 2))
    there = replace(scoring, sinks=None if scoring.sinks is None else scoring.sinks.to(CUDA))
    ours = TreePlan(packed, torch.device("cpu")).attend(0, q, k, v, scoring)
    theirs = TreePlan(packed.to(CUDA), CUDA).attend(0, q.to(CUDA), k.to(CUDA), v.to(CUDA), there)
    torch.testing.assert_close(theirs.cpu(), ours, atol=1e-5, rtol=1e-5)
    slope = torch.randn_like(ours)
    wanted = torch.autograd.grad(ours, (q, k, v), slope)
    found = torch.autograd.grad(theirs, (q, k, v), slope.to(CUDA))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_makes_the_tokens_of_the_processor(temperature):
    draw = random.Random(1)
    prompts = [[draw.randrange(512) for _ in range(draw.randint(3, 60))] for _ in range(5)]
    sampling = Sampling(temperature=temperature, max_new_tokens=24, n=3, seed=4)
    here = tiny_model()
    there = copy.deepcopy(here).to(CUDA)
    ours = generate(here, prompts, sampling, str, batch=4)
    theirs = generate(there, prompts, sampling, str, batch=7)
    same = [a == b for x, y in zip(ours, theirs, strict=True) for a, b in zip(x.ids, y.ids, strict=True)]
    assert sum(same) / len(same) > 0.97  # float rounding may turn a near tie
    whole = torch.tensor([list(prompts[0]) + list(theirs[0].ids)], device=CUDA)
    with torch.no_grad():
        plain = tiny_model("eager").to(CUDA)(whole).logits[0].log_softmax(-1)
    at = len(prompts[0]) - 1
    wanted = [float(plain[at + i, token]) for i, token in enumerate(theirs[0].ids)]
    torch.testing.assert_close(torch.tensor(theirs[0].logp), torch.tensor(wanted), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantized_weights_are_the_same_on_the_gpu(kind):
    here = tiny_model(hidden_size=64)
    there = copy.deepcopy(here).to(CUDA)
    for model in (here, there):
        quantize_base(model, QuantConfig(kind=kind, block=32))
    packed = batch(2)
    ours, theirs = forward(here, packed).logp, forward(there, packed.to(CUDA)).logp.cpu()
    torch.testing.assert_close(theirs, ours, atol=2e-4, rtol=1e-4)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    words = ["the", "cat", "sat", "on", "mat", "red", "blue", "tree"]
    draw = random.Random(0)
    with open(path, "w") as handle:
        for i in range(48):
            question = " ".join(draw.choice(words) for _ in range(draw.randint(2, 8)))
            handle.write(json.dumps({"prompt": f"{question} {i}?", "completion": question.split()[0]}) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    """A model whose heads the block-sparse kernel takes."""
    path = tmp_path_factory.mktemp("models") / "wide"
    model = tiny_model("sdpa", vocabulary=len(tiny_tokenizer) + 5, hidden_size=64)
    model.generation_config.eos_token_id = tiny_tokenizer.eos_token_id
    model.save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def settings(folder, rows, tmp_path):
    def make(**changes):
        base = {
            "model": str(folder), "data.path": [str(rows)], "out": str(tmp_path / "run"), "train.batch": 4,
            "train.tokens": 256, "train.checkpoint": 3, "train.keep": 9, "data.holdout": 0.2, "eval.max_new_tokens": 8,
            "lora.rank": 4, "device": "cuda", "dtype": "float32", "train.lr": 1e-2, "train.epochs": 2,
        }  # fmt: skip
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


@pytest.mark.parametrize("tune", ["lora", "full", "head", "last:1", "qlora"])
def test_a_run_learns_what_it_learns_on_the_processor(settings, tmp_path, tune):
    few = {"tune": tune, "train.lr": 1e-3, "train.steps": 6}  # rounding grows with each step of Adam
    ours = run(resolve(settings(**few, device="cpu", out=str(tmp_path / "cpu"))))
    theirs = run(resolve(settings(**few)))
    assert theirs["loss"]["last"] == pytest.approx(ours["loss"]["last"], rel=0.02)
    assert theirs["loss"]["first"] == pytest.approx(ours["loss"]["first"], rel=1e-4)
    assert theirs["metrics"]["loss"]["after"] == pytest.approx(ours["metrics"]["loss"]["after"], rel=0.02)


@pytest.mark.parametrize(("tune", "dtype"), [("lora", "bfloat16"), ("full", "bfloat16"), ("qlora", "bfloat16")])
def test_a_run_in_bfloat16_learns(settings, tune, dtype):
    result = run(resolve(settings(tune=tune, dtype=dtype, train__optimizer="adamw8bit")))
    assert result["metrics"]["loss"]["after"] < result["metrics"]["loss"]["before"]


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("narrow", [False, True])
def test_resume_gives_the_same_bits(settings, tiny_folder, tmp_path, dtype, tune, narrow):
    """`luthier verify`: the last steps done again from a checkpoint; narrow heads attend in groups."""
    changes = {"model": str(tiny_folder)} if narrow else {}
    run(resolve(settings(dtype=dtype, tune=tune, lora__dropout=0.1, **changes)))
    found = resume(tmp_path / "run")
    assert found["same_bits"], found


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_online_methods_run(settings, method):
    changes = {
        "method": method, "reward.use": ["length:8"], "rollout.samples": 4, "rollout.max_new_tokens": 8,
        "train.steps": 3, "train.lr": 1e-3, "data.holdout": 0.2,
    }  # fmt: skip
    result = run(resolve(settings(tune="lora") | changes))
    assert result["steps"] == 3
    assert "reward" in result["metrics"]


def test_preference_learning_runs(settings, tmp_path):
    path = tmp_path / "pairs.jsonl"
    with open(path, "w") as handle:
        for i in range(40):
            handle.write(json.dumps({"prompt": f"cat {i}?", "chosen": "the mat", "rejected": "red tree"}) + "\n")
    for method in ("dpo", "reward"):
        changes = {"data.path": [str(path)], "method": method, "out": str(tmp_path / method)}
        result = run(resolve(settings() | changes))
        assert result["loss"]["last"] < result["loss"]["first"]
