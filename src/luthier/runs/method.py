"""The method of a run, and what is refused of it before anything is read."""

from __future__ import annotations

from luthier.config.config import RunConfig
from luthier.core.errors import InputError
from luthier.model import load as model_load
from luthier.model.adapt import tune
from luthier.train.table import Method, method


def chosen_method(config: RunConfig) -> Method:
    """The method's row, with the tune kind checked too: both are cheap to refuse early."""
    tune.check_kind(config.tune)
    model_load.pick_device(config.device)
    if config.dtype == "float16":
        raise InputError(
            "float16 gradients vanish without loss scaling", where="--dtype", mend="train in bfloat16 or float32"
        )
    return method(config.method)
