"""Every page and picture with payloads in every place that can hold foreign text, in a real browser and with the page's own policy
switched off: no script runs, nothing is asked for, nothing moves, and the payload is there to read."""

from __future__ import annotations

import browser as chromium
import pytest
from payloads import PAYLOADS

from luthier.config.resolve import resolve
from luthier.core.screen import clean
from luthier.core.verdicts import BETTER, WORSE
from luthier.report import plot
from luthier.report.page.coding_page import CodingRecord, render_coding_page
from luthier.report.page.compare_page import PairedMetrics, render_compare_page
from luthier.report.page.run_page import render_run_page
from luthier.report.page.run_report import (
    Category,
    ErrorCounts,
    ForgottenAnswer,
    RewardedAnswer,
    Rollout,
    RunReport,
    Sample,
)

pytestmark = pytest.mark.medium

SIZE = 17  # payloads of a page
GROUPS = [PAYLOADS[i : i + SIZE] for i in range(0, len(PAYLOADS), SIZE)]
# What no page of ours has, and every payload that got through would make.
FOREIGN = """() => [...document.querySelectorAll(
  "img, iframe, object, embed, base, form:not(#add), video, audio, source, template, math, animate, use, foreignObject, plaintext, "
  + "link:not([rel=icon]), meta[http-equiv=refresh], body style, a[href^=javascript], x, mglyph, [contenteditable], [onload], "
  + "[onerror], [onfocus], [onblur], [onmouseover], [onbegin], [ontoggle], [formaction], [srcdoc], [name=records], [name=progress]")]
  .map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def opened():
    with chromium.wanted() as found:
        yield found


def row(name, words):
    return {"name": name, "title": name, "unit": "%", "top": 1, "higher_is_better": True, "n": 10, "before": 0.25, "after": 0.5,
            "difference": 0.25, "low": 0.1, "high": 0.4, "verdict": words, "baseline": {"answer": name, "share": 0.5}}  # fmt: skip


def view(group, name):
    """A run in which every text of a person, a model or a file is a payload."""
    text = " ".join(group)
    result = {
        "run": text, "seconds": 61.0, "steps": 4, "tokens": 400, "tokens_per_second": 50.0, "example_tokens": 500,
        "peak_memory_bytes": 2e9, "trainable": 5, "parameters": 200, "loss": {"first": 3.0, "last": 2.0, "eval": 2.5},
        "forgetting": {"sentence": text, "low": None, "n": 4, "drift": 0.5, "size": text}, "kept": {"step": 4, "why": text},
        "data": {"rows": 90, "held_out": 10, "skipped": 2, "dropped": dict.fromkeys(group, 1), "cut": 4, "cut_tokens": 40, "unended": 0},
        "findings": [{"name": text, "model": text, "text": text, "answers": [text]}],
    }  # fmt: skip
    config = resolve({"data.path": list(group), "model": text, "out": text, "text.system": text, "data.layout": text,
                      "data.columns": {one: one for one in group}, "lora.targets": list(group), "reward.use": list(group)})  # fmt: skip
    rows = [row(one, BETTER) for one in group]
    return RunReport(
        name=name, path=text, config=config, method=text, result=result, rows=rows, retention=[row(one, WORSE) for one in group],
        steps=[{"step": s, "loss": 4.0 - s / 2, "lr": 1e-4, "tokens": 100 * s} for s in (1, 2, 3, 4)],
        samples=[Sample(i, one, one, f"{one} before", f"{one} after", (0.0, 1.0), one) for i, one in enumerate(group)],
        rollouts=[Rollout(0, [RewardedAnswer(one, one, 1.0, one, 3) for one in group], [RewardedAnswer("", one, 0.0) for one in group])],
        forgotten=[ForgottenAnswer(one, one, one, 0.5) for one in group],
        errors=ErrorCounts(10, Category(text, text, rows[0]), [Category(one, one, row(one, WORSE)) for one in group]),
        codes=[{"tags": [one], "headings": {one: one}, "note": one} for one in group],
        lineage={"inputs": {"data": {one: one for one in group}, "template": text, "tokenizer": text}, "seed": text, "luthier": text,
                 "code": text, "environment": {one: one for one in group}},
        data_description={"layout": text, "looked_at": 5, "languages": dict.fromkeys(group, 0.5)},
    )  # fmt: skip


def coding(group):
    records = [CodingRecord(i, one, one, one, f"{one} after", ((one, one),)) for i, one in enumerate(group)]
    codes = [{"id": record.id, "row": record.row, "tags": [one], "headings": {one: one}, "note": one}
             for record, one in zip(records, group, strict=True)]  # fmt: skip
    return render_coding_page(" ".join(group), "f00", records, codes)


MAKERS = {
    "run": lambda group: render_run_page(view(group, " ".join(group))),
    "compare": lambda group: render_compare_page(
        [view(group, " ".join(group)), view(group[::-1], " ".join(group[::-1]))],
        [PairedMetrics(" ".join(group), [row(one, BETTER) for one in group])],
    ),
    "coding": coding,
}


def look(opened, path, payloads, act=lambda page: None):
    """Open a file and let it be; what ran, was asked for, was said, or is in it that should not be."""
    context = opened.new_context(bypass_csp=True)
    asked, told = [], []
    context.on("request", lambda request: asked.append(request.url))
    context.add_init_script("window.owned = 0; window.own = () => { window.owned += 1 };")
    page = context.new_page()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.goto(path.resolve().as_uri())
    shown = set()
    for _ in range(act(page) or 1):
        text = page.evaluate("document.documentElement.textContent")
        shown |= {one for one in payloads if " ".join(clean(one).split())[:80] in " ".join(text.split())}
        if act is not once:
            page.keyboard.press("j")
    page.mouse.move(200, 200)
    page.wait_for_timeout(30)
    foreign = page.evaluate(FOREIGN)
    owned, where, heard = page.evaluate("window.owned"), page.url, told[:]
    context.close()
    assert (owned, foreign, heard) == (0, [], [])
    assert where == path.resolve().as_uri()
    assert [url for url in asked if not url.startswith(("data:", "blob:")) and url != where] == []
    return shown


def once(page):
    return 1


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("group", GROUPS, ids=range(len(GROUPS)))
def test_payloads_are_text(opened, tmp_path, kind, group):
    path = tmp_path / "page.html"
    path.write_text(MAKERS[kind](group), encoding="utf-8")
    act = once if kind != "coding" else lambda page: len(group)
    assert set(group) - look(opened, path, group, act) == set()


@pytest.mark.parametrize("group", GROUPS, ids=range(len(GROUPS)))
def test_pictures_that_are_opened_alone(opened, tmp_path, group):
    table, curve = tmp_path / "table.svg", tmp_path / "loss.svg"
    plot.before_after_bars([row(one, BETTER) for one in group], table)
    plot.loss_curve([(1, 2.0), (2, 1.0)], [(1, 2.0)], " ".join(group), curve, " ".join(group))
    for path in (table, curve):
        assert set(group) - look(opened, path, group, once) == set()


def test_what_would_run_is_seen(opened, tmp_path):
    """Without escaping the same look finds it."""
    (tmp_path / "page.html").write_text(f"<main>{PAYLOADS[3]}</main>")
    with pytest.raises(AssertionError, match="img"):
        look(opened, tmp_path / "page.html", [], once)


def test_answers_of_a_megabyte_make_no_page_of_a_megabyte():
    word = "w" * 1_000_000
    big = RunReport(name="r", path="r", config=resolve({}), method="sft", result=view(["x"], "r").result,
               samples=[Sample(0, word, word, word, word)], forgotten=[ForgottenAnswer(word, word, word, 0.5)],
               rollouts=[Rollout(0, [RewardedAnswer(word, word, 1.0)])])  # fmt: skip
    assert len(render_run_page(big)) < 200_000


def test_there_are_fifty_and_more():
    assert len(set(PAYLOADS)) == 66
