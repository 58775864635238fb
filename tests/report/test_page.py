"""Pages from views: the words of the summary, the places of curves, what is marked, what is escaped."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.config.resolve import resolve
from luthier.core.verdicts import verdict
from luthier.report.page import run_page as run_page_module
from luthier.report.page import summary
from luthier.report.page.charts import MAX_POINTS, Line, chart, short
from luthier.report.page.coding_page import CodingRecord, render_coding_page
from luthier.report.page.compare_page import PairedMetrics, differing, render_compare_page
from luthier.report.page.run_page import (
    SECTIONS,
    code_counts,
    curves,
    lineage,
    metric_cells,
    most_forgotten,
    render_run_page,
)
from luthier.report.page.run_report import Category, ErrorCounts, ForgottenAnswer, RunReport, Sample
from luthier.report.page.word_diff import MAX_CHARACTERS, MAX_PIECES, marked, plain_html

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'
RESULT = {
    "run": "runs/r", "seconds": 61.0, "steps": 4, "tokens": 400, "tokens_per_second": 50.0, "example_tokens": 500,
    "peak_memory_bytes": 2_000_000_000, "trainable": 5, "parameters": 200, "loss": {"first": 3.0, "last": 2.0, "eval": 2.5},
    "forgetting": None, "kept": {"step": 4, "why": "last"},
    "data": {"rows": 90, "held_out": 10, "skipped": 2, "dropped": {"empty": 3}, "cut": 4, "cut_tokens": 40, "unended": 0},
}  # fmt: skip
STEPS = [{"step": s, "loss": 4.0 - s / 2, "lr": 1e-4, "gradient_norm": 1.0, "tokens": 100 * s, "tokens_per_second": 50.0,
          "memory_bytes": 2e9} for s in (1, 2, 3, 4)]  # fmt: skip


def row(name, before, after, low, high, better=True, **more):
    values = {"name": name, "title": name, "unit": "", "top": None, "higher_is_better": better, "n": 10}
    words = verdict(after - before, low, high, better)
    return {**values, "before": before, "after": after, "difference": after - before, "low": low, "high": high,
            "verdict": words, **more}  # fmt: skip


LOSS = row("loss", 3.5, 2.5, -1.2, -0.8, better=False, title="loss per token")


def view(**changes):
    values = {
        "name": "r", "path": "runs/r", "config": resolve({"data.path": ["rows.jsonl"], "train.lr": 1e-3}), "method": "sft",
        "result": RESULT, "rows": [LOSS], "steps": STEPS,
        "lineage": {"inputs": {"data": {"rows.jsonl": "ab" * 32}}, "seed": 0, "luthier": "0.1.0", "code": "c0de",
                    "environment": {"python": "3.11"}},
    }  # fmt: skip
    return RunReport(**(values | changes))


class Elements(HTMLParser):
    """Tags, with the text right inside each."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def names(self):
        return [tag for tag, _ in self.found]


