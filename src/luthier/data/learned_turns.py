"""Whether a turn is learned, as the formats of other tools mark it. A fault raises InputError without a place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from luthier.core.errors import InputError

# True, or 1, means learned: OpenAI and Mistral `weight`, Axolotl `train` and `training`, ms-swift `loss` and
# `loss_scale`, verl `loss_mask` (a mask of what counts).
LEARNED = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_scale")
# True means not learned: torchtune's `masked`.
UNLEARNED = ("masked", "masking")
# Marks that cannot be followed: parts of a turn, and a mask of unknown sense.
UNKNOWN = {
    "train_detail": "marks parts of a turn",
    "training_detail": "marks parts of a turn",
    "mask": "may mean learned or not learned",
}
FLAGS = {*LEARNED, *UNLEARNED, *UNKNOWN}
# A name that speaks of learning, which no tool known here uses.
UNKNOWN_FLAG = re.compile(
    r"(.*_)?(train|trained|training|trainable|learn|learned|loss|mask|masked|ignore|ignored|skip|skipped|weight|supervised)(_.*)?"
)


def truth(value: Any) -> bool | None:
    """True and false in their usual spellings, None for anything else."""
    known = {"true": True, "1": True, "yes": True, "1.0": True, "false": False, "0": False, "no": False, "0.0": False}
    return known.get(str(value).strip().lower())


def learned(item: Mapping[str, Any], field: str) -> bool:
    """Whether the turn `item` is to be learned: as its flags say, and without any, yes.

    Raises InputError for a flag that is neither true nor false (a weight of 0.5), for flags that contradict each
    other, and for marks that cannot be followed.
    """
    said: dict[str, bool] = {}
    for name in (*LEARNED, *UNLEARNED):
        value = item.get(name)
        if value is None or value == "":
            continue
        flag = truth(value)
        if flag is None:
            raise InputError(
                f"field '{field}': {name} {value!r} is neither 0 nor 1", fix="a turn is learned (1) or only read (0)"
            )
        said[name] = flag if name in LEARNED else not flag
    for name, why in UNKNOWN.items():
        if item.get(name) is not None:
            raise InputError(f"field '{field}': '{name}' {why}", fix='write "train": true or false')
    for name, value in item.items():
        if (
            name not in FLAGS
            and value is not None
            and truth(value) is not None
            and UNKNOWN_FLAG.fullmatch(name.lower())
        ):
            raise InputError(
                f"field '{field}': '{name}' may say whether the turn is learned, but is not a known flag",
                fix='write "train": true or false',
            )
    if len(set(said.values())) > 1:
        yes, no = (next(name for name, flag in said.items() if flag is wanted) for wanted in (True, False))
        raise InputError(f"field '{field}': {yes} says learned, {no} says not", fix="keep one of them")
    return all(said.values())
