"""Text that a chat template has written already is read turn by turn, where that can be done in one way only."""

from __future__ import annotations

import pytest
from reading_of import loaded

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message, Text
from luthier.data.templated import is_templated, turns_in
from sentences import sentence

ASK, YES, AGAIN, NO = Message("user", "Hi"), Message("assistant", "Yo"), Message("user", "a"), Message("assistant", "b")
RULE = Message("system", "Be brief.")

WRITTEN = {
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n",
        (RULE, ASK, YES),
    ),
    "llama-2": ("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yo </s><s>[INST] a [/INST] b </s>", (RULE, ASK, YES, AGAIN, NO)),
    "mistral": ("<s>[INST] Hi [/INST]Yo</s>[INST] a [/INST]b</s>", (ASK, YES, AGAIN, NO)),
    "llama-3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>",
        (ASK, YES),
    ),
    "gemma": ("<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n", (ASK, YES)),
    "llama-4": (
        "<|begin_of_text|><|header_start|>user<|header_end|>\n\nHi<|eot|><|header_start|>assistant<|header_end|>\n\nYo<|eot|>",
        (ASK, YES),
    ),
    "granite": (
        "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>Yo<|end_of_text|>\n",
        (ASK, YES),
    ),
    "command r": (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Yo<|END_OF_TURN_TOKEN|>",
        (ASK, YES),
    ),
    "exaone": ("[|system|]Be brief.[|endofturn|]\n[|user|]Hi\n[|assistant|]Yo[|endofturn|]\n", (RULE, ASK, YES)),
    "openchat": ("GPT4 Correct User: Hi<|end_of_turn|>GPT4 Correct Assistant: Yo<|end_of_turn|>", (ASK, YES)),
    "stablelm": ("<|SYSTEM|>Be brief.<|USER|>Hi<|ASSISTANT|>Yo", (RULE, ASK, YES)),
    "phi-2": ("Instruct: Hi\nOutput: Yo", (ASK, YES)),
    "angles": ("<human>: Hi\n<bot>: Yo\n<human>: a\n<bot>: b", (ASK, YES, AGAIN, NO)),
    "zephyr": ("<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n", (RULE, ASK, YES)),
    "phi-3": ("<|user|>\nHi<|end|>\n<|assistant|>\nYo<|end|>\n", (ASK, YES)),
    "guanaco": ("### Human: Hi### Assistant: Yo### Human: a### Assistant: b", (ASK, YES, AGAIN, NO)),
    "hashes": ("### Human: Hi\n### Assistant: Yo", (ASK, YES)),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHi\n\n### Response:\nYo</s>",
        (ASK, YES),
    ),
    "alpaca input": (
        "### Instruction:\nHi\n\n### Input:\nthere\n\n### Response:\nYo", (Message("user", "Hi", input="there"), YES)
    ),
    "vicuna": ("Be brief. USER: Hi ASSISTANT: Yo</s>USER: a ASSISTANT: b</s>", (RULE, ASK, YES, AGAIN, NO)),
    "transcript": ("\n\nHuman: Hi\n\nAssistant: Yo", (ASK, YES)),
    "lines": ("User: Hi\nAssistant: Yo", (ASK, YES)),
    "open": ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", (ASK,)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_turns_of_known_templates(name):
    text, turns = WRITTEN[name]
    assert turns_in(text) == turns


@pytest.mark.parametrize(
    "text",
    [
        "A document.",
        "Hello <|im_start|>user\nHi<|im_end|>",  # text before the first mark
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>user\nHi again<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>",
        "<|im_start|>user\nHi [/INST]<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>",  # marks of two templates
        "[INST] Hi [/INST] Yo [INST] a",
        "The log says USER: root",
        "<|im_start|>user\nHi<|im_end|>\n",  # nobody answers
        "### Instruction:\n\n### Response:\nYo",
    ],
)
def test_what_can_be_read_in_several_ways_or_in_none_is_left_alone(text):
    assert turns_in(text) is None and not is_templated(text)


def test_the_layout_is_found_and_rows_that_do_not_fit_are_refused(tmp_path):
    chat = {"text": WRITTEN["chatml"][0]}
    found = loaded(tmp_path, [chat] * 3)
    assert found.layout.name == "templated" and found.examples[0].messages == (RULE, ASK, YES)
    assert isinstance(found.examples[0], Chat)
    with pytest.raises(InputError, match=sentence("not in a known template", where="rows.jsonl:4")):
        loaded(tmp_path, [chat] * 3 + [{"text": "a document"}])
    assert isinstance(loaded(tmp_path, [chat], layout="text").examples[0], Text)


def test_a_text_file_in_chatml(tmp_path):
    from luthier.config.data import DataConfig
    from luthier.data.load import load

    path = tmp_path / "chat.txt"
    path.write_text(WRITTEN["chatml"][0] * 1 + WRITTEN["open"][0] + "Yo<|im_end|>\n")
    (example,) = load([str(path)], DataConfig()).examples
    assert example.messages == (RULE, ASK, YES, ASK, YES)


def test_prompts_and_preferences_in_a_template(tmp_path):
    row = {"prompt": WRITTEN["open"][0], "completion": "Yo<|im_end|>"}
    assert loaded(tmp_path, [row]).examples[0].messages == (ASK, YES)
    begin = WRITTEN["open"][0]
    (pair,) = loaded(tmp_path, [{"chosen": begin + "Yo<|im_end|>", "rejected": begin + "No<|im_end|>"}]).examples
    assert (pair.prompt, pair.chosen, pair.rejected) == ((ASK,), (YES,), (Message("assistant", "No"),))
    # One answer alone that quotes a conversation is an answer.
    (pair,) = loaded(tmp_path, [{"prompt": "q", "chosen": "[INST] Hi [/INST] Yo", "rejected": "plain"}]).examples
    assert pair.chosen == (Message("assistant", "[INST] Hi [/INST] Yo"),)
