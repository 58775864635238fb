"""What must hold of the loss of every method, tried on a tiny model and random examples of the kind that the method takes.

The gradient of a step depends on its examples alone: not on how they are cut into micro-batches, padded, packed or ordered, nor on
what they share. That follows where a loss is a sum that is linear in `Batch.weight` or `Batch.tree_weight`, of terms that belong to
one example each, and nothing is divided by what a batch holds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from luthier.config.run import RunConfig
from luthier.core.types.batch import Batch, Loss, Output
from luthier.core.types.examples import Chat, Labelled, Preference, Ranking, Text
from luthier.core.types.trees import Node, TokenTree
from luthier.model.adapt import heads
from luthier.model.forward import forward
from luthier.text.loss_weights import RULES
from luthier.text.pack import pack
from luthier.training.method_table import Method
from luthier.training.passes import by_batch, by_step
from luthier.training.steps import Packing, make_step

VOCABULARY = 512
TOLERANCE = 1e-6  # of values and gradients in float64, relative to their size
WHOLE = Packing(10_000)
LossOf = Callable[[Batch, Output], Loss]


@dataclass(frozen=True)
class Check:
    """What was tried and whether it holds. `difference` is relative to what it should be, in words `found`."""

    name: str
    holds: bool
    found: str
    difference: float | None = None


def check(row: Method, loss: LossOf) -> list[Check]:
    """All checks of a method, whose loss has its settings already."""
    return [make(row, loss) for make in CHECKS.values()]


def random_tree(
    draw: random.Random, *, vocabulary: int = VOCABULARY, prefix: tuple[int, ...] = (), children: int = 0, row: int = 0,
    longest: int = 30,
) -> TokenTree:  # fmt: skip
    """A tree of random tokens: a root, part of it trained when it has no children, else trained children."""

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(draw.randint(low, high)))

    root = prefix + ids(2, longest)
    if not children:
        start = draw.randint(len(prefix) + 1, len(root) - 1)
        return TokenTree((Node(root, tuple(i >= start for i in range(len(root)))),), row=row)
    nodes = [Node(root, (False,) * len(root))]
    for _ in range(children):
        child = ids(1, longest // 2)
        nodes.append(Node(child, (True,) * len(child), 0))
    return TokenTree(tuple(nodes), row=row)


def random_trees(row: Method, count: int = 12, seed: int = 0) -> list[TokenTree]:
    """Random trees as a method takes them, which begin alike, with all the columns that it may read."""
    draw = random.Random(seed)
    prefix = tuple(draw.randrange(VOCABULARY) for _ in range(6))
    kinds = set(row.example)
    if not row.online and kinds & {Chat, Text} and not kinds & {Preference, Ranking}:
        trees = [random_tree(draw, prefix=prefix, row=i) for i in range(count)]
    else:
        trees = [_answered(row, draw, prefix, i, Labelled in kinds and not row.online) for i in range(count)]
    if row.tree:
        settings = getattr(RunConfig(), row.section) if row.section else None
        trees = [row.tree(tree, settings) for tree in trees]
    return row.arrange(trees, ()) if row.arrange else trees


def _answered(row: Method, draw: random.Random, prefix: tuple[int, ...], number: int, alone: bool) -> TokenTree:
    """A prompt with one answer or several, and what is known of them."""
    count = 1 if alone else draw.randint(2, 4)
    tree = random_tree(draw, prefix=prefix, row=number, children=count, longest=12)
    if row.online:
        shift = {"old_logp": -3, "reference": -3}
        names = ("advantage", "old_logp", "reference", "old_value", "return")
        columns = {name: [draw.gauss(0, 1) + shift.get(name, 0) for _ in range(tree.trained)] for name in names}
        return replace(tree, target_columns=columns)
    reference = [-3.0 * len(tree.nodes[leaf].ids) for leaf in tree.leaves]
    return replace(
        tree, pairs=tuple((a, b) for a in range(count) for b in range(a + 1, count)),
        columns={"label": number % 3 > 0, "baseline": 0.3} if alone else {"margin": 0.1 * number},
        leaf_columns={"reference": reference, "rank": list(range(count))},
    )  # fmt: skip


def tiny_model(row: Method, dtype: torch.dtype = torch.float64, size: float = 0.15) -> Any:
    """A Llama of two layers with random weights of this size, and the heads that the method needs."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from luthier.model.layers.attention import NAME, register

    register()
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=NAME)
        heads.attach(model, heads.widths(row.needs))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, size)
    return model.to(dtype).eval()


