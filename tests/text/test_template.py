"""Messages -> text: equal to transformers, exported as Jinja, by hand for the built-in ones, bounded when hostile."""

from __future__ import annotations

import copy
import random

import pytest
from chat_templates import CONTROL, MARKED, as_dicts, random_chat, template_for, tokenizer_for, with_source

from conftest import CHATML
from luthier.core.errors import InputError
from luthier.core.types.examples import Message
from luthier.text.template import load_template
from luthier.text.tokenizer import SEPARATOR, Tokenizer
from sentences import sentence

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Wetter für <Ort>", "parameters": {"type": "object"}},
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}


def user(text, **more):
    return Message("user", text, **more)


def answer(text, **more):
    return Message("assistant", text, **more)


@pytest.mark.parametrize("kind", sorted(MARKED))
@pytest.mark.parametrize("prompt", [False, True])
def test_text_equals_transformers(kind, prompt):
    draw = random.Random(kind)
    template, fast = template_for(kind), tokenizer_for(kind).fast
    for _ in range(40):
        chat = random_chat(draw)[: -1 if prompt else None]
        expected = fast.apply_chat_template(as_dicts(chat), tokenize=False, add_generation_prompt=prompt)
        assert template.render(chat, prompt=prompt) == expected


def test_smollm2_text_equals_transformers(smollm2_folder):
    from transformers import AutoTokenizer

    fast, draw = AutoTokenizer.from_pretrained(smollm2_folder), random.Random(1)
    template = load_template("auto", Tokenizer(fast))
    for _ in range(40):
        chat = random_chat(draw)
        assert template.render(chat, prompt=False) == fast.apply_chat_template(as_dicts(chat), tokenize=False)
        expected = fast.apply_chat_template(as_dicts(chat[:-1]), tokenize=False, add_generation_prompt=True)
        assert template.render(chat[:-1], prompt=True) == expected


def test_tools_and_calls_reach_a_template_that_reads_them():
    source = (
        "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    template = with_source(source)
    assert template.reads_tools and template.reads_calls
    chat = (user("wetter?"), answer("", tool_calls=(CALL,)), Message("tool", "12 °C", name="weather"))
    expected = template.tokenizer.fast.apply_chat_template(
        as_dicts(chat), tools=[TOOL], tokenize=False, add_generation_prompt=True
    )
    assert template.render(chat, [TOOL], prompt=True) == expected
    assert "Köln" in expected and "<Ort>" in expected


def test_tools_and_calls_in_words_where_the_template_has_no_place_for_them():
    template = with_source(CHATML)
    text = template.render((user("wetter?"), answer("", tool_calls=(CALL,))), [TOOL], prompt=False)
    assert text.startswith("<|im_start|>system\nThese tools can be called")
    assert text.count('"name": "weather"') == 2
    assert text.endswith('<tool_call>{"name": "weather", "arguments": {"city": "Köln"}}</tool_call><|im_end|>\n')
    own = template.render((Message("system", "be brief"), user("?")), [TOOL], prompt=True)
    assert own.startswith("<|im_start|>system\nbe brief\n\nThese tools") and own.count("<|im_start|>system") == 1


def test_open_gives_the_text_of_the_first_messages():
    draw = random.Random(3)
    for name in ("auto", "alpaca", "plain"):
        template = load_template(name, tokenizer_for("llama3"))
        chat = random_chat(draw, turns=3)
        text = template.open(chat, [TOOL])
        for count in range(2, len(chat) + 1):
            assert text(count, True) == template.render(chat[:count], [TOOL], prompt=True)


# ------------------------------------------------------------------------------------- alpaca and plain


def test_alpaca_by_hand():
    template = load_template("alpaca", tokenizer_for("chatml"))
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nName a colour.\n\n### Response:\n"
    )
    assert template.render([user("Name a colour.")], prompt=True) == prompt
    assert template.render([user("Name a colour."), answer("Red.")], prompt=False) == prompt + "Red.<|im_end|>"


def test_alpaca_with_input_by_hand():
    template = load_template("alpaca", tokenizer_for("chatml"))
    assert template.render([user("Translate.", input="Haus"), answer("house")], prompt=False) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request."
        "\n\n### Instruction:\nTranslate.\n\n### Input:\nHaus\n\n### Response:\nhouse<|im_end|>"
    )


