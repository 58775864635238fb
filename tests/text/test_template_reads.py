"""What templates read of a conversation: thoughts, ids, values, tools; what is begun; what they leave out."""

from __future__ import annotations

import copy

import pytest
from chat_templates import TOKENS, byte_level, fast, with_source

from conftest import CHATML
from luthier.config.data import TextConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Labelled, Message, Origin, Preference, Prompt, Ranking
from luthier.data.convert import to_examples
from luthier.data.detect import detect
from luthier.data.messages import as_context, messages_of
from luthier.data.rows import Row
from luthier.text.encode import encode, encode_prompt_ids
from luthier.text.spans import spans
from luthier.text.template import load_template
from luthier.text.tokenizer import Tokenizer
from sentences import sentence

LONG = TextConfig(max_length=100_000)
HEAD = "<|im_start|>{{ m.role }}\n"
GENERATE = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOL = {"type": "function", "function": {"name": "rain", "parameters": {"type": "object"}}}
CALL = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "rain", "arguments": {"town": "Ulm"}}}
TEXT_CALL = {**CALL, "function": {"name": "rain", "arguments": '{"town": "Ulm"}'}}
ASK, NO = Message("user", "Prime?"), Message("assistant", "No.")


def turn(content, **more):
    return Message("assistant", content, **more)


def each(body, head=HEAD):
    return "{% for m in messages %}" + head + body + "<|im_end|>\n{% endfor %}" + GENERATE


def learned(template, *examples, config=LONG):
    """The learned text of each node of each tree."""
    out = []
    for tree in encode(examples, template, template.tokenizer, config).trees:
        for node in tree.nodes:
            ids = [index for index, trained in zip(node.ids, node.trained, strict=True) if trained]
            out.append(template.tokenizer.decode(ids, special=True))
    return out


def text_of(template, example):
    (tree,) = encode([example], template, template.tokenizer, LONG).trees
    return [template.tokenizer.decode(node.ids, special=True) for node in tree.nodes]


def test_earlier_answers_in_a_prompt_are_read_and_the_completion_alone_is_learned():
    """As TRL's completion_only_loss; the same turns as `messages` are learned both."""
    asked = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Sure?"},
    ]
    said = [{"role": "assistant", "content": "Sorry, 4."}]
    template = with_source(each("{{ m.content }}"))
    for fields, answers in (
        ({"prompt": asked, "completion": said}, "Sorry, 4.<|im_end|>"),
        ({"messages": asked + said}, "5<|im_end|>Sorry, 4.<|im_end|>"),
    ):
        rows = [Row(fields, Origin("rows.jsonl", 1))]
        assert learned(template, *to_examples(rows, detect(rows, {}), {})) == [answers]


# ------------------------------------------------------------------------------------------------- thoughts

CHANNEL = each(
    "{% if m.role == 'assistant' and (m.reasoning_content or m.thinking) %}"
    "[analysis]{{ m.reasoning_content or m.thinking }}[/analysis]\n{% endif %}{{ m.content }}"
)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking"])
def test_a_thought_stands_where_the_template_writes_it(name):
    """GLM, Kimi K2 Thinking, gpt-oss: in a channel of its own, nothing in <think> tags."""
    template, talk = with_source(CHANNEL), (ASK, turn("No.", fields={name: "7 * 13."}))
    expected = template.tokenizer.fast.apply_chat_template([m.as_dict() for m in talk], tokenize=False)
    assert template.render(talk, prompt=False) == expected
    assert learned(template, Chat(talk)) == ["[analysis]7 * 13.[/analysis]\nNo.<|im_end|>"]


def test_a_template_without_a_place_for_thoughts_gets_them_in_the_content():
    talk = (ASK, turn("No.", fields={"reasoning": "7 * 13."}))
    for name in ("auto", "alpaca", "plain"):
        template = load_template(name, with_source(CHATML).tokenizer)
        assert learned(template, Chat(talk)) == ["<think>\n7 * 13.\n</think>\n\nNo.<|im_end|>"]


