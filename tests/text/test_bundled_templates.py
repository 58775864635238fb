"""Conversations with thoughts, tools and system prompts, in the templates that TRL bundles: transformers' own text.

LUTHIER_TEMPLATES names a folder of further *.jinja files, which are compared too.
"""

from __future__ import annotations

import copy
import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import trl
from chat_templates import byte_level, fast

from luthier.core.errors import InputError
from luthier.core.types.examples import REASONING
from luthier.data.messages import messages_of
from luthier.data.tool_calls import tools_of
from luthier.text.spans import spans
from luthier.text.template import load_template
from luthier.text.tokenizer import SEPARATOR, Tokenizer

FOLDERS = [
    Path(trl.__file__).parent / "chat_templates",
    *map(Path, filter(None, [os.environ.get("LUTHIER_TEMPLATES")])),
]
PATHS = [path for folder in FOLDERS for path in sorted(folder.glob("*.jinja"))]
CONTROL = re.compile(
    r"<\|[\w/.:]+\|?>|<｜[^｜]+｜>|</s>|<end_of_turn>|<start_of_turn>|<end_of_utterance>|<turn\|>|<\|turn>"
)
DAY = re.compile(r"\d{1,2} [A-Z][a-z]+ \d{4}|\d{4}-\d\d-\d\d|[A-Z][a-z]+ \d{1,2}, \d{4}|[A-Z][a-z]+day")

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "rainfall", "description": "Rain.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string", "description": "where"}}},
        },
    }
]  # fmt: skip


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def call(arguments, name="a1b2c3d4e"):
    return {"id": name, "type": "function", "function": {"name": "rainfall", "arguments": arguments}}


ASK, NO, HI, HELLO = (
    said(*x) for x in (("user", "Prime?"), ("assistant", "No."), ("user", "Hi"), ("assistant", "Yo."))
)
WET = said("user", "How wet?")
RAIN = said("tool", "30 mm", tool_call_id="a1b2c3d4e", name="rainfall")
CALLS = said("assistant", "", tool_calls=[call({"town": "Ulm"})])
END = said("assistant", "30 mm.")
MORE_RAIN = said("tool", "5 mm", tool_call_id="a1b2c3d4f", name="rainfall")
# name -> (messages, do they need tools, do they need a place for a thought)
TALKS = {
    "single": ([ASK, NO], False, False),
    "system": ([said("system", "Be brief."), ASK, NO], False, False),
    "several turns": ([HI, HELLO, ASK, NO], False, False),
    "reasoning_content": ([ASK, NO | {"reasoning_content": "7 * 13."}], False, True),
    "thinking": ([ASK, NO | {"thinking": "7 * 13."}], False, True),
    "thoughts": ([HI, HELLO | {"reasoning": "greet"}, ASK, NO | {"reasoning": "7 * 13."}], False, True),
    "thought in the content": ([ASK, said("assistant", "<think>\n7 * 13.\n</think>\n\nNo.")], False, False),
    "call": ([WET, CALLS], True, False),
    "call and answer": ([said("system", "Be brief."), WET, CALLS, RAIN, END], True, False),
    "call without content": ([WET, {k: v for k, v in CALLS.items() if k != "content"}, RAIN, END], True, False),
    "call with null content": ([WET, CALLS | {"content": None}, RAIN, END], True, False),
    "call with text": ([WET, CALLS | {"content": "Let me look."}, RAIN, END], True, False),
    "text arguments": ([WET, CALLS | {"tool_calls": [call('{"town": "Ulm"}')]}, RAIN, END], True, False),
    "no arguments": ([WET, CALLS | {"tool_calls": [call({})]}, RAIN, END], True, False),
    "two calls": (
        [WET, CALLS | {"tool_calls": [call({"town": "Ulm"}), call({}, "a1b2c3d4f")]}, RAIN, MORE_RAIN, END], True, False,
    ),
    "thought and call": ([WET, CALLS | {"reasoning_content": "ask"}, RAIN, END], True, True),
    "system in the middle": ([HI, HELLO, said("system", "Sail."), ASK, NO], False, False),
    "system twice": ([said("system", "One."), said("system", "Two."), ASK, NO], False, False),
    "empty system": ([said("system", ""), ASK, NO], False, False),
    "user twice": ([HI, ASK, NO], False, False),
    "assistant first": ([HELLO, ASK, NO], False, False),
    "tool first": ([RAIN, ASK, NO], False, False),
}  # fmt: skip


