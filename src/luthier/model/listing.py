"""The models that are here: a row of `luthier models` for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luthier.core.errors import InputError
from luthier.core.files import cache_folder, read_json
from luthier.model.converted import ORIGIN
from luthier.model.folders import check_folder, parameters
from luthier.model.sources import Kind
from luthier.model.wheels import EMBEDDED, ENCODERS, Embedded


@dataclass(frozen=True)
class Listed:
    """A row of `luthier models`. `bytes` is 0 and `folder` None for an embedded model not fetched yet."""

    name: str
    kind: Kind
    bytes: int
    parameters: int
    licence: str
    folder: Path | None


_KNOWN: tuple[tuple[Kind, dict[str, Embedded]], ...] = (("embedded", EMBEDDED), ("encoder", ENCODERS))


def cached() -> list[Listed]:
    """The embedded models, those converted into the cache, and those of the hub's own cache, in this order."""
    rows = {
        name: Listed(name, kind, 0, model.parameters, model.licence, None)
        for kind, known in _KNOWN
        for name, model in known.items()
    }
    models = cache_folder() / "models"
    for folder in sorted(models.glob("[!.]*")) if models.is_dir() else []:
        if not (folder / ORIGIN).is_file():
            continue
        origin = read_json(folder / ORIGIN)
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        key = origin["name"] if origin["kind"] in ("embedded", "encoder") else folder.name
        rows[key] = Listed(origin["name"], origin["kind"], total, parameters(folder), origin["licence"], folder)
    return [*rows.values(), *_hub_cached()]


def _hub_cached() -> Iterator[Listed]:
    """The hub's snapshots on this disk that are whole and that Luthier loads. Their licence is not among the files."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        snapshot = repo.refs.get("main")  # the one that `_hub` takes
        if repo.repo_type != "model" or snapshot is None:
            continue
        folder = snapshot.snapshot_path
        try:
            check_folder(folder)
        except InputError:
            continue
        yield Listed(repo.repo_id, "hub", snapshot.size_on_disk, parameters(folder), "", folder)
