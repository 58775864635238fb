"""The system's Chromium for tests, and the pictures of docs/: python tests/report/browser.py REPORT.html docs/images"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATHS = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
PHONE = {"width": 390, "height": 844}


def missing() -> str | None:
    """Why no browser can be used here, or None."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return None if chromium() else "no chromium on this machine"


def chromium() -> str | None:
    """The path of the system's Chromium."""
    return next((found for name in PATHS if (found := shutil.which(name))), None)


@contextmanager
def wanted() -> Iterator[object]:
    """`browser` for tests: where there is none they are skipped, or fail where LUTHIER_NEEDS_BROWSER says that it is needed."""
    import pytest

    if reason := missing():
        if os.environ.get("LUTHIER_NEEDS_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with browser() as found:
        yield found


@contextmanager
def browser() -> Iterator[object]:
    """A headless browser with an empty profile, which can reach no host."""
    from playwright.sync_api import sync_playwright

    os.environ.setdefault("NODE_NO_WARNINGS", "1")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        try:
            yield opened
        finally:
            opened.close()


def pictures(report: Path, folder: Path) -> None:
    """The report light and dark on a desk, and on a phone: PNG files of the top of the page."""
    with browser() as opened:
        for name, scheme, size in (
            ("light", "light", {"width": 1240, "height": 1500}),
            ("dark", "dark", {"width": 1240, "height": 1500}),
            ("phone", "light", PHONE),
        ):
            context = opened.new_context(
                viewport=size, color_scheme=scheme, device_scale_factor=1 if name != "phone" else 2
            )
            page = context.new_page()
            page.goto(report.resolve().as_uri())
            page.screenshot(path=str(folder / f"report-{name}.png"))
            context.close()


if __name__ == "__main__":
    pictures(Path(sys.argv[1]), Path(sys.argv[2]))
