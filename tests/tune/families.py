"""Whole runs of today's families, and what they come to beside transformers and PEFT.

Of a run the batches of its own first step are taken again, at its start and at its last checkpoint: log-probabilities and gradients
are those of transformers' eager attention over padded separate sequences, or differ by what is found here. The gradients of an
adapter follow from that of the weight it changes: of W + s B A with gradient G they are s B^T G and s G A^T.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from luthier.cli import run as cli
from luthier.core.stop import stopping
from luthier.core.types.batch import Batch
from luthier.export.merge import merge
from luthier.generate.generate import generate
from luthier.generate.sampling import Sampling
from luthier.model.adapt import lora
from luthier.model.adapt.lora_stack import LoraStack
from luthier.model.forward import forward
from luthier.runs.folder import RunFolder, read_run
from luthier.runs.method import chosen_method
from luthier.runs.open import open_model
from luthier.runs.rows import read_examples
from luthier.runs.tokenizer_and_template import open_text_format
from luthier.training import checkpoint
from luthier.training.passes import by_batch
from luthier.tune import build, training_steps
from luthier.tune.evaluator import loss_of
from luthier.tune.prepare import encode_all
from tiny_architectures import make

FAMILIES = {
    "qwen3_5_text": "Qwen3.5", "qwen3_5": "Qwen3.5, text and pictures", "qwen3_5_moe_text": "Qwen3.5 MoE",
    "qwen3_5_moe": "Qwen3.5 MoE, text and pictures", "gemma4_text": "Gemma 4", "gemma4": "Gemma 4, text and pictures",
    "gpt_oss": "gpt-oss", "lfm2": "LFM2", "granitemoehybrid": "Granite 4, hybrid with experts", "qwen3_moe": "Qwen3 MoE",
    "glm4_moe": "GLM-4 MoE", "deepseek_v3": "DeepSeek V3",
}  # fmt: skip
SETTINGS = {
    "train.batch": 4, "train.steps": 4, "train.checkpoint": 2, "train.keep": 9, "train.tokens": 96, "train.lr": 0.01,
    "data.holdout": 0.2, "eval.max_new_tokens": 6, "eval.rows": 2, "eval.samples": 2, "lora.rank": 4, "quant.block": 16,
    "threads": 1, "device": "cpu", "dtype": "float32",
}  # fmt: skip
REWARDED = {"rollout.samples": 4, "rollout.max_new_tokens": 6}
REWARD = "def letters(answers):\n    return [len(set(answer)) / 6 for answer in answers]\n"  # one that tells random answers apart
LIMIT = 1e-4
SHORT = {"eval__forgetting": False}  # what the weights do not depend on
WORDS = ("red", "blue", "one", "two", "three", "who")
PAIR = "the cat sat on the tree", "a dog ran by a mat and sat"


@dataclass(frozen=True)
class Apart:
    """Largest difference of log p, and the relative one of the gradients."""

    logp: float
    gradient: float = 0.0

    def worst(self, other: Apart) -> Apart:
        return Apart(max(self.logp, other.logp), max(self.gradient, other.gradient))


def rows(folder: Path) -> dict[str, Path]:
    """The same dozen questions with answers, and with a better and a worse one."""
    asked = [f"the {WORDS[i % 6]} cat {'sat ' * (i % 4)}{i}?" for i in range(12)]
    of = {
        "sft": [{"prompt": q, "completion": f"{WORDS[i % 5]} mat"} for i, q in enumerate(asked)],
        "dpo": [{"prompt": q, "chosen": f"{WORDS[i % 5]} mat", "rejected": f"no {q}"} for i, q in enumerate(asked)],
    }
    out = {}
    for name, written in of.items():
        out[name] = folder / f"{name}.jsonl"
        out[name].write_text("".join(json.dumps(row) + "\n" for row in written))
    return out | {"grpo": out["sft"]}


def train(model: Path, out: Path, method: str, tune: str, **changes: Any) -> int:
    """`luthier train` with these settings, in this process: its exit status."""
    named = {"model": model, "out": out, "method": method, "tune": tune} | SETTINGS
    if method == "grpo":
        code = out.parent / "letters.py"
        code.write_text(REWARD)
        named |= REWARDED | {"reward.use": f"python:{code}:letters"}
    named |= {k.replace("__", "."): v for k, v in changes.items()}
    options = [part for name, value in named.items() if value is not False for part in (f"--{name}", str(value))]
    options += [f"--no-{name}" for name, value in named.items() if value is False]
    return cli(["train", str(rows(out.parent)[method]), *options])


def stopped_after(step: int, *run: Any, **changes: Any) -> int:
    """Begin a run as `train` does, and end it by a signal after this step."""
    noted = training_steps.log_step

    def note(folder: RunFolder, progress: Any, report: Any, *rest: Any) -> None:
        noted(folder, progress, report, *rest)
        if report.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with patch.object(training_steps, "log_step", note):
        return train(*run, **changes)


def learned(run: Path) -> dict[str, torch.Tensor]:
    """The weights that a run wrote."""
    return load_file(next(run.glob("a*/adapter_model.safetensors"), run / "model" / "model.safetensors"))


def transformers_model(folder: Path, kind: type, dtype: torch.dtype = torch.float32) -> Any:
    """The model in `folder` as transformers computes it: eager attention, and each expert's product by itself."""
    ways = {"attn_implementation": "eager", "experts_implementation": "eager"}
    return kind.from_pretrained(folder, dtype=dtype, **ways).eval()  # type: ignore[attr-defined]


