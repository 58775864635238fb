"""What layers ask of attention beside plain scores: caps, sinks, windows, chunks, on trees and while generating."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch

from conftest import random_tree
from luthier.generate.cache import DecodeCache, ReadPrompt
from luthier.model.layers import flex, plan
from luthier.model.layers.scoring import Local, Scoring, attended
from luthier.text.pack import pack

SINKS = torch.tensor([0.5, -1.0, 2.0, 0.0])
ASKED = [
    Scoring(0.3),
    Scoring(0.3, Local(5)),
    Scoring(0.3, Local(5, chunked=True)),
    Scoring(0.3, softcap=1.5),
    Scoring(0.3, Local(5), softcap=1.5),
    Scoring(0.3, sinks=SINKS),
    Scoring(0.3, Local(5), softcap=1.5, sinks=SINKS),
]
NAMES = ["plain", "window", "chunks", "cap", "cap-window", "sinks", "all"]


def by_hand(q, k, v, seen, scoring: Scoring) -> torch.Tensor:
    """The formulas of `scoring`, written out: q [1, heads, T, D], seen [T, T] -> [1, T, heads, D]."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("nhid,nhjd->nhij", q, k) * scoring.scaling
    if scoring.softcap:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    weights = scores.exp() * seen
    total = weights.sum(-1, keepdim=True)
    if scoring.sinks is not None:
        total = total + scoring.sinks.exp().view(1, -1, 1, 1)
    return torch.einsum("nhij,nhjd->nihd", weights / total, v)


def looked_at(place: torch.Tensor, local: Local | None) -> torch.Tensor:
    """Whether a token at one place of its path looks at one at another: [T, T]."""
    i, j = place[:, None], place[None]
    if local is None:
        return j <= i
    return (j <= i) & ((i // local.size == j // local.size) if local.chunked else (i - j < local.size))


def drawn(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("scoring", ASKED, ids=NAMES)
def test_a_tree_attends_as_the_formulas_say_in_value_and_gradient(scoring) -> None:
    draw = random.Random(2)
    trees = [random_tree(draw, longest=30, children=c, row=c) for c in (0, 2)]
    batch = pack(trees, [[1.0] * t.trained for t in trees])
    tokens = len(batch.tokens)
    ends = torch.tensor(plan.reach(batch.node_start, batch.node_parent))
    ends = ends.repeat_interleave(torch.tensor(batch.node_start).diff())
    i, j = torch.arange(tokens)[:, None], torch.arange(tokens)[None]
    seen = (j <= i) & (i < ends[None]) & looked_at(batch.positions, scoring.local)
    q, k, v = (drawn(1, heads, tokens, 8, dtype=torch.float64) for heads in (4, 2, 2))
    sinks = None if scoring.sinks is None else scoring.sinks.double().requires_grad_()
    asked = Scoring(scoring.scaling, scoring.local, scoring.softcap, sinks)
    tree = plan.TreePlan(batch, torch.device("cpu"))
    ours, theirs = tree.attend(0, q, k, v, asked), by_hand(q, k, v, seen, asked)
    torch.testing.assert_close(ours, theirs)
    learned = [x for x in (q, k, v, sinks) if x is not None]
    slope = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, learned, slope), torch.autograd.grad(theirs, learned, slope), atol=1e-9, rtol=1e-7
    )


@pytest.mark.parametrize("scoring", ASKED, ids=NAMES)
def test_tokens_that_are_generated_attend_so_too(scoring) -> None:
    """Two prompts read in pieces of 7, then three tokens of each, a row each: as each sequence read at once."""
    torch.manual_seed(1)
    lengths = (13, 20)
    rows = [[torch.randn(1, heads, length + 3, 8) for heads in (4, 2, 2)] for length in lengths]
    cache, prompts = DecodeCache(2, 40), [ReadPrompt(range(length), 1) for length in lengths]
    for number, (prompt, (q, k, v)) in enumerate(zip(prompts, rows, strict=True)):
        while prompt.read < len(prompt.ids):
            size = min(7, len(prompt.ids) - prompt.read)
            part = slice(prompt.read, prompt.read + size)
            cache.plan([(prompt, size)], torch.device("cpu"), alone=True)
            found = cache.attend(0, q[:, :, part], k[:, :, part], v[:, :, part], scoring)
            place = torch.arange(part.stop)
            wanted = by_hand(
                q[:, :, : part.stop],
                k[:, :, : part.stop],
                v[:, :, : part.stop],
                looked_at(place, scoring.local),
                scoring,
            )
            torch.testing.assert_close(found, wanted[:, part], atol=1e-5, rtol=1e-5)
            cache.advance()
        cache.enter(number, prompt)
    for step in range(3):
        cache.plan([], torch.device("cpu"))
        new = [
            torch.cat([row[part][:, :, length + step, None] for row, length in zip(rows, lengths, strict=True)], 2)
            for part in range(3)
        ]
        found = cache.attend(0, *new, scoring)
        for number, (length, (q, k, v)) in enumerate(zip(lengths, rows, strict=True)):
            until = length + step + 1
            seen = looked_at(torch.arange(until), scoring.local)
            wanted = by_hand(q[:, :, :until], k[:, :, :until], v[:, :, :until], seen, scoring)[0, -1]
            torch.testing.assert_close(found[0, number], wanted, atol=1e-5, rtol=1e-5)
        cache.advance()


@pytest.mark.medium
@pytest.mark.parametrize("scoring", ASKED, ids=NAMES)
def test_the_kernel_for_a_gpu_does_so_too(scoring, monkeypatch) -> None:
    """Run uncompiled on the processor."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(flex, "compiled", partial(flex_attention))
    draw = random.Random(11)
    trees = [random_tree(draw, prefix=(1, 2, 3, 4, 5), children=c, row=c) for c in (2, 0, 3)]
    batch = pack(trees, [[1.0] * t.trained for t in trees], pad_to=16)
    q, k, v = (torch.randn(1, heads, len(batch.tokens), 16) for heads in (4, 2, 2))
    tree = plan.TreePlan(batch, torch.device("cpu"))
    theirs = flex.block_sparse(q, k, v, tree.block_mask(scoring.local), scoring)
    assert theirs is not None
    torch.testing.assert_close(tree.attend(0, q, k, v, scoring), theirs.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_the_scores_of_a_capped_layer_are_not_kept_for_its_gradient() -> None:
    """Of 96 tokens the scores would take 4 x 96 x 96 numbers; what is kept are q, k, v and the mask."""
    q, k, v = (torch.randn(1, 4, 96, 8, requires_grad=True) for _ in range(3))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        attended(q, k, v, torch.zeros(96, 96), Scoring(0.3, softcap=2.0)).sum()
    assert max(kept) <= 96 * 96
