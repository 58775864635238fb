"""Best of n on a tiny model: exact whatever the batch, resumable, and its rows are data again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from luthier.config.data import DataConfig, TextConfig
from luthier.config.resolve import resolve
from luthier.core.errors import InputError, RunError, Stopped
from luthier.data.load import load
from luthier.feedback import sample as app
from luthier.generate.request import Sample
from luthier.text.encode import encode
from sentences import sentence

ENDS = ("stop", "length", "stop_string")
REWARDS = ["length:6", "0.5*regex:[a-m]", "0*ended"]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"who is {i}?", "completion": str(i)}) + "\n" for i in range(10)))
    return path


@pytest.fixture
def go(tmp_path, rows, tiny_folder, monkeypatch):
    """Sample with these changes; returns the result and the rows written."""
    monkeypatch.setattr(app, "PROMPTS_AT_ONCE", 4)

    def run(settings=(), **changes):
        options = app.SampleOptions("sft", tmp_path / "out.jsonl", 4, 1.0, 1.0, 12, 64)
        config = resolve({"model": str(tiny_folder), "data.path": [str(rows)], "threads": 1, "device": "cpu",
                          "dtype": "float32", "reward.use": REWARDS}, dict(settings))  # fmt: skip
        options = replace(options, **changes)
        result = app.sample(config, options)
        return result, [json.loads(line) for line in options.out.read_text().splitlines()] if result["out"] else []

    return run


def everything(rows):
    """(prompt, number) -> answer, of rows written with 'all'."""
    return {(row["prompt"][-1]["content"], row["number"]): row["completion"][0]["content"] for row in rows}


# --- What comes out ---------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_answers(go):
    result, rows = go(write="all")
    assert len(rows) == 40
    by_prompt = [[row["reward"] for row in rows[i : i + 4]] for i in range(0, 40, 4)]
    curve = {point["of"]: point["reward"] for point in result["best_of"]}
    assert list(curve) == [1, 2, 4]
    assert curve[1] == pytest.approx(mean(map(mean, by_prompt)))
    assert curve[4] == pytest.approx(mean(map(max, by_prompt)))
    assert curve[1] < curve[2] < curve[4]
    for row in rows:
        parts = row["parts"]
        assert row["reward"] == pytest.approx(parts["length:6"] + 0.5 * parts["regex:[a-m]"])
        assert parts["length:6"] == pytest.approx(min(1, max(0, 2 - row["tokens"] / 6)))
        assert parts["ended"] == row["ended"]
        assert row["reference"] in row["prompt"][0]["content"]
    assert result["parts"]["length:6"]["mean"] == pytest.approx(mean(row["parts"]["length:6"] for row in rows))
    assert result["tokens"] == sum(row["tokens"] for row in rows)
    assert result["ended"] == mean(row["ended"] for row in rows)
    assert (result["prompts"], result["answers"], result["kept"], result["rows"]) == (10, 40, 10, 40)
    assert result["dropped"] == {}


@pytest.mark.medium
def test_what_is_written_is_the_best(go, tmp_path):
    _, every = go(write="all")
    _, best = go(out=tmp_path / "best.jsonl")
    _, pairs = go(write="pairs", out=tmp_path / "pairs.jsonl")
    groups = [
        [row["reward"] for row in every[i : i + 4] if row["completion"][0]["content"].strip()] for i in range(0, 40, 4)
    ]
    assert [row["reward"] for row in best] == [max(group) for group in groups]
    ends = [(max(group), min(group)) for group in groups if max(group) > min(group)]
    assert [(row["reward_chosen"], row["reward_rejected"]) for row in pairs] == ends


@pytest.mark.medium
def test_rejection_drops_prompts_and_says_so(go, tmp_path):
    _, best = go()
    values = sorted(row["reward"] for row in best)
    result, rows = go(above=values[4], out=tmp_path / "above.jsonl")
    assert rows == [row for row in best if row["reward"] > values[4]]
    assert 0 < len(rows) < 6
    assert result["dropped"] == {f"best not above {values[4]:g}": 10 - len(rows)}


@pytest.mark.parametrize(
    ("write", "layout"),
    [("sft", "prompt_completion"), ("all", "prompt_completion"), ("pairs", "preference"), ("rankings", "ranking")],
)
def test_the_rows_are_data_that_can_be_learned(go, tmp_path, tiny_tokenizer, write, layout):
    from luthier.text.template import load_template
    from luthier.text.tokenizer import Tokenizer

    result, _ = go(settings={"text.system": "be a cat"}, write=write)
    again = load([result["out"]], DataConfig())
    assert again.layout.name == layout
    assert len(again.examples) == result["rows"]
    tokenizer = Tokenizer(tiny_tokenizer)
    encoded = encode(again.examples, load_template("auto", tokenizer), tokenizer, TextConfig(max_length=256))
    assert len(encoded.trees) == result["rows"]
    first = again.examples[0]
    messages = first.messages if layout == "prompt_completion" else first.prompt
    assert [m.content for m in messages[:2]] == ["be a cat", "who is 0?"]


def test_how_an_answer_ended_and_its_tokens(go, monkeypatch):
    def generate(model, prompts, *rest, **named):
        return [Sample(i, (7, 8, 9), "cat", (0.0,) * 3, how) for i in range(len(prompts)) for how in ENDS]

    monkeypatch.setattr(app, "generate", generate)
    _, rows = go(write="all", n=3)
    assert [(row["tokens"], row["ended"]) for row in rows[:3]] == [(2, True), (3, False), (3, True)]


# --- Exactness --------------------------------------------------------------------------------------


@pytest.mark.medium
def test_an_answer_depends_on_its_place_and_the_seed_alone(go, tmp_path):
    _, rows = go(write="all")
    answers = everything(rows)
    assert len(set(answers.values())) > 30
    for changes, settings in (({"batch": 3}, {}), ({"n": 2}, {}), ({}, {"data.limit": 6})):
        _, others = go(settings, write="all", out=tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl", **changes)
        assert everything(others).items() <= answers.items()
        assert len(others) < 40 or changes == {"batch": 3}
    _, others = go({"seed": 1}, write="all", out=tmp_path / "seed.jsonl")
    assert everything(others) != answers


@pytest.mark.medium
def test_a_reward_that_fails_loses_no_answer(go, tmp_path, monkeypatch):
    code = tmp_path / "mine.py"
    good = "def score(answers): return [len(a) for a in answers]\n"
    code.write_text(good)
    spec = {"reward.use": [f"python:{code}:score"]}
    wanted = go(spec, write="all", out=tmp_path / "wanted.jsonl")[1]
    code.write_text("def score(prompts, answers):\n    return [1 / (p != 'who is 5?') for p in prompts]\n")
    with pytest.raises(
        RunError,
        match=sentence("function failed", fault="ZeroDivisionError…", how_many="an answer to ", opening="who is 5?"),
    ):
        go(spec, write="all")
    assert not (tmp_path / "out.jsonl").exists()
    made = []
    real = app.generate
    monkeypatch.setattr(
        app, "generate", lambda model, prompts, *a, **k: made.append(len(prompts)) or real(model, prompts, *a, **k)
    )
    code.write_text(good)
    result, rows = go(spec, write="all")
    assert made == [2]  # eight of ten prompts were answered before, and are scored anew
    assert rows == wanted
    assert not (tmp_path / "out.partial.jsonl").exists()
    assert result["partial"] is None


@pytest.mark.medium
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.75, 0.99])
def test_killed_anywhere_the_same_command_writes_the_same_bytes(go, tmp_path, keep):
    go(write="all")
    wanted = (tmp_path / "out.jsonl").read_bytes()
    go(write="all", above=99.0, out=tmp_path / "late.jsonl")  # writes nothing, and leaves its answers
    partial = tmp_path / "late.partial.jsonl"
    partial.write_bytes(partial.read_bytes()[: int(keep * partial.stat().st_size)])
    go(write="all", out=tmp_path / "late.jsonl")
    assert (tmp_path / "late.jsonl").read_bytes() == wanted


@pytest.mark.parametrize("place", ["before the file", "after the file"])
@pytest.mark.medium
def test_killed_at_its_end_it_ends_alike(go, tmp_path, monkeypatch, place):
    """Everything is answered; what is made of it is about to be put in place, or what was kept about to be removed."""
    whole = go(write="pairs", out=tmp_path / "whole.jsonl")
    with monkeypatch.context() as killing:
        if place == "before the file":
            killing.setattr(app, "write_jsonl", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            killing.setattr(Path, "unlink", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            go(write="pairs", out=tmp_path / "late.jsonl")
    assert (tmp_path / "late.partial.jsonl").exists()
    assert (tmp_path / "late.jsonl").exists() == (place == "after the file")
    again = go(write="pairs", out=tmp_path / "late.jsonl")
    assert (tmp_path / "late.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "late.partial.jsonl").exists()
    same = whole[0].keys() - {"seconds", "out"}
    assert {name: again[0][name] for name in same} == {name: whole[0][name] for name in same}
    with pytest.raises(InputError, match=sentence("file exists")):  # somebody's own, beside answers that are kept
        go(write="pairs", out=tmp_path / "late.jsonl")


def test_a_file_of_ones_own_beside_kept_answers_is_left_alone(go, tmp_path):
    go(write="all", above=99.0)
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(InputError, match=sentence("file exists")):
        go(write="all")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


@pytest.mark.medium
@pytest.mark.parametrize(
    ("settings", "changes", "what"),
    [
        ({"seed": 1}, {}, "seed"),
        ({}, {"n": 3}, "n"),
        ({}, {"temperature": 0.5}, "temperature"),
        ({}, {"top_p": 0.5}, "top p"),
        ({}, {"max_new_tokens": 5}, "max new tokens"),
        ({"data.limit": 5}, {}, "prompts"),
        ({"text.system": "be a dog"}, {}, "prompts"),
        ({"dtype": "bfloat16"}, {}, "type"),
    ],
)
def test_answers_of_another_command_are_not_mixed_in(go, tmp_path, settings, changes, what):
    go(n=2, above=99.0)
    with pytest.raises(
        InputError, match=sentence("answers of another command", where="out.partial.jsonl", setting=what)
    ):
        go(settings, **({"n": 2} | changes))


def test_nothing_left_to_write_keeps_the_answers(go, tmp_path):
    result, rows = go(above=99.0)
    assert (result["out"], result["rows"], result["kept"], rows) == (None, 0, 0, [])
    assert result["dropped"] == {"best not above 99": 10}
    assert result["partial"] == str(tmp_path / "out.partial.jsonl")
    result, rows = go(above=0.1)
    assert result["kept"] == len(rows) > 0


def test_a_request_to_stop_keeps_what_is_whole(go, tmp_path, monkeypatch):
    real = app.generate

    def generate(*arguments, cancelled, **named):
        if generate.calls == 1:
            cancelled.asked = True
        generate.calls += 1
        return real(*arguments, cancelled=cancelled, **named)

    generate.calls = 0
    monkeypatch.setattr(app, "generate", generate)
    with pytest.raises(Stopped, match=sentence("stopped")):
        go()
    lines = (tmp_path / "out.partial.jsonl").read_text().splitlines()
    assert sum('"answers"' in line for line in lines) == 4


# --- What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({}, {"n": 1, "write": "pairs"}, sentence("best of needs two", where="--samples", what="pairs")),
        ({}, {"temperature": 0.0}, sentence("answers equal at 0", where="--temperature")),
        (
            {"reward.use": ["exat"]},
            {},
            sentence("unknown name", kind="reward", name="exat", fix="did you mean 'exact'?"),
        ),
        (
            {"data.columns": {"text": "prompt"}},
            {},
            sentence("rows without prompts", name="text"),
        ),
    ],
)
def test_what_cannot_be_sampled(go, settings, changes, message):
    with pytest.raises(InputError, match=message):
        go(settings, **changes)


def test_a_reward_that_needs_a_right_answer(go, rows):
    rows.write_text('{"prompt": "a?", "answer": "b"}\n{"prompt": "c?", "answer": null}\n')
    with pytest.raises(InputError, match=sentence("row without right answer", where="rows.jsonl:2", referring="exact")):
        go({"reward.use": ["ended", "exact"], "data.layout": "prompt"})


def test_a_file_that_exists_is_left_alone(go, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(InputError, match=sentence("file exists", fix="give another --out")):
        go()
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_prompts_without_room_for_an_answer_are_counted(go, rows):
    with open(rows, "a") as file:
        file.write(json.dumps({"prompt": "cat " * 600, "completion": "b"}) + "\n")
        file.write(json.dumps({"prompt": "", "completion": "b"}) + "\n")
    result, _ = go(n=2)
    assert (result["prompts"], result["dropped"]) == (10, {"no prompt": 1, "prompt too long": 1})


def test_where_no_prompt_leaves_room_the_context_is_said(go, rows):
    rows.write_text(json.dumps({"prompt": "cat " * 600, "completion": "b"}) + "\n")
    with pytest.raises(InputError, match=sentence("no prompt short enough")):
        go(n=2)
