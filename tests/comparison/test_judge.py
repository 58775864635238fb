"""Judging from contestants to judgments: local and written judges, stops and failures half-way, and what is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from luthier.comparison import contestants
from luthier.comparison import judge as judge_module
from luthier.comparison.contestants import AnswerOptions, answer_prompts, label_contestants
from luthier.comparison.judge import JudgmentOptions, judge
from luthier.config.data import DataConfig
from luthier.core.errors import InputError, RunError, Stopped
from luthier.core.storage.sums import with_sum
from luthier.core.types.examples import Message
from luthier.evals.judging.judges import CachedJudge, EndpointJudge, JudgeSpec, LocalJudge, in_unfinished_batches
from luthier.evals.judging.judgments import Duel, read
from luthier.evals.judging.prompt import Choice, comparisons_in_both_orders
from luthier.runs.open import open_model
from sentences import sentence

PROMPTS = ["who sat?", "who ran?", "what is red?"]


def asking(tmp_path, **changes):
    values = {"data": DataConfig(), "rows": 100, "max_new_tokens": 4, "out": tmp_path / "out" / "j.jsonl", "seed": 0,
              "device": "cpu", "dtype": "float32"}  # fmt: skip
    return AnswerOptions(**(values | changes))


@pytest.fixture
def files(tmp_path):
    """Two files of answers to the same prompts; one more prompt in the first. The longer one is better."""
    for name, answers in (("a", ["cat", "dog", "same", "x"]), ("b", ["the cat", "the dog", "same"])):
        rows = [{"prompt": p, "answer": a} for p, a in zip([*PROMPTS, "why?"], answers, strict=False)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")


class Longer:
    """Prefers the longer answer; fails after `calls` judgments."""

    name = "longer"

    def __init__(self, calls=99, unread=(), version="1"):
        self.calls, self.unread, self.version, self.key = calls, unread, version, []

    def digest(self):
        return self.version

    batch_size = 1

    def compare(self, asked, stop):
        for index, contest in enumerate(asked):
            if len(self.key) == self.calls:
                raise RunError("status 503", where="big", fix="see whether the server is well")
            self.key.append(contest)
            shown = [contest.answers[i] for i in contest.order]
            yield index, None if index in self.unread else Choice("A" if len(shown[0]) > len(shown[1]) else "B")


@pytest.fixture
def judged(tmp_path, files, monkeypatch):
    """Judge the files with a judge of ours."""

    def run(one, **changes):
        monkeypatch.setattr(JudgeSpec, "open", lambda self, where=None: lambda: one)
        return judge(replace(JudgmentOptions(files, JudgeSpec(), asking(tmp_path)), **changes))

    return run


def test_both_orders_of_every_prompt_are_judged_and_kept(judged, tmp_path):
    one = Longer()
    result = judged(one)
    assert (result["prompts"], result["asked"], result["equal"], result["kept"]) == (3, 4, 1, 0)
    assert result["pairs"] == [
        {"models": ["a.jsonl", "b.jsonl"], "wins": 0, "losses": 2, "ties": 1, "score": pytest.approx(1 / 6), "low": None,
         "high": None, "n": 3, "p": 0.5, "corrected": 0.5, "verdict": "too few to tell"}
    ]  # fmt: skip
    habits = result["annotators"][0]
    assert (habits["longer"]["value"], habits["first"]["value"], habits["steady"]["value"]) == (1.0, 0.5, 1.0)
    said = read([str(tmp_path / "out" / "j.jsonl")])
    assert len(said) == 5
    assert {j.annotator for j in said} == {"longer"}
    assert said[0].info == {"equal": True, "sum": said[0].info["sum"]}


class Placed(Longer):
    """Prefers whatever stands at a place."""

    def __init__(self, says):
        super().__init__()
        self.says = says

    batch_size = 1

    def compare(self, asked, stop):
        yield from ((index, Choice(self.says)) for index in range(len(asked)))


@pytest.mark.parametrize(("says", "name"), [("A", "first"), ("B", "last")])
def test_a_judge_that_goes_by_place_has_no_verdict(judged, says, name):
    result = judged(Placed(says))
    assert result["verdict"] is None
    assert result["why"] == f"the judge prefers the {name} answer in 2 of 2 pairs, whatever stands there"
    assert result["place"] == {"pairs": 2, "first": 0, "last": 0, "unsteady": 0, "answer": 0} | {name: 2}
    (pair,) = result["pairs"]  # kept, without a verdict
    assert (pair["ties"], pair["verdict"]) == (3, None)
    good = judged(
        Longer(),
        answering=replace(asking(Path(result["out"]).parent), out=Path(result["out"]).with_name("other.jsonl")),
    )
    assert (good["why"], good["verdict"]) == (None, "a.jsonl and b.jsonl: too few to tell")


def test_pairs_of_several_contestants_are_corrected():
    """Eight wins of eight: p = 2 / 2^8, three times that for three pairs. Of seven pairs it shows nothing."""
    won = [Duel(i, i, "a", "b", 1.0, "judge", (1, 1)) for i in range(8)]
    rows = judge_module.with_verdicts([judge_module.pair_result("a", "b", won)] * 3)
    assert [row["corrected"] for row in rows] == [3 * 2 / 2**8] * 3
    assert {row["verdict"] for row in rows} == {"better"}
    assert (
        judge_module.with_verdicts([judge_module.pair_result("a", "b", won)] * 7)[0]["verdict"] == "no difference shown"
    )


def test_six_wins_of_six_leave_room_for_other_points():
    """Wilson's limit of 6 in 6 is 6 / (6 + 3.8415); of six ties, half of what is left to each side."""
    won, tied = ([Duel(i, i, "a", "b", outcome, "judge", (1, 1)) for i in range(6)] for outcome in (1.0, 0.5))
    found = judge_module.pair_result("a", "b", won)
    assert (found["score"], found["low"], found["high"]) == (1.0, pytest.approx(0.6097, abs=1e-4), 1.0)
    found = judge_module.pair_result("a", "b", tied)
    assert (found["low"], found["high"]) == (pytest.approx(0.3048, abs=1e-4), pytest.approx(0.6952, abs=1e-4))


