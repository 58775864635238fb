"""The quickstart's data: real, deterministic, without leaks."""

from __future__ import annotations

import pytest

from luthier.app.stdlib_pairs import INSTRUCTION, pairs


@pytest.fixture(scope="module")
def both():
    return pairs(limit=1000, test=96, seed=0)


def test_there_are_as_many_as_asked_for(both):
    train, test = both
    assert (len(train), len(test)) == (1000, 96)


def test_modules_of_the_test_are_unseen(both):
    train, test = both
    assert not {chat.group for chat in train} & {chat.group for chat in test}
    assert len({chat.group for chat in test}) > 10


def test_no_answer_stands_in_its_question(both):
    for chat in (*both[0], *both[1]):
        question, answer = (message.content for message in chat.messages)
        assert question.startswith(INSTRUCTION)
        assert "\n" not in answer
        assert answer not in question
        code = question.removeprefix(INSTRUCTION)
        assert code.lstrip().startswith(("def ", "async def "))
        assert len(code) <= 400


def test_nothing_stands_twice(both):
    texts = [chat.messages[0].content for chat in (*both[0], *both[1])]
    assert len(set(texts)) == len(texts)


def test_origins_point_at_the_function(both):
    chat = both[0][0]
    line = open(chat.origin.file, encoding="utf-8").read().split("\n")[chat.origin.line - 1]  # noqa: SIM115
    assert "def " in line