def beside_transformers(run: Path) -> Apart:
    """The first step of a run that learns lora or full weights, at its start and of an adapter also at its last checkpoint."""
    folder, config = read_run(run)
    with stopping() as stop:
        examples, texts = read_examples(config, chosen_method(config).example), open_text_format(config)
        job = build.TrainingJob(config, folder, examples, texts, encode_all(examples, texts, config, stop), stop)
        setup = build.assemble(job)
        if chosen_method(config).reference:
            build.add_reference_logps(job, setup, build.packing_of(config, setup.state.model), ())
        found = _first_step(setup, config)
        if config.tune == "lora":
            build.load_checkpoint(setup, checkpoint.load(checkpoint.whole(folder.checkpoints)[-1]))
            found = found.worst(_first_step(setup, config))
        job.close_rewards()
    return found


def _first_step(setup: build.TrainingSetup, config: Any) -> Apart:
    """Beside transformers in float32; where that is further than `LIMIT`, beside float64, which tells whose rounding it is: gradients of
    Qwen3.5 MoE are rounded by transformers' float32 twice as much as by ours."""
    found = _beside(setup, config, torch.float32)
    return found if max(found.logp, found.gradient) < LIMIT else _beside(setup, config, torch.float64)


def _beside(setup: build.TrainingSetup, config: Any, dtype: torch.dtype) -> Apart:
    model, method = setup.state.model.train(), chosen_method(config)
    base, theirs = (transformers_model(Path(config.model), type(model), dtype) for _ in range(2))
    adapted = dict(lora.adapters(model))
    with torch.no_grad():
        for name, adapter in adapted.items():
            _weight(theirs, name).add_(_as_it_lies(adapter, adapter.scale * (adapter.B @ adapter.A)))
    step, loss = setup.steps.step(0), loss_of(method, config)
    assert step is not None and len(step.micro) > 1
    plays = setup.policy_models.forward if setup.policy_models else forward
    read, apart = partial(plays, needs=method.needs), 0.0
    for part in by_batch(list(enumerate(step.micro)), lambda number, batch: read(model, batch), loss):
        batch = step.micro[part.number]
        with torch.no_grad():
            ours = read(model, batch)
        alone = separate(theirs, batch)
        apart = max(apart, float((ours.logp - alone).detach().abs().max()))
        result = loss(_of_base(batch, base, method), replace(ours, logp=alone))
        apart = max(apart, abs(float(result.total.detach()) - part.value))
        result.total.backward()
    gradients = _gradients(setup.tuned.parameters, theirs, adapted)
    for parameter in setup.tuned.parameters.values():
        parameter.grad = None
    return Apart(apart, gradients)


