"""What a method does not read is refused, with the methods that do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import luthier
from luthier.commands.options import SECTIONS
from luthier.config.resolve import resolve
from luthier.config.run import fields
from luthier.core.errors import InputError
from luthier.runs.method import COMMON_SETTINGS, METHOD_SETTINGS, refuse_unread, warn_of_unread
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
        (
            "response",
            "ranking.gather",
            True,
            "reward, dpo, simpo or orpo",
        ),  # its pairs have no prompt to be gathered by
        ("grpo", "ranking.gather", True, "reward, dpo, simpo or orpo"),
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

    names = [name for name in fields() if name.partition(".")[0] in METHOD_SETTINGS or name in METHOD_SETTINGS]
    patterns = {pattern for row in METHODS.values() for pattern in row.reads}
    assert all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names if name not in COMMON_SETTINGS)
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


@pytest.mark.medium
def test_no_method_is_known_by_its_name_outside_the_table():
    """What differs between methods is declared in their rows: a method of the user's own may have any name."""
    package = Path(luthier.__file__).parent
    compared = []
    for path in package.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text if "method" in text else "")):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            words = {one.value for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)}
            if any(getattr(side, "attr", getattr(side, "id", "")) == "method" for side in sides) and words & set(
                METHODS
            ):
                compared.append(f"{path.relative_to(package)}:{node.lineno}")
    assert not compared


def test_the_headings_of_help_name_the_methods_that_read_a_section():
    for section in ("preference", "ranking", "rollout", "policy", "reward"):
        named = re.search(r"\((.*)\)", SECTIONS[section])[1].split(", ")
        own = [name for name in fields() if name.startswith(f"{section}.") and name != "ranking.gather"]
        readers = [name for name, row in METHODS.items() if any(map(row.does_read, own))]
        assert sorted(set(named) - {"sample"}) == sorted(readers), section
