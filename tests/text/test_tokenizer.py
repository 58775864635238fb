"""Text <-> ids: control tokens sealed, continuations as in the whole text, nothing added, cut or padded."""

from __future__ import annotations

import random

import pytest
from chat_templates import CONTROL, byte_level, fast, metaspace, random_text, tokenizer_for
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import CHATML
from luthier.core.errors import InputError
from luthier.text.tokenizer import SEPARATOR, Tokenizer
from sentences import sentence

BYTES = tokenizer_for("chatml")
SPACED = tokenizer_for("zephyr")
PARTS = ["<|im_end|>", "<|im_", "end|>", "<s>", "</s>", "<", "s>", "cat", " ", "\n", "é", "🙂", SEPARATOR]


@given(st.lists(st.sampled_from(PARTS)).map("".join))
@settings(max_examples=200, deadline=None)
def test_sealed_text_holds_no_control_token_and_loses_nothing(text):
    sealed = BYTES.seal(text)
    assert BYTES.control_pattern.search(sealed) is None
    assert sealed.replace(SEPARATOR, "") == text.replace(SEPARATOR, "")
    ids = BYTES.encode(text)
    assert not set(ids) & set(BYTES.control.values())
    assert BYTES.decode(ids, special=True) == text.replace(SEPARATOR, "")


def test_overlapping_control_tokens_are_all_split():
    from tokenizers import AddedToken

    backend = byte_level()
    backend.add_special_tokens([AddedToken(text, special=True) for text in ("<a<b>", "<b>", "b><c>")])
    tokenizer = Tokenizer(fast(backend, bos=None, eos="</s>"))
    for text in ("<a<b>", "<a<b><c>", "<b><c>", "<a<a<b>"):
        assert tokenizer.control_pattern.search(tokenizer.seal(text)) is None
        assert not set(tokenizer.encode(text)) & set(tokenizer.control.values())


def test_control_tokens_are_read_only_on_request():
    end = BYTES.control["<|im_end|>"]
    assert BYTES.encode("a<|im_end|>", special=True) == [*BYTES.encode("a"), end]
    assert end not in BYTES.encode("a<|im_end|>")
    assert BYTES.decode(BYTES.encode("a<|im_end|>", special=True)) == "a"


def test_seal_value_reaches_keys_and_lists():
    value = {"<s>": ["<s>", ("</s>", 1, None, True, 0.5)], "a": {"b": "<|im_end|>"}}
    sealed = BYTES.seal_value(value)
    split = {text: text[0] + SEPARATOR + text[1:] for text in ("<s>", "</s>", "<|im_end|>")}
    assert sealed == {
        split["<s>"]: [split["<s>"], [split["</s>"], 1, None, True, 0.5]], "a": {"b": split["<|im_end|>"]},
    }  # fmt: skip


def test_which_tokens_are_control():
    """Tokens such as <think> are vocabulary, an end of turn is control although nobody marked it special."""
    from tokenizers import AddedToken

    backend = byte_level()
    backend.add_tokens([AddedToken(text, special=False) for text in ("<think>", "<|end|>", "♥")])
    tokenizer = Tokenizer(fast(backend, bos="<s>", eos="</s>"))
    assert "<|end|>" in tokenizer.control and "<think>" not in tokenizer.control and "♥" not in tokenizer.control
    assert set(CONTROL) <= set(tokenizer.control)
    assert tokenizer.encode("<think>") == [tokenizer.fast.convert_tokens_to_ids("<think>")]


def test_no_control_tokens_at_all():
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=byte_level()))
    assert tokenizer.control == {} and tokenizer.seal("<s>") == "<s>"
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.opening, tokenizer.stop_ids) == (None, None, "", frozenset())


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_pieces_of_a_chat_give_the_ids_of_the_whole(scheme):
    """A piece that follows a newline or a control token gets no space in front that the whole has not."""
    tokenizer = Tokenizer(fast(metaspace(scheme), bos="<s>", eos="</s>"))
    draw = random.Random(scheme)
    for _ in range(50):
        texts = ["<|user|>\n" + random_text(draw), "</s>\n<|assistant|>\n", random_text(draw) + "</s>", "\n"]
        whole = tokenizer.encode("".join(texts), special=True)
        befores = ["", *texts]
        ids = tokenizer.encode_pieces(list(zip(befores, texts, strict=False)))
        assert [i for piece in ids for i in piece] == whole