def _of_base(batch: Batch, base: Any, method: Any) -> Batch:
    """The batch with the reference's log-probabilities as transformers has them."""
    if not method.reference:
        return batch
    sums = torch.zeros(len(batch.leaf_tree), dtype=base.dtype).index_add(0, batch.leaf, separate(base, batch).detach())
    return replace(batch, columns={**batch.columns, "reference": sums})


def separate(model: Any, batch: Batch) -> torch.Tensor:
    """log p of every target of a packed batch, each path of its trees a sequence of its own, padded at its end."""
    paths: list[list[int]] = []
    for node, parent in enumerate(batch.node_parent):
        above = paths[parent] if parent >= 0 else []
        paths.append([*above, *range(batch.node_start[node], batch.node_start[node + 1])])
    longest = max(map(len, paths))
    mask = torch.tensor([[1] * len(path) + [0] * (longest - len(path)) for path in paths])
    places = torch.tensor([path + [0] * (longest - len(path)) for path in paths])
    logp = model(input_ids=batch.tokens[places], attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    starts = torch.tensor(batch.node_start)
    row = torch.searchsorted(starts, batch.source, right=True) - 1
    depth = torch.tensor([len(path) for path in paths])[row] - starts[row + 1] + batch.source
    return logp[row, depth, batch.label]


def _weight(model: Any, name: str) -> torch.nn.Parameter:
    """The weight that an adapter called `name` changes: of a layer, or a stack of experts."""
    found = model.get_submodule(name.rpartition(".")[0])
    found = getattr(found, name.rpartition(".")[2])
    return found if isinstance(found, torch.nn.Parameter) else found.weight


def _as_it_lies(adapter: Any, dense: torch.Tensor) -> torch.Tensor:
    return dense.mT if isinstance(adapter, LoraStack) and adapter.base.transposed else dense


@torch.no_grad()
def _gradients(parameters: Mapping[str, torch.Tensor], theirs: Any, adapted: Mapping[str, Any]) -> float:
    """|difference| over |gradient|, of all that learns."""
    wanted = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, adapter in adapted.items():
        weight = _weight(theirs, name)
        slope = _as_it_lies(adapter, torch.zeros_like(weight) if weight.grad is None else weight.grad) * adapter.scale
        a, b = adapter.A.to(slope.dtype), adapter.B.to(slope.dtype)
        wanted |= {f"{name}.A": b.mT @ slope, f"{name}.B": slope @ a.mT}
    apart = whole = 0.0
    for name, parameter in parameters.items():
        want, found = (torch.zeros_like(parameter) if g is None else g for g in (wanted[name], parameter.grad))
        apart += float((found - want).double().square().sum())
        whole += float(want.double().square().sum())
    assert whole > 0
    return float((apart / whole) ** 0.5)


def of_folder(run: Path, folder: Path) -> Apart:
    """The model that a run wrote into `folder`, as transformers loads it, beside the run: log p, and greedy answers, which must be
    the same tokens."""
    opened = open_model(str(run), device="cpu", dtype="float32")
    theirs = transformers_model(folder, type(opened.model))
    theirs.generation_config.eos_token_id = None
    for text in PAIR:
        ids = opened.tokenizer.encode(text)
        (answer,) = generate(opened.model, [ids], Sampling(max_new_tokens=8, temperature=0.0), lambda ids: "")
        made = theirs.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)
        assert made[0, len(ids) :].tolist() == list(answer.ids), text
    return Apart(_apart(opened, theirs))


def of_merged(run: Path) -> Apart:
    """The same of what `luthier merge` writes."""
    return of_folder(run, Path(merge(run, None, "float32")["merged"]))


def of_peft(run: Path, base: Path) -> Apart:
    """The adapter of a run as PEFT loads it, beside the run."""
    from peft import PeftModel

    opened = open_model(str(run), device="cpu", dtype="float32")
    adapted = PeftModel.from_pretrained(transformers_model(base, type(opened.model)), run / "adapter")
    return Apart(_apart(opened, adapted))


