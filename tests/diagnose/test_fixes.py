"""Mends: what is proposed by rule, what a person accepted, what is refused, and that nothing else of the data changes."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml

from luthier.config.data import DataConfig
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message
from luthier.data import load as data_load
from luthier.data.example_text import answer_text, prompt_text
from luthier.data.replace_answer import with_answer
from luthier.data.split import split
from luthier.diagnose import error_sources, fixes
from luthier.diagnose import errors as app_errors
from luthier.diagnose.apply_fixes import apply
from luthier.diagnose.corrections import Labels, corrected, shortened, spelled
from luthier.diagnose.fixes import CONFLICT, DOUBTFUL, FixProposal, propose
from luthier.diagnose.run_data import TrainingRow
from luthier.evals.detectors.answer import Finding
from luthier.evals.detectors.task import Task
from sentences import sentence


@dataclass(frozen=True)
class Kind:
    """What proposing reads of a category."""

    title: str
    fix: str
    meaning: str = ""
    rule: str = ""


KINDS = {"refuses": Kind("refuses", "drop"), "long": Kind("too long", "shorten"), "odd": Kind("odd label", "correct")}


def detect(answered, task):
    """Refusals say no, long answers have more than 60 characters, odd labels end in a question mark."""
    text = answered.answer
    return (
        [Finding("refuses", "it says no")] * text.startswith("no,")
        + [Finding("long", f"{len(text)} characters")] * (len(text) > 60)
        + [Finding("odd", "no label")] * text.endswith("?")
    )


class Usual:
    """A task whose answers have at most 12 words."""

    @classmethod
    def learn(cls, prompts, answers):
        return cls()

    def bounds(self, prompt):
        return 1.0, 12.0


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    """Detectors, doubts and a task of this test's own."""
    for module in (app_errors, error_sources):
        monkeypatch.setattr(module, "detect", detect)
    for module in (app_errors, fixes):
        monkeypatch.setattr(module, "CATEGORIES", KINDS)
    monkeypatch.setattr(app_errors, "Task", Usual)
    monkeypatch.setattr(error_sources, "rank_doubtful", lambda losses, prompts, answers, progress: [])


