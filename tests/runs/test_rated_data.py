"""What a method does not learn from is refused before anything is spent: rated answers in sft, templated text in cpt."""

from __future__ import annotations

import json

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.runs.method import chosen_method
from luthier.runs.rows import read_examples
from sentences import sentence

UNPAIRED = [{"prompt": f"Tree {i}?", "completion": "Shut up.", "label": bool(i % 2)} for i in range(8)]
PAIRS = [{"prompt": f"Tree {i}?", "chosen": "An oak.", "rejected": "Shut up."} for i in range(8)]
RANKED = [{"prompt": f"Tree {i}?", "responses": ["A stone.", "An oak."], "scores": [1, 2]} for i in range(8)]
CHATS = [{"text": f"<|im_start|>user\n{i}<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"} for i in range(8)]


def read(tmp_path, rows, method, **more):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = resolve({"data.path": [str(path)], "method": method, **more})
    return read_examples(config, chosen_method(config).example)


@pytest.mark.parametrize("rows", [UNPAIRED, PAIRS, RANKED])
def test_unwanted_answers_are_never_learned_as_wanted_ones(tmp_path, rows):
    with pytest.raises(InputError, match=sentence("method and rows", name="sft", wanted="chat")):
        read(tmp_path, rows, "sft")


def test_templated_text_is_a_conversation_unless_it_is_said_otherwise(tmp_path):
    assert read(tmp_path, CHATS, "sft").layout == "templated"
    with pytest.raises(
        InputError,
        match=sentence(
            "method and rows", fix="give --data.layout text to learn such texts as they stand, marks and all"
        ),
    ):
        read(tmp_path, CHATS, "cpt")
    examples = read(tmp_path, CHATS, "cpt", **{"data.layout": "text"})
    assert "marks of a chat template are read as plain text" in examples.warnings[0]


def test_held_out_rows_that_are_read_otherwise_have_a_line_of_their_own(tmp_path, capsys):
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"question": "q", "answer": "a", "intent": "x"}) + "\n")
    rows = [{"prompt": f"q{i}", "completion": "a"} for i in range(4)]
    read(tmp_path, rows, "sft", **{"data.eval": [str(test)]}).tell()
    assert capsys.readouterr().err.splitlines() == [
        "read: prompt, completion; not read: nothing",
        "held-out rows, read: prompt = question, completion = answer; not read: intent",
        "warning: held-out rows: column 'intent' is not read (it may hold what is to be answered); if it matters, "
        "map it with --data.columns FIELD=intent",
    ]
