"""Reward models: a number for an answer, learned from which answers are better."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from luthier.config.training import RankingConfig
from luthier.core.types.batch import Batch, Loss, Output
from luthier.methods.ops import pair_tree, tree_max, tree_mean


def reward(batch: Batch, output: Output, settings: RankingConfig) -> Loss:
    """Scores s of all answers to a prompt, in one pass:

    pairs           mean over the prompt's pairs of -log s(s_better - s_worse - margin)       (Bradley & Terry 1952)
    plackett-luce   mean over answers but the last of -(s_i - log sum of exp s_j, j ranked at or below i)

    An equal pair gives -(log s(d) + log s(-d)) / 2. Every prompt counts the same however many answers it has, so
    that K answers are one example and not K (K - 1) / 2 (Ouyang et al. 2022). `center` adds center (s_i + s_j)^2
    for each pair, which keeps the scores around 0 (Eisenstein et al. 2023). On pairs this is TRL's RewardTrainer.
    """
    assert output.score is not None
    score = output.score.squeeze(-1)
    both = torch.cat([batch.pairs, batch.ties])
    tree = batch.leaf_tree[both[:, 0]]
    d = score[both[:, 0]] - score[both[:, 1]]
    if settings.loss == "plackett-luce":
        each = _plackett_luce(batch, score)
    else:
        shift = batch.columns["margin"][tree]
        equal = torch.arange(len(both), device=d.device) >= len(batch.pairs)
        loss = torch.where(equal, -0.5 * (F.logsigmoid(d) + F.logsigmoid(-d)), -F.logsigmoid(d - shift))
        each = tree_mean(batch, loss, tree)
    if settings.center:
        each = each + settings.center * tree_mean(batch, (score[both[:, 0]] + score[both[:, 1]]) ** 2, tree)
    with torch.no_grad():
        d = d[: len(batch.pairs)]
        won = (d > 0).float() + 0.5 * (d == 0)
        items = {
            "accuracy": tree_mean(batch, won, pair_tree(batch)),
            "margin": tree_mean(batch, d, pair_tree(batch)),
        }
    return Loss(
        total=(batch.tree_weight * each).sum(), each=each.detach(), count=torch.ones_like(each), items=items,
        metrics={"score": (float(score.detach().sum()), float(len(score)))},
    )  # fmt: skip


def _plackett_luce(batch: Batch, score: torch.Tensor) -> torch.Tensor:
    """Mean over each tree's answers, those of the last rank aside, [S]. Of answers that share a rank each is
    compared with all of its rank and below (Breslow's way with ties)."""
    rank, tree = batch.columns["rank"], batch.leaf_tree
    below = (tree[:, None] == tree[None]) & (rank[None] >= rank[:, None])  # [L, L]
    norm = score[None].expand(len(score), -1).masked_fill(~below, -torch.inf).logsumexp(1)
    last = rank == tree_max(batch, rank)[tree]
    return tree_mean(batch, (norm - score)[~last], tree[~last])
