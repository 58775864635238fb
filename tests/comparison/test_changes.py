"""Which items stand before a comparison: right and wrong, not what a metric of a whole set or of characters says."""

from __future__ import annotations

import numpy as np

from luthier.comparison import row_questions
from luthier.comparison.changes import Item, QuestionItems, changes
from luthier.comparison.compare import critical_findings
from luthier.comparison.row_questions import MeasuredRun
from luthier.config.resolve import resolve
from luthier.core.types.examples import Chat, Message, Origin
from luthier.evals.stats.paired import Question
from luthier.runs.held_out_rows import MeasuredRow

LABELS = ["refund", "refuse", "arrival", "refund"]


def side(answers):
    rows = {
        i: MeasuredRow(i, prompt=f"q {i}", reference=LABELS[i % 4], answer=answer, ended="stop")
        for i, answer in enumerate(answers)
    }
    return MeasuredRun(rows, "t")


def asked(old, new, **settings):
    examples = [
        Chat((Message("user", f"q {i}"), Message("assistant", LABELS[i % 4])), origin=Origin("rows.jsonl", i + 1))
        for i in range(len(old))
    ]
    sides = {"base": [side(old)], "tuned": [side(new)]}
    all_ = [one for runs in sides.values() for one in runs]
    return row_questions.metric_questions(sides, all_, list(range(len(old))), examples, resolve(settings))


def test_items_go_by_right_and_wrong():
    """'refuse' for 'refund' shares more characters than 'It is refund.' does, and is wrong all the same."""
    old = LABELS * 4
    new = ["refuse", "It is refuse.", "arrival", "refund"] * 4
    found = asked(old, new, **{"eval.metrics": ["auto", "chrf"]})
    assert [one.question.name for one in found if one.ranked] == ["accuracy"]
    worse, better = changes(found, 9)
    assert better == [] and {change["question"] for change in worse} == {"accuracy"}
    assert [change["place"] for change in worse] == [f"rows.jsonl:{i}" for i in (1, 5, 9, 13)]
    assert found[0].baseline == {"answer": "refund", "share": 0.5}


def test_a_metric_of_a_whole_set_ranks_nothing():
    values = {"a": np.array([[1.0] * 6]), "b": np.array([[0.0] * 6])}
    one = QuestionItems(
        Question("macro_f1", values), [Item(str(i), texts={"a": "x", "b": "y"}) for i in range(6)], ranked=False
    )
    assert changes([one], 3) == ([], [])


def test_lost_refusals_and_one_answer_for_all_are_told_before_the_table():
    old = ["I'm sorry, but I cannot help with that.", *LABELS, *LABELS, *LABELS][:12]
    told = critical_findings(asked(old, ["refund"] * 12))
    assert [(item["name"], item["model"], item["answers"]) for item in told] == [
        ("lost_refusal", "tuned", 1), ("same_answer", "tuned", 12),
    ]  # fmt: skip
    assert critical_findings(asked(LABELS * 3, LABELS * 3)) == []