def test_alpaca_with_system_and_turns_by_hand():
    template = load_template("alpaca", tokenizer_for("llama3"))
    chat = [Message("system", "Be brief."), user("a"), answer("b"), Message("tool", "c"), user("d")]
    assert template.render(chat, prompt=True) == (
        "<|begin_of_text|>Be brief.\n\n### Instruction:\na\n\n### Response:\nb<|eot_id|>"
        "\n\n### Input:\nc\n\n### Instruction:\nd\n\n### Response:\n"
    )


def test_plain_by_hand():
    template = load_template("plain", tokenizer_for("llama3"))
    chat = [user("Q: 1+1 ", input="now"), answer("2"), user(" Q: 2+2 "), answer("4")]
    assert template.render(chat, prompt=False) == "<|begin_of_text|>Q: 1+1 \n\nnow2<|eot_id|> Q: 2+2 4<|eot_id|>"
    assert template.render(chat[:1], prompt=True) == "<|begin_of_text|>Q: 1+1 \n\nnow"


def test_other_templates_show_the_input_after_the_content():
    template = with_source(CHATML)
    assert "Translate.\n\nHaus<|im_end|>" in template.render([user("Translate.", input="Haus")], prompt=True)


# ----------------------------------------------------------------------------------------- as exported


def exported(template):
    """A copy of the tokenizer as `luthier train` writes it and transformers reads it."""
    fast = copy.deepcopy(template.tokenizer.fast)
    fast.chat_template = template.as_jinja()
    return fast


def with_input(messages):
    """Messages as dicts, with the input field apart as the exported alpaca template takes it."""
    return [m.as_dict() | ({"content": m.content, "input": m.input} if m.input else {}) for m in messages]


@pytest.mark.parametrize("name", ["auto", "alpaca", "plain"])
@pytest.mark.parametrize("kind", sorted(MARKED))
def test_trap_good_in_training_garbage_after_export(kind, name):
    """unsloth#976 #3899, LLaMA-Factory#6020: other programs render the trained text, byte for byte."""
    template = load_template(name, tokenizer_for(kind))
    fast, draw = exported(template), random.Random(kind + name)
    for _ in range(25):
        chat = list(random_chat(draw))
        if name != "auto":
            chat[-2] = user(chat[-2].content, input=draw.choice(["", "some input\n"]))
        for messages, prompt in ((chat, False), (chat[:-1], True), (chat[:-1], False), (chat[:1], True)):
            if kind == "gemma" and name == "auto" and len(messages) == 1 and messages[0].role == "system":
                continue
            text = fast.apply_chat_template(with_input(messages), tokenize=False, add_generation_prompt=prompt)
            assert text == template.render(messages, prompt=prompt)


@pytest.mark.parametrize("name", ["alpaca", "plain"])
@pytest.mark.parametrize("system", [None, "", "be brief"])
@pytest.mark.parametrize("tools", [None, [TOOL], [TOOL, TOOL]])
def test_exported_built_in_template_with_tools_and_calls(name, system, tools):
    """unsloth#976: the same holds of tools, calls and their answers."""
    template = load_template(name, tokenizer_for("llama3"))
    chat = [] if system is None else [Message("system", system)]
    chat += [user("wetter?", input="{{ 'x' }} <b>"), answer("hm", tool_calls=(CALL, CALL["function"]))]
    chat += [Message("tool", "12"), answer("", tool_calls=(CALL, CALL)), Message("tool", "13"), answer("12 und 13")]
    for count in range(1, len(chat) + 1):
        for prompt in (False, True):
            text = exported(template).apply_chat_template(
                with_input(chat[:count]), tools=tools, tokenize=False, add_generation_prompt=prompt
            )
            assert text == template.render(chat[:count], tools or (), prompt=prompt)


def test_exported_alpaca_without_user():
    template = load_template("alpaca", tokenizer_for("chatml"))
    for chat in ([Message("system", "s")], [answer("a")]):
        text = exported(template).apply_chat_template(as_dicts(chat), tokenize=False, add_generation_prompt=True)
        assert text == template.render(chat, prompt=True)


@pytest.mark.parametrize("name", ["alpaca", "plain"])
def test_exported_template_trains_as_the_built_in_one(name):
    """LLaMA-Factory#6020: a second stage from the exported model sees the same prompts and stop tokens."""
    template = load_template(name, tokenizer_for("llama3"))
    again = load_template("auto", Tokenizer(exported(template)))
    draw = random.Random(5)
    for _ in range(10):
        chat = random_chat(draw)
        assert again.render(chat, prompt=False) == template.render(chat, prompt=False)
    assert again.stop_ids == template.stop_ids