def make_run(folder, data, after=("no, never", "fine"), **settings):
    """A finished run on `data`."""
    (folder / "evals").mkdir(parents=True)
    config = resolve({"data.path": [str(data)], "data.holdout": 0, "seed": 3} | settings)
    (folder / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    known = {str(data): sha256(data.read_bytes()).hexdigest()}
    (folder / "lineage.json").write_text(json.dumps({"inputs": {"data": known}}))
    (folder / "result.json").write_text("{}")
    for stage in ("before", "after"):
        lines = [{"row": i, "prompt": f"p {i}", "reference": "r", "answer": answer} for i, answer in enumerate(after)]
        (folder / "evals" / f"{stage}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


SENTENCES = "The first sentence is here. The second one ends here! And a third one goes on and on without"


@pytest.fixture
def data(tmp_path):
    """Rows with a column of their own; a refusal, a long answer, and two answers to one question."""
    rows = [{"question": f"what about {i}?", "answer": f"It is {i}.", "id": i} for i in range(40)]
    rows[4]["answer"] = "no, I will not"
    rows[5]["answer"] = SENTENCES
    rows[6]["answer"] = "really?"
    rows.append({"question": "What about  7?", "answer": "It is something else.", "id": 40})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(tmp_path, data):
    return make_run(tmp_path / "run", data)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def accept(path, **which):
    """Accept the fixes of these rows, with what else is said of them."""
    fixes = lines(path)
    for line in fixes:
        line |= which.get(f"row{line['row']}", {})
    path.write_text("".join(json.dumps(line) + "\n" for line in fixes))


def test_one_fix_a_row_with_what_a_rule_can_say(run, tmp_path):
    out = tmp_path / "fixes.jsonl"
    result = propose(run, out)
    fixes = {line["row"]: line for line in lines(out)}
    assert set(fixes) == {4, 5, 6, 40}
    assert set(fixes[4]) == {"row", "file", "line", "sha", "action", "category", "why", "before", "after", "accept"}
    assert all(line["accept"] is None for line in fixes.values())
    assert (fixes[4]["action"], fixes[4]["line"], fixes[4]["after"]) == ("drop", 5, None)
    assert (fixes[6]["action"], fixes[6]["after"]) == ("rewrite", None)  # no label to correct it to: a person writes
    assert (fixes[40]["action"], fixes[40]["category"]) == ("drop", "conflict")
    assert "rows.jsonl:8: It is 7." in fixes[40]["why"]
    assert [line["category"] for line in lines(out)] == ["conflict", "refuses", "long", "odd"]  # as often as held out
    assert result["fixes"] == 4 and result["rows"] == 41
    with pytest.raises(InputError, match=sentence("file exists")):
        propose(run, out)
    with pytest.raises(InputError, match=sentence("name must end in jsonl", where="fixes.txt")):
        propose(run, tmp_path / "fixes.txt")


def test_shortening_ends_at_a_sentence():
    assert shortened(SENTENCES, 12) == "The first sentence is here. The second one ends here!"
    assert shortened(SENTENCES, 9) == "The first sentence is here."
    assert shortened(SENTENCES, 4) is None  # no sentence ends so early
    assert shortened("It is 3.5 high and wide", 4) is None  # a point within a number is no end
    assert shortened("It is short.", 40) is None  # nothing to cut
    assert shortened("これは一つ目です。これは二つ目です。", 12) == "これは一つ目です。"


def test_shortening_does_not_end_at_the_number_of_a_list():
    answer = "1. Mix flour\n2. Add water\n3. Bake it now for ten minutes"
    assert shortened(answer, 7) == "1. Mix flour\n2. Add water"  # with "3." it would have 7 words
    assert shortened("A first line.\n\n2.1. And more words than that", 4) == "A first line."
    assert shortened("He was born in 1990. And more of it", 5) == "He was born in 1990."


@pytest.mark.parametrize(
    "start", ["Ask Dr.", "See the U.S.", "Take fruit, e.g.", "By J.", "Look at Fig.", "See Smith et al."]
)
def test_shortening_does_not_end_at_an_abbreviation(start):
    longest = len(start.split()) + 1
    assert shortened(f"{start} Smith and the others say so in their test", longest) is None
    assert shortened(f"It is. {start} Smith and the others say so in their test", longest + 1) == "It is."


def test_shortening_does_not_end_inside_code():
    code = "```python\nx = f(a)\ny = g(x)\n```"
    answer = f"This is how.\n\n{code}\n\nNow it runs. And more is to be said of it."
    assert shortened(answer, 8) == "This is how."  # the first line of code has the 8th word
    assert shortened(answer, 13) == f"This is how.\n\n{code}\n\nNow it runs."
    assert shortened("~~~\na = 1\nb = 2\nc = 3", 5) is None


def taught(answer, asked="Tell me."):
    return TrainingRow(0, asked, asked, answer, None)


def test_what_is_said_again_and_again_is_cut_before_it_begins():
    answer = "It is so. Then it goes on and on and on and on"
    again = Finding("repetitive", "'and on' 4 times in a row", (24, 46))
    assert corrected(taught(answer), again, "shorten", Usual(), None) == "It is so."
    whole = Finding("repetitive", "", (0, 46))
    assert corrected(taught(answer), whole, "shorten", Usual(), None) is None


def test_template_tokens_are_cut_off():
    answer = "It is so.<|im_end|>\n<|im_start|>user"
    leak = Finding("template_leak", "'<|im_end|>'", (9, 19))
    assert corrected(taught(answer), leak, "correct", Usual(), None) == "It is so."
    assert corrected(taught("<s>"), Finding("template_leak", "", (0, 3)), "correct", Usual(), None) is None


def test_every_misspelled_word_is_corrected_but_those_of_the_task():
    task = Task(known_words=frozenset({"krypton"}))
    row = taught("Please recieve the krypton which is beleived to be definately there in the box.")
    assert spelled(row, task) == "Please receive the krypton which is believed to be definitely there in the box."
    assert spelled(taught("Please receive the box that is there."), task) is None
    assert spelled(taught(row.answer, asked="What is recieve, beleived, definately?"), task) is None


def test_labels_are_corrected_by_spelling_and_by_most_of_a_contradiction(tmp_path):
    rows = [(f"where is my card {i}", "card") for i in range(20)] + [
        (f"my money is gone {i}", "cash") for i in range(20)
    ]
    rows += [("same", "card"), ("Same", "card"), ("same ", "cash"), ("a new card", "crd?")]
    path = tmp_path / "rows.csv"
    with open(path, "w", newline="") as handle:
        csv.writer(handle).writerows([("text", "category"), *rows])
    run = make_run(tmp_path / "run", path)
    propose(run, tmp_path / "fixes.jsonl")
    fixes = {line["row"]: line for line in lines(tmp_path / "fixes.jsonl")}
    assert (fixes[42]["action"], fixes[42]["before"], fixes[42]["after"]) == ("correct", "cash", "card")
    assert (fixes[43]["action"], fixes[43]["before"], fixes[43]["after"]) == ("correct", "crd?", "card")
    accept(tmp_path / "fixes.jsonl", row42={"accept": True}, row43={"accept": True})
    new = tmp_path / "new.jsonl"
    apply(run, tmp_path / "fixes.jsonl", new)
    written = lines(new)
    assert written[42] == {"text": "same ", "category": "card"} and written[43] == {
        "text": "a new card",
        "category": "card",
    }
    assert [list(row.values()) for row in written[:42]] == [list(row) for row in rows[:42]]


def labelled(*rows):
    return Labels([TrainingRow(i, asked, asked, answer, None) for i, (asked, answer) in enumerate(rows)])


def test_a_label_is_corrected_only_to_one_that_outvotes_its_own():
    alike = "where is my new card"
    labels = labelled(*[(alike, "card")] * 9, (alike, "cash"))
    assert labels.likely(0) is None  # nine of ten neighbours agree with it
    assert labels.likely(9) == "card"
    assert labelled((alike, "card"), (alike, "card"), (alike, "cash")).likely(0) is None  # one for each
    assert labelled((alike, "card"), ("nothing in common", "cash")).likely(0) is None


@pytest.mark.parametrize("category", [CONFLICT, DOUBTFUL])
def test_a_known_label_goes_before_a_drop(category):
    row = TrainingRow(0, "a", "a", "no, cash", Chat((Message("user", "a"), Message("assistant", "no, cash"))))
    right, refusal = (
        FixProposal(category, "correct", "others say card", "card", 3),
        FixProposal("refuses", "drop", "it says no"),
    )
    made, place = fixes.fix_for(row, [refusal, right])
    assert (made.action, made.after, made.category, place) == ("correct", "card", category, 3)
    assert made.why == "others say card; it says no"
    clash = FixProposal(CONFLICT, "drop", "answered otherwise")
    assert fixes.fix_for(row, [clash, FixProposal(DOUBTFUL, "correct", "others say card", "card")])[0].action == "drop"
    assert fixes.fix_for(row, [refusal, FixProposal("odd", "correct", "no label", "card")])[0].action == "drop"


def test_accepted_fix_make_a_new_data_set_and_nothing_else_changes(run, data, tmp_path):
    out, new = tmp_path / "fixes.jsonl", tmp_path / "new" / "rows2.jsonl"
    propose(run, out)
    accept(
        out,
        row4={"accept": True},
        row5={"accept": True},
        row6={"accept": True, "after": "It is 6."},
        row40={"accept": False},
    )
    result = apply(run, out, new)
    old = lines(data)
    expected = [row for row in old if row["id"] != 4]
    expected[4]["answer"] = "The first sentence is here. The second one ends here!"
    expected[5]["answer"] = "It is 6."
    assert lines(new) == expected
    record = json.loads((tmp_path / "new" / "rows2.lineage.json").read_text())
    assert record["accepted"] == {"drop": 1, "shorten": 1, "rewrite": 1}
    assert (record["rejected"], record["undecided"], record["rows"], record["from_rows"]) == (1, 0, 40, 41)
    assert record["from"] == {str(data): sha256(data.read_bytes()).hexdigest()}
    assert record["sha256"] == sha256(new.read_bytes()).hexdigest()
    assert record["run"] == str(run) and result["lineage"].endswith("rows2.lineage.json")
    with pytest.raises(InputError, match=sentence("file exists", where="rows2.jsonl")):
        apply(run, out, new)


def test_rows_that_a_limit_left_unread_are_written_too(data, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text('{"question": "and what?", "answer": "It is more.", "id": 41}\n')
    settings = {"data.path": [str(data), str(more)], "data.limit": 10}
    run = make_run(tmp_path / "run", data, **settings)
    known = {str(path): sha256(path.read_bytes()).hexdigest() for path in (data, more)}
    (run / "lineage.json").write_text(json.dumps({"inputs": {"data": known}}))
    out, new = tmp_path / "fixes.jsonl", tmp_path / "new.jsonl"
    propose(run, out)
    accept(out, row4={"accept": True})
    record = apply(run, out, new)
    assert lines(new) == [row for row in (*lines(data), *lines(more)) if row["id"] != 4]
    assert (record["rows"], record["from_rows"], record["from"], record["skipped"]) == (41, 42, known, 0)


def test_bad_rows_after_the_limit_are_counted(data, tmp_path):
    text = data.read_text()
    data.write_text("no row\n" + text + "no row either\n")
    run = make_run(tmp_path / "run", data, **{"data.limit": 10, "data.skip_bad": True})
    out, new = tmp_path / "fixes.jsonl", tmp_path / "new.jsonl"
    propose(run, out)
    accept(out, row4={"accept": True})
    record = apply(run, out, new)
    assert (record["rows"], record["from_rows"], record["skipped"]) == (40, 41, 2)
    assert [row["id"] for row in lines(new)] == [i for i in range(41) if i != 4]


def test_an_earlier_lineage_is_left_alone(run, tmp_path):
    out = tmp_path / "fixes.jsonl"
    propose(run, out)
    accept(out, row4={"accept": True})
    (tmp_path / "new.lineage.json").write_text("mine")
    with pytest.raises(InputError, match=sentence("file exists", where="new.lineage.json")):
        apply(run, out, tmp_path / "new.jsonl")
    assert (tmp_path / "new.lineage.json").read_text() == "mine" and not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize("value", [b"\x00", datetime(2024, 1, 2), [{"at": datetime(2024, 1, 2)}]], ids=str)
def test_values_that_json_cannot_hold_are_refused(tmp_path, value):
    rows = [
        {"question": f"what about {i}?", "answer": "no, never" if i == 4 else f"It is {i}.", "extra": None}
        for i in range(9)
    ]
    rows[6]["extra"] = value
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    run, out = make_run(tmp_path / "run", path), tmp_path / "fixes.jsonl"
    propose(run, out)
    accept(out, row4={"accept": True})
    with pytest.raises(
        InputError,
        match=sentence(
            "field not writable as json",
            where="rows.parquet:7",
            field="extra",
            error="Object of type … is not JSON serializable",
        ),
    ):
        apply(run, out, tmp_path / "new.jsonl")
    assert not list(tmp_path.glob("new*"))


@pytest.mark.parametrize(
    ("value", "answer", "expected"),
    [(3, "4", 4), (3, "-1", -1), (3.5, "4.25", 4.25), (3, "four", "four"), (3, "04", "04"), (3, "NaN", "NaN"),
     ("3", "4", "4"), (3, "[1]", "[1]")],
)  # fmt: skip
def test_a_fixed_number_stays_a_number(tmp_path, value, answer, expected):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "how many?", "label": value, "n": value}) + "\n")
    loaded = data_load.load((str(path),), DataConfig())
    row = with_answer(loaded.rows[0], loaded.examples[0], answer, loaded.layout, {})
    assert row.fields == {"text": "how many?", "label": expected, "n": value}
    assert type(row.fields["label"]) is type(expected)


