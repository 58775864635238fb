"""Pages of a real run in a real browser: quiet console, no request, every width, both schemes, keyboard, no foreign script."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import contextmanager

import browser as chromium
import pytest

from luthier.config.resolve import resolve
from luthier.report.page.run_page import SECTIONS
from luthier.tune import write_report as report
from luthier.tune.train import run

pytestmark = pytest.mark.medium

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
WIDE, PHONE = {"width": 1280, "height": 900}, chromium.PHONE

# For every element with text of its own: the contrast of the text with what is behind it (WCAG 2, relative luminance).
CONTRAST = """() => {
  const light = (c) => c.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  return [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility() && !e.disabled && !["SCRIPT", "OPTION"]
    .includes(e.tagName) && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => {
      const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)), light(behind(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.tagName + "." + e.className, e.textContent.slice(0, 30)];
    }).sort((x, y) => x[0] - y[0]).slice(0, 3);
}"""


@pytest.fixture(scope="module")
def opened():
    with chromium.wanted() as found:
        yield found


@pytest.fixture(scope="module")
def runs(tiny_folder, tmp_path_factory):
    """A finished run of the tiny model on rows that hold scripts, and a copy that says it had another rank."""
    folder = tmp_path_factory.mktemp("runs")
    draw = random.Random(0)
    with open(folder / "rows.jsonl", "w") as handle:
        for i in range(60):
            words = [draw.choice(("cat", "dog", "mat", "tree")) for _ in range(4)]
            answer = EVIL if i % 2 else " ".join(words)
            handle.write(json.dumps({"prompt": f"{EVIL} {' '.join(words)} {i}?", "completion": answer}) + "\n")
    run(resolve({
        "model": str(tiny_folder), "data.path": [str(folder / "rows.jsonl")], "out": str(folder / "one"), "train.batch": 8,
        "train.tokens": 256, "data.holdout": 0.25, "eval.max_new_tokens": 8, "lora.rank": 2, "threads": 1,
        "device": "cpu", "dtype": "float32", "train.lr": 1e-2, "eval.every": 3, "eval.samples": 14,
    }))  # fmt: skip
    shutil.copytree(folder / "one", folder / "two")
    settings = folder / "two" / "run.yaml"
    settings.write_text(settings.read_text().replace("rank: 2\n", "rank: 3\n"))
    with open(folder / "two" / "samples.jsonl", "a") as handle:  # as of a method that learns from rewards
        for among, reward in (("best", 1.0), ("best", 0.5), ("worst", -1e-9), ("worst", -12345.678)):
            line = {"rollout": 0, "among": among, "row": 1, "prompt": EVIL, "answer": f"{EVIL} {'w' * 900}", "reward": reward,
                    "ended": "length", "length": 900}  # fmt: skip
            handle.write(json.dumps(line) + "\n")
    sums = folder / "two" / "sums"  # the changed files are believed, as their error says
    changed = ("run.yaml", "samples.jsonl")
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if not line.strip().endswith(changed)))
    return folder


@contextmanager
def looking(opened, path, size=WIDE, scheme="light", **more):
    """A page in a context of its own; fails at anything in the console, any dialog, any request but the file itself."""
    context = opened.new_context(viewport=size, color_scheme=scheme, **more)
    told, asked = [], []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.goto(path.resolve().as_uri())
    yield page
    context.close()
    assert told == []
    foreign = [url for url in asked if url != path.resolve().as_uri() and not url.startswith(("data:", "blob:"))]
    assert foreign == []


def sideways(page):
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.fixture(scope="module")
def pages(runs):
    return {
        "report": runs / "one" / "report.html",
        "coding": report.write_coding_page(runs / "one"),
        "compare": report.write_report([runs / "one", runs / "two"], runs / "compare.html"),
        "rewarded": report.write_report([runs / "two"]),
    }


def test_train_wrote_a_page_that_shows_every_section(opened, pages):
    with looking(opened, pages["report"]) as page:
        for name in SECTIONS:
            box = page.locator(f"section#{name}").bounding_box()
            assert box["height"] > 40, name
            assert page.locator(f"section#{name} :is(h1, h2)").first.is_visible(), name
        assert page.locator(".chart svg .line").count() >= 4
        assert page.locator("#samples article.sample:visible").count() == 10
        assert page.locator("#forgetting article.sample:visible").count() == 4
        assert page.locator("section#errors table tbody tr").first.is_visible()  # looked for without being asked
        assert "14 answers" in page.locator("section#errors caption").inner_text()
        assert "tokens of a row" in page.locator("section#data").inner_text()
        assert page.locator("nav").get_by_role("link", name="Lineage").is_visible()


def test_the_best_and_the_worst_answers_of_a_rollout_stand_beside_each_other(opened, pages):
    with looking(opened, pages["rewarded"]) as page:
        shown = page.locator('#training article[aria-label="Rollout 1"]')
        assert [text.split(",")[0] for text in shown.locator("dt").all_inner_texts()] == [
            "best: reward 1.00", "best: reward 0.500", "worst: reward −1.00e−09", "worst: reward −12",
        ]  # fmt: skip
        first, second, third, _ = (box.bounding_box() for box in shown.locator("dl > div").all())
        assert first["y"] == second["y"] < third["y"]
        assert shown.locator("dd").all_inner_texts()[1].startswith(EVIL)


@pytest.mark.parametrize("name", ["report", "coding", "compare", "rewarded"])
def test_text_can_be_read_in_light_and_dark(opened, pages, name):
    papers = []
    for scheme in ("light", "dark"):
        with looking(opened, pages[name], scheme=scheme) as page:
            papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            worst = page.evaluate(CONTRAST)
            assert worst[0][0] >= 4.5, (scheme, worst)
    assert papers[0] != papers[1]


@pytest.mark.parametrize("name", ["report", "coding", "compare", "rewarded"])
def test_a_phone_scrolls_downwards_only(opened, pages, name):
    with looking(opened, pages[name], PHONE) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
        assert sideways(page) == 0
        assert page.locator("h1").is_visible()
    with looking(opened, pages[name], {"width": 768, "height": 1024}) as page:
        assert sideways(page) == 0


def test_the_page_prints(opened, pages):
    with looking(opened, pages["report"], scheme="dark") as page:
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert page.locator("section#results table").is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert sideways(page) == 0
        assert page.pdf().startswith(b"%PDF")


def test_a_script_in_the_data_is_text(opened, pages):
    for name in ("report", "compare", "coding", "rewarded"):
        with looking(opened, pages[name]) as page:
            assert page.locator("img").count() == 0
            assert EVIL in page.locator("main").inner_text()


def test_the_policy_forbids_other_scripts_and_the_network(opened, pages):
    context = opened.new_context()
    page = context.new_page()
    page.goto(pages["report"].resolve().as_uri())
    refused = page.evaluate("""async () => {
      const refused = [];
      document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
      document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = true" }));
      await fetch("http://127.0.0.1:9/").catch(() => {});
      await new Promise((done) => setTimeout(done, 50));
      return [window.ran ?? null, refused];
    }""")
    context.close()
    assert refused[0] is None
    assert set(refused[1]) == {"script-src-elem", "connect-src"}


def test_values_of_curves_under_the_pointer_and_by_keyboard(opened, pages):
    with looking(opened, pages["report"]) as page:
        plot = page.locator("#chart-loss-step .plot")
        plot.locator("svg").focus()
        page.keyboard.press("End")
        assert "training" in plot.locator(".told").inner_text()
        assert plot.locator(".told").inner_text().startswith("step ")
        page.keyboard.press("Escape")
        assert not plot.locator(".told").is_visible()
        plot.locator("svg").hover()
        assert plot.locator(".told").is_visible()


def test_the_page_is_whole_without_its_script(opened, pages):
    with looking(opened, pages["report"], java_script_enabled=False) as page:
        assert page.locator("section#training .chart").first.is_visible()
        page.locator("section#settings summary").click()
        assert page.locator("section#settings table").first.is_visible()


def test_coding_by_keyboard_is_kept_and_exported(opened, pages, tmp_path):
    with looking(opened, pages["coding"], accept_downloads=True) as page:
        for tag in ("off topic", "cut short", None):
            if tag is None:
                page.keyboard.press("1")
            else:
                page.keyboard.press("t")
                page.keyboard.type(tag)
                page.keyboard.press("Enter")
                page.keyboard.press("Escape")
            page.keyboard.press("j")
        page.keyboard.press("n")
        page.keyboard.type("odd")
        page.keyboard.press("Escape")
        page.keyboard.press("0")
        assert page.locator("#progress").inner_text().startswith("4 of 14 ")
        page.reload()
        assert page.locator("#progress").inner_text().startswith("4 of 14 ")
        assert page.locator("#place").inner_text().startswith("4 of 14")
        counts = dict(zip(page.locator(".code button[aria-pressed]").all_inner_texts(),
                          page.locator(".code .count").all_inner_texts(), strict=True))  # fmt: skip
        assert counts == {"off topic": "2", "cut short": "1"}
        page.locator("#filter").select_option("tag:off topic")
        assert page.locator("#place").inner_text().startswith("1 of 2")
        with page.expect_download() as waiting:
            page.get_by_role("button", name="export").click()
        waiting.value.save_as(tmp_path / "codes.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "codes.jsonl").read_text().splitlines()]
    assert [line["tags"] for line in lines] == [["off topic"], ["cut short"], ["off topic"], []]
    assert lines[3]["note"] == "odd"
    with looking(opened, pages["coding"]) as page:  # another browser takes the file
        assert page.locator("#progress").inner_text().startswith("0 of 14 ")
        page.locator("#import").set_input_files(tmp_path / "codes.jsonl")
        page.get_by_text("4 answers imported").wait_for()
        assert page.locator("#progress").inner_text().startswith("4 of 14 ")
        (tmp_path / "bad.jsonl").write_text("no json")
        page.locator("#import").set_input_files(tmp_path / "bad.jsonl")
        page.get_by_text("not JSONL").wait_for()
    (pages["coding"].parent / "codes.jsonl").write_bytes((tmp_path / "codes.jsonl").read_bytes())
    written = report.write_report([pages["report"].parent])
    assert "off topic" in written.read_text()


def test_tags_are_grouped_renamed_and_merged(opened, pages):
    with looking(opened, pages["coding"]) as page:
        for tag in ("<b>bold</b>", "wrong", "wrnog"):
            page.locator("#tag").fill(tag)
            page.locator("#tag").press("Enter")
        page.get_by_role("button", name="edit wrnog").click()
        page.locator("#edit-name").fill("Wrong")
        page.locator("#edit-name").press("Tab")
        assert page.locator("#tags button").all_inner_texts() == ["<b>bold</b> ×", "wrong ×"]
        page.get_by_role("button", name="edit wrong").click()
        page.get_by_label("heading").fill("content")
        page.get_by_label("heading").press("Tab")
        assert page.locator("#codes h3").all_inner_texts() == ["content · 1", "no heading yet · 1"]
