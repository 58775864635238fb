"""Tables fit a terminal and say what the numbers say; pictures are XML with the data in the right place."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from luthier.core.types import Chat, Message
from luthier.data.card import card
from luthier.evals.score import loss_row, table
from luthier.report import plot, screens
from luthier.report.tables import before_after, card_table, run_summary, samples_side_by_side, verdict


def printed(part, width=80):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(part)
    text = out.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    return text


def rows():
    better = table({"exact": [0.0] * 9}, {"exact": [1.0] * 9})
    same = table({"rouge_l": [0.1, 0.5] * 5}, {"rouge_l": [0.5, 0.1] * 5})
    return [loss_row([30.0] * 9, [20.0] * 9, [10] * 9), *better, *same]


def test_the_table_says_better_and_no_difference():
    text = printed(before_after(rows()))
    assert "3.000" in text
    assert text.count("better") == 2
    assert "no difference shown" in text
    assert "100.0" in text


@pytest.mark.parametrize(
    ("low", "high", "higher", "words"),
    [
        (0.1, 0.2, True, "better"), (-0.2, -0.1, True, "worse"), (-0.2, -0.1, False, "better"), (0.1, 0.2, None, "higher"),
        (-0.1, 0.1, True, "no difference shown"), (None, None, True, "too few items"),
    ],
)  # fmt: skip
def test_verdicts(low, high, higher, words):
    assert verdict({"low": low, "high": high, "higher_is_better": higher}) == words


def test_a_real_card_is_shown_whole():
    chats = [Chat((Message("user", f"what is {i}?"), Message("assistant", ["yes", "no"][i % 2]))) for i in range(20)]
    described = card(chats, count=lambda text: len(text.split()), limit=2, test=chats[:3], layout="prompt_completion")
    text = printed(card_table(described.as_dict()))
    for words in ("prompt_completion", "rows", "20 rows over 2 tokens", "leaks", "3 exact", "labels", "yes 10"):
        assert words in text
    assert "!" in text


def test_samples_stand_side_by_side_and_control_characters_are_shown():
    text = printed(samples_side_by_side(["ask\x1b[31m"], ["right"], ["old answer"], ["new answer"]))
    assert "old answer" in text
    assert "new answer" in text
    assert "\x1b" not in text


def test_the_summary_and_the_screens_of_a_run():
    result = {
        "run": "runs/x", "seconds": 61.0, "steps": 3, "tokens": 1000, "tokens_per_second": 50.0, "peak_memory_bytes": 2_000_000_000,
        "trainable": 10, "parameters": 1000, "loss": {"first": 3.0, "last": 2.0, "eval": None},
    }  # fmt: skip
    text = printed(run_summary(result))
    for words in ("runs/x", "1:01", "2.0 GB", "1.00%", "first 3.0000"):
        assert words in text
    out = io.StringIO()
    values = {
        "rows": rows(),
        "prompts": ["p"],
        "references": ["r"],
        "before": ["b"],
        "after": ["a"],
        "forgetting": "lost 1",
        "result": result,
    }
    screens.show(Console(file=out, width=80, color_system=None), "after", values)
    assert "what the model forgot" in out.getvalue()


def test_the_loss_curve_maps_data_to_places(tmp_path):
    path = tmp_path / "loss.svg"
    plot.loss_curve([(i, 4.0 - i / 10) for i in range(1, 31)], [(30, 1.5)], "training loss", path)
    root = ET.parse(path).getroot()
    assert root.tag.endswith("svg")
    text = path.read_text()
    assert "<title" in text
    assert "prefers-color-scheme" in text
    lines = [e for e in root.iter() if e.tag.endswith(("polyline", "path")) and (e.get("points") or e.get("d"))]
    assert lines


def test_bars_name_every_metric(tmp_path):
    path = tmp_path / "table.svg"
    plot.before_after_bars(rows(), path)
    ET.parse(path)
    for row in rows():
        assert row["title"] in path.read_text()


def test_ticks_are_round_and_span_the_data():
    assert plot.ticks(0.0, 9.7) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    low, *_, high = plot.ticks(1.234, 1.236)
    assert low <= 1.234
    assert high >= 1.236


def test_a_moving_average_keeps_a_straight_line_straight():
    points = [(i, 2.0 * i) for i in range(60)]
    assert [y for _, y in plot.moving_average(points)] == pytest.approx([y for _, y in points])