def test_a_name_that_transformers_knows_no_alias_for():
    """Solar Open reads `reasoning` alone."""
    template = with_source(each("{% if m.reasoning %}<t>{{ m.reasoning }}</t>{% endif %}{{ m.content }}"))
    assert learned(template, Chat((ASK, turn("No.", fields={"thinking": "x"})))) == ["<t>x</t>No.<|im_end|>"]


def test_thoughts_in_blocks_of_the_content():
    """Magistral, Ministral 3: a list of blocks, one of which thinks."""
    body = (
        "{% if m.content is string %}{{ m.content }}{% else %}{% for b in m.content %}"
        "{% if b.type == 'thinking' %}[THINK]{{ b.thinking }}[/THINK]{% else %}{{ b.text }}{% endif %}"
        "{% endfor %}{% endif %}"
    )
    template = with_source(each(body))
    talk = [{"role": "user", "content": "Prime?"}]
    talk += [{"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "No."}]}]
    expected = template.tokenizer.fast.apply_chat_template(copy.deepcopy(talk), tokenize=False)
    assert template.render(messages_of(talk, "messages", "user"), prompt=False) == expected
    assert "[THINK]x[/THINK]No." in expected


CUTS = each("{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}")


@pytest.mark.parametrize(
    "answer", [turn("<think>\n7 * 13.\n</think>\n\nNo."), turn("No.", fields={"reasoning_content": "7 * 13."})]
)
@pytest.mark.parametrize("train_on", ["assistant", "last", "all"])
def test_trap_a_template_cuts_the_thought_from_what_is_learned(answer, train_on):
    """DeepSeek-R1's template drops what stands before </think>: the row is refused, with its place."""
    row = Chat((ASK, answer), origin=Origin("rows.jsonl", 3))
    with pytest.raises(InputError, match=sentence("thought left out", where="rows.jsonl:3", turn="turn 2")):
        learned(with_source(CUTS), row, config=TextConfig(train_on=train_on))


def test_an_opened_thought_that_the_answer_does_not_have_is_refused_with_the_switch():
    source = each("{{ m.content }}", HEAD).replace(
        GENERATE, "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
    )  # fmt: skip
    opened = load_template("auto", with_source(source).tokenizer, {"enable_thinking": True})
    with pytest.raises(
        InputError,
        match=sentence(
            "prompt not a prefix",
            fix="use another --text.template, or set --text.template_kwargs enable_thinking=false (or true)",
        ),
    ):
        learned(opened, Chat((ASK, NO, ASK, NO)))
    assert learned(with_source(source), Chat((ASK, NO))) == ["No.<|im_end|>"]


def test_a_thought_that_an_unlearned_or_earlier_turn_loses_is_no_fault():
    earlier = turn("<think>\nhm\n</think>\n\nYes.", train=False)
    assert learned(with_source(CUTS), Chat((ASK, earlier, ASK, NO))) == ["No.<|im_end|>"]


def test_a_thought_after_its_call_is_refused():
    template = with_source(each("{% for c in m.tool_calls or [] %}[{{ c.function.name }}]{% endfor %}{{ m.content }}"))
    talk = (ASK, turn("", tool_calls=(CALL,), fields={"reasoning": "ask"}))
    with pytest.raises(InputError, match=sentence("thought after tool call")):
        learned(template, Chat(talk))


# -------------------------------------------------------------------------------------------- tools and calls


def test_ids_of_calls_reach_the_template():
    """Mistral refuses ids that are not nine letters and digits; Kimi writes them."""
    body = (
        "{% if m.role == 'tool' %}{% if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}"
        "{{ raise_exception('ids have nine letters') }}{% endif %}[{{ m.tool_call_id }}]{% endif %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.id }}{% endfor %}"
    )
    template = with_source(each(body))
    answer = {"role": "tool", "tool_call_id": "a1b2c3d4e", "content": "30 mm"}
    talk = [ASK.as_dict(), {"role": "assistant", "content": None, "tool_calls": [CALL]}, answer]
    expected = template.tokenizer.fast.apply_chat_template(copy.deepcopy(talk), tokenize=False)
    assert template.render(messages_of(talk, "messages", "user"), prompt=False) == expected
    assert "[a1b2c3d4e]30 mm" in expected


CALLED = "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }} %s{% endfor %}"
JOINS = each(CALLED.replace("%s", "{{ '=' + c.function.arguments }}"))  # DeepSeek-V3
PAIRS = each(CALLED.replace("%s", "{% for k, v in c.function.arguments.items() %}{{ k }}:{{ v }}{% endfor %}"))  # GLM
QUOTES = each(CALLED.replace("%s", "{{ c.function.arguments | tojson }}"))  # Qwen2.5


@pytest.mark.parametrize(
    ("source", "call", "written"),
    [
        (JOINS, TEXT_CALL, 'rain ={"town": "Ulm"}'),
        (JOINS, CALL, 'rain ={"town": "Ulm"}'),
        (PAIRS, CALL, "rain town:Ulm"),
        (PAIRS, TEXT_CALL, "rain town:Ulm"),
        (QUOTES, CALL, 'rain {"town": "Ulm"}'),
    ],
)
def test_arguments_as_the_row_has_them_or_as_the_template_wants_them(source, call, written):
    talk = (ASK, turn("", tool_calls=(call,), bare=True), Message("tool", "3"), turn("3 mm."))
    assert learned(with_source(source), Chat(talk)) == [f"{written}<|im_end|>3 mm.<|im_end|>"]


def test_arguments_that_are_quoted_once_more_are_as_in_transformers_and_said():
    template, talk = with_source(QUOTES), (ASK, turn("", tool_calls=(TEXT_CALL,)))
    expected = template.tokenizer.fast.apply_chat_template([m.as_dict() for m in talk], tokenize=False)
    assert template.render(talk, prompt=False) == expected
    said = encode([Chat(talk)], template, template.tokenizer, LONG).unwritten
    assert said == {"quotes arguments of tool calls that are JSON text once more: write them as objects": 1}


def test_a_template_that_needs_a_content_gets_an_empty_one():
    """Qwen3 fails where a call has no content at all; others leave the call out."""
    needs = with_source(
        each("{{ m.content.strip() }}{% for c in m.tool_calls or [] %}[{{ c.function.name }}]{% endfor %}")
    )
    talk = (ASK, turn("", tool_calls=(CALL,), bare=True))
    assert learned(needs, Chat(talk)) == ["[rain]<|im_end|>"]
    calls = "{% for c in m.tool_calls or [] %}[{{ c.function.name }}]{% endfor %}"
    drops = with_source(each("{% if 'content' in m %}{{ m.content }}" + calls + "{% endif %}"))
    assert learned(drops, Chat(talk)) == ["[rain]<|im_end|>"]


def test_a_call_that_the_template_leaves_out_is_refused():
    template = with_source(each("{{ m.content }}{% if m.tool_calls and m.content == '' %}call{% endif %}"))
    with pytest.raises(InputError, match=sentence("tool call left out", turn="turn 2")):
        learned(template, Chat((ASK, turn("", tool_calls=(CALL,)))))


def test_a_loop_may_set_a_variable_and_replace():
    """Nemotron Nano v2, Falcon: Jinja hands variables of the loop to every call in it."""
    source = each("{% set text = m.content %}{{ text.replace('Prime', 'Even') }}")
    assert "Even?" in with_source(source).render([ASK], prompt=True)


TOOLED = "{% if tools %}<|im_start|>system\nTOOLS {{ tools | tojson }}<|im_end|>\n{% endif %}" + QUOTES
BESIDE = {"tools": (TOOL,), "template_kwargs": {"mode": "short"}}


@pytest.mark.parametrize(
    "example",
    [
        Chat((ASK, NO), **BESIDE),
        Prompt((ASK,), "No.", **BESIDE),
        Preference((ASK,), (NO,), (turn("Yes."),), **BESIDE),
        Ranking((ASK,), ((NO,), (turn("Yes."),)), (1, 2), **BESIDE),
        Labelled((ASK,), (NO,), True, **BESIDE),
    ],
)
def test_tools_and_values_stand_in_the_prompt_of_every_kind_of_row(example):
    """TRL reads both in all of them; a rollout's prompts are encoded here too."""
    template = with_source("{{ mode }}" + TOOLED)
    expected = template.tokenizer.fast.apply_chat_template(
        [ASK.as_dict()], tools=[TOOL], mode="short", tokenize=False, add_generation_prompt=True
    )
    assert text_of(template, example)[0].startswith(expected) and expected.startswith("short")
    ids = encode_prompt_ids([ASK], [TOOL], template, template.tokenizer, kwargs={"mode": "short"})
    assert template.tokenizer.decode(ids, special=True) == expected


# ----------------------------------------------------------------------------------------- values and names

SWITCH = each("{{ m.content }}").replace(
    GENERATE,
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)


def test_a_value_of_the_run_holds_unless_a_row_brings_its_own():
    template = load_template("auto", with_source(SWITCH).tokenizer, {"enable_thinking": False})
    assert text_of(template, Prompt((ASK,)))[0].endswith("<think>\n\n</think>\n\n")
    assert text_of(template, Prompt((ASK,), template_kwargs={"enable_thinking": True}))[0].endswith("assistant\n")
    assert template.fingerprint != with_source(SWITCH).fingerprint


def test_a_value_that_nothing_reads_is_refused_or_said():
    with pytest.raises(
        InputError,
        match=sentence("template does not read", value="enable_thinkng", fix="did you mean 'enable_thinking'?"),
    ):
        load_template("auto", with_source(SWITCH).tokenizer, {"enable_thinkng": False})
    with pytest.raises(InputError, match=sentence("template value given by luthier", value="messages")):
        load_template("auto", with_source(SWITCH).tokenizer, {"messages": []})
    with pytest.raises(InputError, match=sentence("template does not read", name="alpaca")):
        load_template("alpaca", with_source(SWITCH).tokenizer, {"enable_thinking": False})
    row, template = Chat((ASK, NO), template_kwargs={"mode": 1}), with_source(CHATML)
    said = encode([row, row], template, template.tokenizer, LONG).unwritten
    assert said == {"does not read chat_template_kwargs.mode": 2}


def test_the_exported_template_has_the_values_as_defaults():
    values = {"enable_thinking": False}
    template = load_template("auto", with_source(SWITCH).tokenizer, values)
    made = copy.deepcopy(template.tokenizer.fast)
    made.chat_template = template.as_jinja()
    ask = [ASK.as_dict()]
    for given in ({}, {"enable_thinking": True}):
        text = made.apply_chat_template(ask, tokenize=False, add_generation_prompt=True, **given)
        assert text == template.render([ASK], kwargs=given, prompt=True)
    nested = load_template(
        "auto", with_source("{{ a | tojson }}{{ b }}").tokenizer, {"a": {"x": [None, True, "é'\""]}, "b": 1}
    )
    made.chat_template = nested.as_jinja()
    assert made.apply_chat_template(ask, tokenize=False) == nested.render([ASK], prompt=False)


def named(**templates):
    bos, eos, adds = TOKENS["chatml"]
    return Tokenizer(fast(byte_level(), bos=bos, eos=eos, adds_bos=adds, template=templates))


def test_of_named_templates_the_one_for_tools_is_taken_where_there_are_tools():
    """Command-R, Hermes: `default` and `tool_use`, as transformers chooses."""
    tokenizer = named(default=CHATML, tool_use=TOOLED, rag="{{ documents | tojson }}" + CHATML)
    template, ask = load_template("auto", tokenizer), [ASK.as_dict()]
    made = copy.deepcopy(tokenizer.fast)
    made.chat_template = template.as_jinja()
    for tools in ([TOOL], None):
        expected = tokenizer.fast.apply_chat_template(ask, tools=tools, tokenize=False, add_generation_prompt=True)
        assert template.render([ASK], tools or (), prompt=True) == expected
        assert made.apply_chat_template(ask, tools=tools, tokenize=False, add_generation_prompt=True) == expected
    documents = [{"title": "t", "text": "x"}]
    rag = load_template("rag", tokenizer)
    assert rag.render([ASK], kwargs={"documents": documents}, prompt=False) == tokenizer.fast.apply_chat_template(
        ask, chat_template="rag", documents=documents, tokenize=False
    )


def test_named_templates_without_a_default_are_asked_about():
    with pytest.raises(InputError, match=sentence("no default template", there="tool_use")):
        load_template("auto", named(tool_use=TOOLED))


def test_additional_templates_in_a_folder(tmp_path):
    from luthier.model.folder.tokenizer import load_tokenizer

    named(default=CHATML, tool_use=TOOLED).fast.save_pretrained(tmp_path)
    assert (tmp_path / "additional_chat_templates" / "tool_use.jinja").is_file()
    template = load_template("auto", Tokenizer(load_tokenizer(tmp_path)))
    assert "TOOLS" in template.render([ASK], [TOOL], prompt=True) and "TOOLS" not in template.render([ASK], prompt=True)


# -------------------------------------------------------------------------------------------------- begun

BEGUN = as_context((ASK, turn("<think>\n")))
FULL, WRONG = turn("7 * 13.\n</think>\nNo."), turn("2.\n</think>\nYes.")
OPEN = "<|im_start|>user\nPrime?<|im_end|>\n<|im_start|>assistant\n<think>\n"


def test_a_begun_answer_is_gone_on_with_in_every_kind_of_row():
    """TRL's continue_final_message: no end of turn, no second header."""
    template = with_source(CHATML)
    right, wrong = ("7 * 13.\n</think>\nNo.<|im_end|>", "2.\n</think>\nYes.<|im_end|>")
    assert text_of(template, Prompt(BEGUN)) == [OPEN]
    assert text_of(template, Preference(BEGUN, (FULL,), (WRONG,))) == [OPEN, f"{right}\n", f"{wrong}\n"]
    assert text_of(template, Ranking(BEGUN, ((FULL,), (WRONG,)), (1, 2))) == [OPEN, f"{right}\n", f"{wrong}\n"]
    assert text_of(template, Labelled(BEGUN, (FULL,), True)) == [OPEN, f"{right}\n"]
    assert text_of(template, Chat((*BEGUN, FULL))) == [f"{OPEN}{right}\n"]
    assert learned(template, Chat((*BEGUN, FULL))) == [right]
    ids = encode_prompt_ids(BEGUN, (), template, template.tokenizer)
    assert template.tokenizer.decode(ids, special=True) == OPEN


def test_a_template_that_trims_takes_the_space_from_the_beginning():
    template = with_source(each("{{ m.content | trim }}"))
    begun = as_context((ASK, turn("The answer is ")))
    assert text_of(template, Prompt(begun))[0].endswith("The answer is")
    assert learned(template, Chat((*begun, turn("no.")))) == [" no.<|im_end|>"]


@pytest.mark.parametrize("name", ["alpaca", "plain"])
def test_built_in_templates_go_on_too(name):
    template = load_template(name, with_source(CHATML).tokenizer)
    whole = template.render((ASK, turn("<think>\n7 * 13.\n</think>\nNo.")), prompt=False)
    (text,) = text_of(template, Chat((*BEGUN, FULL)))
    assert text == whole and learned(template, Chat((*BEGUN, FULL))) == ["7 * 13.\n</think>\nNo.<|im_end|>"]


def test_a_beginning_that_the_template_rewrites_is_refused():
    begun = as_context((ASK, turn("<think>\nhm\n</think>\n")))
    with pytest.raises(InputError, match=sentence("beginning not written")):
        text_of(with_source(CUTS), Prompt(begun))


# ------------------------------------------------------------------------------------- places, what is left out


def test_an_answer_to_nothing_is_learned_where_the_template_can_ask_for_it():
    greeting = (turn("Welcome."), ASK, NO)
    assert learned(with_source(CHATML), Chat(greeting)) == ["Welcome.<|im_end|>No.<|im_end|>"]
    first = with_source("{% if messages[0].role == 'system' %}{% endif %}" + CHATML)
    with pytest.raises(InputError, match=sentence("begins with an answer", turn="turn 1")):
        learned(first, Chat(greeting))
    unlearned = (turn("Welcome.", train=False), ASK, NO)
    assert learned(first, Chat(unlearned)) == ["No.<|im_end|>"]


def test_what_the_template_leaves_out_is_counted():
    """Gemma 2 and others write no system message here; a key that nothing reads is named."""
    silent = with_source("{% for m in messages if m.role != 'system' %}" + CHATML.split("%}", 1)[1])
    talk = (Message("system", "Be brief."), ASK, turn("No.", fields={"citations": [1], "tool_call_id": "x"}))
    encoded = encode([Chat(talk), Chat(talk[1:2] + (NO,))], silent, silent.tokenizer, LONG)
    assert encoded.unwritten == {"leaves out what the system says": 1, "does not read messages.citations": 1}
    read = with_source(each("{{ m.content }}{{ m.citations }}"))
    assert not encode([Chat(talk)], read, read.tokenizer, LONG).unwritten


def test_a_row_learned_by_its_last_turn_keeps_its_thought():
    template = with_source(each("{{ m.content if loop.last else m.content.split('</think>')[-1] }}"))
    talk = (ASK, turn("<think>\na\n</think>\nYes."), ASK, turn("<think>\nb\n</think>\nNo."))
    with pytest.raises(InputError, match=sentence("turn written differently")):
        spans(talk, (), template)
    assert [s.text for s in spans(talk, (), template, "last") if s.trained] == ["<think>\nb\n</think>\nNo.<|im_end|>"]


BLOCKS = (
    "{% for m in messages %}" + HEAD + "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% if part.cited %}[{{ part.cited }}]{% endif %}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}" + GENERATE
)  # fmt: skip


def test_a_template_that_reads_blocks_alone_gets_them():
    """As those of SmolVLM and Idefics: a string they would read letter by letter, and write nothing."""
    (ask,) = messages_of(
        [{"role": "user", "content": [{"type": "text", "text": "Prime", "cited": "Euclid"}, "?"]}], "f", "user"
    )
    template = with_source(BLOCKS)
    assert text_of(template, Chat((ask, NO))) == [
        "<|im_start|>user\nPrime[Euclid]?<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n"
    ]
    assert learned(template, Chat((ASK, NO))) == ["No.<|im_end|>"]
    assert learned(template, Preference(prompt=(ASK,), chosen=(NO,), rejected=(turn("Yes."),)))[1:] == [
        "No.<|im_end|>",
        "Yes.<|im_end|>",
    ]


def test_a_template_that_reads_either_gets_the_text():
    """What it makes of texts is what was learned from before: transformers gives it those too."""
    either = "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}{{ part.type }}{% endfor %}{% endif %}"
    (ask,) = messages_of([{"role": "user", "content": [{"type": "text", "text": "Prime?"}]}], "f", "user")
    assert text_of(with_source(each(either)), Chat((ask, NO))) == [
        "<|im_start|>user\nPrime?<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n"
    ]
