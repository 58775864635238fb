"""Files of settings that were written for Axolotl, LLaMA-Factory, TRL or Unsloth, as settings of ours.

What such a file leaves out counts as that program would have it. Every line is accounted for: it became a setting, is not needed
here, or cannot be followed. A way of learning that is not known is refused, since any other would be another training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.config.elsewhere import SETTINGS, needless
from luthier.config.other_programs import DEFAULTS, FACTORY, MARKS, METHODS, ONLINE, SCHEDULES, TRL, TRL_RATES, VARIANTS
from luthier.config.resolve import resolve
from luthier.config.run import fields
from luthier.core.errors import InputError, unknown

Foreign = Mapping[str, Any]

OWN_TEMPLATE = ("tokenizer_default", "auto", None)


@dataclass
class Translation:
    """A file as settings. `settings` by dotted name; of each line that gave one, `taken` has it beside them; `needless` and `left`
    have the lines that gave none with the reason; `assumed` is what the program does where the file is silent."""

    program: str
    settings: dict[str, Any] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    needless: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    assumed: str = ""

    def take(self, line: str, settings: Mapping[str, Any]) -> None:
        """These settings came from that line, if they are such as Luthier takes."""
        try:
            resolve(settings)
        except InputError as error:
            self.left[line] = f"{', '.join(settings)}: {error.what}"
            return
        self.settings |= settings
        self.taken[line] = _listed(settings)


def translate(foreign: Foreign, file: Path) -> Translation:
    """The settings of a file of another program. Data is looked for from the current folder, then from the file's.

    Raises InputError for a way of learning that Luthier has not.
    """
    given = {key: value for key, value in _flat(foreign).items() if value not in (None, "", [], {})}
    made = Translation(program_of(given))
    defaults = DEFAULTS[made.program]
    if made.program == FACTORY and isinstance(rank := given.get("lora_rank", 8), int):
        defaults = defaults | {"lora.alpha": 2.0 * rank}
    rest = dict(given)
    for reader in (_method, _tuning, _model, _batch, _steps, _data, _text):
        reader(rest, made, file)
    for key, value in rest.items():
        _line(key, value, made)
    if made.program == TRL and (rate := TRL_RATES.get(made.settings.get("method", "sft"))):
        defaults = defaults | {"train.lr": rate}
    silent = {name: value for name, value in defaults.items() if name not in made.settings}
    if (made.settings | silent)["tune"] not in ("lora", "qlora"):
        silent = {name: value for name, value in silent.items() if not name.startswith("lora.")}
    made.settings = silent | made.settings
    made.assumed = _listed(silent)
    return made


def program_of(given: Foreign) -> str:
    """The program that a file was written for, by lines that only it has; TRL reads the names of transformers."""
    counts = {program: sum(mark in given for mark in marks) for program, marks in MARKS.items()}
    most = max(counts, key=lambda program: counts[program])
    return most if counts[most] else TRL


def _flat(foreign: Foreign) -> dict[str, Any]:
    """Axolotl has what GRPO reads below `trl`."""
    out = dict(foreign)
    inner = out.pop("trl", None)
    return {**out, **inner} if isinstance(inner, Mapping) else out


def _method(rest: dict[str, Any], made: Translation, file: Path) -> None:
    """`rl` of Axolotl, `stage` and `pref_loss` of LLaMA-Factory, `loss_type` of TRL."""
    key = next((key for key in ("rl", "stage", "trainer", "method") if key in rest), None)
    if key is not None:
        value = str(rest.pop(key)).lower()
        refined = str(rest.pop("pref_loss", "sigmoid")).lower() if value == "dpo" else value
        name = value if refined == "sigmoid" else refined
        if name not in METHODS:
            raise unknown("method", name, METHODS, where=f"{file}: {key}")
        made.take(f"{key}: {value}" + ("" if name == value else f", pref_loss: {name}"), METHODS[name])
    if made.settings.get("method") in ONLINE:
        for theirs, ours in (("beta", "policy.kl"), ("temperature", "rollout.temperature"), ("top_p", "rollout.top_p")):
            if theirs in rest:
                made.take(f"{theirs}: {_shown(rest[theirs])}", {ours: rest.pop(theirs)})
        if (variant := rest.pop("loss_type", None)) in VARIANTS:
            made.take(f"loss_type: {variant}", {"policy.variant": variant})
        elif variant is not None:
            made.left[f"loss_type: {variant}"] = f"--policy.variant has {', '.join(VARIANTS)}"
    elif "temperature" in rest:
        made.left[f"temperature: {_shown(rest.pop('temperature'))}"] = "held-out answers are greedy; --eval.temperature"


def _tuning(rest: dict[str, Any], made: Translation, file: Path) -> None:
    """Which weights learn, and how the frozen ones are stored."""
    kind = rest.pop("finetuning_type", rest.pop("adapter", None))
    uses = rest.pop("use_peft", rest.pop("use_lora", None))
    bits = rest.pop("quantization_bit", 4 if rest.get("load_in_4bit") else 8 if rest.get("load_in_8bit") else None)
    if bits not in (None, 4, 8):
        raise InputError(f"weights of {bits} bits", where=f"{file}: quantization_bit", fix="write 4 or 8")
    for key in ("load_in_4bit", "load_in_8bit"):
        if rest.pop(key, None) is False:
            made.needless[f"{key}: false"] = OFF
    for key, same in (("quantization_method", ("bitsandbytes", "bnb")), ("bnb_4bit_quant_type", ("nf4",))):
        value = rest.pop(key, None)
        if value in same:
            made.needless[f"{key}: {value}"] = "the 4-bit code here is NF4"
        elif value is not None:
            made.left[f"{key}: {value}"] = "the codes here are NF4 and 8 bits; --quant.kind"
    if kind is None and uses is None and bits is None:
        return None
    if kind == "freeze":
        return made.take(f"finetuning_type: {kind}", {"tune": f"last:{int(rest.pop('freeze_trainable_layers', 2))}"})
    adapter = kind in ("lora", "qlora") or bool(uses) or (kind is None and bits is not None)
    if kind not in (None, "lora", "qlora", "full"):
        raise unknown("tune kind", str(kind), ("full", "lora", "qlora"), where=f"{file}: adapter")
    if not adapter:
        return made.take(f"tuning: {kind or 'full'}", {"tune": "full"})
    if bits is None and kind != "qlora":
        return made.take("tuning: lora", {"tune": "lora"})
    code = "int8" if bits == 8 else "nf4"
    return made.take(f"tuning: {kind or 'lora'} in {bits or 4} bits", {"tune": "qlora", "quant.kind": code})


def _model(rest: dict[str, Any], made: Translation, file: Path) -> None:
    """The base, or an adapter of it to go on from; the type to compute in."""
    base = next((rest.pop(k) for k in ("base_model", "model_name_or_path", "model_name") if k in rest), None)
    adapter = next((rest.pop(k) for k in ("lora_model_dir", "adapter_name_or_path") if k in rest), None)
    if adapter:
        made.take(f"adapter: {adapter}", {"model": str(adapter)} | ({"base": str(base)} if base else {}))
    elif base:
        made.take(f"model: {base}", {"model": str(base)})
    for key in ("bf16", "fp16", "torch_dtype", "dtype"):
        if (value := rest.pop(key, None)) is None:
            continue
        line, name = f"{key}: {_shown(value)}", "bfloat16" if key == "bf16" and value is True else value
        if (key == "fp16" and value is not False) or name == "float16":
            made.left[line] = "weights learn in bfloat16 or float32; --dtype"
        elif name is False:
            made.needless[line] = OFF
        else:
            made.take(line, {"dtype": name})


def _batch(rest: dict[str, Any], made: Translation, file: Path) -> None:
    """Examples per optimizer step: a device's, times the passes that are added up."""
    sizes = ("micro_batch_size", "per_device_train_batch_size", "batch_size")
    one = next(((key, rest.pop(key)) for key in sizes if key in rest), None)
    passes = rest.pop("gradient_accumulation_steps", None)
    if one is None and passes is None:
        return
    key, size = one or ("batch", DEFAULTS[made.program]["train.batch"])
    count = 1 if passes is None else passes
    line = f"{key}: {_shown(size)}, gradient_accumulation_steps: {_shown(count)}"
    if isinstance(size, int) and isinstance(count, int):
        made.take(line, {"train.batch": size * count})
    else:
        made.left[line] = "a number of examples is asked for; --train.batch"


