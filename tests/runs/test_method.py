"""What a method does not read is refused, with the methods that do."""

from __future__ import annotations

import pytest

from luthier.config.resolve import resolve
from luthier.config.run import fields
from luthier.core.errors import InputError
from luthier.runs.method import OF_ALL, OF_METHODS, refuse_unread, warn_of_unread
from luthier.training.method_table import METHODS


@pytest.mark.parametrize(
    ("method", "setting", "value", "others"),
    [
        ("sft", "policy.clip", 0.3, "ppo or grpo"),
        ("cpt", "preference.beta", 0.5, "dpo, simpo, orpo, kto or response"),
        ("dpo", "preference.target_margin", 2.0, "simpo"),
        ("kto", "preference.span", "all", "orpo"),
        ("grpo", "policy.lam", 0.9, "ppo"),
        ("grpo", "train.weigh", "example", "sft, cpt, reward, dpo, simpo, orpo, kto or response"),
        ("sft", "ranking.center", 0.1, "reward"),
        ("dpo", "rollout.samples", 2, "ppo or grpo"),
    ],
)
def test_a_setting_of_other_methods_is_refused(method, setting, value, others):
    with pytest.raises(InputError) as told:
        refuse_unread(resolve({"method": method, setting: value}))
    assert (
        str(told.value) == f"--{setting}: {method} does not read this setting; leave it out, or use --method {others}"
    )


def test_what_a_method_reads_is_taken():
    refuse_unread(resolve({"method": "sft", "train.weigh": "example", "reward.timeout": 5.0}))
    refuse_unread(resolve({"method": "ppo", "policy.lam": 0.9, "policy.pretrain_weight": 0.5, "rollout.samples": 2}))
    refuse_unread(
        resolve({"method": "grpo", "policy.variant": "rloo", "policy.kl_target": 2.0, "reward.use": ["exact"]})
    )


def test_each_setting_of_methods_is_read_by_one():
    """And each pattern of a row is of a setting that there is."""
    from fnmatch import fnmatchcase

    names = [name for name in fields() if name.partition(".")[0] in OF_METHODS or name in OF_METHODS]
    patterns = {pattern for row in METHODS.values() for pattern in row.reads}
    assert all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names if name not in OF_ALL)
    assert all(any(fnmatchcase(name, pattern) for name in names) for pattern in patterns)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tune": "full", "lora.rank": 4}, ["--lora.rank does nothing with --tune full: it is for lora and qlora"]),
        ({"quant.kind": "int8"}, ["--quant.kind does nothing with --tune lora: it is for qlora"]),
        ({"data.replay_share": 0.3}, ["--data.replay_share does nothing without --data.replay"]),
        ({"eval.benchmark_limit": 5}, ["--eval.benchmark_limit does nothing without --tasks"]),
        ({"tune": "qlora", "lora.rank": 4, "quant.kind": "int8", "data.replay": ["a"], "data.replay_share": 0.3}, []),
    ],
    ids=str,
)
def test_a_setting_that_nothing_reads_is_told(settings, told, capsys):
    warn_of_unread(resolve(settings))
    assert [line.removeprefix("warning: ") for line in capsys.readouterr().err.splitlines()] == told