def test_a_judge_that_fails_half_way_goes_on_where_it_was(judged, tmp_path):
    with pytest.raises(RunError) as error:
        judged(Longer(calls=3))
    out = tmp_path / "out" / "j.jsonl"
    assert str(error.value) == (
        f"big: status 503; 4 of 5 judgments are in {out}; see whether the server is well; run the same command again to continue"
    )
    with open(out, "ab") as handle:
        handle.write(b'{"prompt": "half a li')  # as a kill leaves it
    one = Longer()
    result = judged(one)
    assert (len(one.key), result["kept"], result["asked"]) == (1, 4, 1)
    assert len(read([str(out)])) == 5
    again = Longer()
    assert judged(again)["pairs"] == result["pairs"]
    assert not again.key


def test_what_cannot_be_read_is_left_out_and_asked_again(judged, capsys):
    result = judged(Longer(unread=(0, 1)))
    assert result["unreadable"] == 2
    assert "2 of 4 comparisons could not be read" in capsys.readouterr().err
    assert sum(result["pairs"][0][key] for key in ("wins", "losses", "ties")) == 2
    again = Longer()
    assert judged(again)["unreadable"] == 0
    assert len(again.key) == 2


def test_a_pair_that_was_read_in_one_order_only_wins_nothing(judged, capsys, tmp_path):
    """Place alone may have decided."""
    result = judged(Longer(unread=(0,)))
    assert (result["unreadable"], result["half_judged"]) == (1, 1)
    assert (result["pairs"][0]["losses"], result["pairs"][0]["ties"], result["pairs"][0]["n"]) == (1, 1, 2)
    assert result["annotators"][0]["judgments"] == 3
    assert "1 pairs were judged in one order only and are not counted here" in capsys.readouterr().err
    again = Longer()
    result = judged(again)
    assert (len(again.key), result["half_judged"], result["pairs"][0]["losses"]) == (1, 0, 2)
    rows = [json.loads(line) for line in (tmp_path / "out" / "j.jsonl").read_text().splitlines()]
    person = next(row for row in rows if row["prompt"] == "who sat?") | {"annotator": "me", "info": {}}
    (tmp_path / "people.jsonl").write_text(json.dumps(person) + "\n")
    assert (
        judged(Longer(), human=(str(tmp_path / "people.jsonl"),))["human"]["units"] == 1
    )  # people are shown one order


