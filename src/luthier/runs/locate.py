"""Where a model name leads: a model, a run whose result is a model or an adapter on one, or an adapter by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luthier.config.resolve import resolve
from luthier.config.run import RunConfig
from luthier.core.errors import InputError, nearest
from luthier.core.storage.files import sha256
from luthier.model.adapt import adapter_config
from luthier.model.folder import copies
from luthier.model.hub import sources
from luthier.runs.base_model import base_of_adapter, base_of_run, recorded_base
from luthier.runs.folder import RunFolder, read_run
from luthier.runs.system_prompt import trained_system
from luthier.text.template import BUILT_IN


@dataclass(frozen=True)
class ResolvedModel:
    """A base model, the adapter that makes it the model meant, and the settings it was made with. `texts` is the folder of
    the tokenizer: the base's, or that of an adapter which brings its own."""

    source: sources.Source
    adapter: Path | None
    config: RunConfig
    texts: Path

    @property
    def quantized(self) -> bool:
        """Whether its adapter belongs to a quantized base: `config.quant` says to which."""
        return self.adapter is not None and self.config.tune == "qlora"

    def digests(self) -> dict[str, str]:
        """The sha256 of every file that makes the model: of the base, of the adapter, and of a tokenizer that the adapter brings."""
        names = [adapter_config.CONFIG, adapter_config.WEIGHTS] if self.adapter else []
        if self.adapter and self.texts == self.adapter:
            names += copies.names(self.texts)
        places = {name: self.adapter / name for name in names} if self.adapter else {}
        return self.source.digests() | {
            f"adapter/{name}": sha256(path) for name, path in places.items() if path.exists()
        }


def resolve_model(name: str, base: str | None = None) -> ResolvedModel:
    """The model that `name` means: a run directory, a folder with a PEFT adapter, or any name that --model takes.

    A run that went on from another run's adapter holds the whole adapter, so its base is that run's base. `base` names the
    model below an adapter in place of what the run or the adapter says.
    Raises InputError for a run that is not finished, for names that mean nothing, for an adapter whose base is not here,
    and for a `base` where there is no adapter.
    """
    path = Path(name).expanduser()
    if not path.exists():
        _refuse_a_typo(path)
    if run := run_of(path):
        return _of_run(run, base)
    if adapter_config.is_adapter(path):
        return _of_adapter(path, base)
    _refuse_base(base, name)
    source = sources.resolve(name)
    return ResolvedModel(source, None, _asked_as_trained(resolve({"model": name}), source.folder), source.folder)


def intact(run: Path) -> Path:
    """The run itself. Raises InputError when what it made, its adapter or its model, is not as it was written."""
    sums = RunFolder(run).sums
    for name in sums.noted():
        if name.startswith(("adapter/", "model/")):
            sums.check(name)
    return run


def run_of(path: Path) -> Path | None:
    """The run that `path` is, or whose adapter it is; None for anything else."""
    if (path / "run.yaml").is_file():
        return path
    inside = path.name == "adapter" and (path.parent / "run.yaml").is_file()
    return path.parent if inside and adapter_config.is_adapter(path) else None


def takes_base(name: str) -> bool:
    """Whether `name` is a run or a folder with an adapter, so that its base can be given."""
    path = Path(name).expanduser()
    run = run_of(path)
    return (run / "adapter").is_dir() if run else adapter_config.is_adapter(path)


def base_for(name: str, base: str | None) -> str | None:
    """`base` where `name` has an adapter; None for a whole model, among several that one --base is given with."""
    return base if base is not None and takes_base(name) else None


def run_settings(run: Path) -> RunConfig:
    """The settings of a run as they held: one that started from another run took from that one what nobody said, and
    what it learned from is in its folder: the template, and the system prompt that its rows had in common."""
    _, config = read_run(run)
    before, text, quant = Path(config.model), config.text, config.quant
    result = next((run / part for part in ("adapter", "model") if (run / part).is_dir()), None)
    if (before / "run.yaml").is_file():
        theirs = run_settings(before)
        if text.template == "auto":
            values = theirs.text.template_kwargs | text.template_kwargs
            text = text.model_copy(update={"template": theirs.text.template, "template_kwargs": values})
        if config.tune == theirs.tune == "qlora" and (before / "adapter").is_dir():
            quant = theirs.quant  # it went on with an adapter on that base
    elif known := recorded_base(run):  # that run is not here any more
        if text.template == "auto":
            values = {**known.template_kwargs, **text.template_kwargs}
            text = text.model_copy(update={"template": known.template, "template_kwargs": values})
        quant = known.quant or quant
    exported = result / "chat_template.jinja" if result else None
    if text.template not in (*BUILT_IN, "auto") and exported and exported.is_file():
        text = text.model_copy(
            update={"template": str(exported)}
        )  # the file it was read from may have moved or changed
    config = config.model_copy(update={"text": text, "quant": quant})
    return _asked_as_trained(config, result) if result else config


def _asked_as_trained(config: RunConfig, folder: Path) -> RunConfig:
    """The settings with the system prompt that all rows had, where `folder`, which a run wrote, holds one."""
    system = trained_system(folder)
    return config.model_copy(update={"text": config.text.model_copy(update={"system": system})}) if system else config


def _of_run(run: Path, base: str | None) -> ResolvedModel:
    config = run_settings(intact(run))
    if (run / "adapter").is_dir():
        source = base_of_run(run, config.model, base) or resolve_model(config.model).source
        return ResolvedModel(source, run / "adapter", config, _texts(run, config, source))
    if (run / "model").is_dir():
        _refuse_base(base, run)
        source = sources.resolve(str(run / "model"))
        return ResolvedModel(source, None, config, source.folder)
    raise InputError("this run is not finished", where=run, fix="run its command again to continue it")


def _texts(run: Path, config: RunConfig, source: sources.Source) -> Path:
    """The tokenizer of a run with an adapter: its base's, or its own, with the tokens of an embedding that it brings, or of the
    adapter it went on from."""
    before = Path(config.model).expanduser()
    if adapter_config.embedding_rows(run / "adapter"):
        return run / "adapter"
    if adapter_config.is_adapter(before) and (before / "tokenizer.json").is_file():
        return run / "adapter"
    return source.folder


def _of_adapter(folder: Path, base: str | None) -> ResolvedModel:
    """An adapter as PEFT, TRL, Axolotl and others save it. As in transformers, a model in the same folder is its base."""
    source = base_of_adapter(folder, base)
    config = _asked_as_trained(resolve({"model": str(folder)}), folder)
    own = (folder / "tokenizer.json").is_file()
    return ResolvedModel(source, folder, config, folder if own else source.folder)


def _refuse_base(base: str | None, name: object) -> None:
    if base is not None:
        raise InputError(f"{name} is a whole model, which has no base", where="--base", fix="leave it out")


def _refuse_a_typo(path: Path) -> None:
    """Raise InputError for a path in runs/, or beside which there are runs: owner/model names look the same, and nobody is asked
    for them."""
    runs = [folder.parent for folder in path.parent.glob("*/run.yaml")]
    if path.parts[:-1] == ("runs",) or (runs and path.parent != Path()):
        guess = nearest(path.name, [run.name for run in runs])
        here = "see which runs are there" if runs else "luthier train --out NAME makes one"
        raise InputError("no such run", where=path, fix=f"did you mean '{path.parent / guess}'?" if guess else here)
