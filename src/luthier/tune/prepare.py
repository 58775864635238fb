"""Settings -> everything a run needs: examples, template, encoded trees, model, what learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from luthier.config.model import LoraConfig, QuantConfig
from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.types.examples import Example
from luthier.core.types.trees import TokenTree
from luthier.model import load as model_load
from luthier.model import memory
from luthier.model.adapt import adapters, lora, tune, vocabulary_weights
from luthier.model.adapt.base import dequantize_base
from luthier.model.folder.configuration import load_config
from luthier.runs.method import chosen_method
from luthier.runs.open import load_with_adapter
from luthier.runs.rows import Examples
from luthier.runs.system_prompt import SystemPrompts
from luthier.runs.tokenizer_and_template import TextFormat
from luthier.text.encode import Encoded, encode
from luthier.tune.context_length import check_context


@dataclass
class RowCounts:
    """How many rows were read, and what was lost of them: `skipped` could not be read, the prompt of `seen` is held out (of
    a stream, whose rows cannot be compared beforehand), the rest as in `Encoded`."""

    rows: int = 0
    skipped: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    cut_tokens: int = 0
    unended: int = 0
    quoted: int = 0
    seen: int = 0
    system_prompts: SystemPrompts = field(default_factory=SystemPrompts)
    unwritten: Counter[str] = field(default_factory=Counter)

    def add(self, examples: Sequence[Example], *parts: Encoded) -> None:
        """Count rows, and what encoding them lost."""
        self.rows += len(examples)
        for part in parts:
            self.dropped.update(row.reason for row in part.dropped)
            self.unwritten.update(part.unwritten)
            for name in ("cut", "cut_tokens", "unended", "quoted"):
                setattr(self, name, getattr(self, name) + getattr(part, name))

    def as_record(self) -> dict[str, Any]:
        """Keys of the `data` of result.json."""
        return {
            "skipped": self.skipped, "dropped": dict(self.dropped), "cut": self.cut, "cut_tokens": self.cut_tokens,
            "unended": self.unended,
        }  # fmt: skip

    def warn(self, name: str, config: RunConfig) -> None:
        """Say what was lost of the rows called `name`."""
        if self.skipped:
            log.warn(f"{self.skipped} {name} skipped: they cannot be read; `luthier data` shows them")
        for reason, number in self.dropped.items():
            log.warn(f"{number} of {self.rows} {name} dropped: {reason}")
        if self.cut:
            log.warn(
                f"{self.cut} of {self.rows} {name} were longer than --text.max_length {config.text.max_length} and lost "
                f"{self.cut_tokens} tokens at their end"
            )
        if self.seen:
            log.warn(
                f"the prompts of {self.seen} of {self.rows} {name} are held out too; scores on these will be too good"
            )
        if self.quoted:
            log.warn(
                f"{self.quoted} of {self.rows} {name} contain a control token of the model as text; it is read as plain text"
            )
        for what, number in sorted(self.unwritten.items()):
            log.warn(f"{number} of {self.rows} {name}: the template {what}")


@dataclass(frozen=True)
class EncodedData:
    """Encoded data. `counts` says what was dropped and cut, `system_prompts` which system prompts the rows to learn from have. Rows
    of `replay` are numbered after those of the data."""

    train: list[TokenTree]
    test: list[TokenTree]
    counts: dict[str, Any] = field(default_factory=dict)
    replay: list[TokenTree] = field(default_factory=list)
    system_prompts: SystemPrompts = field(default_factory=SystemPrompts)


def continues_adapter(texts: TextFormat, config: RunConfig) -> bool:
    """Whether training goes on with the adapter that the model brings, instead of adding it to the weights first."""
    return texts.resolved.adapter is not None and tune.is_adapter(config.tune)


def lora_settings(texts: TextFormat, config: RunConfig) -> LoraConfig:
    """The adapter's settings: those of the adapter that training goes on with, or the run's own. With new tokens embedding and head
    learn whole.

    Raises InputError when the run asks for another shape than that adapter has.
    """
    if not continues_adapter(texts, config) or texts.resolved.adapter is None:
        return _with_vocabulary(config.lora, texts)
    if config.tune != texts.resolved.config.tune and texts.resolved.config.tune in ("lora", "qlora"):
        raise InputError(
            f"training continues with the adapter of {config.model}, which was tuned with {texts.resolved.config.tune}",
            where="--tune", fix=f"give --tune {texts.resolved.config.tune}, or the model from `luthier merge`",
        )  # fmt: skip
    own = adapters.settings_of(texts.resolved.adapter, config.lora)
    fixed: list[tuple[str, Any, Any]] = [
        (f"lora.{name}", config.lora, own)
        for name in ("rank", "expert_rank", "alpha", "targets", "rslora", "dora", "init")
    ]
    if texts.resolved.quantized:
        fixed += [(f"quant.{name}", config.quant, texts.resolved.config.quant) for name in QuantConfig.model_fields]
    for setting, asked, made in fixed:
        name = setting.partition(".")[2]
        value, theirs = getattr(asked, name), getattr(made, name)
        if value not in (theirs, type(asked).model_fields[name].get_default()):
            raise InputError(
                f"training continues with the adapter of {config.model}, whose {name} is {theirs}",
                where=f"--{setting}", fix="leave it out, or give the model from `luthier merge` for a new adapter",
            )  # fmt: skip
    return _with_vocabulary(own, texts)


def _with_vocabulary(settings: LoraConfig, texts: TextFormat) -> LoraConfig:
    return settings.model_copy(update={"modules_to_save": vocabulary_weights.NAMES}) if texts.new_tokens else settings


def encode_all(examples: Examples, texts: TextFormat, config: RunConfig, cancelled: Any) -> EncodedData:
    """Encode both parts, saying what was dropped or cut."""
    encoded = []
    count = len(examples.train)
    systems = SystemPrompts()
    systems.add(examples.train, config.text.system)
    learned_under = config.text.model_copy(update={"system": systems.common() or config.text.system})
    for name, part, first, settings in (
        ("train", examples.train, 0, config.text),
        ("held-out", examples.test, 0, learned_under),
        ("replay", examples.replay, count, config.text),
    ):
        if not part:
            encoded.append(Encoded([], []))
            continue
        with log.progress(f"tokens of {name} rows", len(part)) as bar:

            def moved(count: int, bar: log.Bar = bar) -> None:
                cancelled.check()
                bar.advance(count)

            bad = config.data.skip_bad
            encoded.append(encode(part, texts.template, texts.tokenizer, settings, first, skip_bad=bad, progress=moved))
    train, test, replay = encoded
    learned, held_out = RowCounts(skipped=examples.skipped), RowCounts()
    learned.add([*examples.train, *examples.replay], train, replay)
    held_out.add(examples.test, test)
    learned.warn("rows", config)
    systems.say()
    held_out.warn("held-out rows", config)
    counts: dict[str, Any] = {"rows": count, "held_out": held_out.rows}
    if examples.replay:
        counts["replay"] = len(examples.replay)
    counts |= learned.as_record() | {f"held_out_{name}": held_out.as_record()[name] for name in ("dropped", "cut")}
    learn = arrange_trees(train.trees, config)
    beside = arrange_trees(replay.trees, config, train.trees)
    encoded_data = EncodedData(
        learn, arrange_trees(test.trees, config, train.trees), counts | examples.facts(), beside, systems
    )
    check_context([*encoded_data.train, *encoded_data.replay, *encoded_data.test], texts, config)
    return encoded_data


def arrange_trees(trees: Sequence[TokenTree], config: RunConfig, beside: Sequence[TokenTree] = ()) -> list[TokenTree]:
    """What the method makes of the trees. Held-out trees have those to learn from `beside` them."""
    method = chosen_method(config)
    if method.tree:
        settings = getattr(config, method.section) if method.section else None
        trees = [method.tree(tree, settings) for tree in trees]
    return method.arrange(trees, beside) if method.arrange and trees else list(trees)


def computing(texts: TextFormat, config: RunConfig) -> dict[str, Any]:
    """On what, in which type and in how large passes this run computes: a run goes on only on the same."""
    device = model_load.pick_device(config.device)
    dtype = model_load.pick_dtype(config.dtype, device)
    tokens = pass_tokens(texts, config, dtype, device)
    return {"device": device.type, "dtype": str(dtype).removeprefix("torch."), "tokens": tokens}


def pass_tokens(texts: TextFormat, config: RunConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Tokens of a forward pass: the user's, or the rule's."""
    shape = load_config(texts.resolved.source.folder)
    return config.train.tokens or memory.pass_tokens(shape, config.tune, dtype, device)