def text(page):
    """A page without its tags, white space as one space."""
    body = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", " ", page)
    for name, character in (("&lt;", "<"), ("&gt;", ">"), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&")):
        body = body.replace(name, character)
    return " ".join(body.split())


def test_a_page_has_every_section_and_headings_in_order():
    page = render_run_page(view())
    elements = Elements(page)
    sections = [attributes["id"] for tag, attributes in elements.found if tag == "section"]
    assert sections == list(SECTIONS)
    links = [attributes["href"] for tag, attributes in elements.found if tag == "a"]
    assert links == ["#content", *(f"#{name}" for name in SECTIONS)]
    levels = [int(tag[1]) for tag in elements.names() if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert ("html", {"lang": "en"}) in elements.found
    assert all(a.get("scope") for tag, a in elements.found if tag == "th")
    for tag in ("nav", "main", "footer"):
        assert elements.names().count(tag) == 1
    assert elements.names().count("svg") == elements.names().count("desc") + 1  # + the interval of the one metric


def test_the_script_is_named_by_its_hash_and_nothing_is_loaded():
    page = render_run_page(view())
    (code,) = re.findall(r"(?s)<script>(.*?)</script>", page)
    policy = next(a["content"] for tag, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy")
    assert f"script-src 'sha256-{b64encode(sha256(code.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not re.findall(r"https?:|@import|url\(|//[a-z]", page)


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
@settings(max_examples=15, deadline=None)
@pytest.mark.medium
def test_text_of_data_makes_no_element(anything):
    """Any text, half surrogate pairs and all: the page has the elements it has with plain text, and is UTF-8."""

    def shape(words):
        sample = Sample(0, f"p{words}", f"r{words}", f"b{words}", f"a{words}")
        page = render_run_page(
            view(
                samples=[sample],
                forgotten=[ForgottenAnswer(f"p{words}", f"a{words}", f"n{words}", 0.5)],
                name=f"n{words}",
            )
        )
        page.encode()
        return [name for name in Elements(page).names() if name not in ("mark", "span")]

    assert shape(anything) == shape("")


def test_data_between_script_tags_cannot_end_them():
    page = render_coding_page("r", "f00", [CodingRecord(0, EVIL, "</script>", "<!--", EVIL)])
    assert Elements(page).names().count("script") == 2
    (data,) = re.findall(r'(?s)<script type="application/json" id="data">(.*?)</script>', page)
    assert json.loads(data)["records"][0]["after"] == EVIL


def test_the_summary_says_what_was_tuned_on_what():
    said = summary.opening(view())
    assert said == (
        "smollm2-135m was tuned with LoRA adapters of rank 16, 2.50 % of its weights, on 90 rows of rows.jsonl. Method: sft."
    )
    assert dict(summary.costs(view()))["time"] == "1:01"


def test_the_main_row_is_chosen_by_what_it_is_and_not_by_how_it_came_out():
    chrf = row("chrf", 20.0, 20.1, -1.0, 1.0)
    bleu = row("bleu", 5.0, 9.0, 3.0, 5.0)
    length = row("length", 9.0, 5.0, -5.0, -3.0, better=None)
    assert summary.main_row([LOSS, length, chrf, bleu]) is chrf
    assert summary.main_row([LOSS, chrf, row("reward", 0.1, 0.2, 0.05, 0.15)])["name"] == "reward"
    assert summary.main_row([LOSS, length]) is LOSS
    assert summary.main_row([length]) is None
    assert summary.main_row([]) is None
    assert summary.headline(view(rows=[LOSS, chrf])).verdict == "no difference shown"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ["Nothing was measured before and after: there were no held-out rows."]),
        ([LOSS], ["Better: loss per token 3.500 → 2.500.", "Nothing measured got worse; what the model forgot was not measured."]),
        (
            [row("chrf", 1.0, 1.1, -0.2, 0.4)],
            ["No difference between before and after is shown on the held-out rows."],
        ),
        (
            [row("chrf", 1.0, 1.1, None, None)],
            [
                "No difference between before and after is shown on the held-out rows. "
                "There are too few held-out rows to tell."
            ],
        ),
        (
            [LOSS, row("x", 2.0, 1.0, -1.5, -0.5), row("y", 1.0, 1.0, 0.0, 0.0), row("z", 1.0, 2.0, 0.5, 1.5, better=None)],
            [
                "Better: loss per token 3.500 → 2.500.", "Worse: x 2.000 → 1.000.", "No difference shown: y.",
                "Changed, where neither is better: z 1.000 → 2.000.",
            ],
        ),
    ],
)  # fmt: skip
def test_the_outcome_in_sentences(rows, said):
    assert summary.verdicts(view(rows=rows)) == said


FORGOT = {"drift": 0.2, "low": 0.1, "high": 0.3, "n": 8, "size": "moderate", "kl": None,
          "sentence": "lost 0.20 nats/token on its own earlier answers: moderate"}  # fmt: skip


@pytest.mark.parametrize(
    ("most_forgotten", "said"),
    [
        (FORGOT, "No row got worse, but the model forgot: 0.20 nats/token of its own earlier answers."),
        (FORGOT | {"size": "none shown"}, "Nothing measured got worse."),
    ],
)
def test_nothing_got_worse_is_said_only_where_nothing_was_forgotten(most_forgotten, said):
    found = view(result=RESULT | {"forgetting": most_forgotten})
    assert summary.verdicts(found) == ["Better: loss per token 3.500 → 2.500.", said]


def test_nothing_got_worse_is_not_said_beside_what_is_told_first():
    first = [{"name": "lost_refusals", "text": "2 refusals were lost", "answers": 2, "category": "lost_refusal"}]
    found = view(result=RESULT | {"forgetting": FORGOT | {"size": "none shown"}, "findings": first})
    assert summary.verdicts(found) == ["Better: loss per token 3.500 → 2.500."]


def test_what_was_not_to_change_and_got_worse_is_part_of_the_outcome():
    general = row("general", 2.0, 3.0, 0.5, 1.5, better=False, title="general text, loss per token")
    kept = row("refused", 0.5, 0.4, -0.3, 0.1, better=None)
    said = summary.verdicts(view(retention=[general, kept]))
    assert said == ["Better: loss per token 3.500 → 2.500.", "Worse: general text, loss per token 2.000 → 3.000."]


def test_cells_place_the_interval_around_zero():
    """The largest of the interval's ends reaches 45 % of the width from the middle: -1.2 at 5, -1.0 at 12.5, -0.8 at 20."""
    assert metric_cells(LOSS).span == pytest.approx((5.0, 12.5, 20.0))
    assert metric_cells(row("x", 1.0, 1.0, 0.0, 0.0)).span == (50, 50, 50)
    assert metric_cells(row("x", 1.0, 2.0, None, None)).span is None
    assert metric_cells(row("x", 1.0, 2.0, 0.5, 1.5)).verdict == "better"
    assert metric_cells(row("x", 1.0, 2.0, 0.5, 1.5, verdict="no difference shown")).verdict == "no difference shown"


def test_words_that_the_other_text_lacks_are_marked():
    assert str(marked("the cat sat", "the dog sat", "new")) == 'the <mark title="new">cat</mark> sat'
    assert str(marked("a b c d", "a d", "new")) == 'a <mark title="new">b c</mark> d'
    assert str(marked("a<b", "a", "new")) == 'a<mark title="new">&lt;b</mark>'
    assert str(marked("same", "same", "new")) == "same"
    assert "(empty)" in marked("  ", "a", "new")
    assert str(marked("a & b", "", "new")) == "a &amp; b"  # nothing to compare with
    assert str(marked("東京は", "京都は", "new")) == '<mark title="new">東</mark>京は'  # no spaces: by character
    assert "<mark" in marked("word", "other " * (MAX_PIECES // 2), "new")
    assert "<mark" not in marked("word", "other " * (MAX_PIECES // 2 + 1), "new")
    assert "1 more characters" in plain_html("x" * (MAX_CHARACTERS + 1))


def test_a_chart_maps_points_to_places():
    """Steps 0 to 10 over 1000 units, values 0 to 5 from 400 up to 0."""
    drawn = chart("loss", "Loss", "", [Line("training", [(0, 5.0), (5, 2.5), (10, 0.0)])])
    assert drawn.lines[0].path == "M0 0L500 200L1000 400"
    assert drawn.y_ticks[0] == (1.0, "0")
    assert drawn.y_ticks[-1] == (0.0, "5")
    assert drawn.description == "Training from 5.00 at step 0 to 0 at step 10."
    hover = json.loads(drawn.hover())
    assert (hover["x"], hover["lines"][0]["values"][1]) == ([0, 10], [5, 2.5])


def test_charts_of_odd_series():
    assert chart("x", "X", "", [Line("a", []), Line("b", [(1, float("nan"))])]) is None
    one = chart("x", "X", "", [Line("a", [(3, 2.0)])])
    assert one.lines[0].path.endswith("h0")
    assert chart("x", "X", "", [Line("a", [(1, 1.0), (2, float("inf")), (3, 2.0)])]).lines[0].last == "2.00"
    long = chart("x", "X", "", [Line("a", [(i, float(i % 7)) for i in range(50_000)], noisy=True)])
    assert len(long.lines[0].values) <= MAX_POINTS + 1
    assert long.lines[0].values[-1][0] == 49_999
    assert len(long.hover()) < 20_000


def test_what_a_policy_learned_comes_first():
    steps = [{**step, "reward": 0.5, "kl_per_answer": 0.1} for step in STEPS] + [{"step": 4, "eval_reward": 0.75}]
    names = [one.name for one in curves(view(steps=steps))]
    assert names == ["reward", "kl", "policy", "norm", "rate"]
    assert [one.name for one in curves(view())] == ["loss-step", "loss-token", "norm", "rate"]


def test_a_reward_and_its_judge_are_drawn_over_the_distance_each_on_its_own_scale():
    steps = [{**step, "reward": 0.25 * step["step"], "kl_per_answer": 2.0 - 0.5 * step["step"]} for step in STEPS]
    steps += [{"step": s, "eval_reward": s, "eval_judge": -10.0 * s, "eval_kl_per_answer": 0.25 * s} for s in (2, 4)]
    found = {one.name: one for one in curves(view(steps=steps))}
    assert list(found)[:4] == ["reward", "over", "over-judge", "judge"]
    assert [line.name for line in found["reward"].lines] == ["training", "held-out"]
    rollouts, held = found["over"].lines
    assert rollouts.values == [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5), (1.5, 0.25)]  # by distance
    assert held.values == [(0.5, 2.0), (1.0, 4.0)]
    assert found["over-judge"].lines[0].values == [(0.5, -20.0), (1.0, -40.0)]
    assert found["judge"].lines[0].values == [(2.0, -20.0), (4.0, -40.0)]
    assert [words for _, words in found["over"].x_ticks] == ["0.0", "0.5", "1.0", "1.5"]
    assert found["over"].x_range == found["over-judge"].x_range == (0.0, 1.5)


def test_a_judge_that_was_asked_before_and_after_alone_has_two_points():
    steps = [{**step, "reward": 0.5, "kl_per_answer": -0.5 + step["step"]} for step in STEPS]
    rows = [row("reward", 0.1, 0.5, 0.3, 0.5), row("judge", 3.0, 2.0, -1.5, -0.5)]
    found = {one.name: one for one in curves(view(steps=steps, rows=rows))}
    assert found["reward"].lines[1].values == [(0.0, 0.1), (4.0, 0.5)]
    assert found["judge"].lines[0].values == [(0.0, 3.0), (4.0, 2.0)]
    assert found["over-judge"].lines[0].values == [(0.0, 3.0), (3.5, 2.0)]


def test_what_the_judge_did_not_see_is_told_first():
    told = {"confirmed": False, "sentence": "the reward rose, but the judge's fell"}
    page = render_run_page(view(result={**RESULT, "judge": told}))
    assert '<p class="worse">The reward rose, but the judge&#39;s fell.</p>' in page
    seen = render_run_page(view(result={**RESULT, "judge": {"confirmed": True, "sentence": "both rose"}}))
    assert "<p>Both rose.</p>" in seen


def test_shares_that_are_all_zero_lie_at_the_bottom_of_their_figure():
    steps = [{**step, "reward": 0.5, "kl_per_answer": 0.0, "clipped": 0.0} for step in STEPS]
    clipped = next(one for one in curves(view(steps=steps)) if one.name == "clipped")
    assert clipped.y_range == (0.0, 1.0)


def test_where_nothing_was_measured_meanwhile_the_held_out_loss_has_two_points():
    step, token = curves(view())[:2]
    assert step.lines[1].values == [(0.0, 3.5), (4.0, 2.5)]
    assert token.lines[1].values == [(0.0, 3.5), (400.0, 2.5)]
    assert step.lines[1].path == ""  # nobody knows how it went between them


def test_short_numbers():
    assert [short(v) for v in (0, 0.12345, 12.345, 1234.5, -2.5, 3e-7)] == [
        "0", "0.123", "12.3", "1,234", "−2.50", "3.00e−07",
    ]  # fmt: skip


def test_a_series_by_token_gives_evaluations_the_tokens_of_their_step():
    steps = [*STEPS, {"step": 4, "eval_loss": 2.25}, {"step": 2, "eval_loss": None}]
    assert view(steps=steps).series("eval_loss", "tokens") == [(400.0, 2.25)]
    assert view().series("loss", "tokens")[0] == (100.0, 3.5)


def test_a_series_that_steps_and_evaluations_have_is_that_of_the_steps():
    """The length of a rollout is in tokens, that of held-out answers in characters."""
    steps = [{**STEPS[0], "length": 12.0}, {"step": 1, "eval_reward": 0.5, "length": 47.0}]
    assert view(steps=steps).series("length") == [(1.0, 12.0)]


def test_data_says_what_the_rows_are():
    about = {
        "layout": "alpaca", "lengths": {"unit": "tokens", "min": 5, "median": 60, "p95": 1200, "max": 2048},
        "duplicates": 3, "compared": 90, "languages": {"English": 0.9, "German": 0.095, "Dutch": 0.005}, "looked_at": 2000,
    }  # fmt: skip
    rows = dict(run_page_module.data_facts(view(data_description=about)))
    assert rows["layout"] == "alpaca"
    assert rows["tokens of a row"] == "5 to 2,048; half have up to 60, 95 % up to 1,200"
    assert rows["rows equal to an earlier one"] == "3"
    assert rows["languages, guessed from 2,000 rows"] == "English 90%, German 10%"
    unknown = dict(
        run_page_module.data_facts(
            view(data_description={"layout": "text", "lengths": None, "duplicates": None, "languages": None})
        )
    )
    assert set(unknown) == {
        "layout",
        *dict(run_page_module.data_facts(view())),
    }  # a stream, and a run that kept none of it


def test_data_names_what_was_dropped_and_cut():
    page = text(render_run_page(view()))
    assert "dropped 3 empty; 2 could not be read" in page
    assert "cut at 1,024 tokens 4 rows, 40 tokens of them lost" in page
    assert "500 (20% saved by sharing prefixes)" in page


def test_settings_that_differ_come_first_and_make_the_command():
    config = resolve(
        {"data.path": ["a b.jsonl"], "train.lr": 1e-3, "data.columns": {"output": "x"}, "eval.forgetting": False,
         "lora.targets": ["*.q_proj", "*.v_proj"], "out": "runs/r"}
    )  # fmt: skip
    names = [name for name, _, _, differs in summary.settings(config) if differs]
    assert names == ["out", "data.path", "data.columns", "lora.targets", "train.lr", "eval.forgetting"]
    assert summary.command(config).replace(" \\\n ", "") == (
        "luthier train 'a b.jsonl' --data.columns output=x --lora.targets '*.q_proj' --lora.targets '*.v_proj' "
        "--train.lr 0.001 --no-eval.forgetting"
    )


def test_lineage_names_every_file_that_went_in():
    inputs = {"data": {"r": "d1"}, "benchmark": {"arc": {"f": "b1"}}, "template": "t1", "computing": {"dtype": "x"}}
    groups = dict(lineage({"inputs": inputs, "seed": 3, "environment": {"torch": "2"}}))
    assert groups["data, sha256"] == [("r", "d1")]
    assert groups["benchmark, sha256"] == [("arc/f", "b1")]
    assert groups["text"] == [("template", "t1")]
    assert ("seed", "3") in groups["made by"]
    assert ("torch", "2") in groups["made by"]


def test_samples_beyond_the_first_ten_are_folded_away():
    samples = [Sample(i, f"who {i}?", "cat", "dog", "cat") for i in range(230)]
    page = render_run_page(view(samples=samples))
    assert page.index("who 9?") < page.index("190 more</summary>") < page.index("who 10?")
    assert "who 199?" in page
    assert "who 200?" not in page
    assert "30 more are in" in text(page)


def test_sections_without_anything_say_how_to_get_it():
    page = text(render_run_page(view(rows=[], steps=[])))
    assert "generated no answers in which errors could be looked for" in page
    assert "luthier errors runs/r" in text(
        render_run_page(view(samples=[Sample(0, "q", "a", "b", "c")]))
    )  # of an older version
    assert "No answers were generated by this run" in page
    assert "What the model forgot was not measured." in page
    assert "No step was recorded." in page


def test_errors_and_codes_by_hand():
    category = Category("wrong number", "another number", row("number", 0.5, 0.25, -0.4, -0.1, better=False, unit="%"))
    lines = [{"tags": ["a", "b"], "headings": {"a": "h"}}, {"tags": ["a"]}, {"tags": []}, {"tags": ["a"]}]
    grouped = code_counts(lines)
    assert [(h, [(b.name, b.count, b.share) for b in bars]) for h, bars in grouped.items()] == [
        ("h", [("a", 3, 0.75)]), ("", [("b", 1, 0.25)]),
    ]  # fmt: skip
    sound = Category("nothing found", "No rule.", row("sound", 0.5, 0.75, 0.1, 0.4, better=True, unit="%"))
    page = text(render_run_page(view(errors=ErrorCounts(8, sound, [category]), codes=lines)))
    assert "Verdict nothing found No rule. 4 6 better +10.0 … +40.0" in page
    assert "Defects wrong number another number 4 2 better −40.0 … −10.0" in page
    assert "None of 8 answers has a defect" not in page
    assert "Coded by hand 4 answers." in page
    page = text(render_run_page(view(errors=ErrorCounts(8, sound, []))))
    assert "None of 8 answers has a defect that rules can find." in page and "Defects" not in page


def test_the_answers_that_lost_most_come_first():
    lost = [
        ForgottenAnswer("a", "x", "u", 0.1),
        ForgottenAnswer("b", "y", "v", -0.2),
        ForgottenAnswer("c", "z", "w", 0.7),
    ]
    assert [(str(one.prompt), one.drift, one.probability_kept) for one in most_forgotten(view(forgotten=lost))] == [
        ("c", "+0.70", "50%"), ("a", "+0.10", "90%"),
    ]  # fmt: skip


def test_what_was_lost_in_sentences():
    found = {"sentence": "lost 0.40 nats/token", "size": "moderate", "drift": 0.4, "low": 0.2, "high": 0.6, "n": 16, "tokens": 99,
             "kl": {"on_answers_before": {"value": 0.5, "low": -0.1, "high": 1.1, "n": 16}}}  # fmt: skip
    shown = view(
        result=RESULT | {"forgetting": found}, retention=[row("ended", 0.5, 0.75, 0.1, 0.4, better=None, unit="%")]
    )
    assert summary.forgetting_sentences(shown) == [
        "Lost 0.40 nats/token. 95 % interval 0.20 … 0.60, 16 answers.",
        "Divergence from the starting model (KL) on the tokens of its answers before: 0.50 nats (−0.10 … 1.10).",
    ]
    assert "ended, % 50.0 75.0 +25.0 +10.0 … +40.0 higher" in text(render_run_page(shown))


def test_runs_side_by_side():
    one = view(samples=[Sample(0, "who?", "cat", "x", "dog"), Sample(1, "only one", "a", "b", "c")])
    two = view(
        name="s", config=resolve({"data.path": ["rows.jsonl"], "train.lr": 2e-3}),
        samples=[Sample(5, "who?", "cat", "x", EVIL)], rows=[],
    )  # fmt: skip
    assert differing([one, two]) == [("train.lr", ["0.001", "0.002"])]
    page = render_compare_page([one, two], [PairedMetrics("s", [row("chrf", 1.0, 2.0, 0.5, 1.5)])])
    assert "<script>alert" not in page
    said = text(page)
    assert "not measured" in said  # of a metric that only one run has
    assert "only one" not in said
    assert "s against r" in said
    assert "chrf 1.000 2.000 +1.000 +0.500 … +1.500 better" in said


def test_a_record_is_named_by_what_was_read():
    one = CodingRecord(0, "p", "r", "b", "a")
    assert re.fullmatch("[0-9a-f]{12}", one.id)
    assert one.id == CodingRecord(0, "p", "r", "other", "a", [("x", "y")]).id
    assert one.id != CodingRecord(0, "p", "r", "b", "changed").id


def test_what_a_data_card_does_not_say_is_not_asked_of_it():
    """One of an older version, or damaged."""
    about = {"layout": "chat", "duplicates": 2, "languages": {"English": 1.0}}
    told = dict(run_page_module.data_facts(view(data_description=about)))
    assert told["rows equal to an earlier one"] == "2"
    assert told["languages, guessed"] == "English 100%"
