"""Two methods of one's own: a loss on conversations, and a row for preferences. Try them before you train with them:

    luthier verify --method python:examples/my_method.py:focal
    luthier train rows.jsonl --method python:examples/my_method.py:focal
    luthier train pairs.jsonl --method python:examples/my_method.py:SLIC

A loss is a sum: each term times `batch.weight` (of its token) or `batch.tree_weight` (of its example), which already add up to 1 over
the whole optimizer step. Nothing is divided by what a batch holds, so it does not matter how the step is cut into batches.
"""

from __future__ import annotations

import torch

from luthier.kernel import (
    Batch,
    Loss,
    Method,
    Output,
    Preference,
    Ranking,
    leaf_length,
    leaf_sum,
    pair_tree,
    tree_mean,
    tree_sum,
)

SURE = 2.0  # how much less is learned of tokens that the model is sure of already
MARGIN, LIKELIHOOD = 1.0, 0.1  # nats per token between the two answers; weight of the better one's likelihood


def focal(batch: Batch, output: Output) -> Loss:
    """-(1 - p)^2 log p of each token of the answers: what the model knows already counts for less (Lin et al. 2017)."""
    loss = (1 - output.logp.exp()) ** SURE * -output.logp
    return Loss(
        total=(batch.weight * loss).sum(),
        each=tree_sum(batch, loss.detach(), batch.tree),
        count=torch.bincount(batch.tree, minlength=len(batch.rows)),
    )


def slic(batch: Batch, output: Output) -> Loss:
    """max(0, margin - (l(better) - l(worse))) - 0.1 log p(better), l = log p per token (after SLiC-HF, Zhao et al. 2023)."""
    mean = leaf_sum(batch, output.logp) / leaf_length(batch)
    ahead = mean[batch.pairs[:, 0]] - mean[batch.pairs[:, 1]]
    each = tree_mean(batch, torch.relu(MARGIN - ahead), pair_tree(batch))
    total = (batch.tree_weight * each).sum() + LIKELIHOOD * (batch.weight * -output.logp).sum()
    right = tree_mean(batch, (ahead > 0).float(), pair_tree(batch)).detach()
    return Loss(total=total, each=each.detach(), count=torch.ones_like(each), items={"accuracy": right})


SLIC = Method((Preference, Ranking), slic, "the better answer ahead by a margin, without a reference", rate=0.1)
