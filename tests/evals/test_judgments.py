"""Judgments: what a line must hold, and which duels the judgments of a file are."""

from __future__ import annotations

import gzip
import json

import pytest

from luthier.core.errors import InputError
from luthier.core.types.examples import Origin
from luthier.data.read import Row
from luthier.evals.judging import judgments
from luthier.evals.judging.judgments import duels, lines, read
from sentences import sentence

GOOD = {
    "prompt": "who?", "models": ["a", "b"], "answers": ["cat", "dog!"], "order": [1, 0], "verdict": [1, 2], "annotator": "me"
}  # fmt: skip


def written(tmp_path, *records):
    path = tmp_path / "judgments.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def outcomes(tmp_path, *records):
    return [(d.first, d.second, d.outcome, d.annotator) for d in duels(read([written(tmp_path, *records)]))]


def test_a_line_is_read_and_written_unchanged(tmp_path):
    chat = GOOD | {
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "info": {"note": "x"},
    }
    path = written(tmp_path, GOOD, chat)
    assert [json.loads(line) for line in lines(read([path]))] == [GOOD, chat]


def test_a_prompt_that_is_not_there_is_said():
    with pytest.raises(
        InputError, match=sentence("judgments without a field", where="a.jsonl:1", found="instruction, output")
    ):
        judgments.prompt_of(Row({"instruction": "q", "output": "a"}, Origin("a.jsonl", 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdit": [1, 2]}, "unknown key 'verdit' in a judgment; did you mean 'verdict'?"),
        ({"seconds": 3}, "unknown key 'seconds' in a judgment; put what you want to keep into 'info'"),
        ({"prompt": 3}, "'prompt' is neither a text nor messages"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "'prompt' is neither a text nor messages"),
        ({"models": ["a"]}, "1 models and 2 answers"),
        ({"models": ["a", 1]}, "'models' is not a list of texts"),
        ({"order": [0, 0]}, "'order' [0, 0] does not name every answer once"),
        ({"order": [0]}, "'order' is not a list of 2 whole numbers"),
        ({"verdict": "a"}, "'verdict' is not a list of 2 whole numbers"),
        ({"verdict": [2, 3]}, "'verdict' [2, 3] has no best answer of rank 1"),
        ({"annotator": ""}, "'annotator' is not a name"),
        ({"info": []}, "'info' is not an object"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, change, message):
    path = written(tmp_path, GOOD, GOOD | change)
    with pytest.raises(InputError) as error:
        read([path])
    assert str(error.value).startswith(f"{path}:2: {message}")


@pytest.mark.parametrize("key", judgments.KEYS)
def test_every_key_is_needed(tmp_path, key):
    record = {k: v for k, v in GOOD.items() if k != key}
    with pytest.raises(
        InputError,
        match=sentence(
            "judgment without a field", where="judgments.jsonl:1", key=key, fields=", ".join(judgments.KEYS)
        ),
    ):
        read([written(tmp_path, record)])


def test_both_orders_that_disagree_are_a_tie(tmp_path):
    first, second = GOOD | {"order": [0, 1]}, GOOD
    assert outcomes(tmp_path, first, second) == [("a", "b", 1.0, "me")]
    assert outcomes(tmp_path, first, second | {"verdict": [2, 1]}) == [("a", "b", 0.5, "me")]
    assert outcomes(tmp_path, first, second | {"verdict": [1, 1]}) == [("a", "b", 0.5, "me")]


def test_names_in_the_other_order_are_the_same_pair(tmp_path):
    turned = GOOD | {"models": ["b", "a"], "answers": ["dog!", "cat"], "verdict": [2, 1]}
    assert outcomes(tmp_path, GOOD, turned) == [("a", "b", 1.0, "me")]


def test_annotators_prompts_and_answers_are_kept_apart(tmp_path):
    found = duels(read([written(tmp_path, GOOD, GOOD | {"annotator": "you"}, GOOD | {"prompt": "what?"},
                                GOOD | {"answers": ["cat", "other"]})]))  # fmt: skip
    assert [(d.prompt, d.unit, d.annotator) for d in found] == [(0, 0, "me"), (0, 0, "you"), (1, 1, "me"), (0, 2, "me")]
    assert found[0].lengths == (3, 4)


def test_a_ranking_is_all_its_pairs(tmp_path):
    ranking = GOOD | {
        "models": ["c", "a", "b", "a"],
        "answers": ["1", "2", "3", "4"],
        "order": [3, 2, 1, 0],
        "verdict": [3, 1, 1, 2],
    }
    found = outcomes(tmp_path, ranking)
    # c against a, a, b loses three times; b ties with the first a and beats the second; a against a is no duel.
    assert sorted(found) == [("a", "b", 0.0, "me"), ("a", "b", 0.5, "me"), ("a", "c", 1.0, "me"), ("a", "c", 1.0, "me"),
                             ("b", "c", 1.0, "me")]  # fmt: skip


def test_rows_of_alpaca_eval_are_read(tmp_path):
    row = {
        "instruction": "who?",
        "output_1": "x",
        "output_2": "y",
        "generator_1": "g1",
        "generator_2": "g2",
        "annotator": "gpt",
    }
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as handle:
        for preference in (1, 2.0, 1.5, 0, 1.0000051, 1.97):
            handle.write(json.dumps(row | {"preference": preference}) + "\n")
    assert [j.verdict for j in read([str(path)])] == [(1, 2), (2, 1), (1, 1), (1, 1), (1, 2), (2, 1)]
    with pytest.raises(InputError, match=sentence("rating out of range", preference=3)):
        read([written(tmp_path, row | {"preference": 3})])
