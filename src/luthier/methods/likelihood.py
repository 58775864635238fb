"""Maximum likelihood: self-supervised (cpt), supervised and instruction tuning (sft)."""

from __future__ import annotations

from luthier.core.types import Batch, Loss, Output


def likelihood(batch: Batch, output: Output) -> Loss:
    """L = - sum_m weight_m log p(target_m | its ancestors), in nats.

    With token weights this is the cross entropy averaged over the trained tokens of the step, as
    TRL's SFTTrainer computes it when told the number of items in the batch.
    """
    nll = -output.logp
    return Loss(
        total=(batch.weight * nll).sum(),
        metrics={"nll": (float(nll.detach().sum()), float(nll.numel()))},
    )
