"""A suite run on a tiny model: answers, Python checks in a process of their own, a judge, the XML."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from luthier.config.rewards import RewardConfig
from luthier.core.errors import InputError, RunError
from luthier.evals.judging.judges import JudgeSpec
from luthier.evals.judging.prompt import Choice
from luthier.evals.suites import evaluation as suite_module
from luthier.evals.suites.evaluation import PreparedSuite, run_suite
from sentences import sentence

SUITE = """\
name: tiny
sampling: {max_new_tokens: 4}
threshold: 0.5
groups:
  - name: plain
    cases:
      - {name: short, prompt: "who?", checks: [{length: {max: 400}}]}
      - {name: never, prompt: "what?", checks: [{equals: what no model says}]}
  - name: code
    cases:
      - name: python
        prompt: "who sat?"
        reference: cat
        checks: [{python: "f.py:right"}, {python: {function: "f.py:score", at_least: 2}}]
  - name: many
    sampling: {n: 3, temperature: 1, seed: 5}
    cases:
      - {name: judged, prompt: a, checks: [{judged: "Is it short?"}, {not: {judged: "Is it long?"}}]}
"""
CODE = """\
def right(answers, references, prompts):
    return [r == "cat" and p == "who sat?" for r, p in zip(references, prompts)]

def score(answers):
    return [1.5] * len(answers)
"""


class Short:
    """Says that everything is short, and nothing long."""

    name = "short"
    batch_size = 1

    def __init__(self):
        self.asked = []

    def digest(self):
        return self.name

    def answer_questions(self, asked, stop):
        self.asked.append(len(asked))
        for index, messages in enumerate(asked):
            yield index, Choice("Yes" if "short" in messages[0].content else "No")


@pytest.fixture
def tested(tmp_path, tiny_folder, monkeypatch):
    """Run SUITE, changed, on the tiny model."""
    (tmp_path / "f.py").write_text(CODE)
    judge = Short()

    def run(text=SUITE, own_judge=True, **named):
        (tmp_path / "suite.yaml").write_text(text)
        with monkeypatch.context() as patch:
            if own_judge:
                patch.setattr(JudgeSpec, "open", lambda self, where=None: lambda: judge)
            return run_suite(
                tmp_path / "suite.yaml",
                str(tiny_folder),
                JudgeSpec(),
                settings=RewardConfig(),
                device="cpu",
                dtype="float32",
                **named,
            )

    run.judge = judge
    return run


def test_every_kind_of_check_is_run(tested, tmp_path):
    found = tested(xml=tmp_path / "out" / "results.xml")
    assert [(o.case.name, o.passed) for o in found.outcomes] == [
        ("short", True), ("never", False), ("python", False), ("judged", True)
    ]  # fmt: skip
    assert found.outcomes[2].failures[0][1] == ["f.py:score gives 1.5, less than 2"]
    assert tested.judge.asked == [3, 3]  # the three answers at once, for each question
    assert len(found.outcomes[3].answers) == 3
    assert (found.all.rate, found.met, found.name) == (0.5, True, "tiny")
    assert '<testcase name="never" classname="plain">' in (tmp_path / "out" / "results.xml").read_text()
    told = found.as_dict()
    assert told["all"]["met"]
    assert [group["passed"] for group in told["groups"]] == [1, 0, 1]


@pytest.mark.medium
def test_answers_are_those_of_generation_and_their_seed(tested):
    one, two = tested(), tested()
    assert [o.answers for o in one.outcomes] == [o.answers for o in two.outcomes]
    other = tested(SUITE.replace("seed: 5", "seed: 6"))
    assert other.outcomes[3].answers != one.outcomes[3].answers
    assert other.outcomes[0].answers == one.outcomes[0].answers


def test_everything_wrong_is_found_before_a_model_is_loaded(tested, monkeypatch):
    monkeypatch.setattr(suite_module, "open_model", lambda *a, **n: pytest.fail("loaded"))
    with pytest.raises(InputError, match=sentence("no judge given", where="suite.yaml:18", fault="no judge is named")):
        tested(own_judge=False)
    with pytest.raises(InputError, match=sentence("no such file", where="reward 'python:g.py:right'")):
        tested(SUITE.replace("f.py:right", "g.py:right"))
    with pytest.raises(InputError, match=sentence("no such function", name="wrong")):
        tested(SUITE.replace("f.py:right", "f.py:wrong"))


@pytest.mark.medium
def test_a_python_check_that_fails_or_gives_too_little_is_named(tested, tmp_path):
    (tmp_path / "f.py").write_text(CODE.replace("[1.5] * len(answers)", "[]"))
    with pytest.raises(
        InputError, match=sentence("numbers not one an answer", where="python 'f.py:score'", numbers=0, answers=1)
    ):
        tested()
    (tmp_path / "f.py").write_text(CODE.replace("[1.5] * len(answers)", "1 / 0"))
    with pytest.raises(RunError, match=sentence("function failed", fault="ZeroDivisionError…")):
        tested()


ALIKE = """\
sampling: {max_new_tokens: 4}
threshold: 0
groups:
  - name: alike
    cases:
      - {name: near, prompt: "who?", checks: [{similar: {to: the cat, by: embedding, at_least: -1, encoder: toy}}]}
      - {name: far, prompt: "who?", checks: [{similar: {to: the cat, by: embedding, at_least: 1, encoder: toy}}]}
