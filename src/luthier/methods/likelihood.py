"""Maximum likelihood: self-supervised (cpt), supervised and instruction tuning (sft)."""

from __future__ import annotations

import torch

from luthier.core.types.batch import Batch, Loss, Output
from luthier.methods.ops import tree_sum


def likelihood(batch: Batch, output: Output) -> Loss:
    """L = - sum_m weight_m log p(target_m | its ancestors), in nats.

    With token weights this is the cross entropy averaged over the trained tokens of the step, as
    TRL's SFTTrainer computes it when told the number of items in the batch.
    """
    nll = -output.logp
    return Loss(
        total=(batch.weight * nll).sum(),
        each=tree_sum(batch, nll.detach().cpu().double(), batch.tree.cpu()),  # some devices have no float64
        count=torch.bincount(batch.tree, minlength=len(batch.rows)),
        metrics={"nll": (float(nll.detach().sum()), float(nll.numel()))},
    )
