"""A loss that sees the whole optimizer step, computed micro-batch by micro-batch: the gradient of one large batch."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from conftest import gradient, tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.config.run import RunConfig
from luthier.config.training import TrainConfig
from luthier.core import seeds
from luthier.core.types.batch import Loss, Needs
from luthier.core.types.trees import Media, Node, TokenTree
from luthier.methods.ops import tree_sum
from luthier.model.adapt import heads
from luthier.model.adapt.tune import prepare
from luthier.model.forward import forward
from luthier.text.loss_weights import RULES
from luthier.text.pack import joined, pack
from luthier.training.invariants import check, random_trees
from luthier.training.loop import State, train
from luthier.training.method_table import METHODS
from luthier.training.optim import Optimizer
from luthier.training.passes import by_batch, by_step
from luthier.training.steps import OfflineSteps, Packing, make_step
from luthier.tune.evaluator import loss_of

TEMPERATURE = 0.05
EMBED = Needs(logp=False, embed="mean")


def contrastive(batch, output):
    """InfoNCE (van den Oord et al. 2018) with in-batch negatives: each first text has to find the second one of its own tree
    among those of the whole batch. w = 1 / trees of the step."""
    unit = F.normalize(output.embed, dim=-1)
    logp = (unit[0::2] @ unit[1::2].T / TEMPERATURE).log_softmax(-1).diagonal()
    each = tree_sum(batch, -logp, batch.leaf_tree[0::2])
    found = (unit[0::2] @ unit[1::2].T).argmax(-1) == torch.arange(len(logp))
    return Loss(
        (batch.tree_weight * each).sum(), each.detach(), torch.ones_like(each), metrics={"found": (float(found.sum()), len(logp))}
    )  # fmt: skip


def text_pairs(count=9, longest=14):
    """Pairs of texts, each a tree of two roots."""
    draw = random.Random(4)
    texts = [tuple(draw.randrange(512) for _ in range(draw.randint(2, longest))) for _ in range(2 * count)]
    nodes = [Node(ids, (False,) * len(ids)) for ids in texts]
    return [TokenTree(nodes[i : i + 2], row=i // 2) for i in range(0, 2 * count, 2)]


def gradients(step, loss, needs, scope, dropout=None, seen=None):
    model = tiny_model(dtype=torch.float64)
    torch.manual_seed(3)
    if dropout is not None:
        prepare(model, "lora", LoraConfig(rank=2, dropout=dropout), QuantConfig())
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                torch.nn.init.normal_(parameter, std=0.1)
    heads.attach(model, heads.widths(needs))
    for head in heads.on(model).values():
        torch.nn.init.normal_(head.weight)
    model.train()

    def read(number, batch):
        seeds.seed_torch(0, "dropout", number)
        output = forward(model, batch, needs)
        if seen is not None:
            seen.append((torch.is_grad_enabled(), output))
        return output

    micro = list(enumerate(step.micro))
    parts = list(by_step(micro, step.micro, read, loss) if scope == "step" else by_batch(micro, read, loss))
    return sum(part.value for part in parts), gradient(model), parts


def test_a_contrastive_step_is_that_of_one_large_batch():
    """GradCache, Gao et al. 2021. Micro-batches by themselves would have fewer negatives, and learn something else."""
    rows = text_pairs()
    one = make_step(rows, RULES["token"], Packing(10_000))
    many = make_step(rows, RULES["token"], Packing(40))
    assert (len(one.micro), len(many.micro) > 2) == (1, True)
    value, whole, _ = gradients(one, contrastive, EMBED, "batch")
    cached, found, (part,) = gradients(many, contrastive, EMBED, "step")
    assert cached == pytest.approx(value, rel=1e-12)
    assert float((whole - found).norm() / whole.norm()) < 1e-12
    assert sorted(row for row, _, _ in part.rows) == list(range(9))
    assert part.sums["found"][1] == 9
    apart, other, _ = gradients(many, contrastive, EMBED, "batch")
    assert apart < value
    assert float((whole - other).norm() / whole.norm()) > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_any_loss_may_be_given_the_whole_step(method):
    """What is a sum over micro-batches is the same sum over their join, targets, leaves, pairs and columns in their places."""
    row = METHODS[method]
    step = make_step(random_trees(row), RULES["token"], Packing(64))
    assert len(step.micro) > 1
    loss = loss_of(row, RunConfig())
    value, apart, parts = gradients(step, loss, row.needs, "batch")
    whole_value, whole, (part,) = gradients(step, loss, row.needs, "step")
    assert whole_value == pytest.approx(value, rel=1e-6)
    assert float((apart - whole).norm() / apart.norm()) < 1e-6
    found, wanted = (torch.tensor(sorted(rows)) for rows in (part.rows, [row for one in parts for row in one.rows]))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_both_passes_drop_the_same():
    """Dropout is drawn by the micro-batch's place: the second pass, which learns, is the one whose outputs the loss saw."""
    seen = []
    step = make_step(text_pairs(), RULES["token"], Packing(40))
    gradients(step, contrastive, EMBED, "step", dropout=0.5, seen=seen)
    count = len(step.micro)
    first, second = seen[:count], seen[count:]
    assert [graph for graph, _ in seen] == [False] * count + [True] * count
    for (_, one), (_, other) in zip(first, second, strict=True):
        assert torch.equal(one.embed, other.embed)
    whole = []
    gradients(step, contrastive, EMBED, "step", dropout=0.0, seen=whole)
    assert not torch.equal(first[0][1].embed, whole[0][1].embed)


