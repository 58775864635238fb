"""VARIANTS: what tells the kin of GRPO apart, on one screen. PPO, which has a critic, stands beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CLIP = 0.2  # Schulman et al. 2017


@dataclass(frozen=True)
class Variant:
    """How rewards become a step.

    advantage     what an answer is compared with: its group, in deviations (`scaled`) or as it is (`centered`), the others of its group,
                  all tokens of the rollout, or what a critic expected
    mean          over the tokens of each answer and then over answers, over all tokens, or over answers of the longest length
    ratio         of policies: of each token, of the answer, or the answer's geometric mean
    clip          how far below 1 the ratio may fall; `clip_high` how far it may rise, if not as far
    kl, kl_in     weight of the divergence where none is given, and what it is part of
    draws_again   whether groups without a difference are replaced by others
    renormalizes  whether the mean is over what is learned from alone; otherwise what is left out counts as zero
    single        whether one answer to a prompt is enough
    """

    advantage: Literal["scaled", "centered", "others", "rollout", "critic"]
    mean: Literal["answer", "token", "longest"]
    ratio: Literal["token", "answer", "answer_mean"] = "token"
    clip: float = CLIP
    clip_high: float | None = None
    kl: float = 0.0
    kl_in: Literal["reward", "loss"] = "loss"
    draws_again: bool = False
    renormalizes: bool = False
    single: bool = False


VARIANTS = {
    "grpo": Variant("scaled", "answer"),  # Shao et al. 2024
    "dr_grpo": Variant("centered", "longest"),  # Liu et al. 2025
    "dapo": Variant("scaled", "token", clip_high=0.28, draws_again=True, renormalizes=True),  # Yu et al. 2025
    "rloo": Variant("others", "answer", "answer", kl_in="reward"),  # Ahmadian et al. 2024
    "reinforce++": Variant("rollout", "token", kl_in="reward", single=True),  # Hu 2025
    "gspo": Variant("scaled", "answer", "answer_mean", clip=3e-4, clip_high=4e-4),  # Zheng et al. 2025
}
PPO = Variant("critic", "token", kl=0.05, kl_in="reward", renormalizes=True, single=True)  # Ouyang et al. 2022
