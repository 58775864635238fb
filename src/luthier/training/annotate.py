"""What a method needs beside tokens, made without gradient and put on trees and steps.

with_prompt    the likelihood of prompts too (orpo, span 'all')
with_others    each prompt with the answer of another (kto)
reference      log-probability of every answer under the model that training starts from
baseline       how far the policy has moved on answers that do not belong (kto), step by step
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from luthier.config.training import PreferenceConfig
from luthier.core import log
from luthier.core.errors import InputError, Stopped
from luthier.core.types.batch import Batch, Step
from luthier.core.types.trees import TokenTree
from luthier.methods.ops import leaf_sum
from luthier.training.steps import Packing, scoring_batches

Forward = Callable[[nn.Module, Batch], Any]


def with_prompt(tree: TokenTree, settings: PreferenceConfig) -> TokenTree:
    """The tree, every token of its prompt trained where the span is 'all'."""
    root = tree.nodes[0]
    if settings.span != "all" or len(tree.nodes) == 1:
        return tree
    root = replace(root, trained=(False,) + (True,) * (len(root.ids) - 1))
    return replace(tree, nodes=(root, *tree.nodes[1:]))


def with_others(trees: Sequence[TokenTree], beside: Sequence[TokenTree] = ()) -> list[TokenTree]:
    """Each tree with the column `other`: its prompt, and the answer of the tree half the data away.

    Not the next one's: data that was made from pairs has the answers to one prompt one after the other. Where all
    of `trees` have one prompt, as a few held-out rows may, the answer is one of `beside`.
    Raises InputError when all prompts are the same.
    """
    count = len(trees)
    out = []
    for i, tree in enumerate(trees):
        apart = (trees[(i + count // 2 + k) % count] for k in range(count))
        other = next((t for t in chain(apart, beside) if t.nodes[0].ids != tree.nodes[0].ids), None)
        if other is None:
            raise InputError(
                "all prompts are the same, and kto compares with answers to other prompts",
                where=tree.origin, fix="use --method dpo or sft",
            )  # fmt: skip
        mixed = TokenTree((tree.nodes[0], replace(other.nodes[-1], parent=0)), row=i)
        out.append(replace(tree, columns={**tree.columns, "other": mixed}))
    return out


@torch.no_grad()
def answer_logps(
    forward: Forward, model: nn.Module, trees: Sequence[TokenTree], packing: Packing, device: torch.device,
    title: str, cancelled: Callable[[], bool],
) -> list[list[float]]:  # fmt: skip
    """log p of every answer of every tree, in nats: one list per tree. The model is left in training mode or not,
    as it was."""
    training = model.training
    model.eval()
    out: list[list[float]] = [[] for _ in trees]
    numbered = [replace(tree, row=i) for i, tree in enumerate(trees)]
    with log.progress(title, len(trees)) as bar:
        for batch in scoring_batches(numbered, packing):
            if cancelled():
                raise Stopped("stopped while scoring")
            sums = leaf_sum(batch, forward(model, batch.to(device)).logp.cpu())
            for leaf, tree in enumerate(batch.leaf_tree.tolist()):
                out[batch.rows[tree]].append(float(sums[leaf]))
            bar.advance(len(batch.rows))
    model.train(training)
    return out


@torch.no_grad()
def per_token(
    read: Callable[[Batch], torch.Tensor], trees: Sequence[TokenTree],
    batches: Callable[[Sequence[TokenTree]], Iterable[Batch]], device: torch.device, cancelled: Callable[[], bool],
) -> list[list[list[float]]]:  # fmt: skip
    """read(batch) -> one number per target, for every trained token of every answer: tree -> leaf -> token. `batches` packs
    the trees."""
    out: list[list[list[float]]] = [[[] for _ in tree.leaves] for tree in trees]
    numbered = [replace(tree, row=i) for i, tree in enumerate(trees)]
    for batch in batches(numbered):
        if cancelled():
            raise Stopped("stopped while scoring")
        values = read(batch.to(device)).cpu().tolist()
        leaves = batch.leaf_tree.tolist()
        for value, leaf in zip(values, batch.leaf.tolist(), strict=True):
            tree = leaves[leaf]
            out[batch.rows[tree]][leaf - leaves.index(tree)].append(value)
    return out


def reference(trees: Sequence[TokenTree], score: Callable[[Sequence[TokenTree]], list[list[float]]]) -> list[TokenTree]:
    """The trees with the leaf column `reference`; what `with_others` put on them gets one too.

    `score` is `answer_logps` with the model as it is before the first step: the policy's starting point.
    """
    if not trees:
        return []
    values = score(trees)
    out = [
        replace(tree, leaf_columns={**tree.leaf_columns, "reference": value})
        for tree, value in zip(trees, values, strict=True)
    ]
    others = [tree.columns["other"] for tree in trees if "other" in tree.columns]
    if not others:
        return out
    scored = [
        replace(other, leaf_columns={"reference": value}) for other, value in zip(others, score(others), strict=True)
    ]
    return [replace(tree, columns={**tree.columns, "other": other}) for tree, other in zip(out, scored, strict=True)]


def fingerprint(trees: Sequence[TokenTree]) -> str:
    """A hash of all tokens, of what is trained of them, and of what else a model sees: the key of what was computed from them."""
    digest = hashlib.sha256()
    for tree in trees:
        digest.update(json.dumps([[n.ids, n.trained, n.parent, *n.further] for n in tree.nodes]).encode())
        for media in tree.media:
            digest.update(json.dumps([media.kind, media.digest, media.node, media.begin, media.end]).encode())
    return digest.hexdigest()


def baseline(forward: Forward, model: nn.Module, step: Step, device: torch.device) -> Step:
    """The step with the column `baseline` on every tree: max(0, mean of log p - log p_ref over `step.auxiliary`)."""
    training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in step.auxiliary:
            ratio = leaf_sum(batch, forward(model, batch.to(device)).logp.cpu()) - batch.columns["reference"]
            total, count = total + float(ratio.sum()), count + len(ratio)
    model.train(training)
    value = max(0.0, total / max(1, count))
    micro = tuple(
        replace(batch, columns={**batch.columns, "baseline": torch.full((len(batch.rows),), value)})
        for batch in step.micro
    )
    return replace(step, micro=micro)