def test_a_last_line_without_its_end_is_kept(judged, tmp_path):
    """As an editor leaves it, or a person who copied it."""
    judged(Longer())
    out = tmp_path / "out" / "j.jsonl"
    whole = out.read_text()
    out.write_text(whole.removesuffix("\n"))
    one = Longer()
    assert judged(one)["kept"] == 5
    assert not one.key
    assert out.read_text() == whole


@pytest.mark.parametrize("name", ["verdicts", "v.txt", "v.jsonl.gz"])
def test_a_file_that_could_not_be_read_again_is_refused_before_anything_is_paid_for(judged, tmp_path, name):
    one = Longer()
    with pytest.raises(InputError, match=sentence("name must end in jsonl", where=name)):
        judged(one, answering=asking(tmp_path, out=tmp_path / name))
    assert not one.key
    assert not (tmp_path / name).exists()


def test_other_answers_are_other_judgments(judged, files):
    judged(Longer())
    Path(files[0]).write_text(Path(files[0]).read_text().replace('"cat"', '"a cat"'))
    one = Longer()
    assert judged(one)["kept"] == 3
    assert {c.prompt[0].content for c in one.key} == {"who sat?"}


def test_another_judge_of_the_same_name_judges_anew(judged, capsys):
    judged(Longer())
    other = Longer(version="2")
    result = judged(other)
    assert (len(other.key), result["kept"], result["asked"]) == (4, 1, 4)  # equal answers are nobody's verdict
    assert "4 judgments in" in capsys.readouterr().err
    again = Longer(version="2")
    judged(again)
    assert not again.key