def test_held_out_rows_are_written_too_and_held_out_again(data, tmp_path):
    run = make_run(tmp_path / "run", data, **{"data.holdout": 0.25})
    settings = DataConfig(path=(str(data),))
    before = split(data_load.load(settings.path, settings).examples, 0.25, 3)[1]
    out, new = tmp_path / "fixes.jsonl", tmp_path / "new.jsonl"
    propose(run, out)
    assert {line["line"] for line in lines(out)}.isdisjoint({example.origin.line for example in before})
    fixes = lines(out)
    out.write_text(
        "".join(json.dumps(line | {"accept": True, "after": line["after"] or "It is so."}) + "\n" for line in fixes)
    )
    apply(run, out, new)
    loaded = data_load.load((str(new),), settings)
    after = split(loaded.examples, 0.25, 3)[1]
    assert len(before) > 3
    assert [(prompt_text(e), answer_text(e)) for e in after] == [(prompt_text(e), answer_text(e)) for e in before]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"row6": {"accept": True}},
            sentence("fix without a text", where="fixes.jsonl:4", action="rewrite"),
        ),
        ({"row6": {"accept": True, "after": "  "}}, sentence("fix without a text")),
        (
            {"row4": {"accept": True, "action": "dorp"}},
            sentence("unknown name", where="fixes.jsonl:2", kind="action", name="dorp", fix="did you mean 'drop'?"),
        ),
        ({"row4": {"accept": "yes"}}, sentence("accept neither true nor false", where="fixes.jsonl:2", accept="'yes'")),
        ({"row4": {"accept": True, "sha": "00"}}, sentence("row not of this fix", where="fixes.jsonl:2")),
        ({"row4": {"accept": True, "row": 5}}, sentence("row not of this fix")),
        ({"row4": {"accept": True, "row": 99}}, sentence("row not of this fix")),
        ({}, sentence("no fix accepted", where="fixes.jsonl")),
    ],
)
def test_what_cannot_be_applied_is_refused_and_nothing_is_written(run, tmp_path, changes, message):
    out = tmp_path / "fixes.jsonl"
    propose(run, out)
    accept(out, **changes)
    with pytest.raises(InputError, match=message):
        apply(run, out, tmp_path / "new.jsonl")
    assert not list(tmp_path.glob("new*"))