def test_the_loop_takes_steps_of_such_a_loss():
    """Two steps in micro-batches leave the weights that two steps of one batch leave."""
    weights = []
    for tokens, scope in ((10_000, "batch"), (40, "step")):
        model = tiny_model(dtype=torch.float64)
        steps = OfflineSteps(text_pairs(), 6, 12, RULES["token"], Packing(tokens), seed=1)
        state = State(model, Optimizer(dict(model.named_parameters()), TrainConfig(), {}))
        reports = list(
            train(
                state, steps, contrastive, lambda model, batch: forward(model, batch, EMBED), TrainConfig(), lr=1e-3, seed=0,
                device=torch.device("cpu"), scope=scope,
            )
        )  # fmt: skip
        assert [report.examples for report in reports] == [6, 6]
        weights.append((reports[-1].loss, torch.cat([p.detach().flatten() for p in model.parameters()])))
    (loss, whole), (loss2, cached) = weights
    assert loss2 == pytest.approx(loss, rel=1e-9)
    assert float((whole - cached).abs().max()) < 1e-9


def test_joined_rows_are_one_row():
    """Two packed rows, joined, give what the same trees give in one: also positions, masks, media and columns."""
    full = TokenTree(
        (Node((3, 4, 5), (True, False, True), labels=(6, 7, 8), mask="full"),),
        media=(Media("picture", "cat", 0, 1, 3),), leaf_columns={"margin": [1.0]},
    )  # fmt: skip
    prompt = Node((3, 4), (False, False), positions=((0, 1), (0, 5)))
    answers = (Node((5,), (True,), 0), Node((6, 7), (True, True), 0))
    pair = TokenTree((prompt, *answers), pairs=((0, 1),), ties=((1, 0),), leaf_columns={"margin": [2.0, 3.0]}, row=1)
    rows = [full, pair, replace(full, row=2)]
    ones = [[1.0] * tree.trained for tree in rows]
    one = pack(rows, ones, share=False)
    parts = joined([pack(rows[:2], ones[:2], share=False), pack(rows[2:], ones[2:])])
    for name, value in vars(one).items():
        found = getattr(parts, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(found, value), name
        elif name == "columns":
            assert torch.equal(found["margin"], value["margin"])
        else:
            assert found == value, name


@pytest.mark.medium
def test_a_method_of_the_whole_step_passes_the_checks_of_every_method():
    """`luthier verify` of a loss that compares the answers of a step; of micro-batches alone it would not be sound."""

    def answers(batch, output):
        unit = F.normalize(output.embed, dim=-1)
        logp = (unit @ unit.T).masked_fill(torch.eye(len(unit), dtype=torch.bool), -torch.inf).logsumexp(-1)
        each = tree_sum(batch, logp, batch.leaf_tree)
        return Loss((batch.tree_weight * each).sum(), each.detach(), torch.ones_like(each))

    row = replace(METHODS["dpo"], loss=answers, needs=EMBED, scope="step", reference=False)
    assert [found.name for found in check(row, answers) if not found.holds] == []
    wrong = [found.name for found in check(replace(row, scope="batch"), answers) if not found.holds]
    assert wrong == ["micro-batches", "reports"]