def test_a_judge_is_what_it_is_and_how_it_is_asked(tiny_folder, tmp_path):
    def served(url="http://a/v1", *request):
        return JudgeSpec(endpoint=url, endpoint_model="m", request=request).open()().digest()

    assert served() == served()
    assert len({served(), served("http://b/v1"), served("http://a/v1", "max_tokens=5")}) == 3
    opened = open_model(str(tiny_folder), device="cpu", dtype="float32")
    first = LocalJudge(str(tiny_folder), opened).digest()
    assert first == LocalJudge(str(tiny_folder), opened).digest()
    opened.config = opened.config.model_copy(
        update={"text": opened.config.text.model_copy(update={"system": "Be strict."})}
    )
    assert LocalJudge(str(tiny_folder), opened).digest() != first
    shutil.copytree(tiny_folder, tmp_path / "other")
    (tmp_path / "other" / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert LocalJudge(str(tmp_path / "other"), opened).digest() not in (
        first,
        LocalJudge(str(tiny_folder), opened).digest(),
    )


def test_people_are_compared_with(judged, tmp_path, capsys):
    judged(Longer())
    rows = [json.loads(line) for line in (tmp_path / "out" / "j.jsonl").read_text().splitlines()]
    people = [
        row | {"annotator": "me", "verdict": [1, 2] if row["prompt"] == "who sat?" else row["verdict"]} for row in rows
    ]
    (tmp_path / "people.jsonl").write_text("".join(json.dumps(row) + "\n" for row in people))
    result = judged(Longer(), human=(str(tmp_path / "people.jsonl"),))
    assert (result["human"]["same"], result["human"]["units"]) == (pytest.approx(2 / 3), 3)
    assert {row["annotator"] for row in result["annotators"]} == {"longer", "me"}
    (tmp_path / "people.jsonl").write_text(json.dumps(people[0] | {"prompt": "else?"}) + "\n")
    assert judged(Longer(), human=(str(tmp_path / "people.jsonl"),))["human"] is None
    assert "no pair of answers was also judged by people" in capsys.readouterr().err


def test_the_file_is_held_by_one_process(judged, tmp_path):
    with (
        judge_module.journal_of(tmp_path / "out" / "j.jsonl"),
        pytest.raises(InputError, match=sentence("file written by another")),
    ):
        judged(Longer())


# --- Contestants ----------------------------------------------------------------------------------------


def test_labels():
    assert label_contestants(["x/runs/a", "base=y"], "c") == {"a": "x/runs/a", "base": "y"}
    assert label_contestants(["x/a", "y/a"], "c") == {"x/a": "x/a", "y/a": "y/a"}
    with pytest.raises(InputError, match=sentence("two of one label", double="b")):
        label_contestants(["b", "b=c"], "c")
    with pytest.raises(InputError, match=sentence("compare needs two", command="luthier judge")):
        label_contestants(["b"], "luthier judge")


def test_models_answer_once_and_the_data_is_a_contestant(tmp_path, tiny_folder, monkeypatch):
    rows = [{"prompt": p, "completion": "cat"} for p in PROMPTS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = asking(tmp_path, data=DataConfig(path=(str(tmp_path / "rows.jsonl"),)), rows=2)
    names = {"base": str(tiny_folder), "reference": "reference"}
    prompts, given = answer_prompts(names, settings, lambda: False)
    assert len(prompts.messages) == 2
    assert given["reference"] == ["cat", "cat"]
    kept = tmp_path / "out" / "j.base.answers.jsonl"
    assert [json.loads(line)["answer"] for line in kept.read_text().splitlines()] == given["base"]
    opened = []
    monkeypatch.setattr(
        "luthier.comparison.contestants.open_model", lambda *a, **n: opened.append(a) or open_model(*a, **n)
    )
    assert answer_prompts(names, settings, lambda: False)[1] == given
    assert not opened
    _, other = answer_prompts(names, replace(settings, max_new_tokens=2), lambda: False)
    assert len(opened) == 1
    assert all(long.startswith(short) for long, short in zip(given["base"], other["base"], strict=True))


def test_contestants_that_do_not_fit(tmp_path, files, tiny_folder):
    settings = asking(tmp_path)
    with pytest.raises(InputError, match=sentence("no prompts given")):
        answer_prompts({"a": files[0], "m": str(tiny_folder)}, settings, lambda: False)
    (tmp_path / "c.jsonl").write_text('{"prompt": "zzz", "answer": "x"}\n')
    with pytest.raises(InputError, match=sentence("no common prompt")):
        answer_prompts({"a": files[0], "c": str(tmp_path / "c.jsonl")}, settings, lambda: False)
    (tmp_path / "c.jsonl").write_text('{"prompt": "zzz", "answr": "x"}\n')
    with pytest.raises(InputError, match=sentence("answer row without text", where="c.jsonl:1")):
        answer_prompts({"a": files[0], "c": str(tmp_path / "c.jsonl")}, settings, lambda: False)
    (tmp_path / "rows.jsonl").write_text('{"text": "zzz"}\n')
    data = DataConfig(path=(str(tmp_path / "rows.jsonl"),))
    with pytest.raises(InputError, match=sentence("no prompt to answer")):
        answer_prompts({"a": files[0], "b": files[1]}, replace(settings, data=data), lambda: False)


def test_a_gguf_file_is_a_model_and_no_file_of_answers(tmp_path, files, tiny_folder, monkeypatch):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
    settings = asking(tmp_path, data=DataConfig(path=(str(tmp_path / "rows.jsonl"),)))
    asked = []
    monkeypatch.setattr(
        "luthier.comparison.contestants.generate_or_reuse", lambda label, name, *_: asked.append(name) or ["cat"] * 3
    )
    answer_prompts({"a": files[0], "m": str(tmp_path / "m.gguf")}, settings, lambda: False)
    assert asked == [str(tmp_path / "m.gguf")]


@pytest.mark.medium
def test_a_prompt_that_is_too_long_is_left_out_and_counted(tmp_path, tiny_folder, capsys):
    """One of them must not be in the way of the others; for a judge it is the same."""
    rows = [{"prompt": p, "completion": "cat"} for p in ("who sat?", "who? " * 300, "who ran?")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = asking(tmp_path, data=DataConfig(path=(str(tmp_path / "rows.jsonl"),)))
    for _ in range(2):  # written, and read again
        prompts, given = answer_prompts({"base": str(tiny_folder), "reference": "reference"}, settings, lambda: False)
        assert [message[0].content for message in prompts.messages] == ["who sat?", "who ran?"]
        assert (prompts.too_long, len(given["base"]), given["reference"]) == (1, 2, ["cat", "cat"])
        assert "1 of 3 prompts do not fit the context of a contestant" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(InputError, match=sentence("no prompt fits all")):
        answer_prompts({"base": str(tiny_folder), "reference": "reference"}, settings, lambda: False)


# --- Judges ---------------------------------------------------------------------------------------------


def test_a_local_judge_decides_by_the_probability_of_its_first_token(tiny_folder):
    """Against transformers, sequence by sequence."""
    import torch
    from transformers import AutoModelForCausalLM

    opened = open_model(str(tiny_folder), device="cpu", dtype="float32")
    asked = comparisons_in_both_orders(
        [(Message("user", p),) for p in PROMPTS[:2]], {"a": ["the cat", "a"], "b": ["the dog", "tree"]}
    )
    judge_ = LocalJudge("tiny", replace_room(opened))
    found = dict(judge_.compare(asked, lambda: False))
    theirs = AutoModelForCausalLM.from_pretrained(tiny_folder)
    for index, contest in enumerate(asked):
        text = f"<|im_start|>user\n{contest.messages[0].content}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([opened.tokenizer.encode(text, special=True)])
        logp = theirs(ids).logits[0, -1].log_softmax(-1).detach()
        a, b = (opened.tokenizer.encode(option)[0] for option in "AB")
        assert found[index].log_odds == pytest.approx(float(logp[a] - logp[b]), abs=1e-4)
        assert found[index].option == ("A" if logp[a] >= logp[b] else "B")


def replace_room(opened):
    opened.model.config.max_position_embeddings = 4096
    return opened


def test_what_a_local_judge_cannot_hold_is_not_judged(tiny_folder):
    opened = open_model(str(tiny_folder), device="cpu", dtype="float32")
    asked = comparisons_in_both_orders([(Message("user", "who? " * 200),)], {"a": ["x"], "b": ["y"]})
    assert dict(LocalJudge("tiny", opened).compare(asked, lambda: False)) == {0: None, 1: None}
    with pytest.raises(Stopped):
        list(LocalJudge("tiny", opened).answer_questions([(Message("user", "?"),)], lambda: True))


class Served:
    """An endpoint that answers from a function."""

    model = "big"

    def __init__(self, answer):
        self.answer = answer

    def complete(self, messages, accept, stop):
        return accept(self.answer(messages[0].content))


def test_a_written_judge_asks_in_parallel_and_skips_garbage(capsys):
    asked = comparisons_in_both_orders(
        [(Message("user", f"q{i}"),) for i in range(6)], {"a": ["x"] * 6, "b": ["yy"] * 6}
    )
    found = dict(
        EndpointJudge(Served(lambda text: "what?" if "q3" in text else "tie"), parallel=3).compare(asked, lambda: False)
    )
    assert sorted(found) == list(range(12))
    assert [i for i, choice in found.items() if choice is None] == [6, 7] or {6, 7} == {
        i for i, c in found.items() if c is None
    }
    assert found[0] == Choice("tie")
    assert "left out: the answer names none of A, B, tie: 'what?'" in capsys.readouterr().err


def test_a_written_judge_that_fails_gives_out_what_was_under_way():
    def answer(text):
        if "q2" in text:
            raise RunError("status 401", where="big")
        return "A"

    asked = comparisons_in_both_orders(
        [(Message("user", f"q{i}"),) for i in range(40)], {"a": ["x"] * 40, "b": ["yy"] * 40}
    )
    seen = []
    with pytest.raises(RunError, match=sentence("injected status 401")):
        seen.extend(index for index, _ in EndpointJudge(Served(answer), parallel=2).compare(asked, lambda: False))
    assert {0, 1, 2, 3} <= set(seen)
    assert len(seen) < 10


def test_a_written_judge_stops_when_asked():
    asked = comparisons_in_both_orders(
        [(Message("user", f"q{i}"),) for i in range(40)], {"a": ["x"] * 40, "b": ["yy"] * 40}
    )
    seen = []
    source = EndpointJudge(Served(lambda text: "A"), parallel=2).compare(asked, lambda: len(seen) >= 4)
    with pytest.raises(Stopped):
        seen.extend(index for index, _ in source)
    assert 4 <= len(seen) <= 8


def test_one_judge_must_be_named():
    with pytest.raises(InputError, match=sentence("no judge given", fault="no judge is named")):
        JudgeSpec().open()
    with pytest.raises(InputError, match=sentence("no judge given", where="suite.yaml:3", fault="no judge is named")):
        JudgeSpec().open("suite.yaml:3")
    with pytest.raises(InputError, match=sentence("no judge given", fault="two judges")):
        JudgeSpec(judge="a", endpoint="http://b").open()
    assert isinstance(JudgeSpec(endpoint="http://b", endpoint_model="c").open()(), EndpointJudge)


def test_a_judgment_with_one_digit_changed_is_not_believed(judged, tmp_path):
    judged(Longer())
    path = tmp_path / "out" / "j.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    turned = next(line for line in lines if '"verdict": [2, 1]' in line)
    path.write_text("".join(lines).replace(turned, turned.replace('"verdict": [2, 1]', '"verdict": [1, 2]')))
    with pytest.raises(InputError, match=sentence("judgment changed")):
        judged(Longer())


def test_an_answer_or_a_verdict_that_is_kept_and_was_changed_is_not_believed(tmp_path):
    answers = tmp_path / "j.a.answers.jsonl"
    line = with_sum({"prompt": "how many?", "answer": "12", "model": "a", "made": "0"})
    answers.write_text(json.dumps(line) + "\n")
    assert contestants.read_answers(answers)
    answers.write_text(json.dumps(line | {"answer": "13"}) + "\n")
    with pytest.raises(InputError, match=sentence("line changed", where="a.answers.jsonl:1")):
        contestants.read_answers(answers)
    asked = [(Message("user", f"Is it {i}?"),) for i in range(2)]
    served = Served(lambda text: "Yes")
    served.url, served.extra = "http://localhost", {}
    judge_ = EndpointJudge(served)
    path = tmp_path / "said.jsonl"
    assert [choice.option for _, choice in CachedJudge(judge_, path).answer_questions(asked, lambda: False)] == [
        "Yes",
        "Yes",
    ]
    path.write_text('{"judge": "f0\n' + path.read_text())  # a torn line that an earlier version left where it was
    served.complete = None
    assert [choice.option for _, choice in CachedJudge(judge_, path).answer_questions(asked, lambda: False)] == [
        "Yes",
        "Yes",
    ]
    path.write_text(path.read_text().replace('"Yes"', '"No"', 1))
    with pytest.raises(
        InputError,
        match=sentence("line changed", where="said.jsonl:2", fix="delete the line, and that comparison is asked again"),
    ):
        list(CachedJudge(judge_, path).answer_questions(asked, lambda: False))


@pytest.mark.medium
def test_a_local_judge_killed_anywhere_gives_the_same_bits(tiny_folder):
    """Contests are read together in windows, of which one that is not whole is read again as a whole."""
    opened = open_model(str(tiny_folder), dtype="float32")
    prompts = [(Message("user", "who ran by tree " * (i + 1)),) for i in range(5)]
    answers = {"a": [f"cat {i}" for i in range(5)], "b": [f"dog {i} " * 3 for i in range(5)]}
    asked, judge_ = comparisons_in_both_orders(prompts, answers), LocalJudge("tiny", opened, tokens=96, batch_size=4)
    whole = dict(judge_.compare(asked, lambda: False))
    for count in range(len(asked)):
        left = in_unfinished_batches([i < count for i in range(len(asked))], judge_.batch_size)
        again = dict(judge_.compare([asked[i] for i in left], lambda: False))
        assert {left[place]: choice for place, choice in again.items()} == {i: whole[i] for i in left}