def test_two_accepted_fix_of_a_row_and_lines_that_are_none_are_refused(run, tmp_path):
    out = tmp_path / "fixes.jsonl"
    propose(run, out)
    accept(out, row4={"accept": True})
    line = json.dumps(next(line for line in lines(out) if line["accept"]))
    (tmp_path / "twice.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(InputError, match=sentence("second fix of a row", where="twice.jsonl:2")):
        apply(run, tmp_path / "twice.jsonl", tmp_path / "new.jsonl")
    (tmp_path / "none.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match=sentence("not a fix", where="none.jsonl:1", missing="row")):
        apply(run, tmp_path / "none.jsonl", tmp_path / "new.jsonl")


def test_changed_data_and_data_in_no_file_are_refused(run, data, tmp_path):
    data.write_text(data.read_text() + "\n")
    with pytest.raises(InputError, match=sentence("data changed since the run")):
        propose(run, tmp_path / "fixes.jsonl")
    (tmp_path / "run" / "lineage.json").write_text(json.dumps({"inputs": {"data": {"examples": "00"}}}))
    config = yaml.safe_load((run / "run.yaml").read_text())
    config["data"]["path"] = ["stdlib"]
    (run / "run.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=sentence("data that cannot be fixed", kind="Python's standard library")):
        propose(run, tmp_path / "fixes.jsonl")


@pytest.mark.parametrize(
    "fields",
    [
        {"instruction": "old", "input": "old", "output": "old"},  # the same text everywhere: only the answer may change
        {"messages": [{"role": "user", "content": "old"}, {"role": "assistant", "content": "old"}], "note": "old"},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "old"}], "system": "old"},
        {"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "old"}]},
        {"prompt": "hi", "answer": "old"},
        {"text": "old", "label": "old"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_an_answer_is_replaced_in_every_layout(tmp_path, fields):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(fields) + "\n")
    loaded = data_load.load((str(path),), DataConfig())
    example = loaded.examples[0]
    row = with_answer(loaded.rows[0], example, "new", loaded.layout, {})
    path.write_text(json.dumps(row.fields) + "\n")
    again = data_load.load((str(path),), DataConfig()).examples[0]
    assert answer_text(again) == "new"
    assert prompt_text(again) == prompt_text(example)
    assert json.dumps(row.fields).count("old") == json.dumps(fields).count("old") - 1


def test_an_answer_in_pieces_is_not_touched(tmp_path):
    blocks = [{"type": "text", "text": "ol"}, {"type": "text", "text": "d"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": blocks}]})
    )
    loaded = data_load.load((str(path),), DataConfig())
    assert answer_text(loaded.examples[0]) == "old"
    with pytest.raises(InputError, match=sentence("answer without a field", where="rows.jsonl:1")):
        with_answer(loaded.rows[0], loaded.examples[0], "new", loaded.layout, {})
