"""Paths, folders and globs -> files, each once."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from luthier.core import log
from luthier.core.errors import InputError, nearest
from luthier.data.decode import WRAPPERS, inherited
from luthier.data.size_limits import description

TABLES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
TEXTS = (".txt", ".md", ".rst")
KNOWN = TABLES + TEXTS

# Endings of files that hold data, which are not read: what they are, and what to do.
REFUSED = {
    ending: (kind, fix)
    for endings, kind, fix in (
        (".xlsx .xlsm .xls .ods .numbers", "a spreadsheet", "save it as CSV"),
        (".zip .tar .tgz .7z .rar .xz", "an archive", "unpack it and give what is in it"),
        (".yaml .yml", "YAML, which is not read as data", "write it as JSON"),
        (".xml", "XML, which is not read", "write its rows as JSON Lines or CSV"),
        (".html .htm .pdf .docx .doc .rtf .odt .epub", "a document with layout", "save its text as .txt"),
        (".pkl .pickle .pt .npy .npz .h5 .hdf5", "arrays or pickled objects", "write its rows as JSON Lines"),
        (".db .sqlite .sqlite3 .duckdb .mdb", "a database", "export the table as CSV"),
        (".avro .orc .tfrecord .mds", "a table of another kind", "write it as parquet"),
    )
    for ending in endings.split()
}

# Descriptions that the library datasets writes beside its data.
DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json"}
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "heldout", "holdout"), "test"),
}
MAX_LISTED = 6  # files that a message names
MAX_DEPTH = 64  # folders in each other
NOT_A_FILE = "a pipe, a device or a file of the system, not a file of rows"


def ending_of(name: str) -> tuple[str, str]:
    """(format, compression) by the file's name, such as ('.jsonl', '.gz')."""
    path = Path(name.lower())
    if path.suffix in WRAPPERS:
        return Path(path.stem).suffix, path.suffix
    return path.suffix, ""


def split_of(name: str) -> str | None:
    """The split that a name speaks of: train, validation or test, by one of its words."""
    found = [SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS]
    return found[0] if found else None


def is_description(file: str) -> bool:
    """Whether a file describes a data set that the library datasets wrote, and holds no rows."""
    path = Path(file)
    return path.name in DESCRIPTIONS or (path.name == "state.json" and any(path.parent.glob("*.arrow")))


def files_of(paths: Sequence[str], held_out: bool = False) -> list[str]:
    """The files that `paths` name, each once. Of a folder of splits, those to learn from, or those that are `held_out`; what
    of a folder is not read is told. Raises InputError for a path with nothing to read."""
    found: dict[str, str] = {}
    for path in paths:
        for file in _files(path, held_out):
            there = file == "-" or not Path(file).is_file()
            first = found.setdefault(file if there else os.path.realpath(file), file)
            if first is not file:
                log.once(
                    f"{file}: the same file as {first}; read once"
                    if first != file
                    else f"{file}: named twice, read once"
                )
    return list(found.values())


def _files(path: str, held_out: bool) -> Iterator[str]:
    path = next((form for form in _forms(path) if Path(form).exists()), path)  # what exists is no pattern
    if path == "-" or inherited(path):
        yield path
    elif _special(Path(path)):
        raise InputError(NOT_A_FILE, where=path, fix="give a file, or pipe the rows to '-'")
    elif Path(path).is_file():
        yield path
    elif Path(path).is_dir():
        yield from _in_folder(Path(path), held_out)
    elif os.path.islink(path):
        fix = f"it points to {os.readlink(path)}: put that file there, or remove the link"
        raise InputError("a broken link", where=path, fix=fix)
    elif glob.has_magic(path):
        yield from _matching(path, held_out)
    else:
        raise _missing(path)


def _forms(path: str) -> Iterator[str]:
    """A path as it is written; with the user's home; with letters and their marks in one character, and in two."""
    yield path
    yield os.path.expanduser(path)
    yield from (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))


def _matching(pattern: str, held_out: bool) -> Iterator[str]:
    matches = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    if not matches:
        raise InputError("no file matches", where=pattern, fix="quote the pattern and check the folder")
    folders = [match for match in matches if Path(match).is_dir()]
    for match in matches:
        if os.path.islink(match) and not Path(match).exists():
            log.once(f"{match}: a broken link, left out")
        elif _special(Path(match)):
            log.once(f"{match}: {NOT_A_FILE}; left out")
        elif match in folders and any(
            other != match and other.startswith(match.rstrip("/") + "/") for other in matches
        ):
            continue  # `**` matches a folder and then what is in it
        else:
            yield from _files(match, held_out)


