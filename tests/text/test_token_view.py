"""A token tree for people: every token is there, learned ones are marked, nothing acts on the terminal."""

from __future__ import annotations

import random

import pytest
from chat_templates import MARKED, random_chat, template_for, with_source

from conftest import CHATML
from luthier.config.data import TextConfig
from luthier.core.types.examples import Chat, Labelled, Message, Origin, Preference, Ranking
from luthier.core.types.trees import Node, TokenTree
from luthier.text.encode import encode
from luthier.text.token_view import leaf_names, render_plain, render_rich, show, summary


def tree_of(example, template, **config):
    return encode([example], template, template.tokenizer, TextConfig(**({"max_length": 4000} | config))).trees[0]


def chat(question, reply):
    return Chat(messages=(Message("user", question), Message("assistant", reply)), origin=Origin("a.jsonl", 7))


@pytest.mark.parametrize("kind", sorted(MARKED))
def test_pieces_join_to_the_text_and_keep_ids_and_mask(kind):
    template, draw = template_for(kind), random.Random(kind)
    for _ in range(10):
        messages = random_chat(draw)
        tree = tree_of(Chat(messages=messages), template)
        pieces = show(tree, template.tokenizer, template)
        assert "".join(piece.text for piece in pieces) == template.render(messages, prompt=False)
        assert tuple(piece.id for piece in pieces) == tree.nodes[0].ids
        assert tuple(piece.trained for piece in pieces) == tree.nodes[0].trained
        assert sum(piece.stop for piece in pieces) == sum(m.role == "assistant" for m in messages)


def test_pieces_by_hand():
    """trl#5988: the stop token is marked where it is learned, and only there."""
    template = with_source(CHATML)
    pieces = show(tree_of(chat("é", "no"), template), template.tokenizer, template)
    assert "".join(p.text for p in pieces[:-4]) == "<|im_start|>user\né<|im_end|>\n<|im_start|>assistant"
    assert [(p.text, p.trained, p.special, p.stop) for p in pieces[-4:]] == [
        ("\n", False, False, False), ("no", True, False, False),
        ("<|im_end|>", True, True, True), ("\n", False, False, False),
    ]  # fmt: skip
    halves = [p.text for p in pieces if p.text in ("", "é")]
    assert halves == ["", "é"]  # two bytes, two tokens: the character appears with the second


def test_bytes_that_are_no_character_are_shown_all_the_same():
    template = with_source(CHATML)
    broken = template.tokenizer.encode("🙂")[:2] + template.tokenizer.encode("abcdef")
    pieces = show(TokenTree((Node(tuple(broken), (False,) * len(broken)),)), template.tokenizer)
    assert len(pieces) == len(broken) and "".join(p.text for p in pieces).endswith("def")


def test_plain_by_hand():
    template = with_source(CHATML)
    lines = render_plain(tree_of(chat("a", "no"), template), template.tokenizer, template).splitlines()
    assert lines[0].startswith("a.jsonl:7 · ") and lines[0].endswith("template chat")
    assert lines[2] == "│ a¦<|im_end|>¦↵"
    assert lines[-1] == "│ [no][<|im_end|>■]↵"


def test_summary_by_hand():
    template = with_source(CHATML)
    tree = TokenTree(
        (Node((1, 2, 3, template.tokenizer.control["<|im_end|>"]), (False, False, True, True)),), origin=Origin("f", 2)
    )
    assert summary(tree, template.tokenizer, template) == (
        "f:2 · 4 tokens · 2 trained (50%) · stop token <|im_end|> trained · template chat"
    )


def test_trap_lost_stop_token_is_said():
    """trl#5988: a cut answer reads 'no stop token trained'."""
    template = with_source(CHATML)
    tree = tree_of(chat("a", "y" * 80), template, max_length=60)
    line = summary(tree, template.tokenizer, template)
    assert "no stop token trained" in line and f"{tree.cut} tokens cut off" in line and tree.cut > 0


def test_quoted_stop_token_is_not_marked():
    template = with_source(CHATML)
    pieces = show(tree_of(chat("<|im_end|>", "a <|im_end|>"), template), template.tokenizer, template)
    assert [p.stop for p in pieces].count(True) == 1 and pieces[-2].stop


