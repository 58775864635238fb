"""Learning from which of two answers is better, or whether one is wanted: DPO and its kin, SimPO, ORPO, KTO.

    r(y) = log p(y | x) - log p_ref(y | x)       how much likelier the policy makes an answer than the reference
    d    = r(better) - r(worse)                  of each pair of a prompt's answers

All sums of log-probabilities run over the answer's tokens, its stop token included. A prompt with several pairs
counts as much as a prompt with one: w = tree_weight / (pairs of the tree). Ties are not learned from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from luthier.config.training import PreferenceConfig
from luthier.core.types.batch import Batch, Loss, Output
from luthier.methods.ops import leaf_length, leaf_sum, pair_tree, tree_mean, tree_sum


def dpo(batch: Batch, output: Output, settings: PreferenceConfig) -> Loss:
    """Direct preference optimization (Rafailov et al. 2023), with z = beta d and smoothing e:

    sigmoid   -(1 - e) log s(z) - e log s(-z)                                    (e > 0: conservative DPO)
    robust    (-(1 - e) log s(z) + e log s(-z)) / (1 - 2 e)                      (Chowdhury et al. 2024)
    hinge     max(0, 1 - z)                                                      (Zhao et al. 2023)
    ipo       (d' - 1 / (2 beta))^2, d' from r per token                         (Azar et al. 2024)

    plus `likelihood` times the mean negative log-likelihood of the better answers' tokens (Pang et al. 2024 take
    the mean of each answer's own mean; ours counts every token the same, whatever the batches).
    As TRL computes it; IPO's average over tokens is its authors' own code, not in the paper.
    """
    ratio = leaf_sum(batch, output.logp) - batch.columns["reference"]
    beta = settings.beta or 0.1
    delta = _difference(batch, ratio / leaf_length(batch) if settings.loss == "ipo" else ratio)
    z, e = beta * delta, settings.smoothing
    if settings.loss == "sigmoid":
        loss = -(1 - e) * F.logsigmoid(z) - e * F.logsigmoid(-z)
    elif settings.loss == "robust":
        loss = (e * F.logsigmoid(-z) - (1 - e) * F.logsigmoid(z)) / (1 - 2 * e)
    elif settings.loss == "hinge":
        loss = torch.relu(1 - z)
    else:
        loss = (delta - 1 / (2 * beta)) ** 2
    return _paired(batch, output, loss, beta * ratio, settings.likelihood or 0.0)


def response(batch: Batch, output: Output, settings: PreferenceConfig) -> Loss:
    """Response tuning: accepted and rejected texts without a prompt. DPO's loss between the two, and the likelihood
    of the accepted ones (weight 1 unless `likelihood` says otherwise), since there is no prompt to tie the answer to."""
    likelihood = 1.0 if settings.likelihood is None else settings.likelihood
    return dpo(batch, output, settings.model_copy(update={"likelihood": likelihood}))


def simpo(batch: Batch, output: Output, settings: PreferenceConfig) -> Loss:
    """SimPO (Meng et al. 2024): -log s(beta (l(better) - l(worse)) - target_margin), l = log p(y | x) per token;
    no reference. As TRL's CPOTrainer with loss_type 'simpo' and cpo_alpha 0."""
    beta = settings.beta or 2.0
    reward = beta * leaf_sum(batch, output.logp) / leaf_length(batch)
    z = _difference(batch, reward) - settings.target_margin
    e = settings.smoothing
    loss = -(1 - e) * F.logsigmoid(z) - e * F.logsigmoid(-z)
    return _paired(batch, output, loss, reward, settings.likelihood or 0.0)


def orpo(batch: Batch, output: Output, settings: PreferenceConfig) -> Loss:
    """ORPO (Hong et al. 2024): NLL - beta log s(log odds(better) - log odds(worse)), no reference.

    odds = p / (1 - p) with log p the mean over the answer's tokens. The likelihood term runs over the better
    answers (`span` 'completion'), or over prompt and better answer as in the authors' code and TRL ('all'); the
    paper's own formula is the former. Rows without a pair give the likelihood term alone.
    """
    beta = settings.beta or 0.1
    mean = leaf_sum(batch, output.logp) / leaf_length(batch)
    odds = mean - torch.log1p(-mean.exp().clamp(max=1 - 1e-7))
    loss = -beta * F.logsigmoid(_difference(batch, odds))
    likelihood = 1.0 if settings.likelihood is None else settings.likelihood
    return _paired(batch, output, loss, beta * mean, likelihood)


def kto(batch: Batch, output: Output, settings: PreferenceConfig) -> Loss:
    """KTO (Ethayarajh et al. 2024): desirable (1 - s(beta (r - z0))) for wanted answers, undesirable
    (1 - s(beta (z0 - r))) for unwanted ones.

    z0 = max(0, mean of r over prompts with the answers of other prompts) is made over the whole optimizer step
    without gradient (`annotate.baseline`); TRL makes it over each micro-batch, so it changes with their size.
    """
    beta = settings.beta or 0.1
    ratio = leaf_sum(batch, output.logp) - batch.columns["reference"]
    wanted = batch.columns["label"][batch.leaf_tree] > 0.5
    sign = torch.where(wanted, 1.0, -1.0)
    weight = torch.where(wanted, settings.desirable, settings.undesirable)
    baseline = batch.columns["baseline"][batch.leaf_tree]
    loss = weight * (1 - torch.sigmoid(beta * sign * (ratio - baseline)))
    each = tree_sum(batch, loss, batch.leaf_tree)
    reward = (beta * ratio).detach()
    return Loss(
        total=(batch.tree_weight * each).sum(),
        each=each.detach(),
        count=torch.ones_like(batch.tree_weight),
        items={"accuracy": torch.where(reward == 0, 0.5, ((reward > 0) == wanted).float())},
        metrics={
            "reward_wanted": (float(reward[wanted].sum()), float(wanted.sum())),
            "reward_unwanted": (float(reward[~wanted].sum()), float((~wanted).sum())),
            "kl_baseline": (float(baseline.sum()), float(len(baseline))),
        },
    )


def _difference(batch: Batch, values: torch.Tensor) -> torch.Tensor:
    """values [L] of the better less those of the worse answer of each pair, [P]."""
    return values[batch.pairs[:, 0]] - values[batch.pairs[:, 1]]


def _paired(batch: Batch, output: Output, loss: torch.Tensor, reward: torch.Tensor, likelihood: float) -> Loss:
    """A loss [P] over pairs and a weighted likelihood term, with what is reported of both."""
    tree = pair_tree(batch)
    each = tree_mean(batch, loss, tree)
    paired = tree_sum(batch, torch.ones_like(loss), tree) > 0
    total = (batch.tree_weight * each).sum()
    each = each.detach()
    nll = -output.logp
    if likelihood:
        total = total + likelihood * (batch.weight * nll).sum()
        learned = batch.weight > 0
        each = each + likelihood * tree_mean(batch, nll.detach()[learned], batch.tree[learned])
    with torch.no_grad():
        margin, logp = _difference(batch, reward), leaf_sum(batch, output.logp)
        won = (margin > 0).float() + 0.5 * (margin == 0)
        items = {
            "accuracy": tree_mean(batch, won, tree),
            "margin": tree_mean(batch, margin, tree),
            "chosen_logp": tree_mean(batch, logp[batch.pairs[:, 0]], tree),
            "rejected_logp": tree_mean(batch, logp[batch.pairs[:, 1]], tree),
        }
        items = {name: values.masked_fill(~paired, torch.nan) for name, values in items.items()}
    return Loss(total=total, each=each, count=torch.ones_like(each), items=items)
