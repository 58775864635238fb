"""Files of rows, damaged and read as `luthier data` reads them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_files
import pyarrow as pa
from fuzz_files import Material
from fuzz_mutate import STRANGE, damage, other_json, strange, strange_value
from fuzz_reading import changed_file, command, reader


def _data(material: Material, draw: random.Random, path: Path) -> None:
    options = draw.choice(
        ((), (), ("--data.skip_bad",), ("--data.stream",), ("--data.layout", "chat"), ("--role", "test"))
    )
    command("data", path, "--model", material.model, "--json", *options)


@reader(60)
def JSON_rows(material: Material, draw: random.Random, folder: Path) -> None:
    name = draw.choice([name for name in material.rows if name.endswith((".jsonl", ".json"))])
    path = folder / name
    path.write_bytes(material.rows[name])
    changed_file(path, draw, structure=0.7)
    _data(material, draw, path)


@reader(36)
def CSV_rows(material: Material, draw: random.Random, folder: Path) -> None:
    name = draw.choice([name for name in material.rows if name.endswith((".csv", ".tsv"))])
    data = material.rows[name]
    if draw.random() < 0.5:
        cells = data.decode().split("\n")
        place = draw.randrange(len(cells))
        mark = "\t" if name.endswith(".tsv") else ","
        parts = cells[place].split(mark)
        parts[draw.randrange(len(parts))] = strange(draw)
        cells[place] = mark.join(parts)
        data = "\n".join(cells).encode("utf-8", "surrogatepass")
    else:
        data = damage(data, draw)
    (folder / name).write_bytes(data)
    _data(material, draw, folder / name)


@reader(30)
def text_and_compressed(material: Material, draw: random.Random, folder: Path) -> None:
    name = draw.choice([name for name in material.rows if name.endswith((".txt", ".md", ".gz"))])
    (folder / name).write_bytes(damage(material.rows[name], draw))
    _data(material, draw, folder / name)


@reader(50)
def parquet_and_Arrow(material: Material, draw: random.Random, folder: Path) -> None:
    name = draw.choice([name for name in material.rows if name.endswith((".parquet", ".arrow"))])
    path, data = folder / name, damage(material.rows[name], draw)
    if draw.random() < 0.6:
        table, kind = other_table(draw), draw.choice(("parquet", "arrow", "stream"))
        if any(pa.types.is_union(column.type) for column in table.schema):
            kind = "arrow"  # parquet has no unions
        path, data = folder / f"rows.{'parquet' if kind == 'parquet' else 'arrow'}", fuzz_files.written(table, kind)
    path.write_bytes(data)
    _data(material, draw, path)


def other_table(draw: random.Random) -> Any:
    """A table with columns of types and values that nobody expects."""
    import datetime
    import decimal

    text = pa.array([f"the cat sat {i}" for i in range(4)])
    moment = [datetime.datetime(2020, 1, 1), None, datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)]
    makers: tuple[Callable[[], Any], ...] = (
        lambda: pa.array([b"\xff\xfe", b"text", None, b"\x00"]), lambda: pa.array([2**63, 0, 1, None], pa.uint64()),
        lambda: pa.array([1e308, float("nan"), float("-inf"), None]), lambda: pa.array(moment),
        lambda: pa.nulls(4),
        lambda: pa.array([-(2**62), 2**62, 0, None]).cast(pa.timestamp("us")), 
        lambda: pa.array([2**62, 0, None, 1]).cast(pa.duration("ns")),
        lambda: pa.array([-(2**31), 2**31 - 1, 0, None], pa.int32()).cast(pa.date32()),
        lambda: pa.array([decimal.Decimal("1.5"), decimal.Decimal("-0"), None, decimal.Decimal("9" * 30)], pa.decimal128(38, 2)),
        lambda: pa.array([[("k", 1), ("k", 2)], [], None, [("", 3)]], pa.map_(pa.string(), pa.int64())),
        lambda: pa.array([[[["deep"]]], [], None, [[]]]), lambda: pa.array(["a", "b", None, "a"]).dictionary_encode(),
        lambda: pa.array([{"role": "user", "content": b"\xff"}, None, {}, {"role": None}]), lambda: pa.array([True, False, None, True]),
        lambda: pa.array([[{"role": "user", "content": None}], [{"role": "\x1b[2J", "content": "x"}], [], None]),
        lambda: pa.array([[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]] * 3 + [None]),
        lambda: pa.array([datetime.time(1, 2, 3), None, None, datetime.time(0)]), 
        lambda: pa.array([b"0123456789abcdef"] * 4, pa.binary(16)),
        lambda: pa.array(["x" * 200_000, "", "\x1b[31m", "\u202e"]), lambda: pa.array([1, 0, -5, 99]), lambda: text,
        lambda: pa.array([str(strange_value(draw))[:2000].encode("utf-8", "replace").decode() for _ in range(4)]),
        lambda: pa.array([draw.choice(STRANGE).encode("utf-8", "replace").decode() for _ in range(4)]),
        lambda: pa.array([0.5, 1.0, None, 3.0], pa.float16()) if hasattr(pa, "float16") else text,
        lambda: pa.UnionArray.from_dense(pa.array([0, 1, 0, 1], pa.int8()), pa.array([0, 0, 1, 1], pa.int32()),
                                         [pa.array([1, 2]), pa.array(["a", "b"])]),
    )  # fmt: skip
    names = ["text", "label", "messages", "prompt", "completion", "chosen", "rejected", "instruction", "output", "score", "images", "",
             "\x1b[31m", "tools", "x" * 300, "conversations", "responses", "answers"]  # fmt: skip
    columns = {name: draw.choice(makers)() for name in draw.sample(names, draw.choice((1, 2, 3, 5)))}
    if draw.random() < 0.5:
        columns["text"] = text
    table = pa.table(columns)
    if draw.random() < 0.5:
        features = {name: {"_type": "ClassLabel", "names": ["no", "yes"]} for name in columns}
        said = other_json({"info": {"features": features}}, draw)
        table = table.replace_schema_metadata({b"huggingface": said.encode("utf-8", "replace")})
    return table
