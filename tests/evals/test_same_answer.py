"""One answer for all prompts, by hand: what is a finding, and what the references do too."""

from __future__ import annotations

from luthier.evals.detectors.same_answer import findings, repeated_answer


def prompts(n):
    return [f"question {i}" for i in range(n)]


def test_always_the_same_label():
    found = repeated_answer(prompts(20), ["Yes."] * 19 + ["no"], ["yes", "no"] * 10)
    assert found is not None and (found.answer, found.count, found.prompts, found.expected) == ("Yes.", 19, 20, 0.5)
    assert [finding is not None for finding in findings(found, ["yes", "no", " YES"])] == [True, False, True]


def test_what_the_references_do_too_is_none():
    assert repeated_answer(prompts(20), ["yes"] * 20, ["yes"] * 20) is None
    assert repeated_answer(prompts(20), ["yes"] * 12 + ["no"] * 8, ["yes", "no"] * 10) is None
    assert repeated_answer(prompts(20), ["no"] * 20, ["no"] * 18 + ["yes"] * 2) is None  # 0.9^20 = 0.12: chance does it


def test_all_the_same_where_the_references_are_skewed():
    assert repeated_answer(prompts(64), ["no"] * 64, ["no"] * 58 + ["yes"] * 6) is not None  # 0.906^64 = 0.002


def test_each_prompt_counts_once():
    assert repeated_answer(["one prompt"] * 30, ["a"] * 30, ["b", "c"] * 15) is None
    assert repeated_answer(["one prompt"] * 30 + prompts(5), ["a"] * 35, [f"b {i}" for i in range(35)]) is not None


def test_free_text_and_empty_answers():
    texts = [f"a sentence of its own, {i}" for i in range(12)]
    assert repeated_answer(prompts(12), texts, texts) is None
    found = repeated_answer(prompts(12), [""] * 12, texts)
    assert found is not None and found.words.startswith("an empty answer to 12 of 12")
    assert repeated_answer(prompts(5), ["a"] * 5, texts[:5]) is None  # too few to tell
