"""Parquet and Arrow: what a table adds to values is taken away again; what `datasets` saves is read."""

import decimal
import json
import struct

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from luthier.core.errors import InputError
from luthier.data.read import read_rows
from sentences import sentence


def fields(path, **how):
    return [row.fields for row in read_rows([str(path)], **how)]


def written(table, folder, name="a.parquet"):
    path = folder / name
    table = table if isinstance(table, pa.Table) else pa.Table.from_pylist(table)
    if name.endswith(".parquet"):
        parquet.write_table(table, path)
    else:
        opened = pa.ipc.new_file if name.endswith(".feather") else pa.ipc.new_stream
        with opened(str(path), table.schema) as writer:
            writer.write_table(table)
    return path


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name, **properties):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOOLS = [
    {
        "messages": [
            {"role": "user", "content": "How wet is Mittel?"},
            {"role": "assistant", "content": None, "tool_calls": [call("rainfall", town="Mittel")]},
        ],
        "tools": [tool("rainfall", town={"type": "string"})],
    },
    {
        "messages": [
            {"role": "user", "content": "Light, please."},
            {"role": "assistant", "content": "", "tool_calls": [call("switch", lamp="hall", on=True)]},
        ],
        "tools": [tool("switch", lamp={"type": "string"}, on={"type": "boolean"})],
    },
]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_a_null_that_the_table_added_is_no_field_of_the_row(tmp_path, name):
    path = written(TOOLS, tmp_path, name)
    assert pa.Table.from_pylist(TOOLS).to_pylist() != TOOLS, "the other tool's arguments stand there as null"
    assert fields(path) == TOOLS


def test_null_columns_and_null_items_stay(tmp_path):
    rows = [{"prompt": "a", "system": None, "tags": ["x", None]}, {"prompt": "b", "system": "s", "tags": None}]
    assert fields(written(rows, tmp_path)) == rows


def test_maps_are_objects(tmp_path):
    turns = pa.list_(pa.map_(pa.string(), pa.string()))
    rows = [[[("role", "user"), ("content", "Hi")], [("role", "assistant"), ("content", "Hello.")]]]
    path = written(pa.table({"messages": pa.array(rows, turns)}), tmp_path)
    assert fields(path) == [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    ]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_whole_numbers_are_whole_where_others_are_missing(tmp_path, name, capsys):
    columns = {"whole": [42.0, None, float("nan")], "half": [4.5, None, 1.0], "score": [4.0, 3.0, 5.0]}
    path = written(pa.table(columns | {"nested": [[1.0, float("nan")]] * 3}), tmp_path, name)
    assert fields(path) == [
        {"whole": 42, "half": 4.5, "score": 4.0, "nested": [1.0, None]},
        {"whole": None, "half": None, "score": 3.0, "nested": [1.0, None]},
        {"whole": None, "half": 1.0, "score": 5.0, "nested": [1.0, None]},
    ]
    assert [type(row["whole"]) for row in fields(path)] == [int, type(None), type(None)]
    assert capsys.readouterr().err.count("holds whole numbers that became floats") == 1


def test_values_that_json_does_not_have(tmp_path):
    rows = [{"price": decimal.Decimal("1.50"), "count": decimal.Decimal(10**25), "raw": b"text", "image": b"\xff\xd8"}]
    assert fields(written(rows, tmp_path)) == [rows[0] | {"price": "1.50", "count": 10**25, "raw": "text"}]
    path = tmp_path / "c.parquet"
    pd.DataFrame({"label": pd.Categorical(["yes", None]), "n": pd.array([1, None], dtype="Int64")}).to_parquet(path)
    assert fields(path) == [{"label": "yes", "n": 1}, {"label": None, "n": None}]


