"""What must hold for every method: a new row of METHODS cannot skip these."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import medium_but, tiny_model
from luthier.config.run import RunConfig
from luthier.core.types.examples import Chat
from luthier.core.types.trees import TokenTree
from luthier.methods.likelihood import likelihood
from luthier.model.forward import forward
from luthier.text.loss_weights import RULES
from luthier.text.pack import pack
from luthier.training.invariants import CHECKS, random_trees, step_gradient
from luthier.training.method_table import METHODS, Method
from luthier.training.steps import OfflineSteps, Packing, make_step, scoring_batches
from luthier.tune.evaluator import loss_of


def trees(count: int = 12) -> list[TokenTree]:
    return random_trees(METHODS["sft"], count)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", medium_but(METHODS, "sft", "dpo"))
def test_what_holds_of_every_method(name, check):
    """trl#2175, transformers#35438, unsloth#3253 #4725 #8261, axolotl#1100: 32x1 differs from 1x32."""
    row = METHODS[name]
    found = CHECKS[check](row, loss_of(row, RunConfig()))
    assert found.holds, found


def test_the_examples_that_it_is_tried_on_make_several_batches_and_share_their_beginnings():
    for row in METHODS.values():
        rows = random_trees(row)
        assert len(make_step(rows, RULES["token"], Packing(64)).micro) > 1
        assert len(make_step(rows, RULES["token"], Packing(10_000)).micro) == 1
        shared, alone = (pack(rows, RULES["token"](rows), share=share) for share in (True, False))
        assert len(shared.tokens) < len(alone.tokens)


def _loss(total, batch, output):
    return replace(likelihood(batch, output), total=total)


calls: list[int] = []


def random_loss(batch, output):
    calls.append(0)
    return _loss(len(calls) * (batch.weight * -output.logp).sum(), batch, output)


def of_its_batch(batch, output):
    """What it reports of an example depends on how many stand beside it."""
    found = likelihood(batch, output)
    return replace(found, each=found.each / len(batch.rows))


WRONG = {
    "micro-batches": lambda batch, output: _loss(-output.logp.mean(), batch, output),
    "padding": lambda batch, output: _loss((batch.weight * -output.logp).sum() / len(batch.tokens), batch, output),
    "sharing": lambda batch, output: _loss((batch.weight * -output.logp).sum() * len(batch.node_parent), batch, output),
    "order": lambda batch, output: _loss(
        (batch.weight * -output.logp * torch.arange(len(batch.weight))).sum(), batch, output
    ),
    "weights": lambda batch, output: _loss((batch.weight**2 * -output.logp).sum(), batch, output),
    "repeatable": random_loss,
    "finite": lambda batch, output: _loss((batch.weight / output.logp.exp()).sum(), batch, output),
    "teaches": lambda batch, output: _loss((batch.weight * 0 * output.logp).sum(), batch, output),
    "reports": of_its_batch,
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.medium
def test_a_loss_that_breaks_a_rule_is_found(name):
    row = Method((Chat,), WRONG[name], "")
    found = CHECKS[name](row, row.loss)
    assert not found.holds, found
    assert CHECKS[name](METHODS["sft"], likelihood).holds


class NotANumber(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


@pytest.mark.parametrize("name", ["micro-batches", "padding"])
@pytest.mark.medium
def test_a_gradient_that_is_not_finite_in_some_batches_is_found(name):
    """The value stays as it is: what is compared must not pass over a gradient that is no number."""
    sizes = []

    def loss(batch, output):
        sizes.append(len(batch.tokens))
        logp = output.logp if len(batch.tokens) == sizes[0] else NotANumber.apply(output.logp)
        return _loss((batch.weight * -logp).sum(), batch, output)

    row = Method((Chat,), loss, "")
    assert not CHECKS[name](row, loss).holds


@pytest.mark.parametrize("method", ["sft", "cpt"])
def test_a_step_is_the_mean_over_all_its_tokens_not_a_mean_of_means(method):
    """The loss of a step equals the token mean over its rows one by one; averaging rows would not."""
    rows = trees()
    model = tiny_model(dtype=torch.float64)
    with torch.no_grad():
        sums = [-float(forward(model, pack([r], [[1.0] * r.trained])).logp.sum()) for r in rows]
    counts = [r.trained for r in rows]
    row, model = METHODS[method], tiny_model(dtype=torch.float64)
    value, _ = step_gradient(model, row, row.loss, make_step(rows, RULES["token"], Packing(64)).micro)
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
    order = [rows[i].row for i in steps.examples_at(0, 25)]
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20]
    again = OfflineSteps(rows, 4, 25, RULES["token"], Packing(10_000), seed=3)
    assert steps.step(5).micro[0].tokens.tolist() == again.step(5).micro[0].tokens.tolist()
