"""Pictures are XML, and the data is in the right place."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.core.verdicts import verdict
from luthier.evals.metrics.measure_answers import loss_question, table
from luthier.evals.stats.paired import before_after
from luthier.report import plot

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def all_of(root, kind, style=None):
    found = root.iter(SVG + kind)
    return [e for e in found if style is None or style in (e.get("class") or "").split()]


def one_of(root, kind, style):
    (found,) = all_of(root, kind, style)
    return found


def numbers(text):
    return [float(number) for number in NUMBER.findall(text)]


def texts(root):
    return {e.text: (float(e.get("x")), float(e.get("y"))) for e in all_of(root, "text")}


def curve(tmp_path, points, evals=(), title="training loss"):
    plot.loss_curve(points, evals, title, tmp_path / "loss.svg")
    return ET.parse(tmp_path / "loss.svg").getroot()


def bars(tmp_path, rows):
    plot.before_after_bars(rows, tmp_path / "table.svg")
    return ET.parse(tmp_path / "table.svg").getroot()


def row(before, after, low, high, **more):
    values = {"name": "x", "unit": "", "top": None, "before": before, "after": after, "difference": after - before}
    words = verdict(after - before, low, high, better=True)
    return {**values, "low": low, "high": high, "n": 8, "higher_is_better": True, "verdict": words, **more}


def test_the_loss_curve_maps_data_to_places(tmp_path):
    """Steps 0 to 10 from pixel 64 to 592, losses 0 to 5 from 340 up to 70: 52.8 and 54 pixels each."""
    root = curve(tmp_path, [(0, 5.0), (5, 2.5), (10, 0.0)], [(0, 4.0), (10, 1.0)])
    assert one_of(root, "path", "train").get("d") == "M64 70L328 205L592 340"
    assert one_of(root, "path", "held").get("d") == "M64 124L592 286"
    assert [(e.get("cx"), e.get("cy")) for e in all_of(root, "circle")] == [("64", "124"), ("592", "286")]
    assert one_of(root, "path", "raw").get("d") == "M64 70h0M328 205h0M592 340h0"
    said = texts(root)
    assert (said["10"], said["5"]) == ((592, 360), (54, 74.5))
    assert said["training 0.00"][1] > said["held-out 1.00"][1]
    assert [numbers(e.get("d"))[1] for e in all_of(root, "path", "grid")] == [286, 232, 178, 124, 70]


def test_the_curve_tells_its_story_in_words(tmp_path):
    root = curve(tmp_path, [(1, 3.0), (2, 2.5)], [(2, 2.75)], title="a < b & c")
    assert root.find(SVG + "title").text == "a < b & c"
    assert root.find(SVG + "desc").text == (
        "Training loss from 3.00 at step 1 to 2.50 at step 2. Held-out loss from 2.75 at step 2 to 2.75 at step 2."
    )
    assert root.get("aria-labelledby") == "title desc"
    assert "prefers-color-scheme: dark" in root.find(SVG + "style").text


def test_words_do_not_touch(tmp_path):
    """The unit stands clear of the highest tick, and two names that end at one loss stand apart."""
    root = curve(tmp_path, [(0, 2.0), (9, 1.0)], [(9, 1.0)])
    said = texts(root)
    highest = min(y for _, y in (said[text] for text in said if text and re.fullmatch(r"[\d.]+", text)))
    assert highest - said["nats per token"][1] >= 18
    assert abs(said["training 1.00"][1] - said["held-out 1.00"][1]) >= 18


@pytest.mark.parametrize(
    ("points", "evals"),
    [
        ([(1, 2.5)], []),
        ([], [(500, 0.0)]),
        ([(7, 2.0), (8, 2.0)], [(8, 2.0)]),
        ([(1, 1e-7), (2, 1e-8)], []),
        ([(100_000, 9.0), (200_000, 8.0)], [(1, 12.0)]),
        ([(i, 1000.0 / (i + 1)) for i in range(500)], []),
    ],
)
def test_all_points_lie_inside_the_frame(tmp_path, points, evals):
    root = curve(tmp_path, points, evals)
    for e in all_of(root, "path", "raw") + all_of(root, "path", "line"):
        places = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", e.get("d"))
        assert places
        assert all(64 <= float(x) <= 592 and 70 <= float(y) <= 340 for x, y in places)
    for e in all_of(root, "circle"):
        assert 64 <= float(e.get("cx")) <= 592
    for e in all_of(root, "text"):
        assert 0 <= float(e.get("x")) <= plot.WIDTH


def test_a_single_point_is_a_dot_between_the_ticks(tmp_path):
    root = curve(tmp_path, [(1, 2.5)])
    assert one_of(root, "path", "train").get("d") == "M592 205h0"


def test_bars_and_whiskers_have_the_length_of_their_values(tmp_path):
    """A share fills 300 pixels at 100 %: 25 % is 75, 50 % is 150; 25 % + (15 % … 35 %) spans 40 % … 60 %."""
    root = bars(tmp_path, [row(0.25, 0.5, 0.15, 0.35, unit="%", top=1)])
    old, new = one_of(root, "rect", "before"), one_of(root, "rect", "after")
    assert [old.get(key) for key in ("x", "width")] == ["150", "75"]
    assert [new.get(key) for key in ("x", "width")] == ["150", "150"]
    assert float(new.get("y")) >= float(old.get("y")) + float(old.get("height"))
    assert one_of(root, "path", "whisker").get("d") == "M270 83v10M270 88H330M330 83v10"
    said = texts(root)
    assert {"x, %", "25.0", "50.0", "+25.0", "better"} <= set(said)
    assert said["50.0"][0] > 330  # beside the whisker, not on it


def test_each_metric_has_a_scale_of_its_own(tmp_path):
    root = bars(tmp_path, [row(100.0, 400.0, None, None), row(0.2, 0.1, -0.2, 0.0)])
    assert [float(e.get("width")) for e in all_of(root, "rect", "before")] == [75, 300]
    assert [float(e.get("width")) for e in all_of(root, "rect", "after")] == [300, 150]
    assert len(all_of(root, "path", "whisker")) == 1
    assert {"too few to tell", "no difference shown"} <= set(texts(root))


def test_nothing_and_less_than_nothing_can_be_drawn(tmp_path):
    root = bars(tmp_path, [row(0.0, 0.0, 0.0, 0.0), row(-1.0, 2.0, 1.0, 4.0)])
    assert all(float(e.get("width")) >= 1 for e in all_of(root, "rect"))
    assert all(float(e.get("x")) >= 150 for e in all_of(root, "rect")[1:])
    assert all(0 <= x <= plot.WIDTH for x, _ in texts(root).values())
    assert len(all_of(bars(tmp_path, []), "rect")) == 1


def test_values_below_zero_go_left_from_zero(tmp_path):
    """-40 -> -20 with zero at the right end (450): -40 is all 300 pixels, -20 the 150 next to zero. -1 -> 2: zero is at a third."""
    root = bars(tmp_path, [row(-40.0, -20.0, 10.0, 30.0), row(-1.0, 2.0, None, None)])
    old, new = all_of(root, "rect", "before"), all_of(root, "rect", "after")
    assert [(e.get("x"), e.get("width")) for e in old] == [("150", "300"), ("150", "100")]
    assert [(e.get("x"), e.get("width")) for e in new] == [("300", "150"), ("250", "200")]
    assert one_of(root, "path", "whisker").get("d") == "M225 83v10M225 88H375M375 83v10"
    assert texts(root)["−40.0"][0] == texts(root)["−20.0"][0] == 458


def test_a_long_name_has_room(tmp_path):
    """Names end left of the bars; the widest of the fonts takes some 8 pixels a letter."""
    root = bars(tmp_path, [row(1.0, 2.0, 0.5, 1.5, title="log p of better answers, in full")])
    end = texts(root)["log p of better answers, in full"][0]
    assert end >= 8 * len("log p of better answers, in full")
    assert float(one_of(root, "rect", "before").get("x")) == end + 14


def test_bars_name_every_metric(tmp_path):
    rows = [
        *before_after([loss_question([30.0] * 9, [20.0] * 9, [10] * 9)]),
        *table({"exact": [0.0] * 9}, {"exact": [1.0] * 9}),
    ]
    rows.append(row(1, 2, 0.5, 1.5, title="<mine & yours>"))
    root = bars(tmp_path, rows)
    assert {"loss per token", "exact, %", "<mine & yours>"} <= set(texts(root))
    told = root.find(SVG + "desc").text
    assert "loss per token: 3.000 before, 2.000 after, better." in told
    _, _, width, height = numbers(root.get("viewBox"))
    assert all(0 <= x <= width and 0 <= y <= height for x, y in texts(root).values())


def test_ticks_by_hand():
    assert plot.tick_values(0.0, 9.7) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert plot.tick_values(1.9, 4.3) == [1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
    assert plot.tick_values(1, 3, whole=True) == [1, 2, 3]
    assert plot.tick_values(2.5, 2.5) == [2.35, 2.4, 2.45, 2.5, 2.55, 2.6, 2.65]


@pytest.mark.parametrize(
    "points",
    [[(1, -2.3e-9)], [(1, 3e-9), (2, 3.2e-9)], [(1, 0.69314718), (2, 0.6931471800001)], [(1, 0.0), (2, 0.0)]],
)
def test_float_noise_is_drawn(tmp_path, points):
    """The loss of an on-policy step is noise around zero; its picture once ended the run with a division by zero."""
    from luthier.report.page.charts import Line, chart

    curve(tmp_path, points)
    assert chart("loss", "loss", "", [Line("training", points)]) is not None


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_ticks_are_round_and_span_the_data(low, size, whole):
    high = low + size
    found = plot.tick_values(low, high, whole=whole)
    slack = size * 1e-6
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 8
    steps = {round(b - a, 6) for a, b in pairwise(found)}
    assert max(steps) - min(steps) <= 2e-6
    assert not whole or all(value == int(value) for value in found)


def test_a_moving_average_keeps_a_straight_line_straight():
    points = [(i, 2.0 * i) for i in range(60)]
    assert [y for _, y in plot.moving_average(points)] == pytest.approx([y for _, y in points])


def test_a_moving_average_by_hand():
    """A fifth of 10 points reaches one to each side; the ends have no neighbour on both sides."""
    points = [(i, float(i % 2)) for i in range(10)]
    third = 1 / 3
    wanted = [0, third, 2 * third, third, 2 * third, third, 2 * third, third, 2 * third, 1]
    assert [y for _, y in plot.moving_average(points, 0.2)] == pytest.approx(wanted)
    assert plot.moving_average(points[:5]) == points[:5]
