"""The process in which chat templates are compiled and rendered: they came with a model, and are foreign code.

It is started as `python -m luthier.text.sandbox FD MIB SECONDS` (see `core/foreign/child.py`), and is told

    {"template": 3, "source": "...", "names": {...}}     -> {"variables": [...], "fields": [...], "words": [...]}
    {"rows": [[3, values, messages, [[2, false], ...]], ...]}     -> for each of the pairs (how many messages, whether to ask
                                                                     for an answer) a line: the text

or {"error": "...", "line": 1}. What a template may do is bounded by the system: memory, the seconds of computing that one
text takes, and no file may be written. Jinja's sandbox keeps it from this process itself.

The filters and globals are those that transformers gives its templates. Two differ on purpose, so that the same data gives
the same tokens tomorrow, and a served prompt is the trained one: `strftime_now` gives a fixed day, and there is no `lipsum`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from luthier.core.foreign.service import Line, limit_memory

TODAY = datetime(2024, 7, 26)  # the day that Llama's own templates fall back to
MAX_TEXT = 1 << 24
REPLY_CHARACTERS = 1 << 16  # characters of a text with which those before it are sent
MAX_ERROR = 1000  # characters of an error

Reply = str | dict[str, Any]


class _Generation(Extension):
    """Accepts `{% generation %}...{% endgeneration %}`, which marks answers for other trainers: shown as it is."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads it from the class)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Namespace(Namespace):
    """As transformers has it: no attribute of a namespace begins with an underscore."""

    def __init__(*args: Any, **named: Any) -> None:  # so that `namespace(self=1)` works as elsewhere
        self, given = args[0], dict(*args[1:], **named)
        Namespace.__init__(self)
        for name, value in given.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace takes no name that begins with an underscore, such as {name!r}")
        super().__setitem__(name, value)


class Sandbox:
    """Templates by their numbers, and what is made with them."""

    def __init__(self) -> None:
        self.environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self.environment.filters["tojson"] = _to_json
        self.environment.globals.update(raise_exception=_raise, strftime_now=_today, namespace=_Namespace)
        del self.environment.globals["lipsum"]
        self.templates: dict[int, tuple[Template, dict[str, Any]]] = {}

    def build(self, number: int, source: str, names: dict[str, Any]) -> Reply:
        """Compile a template; the reply is what it looks at, on any of its ways."""
        try:
            tree = self.environment.parse(source)
            self.templates[number] = self.environment.from_string(source), names
            return reads(tree)
        except TemplateSyntaxError as error:
            return {"error": f"not a valid Jinja template: {error.message}", "line": error.lineno}
        except Exception as error:
            return complaint(error)

    def render(self, number: int, values: Mapping[str, Any]) -> Reply:
        """A text, or the template's first line of complaint."""
        template, names = self.templates[number]
        out, length = [], 0
        try:
            for piece in template.generate({**names, **values}):
                out.append(piece)
                length += len(piece)
                if length > MAX_TEXT:
                    raise TemplateError(f"it writes more than {MAX_TEXT:,} characters")
            return "".join(out)
        except Exception as error:  # whatever it raises is the user's to know
            return complaint(error)


def complaint(error: Exception) -> Reply:
    """An error in its own words."""
    if isinstance(error, MemoryError):
        return {"error": "memory", "spent": True}
    if isinstance(error, RecursionError):
        return {"error": "it is nested too deeply, or calls itself without end"}
    return {"error": (str(error).strip() or type(error).__name__).splitlines()[0][:MAX_ERROR]}


def reads(tree: nodes.Template) -> dict[str, Any]:
    """What a template looks at: the names of its variables, of the fields of messages and their like, and the texts that it
    compares with or looks for."""
    variables = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
    words = {const.value for const in tree.find_all(nodes.Const) if isinstance(const.value, str)}
    items = {item.arg.value for item in tree.find_all(nodes.Getitem) if isinstance(item.arg, nodes.Const)}
    asked = {  # message.get('name'), and 'name' in message
        *(part.value for call in tree.find_all(nodes.Call) for part in call.args[:1] if isinstance(part, nodes.Const)),
        *(test.expr.value for test in tree.find_all(nodes.Compare)
          if isinstance(test.expr, nodes.Const) and test.ops[0].op in ("in", "notin")),
    }  # fmt: skip
    attributes = {part.attr for part in tree.find_all(nodes.Getattr)}
    fields = {name for name in {*attributes, *items, *asked} if isinstance(name, str)}
    return {"variables": sorted(variables), "fields": sorted(fields), "words": sorted(words)}


def main(descriptor: int, mib: int, seconds: float) -> None:
    """Serve until the other end closes."""
    limit_memory(mib)
    _write_nothing()
    sandbox, line = Sandbox(), Line(descriptor)
    for request in line:
        assert isinstance(request, dict)
        if "source" in request:
            _limit_time(seconds)
            line.send(sandbox.build(request["template"], request["source"], request["names"]))
        for number, values, messages, texts in request.get("rows", ()):
            replies: list[Reply] = []
            for count, prompt in texts:
                given = {**values, "messages": messages[:count], "add_generation_prompt": prompt}
                _limit_time(seconds)
                replies.append(sandbox.render(number, given))
                if len(replies[-1]) > REPLY_CHARACTERS:
                    line.send(*replies)
                    replies.clear()
            line.send(*replies)  # row by row: what ends this process is the fault of the row that has no answer yet


def _limit_time(seconds: float) -> None:
    """Let this process compute for so many seconds from now: the system ends it then, whatever it is doing."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _write_nothing() -> None:
    with contextlib.suppress(ImportError):
        import resource

        for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(limit, (0, 0))


def _today(format: str) -> str:
    return TODAY.strftime(format)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter of this name escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
