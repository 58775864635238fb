"""Settings of a run: one tree of sections.

Every field here is read somewhere; its description is its `--help`. `version` rises when the meaning of a field changes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field

from luthier.config.data import STDLIB, DataConfig, TextConfig
from luthier.config.evaluation import EvalConfig, StopConfig
from luthier.config.model import LoraConfig, QuantConfig
from luthier.config.rewards import PolicyConfig, RewardConfig, RolloutConfig
from luthier.config.section import Section
from luthier.config.training import PreferenceConfig, RankingConfig, TrainConfig

VERSION = 1
# Settings that change nothing of the result. Threads change its last bits, and a run that goes on with others says so: a
# machine that got busy, or has less memory free, is no reason to begin anew. Limits of functions that fail at them are raised,
# and the run goes on.
BESIDE = ("out", "force", "track", "base", "threads", "train.recompute", "reward.timeout", "reward.memory")
# Settings that came when there were runs already: where they are as by default, the names of runs are what they were before.
LATER = (
    "data.max_row",
    "data.prompt",
    "data.completion",
    "policy.normalize",
    "reward.truncated",
    "lora.expert_rank",
    "lora.modules_to_save",
    "text.add_tokens",
    "train.router_loss",
    "train.recompute",
    "train.offload",
)
# Defaults that were others when there were runs already, which stay in the names of runs. A run that reads them is found, and
# told what differs.
FORMER = {"policy.clip": 0.2, "policy.lam": 0.95, "train.schedule": "cosine"}
# What `luthier quickstart` sets; here, where its --help reads it without loading torch.
QUICKSTART: dict[str, Any] = {
    "out": "runs/quickstart",
    "data.path": [STDLIB],
    "data.limit": 800,
    "text.max_length": 512,
    "train.lr": 1e-3,
    "train.checkpoint": 5,
    "eval.rows": 64,
    "eval.samples": 64,
    "eval.max_new_tokens": 48,
}


# Settings with a name of their own on the command line: what they are is called so by every command.
FLAGS = {
    "data.limit": "limit", "text.system": "system", "text.add_tokens": "tune.add_tokens", "eval.benchmark": "tasks",
    "eval.benchmark_dir": "data-dir",
    "reward.use": "reward",
}  # fmt: skip


class RunConfig(Section):
    version: int = Field(VERSION, description="Version of these settings.")
    method: str = Field(
        "sft", description="How to learn: a method of those above, or python:FILE:NAME, a loss of your own."
    )
    model: str = Field(
        "smollm2-135m",
        description="A run, an embedded name, a folder (also of a PEFT adapter), a .gguf file, or a hub name (owner/model).",
    )
    base: str | None = Field(
        None,
        description="Base model of the adapter in a run or PEFT folder, if not the one named there: a folder, a .gguf "
        "file or a hub name.",
    )
    tune: str = Field("lora", description="What to learn: full, head, last:K, layers:GLOB, lora, qlora.")
    out: str | None = Field(
        None, description="Run directory; by default runs/<method>-<data>-<hash of these settings>."
    )
    seed: int = Field(0, ge=0, description="Fixes order, initial weights and sampling.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to compute.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Compute type; auto takes bfloat16 where it is fast."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads; by default all available cores. A run may resume with another number.",
    )
    force: bool = Field(False, description="Run even if the memory estimate says that it does not fit.")
    track: Literal["none", "tensorboard", "trackio", "wandb"] = Field(
        "none", description="Where else the lines of metrics.jsonl go; wandb sends them to its servers."
    )
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    lora: LoraConfig = LoraConfig()
    quant: QuantConfig = QuantConfig()
    train: TrainConfig = TrainConfig()
    preference: PreferenceConfig = PreferenceConfig()
    ranking: RankingConfig = RankingConfig()
    rollout: RolloutConfig = RolloutConfig()
    policy: PolicyConfig = PolicyConfig()
    eval: EvalConfig = EvalConfig()
    stop: StopConfig = StopConfig()
    reward: RewardConfig = RewardConfig()

    def fingerprint(self) -> str:
        """Eight hex digits of everything that changes the result; the run directory's default name ends in it."""
        settings = self.model_dump(mode="json", exclude=set(BESIDE))
        defaults = RunConfig().model_dump(mode="json")
        for section, _, name in (setting.partition(".") for setting in BESIDE if "." in setting):
            settings[section][name] = defaults[section][name]  # stays in the hash: it was in the names of older runs
        for section, _, name in (setting.partition(".") for setting in LATER):
            if settings[section][name] == defaults[section][name]:
                del settings[section][name]
        for (section, _, name), former in ((setting.partition("."), value) for setting, value in FORMER.items()):
            if settings[section][name] == defaults[section][name]:
                settings[section][name] = former
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def flag_of(setting: str) -> str:
    """The option of a setting: --train.lr, or its own name of FLAGS."""
    return f"--{FLAGS.get(setting, setting)}"


def fields(section: type[Section] = RunConfig, prefix: str = "") -> dict[str, Any]:
    """Every setting by dotted name, in order: {'train.lr': FieldInfo, ...}."""
    out: dict[str, Any] = {}
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            out |= fields(info.annotation, f"{prefix}{name}.")
        else:
            out[prefix + name] = info
    return out
