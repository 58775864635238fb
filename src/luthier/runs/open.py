"""A model or a run, opened for use: the base, its adapter, and the template it was trained with."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from luthier.config.model import QuantConfig
from luthier.config.run import RunConfig
from luthier.core.errors import InputError, unknown
from luthier.core.storage.files import sha256
from luthier.core.types.examples import Message
from luthier.generate.generate import stream
from luthier.generate.sampling import Sampling
from luthier.model import load as model_load
from luthier.model.adapt import adapter_config, adapters
from luthier.model.adapt.base import quantize_base
from luthier.model.adapt.roles import Role
from luthier.runs.locate import ResolvedModel, intact, resolve_model, run_of, run_settings
from luthier.runs.tokenizer_and_template import open_tokenizer
from luthier.text.encode import encode_prompt_ids
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class PromptFormat:
    """How a model learned to be asked."""

    template: Template
    system: str | None


@dataclass
class Opened:
    """A model ready to answer. `names` are the adapters that can be switched to, `prompt_formats` how those that are runs of
    their own are asked; 'base' is the model without any."""

    model: Any
    tokenizer: Tokenizer
    template: Template
    config: RunConfig
    names: dict[str, Path] = field(default_factory=dict)
    prompt_formats: dict[str, PromptFormat] = field(default_factory=dict)
    active: str = "base"

    def switch(self, name: str) -> None:
        """Answer with this adapter from now on, or with the bare 'base'. Raises InputError for an unknown name."""
        self._require(name)
        if name == "base":
            adapters.take_off(self.model)
        else:
            adapters.apply(self.model, self.names[name])
        self.active = name

    @cached_property
    def adapters(self) -> dict[str, Role]:
        """Every adapter by name, and 'base' without any, for requests that name theirs: nothing is switched."""
        return {"base": Role({}, {})} | {name: adapters.role(self.model, path) for name, path in self.names.items()}

    def requested(self, name: str | None) -> str | None:
        """The adapter that a request names, None where it is the active one. Raises InputError for an unknown name."""
        if name is not None:
            self._require(name)
        return None if name == self.active else name

    def _require(self, name: str) -> None:
        if name not in self.names and name != "base":
            raise InputError(f"no adapter '{name}'", fix=f"there are: {', '.join(('base', *self.names))}")

    @property
    def prompt_format(self) -> PromptFormat:
        """How the active adapter learned to be asked."""
        return self.format_of(None)

    def format_of(self, adapter: str | None) -> PromptFormat:
        """How this adapter learned to be asked; None is the active one."""
        return self.prompt_formats.get(adapter or self.active) or PromptFormat(self.template, self.config.text.system)

    def prompt_ids(
        self, messages: Sequence[Message], system: str | None = None, adapter: str | None = None
    ) -> list[int]:
        """A prompt as the adapter (the active one, if none is named) learned to be asked, under the system prompt it was trained
        with, unless `messages` bring their own, or `system` takes its place ("" for none)."""
        prompt_format = self.format_of(adapter)
        prompt = prompt_format.system if system is None else system
        return encode_prompt_ids(messages, (), prompt_format.template, self.tokenizer, system=prompt)

    def sampling(self, given: Mapping[str, Any], adapter: str | None = None) -> Sampling:
        """How answers are drawn; they end where the template ends one, and at the stops that are given. Raises InputError for
        names and values that sampling does not have."""
        template = self.format_of(adapter).template
        usual = {field.name: field.default for field in fields(Sampling)}
        for name, value in given.items():
            if name not in usual:
                raise unknown("sampling setting", name, usual)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            kind = type(usual[name])
            if not (isinstance(value, (tuple, list)) if kind is tuple else number and isinstance(value, (int, kind))):
                raise InputError(
                    f"{name} is {value!r}", where="sampling",
                    fix={tuple: "give a list", int: "give a whole number", float: "give a number"}[kind],
                )  # fmt: skip
        ends = tuple(sorted({*template.stop_ids, *given.get("stop_ids", ())}))
        return Sampling(**{**given, "stop_ids": ends, "stop": (*template.stops, *given.get("stop", ()))})

    def answer(
        self,
        messages: Sequence[Message],
        sampling: dict[str, Any],
        system: str | None = None,
        adapter: str | None = None,
    ) -> Iterator[str]:
        """The answer in pieces, as they come; asked as `prompt_ids` says."""
        settings, own = self.sampling(sampling, adapter), self.requested(adapter)
        return stream(
            self.model, self.prompt_ids(messages, system, adapter), settings, self.tokenizer.decode,
            adapter=own, adapters={own: self.adapters[own]} if own else None,
        )  # fmt: skip


def open_model(
    name: str,
    *,
    adapter: Sequence[str] = (),
    device: str = "auto",
    dtype: str = "auto",
    base: str | None = None,
    system: str | None = None,
) -> Opened:
    """Open a run directory, a folder with a PEFT adapter, or a model by any name that --model takes, with more adapters from
    other runs. `base` is the model below the adapter, where that is not the one it names; `system` takes the place of the
    system prompt it was trained with, "" of none.

    Raises InputError for a run that is not finished, for adapters that do not fit the model, and as `resolve_model` does.
    """
    resolved = resolve_model(name, base)
    config = resolved.config
    if system is not None:
        config = config.model_copy(update={"text": config.text.model_copy(update={"system": system or None})})
    found: dict[str, Path] = {Path(name).resolve().name: resolved.adapter} if resolved.adapter else {}
    others: dict[str, RunConfig] = {}
    for other in adapter:
        folder = Path(other) / "adapter" if (Path(other) / "adapter").is_dir() else Path(other)
        found[own := _own_name(Path(other).resolve(), found)] = folder
        if run := run_of(folder):
            others[own] = run_settings(intact(run))
    quant = _quant_of_all([*([config] if resolved.adapter else []), *others.values()])
    loaded = load_base(resolved, device, dtype, quant, open_tokenizer(resolved)[0])
    loaded.model.requires_grad_(False)
    tokenizer = Tokenizer(loaded.tokenizer)
    prompt_formats = {own: PromptFormat(_template(run, tokenizer), run.text.system) for own, run in others.items()}
    opened = Opened(loaded.model, tokenizer, _template(config, tokenizer), config, found, prompt_formats)
    for other in reversed(found):  # each is tried now, and the first one stays
        opened.switch(other)
    return opened


def load_base(
    resolved: ResolvedModel, device: str, dtype: str, quant: QuantConfig | None, tokenizer: Any = None
) -> model_load.LoadedModel:
    """The model below the adapter of a resolved one, or the model itself, on its device in its compute type; quantized where
    the adapter stands on such a base. A `tokenizer` may be at hand (see `model.load`)."""
    place = model_load.pick_device(device)
    loaded = model_load.load(
        resolved.source, device=place, dtype=model_load.pick_dtype(dtype, place), tokenizer=tokenizer
    )
    if quant:
        quantize_base(loaded.model, quant)
    return loaded


def load_with_adapter(
    resolved: ResolvedModel, device: str, dtype: str, tokenizer: Any = None
) -> model_load.LoadedModel:
    """A resolved model with the adapter that it brings, in place."""
    quant = resolved.config.quant if resolved.quantized else None
    loaded = load_base(resolved, device, dtype, quant, tokenizer)
    if resolved.adapter:
        adapters.apply(loaded.model, resolved.adapter)
    return loaded


def _template(config: RunConfig, tokenizer: Tokenizer) -> Template:
    return load_template(config.text.template, tokenizer, config.text.template_kwargs)


def _quant_of_all(runs: Sequence[RunConfig]) -> QuantConfig | None:
    """How the one base is quantized that the adapters of `runs` stand on; None for not at all.

    Raises InputError when they stand on different ones.
    """
    bases = [run.quant if run.tune == "qlora" else None for run in runs]
    for base in bases:
        if base != bases[0]:
            raise InputError(
                f"one adapter was tuned on {_base(bases[0])}, another on {_base(base)}",
                where="--adapter", fix="open each on its own",
            )  # fmt: skip
    return bases[0] if bases else None


def _base(quant: QuantConfig | None) -> str:
    return f"a base in {quant.kind}, blocks of {quant.block}" if quant else "a base that is not quantized"


def weights(name: str, base: str | None = None) -> dict[str, str]:
    """The sha256 of every file of weights of the model called `name`: of a run its own, and those of its base."""
    resolved, path = resolve_model(name, base), Path(name)
    if not (path / "run.yaml").is_file():
        return resolved.digests()
    files = [file for part in ("adapter", "model") for file in sorted((path / part).glob("*.safetensors"))]
    files += [file for file in [path / "adapter" / adapter_config.CONFIG] if file.is_file()]
    own = {str(file.relative_to(path)): sha256(file) for file in files}
    return own | (resolved.source.digests() if resolved.adapter else {})


def _own_name(folder: Path, taken: Container[str]) -> str:
    """The shortest end of the path that no other adapter has: 'run', or 'second/run'."""
    ends = ["/".join(folder.parts[-n:]) for n in range(1, len(folder.parts))]
    return next((end for end in ends if end not in taken), str(folder))


@torch.no_grad()
def log_probabilities(opened: Opened, texts: Sequence[str], longest: int = 256) -> torch.Tensor:
    """log p of every token of `texts` after its first, text by text as they are packed: the same order each time."""
    from luthier.core.types.trees import Node, TokenTree
    from luthier.model.forward import forward
    from luthier.training.steps import Packing, scoring_batches

    trees = []
    for text in texts:
        ids = tuple(opened.tokenizer.encode(text)[:longest])
        if len(ids) > 1:
            trees.append(TokenTree((Node(ids, (False,) + (True,) * (len(ids) - 1)),)))
    device = next(opened.model.parameters()).device
    opened.model.eval()
    return torch.cat([forward(opened.model, b.to(device)).logp.cpu() for b in scoring_batches(trees, Packing(1024))])