@given(st.lists(st.sampled_from(["the cat", "\n", "</s>", " x", "é", "<s>"]), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_batches_equal_single_pieces(texts):
    for tokenizer in (BYTES, SPACED):
        pieces = list(zip(["", *texts], texts, strict=False))
        assert tokenizer.encode_pieces(pieces) == [tokenizer.encode_pieces([piece])[0] for piece in pieces]
        assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_a_border_in_the_text_separates_and_leaves_no_trace():
    assert BYTES.encode_pieces([("", f"ca{SEPARATOR}t")]) == [BYTES.encode("ca") + BYTES.encode("t")]
    assert BYTES.encode(SEPARATOR) == [] and BYTES.encode("") == []


def test_tokens_that_swallow_white_space():
    """A control token with lstrip or rstrip (Phi-3's) takes the space beside it, in pieces as in the whole."""
    from tokenizers import AddedToken

    backend = byte_level()
    backend.add_special_tokens([AddedToken("<|x|>", special=True, rstrip=True)])
    tokenizer = Tokenizer(fast(backend, bos=None, eos="</s>"))
    whole = tokenizer.encode("a<|x|>\n b", special=True)
    first, second = tokenizer.encode_pieces([("", "a<|x|>"), ("a<|x|>", "\n b")])
    assert first + second == whole


def test_truncation_and_padding_in_the_file_are_taken_off():
    """trl#6357: what the program that wrote tokenizer.json had set is not ours."""
    made = fast(byte_level(), bos=None, eos="</s>", pad="</s>")
    made.backend_tokenizer.enable_truncation(3)
    made.backend_tokenizer.enable_padding(length=9)
    tokenizer = Tokenizer(made)
    assert [len(ids) for ids in tokenizer.encode_batch(["abcdefgh", "xz"])] == [8, 2]


@pytest.mark.parametrize(("adds", "opening"), [(True, "<s>"), (False, "")])
def test_bos_is_only_where_the_model_expects_it(adds, opening):
    """OpenRLHF#393: `encode` itself never adds it."""
    tokenizer = Tokenizer(fast(byte_level(), bos="<s>", eos="</s>", adds_bos=adds))
    assert (tokenizer.adds_bos, tokenizer.opening) == (adds, opening)
    assert tokenizer.bos_id not in tokenizer.encode("a", special=True)


def test_stop_tokens_are_eos_and_those_the_template_writes():
    both = Tokenizer(fast(byte_level(), bos=None, eos="</s>", template=CHATML))
    assert both.stop_ids == {both.control["</s>"], both.control["<|im_end|>"]}
    bare = Tokenizer(fast(byte_level(), bos=None, eos="</s>"))
    assert bare.stop_ids == {bare.control["</s>"]}


def test_fingerprint_follows_what_makes_the_ids():
    def made(**changes):
        return Tokenizer(fast(byte_level(), **({"bos": "<s>", "eos": "</s>"} | changes))).fingerprint()

    assert made() == made(template=CHATML)
    assert len({made(), made(eos="<eos>"), made(adds_bos=True)}) == 3
    assert made() != Tokenizer(fast(byte_level(290), bos="<s>", eos="</s>")).fingerprint()


def test_slow_tokenizers_are_refused():
    with pytest.raises(InputError, match=sentence("no fast tokenizer")):
        Tokenizer(object())


def test_size_and_token():
    assert BYTES.size == len(BYTES.fast) > max(BYTES.control.values())
    assert BYTES.token(BYTES.encode(" no")[0]) == "Ġno"