LABELLED = datasets.Features(
    {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["neg", "pos"]),
        "tags": datasets.List(datasets.ClassLabel(names=["a", "b"])),
        "spans": datasets.List({"kind": datasets.ClassLabel(names=["x", "y"])}),
    }
)
SAVED = [
    {"text": "bad", "label": 0, "tags": [1, 0], "spans": [{"kind": 1}]},
    {"text": "good", "label": 1, "tags": [], "spans": []},
    {"text": "unknown", "label": -1, "tags": [1], "spans": []},
]
NAMED = [
    {"text": "bad", "label": "neg", "tags": ["b", "a"], "spans": [{"kind": "y"}]},
    {"text": "good", "label": "pos", "tags": [], "spans": []},
    {"text": "unknown", "label": None, "tags": ["b"], "spans": []},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    data = datasets.Dataset.from_list(SAVED, features=LABELLED)
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("saved")
    data.to_parquet(folder / "a.parquet")
    data.save_to_disk(folder / "one")
    splits = {"train": data, "test": data.select([1]), "validation": data.select([2])}
    datasets.DatasetDict(splits).save_to_disk(folder / "splits")
    return folder


@pytest.mark.parametrize("name", ["a.parquet", "one", "one/data-00000-of-00001.arrow"])
def test_labels_have_their_names(saved, name, capsys):
    assert fields(saved / name) == NAMED
    assert "numbers in 'label' are read as their labels: neg, pos" in capsys.readouterr().err


def test_labels_are_named_by_the_description_beside_the_file(saved, tmp_path):
    table = pa.ipc.open_stream(str(saved / "one" / "data-00000-of-00001.arrow")).read_all()
    path = written(table.replace_schema_metadata(None), tmp_path, "b.arrow")
    assert fields(path)[0]["label"] == 0
    (tmp_path / "dataset_info.json").write_bytes((saved / "one" / "dataset_info.json").read_bytes())
    assert fields(path) == NAMED


def test_a_saved_folder_is_its_files_and_nothing_else(saved, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in (saved / "one").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    written(SAVED, folder, "cache-0123456789abcdef.arrow")
    assert fields(folder) == NAMED
    for name in ("state.json", "dataset_info.json"):
        with pytest.raises(InputError, match=sentence("description without rows")):
            fields(folder / name)
    (folder / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(InputError, match=sentence("file of data set missing")):
        fields(folder)


def test_of_saved_splits_one_is_read(saved, capsys):
    assert fields(saved / "splits") == NAMED
    said = capsys.readouterr().err
    assert (
        "left out test/data-00000-of-00001.arrow, validation/data-00000-of-00001.arrow: only the split 'train'" in said
    )
    assert fields(saved / "splits", held_out=True) == NAMED[2:]
    assert fields(saved / "splits" / "test") == NAMED[1:2]


def test_json_columns_are_what_they_hold(tmp_path):
    tools = [[tool("f", a={"default": None})], [tool("g")]]
    features = datasets.Features({"tools": datasets.Json()})
    datasets.Dataset.from_dict({"tools": tools}, features=features).to_parquet(tmp_path / "a.parquet")
    assert [row["tools"] for row in fields(tmp_path / "a.parquet")] == tools, "its own nulls stay"


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_what_is_broken_is_one_line(tmp_path, name):
    path = written([{"text": "x" * 1000}] * 3, tmp_path, name)
    path.write_bytes(path.read_bytes()[:-600])
    broken = sentence("cannot read parquet" if name.endswith("parquet") else "cannot read arrow")
    with pytest.raises(InputError, match=broken) as caught:
        fields(path)
    assert "\n" not in str(caught.value)
    path.write_text(json.dumps({"text": "a"}))
    with pytest.raises(InputError, match=broken):
        fields(path)


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
def test_offsets_that_lead_out_of_the_file_are_not_followed(tmp_path, name):
    """The library follows them where it is not told to look first: to a bus error, or to what else lies in memory."""
    path = written(pa.table({"text": ["ab", "cd"]}), tmp_path, name)
    good = path.read_bytes()
    path.write_bytes(good.replace(struct.pack("<3i", 0, 2, 4), struct.pack("<3i", 0, 1 << 30, 4)))
    assert path.read_bytes() != good
    with pytest.raises(InputError, match=sentence("cannot read arrow")):
        fields(path)


@pytest.mark.parametrize(
    "column",
    [pa.array([-(2**31), 0], pa.int32()).cast(pa.date32()), pa.array([2**62, 0]).cast(pa.timestamp("us"))],
    ids=["days", "microseconds"],
)
def test_a_time_that_python_has_not_is_one_line(tmp_path, column):
    path = written(pa.table({"text": ["a", "b"], "when": column}), tmp_path)
    with pytest.raises(InputError, match=sentence("cannot read parquet", where="a.parquet:1")):
        fields(path)
