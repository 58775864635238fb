"""The stages of a run on a screen of 80 columns."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from luthier.core.types.examples import Chat, Message
from luthier.data.data_card import card
from luthier.evals.metrics.measure_answers import means, table
from luthier.report.screens import stages

RESULT = {"run": "runs/x", "seconds": 3661, "steps": 3, "loss": {"first": 3.0, "last": 2.0, "eval": 2.5}}


def shown(name, values):
    out = io.StringIO()
    stages.show(Console(file=out, width=80, color_system=None), name, values)
    return checked(out.getvalue())


def printed(*parts):
    out = io.StringIO()
    console = Console(file=out, width=80, color_system=None)
    for part in parts:
        console.print(part)
    return checked(out.getvalue())


def checked(text):
    assert "\x1b" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    return text


def after(**changes):
    values = {
        "rows": table({"exact": [0.0] * 9}, {"exact": [1.0] * 9}),
        "prompts": [f"prompt {i}" for i in range(9)],
        "references": ["r"] * 9,
        "before": ["b"] * 9,
        "after": ["a"] * 9,
        "forgetting": ["lost 0.20 nats/token [sic]"],
        "lost": [dict(table({"exact": [0.0] * 9}, {"exact": [1.0] * 9})[0], title="refusals")],
        "result": RESULT,
    }
    return values | changes


def test_what_is_about_to_happen():
    values = {"data": "3 rows", "model": "[red]m[/red]", "tune": "sft, lora", "run": "runs/" + "x" * 100}
    text = shown("ready", values)
    assert "[red]m[/red]" in text
    assert text.index("data") < text.index("model") < text.index("tune") < text.index("run  ")
    assert text.count("x") == 100


def test_before_says_the_loss_or_nothing():
    nothing = {"scores": [], "prompts": (), "references": (), "answers": ()}
    assert "held-out loss  3.1234 nats per token" in shown(
        "before", nothing | {"loss": 3.12341, "unit": "nats per token"}
    )
    assert shown("before", nothing | {"loss": 0.6931, "unit": ""}).strip().endswith("held-out loss  0.6931")
    assert shown("before", nothing | {"loss": None}) == ""


def test_before_shows_what_the_model_says_as_it_is():
    scores = means({"rouge_l": [0.1, 0.3], "one_line": [0.0, 1.0]})
    asked = {"prompts": ["p 1", "p 2", "p 3"], "references": ["r 1", "r 2", "r 3"], "answers": ["a 1", "a 2", "[a] 3"]}
    text = shown("before", {"loss": 2.5, "unit": "nats per token", "scores": scores, **asked})
    words = " ".join(text.split())
    assert (
        "held-out loss 2.5000 nats per token ROUGE-L 0.200 finished in one line, % 50.0 prompt p 1 reference r 1 answer a 1"
        in words
    )
    assert ("p 2" in text, "p 3" in text) == (True, False)


def test_after_shows_everything_in_order():
    text = shown("after", after())
    parts = [
        "before and after",
        "the same questions",
        "what the model forgot",
        "[sic]",
        "refusals, %",
        "the run",
        "1:01:01",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert [f"prompt {i}" in text for i in range(9)] == [i < stages.SAMPLES for i in range(9)]
    assert f"{stages.SAMPLES} of {stages.SAMPLES}" in text


def test_after_leaves_out_what_was_not_measured():
    text = shown("after", after(rows=[], after=[], before=[], forgetting=[], lost=[]))
    assert text.splitlines()[0].startswith("the run ─")
    assert "questions" not in text


def test_the_card_and_the_examples():
    chats = [Chat((Message("user", f"q {i}"), Message("assistant", f"a {i}"))) for i in range(3)]
    text = shown("card", card(chats, count=None, limit=9).as_dict())
    assert text.startswith("the data ─")
    assert "few rows: 3" in text
    assert shown("examples", [Text("one"), Text("two")]).splitlines()[1:] == ["one", "", "two", ""]


def test_unknown_stages_are_our_own_mistake():
    with pytest.raises(KeyError):
        shown("middle", {})


def test_models_fit_and_name_their_folder():
    models = [
        {"name": "smollm2-135m", "kind": "instruct", "parameters": 134_515_008, "bytes": 98_000_000, "licence": "apache-2.0",
         "folder": Path.home() / ".cache" / "luthier" / "models" / "smollm2"},
        {"name": "other", "kind": "base", "parameters": 1000, "bytes": None, "licence": None, "folder": None},
    ]  # fmt: skip
    text = printed(stages.models_table(models))
    for part in ("134,515,008", "98 MB", "~/.cache", "apache-2.0"):
        assert part in text
    assert str(Path.home()) + "/.cache" not in text


def test_names_of_users_are_not_read_as_markup():
    model = {"name": "[/b]", "kind": "[x]", "parameters": 1, "bytes": 1, "licence": "[red]", "folder": "/m/[i]"}
    text = printed(stages.models_table([model]))
    for part in ("[/b]", "[x]", "[red]", "/m/[i]"):
        assert part in text


def test_what_was_written():
    files = {
        "clean": {"path": "out/clean.jsonl", "rows": 1200},
        "dropped": {"path": "out/dropped.jsonl", "rows": 5, "why": {"empty": 3, "too long": 2}},
    }
    assert [line.plain.strip() for line in stages.written(files)] == [
        "clean: 1,200 rows in out/clean.jsonl",
        "dropped: 5 rows in out/dropped.jsonl (3 empty, 2 too long)",
    ]
