"""Tables fit a terminal, read the same without colour, and say what the numbers say."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from luthier.core.types.examples import Chat, Message, Text
from luthier.core.verdicts import verdict
from luthier.data.data_card import card
from luthier.evals.metrics.measure_answers import loss_question, table
from luthier.evals.stats import paired as evals_compare
from luthier.report.page.charts import short
from luthier.report.screens.ratings import points
from luthier.report.tables import (
    SAMPLE_LINES,
    before_after,
    card_table,
    figures,
    run_summary,
    samples_side_by_side,
    title,
)


def printed(part, width=80, colours=None):
    out = io.StringIO()
    Console(file=out, width=width, color_system=colours, force_terminal=colours is not None).print(part)
    text = out.getvalue()
    if colours is None:
        assert "\x1b" not in text
        assert all(len(line) <= width for line in text.splitlines())
    return text


def line_of(text, name):
    (line,) = (line for line in text.splitlines() if name in line)
    return line.split()


def rows():
    better = table({"exact": [0.0] * 9}, {"exact": [1.0] * 9})
    same = table({"rouge_l": [0.1, 0.5] * 5}, {"rouge_l": [0.5, 0.1] * 5})
    return [*evals_compare.before_after([loss_question([30.0] * 9, [20.0] * 9, [10] * 9)]), *better, *same]


def row(before, after, low, high, **more):
    values = {"name": "x", "unit": "", "before": before, "after": after, "difference": after - before, "n": 8}
    words = verdict(after - before, low, high, better=True)
    return {**values, "low": low, "high": high, "higher_is_better": True, "verdict": words, **more}


def test_the_table_says_better_and_no_difference():
    text = printed(before_after(rows()))
    assert line_of(text, "loss per token") == [
        "loss",
        "per",
        "token",
        "3.000",
        "2.000",
        "−1.000",
        "−1.000",
        "…",
        "−0.577",
        "better",
    ]
    assert line_of(text, "exact, %") == ["exact,", "%", "0.0", "100.0", "+100.0", "+57.7", "…", "+100.0", "better"]
    assert line_of(text, "ROUGE-L")[:4] == ["ROUGE-L", "0.300", "0.300", "+0.000"]
    assert text.count("no difference shown") == 1
    assert "9 to 10 items" in text


def test_the_longest_rows_fit_80_columns_unbroken():
    wide = row(98765.4, 1234.5, -99999.1, 10000.2, title="loss per token")
    text = printed(before_after([wide, *rows()]))
    assert "no difference shown" in text
    assert "−99999 … +10000" in text
    assert len([line for line in text.splitlines() if "loss per token" in line]) == 2


def test_colour_only_repeats_what_the_words_say():
    bare, coloured = printed(before_after(rows())), printed(before_after(rows()), colours="standard")
    assert "\x1b[32mbetter" in coloured
    assert "better" in bare


def test_too_few_items_have_no_interval():
    text = printed(before_after([row(0.1, 0.2, None, None, n=3)]))
    assert "too few to tell" in text
    assert "…" not in text
    assert "3 items" in text


def test_the_line_below_says_how_verdicts_came_about():
    plain_row, tested = row(0.1, 0.2, 0.05, 0.15), row(0.1, 0.2, 0.05, 0.15, corrected=0.01)
    assert "verdicts corrected for 3 rows (Holm)" in printed(before_after([tested] * 3))
    assert "not corrected for the number of rows" in printed(before_after([plain_row]), width=120)
    assert "by interval and test" in printed(before_after([tested]))


@pytest.mark.parametrize(
    ("before", "after", "unit", "wanted"),
    [
        (0.1234, 0.25, "", ["0.123", "0.250", "+0.127"]),
        (0.5, 0.25, "%", ["50.0", "25.0", "−25.0"]),
        (9.0, 12.34, "", ["9.0", "12.3", "+3.3"]),
        (2000.4, 1000.0, "", ["2000", "1000", "−1000"]),
    ],
)
def test_figures_share_the_decimals_of_the_largest(before, after, unit, wanted):
    assert figures(row(before, after, 0, 0, unit=unit), ("before", "after", "difference")) == wanted


def test_figures_of_nothing_and_titles():
    assert figures(row(1, 2, None, None), ("low", "high")) == ["?", "?"]
    assert title({"name": "loss"}) == "loss"
    assert title({"name": "exact", "title": "exact", "unit": "%"}) == "exact, %"


def test_samples_stand_side_by_side_and_control_characters_are_shown():
    text = printed(samples_side_by_side(["ask\x1b[31m"], ["right"], ["old [bold]answer[/bold]"], ["new\tanswer\r"]))
    (both,) = (line for line in text.splitlines() if "old" in line)
    assert both.index("old [bold]answer[/bold]") < 40 <= both.index("new answer�")
    assert "ask�[31m" in text


def test_long_samples_are_cut_and_say_by_how_much():
    text = printed(samples_side_by_side(["q"], ["r"], ["a" * 1000], ["\n".join("line" for _ in range(20))]))
    assert text.replace("\n", " ").count("a") >= 320
    assert "680 more" in " ".join(text.split())
    assert text.count("line") == SAMPLE_LINES
    assert "70 more" in " ".join(text.split())  # 14 lines of 4 letters, and their line ends


def test_an_empty_answer_is_named():
    assert "(empty)" in printed(samples_side_by_side(["q"], ["r"], [" \n"], ["x"]))


def test_wide_characters_fit_too():
    out = io.StringIO()
    console = Console(file=out, width=80, color_system=None)
    console.print(samples_side_by_side(["問" * 90], ["答"], ["旧" * 100], ["新" * 100]))
    assert all(2 * sum(ord(c) > 0x2E80 for c in line) <= 80 for line in out.getvalue().splitlines())
    assert out.getvalue().count("新") == 100


def chats(count=20):
    return [Chat((Message("user", f"what is {i}?"), Message("assistant", ["yes", "no"][i % 2]))) for i in range(count)]


def words(text):
    return len(text.split())


def test_a_real_card_is_shown_whole():
    described = card(
        chats(), count=words, limit=2, test=chats(3), layout="prompt_completion", dropped={"a tie": 2}
    ).as_dict()
    text = printed(card_table(described))
    for part in (
        "prompt_completion", "20 rows over 2 tokens (100.0 %)", "3 exact · 0 near", "2: yes 10, no 10; rarest 10 rows",
        "min 4 · median 4 · 95 % 4 · max 4 · 80 in all", "min 2 · median 2 · 95 % 2 · max 2", "Latin 100.0 %", "2 a tie",
        "distinct-1 0.10",
    ):  # fmt: skip
        assert part in text
    flowing = " ".join(text.split())
    assert len(described["warnings"]) >= 4
    for warning in described["warnings"]:
        assert f"! {warning}" in flowing


@pytest.mark.parametrize(
    ("examples", "count"),
    [
        ([Text("A plain text of a few words. " * 30)], None),
        ([Text("ein Text"), Text("")], words),
        (chats(60), None),
        ([Chat((Message("user", "q"), Message("assistant", "")))], words),
    ],
)
def test_every_card_fits(examples, count):
    described = card(examples, count=count, limit=100).as_dict()
    text = printed(card_table(described))
    assert ("tokens" in text) == (count is not None)
    assert ("characters" in text) == (count is None)
    assert "leaks" not in text


def test_labels_and_layouts_of_users_are_not_read_as_markup():
    examples = [Chat((Message("user", f"q {i}"), Message("assistant", f"[/red]{i % 2}\x1b"))) for i in range(20)]
    text = printed(card_table(card(examples, count=None, limit=9, layout="[bold]").as_dict()))
    assert "[/red]0�" in text
    assert "[bold]" in text


def test_what_to_fix_is_yellow_and_zero_is_faint():
    examples = [Chat((Message("user", f"q {i}"), Message("assistant", f"answer {i}"))) for i in range(60)]
    text = printed(card_table(card(examples, count=words, limit=99).as_dict()), colours="standard")
    assert "\x1b[2m0 rows over 99 tokens" in text
    assert "\x1b[33m60 rows over 1 tokens" in printed(
        card_table(card(examples, count=words, limit=1).as_dict()), colours="standard"
    )


RESULT = {
    "run": "runs/x", "seconds": 61.0, "steps": 3, "tokens": 1000, "tokens_per_second": 50.0, "peak_memory_bytes": 2_000_000_000,
    "trainable": 10, "parameters": 1000, "loss": {"first": 3.0, "last": 2.0, "eval": None},
}  # fmt: skip


def test_the_summary_of_a_run():
    text = printed(run_summary(RESULT))
    for part in ("runs/x", "1:01", "1,000, 50 a second", "2.0 GB", "10 of 1,000 parameters (1.00%)"):
        assert part in text
    assert line_of(text, "first") == ["loss", "first", "3.0000", "·", "last", "2.0000"]
    assert line_of(text, "report") == ["report", "runs/x/report.html"]
    assert line_of(text, "next") == ["next", "luthier", "chat", "runs/x", "--compare", "base"]
    scorer = {"calibration_error": None, "length_correlation": None}
    assert "luthier score 'my runs/x' DATA" in printed(run_summary({"run": "my runs/x", "reward_model": scorer}))


def test_a_summary_of_little_is_short():
    assert line_of(printed(run_summary({"steps": 3, "loss": None})), "steps") == ["steps", "3"]
    assert printed(run_summary({**RESULT, "tokens_per_second": None})).count("second") == 0


def test_a_number_that_rounds_to_zero_has_no_sign_but_that_of_a_change():
    row = {"before": 0.2, "after": 0.19999, "difference": -0.00001, "low": -0.2, "high": -0.0}
    assert figures(row, ("difference", "low", "high")) == ["+0.000", "−0.200", "+0.000"]
    assert (short(-0.0), short(-0.00001)) == ("0", "−1.00e−05")
    assert points({"points": -0.3, "low": -0.4, "high": 5}) == "+0 (+0 … +5)"
