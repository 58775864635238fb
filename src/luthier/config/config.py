"""Settings of a run: one tree of sections, from defaults, a YAML file and the command line, in that order.

Every field here is read somewhere; its description is its `--help`. Unknown keys are errors that
name the nearest known one. `version` rises when the meaning of a field changes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from luthier.config.elsewhere import needless, setting_for
from luthier.core.errors import InputError, nearest, unknown

VERSION = 1
LARGEST = 2**63 - 1  # a whole number in 64 bits
# Settings that change nothing of the result. Threads change its last bits, and a run that goes on with others says so: a
# machine that got busy is no reason to begin anew. Limits of functions that fail at them are raised, and the run goes on.
BESIDE = ("out", "force", "track", "base", "threads", "reward.timeout", "reward.memory")
# Settings that came when there were runs already: where they are as by default, the names of runs are what they were before.
LATER = ("data.max_row", "policy.normalize", "reward.truncated")
# Defaults that were others when there were runs already, which stay in the names of runs. A run that reads them is found, and
# told what differs.
FORMER = {"policy.clip": 0.2, "policy.lam": 0.95}


EVAL_ROWS, EVAL_SAMPLES = 200, 64  # that are measured where nobody says how many
STDLIB = "stdlib"  # as data: functions of Python's standard library and their docstrings, the quickstart's task
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


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any, info: ValidationInfo) -> Any:
        """A single text where several may stand, as people write it in YAML: `path: rows.jsonl`."""
        several = get_origin(cls.model_fields[str(info.field_name)].annotation) is tuple
        return (value,) if several and isinstance(value, str) else value

    @field_validator("*", mode="after")
    @classmethod
    def _can_be_computed_with(cls, value: Any) -> Any:
        """No number is infinite or larger than the libraries below take."""
        if isinstance(value, float) and not math.isfinite(value):
            raise PydanticCustomError("finite", "should be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise PydanticCustomError("large", f"should be {LARGEST:,} at most")
        return value


class DataConfig(Section):
    path: tuple[str, ...] = Field((), description="Files, folders or globs to train on; '-' is standard input.")
    eval: tuple[str, ...] = Field(
        (),
        description="Held-out file, folder or quoted glob, again for more; without one, `holdout` of the data is kept aside.",
    )
    layout: str = Field("auto", description="Layout of the rows; 'auto' detects it.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Column names: FIELD=COLUMN, such as output=answer."
    )
    values: dict[str, str] = Field(
        default_factory=dict,
        description="What coded values mean: VALUE=MEANING, such as 1=output_1,2=output_2,0=tie; good=true; 3=angry.",
    )
    holdout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of the rows kept for evaluation when no eval file is given; by default 0.05, and of few rows more: "
        "32 of 200 to 640, 0.16 of fewer.",
    )
    group: str | None = Field(None, description="Column whose equal values stay on one side of the split.")
    limit: int | None = Field(None, ge=1, description="Use only the first N rows.")
    skip_bad: bool = Field(False, description="Skip and count rows that cannot be read, instead of stopping.")
    max_row: int = Field(
        16, ge=1, le=1000, description="Longest row in MB; with `skip_bad`, lines that are longer are left out."
    )
    stream: bool = Field(
        False, description="Read rows as they are needed: data larger than memory, a growing file, or standard input."
    )
    replay: tuple[str, ...] = Field(
        (),
        description="File of general rows that are mixed in, so that less is forgotten; again for more; docs/forgetting.md.",
    )
    replay_share: float = Field(0.1, gt=0, lt=1, description="Share of the examples that are general rows.")


class TextConfig(Section):
    template: str = Field(
        "auto", description="'auto' (the model's own, or alpaca), 'alpaca', 'plain', or a Jinja file."
    )
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Value that the template reads: NAME=VALUE, such as enable_thinking=false, or a JSON object of several.",
    )
    system: str | None = Field(None, description="System prompt for conversations that have none.")
    train_on: Literal["assistant", "last", "all"] = Field("assistant", description="Which turns are learned.")
    max_length: int = Field(1024, ge=8, description="Longest example in tokens.")
    too_long: Literal["cut", "drop"] = Field(
        "cut", description="What happens to a longer example: cut its end, or drop it. Both are counted."
    )


class LoraConfig(Section):
    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: float = Field(32.0, gt=0, description="Scale: the adapter adds alpha/rank * B A x.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before A.")
    targets: tuple[str, ...] = Field(
        ("all-linear",), description="Names of modules, globs or regular expressions that get an adapter."
    )
    rslora: bool = Field(False, description="Scale by alpha/sqrt(rank) (rsLoRA).")
    dora: bool = Field(False, description="Learn each output's magnitude apart from its direction (DoRA).")
    init: Literal["default", "pissa"] = Field(
        "default", description="Start of A and B: random and zero, or the largest singular vectors (PiSSA)."
    )
    lr_ratio: float = Field(1.0, gt=0, description="Learning rate of B over that of A (LoRA+).")


class QuantConfig(Section):
    kind: Literal["nf4", "int8"] = Field(
        "nf4", description="4-bit NormalFloat or 8-bit affine, for the frozen base of qlora."
    )
    block: int = Field(64, ge=16, multiple_of=2, description="Weights that share one scale.")
    double: bool = Field(True, description="Quantize the NF4 scales too (double quantization).")


class TrainConfig(Section):
    epochs: float = Field(1.0, gt=0, description="Passes over the data.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides epochs.")
    batch: int = Field(16, ge=1, description="Examples per optimizer step.")
    tokens: int | None = Field(
        None,
        ge=32,
        description="Tokens per forward pass: the memory knob. Changes no result but rounding. By default 1024 on a "
        "processor, up to 8192 on a GPU.",
    )
    lr: float | None = Field(
        None, gt=0, description="Peak learning rate; by default chosen from the tune kind and model width."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="Learning rate after warm-up.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps that warm up.")
    optimizer: Literal["adamw", "adamw8bit"] = Field("adamw", description="AdamW, or AdamW with 8-bit state.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW: decay of the second moment.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of matrices.")
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    weigh: Literal["token", "example"] = Field(
        "token", description="Every trained token counts the same, or every example does."
    )
    checkpoint: int = Field(50, ge=1, description="Steps between checkpoints.")
    checkpoint_minutes: float = Field(
        3.0, ge=0, description="Minutes after which one is due even so; 0 leaves it to the steps."
    )
    keep: int = Field(2, ge=1, description="Checkpoints kept.")


class PreferenceConfig(Section):
    beta: float | None = Field(
        None,
        gt=0,
        description="Strength of the preference; by default 0.1, for simpo 2. In orpo its share of the loss.",
    )
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = Field("sigmoid", description="Loss of dpo and response.")
    smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of the labels believed to be wrong (dpo, simpo).")
    likelihood: float | None = Field(
        None, ge=0, description="Weight of the better answers' likelihood; by default 0, for orpo and response 1."
    )
    target_margin: float = Field(1.0, ge=0, description="simpo: by how much the better answer is to win.")
    span: Literal["completion", "all"] = Field(
        "completion", description="orpo: whose likelihood is learned, the answer's or prompt and answer's."
    )
    desirable: float = Field(1.0, ge=0, description="kto: weight of wanted answers.")
    undesirable: float = Field(1.0, ge=0, description="kto: weight of unwanted answers.")


class RankingConfig(Section):
    loss: Literal["pairs", "plackett-luce"] = Field(
        "pairs", description="All pairs of a prompt's answers, or their order as a whole."
    )
    center: float = Field(0.0, ge=0, description="Weight of a term that keeps the scores of each pair around 0.")
    gather: bool | None = Field(
        None,
        description="Pairs of the same prompt become one example, each answer computed once; by default for reward.",
    )


class EvalConfig(Section):
    every: int = Field(0, ge=0, description="Steps between evaluations; 0 means before and after only.")
    rows: int | None = Field(
        None, ge=1, description="Held-out rows whose loss is measured; by default 200, fewer beside a short training."
    )
    samples: int | None = Field(
        None, ge=0, description="Held-out rows that are generated and scored, 0 for none; by default 64, fewer beside a short "
        "training: losses and answers, before and after, take no longer than half of it, down to 32 rows and 16 answers."
    )  # fmt: skip
    metrics: tuple[str, ...] = Field(
        ("auto",), description="Metrics of the generated answers, of docs/data.md or python:FILE:FUNCTION; 'auto' chooses by "
        "the data."
    )  # fmt: skip
    max_new_tokens: int = Field(128, ge=1, description="Longest generated answer in tokens.")
    temperature: float = Field(
        0.0, ge=0, description="How held-out answers are drawn: 0 takes the likeliest token, 1 samples from the model."
    )
    repeat: int = Field(
        1, ge=1, description="Samples of each of 32 held-out prompts, and answers to paraphrases of it: whether they agree, and "
        "what in them is unsupported or wrong; 1 for none."
    )  # fmt: skip
    patience: int = Field(
        0, ge=0, description="Stop after so many evaluations without a better loss; needs --eval.every."
    )
    forgetting: bool = Field(True, description="Measure what the model lost of its own answers.")
    general: tuple[str, ...] = Field(
        (), description="File of general texts or chats whose likelihood is measured before and after; again for more."
    )
    benchmark: str | None = Field(
        None, description="Benchmarks measured before and after, as `luthier eval --tasks`, such as hellaswag,arc_easy."
    )
    benchmark_dir: str | None = Field(None, description="Folder with the files of these benchmarks.")
    benchmark_limit: int = Field(50, ge=1, description="Documents of each of these benchmarks.")


class StopConfig(Section):
    forgetting: float | None = Field(
        None, gt=0, description="Stop when more nats per token of the model's own answers are lost; needs --eval.every."
    )


class RolloutConfig(Section):
    samples: int = Field(8, ge=1, description="Answers sampled for each prompt (ppo: 1 is usual).")
    max_new_tokens: int = Field(128, ge=1, description="Longest sampled answer in tokens.")
    temperature: float = Field(1.0, gt=0, description="1 samples from the policy itself.")
    top_p: float = Field(1.0, gt=0, le=1, description="Keep the likeliest tokens that sum to this; 1 keeps all.")
    batch: int = Field(64, ge=1, description="Answers generated at once.")


class PolicyConfig(Section):
    variant: Literal["grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo"] = Field(
        "grpo", description="grpo: how rewards become advantages, and tokens one mean; see docs/methods.md."
    )
    epochs: int = Field(1, ge=1, description="Passes over each rollout.")
    minibatches: int = Field(
        1, ge=1, description="Optimizer steps of each pass; a rollout has batch x minibatches prompts."
    )
    clip: float | None = Field(
        None, gt=0, description="How far the ratio to the sampling policy counts, below 1 and above: 0.2, gspo 0.0003."
    )
    clip_high: float | None = Field(
        None, gt=0, description="Above 1, when other than `clip`; by default for dapo 0.28, for gspo 0.0004."
    )
    kl: float | None = Field(None, ge=0, description="Weight of the divergence from the start; ppo 0.05, others 0.")
    kl_in: Literal["reward", "loss"] | None = Field(
        None, description="Where it counts: of the reward (ppo, rloo, reinforce++) or of the loss (the others)."
    )
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(
        None, description="k1 = -d, k2 = d^2/2, k3 = exp(d)-d-1; k1 in the reward, k3 in the loss."
    )
    kl_target: float | None = Field(
        None, gt=0, description="Nats per answer that kl is steered to while training; without it kl stays."
    )
    kl_budget: float | None = Field(
        None, gt=0, description="Nats per answer that a kept checkpoint may lie from the start; needs --eval.every."
    )
    gamma: float = Field(1.0, gt=0, le=1, description="ppo: discount from token to token.")
    lam: float = Field(
        1.0, ge=0, le=1, description="ppo: lambda of the advantage estimate (GAE); below 1 early tokens of an answer learn less "
        "of a reward at its end."
    )  # fmt: skip
    normalize: bool = Field(
        True, description="ppo: rewards less their mean over their deviation, both of all rollouts so far, before the "
        "divergence is taken from them."
    )  # fmt: skip
    whiten: bool = Field(True, description="ppo: scale the advantages of a rollout to mean 0 and deviation 1.")
    value_clip: float = Field(0.2, gt=0, description="ppo: how far a value may move from its old one.")
    value_weight: float = Field(0.1, ge=0, description="ppo: weight of the value loss.")
    critic_lr: float = Field(1.0, gt=0, description="ppo: learning rate of the critic over the policy's.")
    pretrain: tuple[str, ...] = Field(
        (), description="ppo: file of general text whose likelihood is kept up; again for more."
    )
    pretrain_weight: float = Field(1.0, ge=0, description="ppo: weight of that likelihood.")


class RewardConfig(Section):
    use: tuple[str, ...] = Field(
        (), description="Rewards, summed: exact, regex:PATTERN, python:FILE:FUNCTION, ..., as in docs/rewards.md; "
        "a weight may stand in front, such as 2*exact."
    )  # fmt: skip
    judge: tuple[str, ...] = Field(
        (), description="ppo, grpo: rewards that held-out answers are measured by and nothing is learned from."
    )
    truncated: str = Field(
        "keep", pattern=r"^(keep|zero|mask|-\d+(\.\d+)?)$", description="ppo, grpo: what an answer is given that was cut at "
        "`rollout.max_new_tokens`: keep its reward, zero, a number such as -1; mask learns nothing from it."
    )  # fmt: skip
    timeout: float = Field(60.0, gt=0, description="Seconds that a python reward may take for one batch of answers.")
    memory: int = Field(4096, ge=64, description="Memory that the process of a python reward may take, in MiB.")


class RunConfig(Section):
    version: int = Field(VERSION, description="Version of these settings.")
    method: str = Field("sft", description="How to learn: see `luthier train --help`.")
    model: str = Field(
        "smollm2-135m",
        description="A run, an embedded name, a folder (a PEFT adapter's too), a .gguf file, or a hub name (owner/model).",
    )
    base: str | None = Field(
        None,
        description="The model below the adapter of a run or a PEFT folder, where it is not the one that this names: a folder, "
        "a .gguf file or a hub name.",
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
        description="CPU threads; by default all cores that there are for it. A run may go on with another number.",
    )
    force: bool = Field(False, description="Run although the memory estimate says it cannot fit.")
    track: Literal["none", "tensorboard", "trackio", "wandb"] = Field(
        "none", description="Where the lines of metrics.jsonl go too; wandb sends them to its servers."
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


def fields(section: type[Section] = RunConfig, prefix: str = "") -> dict[str, Any]:
    """Every setting by dotted name, in order: {'train.lr': FieldInfo, ...}."""
    out: dict[str, Any] = {}
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            out |= fields(info.annotation, f"{prefix}{name}.")
        else:
            out[prefix + name] = info
    return out


def resolve(*layers: Mapping[str, Any], where: object = None) -> RunConfig:
    """One RunConfig from layers of settings, later ones winning; keys may be nested or dotted.

    Raises InputError for an unknown key (with the nearest name), a value of the wrong type, or a
    version newer than this program.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _check_version(layer.get("version"), where)  # first: a newer one may have other settings
        for key, value in _dotted(layer).items():
            _check_key(key, where)
            *path, last = key.split(".")
            node = merged
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise _invalid(error, where) from None