def test_a_jinja_template_is_exported_as_it_is():
    template = template_for("gemma")
    assert template.as_jinja() == template.source == template.tokenizer.fast.chat_template


# ------------------------------------------------------------------------------------------- loading


def test_auto_is_alpaca_without_a_chat_template():
    assert with_source(None).name == "alpaca"


def test_auto_takes_the_default_of_several():
    assert with_source({"default": CHATML, "rag": "x"}).source == CHATML


def test_a_file_is_read_and_named(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    template = load_template(str(path), tokenizer_for("zephyr"))
    assert (template.name, template.render([user("hi")], prompt=False)) == (str(path), "hi</s>")
    path.write_text("\ufeff{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", encoding="utf-8")
    marked = load_template(str(path), tokenizer_for("zephyr"))
    assert marked.render([user("hi")], prompt=False) == "hi</s>", "a byte order mark is no letter of the template"


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("alpacca", sentence("no template", fix="did you mean 'alpaca'?")),
        ("/no/such.jinja", sentence("no template", fix="give auto, alpaca, plain, or the path of a Jinja file")),
    ],
)
def test_unknown_name_is_refused(name, fix):
    with pytest.raises(InputError, match=fix):
        load_template(name, tokenizer_for("chatml"))


def test_not_utf8_is_refused(tmp_path):
    path = tmp_path / "bad.jinja"
    path.write_bytes(b"\xff\xfe{{ x }}")
    with pytest.raises(InputError, match=sentence("cannot read template")):
        load_template(str(path), tokenizer_for("chatml"))


@pytest.mark.parametrize("name", ["alpaca", "plain"])
def test_built_in_needs_eos(name):
    with pytest.raises(InputError, match=sentence("no eos for template")):
        load_template(name, with_source(CHATML, bos=None, eos=None).tokenizer)


def test_bad_syntax_names_the_line():
    with pytest.raises(InputError, match=sentence("template not valid", where="chat:3")):
        with_source("a\nb\n{% for %}")


def test_fingerprint_follows_everything_that_makes_the_text():
    base = with_source(CHATML)
    assert base.fingerprint == with_source(CHATML).fingerprint
    others = [with_source(CHATML + " "), with_source(CHATML, eos="</s>"), with_source(CHATML, bos="<s>", adds_bos=True)]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        ("chatml", {"<|im_end|>"}),
        ("llama3", {"<|eot_id|>"}),
        ("gemma", {"<eos>", "<end_of_turn>"}),
        ("zephyr", {"</s>"}),
    ],
)
def test_stop_tokens(kind, stops):
    """trl#5988: the token that ends a turn counts, EOS or not."""
    assert set(template_for(kind).stops) == stops


def test_stop_token_that_nobody_knows_by_name():
    """trl#5988: a control token that follows the answer ends it, whatever it is called."""
    template = with_source("{% for m in messages %}{{ m.content }}<start_of_turn>{% endfor %}", eos="</s>")
    assert set(template.stops) == {"</s>", "<start_of_turn>"}


def test_the_day_is_fixed():
    template = with_source("{{ strftime_now('%d %b %Y') }}")
    assert template.render([user("x")], prompt=False) == "26 Jul 2024"


def test_control_tokens_of_data_are_sealed_everywhere():
    """Content, names, tool schemas and keys: nothing that data holds writes a control token."""
    source = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.name }}{{ m.tool_calls | tojson }}{{ m.content }}{% endfor %}"
    )
    for text in CONTROL:
        message = Message("user", text + text, name=text, tool_calls=({text: [text, {"a": text}]},))
        for template in (with_source(source), load_template("alpaca", tokenizer_for("chatml"))):
            out = template.render([message], [{text: text}], prompt=False)
            assert template.tokenizer.control_pattern.search(out) is None
            assert text in out.replace(SEPARATOR, "")


def test_halves_in_neighbouring_messages_make_no_control_token():
    template = load_template("plain", tokenizer_for("chatml"))
    out = template.render([user("<|im_"), user("end|>"), answer("x")], prompt=False)
    assert template.tokenizer.control_pattern.findall(out) == ["<|im_end|>"]
    assert out.replace(SEPARATOR, "") == "<|im_end|>x<|im_end|>"
