"""What is put right while reading, and counted."""

from __future__ import annotations

import pytest
from reading_of import loaded

from luthier.data.corrections import CUT_PROMPT, CUT_STOP, LABELS_JOINED, OTHER_PROMPT


def answers(example):
    return [turn.content for turns in (example.chosen, example.rejected) for turn in turns]


def test_answers_that_begin_with_their_prompt(tmp_path):
    row = {"prompt": "Q: Tree? A:", "chosen": "Q: Tree? A: An oak.", "rejected": "Q: Tree? A: A stone."}
    found = loaded(tmp_path, [row, {**row, "rejected": "A stone."}])
    assert answers(found.examples[0]) == ["An oak.", "A stone."]
    assert answers(found.examples[1]) == ["Q: Tree? A: An oak.", "A stone."], "one alone may quote it"
    assert found.reading.corrected == {CUT_PROMPT: 1}
    whole = {"prompt": "Human: Tree?\n\nAssistant:", "chosen": "Human: Tree?\n\nAssistant: An oak.",
             "rejected": "Human: Tree?\n\nAssistant: A stone."}  # fmt: skip
    (example,) = loaded(tmp_path, [whole]).examples
    assert example.prompt[0].content == "Tree?" and answers(example) == ["An oak.", "A stone."]
    ranked = {"prompt": "Q: Tree?", "responses": ["Q: Tree? An oak.", "Q: Tree? A stone."]}
    assert loaded(tmp_path, [ranked]).examples[0].responses[0][0].content == "An oak."


@pytest.mark.parametrize(
    "stop", ["</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", " </s>\n", "<|im_end|></s>"]
)
def test_stop_tokens_written_by_hand_are_cut_off(tmp_path, stop):
    found = loaded(tmp_path, [{"prompt": "Say 1.", "completion": f"1.{stop}"}])
    assert found.examples[0].messages[-1].content == "1."
    assert found.reading.corrected == {CUT_STOP: 1}
    turns = [{"role": "user", "content": f"q{stop}"}, {"role": "assistant", "content": f"a{stop}"}]
    assert [turn.content for turn in loaded(tmp_path, [{"messages": turns}]).examples[0].messages] == [f"q{stop}", "a"]


@pytest.mark.parametrize("answer", ["<s>old</s>", "say </s> twice", "1 < 2"])
def test_what_is_no_stop_token_stays(tmp_path, answer):
    found = loaded(tmp_path, [{"prompt": "q", "completion": answer}])
    assert found.examples[0].messages[-1].content == answer and not found.reading.corrected


def test_a_document_ends_at_the_end_of_text_only(tmp_path):
    found = loaded(tmp_path, [{"text": "one<|endoftext|>"}, {"text": "two <|im_end|>"}])
    assert [example.text for example in found.examples] == ["one", "two <|im_end|>"]


def test_a_prompt_beside_other_conversations_is_told_of(tmp_path):
    def talk(answer):
        return [{"role": "user", "content": "Name a  tree."}, {"role": "assistant", "content": answer}]

    row = {"chosen": talk("An oak."), "rejected": talk("A stone.")}
    found = loaded(tmp_path, [{"prompt": "Name a tree.", **row}, {"prompt": "Something else", **row}])
    assert found.reading.corrected == {OTHER_PROMPT: 1}


def test_several_labels_are_joined(tmp_path):
    found = loaded(tmp_path, [{"text": "t", "label": ["a"]}, {"text": "u", "label": ["a", "b"]}])
    assert [example.messages[-1].content for example in found.examples] == ["a", "a, b"]
    assert found.reading.corrected == {LABELS_JOINED: 1}