def _steps(rest: dict[str, Any], made: Translation, file: Path) -> None:
    """Warm-up as a share, evaluations and checkpoints by steps."""
    steps = rest.get("max_steps")
    if isinstance(steps, int) and steps < 1:
        rest.pop("max_steps")  # -1: as the epochs say
    warmup = rest.pop("warmup_steps", None)
    if isinstance(warmup, float) and 0 < warmup < 1:  # newer versions of transformers take the share here
        made.take(f"warmup_steps: {warmup}", {"train.warmup": warmup})
    elif isinstance(warmup, int) and warmup > 0 and isinstance(steps, int) and steps > warmup:
        made.take(f"warmup_steps: {warmup} of {steps}", {"train.warmup": round(warmup / steps, 4)})
    elif warmup:
        made.left[f"warmup_steps: {warmup}"] = "warm-up is a share of the steps here; --train.warmup"
    for key in ("eval_steps", "save_steps"):
        every = rest.pop(key, None)
        setting = {"eval_steps": "eval.every", "save_steps": "train.checkpoint"}[key]
        if isinstance(every, int):
            made.take(f"{key}: {every}", {setting: every})
        elif every is not None:
            made.left[f"{key}: {every}"] = f"a number of steps is asked for; --{setting}"
    for key in ("evals_per_epoch", "eval_strategy", "evaluation_strategy"):
        if (value := rest.pop(key, None)) is not None:
            where = made.needless if value in ("no", "steps", False) else made.left
            where[f"{key}: {_shown(value)}"] = (
                "held-out rows are measured before and after, and every --eval.every steps"
            )
    if (value := rest.pop("save_strategy", None)) is not None:
        made.needless[f"save_strategy: {_shown(value)}"] = (
            "checkpoints are written every --train.checkpoint steps and some minutes"
        )