def step_gradient(model: Any, row: Method, loss: LossOf, micro: Sequence[Batch]) -> tuple[float, torch.Tensor]:
    """The loss of a step, and its gradient with respect to all weights as one vector."""
    model.zero_grad(set_to_none=True)

    def read(number: int, batch: Batch) -> Output:
        return forward(model, batch, row.needs)

    numbered = list(enumerate(micro))
    parts = by_step(numbered, micro, read, loss) if row.scope == "step" else by_batch(numbered, read, loss)
    value = sum(part.value for part in parts)
    given = (torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters())
    return value, torch.cat([grad.flatten() for grad in given])


def largest_difference(one: tuple[float, torch.Tensor], other: tuple[float, torch.Tensor]) -> float:
    """The larger of the differences of two losses and of their gradients, relative to the first; infinite where one is not finite."""
    (value, first), (value2, second) = one, other
    size = max(abs(value), 1e-12), max(float(first.norm()), 1e-12)
    return _largest([abs(value2 - value) / size[0], float((second - first).norm()) / size[1]])


def _largest(found: Sequence[float]) -> float:
    """The largest difference; infinite where one is not finite, which `max` alone may pass over."""
    return max(found) if all(map(math.isfinite, found)) else math.inf


def micro_batches(row: Method, loss: LossOf) -> Check:
    """However a step is cut into micro-batches, and by whichever rule its tokens are weighed."""
    trees, model = random_trees(row), tiny_model(row)
    found = []
    for rule in RULES.values():
        whole = step_gradient(model, row, loss, make_step(trees, rule, WHOLE).micro)
        for tokens in (32, 64):
            parts = step_gradient(model, row, loss, make_step(trees, rule, Packing(tokens)).micro)
            found.append(largest_difference(whole, parts))
    return _compared(
        "micro-batches", _largest(found), "the step cut into micro-batches, by every rule of --train.weigh"
    )


def padding(row: Method, loss: LossOf) -> Check:
    """However long the row is padded."""
    return _packed("padding", row, loss, "the row padded to 256 tokens", pad_to=256)


def sharing(row: Method, loss: LossOf) -> Check:
    """Whether what examples begin with is computed once or for each."""
    return _packed("sharing", row, loss, "shared beginnings computed for each example", share=False)


def order(row: Method, loss: LossOf) -> Check:
    """In whichever order the examples stand."""
    return _packed("order", row, loss, "the examples in another order", reverse=True)


def weights(row: Method, loss: LossOf) -> Check:
    """The sum is linear in the weights: those of some examples and those of the others add up, and twice the weights are twice
    the loss."""
    trees, model = random_trees(row), tiny_model(row)
    batch = _pack(trees)
    some = torch.arange(len(batch.rows)) % 3 == 0
    whole = step_gradient(model, row, loss, [batch])
    halves = [step_gradient(model, row, loss, [_weighed(batch, which.double())]) for which in (some, ~some)]
    parts = halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]
    value, gradient = step_gradient(model, row, loss, [_weighed(batch, torch.full((len(batch.rows),), 2.0))])
    largest = _largest([largest_difference(whole, parts), largest_difference(whole, (value / 2, gradient / 2))])
    return _compared("weights", largest, "the weights of some examples and of the others, and twice the weights")


