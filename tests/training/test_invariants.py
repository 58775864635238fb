"""What must hold for every method: a new row of METHODS cannot skip these."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from conftest import gradient, random_tree, tiny_model
from luthier.config.run import RunConfig
from luthier.core.types.examples import Chat, Labelled, Preference, Text
from luthier.model.adapt import heads
from luthier.model.forward import forward
from luthier.text.loss_weights import RULES
from luthier.text.pack import pack
from luthier.training.method_table import METHODS
from luthier.training.steps import OfflineSteps, Packing, make_step, scoring_batches
from luthier.tune.evaluator import loss_of


def trees(count=12, seed=0, method="sft"):
    """Random trees as `method` takes them, with all the columns it reads."""
    draw = random.Random(seed)
    prefix = tuple(draw.randrange(512) for _ in range(6))
    example = METHODS[method].example
    if (Chat in example and Preference not in example) or (Text in example and Preference not in example):
        return [random_tree(draw, prefix=prefix, row=i) for i in range(count)]
    out = []
    for i in range(count):
        leaves = 1 if Labelled in example else draw.randint(2, 4)
        tree = random_tree(draw, prefix=prefix, row=i, children=leaves, longest=12)
        pairs = tuple((a, b) for a in range(leaves) for b in range(a + 1, leaves))
        if METHODS[method].online:
            names = ("advantage", "old_logp", "reference", "old_value", "return")
            given = {name: [draw.gauss(0, 1) - 3 * (name in names[1:3]) for _ in range(tree.trained)] for name in names}
            out.append(replace(tree, target_columns=given))
            continue
        columns = {"label": i % 3 > 0, "baseline": 0.3} if Labelled in example else {"margin": 0.1 * i}
        given = {"reference": [-3.0 * len(tree.nodes[leaf].ids) for leaf in tree.leaves], "rank": list(range(leaves))}
        out.append(replace(tree, pairs=pairs, columns=columns, leaf_columns=given))
    return out


def step_gradient(method, micro, dtype=torch.float64):
    model = tiny_model(dtype=dtype)
    row = METHODS[method]
    heads.attach(model, heads.widths(row.needs))
    for head in heads.on(model).values():
        torch.nn.init.normal_(head.weight)
    value, loss_of_batch = 0.0, loss_of(row, RunConfig())
    for batch in micro:
        loss = loss_of_batch(batch, forward(model, batch, row.needs)).total
        loss.backward()
        value += float(loss.detach())
    return value, gradient(model)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tokens", [32, 64, 10_000])
def test_accumulation_changes_no_gradient(method, rule, tokens):
    """trl#2175, transformers#35438, unsloth#3253 #4725 #8261, axolotl#1100: 32x1 differs from 1x32."""
    one = make_step(trees(method=method), RULES[rule], Packing(10_000))
    many = make_step(trees(method=method), RULES[rule], Packing(tokens))
    assert len(one.micro) == 1
    assert len(many.micro) > 1 or tokens == 10_000
    (value, whole), (value2, parts) = step_gradient(method, one.micro), step_gradient(method, many.micro)
    assert value2 == pytest.approx(value, rel=1e-6)
    assert float((whole - parts).norm() / whole.norm()) < 1e-6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", ["padded", "unshared", "reordered"])
def test_how_a_step_is_packed_changes_no_gradient(method, change):
    rows = trees(method=method)
    weights, each = RULES["token"](rows), 1 / len(rows)
    plain = pack(rows, weights, tree_weight=each)
    if change == "padded":
        other = pack(rows, weights, tree_weight=each, pad_to=256)
    elif change == "unshared":
        other = pack(rows, weights, tree_weight=each, share=False)
    else:
        order = list(reversed(range(len(rows))))
        other = pack([rows[i] for i in order], [weights[i] for i in order], tree_weight=each)
    (value, first), (value2, second) = step_gradient(method, [plain]), step_gradient(method, [other])
    assert value2 == pytest.approx(value, rel=1e-6)
    assert float((first - second).norm() / first.norm()) < 1e-6


@pytest.mark.parametrize("method", ["sft", "cpt"])
def test_a_step_is_the_mean_over_all_its_tokens_not_a_mean_of_means(method):
    """The loss of a step equals the token mean over its rows one by one; averaging rows would not."""
    rows = trees()
    model = tiny_model(dtype=torch.float64)
    with torch.no_grad():
        sums = [-float(forward(model, pack([r], [[1.0] * r.trained])).logp.sum()) for r in rows]
    counts = [r.trained for r in rows]
    value, _ = step_gradient(method, make_step(rows, RULES["token"], Packing(64)).micro)
    assert value == pytest.approx(sum(sums) / sum(counts), rel=1e-6)
    of_means = sum(s / c for s, c in zip(sums, counts, strict=True)) / len(rows)
    assert abs(of_means - value) > 1e-3 * value


@pytest.mark.parametrize("tokens", [40, 100, 5000])
def test_evaluation_does_not_depend_on_its_batches(tokens):
    """transformers#39241 #24839, axolotl#3465: evaluation loss depends on batch size or packing."""
    rows = trees()
    model = tiny_model(dtype=torch.float64)
    nats, count = 0.0, 0
    with torch.no_grad():
        for batch in scoring_batches(rows, Packing(tokens)):
            logp = forward(model, batch).logp
            nats, count = nats - float(logp.sum()), count + logp.numel()
        reference = forward(model, pack(rows, [[1.0] * r.trained for r in rows], share=False)).logp
    assert count == reference.numel()
    assert nats == pytest.approx(-float(reference.sum()), rel=1e-6)


def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own():
    rows = trees(10)
    steps = OfflineSteps(rows, 4, 25, RULES["token"], Packing(10_000), seed=3)
    assert len(steps) == 7
    seen = [row for i in range(len(steps)) for batch in steps.step(i).micro for row in batch.rows]
    assert len(seen) == 25
    order = [rows[i].row for i in steps._at(0, 25)]
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20]
    again = OfflineSteps(rows, 4, 25, RULES["token"], Packing(10_000), seed=3)
    assert steps.step(5).micro[0].tokens.tolist() == again.step(5).micro[0].tokens.tolist()
