"""Every method moves what it is for, on held-out rows of a toy, in 30 steps: catches signs, scales, swapped pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch

from conftest import WORDS, medium_but, tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.config.resolve import resolve
from luthier.core.types.examples import Chat, Example, Labelled, Message, Preference, Ranking, Text
from luthier.model.adapt import heads, tune
from luthier.model.forward import forward
from luthier.text.encode import encode
from luthier.text.loss_weights import RULES
from luthier.text.template import load_template
from luthier.text.tokenizer import Tokenizer
from luthier.training import annotate
from luthier.training.loop import State, train
from luthier.training.method_table import METHODS
from luthier.training.optim import Optimizer
from luthier.training.passes import sums
from luthier.training.steps import OfflineSteps, Packing, scoring_step
from luthier.tune.evaluator import loss_of
from luthier.tune.prepare import arrange_trees
from luthier.tune.train import run

CPU, PACKING = torch.device("cpu"), Packing(512)


def asked(i):
    return (Message("user", f"{WORDS[i % 24]} {WORDS[(7 * i + 5) % 24]} {i}?"),)


def said(text):
    return (Message("assistant", f" {text}"),)


CHATS = [Chat((*asked(i), *said("yes"))) for i in range(40)]
TEXTS = [Text(f"the cat sat by tree {i}, and it is red") for i in range(40)]
PAIRS = [Preference(asked(i), said("yes"), said("no")) for i in range(40)]
RANKINGS = [Ranking(asked(i), (said("no"), said("yes"), said("two"), said("one")), (3, 1, 2, 2)) for i in range(40)]
LABELLED = [Labelled(asked(i), said("yes" if i % 3 else "no"), bool(i % 3)) for i in range(40)]
ACCEPTED, REJECTED = ([(Message("", text.format(word)),) for word in WORDS] for text in ("it is {}, yes", "{}: no"))
BARE = [Preference((), ACCEPTED[i % 24], REJECTED[i % 24]) for i in range(40)]


@dataclass(frozen=True)
class Toy:
    """Rows, of which the last eight are held out; and the least change, with its sign, of what is measured on them."""

    rows: Sequence[Example]
    moves: dict[str, float]
    settings: dict[str, object] = field(default_factory=dict)


REWARD = {"accuracy": 0.4, "margin": 2.0, "loss": -0.5}
DPO = {"accuracy": 0.4, "margin": 0.5, "loss": -0.3}
TOYS = {
    "sft": Toy(CHATS, {"loss": -2.0}),
    "cpt": Toy(TEXTS, {"loss": -2.0}),
    "reward": Toy(PAIRS, REWARD),
    "dpo": Toy(PAIRS, DPO),
    "simpo": Toy(PAIRS, {"margin": 2.0, "loss": -1.0}),
    "orpo": Toy(PAIRS, {"margin": 0.1, "chosen_logp": 4.0, "loss": -2.0}),
    "kto": Toy(LABELLED, {"accuracy": 0.4, "reward_wanted": 0.3, "reward_unwanted": -0.3, "loss": -0.1}),
    "response": Toy(BARE, {"accuracy": 0.4, "margin": 0.2, "chosen_logp": 4.0, "loss": -2.0}),
    "ppo": Toy(CHATS, {"reward": 0.3}),
    "grpo": Toy(CHATS, {"reward": 0.3}),
}
# The same methods where another setting or kind of row is another loss.
MORE = {
    "dpo ipo": Toy(PAIRS, {"accuracy": 0.4, "margin": 0.1, "loss": -5.0}, {"preference.loss": "ipo"}),
    "dpo hinge": Toy(PAIRS, {"accuracy": 0.4, "margin": 0.5, "loss": -0.5}, {"preference.loss": "hinge"}),
    "dpo robust": Toy(PAIRS, DPO, {"preference.loss": "robust", "preference.smoothing": 0.1}),
    "dpo rankings": Toy(RANKINGS, DPO),
    "dpo likelihood": Toy(PAIRS, {"margin": 0.3, "chosen_logp": 4.0, "loss": -2.0}, {"preference.likelihood": 1.0}),
    "reward rankings": Toy(RANKINGS, REWARD),
    "reward plackett-luce": Toy(RANKINGS, REWARD, {"ranking.loss": "plackett-luce"}),
    "orpo demonstrations": Toy(CHATS, {"loss": -2.0}),
    "orpo all": Toy(PAIRS, {"margin": 0.1, "chosen_logp": 4.0, "loss": -1.0}, {"preference.span": "all"}),
}


def measured(model, trees, method, config):
    """The mean loss per unit on `trees`, and what the method reports beside it."""
    row, found, amount, units = METHODS[method], {}, 0.0, 0
    step = scoring_step(trees, PACKING)
    if step.auxiliary:
        step = annotate.baseline(forward, model, step, CPU)
    model.eval()
    with torch.no_grad():
        for batch in step.micro:
            loss = loss_of(row, config)(batch, forward(model, batch, row.needs))
            amount, units = amount + float(loss.each.sum()), units + int(loss.count.sum())
            for name, (value, weight) in sums(loss).items():
                before = found.get(name, (0.0, 0.0))
                found[name] = (before[0] + value, before[1] + weight)
    return {"loss": amount / units, **{name: value / weight for name, (value, weight) in found.items() if weight}}


def learn(method, toy, tokenizer, kind="full"):
    """Before and after 30 steps, on held-out rows."""
    row = METHODS[method]
    config = resolve({"method": method, "train.warmup": 0.0, "train.schedule": "constant", **toy.settings})
    assert all(isinstance(example, row.example) for example in toy.rows)
    trees = arrange_trees(encode(toy.rows, load_template("plain", tokenizer), tokenizer, config.text).trees, config)
    model = tiny_model()
    tuned = tune.prepare(model, kind, LoraConfig(rank=4), QuantConfig(), heads.widths(row.needs))
    learned, held_out = trees[:-8], trees[-8:]
    if row.reference:
        score = partial(annotate.answer_logps, forward, model, packing=PACKING, device=CPU, title="", cancelled=bool)
        learned, held_out = (annotate.reference(part, lambda part: score(trees=part)) for part in (learned, held_out))
    before = measured(model, held_out, method, config)
    steps = OfflineSteps(learned, 8, 240, RULES["token"], PACKING, seed=0)
    state = State(tuned.model, Optimizer(tuned.parameters, config.train, {}))
    aside = partial(annotate.baseline, forward, device=CPU)
    reports = train(
        state, steps, loss_of(row, config), partial(forward, needs=row.needs), config.train, lr=3e-3, seed=0, device=CPU,
        annotate=lambda model, step: aside(model, step) if step.auxiliary else step,
    )  # fmt: skip
    assert len(list(reports)) == 30
    return before, measured(model, held_out, method, config)


def learn_online(method, toy, model, out):
    """The same for a method that samples: a whole run whose reward is an e in the answer."""
    rows = [{"prompt": c.messages[0].content, "completion": c.messages[1].content} for c in toy.rows]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "method": method, "model": str(model), "data.path": [str(out / "rows.jsonl")], "out": str(out / "run"),
        "tune": "full", "train.steps": 30, "train.batch": 4, "train.lr": 3e-3, "eval.max_new_tokens": 5, "eval.samples": 8,
        "eval.forgetting": False, "data.holdout": 0.2, "rollout.samples": 6, "rollout.max_new_tokens": 5, "threads": 1,
        "device": "cpu", "dtype": "float32", "reward.use": ["regex:e"], "text.template": "plain",
    }  # fmt: skip
    metrics = run(resolve(settings))["metrics"]
    return tuple({name: values[when] for name, values in metrics.items()} for when in ("before", "after"))


def assert_moves(before, after, toy):
    for name, least in toy.moves.items():
        change = after[name] - before[name]
        assert change * least > 0 and abs(change) >= abs(least), f"{name}: {before[name]:.3f} -> {after[name]:.3f}"


@pytest.mark.parametrize("method", medium_but(METHODS, "sft", "dpo"))
def test_every_method_learns_its_toy(tiny_tokenizer, tiny_folder, tmp_path, method):
    assert method in TOYS, f"a new method needs a toy: add '{method}' to TOYS"
    toy = TOYS[method]
    if METHODS[method].online:
        before, after = learn_online(method, toy, tiny_folder, tmp_path)
    else:
        before, after = learn(method, toy, Tokenizer(tiny_tokenizer))
    assert_moves(before, after, toy)


@pytest.mark.medium
@pytest.mark.parametrize("name", MORE)
def test_variants_learn_too(tiny_tokenizer, name):
    before, after = learn(name.split()[0], MORE[name], Tokenizer(tiny_tokenizer))
    assert_moves(before, after, MORE[name])
