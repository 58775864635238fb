"""What is put on trees and steps without gradient: references, other answers, the baseline, prompts that are learned."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest
import torch

from conftest import random_tree, separate_logp, tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.config.training import PreferenceConfig
from luthier.core.errors import InputError, Stopped
from luthier.core.types.trees import Node, TokenTree
from luthier.model.adapt import tune
from luthier.model.forward import forward
from luthier.text.loss_weights import RULES
from luthier.training import annotate
from luthier.training.steps import Packing, make_step
from sentences import sentence

CPU = torch.device("cpu")


def pairs(count=5, children=2):
    draw = random.Random(0)
    prefix = tuple(draw.randrange(512) for _ in range(5))
    return [random_tree(draw, prefix=prefix, children=children, row=3 * i, longest=12) for i in range(count)]


def logps(model, trees, tokens=64, cancelled=bool):
    return annotate.answer_logps(forward, model, trees, Packing(tokens), CPU, "", cancelled)


@torch.no_grad()
def by_hand(model, tree):
    """The log-probability of each answer, every path run as a sequence of its own."""
    values = iter(separate_logp(model, tree))
    return [float(sum(next(values) for t in node.trained if t)) for node in tree.nodes if any(node.trained)]


@pytest.mark.parametrize("tokens", [24, 4096])
def test_references_are_the_log_probabilities_of_the_untouched_model(tokens):
    trees, model = pairs(), tiny_model()
    tuned = tune.prepare(model, "lora", LoraConfig(rank=2, dropout=0.5), QuantConfig())
    model.train()
    found = annotate.reference(trees, partial(logps, model, tokens=tokens))
    assert model.training, "scoring left the model as it was"
    untouched = tiny_model("sdpa")
    for tree, before in zip(found, trees, strict=True):
        assert tree.leaf_columns["reference"] == pytest.approx(by_hand(untouched, before), rel=1e-5)
        assert replace(tree, leaf_columns={}) == before
    assert all(parameter.grad is None for parameter in tuned.parameters.values())


def test_references_leave_other_columns_in_place_and_reach_the_batch_in_order():
    trees = [replace(tree, leaf_columns={"rank": (1.0, 2.0)}) for tree in pairs()]
    found = annotate.reference(trees, partial(logps, tiny_model()))
    (batch,) = make_step(found, RULES["token"], Packing(4096)).micro
    assert batch.columns["rank"].tolist() == [1.0, 2.0] * 5
    wanted = [value for tree in trees for value in by_hand(tiny_model("sdpa"), tree)]
    assert batch.columns["reference"].tolist() == pytest.approx(wanted, rel=1e-5)


def test_scoring_can_be_stopped():
    with pytest.raises(Stopped):
        logps(tiny_model(), pairs(), cancelled=lambda: True)


def test_a_fingerprint_is_of_tokens_and_of_what_is_trained():
    one, two = pairs(2)
    same = annotate.fingerprint([one, two])
    assert annotate.fingerprint([replace(one, row=9, leaf_columns={"rank": (1.0, 2.0)}), two]) == same
    root, *rest = one.nodes
    changed = [
        [two, one], [one], [replace(one, nodes=(Node((7, *root.ids[1:]), root.trained), *rest)), two],
        [replace(one, nodes=(Node(root.ids, (*root.trained[1:], True)), *rest)), two],
    ]  # fmt: skip
    assert len({same, *(annotate.fingerprint(trees) for trees in changed)}) == 5


def labelled(prompts):
    """One answer a tree; the prompts by number, the answers all different."""
    return [
        TokenTree((Node((5, 6, prompt), (False,) * 3), Node((100 + i, 200 + i), (True, True), 0)), row=i)
        for i, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize(
    "prompts",
    [[0, 1], [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2] * 4, [0] * 9 + [1], [1] + [0] * 8, [0, 1, 1, 0], [0] * 5 + [1] * 5],
    ids=str,
)
def test_the_other_answer_never_belongs_to_the_same_prompt(prompts):
    trees = labelled(prompts)
    for tree, found in zip(trees, annotate.with_others(trees), strict=True):
        other = found.columns["other"]
        assert other.nodes[0] == tree.nodes[0]
        assert other.nodes[1].parent == 0
        giver = other.nodes[1].ids[0] - 100
        assert prompts[giver] != prompts[tree.row]
        assert replace(found, columns={}) == tree


def test_in_data_without_repeated_prompts_every_answer_is_the_other_once():
    """So that the baseline is made of the same answers as the rewards, as its paper has it."""
    found = annotate.with_others(labelled(range(7)))
    assert sorted(tree.columns["other"].nodes[1].ids[0] - 100 for tree in found) == list(range(7))


def test_one_prompt_alone_is_refused():
    with pytest.raises(InputError, match=sentence("all prompts the same")):
        annotate.with_others(labelled([4, 4, 4]))


def test_others_are_referred_too():
    trees = annotate.with_others(pairs(4, children=1))
    for tree in annotate.reference(trees, partial(logps, tiny_model())):
        other = tree.columns["other"]
        assert other.leaf_columns["reference"] == pytest.approx(by_hand(tiny_model("sdpa"), other), rel=1e-5)


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("tokens", [16, 40, 4096])
def test_the_baseline_is_one_number_a_step_however_micro_batched(tokens, above):
    now, start = (7, 0) if above else (0, 7)
    trees = annotate.with_others(pairs(6, children=1))
    trees = annotate.reference(trees, partial(logps, tiny_model(seed=start)))
    model, old = tiny_model("sdpa", seed=now), tiny_model("sdpa", seed=start)
    others = [tree.columns["other"] for tree in trees]
    mean = sum(by_hand(model, o)[0] - by_hand(old, o)[0] for o in others) / len(others)
    assert (mean > 1) == above
    ours = tiny_model(seed=now).train()
    step = annotate.baseline(forward, ours, make_step(trees, RULES["token"], Packing(tokens)), CPU)
    assert (len(step.micro) > 1) == (tokens < 4096)
    assert ours.training
    for batch in step.micro:
        assert batch.columns["baseline"].tolist() == pytest.approx([max(0.0, mean)] * len(batch.rows), rel=1e-5)


def test_prompts_are_learned_but_for_their_first_token():
    (tree,) = pairs(1)
    single = TokenTree((Node((1, 2, 3), (False, False, True)),))
    span = PreferenceConfig(span="all")
    changed, same = annotate.with_prompt(tree, span), annotate.with_prompt(single, span)
    assert annotate.with_prompt(tree, PreferenceConfig()) == tree
    assert same == single
    assert changed.nodes[1:] == tree.nodes[1:]
    assert changed.nodes[0].ids == tree.nodes[0].ids
    assert changed.nodes[0].trained == (False,) + (True,) * (len(tree.nodes[0].ids) - 1)
    paired = replace(changed, pairs=((0, 1),))
    (batch,) = make_step([paired], RULES["token"], Packing(4096)).micro
    root, better, worse = (len(node.ids) for node in tree.nodes)
    assert batch.leaf.tolist() == [-1] * (root - 1) + [0] * better + [1] * worse
    each = 1 / (root - 1 + better)
    assert batch.weight.tolist() == pytest.approx([each] * (root - 1 + better) + [0.0] * worse)