def check_model(texts: TextFormat, config: RunConfig) -> None:
    """Raise InputError for weights that cannot be tuned here, before the data is read."""
    device = model_load.pick_device(config.device)
    model_load.verify(texts.resolved.source, device=device, dtype=model_load.pick_dtype(config.dtype, device))


def load_model(texts: TextFormat, config: RunConfig) -> model_load.LoadedModel:
    """The model on its device in its compute type, with the adapter it brings. Raises InputError where a router is asked of one without."""
    loaded = load_with_adapter(texts.resolved, config.device, config.dtype, texts.tokenizer.fast)
    if config.train.router_loss:
        _require_router(loaded.model)
    if texts.resolved.adapter and not continues_adapter(texts, config):
        lora.merge(loaded.model)
        dequantize_base(loaded.model)
    vocabulary_weights.add_rows(loaded.model, max(texts.new_tokens, default=-1) + 1, texts.new_tokens)
    return loaded


def _require_router(model: Any) -> None:
    """Raise InputError for a model without a router whose logits transformers tells."""
    if "router_logits" not in (getattr(model.get_decoder(), "_can_record_outputs", None) or {}):
        what = f"a model of type '{model.config.model_type}' has no router of experts to balance"
        raise InputError(what, where="--train.router_loss", fix="leave it out")


def learning_rate(config: RunConfig, hidden: int) -> float:
    """The peak rate: the user's, or the rule's."""
    return config.train.lr or tune.peak_rate(config.tune, hidden) * chosen_method(config).rate


def schedule(config: RunConfig) -> str:
    """Of the learning rate: the user's, or the method's."""
    return config.train.schedule or chosen_method(config).schedule
