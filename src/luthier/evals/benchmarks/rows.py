"""A benchmark's file, as its authors publish it -> rows. Most are plain JSON or parquet, which `published` reads."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from luthier.core.errors import InputError
from luthier.core.types.examples import Origin
from luthier.data.decode import WRAPPERS, opened, text_lines
from luthier.data.read import Row, read_rows
from luthier.evals.benchmarks.documents import LETTERS


def published(file: Path) -> Iterator[Row]:
    """JSON, JSON Lines, CSV with a header, or parquet, compressed or not."""
    return read_rows([str(file)])


def mmlu(file: Path) -> Iterator[Row]:
    """MMLU's CSV: question, four choices, answer; most copies have no header. The subject is the file's name."""
    if ".csv" not in file.name.lower():
        yield from read_rows([str(file)])
        return
    subject = file.name.lower().split(".csv")[0].removesuffix("_test").removesuffix("_dev")
    reader = csv.reader(_lines(file), strict=True)
    try:
        for cells in reader:
            origin = Origin(str(file), reader.line_num)
            if cells[:1] == ["question"] or not cells:
                continue
            if len(cells) != len(LETTERS) + 2:
                what = f"{len(cells)} cells; a row of MMLU has a question, {len(LETTERS)} choices and the answer"
                raise InputError(what, where=origin, fix="fetch the file again")
            yield Row({"question": cells[0], "choices": cells[1:-1], "answer": cells[-1], "subject": subject}, origin)
    except csv.Error as error:
        raise InputError(f"broken quoting: {error}", where=f"{file}:{reader.line_num}", fix="fetch it again") from None


def piqa(file: Path) -> Iterator[Row]:
    """PIQA's rows; its authors keep the answers in a file beside them, one a line."""
    beside = file.with_name(f"{file.name.split('.')[0]}-labels.lst")
    if not beside.is_file():
        yield from read_rows([str(file)])
        return
    labels, rows = beside.read_text(encoding="ascii", errors="replace").split(), list(read_rows([str(file)]))
    if len(labels) != len(rows):
        raise InputError(f"{len(labels)} labels for {len(rows)} rows", where=beside, fix="fetch both files again")
    for row, label in zip(rows, labels, strict=True):
        yield replace(row, fields={**row.fields, "label": label})


def wikitext(file: Path) -> Iterator[Row]:
    """WikiText's articles: each begins with a line ` = Title = `."""
    if ".parquet" in file.name.lower():
        yield from read_rows([str(file)])
        return
    page: list[str] = []
    start, ended = 1, False
    for number, line in enumerate(_lines(file), start=1):
        mark = line.replace("= = =", "===").replace("= =", "==").strip()
        if mark.startswith("= ") and mark.endswith(" ="):
            yield from _page(page, file, start)
            page, start = [], number
        page.append(line.removesuffix("\n"))
        ended = line.endswith("\n")
    yield from _page([*page, ""] if ended else page, file, start)


def _page(lines: Sequence[str], file: Path, start: int) -> Iterator[Row]:
    text = "\n".join(lines)
    if text.strip():
        yield Row({"page": text}, Origin(str(file), start))


def _lines(file: Path) -> Iterator[str]:
    ending = file.suffix.lower()
    with opened(str(file), ending if ending in WRAPPERS else "") as handle:
        yield from text_lines(handle, str(file))
