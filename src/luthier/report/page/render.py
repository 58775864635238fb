"""Templates, style and script become one document that asks nothing of any network.

The policy in its head forbids everything but its own style and its own script, which is named by hash: text of data
could not run even if it were not escaped. Jinja escapes all that is not Markup.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from luthier import __version__
from luthier.core.screen import clean

FOLDER = Path(__file__).parent
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{}'; "
    "base-uri 'none'; form-action 'none'"
)


def render(template: str, *, title: str, style: str = "", script: str = "page.js", **values: Any) -> str:
    """A template of this folder as a whole document, with page.css and `style`, and with `script` (file names)."""
    code = "\n" + (FOLDER / script).read_text(encoding="utf-8")
    looks = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", style) if name)
    hashed = b64encode(sha256(code.encode()).digest()).decode()
    page = _templates().get_template(template).render(
        title=title, style=Markup(looks), script=Markup(code), policy=POLICY.format(hashed), version=__version__, **values
    )  # fmt: skip
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair, which JSON may hold, is no UTF-8


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_cleaned,
    )  # fmt: skip


def _cleaned(value: Any) -> Any:
    """Words as a page shows them: direction marks in a name would turn the words around it too. Markup was made by us."""
    return clean(value) if type(value) is str else value