"""


def test_likeness_in_meaning_is_the_cosine_of_an_encoder(tested, monkeypatch):
    class Toy:
        def __init__(self, folder):
            self.folder = folder

        def embed(self, texts):
            assert texts[0] == "the cat"
            return torch.tensor([[1.0, 0.0]] + [[0.6, 0.8]] * (len(texts) - 1))

    asked = []
    monkeypatch.setattr(suite_module, "Encoder", Toy)
    monkeypatch.setattr(
        suite_module, "resolve_encoder", lambda name: asked.append(name) or SimpleNamespace(folder=name)
    )
    found = tested(ALIKE)
    assert asked == ["toy"], "opened once, before any model"
    assert [o.passed for o in found.outcomes] == [True, False]
    assert found.outcomes[1].failures[0][1] == ["cosine 0.60, less than 1"]


def test_settings_of_likeness_that_say_nothing_are_refused(tested):
    with pytest.raises(InputError, match=sentence("encoder not used", by="rouge_l")):
        tested(ALIKE.replace("by: embedding, ", "", 1))
    with pytest.raises(InputError, match=sentence("metric out of range", metric="cosine", given=40)):
        tested(ALIKE.replace("at_least: 1,", "at_least: 40,", 1))
    with pytest.raises(InputError, match=sentence("unknown name", fix="did you mean 'embedding'?")):
        tested(ALIKE.replace("by: embedding", "by: embeding", 1))


@pytest.mark.medium
def test_what_a_judge_said_is_kept_and_not_asked_again(tested, tmp_path):
    """A judge that fails half-way has not spoken in vain; a torn line, as a kill leaves it, is passed over."""
    said = tmp_path / "said.jsonl"
    whole, failing = tested.judge.answer_questions, tested.judge

    def half(asked, stop):
        yield from list(whole(asked, stop))[:2]
        raise RunError("the endpoint is gone")

    failing.answer_questions = half
    with pytest.raises(RunError, match=sentence("injected endpoint gone")):
        tested(said=said)
    assert len(said.read_text().splitlines()) == 2
    with open(said, "a") as handle:
        handle.write('{"judge": "sh')
    failing.answer_questions = whole
    failing.asked.clear()
    found = tested(said=said)
    assert failing.asked == [1, 3], "two of the first question's three answers were known"
    assert found.outcomes[3].passed
    failing.asked.clear()
    assert tested(said=said).outcomes[3].passed
    assert failing.asked == [0, 0]
    tested.judge.name = "another"
    assert tested(said=said).outcomes[3].passed
    assert failing.asked[2:] == [3, 3], "what one judge said is not another's"


def test_a_file_that_cannot_be_written_is_found_before_a_model_is_loaded(tested, tmp_path, monkeypatch):
    monkeypatch.setattr(suite_module, "open_model", lambda *a, **n: pytest.fail("loaded"))
    (tmp_path / "plain").write_text("")
    with pytest.raises(InputError, match=sentence("file in the way", where="plain")):
        tested(said=tmp_path / "plain" / "said.jsonl")


def test_a_file_for_a_judge_is_refused_where_nothing_is_judged(tested, tmp_path, monkeypatch):
    monkeypatch.setattr(suite_module, "resolve_encoder", lambda name: pytest.fail("fetched before it was refused"))
    with pytest.raises(InputError, match=sentence("nothing judged")):
        tested(ALIKE, said=tmp_path / "x")


def test_an_encoder_beside_the_suite_is_found_there(tested, tmp_path, monkeypatch):
    (tmp_path / "toy").mkdir()
    monkeypatch.setattr(suite_module, "Encoder", lambda folder: pytest.fail(str(folder)))
    with pytest.raises(InputError, match=sentence("encoder without settings", name="toy")):
        tested(ALIKE)


def test_what_the_judge_could_not_be_read_on_fails_negated_too(tested, monkeypatch):
    monkeypatch.setattr(
        tested.judge, "answer_questions", lambda asked, stop: iter([(i, None) for i in range(len(asked))])
    )
    outcome = tested().outcomes[3]
    assert (outcome.passed, outcome.rate) == (False, 0.0)
    assert outcome.failures[0][1] == ["the judge's answer could not be read"] * 2


def test_a_prompt_that_is_too_long_is_named_with_its_place(tested, tmp_path):
    """With the line of its row, before anything is answered."""
    (tmp_path / "rows.csv").write_text("asked\nwho?\n" + "who? " * 300 + "\n")
    text = 'groups: [{name: g, rows: rows.csv, prompt: "{asked}", checks: [{length: {max: 400}}]}]'
    with pytest.raises(InputError, match=sentence("prompt too long", where="rows.csv:3", context=512)):
        tested(text)


@pytest.mark.parametrize("function", ["../r.py:f", "sub/../../r.py:f", "/tmp/r.py:f", "linked.py:f"])
def test_code_from_outside_the_folder_of_a_suite_is_not_run(tmp_path, function):
    """A suite may come from others; code beside it is as visible as the suite."""
    (tmp_path / "r.py").write_text("open('planted', 'w')\ndef f(answers): return 1.0\n")
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "linked.py").symlink_to(tmp_path / "r.py")
    check = json.dumps({"python": function})
    (folder / "suite.yaml").write_text(f"groups: [{{name: a, cases: [{{prompt: x, checks: [{check}]}}]}}]")
    with pytest.raises(InputError, match=sentence("code outside the suite", where="suite.yaml:1")):
        PreparedSuite(folder / "suite.yaml", JudgeSpec(), RewardConfig()).__enter__()
