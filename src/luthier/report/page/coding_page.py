"""A page on which a person reads answers and codes what is wrong with them: open coding, then codes under headings
(axial coding; Strauss and Corbin 1990), until reading on brings no new code (saturation)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from luthier.core.screen import clean
from luthier.report.page.render import render


@dataclass(frozen=True)
class CodingRecord:
    """An answer to read. `findings` are (category, why) of detectors, offered as tags."""

    row: int
    prompt: str
    reference: str
    before: str
    after: str
    findings: Sequence[tuple[str, str]] = ()

    @property
    def id(self) -> str:
        """Twelve hex digits of what was read: codes of an answer that has changed since are not shown for the new one."""
        text = json.dumps([self.row, self.prompt, self.reference, self.after])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def render_coding_page(
    name: str, fingerprint: str, records: Sequence[CodingRecord], codes: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The page for the answers of run `name`; progress is kept in the browser under its `fingerprint`. It begins with
    `codes`, the lines of an earlier export, where the browser has kept nothing."""
    lines = [
        {
            "id": one.id, "row": one.row, "prompt": clean(one.prompt), "reference": clean(one.reference),
            "before": clean(one.before), "after": clean(one.after),
            "findings": [{"tag": clean(category), "why": clean(why)} for category, why in one.findings],
        }
        for one in records
    ]  # fmt: skip
    data = {"key": f"luthier-coding:{fingerprint}", "run": clean(name), "records": lines, "codes": list(codes)}
    return render(
        "coding.html", title=f"{name}, coding answers", style="coding.css", script="coding.js", name=name,
        data=Markup(_script_safe(data)),
    )  # fmt: skip


def _script_safe(data: Any) -> str:
    """JSON that is safe between script tags: no character in it can end the element."""
    text = json.dumps(data)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