@torch.no_grad()
def _apart(opened: Any, theirs: Any) -> float:
    from luthier.core.types.trees import Node, TokenTree
    from luthier.text.pack import pack

    ids = [tuple(opened.tokenizer.encode(text)) for text in PAIR]
    trees = [TokenTree((Node(row, (False,) + (True,) * (len(row) - 1)),), row=n) for n, row in enumerate(ids)]
    batch = pack(trees, [[1.0] * tree.trained for tree in trees])
    return float((forward(opened.model, batch).logp - separate(theirs, batch)).abs().max())


@dataclass(frozen=True)
class Verified:
    """What the runs of a family came to: of each what is apart from transformers or PEFT, and which resumed to the same bits."""

    sft: Apart
    dpo: Apart
    grpo: Apart
    qlora: Apart
    peft: Apart
    merged: Apart
    resumed: tuple[str, ...]

    @property
    def exact(self) -> bool:
        parts = [part for part in vars(self).values() if isinstance(part, Apart)]
        return all(max(part.logp, part.gradient) < LIMIT for part in parts) and "sft" in self.resumed


def verify(kind: str, folder: Path, tokenizer: Any) -> Verified:
    """Make a tiny model of a family below `folder`, tune it in every way, and hold each run against transformers. Fails where a
    run or a command does, or an answer is another."""
    base = make(kind, folder / kind, tokenizer)
    runs = {name: folder / name for name in ("sft", "dpo", "grpo", "full", "nf4", "int8")}
    assert train(base, runs["sft"], "sft", "lora") == 0
    for method in ("dpo", "grpo"):
        assert train(base, runs[method], method, "lora", **SHORT) == 0
    assert train(base, runs["full"], "sft", "full", **SHORT) == 0
    for quant in ("nf4", "int8"):
        assert train(base, runs[quant], "sft", "qlora", quant__kind=quant, **SHORT) == 0
    for run in runs.values():
        assert set(json.loads((run / "result.json").read_text())["metrics"]["loss"]) >= {"before", "after"}
        assert (run / "report.html").stat().st_size > 0
    use(runs["sft"], base)
    return Verified(
        sft=beside_transformers(runs["sft"]).worst(beside_transformers(runs["full"])).worst(
            of_folder(runs["full"], runs["full"] / "model")
        ),
        dpo=beside_transformers(runs["dpo"]),
        grpo=beside_transformers(runs["grpo"]),
        qlora=of_merged(runs["nf4"]).worst(of_merged(runs["int8"])),
        peft=of_peft(runs["sft"], base),
        merged=of_merged(runs["sft"]),
        resumed=tuple(method for method in RESUMED.get(kind, ("sft",)) if resumes(runs[method], base)),
    )  # fmt: skip


RESUMED = dict.fromkeys(
    ("lfm2", "granitemoehybrid", "qwen3_moe"), ("sft", "grpo")
)  # stopped and gone on with; others by sft


def resumes(run: Path, base: Path) -> bool:
    """Whether the same run, stopped after two of its four steps and gone on with, ends with the same bits."""
    config = read_run(run)[1]
    again = (base, run.with_name(f"{run.name}-again"), config.method, config.tune)
    assert stopped_after(2, *again, **SHORT) != 0
    assert not (again[1] / "result.json").exists()
    assert train(*again, **SHORT) == 0
    whole, parts = learned(run), learned(again[1])
    return whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def use(run: Path, base: Path) -> None:
    """Chat with a run, measure it, compare it with its base: each ends well."""
    piqa = run.parent / "benchmarks"
    piqa.mkdir()
    asked = [{"goal": f"sit {i}", "sol1": "the cat sat", "sol2": "a dog ran", "label": i % 2} for i in range(4)]
    (piqa / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    there = ("--dtype", "float32", "--threads", "1")
    held_out = rows(run.parent)["sft"]
    assert cli(["chat", str(run), "--prompt", "the cat?", "--max-new-tokens", "4", "--threads", "1"]) == 0
    assert cli(["eval", str(run), "--tasks", "piqa", "--data-dir", str(piqa), *there]) == 0
    more = ("--eval.max_new_tokens", "4", "--eval.rows", "4", "--eval.samples", "4")
    assert cli(["compare", str(base), str(run), "--data", str(held_out), *more, *there]) == 0