def _in_folder(folder: Path, held_out: bool) -> list[str]:
    try:
        there = list(_walk(folder, {_identity(folder)}))
    except OSError as error:
        raise InputError(
            f"cannot read the folder: {error.strerror}", where=error.filename, fix="check its permissions"
        ) from None
    known = [path for path in there if ending_of(path.name)[0] in KNOWN]
    tables = [path for path in known if ending_of(path.name)[0] in TABLES]
    if not known:
        raise InputError("the folder holds no file to read", where=folder, fix=f"known extensions: {' '.join(KNOWN)}")
    other = [
        path for path in there if ending_of(path.name)[0] in REFUSED and path.suffix not in (".yaml", ".yml", ".html")
    ]
    texts = [
        path
        for path in known
        if path not in tables and not re.match(r"(?i)readme|licen[cs]e|notice|changelog", path.name)
    ]
    _note_left_out(folder, [*other, *texts] if tables else other, "not tables that are read")
    return [str(path) for path in _of_split(folder, tables or known, held_out)]


def _of_split(folder: Path, files: list[Path], held_out: bool) -> list[Path]:
    """The files of the split that is wanted, where there is one to learn from beside others."""
    split = {path: _split_in(path.relative_to(folder)) for path in files}
    if "train" not in split.values() or not {"validation", "test"} & set(split.values()):
        return files
    wanted = "train"
    if held_out:
        wanted = "validation" if "validation" in split.values() else "test"
    chosen = [path for path in files if split[path] == wanted]
    rest = [path for path in files if split[path] != wanted]
    advice = "" if held_out else "; a held-out split is given with --data.eval"
    _note_left_out(folder, rest, f"only the split '{wanted}' is read{advice}")
    return chosen


def _split_in(path: Path) -> str | None:
    """By the file's own name, else by the nearest folder that says one."""
    return next((split for part in (path.name, *reversed(path.parts[:-1])) if (split := split_of(part))), None)


def _note_left_out(folder: Path, files: Sequence[Path], why: str) -> None:
    if files:
        named = ", ".join(str(path.relative_to(folder)) for path in files[:MAX_LISTED])
        more = f" and {len(files) - MAX_LISTED} more" if len(files) > MAX_LISTED else ""
        log.once(f"{folder}: left out {named}{more}: {why}")


def _special(path: Path) -> bool:
    """Whether a path leads to a pipe, a socket, a device, or a file that the system makes up when it is read."""
    real = os.path.realpath(path)
    return (path.exists() and not path.is_file() and not path.is_dir()) or real.startswith(("/proc/", "/sys/"))


def _walk(folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
    """The files below a folder by path, hidden ones left out. Links are followed, but not to a folder that they stand in."""
    if len(above) > MAX_DEPTH:
        raise InputError(f"folders nested more than {MAX_DEPTH} deep", where=folder, fix="give a folder further down")
    saved = _saved(folder)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if (identity := _identity(path)) not in above:
                yield from _walk(path, above | {identity})
        elif path.is_symlink() and not path.exists():
            log.once(f"{path}: a broken link, left out")
        elif _special(path):
            log.once(f"{path}: {NOT_A_FILE}; left out")
        elif path.is_file() and not is_description(str(path)) and not (saved and path.suffix == ".arrow"):
            yield path
    yield from saved


def _saved(folder: Path) -> list[Path]:
    """The files of a folder that `Dataset.save_to_disk` wrote, in its order; other Arrow files there are left-overs of its
    cache. None where it is another folder. Raises InputError where a file is missing, or rows stand in another order than in the files."""
    state = folder / "state.json"
    if not is_description(str(state)) or not state.is_file():
        return []
    try:
        said = description(state)
        files = [folder / str(entry["filename"]) for entry in said["_data_files"]]
        ordered = said.get("_indices_files") or said.get("_indices_data_files")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError("not a state.json of a saved data set", where=state, fix="save the data set again") from None
    if ordered:
        raise InputError(
            "this data set was saved with an index that orders its rows",
            where=state,
            fix="save it again with save_to_disk",
        )
    if strange := [path for path in files if path.parent != folder]:
        fix = "save the data set again: its files lie beside it"
        raise InputError(f"it names a file outside its folder: {strange[0]}", where=state, fix=fix)
    if missing := [path for path in files if not path.is_file()]:
        raise InputError("a file of this data set is missing", where=missing[0], fix="copy the folder again")
    return files


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _missing(path: str) -> InputError:
    if "=" in path and not Path(path).parent.name:
        fix = f"a further FIELD=COLUMN stands behind a comma, or an option of its own: --data.columns {path}"
        return InputError("no such file or folder", where=path, fix=fix)
    folder = Path(path).parent
    guess = nearest(Path(path).name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else None
    fix = f"did you mean '{folder / guess}'?" if guess else "check the path"
    return InputError("no such file or folder", where=path, fix=fix)