@cache
def template_of(path):
    source = path.read_text(encoding="utf-8")
    made = fast(byte_level(), bos="<|endoftext|>", eos="<|im_end|>", template=source)
    made.add_special_tokens({"additional_special_tokens": sorted(set(CONTROL.findall(source)) | {"<|endoftext|>"})})
    return load_template("auto", Tokenizer(made))


def plain(text):
    return DAY.sub("DAY", text.replace(SEPARATOR, ""))


def theirs(template, talk, tools, **how):
    """transformers' text, or None where it fails; a thought is given under every name that templates read."""
    made = template.tokenizer.fast
    thoughts = [next((turn[n] for n in REASONING if n in turn), None) for turn in talk]
    talk = [turn if t is None else turn | dict.fromkeys(REASONING, t) for turn, t in zip(talk, thoughts, strict=True)]
    blocks = [t | {"content": [{"type": "text", "text": t["content"]}]} if t.get("content") else t for t in talk]
    for turns in (talk, blocks):  # some templates read blocks alone, and leave a plain text out
        with suppress(Exception):
            text = plain(made.apply_chat_template(copy.deepcopy(turns), tools=tools, tokenize=False, **how))
            if any(turn["content"].strip() in text for turn in talk if turn.get("content")):
                return text
    return None


@pytest.mark.medium
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_text_is_that_of_transformers_or_the_row_is_refused(path):
    template = template_of(path)
    for name, (talk, with_tools, thinks) in TALKS.items():
        if with_tools and not (template.reads_tools and template.reads_calls):
            continue  # told of in words: transformers leaves them out
        if thinks and template.thoughts != "fields":
            continue  # in the content: transformers leaves it out
        tools = TOOLS if with_tools else None
        messages = messages_of(copy.deepcopy(talk), "messages", "user")
        for count, how in ((len(talk), {}), (len(talk) - 1, {"add_generation_prompt": True})):
            wanted = theirs(template, talk[:count], tools, **how)
            try:
                text = plain(template.render(messages[:count], tools_of(tools), prompt=bool(how)))
            except InputError:
                text = None
            assert wanted is None or text == wanted, (name, how)


@pytest.mark.medium
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_begun_answer_is_gone_on_with_as_in_transformers(path):
    template = template_of(path)
    for begun in ("<think>\n", "The answer is "):
        talk = [ASK, said("assistant", begun)]
        wanted = theirs(template, talk, None, continue_final_message=True)
        try:
            text = plain(template.begin(messages_of(talk, "prompt", "user")))
        except InputError:
            text = None
        assert text == wanted


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_thought_and_no_call_vanishes_from_what_is_learned(path):
    """A thought that the row has is learned, before the call that follows from it, or the row is refused."""
    template = template_of(path)
    for talk in ([ASK, NO | {"reasoning_content": "7 * 13."}], [WET, CALLS | {"reasoning_content": "7 * 13."}]):
        try:
            segments = spans(messages_of(talk, "messages", "user"), tools_of(TOOLS), template)
        except InputError:
            continue
        learned = "".join(segment.text for segment in segments if segment.trained)
        answer = "rainfall" if "tool_calls" in talk[1] else "No."
        assert 0 <= learned.find("7 * 13.") < learned.find(answer)


@pytest.mark.medium
def test_most_templates_are_compared():
    kinds = [template_of(path) for path in PATHS]
    assert sum(theirs(template, TALKS["single"][0], None) is not None for template in kinds) >= len(kinds) - 4
    assert sum(template.reads_tools and template.reads_calls for template in kinds) >= 40
    assert sum(template.thoughts == "fields" for template in kinds) >= 30