def repeatable(row: Method, loss: LossOf) -> Check:
    """Asked twice, it says the same, and leaves what it was given as it was."""
    trees, model = random_trees(row), tiny_model(row)
    batch = _pack(trees)
    given = batch.weight.clone()
    first, second = (step_gradient(model, row, loss, [batch]) for _ in range(2))
    same = first[0] == second[0] and torch.equal(first[1], second[1])
    if not torch.equal(given, batch.weight):
        return Check("repeatable", False, "it changes the weights of the batch")
    return Check(
        "repeatable",
        same,
        "asked twice" if same else "asked twice, it says two things",
        largest_difference(first, second),
    )


def finite(row: Method, loss: LossOf) -> Check:
    """A model that is very sure of itself, in float32."""
    trees, model = random_trees(row), tiny_model(row, torch.float32, 6.0)
    value, gradient = step_gradient(model, row, loss, [_pack(trees)])
    holds = bool(torch.isfinite(gradient).all()) and abs(value) < float("inf")
    return Check("finite", holds, "log-probabilities down to -100s, in float32")


def teaches(row: Method, loss: LossOf) -> Check:
    """It has a gradient."""
    trees, model = random_trees(row), tiny_model(row)
    _, gradient = step_gradient(model, row, loss, [_pack(trees)])
    size = float(gradient.norm())
    return Check("teaches", size > 0, f"the gradient has length {size:.3g}" if size else "the gradient is zero")


def reports(row: Method, loss: LossOf) -> Check:
    """What it reports of each example belongs to that example alone; not asked where it compares those of a step."""
    if row.scope == "step":
        return Check("reports", True, "not asked: it compares the examples of a step with each other")
    trees, model = random_trees(row), tiny_model(row)
    with torch.no_grad():
        together = _each(row, loss, model, [_pack(trees)])
        each = zip(trees, RULES["token"](trees), strict=True)
        alone = _each(row, loss, model, [pack([tree], [own], tree_weight=1 / len(trees)) for tree, own in each])
    both = [pair for one, other in zip(together, alone, strict=True) for pair in zip(one, other, strict=True)]
    largest = _largest([abs(a - b) / max(abs(a), 1e-6) for a, b in both])
    return _compared("reports", largest, "what is reported of an example, among others and alone")


CHECKS: dict[str, Callable[[Method, LossOf], Check]] = {
    "micro-batches": micro_batches, "padding": padding, "sharing": sharing, "order": order, "weights": weights,
    "repeatable": repeatable, "finite": finite, "teaches": teaches, "reports": reports,
}  # fmt: skip


def _compared(name: str, difference: float, what: str) -> Check:
    return Check(name, difference < TOLERANCE, what, difference)


def _packed(name: str, row: Method, loss: LossOf, what: str, reverse: bool = False, **how: Any) -> Check:
    trees, model = random_trees(row), tiny_model(row)
    plain = step_gradient(model, row, loss, [_pack(trees)])
    other = step_gradient(model, row, loss, [_pack(trees[::-1] if reverse else trees, **how)])
    return _compared(name, largest_difference(plain, other), what)


def _pack(trees: Sequence[TokenTree], **how: Any) -> Batch:
    """All of a step in one batch, every token and every tree with the same weight."""
    return pack(trees, RULES["token"](trees), tree_weight=1 / len(trees), **how)


def _weighed(batch: Batch, factor: torch.Tensor) -> Batch:
    """The batch, the weights of each tree times `factor` [S]."""
    return replace(
        batch, weight=batch.weight * factor[batch.tree].to(batch.weight.dtype),
        tree_weight=batch.tree_weight * factor.to(batch.tree_weight.dtype),
    )  # fmt: skip


def _each(row: Method, loss: LossOf, model: Any, batches: Sequence[Batch]) -> list[tuple[float, float]]:
    """(loss, units) of every tree, by its row."""
    found: dict[int, tuple[float, float]] = {}
    for batch in batches:
        result = loss(batch, forward(model, batch, row.needs))
        found |= dict(zip(batch.rows, zip(result.each.tolist(), result.count.tolist(), strict=True), strict=True))
    return [found[row] for row in sorted(found)]
