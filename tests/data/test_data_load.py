"""Paths and settings -> examples, whole or as a stream."""

import json

import pytest

from luthier.config.data import DataConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import Chat
from luthier.data.load import load, stream
from sentences import sentence


@pytest.fixture
def path(tmp_path):
    rows = [{"question": f"q{i}", "answer": f"a{i}", "topic": f"t{i % 3}"} for i in range(300)]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_everything(path):
    loaded = load([path], DataConfig(group="topic"))
    assert loaded.layout.name == "prompt_completion"
    assert loaded.reading.read == {"prompt": "question", "completion": "answer"}
    assert loaded.reading.unread == ("topic",)
    assert len(loaded.examples) == len(loaded.rows) == 300
    assert all(isinstance(example, Chat) for example in loaded.examples)
    last = loaded.examples[-1]
    assert (last.group, last.origin.line) == ("t2", 300)
    assert loaded.row_of(last).fields == {"question": "q299", "answer": "a299", "topic": "t2"}


def test_limit_and_stream_read_no_further(path):
    with open(path, "a") as handle:
        handle.write("broken\n")
    assert len(load([path], DataConfig(limit=250)).examples) == 250
    source = stream([path], DataConfig())
    assert [next(source.pairs)[0].origin.line for _ in range(300)] == list(range(1, 301))
    with pytest.raises(InputError, match=sentence("broken json line", where="a.jsonl:301")):
        next(source.pairs)


def test_bad_rows_stop_or_are_counted(path):
    with open(path, "a") as handle:
        handle.write('broken\n{"question": "q"}\n{"question": "q", "answer": ["x"]}\n')
    with pytest.raises(InputError, match=sentence("broken json line", where="a.jsonl:301")):
        load([path], DataConfig())
    loaded = load([path], DataConfig(skip_bad=True))
    assert len(loaded.examples) == 300
    assert loaded.skipped.count == 3
    assert [origin.line for origin, _ in loaded.skipped.first] == [301, 302, 303]


def test_a_stream_counts_every_reason_and_keeps_a_thousand(path):
    with open(path, "a") as handle:
        handle.write("broken\n" * 1200)
    source, loaded = stream([path], DataConfig(skip_bad=True)), load([path], DataConfig(skip_bad=True))
    assert len(list(source)) == len(loaded.examples) == 300
    assert source.skipped.count == loaded.skipped.count == 1200
    assert sum(source.skipped.reasons.values()) == 1200
    assert (len(source.skipped.first), len(loaded.skipped.first)) == (1000, 1200)


def test_no_usable_row(tmp_path):
    ties = tmp_path / "ties.jsonl"
    ties.write_text('{"instruction": "q", "output_1": "a", "output_2": "b", "preference": 1.5}\n')
    with pytest.raises(InputError, match=sentence("no usable row", where="ties.jsonl:1", reason="a tie…")):
        load([str(ties)], DataConfig())
    bad = tmp_path / "bad.jsonl"
    bad.write_text("broken\n")
    with pytest.raises(InputError, match=sentence("no rows")):
        load([str(bad)], DataConfig(skip_bad=True))


def test_second_file_of_another_layout_is_named(path, tmp_path):
    other = tmp_path / "b.jsonl"
    other.write_text('{"text": "hello"}\n')
    with pytest.raises(InputError, match=sentence("no such field", where="b.jsonl:1", field="prompt")):
        load([path, str(other)], DataConfig())


def test_held_out_rows_are_read_by_their_own_layout_and_their_file_is_named(tmp_path):
    train, test = tmp_path / "train.jsonl", tmp_path / "eval.jsonl"
    train.write_text('{"instruction": "a", "output": "b"}\n')
    test.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    assert load([str(train)], DataConfig()).layout.name == "alpaca"
    assert load([str(test)], DataConfig(), held_out=True).layout.name == "chat"
    with pytest.raises(InputError, match=sentence("unknown column", column="output", file="…eval.jsonl…")):
        load([str(test)], DataConfig(columns={"output": "output"}), held_out=True)
    with pytest.raises(InputError, match=sentence("no such field", where="eval.jsonl:1", field="instruction")):
        load([str(test)], DataConfig(layout="alpaca"), held_out=True)


def test_the_held_out_split_of_a_folder(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(f'{{"prompt": "{split}", "completion": "b"}}\n')
    assert load([str(tmp_path)], DataConfig()).examples[0].messages[0].content == "train"
    assert load([str(tmp_path)], DataConfig(), held_out=True).examples[0].messages[0].content == "test"
