"""What is told of rows before anything is spent: what is held out, what training sees, what cannot teach."""

from __future__ import annotations

import json

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.data.held_out_warnings import held_out_warnings
from luthier.data.warnings import one_sided
from luthier.runs.rows import read_examples
from luthier.training.method_table import METHODS
from sentences import sentence


def rows_of(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said(path, method="sft", **settings):
    """(rows to learn from, rows held out, warnings)."""
    config = resolve({"data.path": [path], "method": method} | {k.replace("__", "."): v for k, v in settings.items()})
    found = read_examples(config, METHODS[method].example).compared()
    return len(found.train), len(found.test), found.warnings


def questions(count, ask="Say {}."):
    return [{"prompt": ask.format(i), "completion": str(i)} for i in range(count)]


@pytest.mark.parametrize(
    ("count", "learned", "held_out", "warning"),
    [
        (1, 1, 0, "no row is held out, so what is learned is not measured; give --data.eval FILE, or more rows"),
        (2, 1, 1, "1 row held out, too few to show any difference: give --data.eval FILE, or a larger --data.holdout"),
        (3, 2, 1, "1 row held out, too few to show any difference"),
        (30, 25, 5, "5 rows held out, too few"),
    ],
)
def test_few_rows_are_trained_on_and_it_is_said_what_is_held_out(tmp_path, count, learned, held_out, warning):
    path = rows_of(tmp_path, questions(count))
    *parts, warnings = said(path)
    assert parts == [learned, held_out]
    assert [line for line in warnings if line.startswith(warning)]


def test_two_hundred_rows_hold_out_thirty_two_and_nothing_is_said(tmp_path):
    rows = [{"prompt": f"{i * 7919 % 1009} or {i}?", "completion": str(i)} for i in range(200)]
    assert said(rows_of(tmp_path, rows)) == (168, 32, ())


def test_held_out_rows_that_are_learned_from_are_told(tmp_path):
    """The same file for both: `luthier data --data.eval` says the same sentence."""
    path = rows_of(tmp_path, questions(24))
    *_, warnings = said(path, data__eval=[path])
    assert warnings == (
        "held-out prompts that training has seen: 24 exact, 0 nearly the same; scores on these will be too good",
    )


def test_nearly_equal_rows_and_other_spellings_are_told_too(tmp_path):
    long = "The quick brown fox jumps over the lazy dog near the old river bank while seven grey geese look on from the wide meadow"
    learn = [{"prompt": f"{long} in year {i} of the {i}th count", "completion": "yes"} for i in range(10)]
    test = [{"prompt": f"{long}, in year {i} of the {i}th count!", "completion": "yes"} for i in range(4)]
    test += [
        {"prompt": learn[0]["prompt"].upper(), "completion": "no"},
        {"prompt": "Something else?", "completion": "no"},
    ]
    *_, warnings = said(rows_of(tmp_path, learn), data__eval=[rows_of(tmp_path, test, "test.jsonl")])
    assert warnings == (
        "held-out prompts that training has seen: 1 exact, 4 nearly the same; scores on these will be too good",
    )


def test_of_very_many_rows_it_is_said_that_near_copies_are_not_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("luthier.data.held_out_warnings.MAX_COMPARED", 20)
    path = rows_of(tmp_path, questions(24))
    *_, warnings = said(path, data__eval=[path])
    assert warnings[-1].startswith("nearly equal rows are not looked for among 24 rows to learn from")
    assert warnings[0].startswith("held-out prompts that training has seen: 24 exact, ")


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ([True] * 24, "all 24 answers are wanted: kto learns the contrast of wanted and unwanted answers, and there is none here; "
                      "add the others, or learn these with --method sft"),
        ([False] * 24, "all 24 answers are unwanted: kto learns the contrast of wanted and unwanted answers, and there is none here; "
                       "add the others"),
        ([True], "the only answer is wanted: kto learns the contrast"),
        ([True, False] * 12, None),
    ],
)  # fmt: skip
def test_answers_of_one_label_are_told(tmp_path, labels, warning):
    path = rows_of(
        tmp_path, [{"prompt": f"Tree {i}?", "completion": "An oak.", "label": x} for i, x in enumerate(labels)]
    )
    *_, warnings = said(path, "kto")
    assert [line for line in warnings if "contrast" in line] == [
        line for line in warnings if warning and line.startswith(warning)
    ]
    assert bool(warning) == any("contrast" in line for line in warnings)


def test_one_label_that_only_the_split_leaves_is_told(tmp_path):
    """The one unwanted answer is held out."""
    rows = [{"prompt": f"Tree {i}?", "completion": "An oak.", "label": True} for i in range(24)]
    for seed in range(20):
        examples = read_examples(
            resolve({"data.path": [rows_of(tmp_path, rows)], "method": "kto", "seed": seed}), METHODS["kto"].example
        )
        place = next(int(e.prompt[0].content[5:-1]) for e in examples.test)
        marked = [row | {"label": i != place} for i, row in enumerate(rows)]
        *_, warnings = said(rows_of(tmp_path, marked), "kto", seed=seed)
        assert any(line.startswith("all 20 answers are wanted") for line in warnings)
        break


def test_comparisons_that_prefer_nothing_are_counted(tmp_path):
    rows = [{"prompt": f"q{i}", "chosen": "a", "rejected": "a" if i < 3 else "b"} for i in range(60)]
    *_, warnings = said(rows_of(tmp_path, rows), "dpo")
    assert "chosen and rejected are the same text: 3 rows, and nothing is learned from them" in warnings
    rows = [{"prompt": f"q{i}", "responses": ["a", "b"], "ranks": [1, 1 + (i > 0)]} for i in range(60)]
    *_, warnings = said(rows_of(tmp_path, rows), "reward")
    assert "all answers have the same rank: 1 row, and nothing is learned from them" in warnings


def test_warnings_of_nothing():
    assert list(held_out_warnings([], [])) == [
        "no row is held out, so what is learned is not measured; give --data.eval FILE, or more rows"
    ]
    assert not list(one_sided([]))


def test_pairs_of_a_stream_are_not_said_to_be_gathered(tmp_path):
    path = rows_of(tmp_path, [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(InputError, match=sentence("rows of a stream not gathered", where="--ranking.gather")):
        said(path, "simpo", data__stream=True, train__steps=1, ranking__gather=True)


def test_replay_rows_are_read_by_their_own_columns(tmp_path):
    """A prompt and a completion that are told are those of the data, though the replay rows have such columns too."""
    path = rows_of(tmp_path, [{"ticket": f"t{i}", "kind": f"k{i}"} for i in range(24)])
    general = rows_of(tmp_path, [{"ticket": "t", "kind": "k", "prompt": "Hi", "completion": "Hello"}], "general.jsonl")
    told = {"data.path": [path], "data.prompt": "{ticket}", "data.completion": "{kind}", "data.replay": [general]}
    (row,) = read_examples(resolve(told | {"method": "sft"}), METHODS["sft"].example).replay
    assert [message.content for message in row.messages] == ["Hi", "Hello"]
