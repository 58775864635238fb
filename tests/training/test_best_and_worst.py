"""Which answers of a rollout are kept for people to read."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.training.best_and_worst import MAX_CHARACTERS, best_and_worst, excerpt


@dataclass
class Answer:
    text: str
    ids: tuple[int, ...] = (1, 2, 3)
    ended: str = "stop"


def told(found):
    return [(one["among"], one["row"], one["answer"], one["reward"]) for one in found]


def test_the_two_best_and_the_two_worst_of_all_prompts():
    answers = [[Answer("a"), Answer("b"), Answer("c")], [Answer("d"), Answer("e", (1,), "length"), Answer("f")]]
    found = best_and_worst([7, 9], answers, [[0.1, 0.9, 0.4], [0.5, -1.0, 0.6]])
    assert told(found) == [
        ("best", 7, "b", 0.9),
        ("best", 9, "f", 0.6),
        ("worst", 9, "e", -1.0),
        ("worst", 7, "a", 0.1),
    ]
    assert found[2] == {"among": "worst", "row": 9, "answer": "e", "reward": -1.0, "ended": "length", "length": 1}


def test_no_text_comes_twice_and_of_equal_rewards_the_first_comes():
    answers = [[Answer("yes"), Answer("yes"), Answer("no")], [Answer("yes"), Answer("no"), Answer("maybe")]]
    found = best_and_worst([0, 1], answers, [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert told(found) == [("best", 0, "yes", 1.0), ("best", 0, "no", 0.0), ("worst", 1, "maybe", 0.0)]
    assert told(best_and_worst([4], [[Answer("same")] * 3], [[0.5] * 3])) == [("best", 4, "same", 0.5)]


def test_long_texts_are_kept_at_both_ends():
    text = "a" * MAX_CHARACTERS + "b" * MAX_CHARACTERS
    assert excerpt(text) == f"{'a' * 500} … 1,000 more characters … {'b' * 500}"
    assert excerpt("a" * MAX_CHARACTERS) == "a" * MAX_CHARACTERS
    assert len(best_and_worst([0], [[Answer(text * 50)]], [[0.0]])[0]["answer"]) < MAX_CHARACTERS + 40
