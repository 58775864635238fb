"""What a run is made of, in its lineage.json: hashes of everything that decides its result, compared at each start.

inputs         name -> hash, or file -> sha256: data, weights, template, tokenizer, rewards, metrics, ...
environment    versions and threads, which may change the last bits
later_starts   what was not as before at later starts
failed         inputs that the run stopped at an error of: functions of the user's that may be corrected
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from hashlib import sha256 as hasher
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict

from luthier import __version__
from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.foreign.forms import read_line, require_form
from luthier.core.storage.sums import FILE as SUMS

LINEAGE = "lineage.json"
GROWING_FILE = "read as a stream"  # in place of the hash of a file that may grow
MENDABLE = {
    "rewards": "it learns from both", "metrics": "its answers are scored by the new", "method": "it learns by both",
}  # fmt: skip


class _Inputs(TypedDict, total=False):
    data: dict[str, str]
    model: dict[str, str]


class _Again(TypedDict, total=False):
    inputs: _Inputs
    environment: dict[str, Any]
    code: str


class _Lineage(_Again, total=False):
    start: dict[str, Any]
    later_starts: list[_Again]
    failed: dict[str, Any]


def lineage(config: RunConfig, **inputs: Any) -> dict[str, Any]:
    """What this run is made of: `inputs` (hashes of data, weights, template), code, settings and environment."""
    import torch  # here: who reads a run needs none of it

    package = Path(__file__).parent.parent
    code = hasher()
    for file in sorted(package.rglob("*.py")):
        code.update(file.read_bytes())
    return {
        "inputs": inputs,
        "seed": config.seed,
        "luthier": __version__,
        "code": code.hexdigest()[:16],
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        },
        "sums": SUMS,
    }


def read(content: bytes, where: Path) -> dict[str, Any]:
    """The lineage that a file holds. Raises InputError for a damaged one."""
    fix = "put it back from a copy, or give another --out to start over"
    return cast(dict[str, Any], require_form(_Lineage, read_line(content, where=where, fix=fix), where=where, fix=fix))


def starts(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first start of a run, and those later ones at which something was not as before."""
    return [dict(made), *made.get("later_starts", ())]


def inputs_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a run as its last start found them."""
    out: dict[str, Any] = {}
    for start in starts(made):
        out |= start.get("inputs", {})
    return out


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What besides the inputs is not as it was: 'code', or libraries, Python, the platform, the threads by name."""
    old, new = before.get("environment", {}), now["environment"]
    return ["code"] * (before.get("code") != now["code"]) + [name for name in new if old.get(name) != new[name]]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The inputs that are not as they were, and what of each it is. What was not noted then is taken as the same."""
    out: dict[str, str] = {}
    for name, value in json.loads(json.dumps(dict(now))).items():
        old = before.get(name, value)
        if name == "computing":
            parts = [key for key in value if key in old and old[key] != value[key]]
            out |= {f"{key} of computing": f"{old[key]}, now {value[key]}" for key in parts}
        elif name == "data" and GROWING_FILE in value.values():
            fixed = {path: digest for path, digest in value.items() if digest != GROWING_FILE}
            if any(old.get(path, digest) != digest for path, digest in fixed.items()):
                out[name] = _which(old, value)
        elif old != value:
            out[name] = _which(old, value)
    return out


def _which(old: Any, new: Any) -> str:
    """The first file that is another, where there are files."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return ""
    before, now = _flat(old), _flat(new)
    return next((path for path in {**before, **now} if before.get(path) != now.get(path)), "")


def _flat(files: Mapping[str, Any]) -> dict[str, Any]:
    """file -> hash, where the files of several models or tasks are held apart."""
    out: dict[str, Any] = {}
    for name, value in files.items():
        out |= value if isinstance(value, dict) else {name: value}
    return out


def require_same(made: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """Raise InputError when the run cannot go on with what is here now. A function of the user's that the run stopped at
    an error of may have been corrected since: it says so and goes on."""
    before = known(made, now["inputs"])
    for name, which in changes(before, now["inputs"]).items():
        if name in MENDABLE and made.get("failed", {}).get(name) == before[name]:
            were, them = ("was", "it") if name == "method" else ("were", "them")
            log.warn(f"the {name} {were} fixed since this run stopped at an error in {them}: {MENDABLE[name]}")
            continue
        fix = "give another --out to start over, or put it back as it was"
        if name in MENDABLE:
            fix += "; it may be fixed only if the run stopped at an error in it"
        raise InputError(
            f"the {name} changed since this run began{f' ({which})' * bool(which)}, so it cannot resume exactly", where=run,
            fix=fix,
        )  # fmt: skip


def later(made: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any] | None:
    """The lineage with this start of the run added, where it is made of other things than the one before; else None."""
    first, *others = starts(made)
    noted, taken = inputs_of(made), known(made, now["inputs"])
    changed = differences(_last(made), now)
    other = {name for name in taken if taken[name] != noted.get(name)} | changes(taken, now["inputs"]).keys()
    if changed:
        before, after = (start.get("environment", {}).get("threads") for start in (_last(made), now))
        told = [f"threads ({before}, now {after})" if name == "threads" else name for name in changed]
        log.warn(
            f"{', '.join(told)} changed since this run began: its last bits may differ from an uninterrupted run's"
        )
    if not changed and not other:
        return None
    start = {name: now[name] for name in ("luthier", "code", "environment")}
    start |= {"inputs": {name: value for name, value in now["inputs"].items() if name in other}} if other else {}
    return first | {"later_starts": [*others, start]}


def known(made: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a run. An older version, which noted no sums either, named fewer of them and fewer files of a model or a
    function: what it did not name is taken as it is now."""
    before = inputs_of(made)
    if made.get("sums"):
        return before
    files = {
        name: value | before[name] for name, value in now.items()
        if name != "data" and isinstance(value, dict) and isinstance(before.get(name), dict)
    }  # fmt: skip
    return {**now, **before, **files}


def failed(made: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The lineage of a run that stopped at an error of these inputs, `rewards`, `metrics` or `method`: they may be corrected."""
    return {**made, "failed": {**made.get("failed", {}), name: inputs_of(made).get(name)}}


def _last(made: Mapping[str, Any]) -> dict[str, Any]:
    return starts(made)[-1]