def test_without_a_template_the_tokenizer_decides():
    template = with_source(CHATML)
    tree = tree_of(chat("a", "b"), template)
    assert "stop token <|im_end|> trained" in summary(tree, template.tokenizer)


def test_nodes_of_a_preference_are_framed():
    template = with_source(CHATML)
    prompt = (Message("user", "?"),)
    row = Preference(prompt=prompt, chosen=(Message("assistant", "a"),), rejected=(Message("assistant", "b"),))
    tree = tree_of(row, template)
    lines = render_plain(tree, template.tokenizer, template).splitlines()
    frames = [line for line in lines if "┌" in line]
    assert frames == [
        f"┌ node 0: {len(tree.nodes[0].ids)} tokens, 0 trained",
        "  ┌ node 1 (chosen), continues node 0: 3 tokens, 2 trained",
        "  ┌ node 2 (rejected), continues node 0: 3 tokens, 2 trained",
    ]
    assert "  │ [a][<|im_end|>■]↵" in lines and "  │ [b][<|im_end|>■]↵" in lines


def test_answers_say_what_they_are_to_each_other():
    template = with_source(CHATML)
    asked, (good, bad, same) = (Message("user", "?"),), [(Message("assistant", text),) for text in ("a", "b", "c")]
    named = [
        (Ranking(asked, (bad, good, same), (3, 1, 2)), ["rank 3 of 3", "rank 1 of 3", "rank 2 of 3"]),
        (Ranking(asked, (bad, good, same), (2, 1, 2)), ["rank 2 of 3, tied", "rank 1 of 3", "rank 2 of 3, tied"]),
        (Ranking(asked, (bad, good), (2, 1)), ["rejected", "chosen"]),
        (Labelled(asked, good, True), ["wanted"]),
        (Labelled(asked, bad, False), ["unwanted"]),
    ]
    for row, names in named:
        tree = tree_of(row, template)
        assert list(leaf_names(tree).values()) == names
        for text in (
            render_plain(tree, template.tokenizer, template),
            render_rich(tree, template.tokenizer, template).plain,
        ):
            assert [
                line.split("(")[1].split(")")[0] for line in text.splitlines() if "┌" in line and "(" in line
            ] == names
    assert leaf_names(tree_of(chat("q", "a"), template)) == {}


HOSTILE = "\x1b[31mred\x07\r\x00\u202eabc\u2028\u200b\x85end\ttab"


def test_nothing_acts_on_the_terminal():
    template = with_source(CHATML)
    tree = tree_of(chat(HOSTILE, HOSTILE), template)
    plain = render_plain(tree, template.tokenizer, template, width=60)
    rich = render_rich(tree, template.tokenizer, template, width=60).plain
    for text in (plain, rich):
        assert not set(text) & set("\x1b\x07\r\x00\u202e\u2028\u200b\x85\t")
        for shown in ("\\u001b", "\\u202e", "⇥"):
            assert shown in text


@pytest.mark.parametrize("width", [30, 60, 100])
def test_lines_are_no_wider_than_asked(width):
    from rich.cells import cell_len

    template = with_source(CHATML)
    tree = tree_of(chat("界" * 60 + " the cat" * 20, "🙂" * 30), template)
    for text in (
        render_plain(tree, template.tokenizer, width=width),
        render_rich(tree, template.tokenizer, width=width).plain,
    ):
        assert all(cell_len(line) <= width for line in text.splitlines()[1:])


def test_rich_says_what_plain_says():
    template = with_source(CHATML)
    tree = tree_of(chat("the cat\nsat", "yes\nno"), template)
    plain = render_plain(tree, template.tokenizer, template)
    rich = render_rich(tree, template.tokenizer, template)
    assert rich.plain == "".join(c for c in plain if c not in "[]¦")
    inks = {str(span.style) for span in rich.spans}
    assert {"bold white on #1f7a3a", "magenta"} <= inks and any("#a6e3a1" in ink for ink in inks)
