"""The method of a run, and what is refused of it before anything is read."""

from __future__ import annotations

from luthier.config.run import RunConfig, fields, flag_of
from luthier.core import log
from luthier.core.errors import InputError
from luthier.model import load as model_load
from luthier.model.adapt import tune
from luthier.training.method_table import METHODS, Method, method

# What only some methods read: whole sections and single settings; and what of these all do, since metrics are functions too.
METHOD_SETTINGS = ("preference", "ranking", "rollout", "policy", "reward", "train.weigh")
COMMON_SETTINGS = ("reward.timeout", "reward.memory")


def chosen_method(config: RunConfig) -> Method:
    """The method's row, with the tune kind checked too: both are cheap to refuse early."""
    tune.check_kind(config.tune)
    model_load.pick_device(config.device)
    if config.dtype == "float16":
        raise InputError(
            "float16 gradients vanish without loss scaling", where="--dtype", fix="train in bfloat16 or float32"
        )
    return method(config.method)


def refuse_unread(config: RunConfig) -> None:
    """Raise InputError for a setting that was changed and that the method does not read, with the methods that do."""
    usual = RunConfig()
    own = method(config.method)
    for name in fields():
        section, _, field = name.partition(".")
        if not (section in METHOD_SETTINGS or name in METHOD_SETTINGS) or name in COMMON_SETTINGS:
            continue
        value, default = (getattr(getattr(one, section), field) for one in (config, usual))
        if value != default and not own.does_read(name):
            others = [other for other, row in METHODS.items() if row.does_read(name)]
            raise InputError(
                f"{config.method} does not read this setting", where=flag_of(name),
                fix=f"leave it out, or use --method {', '.join(others[:-1])}{' or ' if others[1:] else ''}{others[-1]}",
            )  # fmt: skip


def warn_of_unread(config: RunConfig) -> None:
    """Say which settings were changed that nothing reads, since the setting that they belong to is not given."""
    kinds = {"lora.": ("lora", "qlora"), "quant.": ("qlora",)}
    needs = {
        "data.replay_share": ("data.replay", config.data.replay), "eval.benchmark_limit": ("eval.benchmark", config.eval.benchmark),
        "eval.benchmark_dir": ("eval.benchmark", config.eval.benchmark),
    }  # fmt: skip
    usual = RunConfig()
    for name in fields():
        section, _, field = name.partition(".")
        if not field or getattr(getattr(config, section), field) == getattr(getattr(usual, section), field):
            continue
        if (read_by := kinds.get(f"{section}.")) and config.tune not in read_by:
            log.warn(f"{flag_of(name)} does nothing with --tune {config.tune}: it is for {' and '.join(read_by)}")
        elif name in needs and not needs[name][1]:
            log.warn(f"{flag_of(name)} does nothing without {flag_of(needs[name][0])}")
