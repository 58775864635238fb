"""Jinja in a sandbox with bounds of time and memory: chat templates are foreign code.

The filters and globals are those that transformers gives its templates. One differs on purpose: `strftime_now` gives a
fixed day, so that the same data gives the same tokens tomorrow, and a served prompt is the trained one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from luthier.core.errors import InputError

TODAY = datetime(2024, 7, 26)  # the day that Llama's own templates fall back to

MAX_SOURCE = 1 << 18
MAX_TEXT = 1 << 24
MAX_TURNS = 1_000_000
MAX_SECONDS = 20.0
PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "wordwrap", "urlize"}
WIDTH = re.compile(r"%[-+ #0\d.]*(?:\*|\d{5})|\{[^}]*(?:\{|\d{5})")


class _Generation(Extension):
    """Accepts `{% generation %}...{% endgeneration %}`, which marks answers for other trainers: shown as it is."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads it from the class)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja within bounds. Templates come with models, so they may be broken or hostile: every turn of a loop
    and every call of a macro is counted, and text that is assigned, repeated, joined, replaced or written is measured.
    """

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.filters["bounded"] = _bounded
        for name in ("join", "list"):
            self.filters[name] = _fed(self.filters[name], _within)
        for name, check in (("replace", _replaced), ("indent", _indented), ("format", _no_width)):
            self.filters[name] = _fed(self.filters[name], check)
        for name in PADDING & set(self.filters):
            del self.filters[name]
        del self.globals["lipsum"]
        self.filters["counted"] = self.counted
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = TODAY.strftime
        self.left, self.deadline = 0, 0.0

    def build(self, source: str, name: str) -> JinjaTemplate:
        """Compile `source`, with a count in each loop and macro. Raises InputError with the line."""
        if len(source) > MAX_SOURCE:
            raise InputError(f"the template is longer than {MAX_SOURCE:,} characters", where=name)
        try:
            tree = self.parse(source)
            loops: list[Any] = list(tree.find_all((nodes.For, nodes.Macro)))
            for loop in loops:
                count = nodes.Filter(nodes.EnvironmentAttribute("left"), "counted", [], [], None, None)
                loop.body.insert(0, nodes.ExprStmt(count, lineno=loop.lineno))
            for assign in list(tree.find_all(nodes.Assign)):
                assign.node = nodes.Filter(assign.node, "bounded", [], [], None, None, lineno=assign.lineno)
            for block in list(tree.find_all(nodes.AssignBlock)):
                block.filter = nodes.Filter(block.filter, "bounded", [], [], None, None, lineno=block.lineno)
            tree.set_environment(self)
            return JinjaTemplate.from_code(self, self.compile(tree), dict(self.globals))
        except TemplateSyntaxError as error:
            raise InputError(f"not a valid Jinja template: {error.message}", where=f"{name}:{error.lineno}") from None

    def run(self, template: JinjaTemplate, values: Mapping[str, Any]) -> str:
        """Render within the bounds. Raises InputError with the template's first line of complaint."""
        self.left, self.deadline = MAX_TURNS, time.monotonic() + MAX_SECONDS
        out, length = [], 0
        try:
            for piece in template.generate(values):
                out.append(piece)
                length += len(piece)
                if length > MAX_TEXT:
                    raise TemplateError(f"it writes more than {MAX_TEXT:,} characters")
        except Exception as error:  # the template is foreign code: whatever it raises is the user's to know
            text = str(error) or type(error).__name__
            raise InputError(f"the chat template failed: {text.splitlines()[0]}") from None
        return "".join(out)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """No method of text that pads it: templates of chats need none, and a number makes them huge."""
        padding = isinstance(obj, str) and attr in PADDING
        return not padding and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if getattr(value, "__name__", "") == "format" and isinstance(getattr(value, "__self__", None), str):
            _no_width(value.__self__)
        return super().wrap_str_format(value)

    def call(__self, __context: Any, __obj: Any, *values: Any, **named: Any) -> Any:
        """A call; `join` and `replace` of a text within the bounds."""
        text, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(text, str) and name == "replace":
            _replaced(text, *values)  # it takes no names; Jinja adds some of its own within loops and blocks
        if isinstance(text, str) and name == "join" and values:
            values = (list(_within(values[0])),)
            _refuse_if(len(text) * len(values[0]) > MAX_TEXT, text)
        return super().call(__context, __obj, *values, **named)

    def counted(self, left: int) -> None:
        """One turn of a loop, or one call of a macro."""
        self.left -= 1
        if self.left < 0 or time.monotonic() > self.deadline:
            raise TemplateError("it takes too long")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`*` and `+`, refused where the result would be huge, `%` with no width, and no `**` at all."""
        if operator == "%":
            return super().call_binop(context, operator, _no_width(left), right)
        if operator == "+":
            long = isinstance(left, (str, list, tuple)) and _extent(left) + _extent(right) > MAX_TEXT
            return super().call_binop(context, operator, _refuse_if(long, left), right)
        long = any(isinstance(side, (str, list, tuple)) for side in (left, right))
        if operator == "**" or _extent(left) * _extent(right) > (MAX_TEXT if long else 10**18):
            raise TemplateError(f"it computes something too large with {operator}")
        return super().call_binop(context, operator, left, right)


def _within(values: Any, *_: Any, **__: Any) -> Iterator[Any]:
    """The values, as long as their text together is within the bounds."""
    length = 0
    for value in values:
        length += 1 + (len(value) if isinstance(value, str) else 0)
        yield _refuse_if(length > MAX_TEXT, value)


def _replaced(text: Any, old: Any = "", new: Any = "", *_: Any) -> Any:
    """`text`, unless it would grow beyond the bounds with `new` in the place of `old`."""
    return _refuse_if(str(text).count(str(old)) * len(str(new)) > MAX_TEXT, text)


def _indented(text: Any, width: Any = 4, *_: Any, **__: Any) -> Any:
    """`text`, unless it would grow beyond the bounds with `width` characters before each line."""
    by = len(width) if isinstance(width, str) else int(width)
    return _refuse_if((str(text).count("\n") + 1) * by > MAX_TEXT, text)


def _no_width(text: Any, *_: Any, **__: Any) -> Any:
    """A text for `%` or `format`, unless it asks for padding that is long or is given with the values."""
    return _refuse_if(isinstance(text, str) and bool(WIDTH.search(text.replace("{{", ""))), text)


def _fed(function: Callable[..., Any], check: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, its value passed through `check`; keeps what Jinja marks its own filters with."""

    @wraps(function)
    def run(*values: Any, **named: Any) -> Any:
        first = 1 if hasattr(function, "jinja_pass_arg") else 0
        checked = check(*values[first:], **named)
        return function(*values[:first], checked, *values[first + 1 :], **named)

    return run


def _refuse_if(large: bool, value: Any) -> Any:
    if large:
        raise TemplateError(f"it builds a value of more than {MAX_TEXT:,} characters")
    return value


def _extent(value: Any) -> int:
    """How much a factor multiplies: the length of text or a list, the size of a number."""
    if isinstance(value, (str, list, tuple)):
        return len(value)
    return abs(int(value)) if isinstance(value, (int, float)) else 1


def _bounded(value: Any) -> Any:
    return _refuse_if(isinstance(value, (str, list, tuple)) and len(value) > MAX_TEXT, value)


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
