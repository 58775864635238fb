"""What files of other programs say of data: entries of Axolotl, and names in the `dataset_info.json` of LLaMA-Factory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.core.errors import InputError

if TYPE_CHECKING:
    from luthier.config.translate import Translation

NOT_HERE = "no such file or folder here: download it, and give the file after the options"
INFO = "dataset_info.json"
# Axolotl's kinds of rows that are told by their columns anyway.
BY_COLUMNS = ("alpaca", "chat_template", "sharegpt", "chatml", "llama3", "passthrough", "")
ROWS_OF_TEXT = ("completion", "pretrain")
# Their names of what a row has -> ours.
FACTORY_COLUMNS = {
    "prompt": "instruction", "query": "input", "response": "output", "history": "history", "messages": "messages",
    "chosen": "chosen", "rejected": "rejected", "kto_tag": "label", "tools": "tools",
}  # fmt: skip
AXOLOTL_COLUMNS = {
    "field_instruction": "instruction", "field_input": "input", "field_output": "output", "field_messages": "messages",
    "field": "text", "field_chosen": "chosen", "field_rejected": "rejected",
}  # fmt: skip


def path(name: str, setting: str, made: Translation, file: Path) -> str | None:
    """One file or folder, from the current folder or the settings' own; where it is, or None."""
    found = next((place for place in (Path(name), file.parent / name) if place.exists()), None)
    if found is None:
        made.left[f"{setting}: {name}"] = NOT_HERE
    else:
        made.take(f"{setting}: {name}", {setting: [*made.settings.get(setting, ()), str(found)]})
    return None if found is None else str(found)


def axolotl(entries: list[Any], setting: str, made: Translation, file: Path) -> None:
    """`datasets` or `test_datasets`: each a path with the kind of its rows and the names of its columns."""
    for entry in entries:
        rest = dict(entry) if isinstance(entry, Mapping) else {"path": str(entry)}
        files = rest.pop("data_files", None) or rest.get("path", "")
        rest.pop("path", None)
        names = [str(name) for name in ([files] if isinstance(files, str) else files)]
        here = [found for name in names if (found := path(name, setting, made, file))]
        kind = rest.pop("type", "")
        if isinstance(kind, Mapping):
            rest |= kind
        elif str(kind).split(".")[0].split(":")[0] in ROWS_OF_TEXT:
            made.take(f"type: {kind}", {"method": "cpt"})
        elif str(kind).split(".")[0] not in BY_COLUMNS:
            made.left[f"type: {kind}"] = "rows are read by their columns (docs/data.md); --data.layout, --data.columns"
        _columns(rest, AXOLOTL_COLUMNS, made, here, len(entries) == 1)
        for key in ("ds_type", "name", "split"):
            rest.pop(key, None)
        for key in rest:
            made.left[f"datasets: {key}"] = "rows are read by their columns (docs/data.md)"


def factory(names: Any, setting: str, made: Translation, folder: Path, file: Path) -> None:
    """`dataset`: names, with commas between them, that `dataset_info.json` says the files and columns of."""
    info = _info(folder, file)
    names = [part.strip() for part in names.split(",")] if isinstance(names, str) else names
    for name in names:
        entry = info.get(name)
        if not isinstance(entry, Mapping):
            made.left[f"dataset: {name}"] = f"not in {INFO}: give its file after the options"
            continue
        place = entry.get("file_name")
        if place is None:
            made.left[f"dataset: {name}"] = NOT_HERE
            continue
        here = path(str(info["folder"] / str(place)), setting, made, file)
        columns = entry.get("columns")
        if isinstance(columns, Mapping) and here:
            ours = FACTORY_COLUMNS | ({"prompt": "text"} if made.settings.get("method") == "cpt" else {})
            _columns(dict(columns), ours, made, [here], len(names) == 1)


def _info(folder: Path, file: Path) -> dict[str, Any]:
    """`dataset_info.json` with the folder that it is in; nothing but the folder where there is none."""
    from luthier.core.foreign.yaml_file import read  # JSON is YAML

    for place in (folder, file.parent / folder, file.parent):
        if (place / INFO).is_file():
            value = read(place / INFO, "settings")[1]
            if not isinstance(value, dict):
                raise InputError("not an object with a data set for each name", where=place / INFO)
            return value | {"folder": place}
    return {"folder": folder}


def _columns(given: dict[str, Any], names: Mapping[str, str], made: Translation, files: list[str], alone: bool) -> None:
    """Take the names of columns out of `given`, where they are not ours already; of one of several files with its path before."""
    for theirs, ours in names.items():
        column = given.pop(theirs, None)
        if not (isinstance(column, str) and column and column != ours and files):
            continue
        line = f"{theirs}: {column}"
        if not alone and any(Path(name).is_dir() for name in files):
            made.left[line] = (
                "columns of one of several folders; give each folder its own run, or name the columns alike"
            )
            continue
        mine = {ours if alone else f"{name}:{ours}": column for name in files}
        made.settings["data.columns"] = {**made.settings.get("data.columns", {}), **mine}
        made.taken[line] = f"data.columns: {', '.join(f'{key}={column}' for key in mine)}"
