"""`luthier chat`: one question, a pipe, adapters that are switched, two sides compared."""

from __future__ import annotations

import io
import json
import sys

import pytest

from luthier.cli import run

DEVICE = ["--device", "cpu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_folder):
    """Two runs that learned to say different things."""
    folder = tmp_path_factory.mktemp("runs")
    for name, answer in (("cats", "cat"), ("dogs", "dog")):
        rows = folder / f"{name}.jsonl"
        rows.write_text("".join(json.dumps({"prompt": f"who {i}", "completion": answer}) + "\n" for i in range(24)))
        options = ["--model", tiny_folder, "--out", folder / name, "--train.lr", "0.02", "--train.epochs", "5", "--train.batch", "4",
                   "--json", "--eval.samples", "0", "--no-eval.forgetting", "--dtype", "float32", "--threads", "1", *DEVICE]  # fmt: skip
        assert run([str(a) for a in ("train", rows, *options)]) == 0
    return folder


@pytest.fixture
def chat(runs, capsys, monkeypatch):
    def go(*options, lines=None, status=0, model=None):
        capsys.readouterr()
        if lines is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
        arguments = ["chat", model or runs / "cats", "--max-new-tokens", "8", *DEVICE, *options]
        assert run([str(a) for a in arguments]) == status
        return capsys.readouterr()

    return go


@pytest.mark.medium
def test_one_question(chat):
    captured = chat("--prompt", "who 3")
    assert captured.out == "cat\n"


def test_questions_from_a_pipe(chat):
    assert chat(lines=["who 3", "", "/reset", "who 4", "/quit", "who 5"]).out == "cat\ncat\n"


@pytest.mark.medium
def test_adapters_are_switched(chat, runs, tiny_folder):
    lines = [
        "who 3",
        "/adapters",
        "/adapter dogs",
        "/adapters",
        "who 3",
        "/adapter base",
        "/adapters",
        "/adapter cats",
        "/reset",
        "who 3",
    ]
    out = chat("--adapter", runs / "dogs", lines=lines).out
    assert out.startswith("cat\n  base  [cats]  dogs\n  base  cats  [dogs]\ndog\n  [base]  cats  dogs\n")
    assert out.endswith("cat\n")
    assert chat("--adapter", runs / "dogs", "--prompt", "who 3", model=tiny_folder).out == "dog\n"


@pytest.mark.medium
def test_two_sides_in_a_pipe(chat, runs):
    out = chat("--compare", "dogs", "--adapter", runs / "dogs", "--prompt", "who 3").out
    assert out == "[dogs] dog\n[cats] cat\n"
    out = chat("--compare", "base", lines=["who 3"]).out
    assert out.startswith("[base] ")
    assert out.endswith("[cats] cat\n")


def test_what_is_not_known_is_said_and_the_talk_goes_on(chat):
    out = chat(lines=["/adapter dogs", "/adaptr dogs", "/xyz", "who 3"]).out.splitlines()
    assert out == [
        "  no adapter 'dogs'; there are: base, cats",
        "  unknown command /adaptr; did you mean /adapter?",
        "  unknown command /xyz; see /help",
        "cat",
    ]


def test_a_question_longer_than_the_context_is_said_and_the_talk_goes_on(chat):
    out = chat(lines=["who 3", "who " * 900, "/reset", "who 3"]).out.splitlines()
    assert (out[0], out[2]) == ("cat", "cat")
    assert "the model's context 512" in out[1]


def test_an_unknown_name_ends_with_one_line(chat, tmp_path, tiny_folder):
    assert chat("--compare", "dogs", status=2).err.endswith("luthier: no adapter 'dogs'; there are: base, cats\n")
    assert "no adapter_config.json here" in chat("--adapter", tmp_path, "--prompt", "x", status=2).err
    assert "there are: base\n" in chat("--compare", "dogs", status=2, model=tiny_folder).err


def test_help_names_every_command(chat):
    out = chat(lines=["/help"]).out
    assert all(name in out for name in ("/adapter NAME", "/adapters", "/system TEXT", "/reset", "/help", "/quit"))


def test_every_side_keeps_its_own_conversation(runs):
    from luthier.commands.chat import ChatSession

    seen = []

    class Recorder:
        active, names = "cats", {"cats": None}

        def switch(self, name):
            self.active = name

        def answer(self, turns, sampling):
            seen.append((self.active, [(turn.role, turn.content) for turn in turns]))
            yield f"{self.active}!"

    talk = ChatSession(Recorder(), "base", "be kind", {})
    for line in ("one", "two"):
        assert talk.take(line)
    opening = ("system", "be kind")
    assert seen[0] == ("base", [opening, ("user", "one")])
    assert seen[1] == ("cats", [opening, ("user", "one")])
    assert seen[3] == ("cats", [opening, ("user", "one"), ("assistant", "cats!"), ("user", "two")])
    talk.take("/system be brief")
    talk.take("three")
    assert seen[-1] == ("cats", [("system", "be brief"), ("user", "three")])
    assert not talk.take("/quit")


def test_the_same_seed_samples_the_same(chat, tiny_folder):
    hot = ["--temperature", "2", "--prompt", "who"]
    one, two, three = (chat(*hot, "--seed", seed, model=tiny_folder).out for seed in ("1", "1", "2"))
    assert one == two != three
