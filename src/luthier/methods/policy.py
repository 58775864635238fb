"""Learning from the rewards of one's own samples: PPO, and GRPO and its kin.

    ratio = pi(token) / pi_old(token),  pi_old the policy that drew the sample

A sample is a leaf, its tokens are targets; `batch.weight` already says how tokens and samples are averaged.
"""

from __future__ import annotations

import torch

from luthier.config.rewards import PolicyConfig
from luthier.core.types.batch import Batch, Loss, Output
from luthier.methods.likelihood import likelihood
from luthier.methods.ops import leaf_length, leaf_sum, tree_sum
from luthier.methods.variants import CLIP, VARIANTS


def ppo(batch: Batch, output: Output, settings: PolicyConfig) -> Loss:
    """L = L_policy + value_weight L_value + pretrain_weight L_pretrain (Schulman et al. 2017, Ouyang et al. 2022).

    policy    -min(ratio A, clip(ratio, 1 - clip, 1 + clip_high) A), clipped token by token
    value     1/2 max((v - R)^2, (v_old + clip(v - v_old, -value_clip, value_clip) - R)^2)
    pretrain  the negative log-likelihood of general text: batches without the column `advantage`
    """
    if "advantage" not in batch.columns:
        plain = likelihood(batch, output)
        zeros = torch.zeros_like(plain.each)
        metrics = {"pretrain_nll": plain.metrics["nll"]}
        return Loss(settings.pretrain_weight * plain.total, zeros, plain.count, metrics=metrics)
    assert output.value is not None
    loss = grpo(batch, output, settings)
    columns = batch.columns
    old, target = columns["old_value"], columns["return"]
    near = old + (output.value - old).clamp(-settings.value_clip, settings.value_clip)
    value = 0.5 * torch.maximum((output.value - target) ** 2, (near - target) ** 2)
    weighted = (batch.weight * value).sum()
    shares = {"value_loss": (float(value.detach().sum()), float(len(value)))}
    return Loss(
        loss.total + settings.value_weight * weighted, loss.each, loss.count, loss.items, {**loss.metrics, **shares}
    )


def grpo(batch: Batch, output: Output, settings: PolicyConfig) -> Loss:
    """-min(ratio A, clip(ratio) A) + kl KL(pi | pi_ref), the clipped term of PPO with advantages made elsewhere.

    The ratio is taken token by token; of a whole answer for rloo (the product of its tokens' ratios) and for gspo
    (their geometric mean, Zheng et al. 2025). With `kl_in` 'loss' the estimator of the divergence is learned from:
    k3 = exp(d) - d - 1, d = log pi_ref - log pi (Schulman 2020), as GRPO has it (Shao et al. 2024), times the ratio:
    without that factor its gradient is not that of the divergence (DeepSeek-V3.2; TRL's use_bias_correction_kl).
    """
    logp, advantage = output.logp, batch.columns["advantage"]
    old = batch.columns.get("old_logp", logp.detach())
    log_ratio = logp - old
    level = VARIANTS[settings.variant].ratio
    if level != "token":
        whole = leaf_sum(batch, log_ratio)
        log_ratio = (whole / leaf_length(batch) if level == "answer_mean" else whole)[batch.leaf]
    ratio = log_ratio.exp()
    low = CLIP if settings.clip is None else settings.clip
    high = low if settings.clip_high is None else settings.clip_high
    near = ratio.clamp(1 - low, 1 + high)
    loss = -torch.minimum(ratio * advantage, near * advantage)
    metrics = {}
    if "reference" in batch.columns:
        apart = batch.columns["reference"] - logp
        steered = batch.columns.get("kl_weight")  # of each tree
        if settings.kl_in == "loss" and (steered is not None or settings.kl):  # 0 times an infinite one is no number
            kl = settings.kl or 0.0 if steered is None else steered[batch.tree]
            loss = loss + kl * ratio * divergence(apart, settings.kl_estimator or "k3")
        metrics["kl"] = (float(divergence(apart.detach(), "k3").sum()), float(len(apart)))
    count = float(len(logp))
    with torch.no_grad():
        outside = ((ratio < 1 - low) & (advantage < 0)) | ((ratio > 1 + high) & (advantage > 0))
        metrics["clipped"] = (float(outside.sum()), count)
        if output.entropy is not None:
            metrics["entropy"] = (float(output.entropy.sum()), count)
    return Loss(
        total=(batch.weight * loss).sum(),
        each=tree_sum(batch, (batch.weight * loss).detach(), batch.tree),
        count=torch.ones_like(batch.tree_weight),
        metrics=metrics,
    )


def divergence(apart: torch.Tensor, estimator: str) -> torch.Tensor:
    """Estimates of KL(pi | pi_ref) from tokens drawn from pi, with d = log pi_ref - log pi [M]:
    k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1 (Schulman 2020)."""
    if estimator == "k1":
        return -apart
    if estimator == "k2":
        return 0.5 * apart**2
    return apart.exp() - apart - 1
