"""The models that are here: a row of `luthier models` for each, and with `--check` whether it is whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.storage.files import cache_folder, sha256
from luthier.model.folder.folder import check_folder, parameters
from luthier.model.folder.settings_files import read_object
from luthier.model.hub.converted import ORIGIN, damage
from luthier.model.hub.sources import Kind
from luthier.model.hub.wheels import EMBEDDED, ENCODERS, Embedded


@dataclass(frozen=True)
class ModelRow:
    """A row of `luthier models`. `bytes` is 0 and `folder` None for an embedded model not fetched yet. `damage` is what a check
    of its files found; None where it found nothing, and where none was asked for."""

    name: str
    kind: Kind
    bytes: int
    parameters: int
    licence: str
    folder: Path | None
    damage: str | None = None


_KNOWN: tuple[tuple[Kind, dict[str, Embedded]], ...] = (("embedded", EMBEDDED), ("encoder", ENCODERS))
_KINDS = ("embedded", "encoder", "gguf")


def cached(*, check: bool = False) -> list[ModelRow]:
    """The embedded models, those converted into the cache, and those of the hub's own cache, in this order; with `check` every
    byte of them is read and held against what it should be."""
    rows = {
        name: ModelRow(name, kind, 0, model.parameters, model.licence, None)
        for kind, known in _KNOWN
        for name, model in known.items()
    }
    models = cache_folder() / "models"
    for folder in sorted(models.glob("[!.]*")) if models.is_dir() else []:
        if not folder.is_dir() or (not check and not (folder / ORIGIN).exists()):
            continue
        origin = _origin(folder)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        key = origin["name"] if origin["kind"] in ("embedded", "encoder") else folder.name
        why = damage(folder, content=True) if check else None
        rows[key] = ModelRow(origin["name"], origin["kind"], total, _parameters(folder), origin["licence"], folder, why)
    return [*rows.values(), *_hub_cached(check)]


def damaged(rows: list[ModelRow]) -> InputError | None:
    """What a user is told of models that are not whole, and how to get out; None where all are."""
    bad = [row for row in rows if row.damage]
    if not bad:
        return None
    others = f", and {len(bad) - 1} more models are not whole" if len(bad) > 1 else ""
    return InputError(
        f"{bad[0].name} is damaged: {bad[0].damage}{others}", where=bad[0].folder,
        fix="remove the folder: the next command that needs the model makes or fetches it again",
    )  # fmt: skip


def _origin(folder: Path) -> dict[str, Any]:
    """What luthier.json says of a model, as texts; of one that is damaged, what its folder says."""
    try:
        said = read_object(folder / ORIGIN)
    except (InputError, FileNotFoundError):
        said = {}
    name, licence = (said[key] if isinstance(said.get(key), str) else "" for key in ("name", "licence"))
    return {
        "name": name or folder.name,
        "kind": said["kind"] if said.get("kind") in _KINDS else "gguf",
        "licence": licence,
    }


def _parameters(folder: Path) -> int:
    try:
        return parameters(folder)
    except InputError:
        return 0


def _hub_cached(check: bool) -> Iterator[ModelRow]:
    """The hub's snapshots on this disk that are whole and that Luthier loads. Their licence is not among the files."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        snapshot = repo.refs.get("main")  # the one that `hub.snapshot` takes
        if repo.repo_type != "model" or snapshot is None:
            continue
        folder = snapshot.snapshot_path
        try:
            check_folder(folder)
        except InputError:
            continue
        why = _hub_damage(folder) if check else None
        yield ModelRow(repo.repo_id, "hub", snapshot.size_on_disk, parameters(folder), "", folder, why)


def _hub_damage(folder: Path) -> str | None:
    """What is wrong with a snapshot of the hub: its files are links to blobs, whose names are their own sha256, or for small
    files git's sha1."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, size = path.resolve().name, path.stat().st_size
        if re.fullmatch(r"[0-9a-f]{64}", name) and sha256(path) != name:
            return f"{path.name} has another content"
        if re.fullmatch(r"[0-9a-f]{40}", name) and size < 1 << 28 and _git_sha1(path.read_bytes()) != name:
            return f"{path.name} has another content"
    return None


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