def _check_version(version: object, where: object) -> None:
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"settings of version {version}, but this Luthier knows version {VERSION}",
            where=where, mend="install a newer Luthier",
        )  # fmt: skip


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises InputError with the line when it is not YAML or not a mapping."""
    from luthier.core.foreign.yaml_file import read

    value = read(path, "settings")[1]
    if not isinstance(value, dict):
        raise InputError("settings must be names with values", where=path, mend="such as `model: smollm2-135m`")
    return value


def write_yaml(config: RunConfig) -> str:
    """The complete settings as YAML, which `resolve` reads back to an equal RunConfig."""
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _dotted(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested sections; a mapping that is itself a setting (data.columns) stays whole."""
    known = fields()
    out: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and name not in known:
            out |= _dotted(item, f"{name}.")
        else:
            out[name] = item
    return out


def _invalid(error: ValidationError, where: object) -> InputError:
    """The first fault that pydantic found: the setting, what is asked of it, what it was given."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "literal_error":
        known = _choices(fields()[name].annotation)
        return unknown(name.rpartition(".")[2], str(first["input"]), known, where=where or f"--{name}")
    wanted = first["msg"].removeprefix("Input ").partition(", unable")[0]
    return InputError(f"{wanted}, not {first['input']!r}", where=f"{where}: {name}" if where else f"--{name}")


def _choices(annotation: Any) -> list[str]:
    """The values of a Literal, or of one that may be None."""
    return [value for part in get_args(annotation) for value in (get_args(part) or [part]) if isinstance(value, str)]


def about(setting: str) -> str:
    """What a setting is, in its first sentence."""
    said = fields()[setting].description or ""
    return said.partition(". ")[0].rstrip(".")


def _check_key(key: str, where: object) -> None:
    known = fields()
    if key in known:
        return
    if any(name.startswith(f"{key}.") for name in known):
        raise InputError(f"'{key}' is a section, not a value", where=where, mend=f"write its settings below `{key}:`")
    tails = {name.rsplit(".", 1)[-1]: name for name in known}
    if said := needless(key):
        raise InputError(f"unknown setting '{key}'", where=where, mend=f"leave it out: {said}")
    if (setting := setting_for(key)) and key.rsplit(".", 1)[-1] not in tails:
        raise InputError(f"unknown setting '{key}'", where=where, mend=f"here it is {setting}: {about(setting)}")
    guess = tails.get(key.rsplit(".", 1)[-1]) or nearest(key, known)
    raise InputError(
        f"unknown setting '{key}'", where=where,
        mend=f"did you mean '{guess}'?" if guess else "see `luthier train --help`",
    )  # fmt: skip