def _text(rest: dict[str, Any], made: Translation, file: Path) -> None:
    """The template, and which turns are learned."""
    for key in ("chat_template", "template"):
        value = rest.pop(key, None)
        if value not in OWN_TEMPLATE:
            made.left[f"{key}: {value}"] = "the model's own template is used; --text.template for another"
    whole = {
        "train_on_inputs": True,
        "train_on_prompt": True,
        "assistant_only_loss": False,
        "completion_only_loss": False,
    }
    for key, value in whole.items():  # the value with which all turns are learned
        if isinstance(given := rest.pop(key, None), bool):
            made.take(f"{key}: {_shown(given)}", {"text.train_on": "all" if given is value else "assistant"})
    if rest.pop("mask_history", False):
        made.take("mask_history: true", {"text.train_on": "last"})


def _data(rest: dict[str, Any], made: Translation, file: Path) -> None:
    """Files that are here; a name on a hub is left to be downloaded."""
    from luthier.config import translate_data

    for key, setting in (("datasets", "data.path"), ("test_datasets", "data.eval")):
        entries = rest.pop(key, None)
        if isinstance(entries, list):
            translate_data.axolotl(entries, setting, made, file)
    folder = Path(str(rest.pop("dataset_dir", "data")))
    for key, setting in (("dataset", "data.path"), ("eval_dataset", "data.eval")):
        if (names := rest.pop(key, None)) is not None:
            translate_data.factory(names, setting, made, folder, file)
    name = rest.pop("dataset_name", rest.pop("train_file", None))
    if name is not None:
        translate_data.path(str(name), "data.path", made, file)


Convert = Callable[[Any], Any]


def _targets(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else list(value)
    return ["all-linear" if name in ("all", "all-linear") else str(name).strip() for name in names]


def _optimizer(value: Any) -> str | None:
    name = str(value).lower()
    return None if not name.startswith(("adamw", "paged_adamw")) else "adamw8bit" if "8bit" in name else "adamw"


# Settings whose values other programs write in another way; None where ours has no such value.
VALUES: dict[str, Convert] = {
    "train.schedule": lambda value: SCHEDULES.get(str(value)),
    "train.optimizer": _optimizer,
    "train.recompute": lambda value: "blocks" if value in (True, "unsloth", "true") else None if value else "auto",
    "lora.modules_to_save": _targets,
    "reward.use": lambda value: None,
    "track": lambda value: None,
    "text.add_tokens": lambda value: None,
}
WHY_NOT = {
    "train.optimizer": "the optimizers here are adamw and adamw8bit",
    "train.schedule": "the schedules here are constant, linear and cosine",
    "track": "metrics stay in the run's folder; --track sends them elsewhere",
    "reward.use": "name the rewards with --reward (docs/rewards.md)",
    "text.add_tokens": "write them into a file, one a line, for --tune.add_tokens",
}
OFF = "off here too"
SWITCHES = ("lora.rslora", "lora.dora", "data.stream")
UNLIKE = {
    "data_seed": "--seed fixes the order of rows too",
    "special_tokens": "the tokenizer's own are used; --tune.add_tokens for new ones",
    "tokens": WHY_NOT["text.add_tokens"],
    "saves_per_epoch": "checkpoints are written every --train.checkpoint steps and some minutes",
    "resize_token_embeddings_to_32x": "the embedding keeps its size; --tune.add_tokens for new tokens",
}
SILENT = {"lora_target_linear", "lora_targets"}  # true: what is so by default


def _line(key: str, value: Any, made: Translation) -> None:
    """A line that stands for one setting, is not needed here, or is not known."""
    line = f"{key}: {_shown(value)}"
    setting = SETTINGS.get(key) or _own(key)
    if setting == "lora.targets" and (key in SILENT or not isinstance(value, bool)):
        if value is not False:
            more = ["all-linear"] if value is True else _targets(value)
            return made.take(line, {setting: list(dict.fromkeys([*made.settings.get(setting, ()), *more]))})
        made.needless[line] = OFF
    elif value is False and setting not in SWITCHES:
        made.needless[line] = OFF
    elif key in UNLIKE:
        made.left[line] = UNLIKE[key]
    elif why := needless(key):
        made.needless[line] = why
    elif setting is None:
        made.left[line] = "no setting of Luthier is known to mean this"
    elif setting == "track" and value in ("none", False, ["none"]):
        made.needless[line] = WHY_NOT["track"]
    elif (ours := VALUES.get(setting, lambda same: same)(value)) is None:
        made.left[line] = WHY_NOT.get(setting, f"see {setting}")
    elif isinstance(ours, bool) and setting not in SWITCHES:
        made.left[line] = f"see {setting}"
    else:
        made.take(line, {setting: ours})
    return None


def _own(key: str) -> str | None:
    """The one setting of ours with that name in some section, or none."""
    named = [name for name in fields() if name.rpartition(".")[2] == key]
    return named[0] if len(named) == 1 else None


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_shown(value)}" for name, value in settings.items())


def _shown(value: Any) -> str:
    """As one would write it in YAML, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"
