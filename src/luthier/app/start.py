"""Where a model name leads: a model, or a run whose result is a model or an adapter on one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luthier.app.folder import read_run
from luthier.core.config import RunConfig, resolve
from luthier.core.errors import InputError, nearest
from luthier.core.files import sha256
from luthier.model import sources


@dataclass(frozen=True)
class Start:
    """A base model, the adapter that makes it the model meant, and the settings it was made with."""

    source: sources.Source
    adapter: Path | None
    config: RunConfig

    @property
    def quantized(self) -> bool:
        """Whether its adapter belongs to a quantized base: `config.quant` says to which."""
        return self.adapter is not None and self.config.tune == "qlora"

    def digests(self) -> dict[str, str]:
        """The sha256 of every file that makes the model."""
        files = sorted(self.adapter.glob("adapter_*")) if self.adapter else []
        return self.source.digests() | {f"adapter/{file.name}": sha256(file) for file in files}


def find(name: str) -> Start:
    """The start that `name` means: a run directory, or any name that --model takes.

    A run that went on from another run's adapter holds the whole adapter, so its base is that run's base.
    Raises InputError for a run that is not finished, and for names that mean nothing.
    """
    path = Path(name)
    if not path.exists():
        _refuse_a_typo(path)
    if not (path / "run.yaml").is_file():
        return Start(sources.resolve(name), None, resolve({"model": name}))
    config = run_settings(path)
    if (path / "adapter").is_dir():
        return Start(find(config.model).source, path / "adapter", config)
    if (path / "model").is_dir():
        return Start(sources.resolve(str(path / "model")), None, config)
    raise InputError("this run is not finished", where=path, mend="run its command again to go on with it")


def run_settings(run: Path) -> RunConfig:
    """The settings of a run as they held: one that started from another run took from that one what nobody said."""
    _, config = read_run(run)
    before = Path(config.model)
    if not (before / "run.yaml").is_file():
        return config
    theirs, text, quant = run_settings(before), config.text, config.quant
    if text.template == "auto":
        text = text.model_copy(update={"template": theirs.text.template})
    if config.tune == theirs.tune == "qlora" and (before / "adapter").is_dir():
        quant = theirs.quant  # it went on with an adapter on that base
    return config.model_copy(update={"text": text, "quant": quant})


def _refuse_a_typo(path: Path) -> None:
    """Raise InputError for a path in runs/, or beside which there are runs: owner/model names look the same, and nobody is asked
    for them."""
    runs = [folder.parent for folder in path.parent.glob("*/run.yaml")]
    if path.parts[:-1] == ("runs",) or (runs and path.parent != Path()):
        guess = nearest(path.name, [run.name for run in runs])
        here = "see which runs are there" if runs else "luthier train --out NAME makes one"
        raise InputError("no such run", where=path, mend=f"did you mean '{path.parent / guess}'?" if guess else here)
