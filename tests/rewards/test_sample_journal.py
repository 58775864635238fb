"""Answers kept in a file: what a kill leaves, what belongs to another command."""

from __future__ import annotations

import pytest

from luthier.core.errors import InputError
from luthier.rewards.sample_journal import SampledAnswer, keeping
from sentences import sentence

SETTINGS = {"n": 2, "top_p": 0.9}
FIRST = [SampledAnswer("one\u2028\n", 3, True), SampledAnswer("", 0, False)]
PARTS = {"exact": [1.0, 0.0]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "x.partial.jsonl"
    with keeping(path, SETTINGS, "a") as kept:
        kept.add_answers({0: FIRST, 1: FIRST[::-1]})
        kept.add_parts({0: PARTS})
    return path


def test_what_is_kept_comes_back(path):
    with keeping(path, SETTINGS, "a") as kept:
        assert kept.answers == {0: FIRST, 1: FIRST[::-1]}
        assert kept.parts == {0: PARTS}
        kept.add_parts({1: PARTS})
    with keeping(path, SETTINGS, "a") as kept:
        assert kept.parts == {0: PARTS, 1: PARTS}


def test_answers_outlive_a_change_of_the_reward(path):
    with keeping(path, SETTINGS, "b") as kept:
        assert (list(kept.answers), kept.parts) == ([0, 1], {})


@pytest.mark.medium
def test_every_place_a_kill_can_cut_the_file_at(path, tmp_path):
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        copy = tmp_path / "copy.jsonl"
        copy.write_bytes(whole[:length])
        with keeping(copy, SETTINGS, "a") as kept:
            assert set(kept.parts) <= set(kept.answers) <= {0, 1}
            assert kept.answers == {row: [FIRST, FIRST[::-1]][row] for row in kept.answers}
            kept.add_answers({2: FIRST})
        with keeping(copy, SETTINGS, "a") as again:
            assert again.answers == kept.answers


def test_answers_of_another_command(path):
    with pytest.raises(InputError) as caught, keeping(path, SETTINGS | {"top_p": 1.0}, "a"):
        pass
    assert str(caught.value) == (
        f"{path}: this file holds answers of another command: its top p was not the same; "
        "give another --out, or delete it to start over"
    )


@pytest.mark.parametrize("line", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda line: line.replace(b"0", b"1", 1).replace(b"0.9", b"0.8"), "line changed"),
        (lambda line: b"{x\n", "not json"),
    ],
)
def test_a_line_that_was_changed_is_refused(path, line, damage, fault):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = damage(lines[line])
    path.write_bytes(b"".join(lines))
    says = sentence(fault, where=f"x.partial.jsonl:{line + 1}", fix="put it back from a copy…")
    with pytest.raises(InputError, match=says), keeping(path, SETTINGS, "a"):
        pass


def test_kept_answers_without_their_first_line_are_refused(path):
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    with (
        pytest.raises(InputError, match=sentence("record lacks", where="jsonl:1", key="settings")),
        keeping(path, SETTINGS, "a"),
    ):
        pass


def test_two_processes_do_not_share_it(path):
    with (
        keeping(path, SETTINGS, "a"),
        pytest.raises(InputError, match=sentence("file of another process")),
        keeping(path, SETTINGS, "a"),
    ):
        pass


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"[1", "kept.jsonl:3: not JSON"),
        (b"\xff", "kept.jsonl:3: not UTF-8"),
        (b"[" * 5000, "kept.jsonl:3: nested more than 100 deep"),
        (b"3", "kept.jsonl:3: this should be a valid dictionary, not 3"),
        (b'{"prompt": "0", "answers": []}', "'prompt' should be a valid integer, not \"0\""),
        (
            b'{"prompt": 0, "answers": [{"text": 1, "tokens": 1, "ended": true}]}',
            "'answers.0.text' should be a valid string",
        ),
        (b'{"prompt": 0, "by": "a", "parts": {"exact": [NaN]}}', "'parts.exact.0' should be"),
    ],
)
def test_a_line_that_is_none_of_ours_is_refused(tmp_path, line, told):
    path = tmp_path / "kept.jsonl"
    with keeping(path, SETTINGS, "a") as kept:
        kept.add_answers({0: FIRST})
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(InputError) as caught, keeping(path, SETTINGS, "a"):
        pass
    assert told in str(caught.value) and str(caught.value).endswith("delete the file to start over")
