"""Messages -> text: the model's own chat template, alpaca, plain, or a Jinja file.

Training, evaluation and chat render through here, with the conventions of transformers'
`apply_chat_template`, byte for byte. One thing differs on purpose: `strftime_now` gives a fixed day,
so that the same data gives the same tokens tomorrow, and a served prompt is the trained one.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from luthier.core.errors import InputError, nearest
from luthier.core.files import text_file
from luthier.core.types import Message
from luthier.text.tokenizer import Tokenizer

BUILT_IN = ("auto", "alpaca", "plain")
TODAY = datetime(2024, 7, 26)  # the day that Llama's own templates fall back to

MAX_SOURCE = 1 << 18
MAX_TEXT = 1 << 24
MAX_TURNS = 1_000_000
MAX_SECONDS = 20.0
PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "wordwrap", "urlize"}
WIDTH = re.compile(r"%[-+ #0\d.]*(?:\*|\d{5})|\{[^}]*(?:\{|\d{5})")

Tools = Sequence[Mapping[str, Any]]
Text = Callable[[int, bool], str]  # (how many of the messages, whether to ask for an answer) -> text
Writer = Callable[[Sequence[Message], Tools], Text]

ALPACA_TASK = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
ALPACA_TASK_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
INSTRUCTION, INPUT, RESPONSE = "\n\n### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:\n"

TOOLS = (
    'These tools can be called by answering <tool_call>{"name": ..., "arguments": {...}}</tool_call>.\n'
    "<tools>\n%s\n</tools>"
)

# `words` writes a message with its tool calls, `schemas` the tools: as `_calls_in_words` and `_tools_in_words` do.
JINJA_WORDS = """\
{%- macro words(message) -%}
{{- message.content or '' -}}
{%- for call in message.tool_calls or [] -%}
{{- '\\n' if message.content or not loop.first -}}
{{- '<tool_call>' + ((call.function or call) | tojson) + '</tool_call>' -}}
{%- endfor -%}
{%- endmacro -%}
{%- macro schemas() -%}
{%- for tool in tools %}{{ ('' if loop.first else '\\n') + (tool | tojson) }}{% endfor -%}
{%- endmacro -%}
{%- set told = TOOLS_BEFORE + schemas() + TOOLS_AFTER if tools else '' -%}
{%- set led = messages and messages[0].role == 'system' -%}
{%- set system = (words(messages[0]) if led else '') + ('\\n\\n' if led and told else '') + told -%}
"""
JINJA_ALPACA = """\
{%- set first = messages | selectattr('role', 'equalto', 'user') | first -%}
{%- if led or told %}{{ system }}{% elif first and first.input %}{{ TASK_INPUT }}{% else %}{{ TASK }}{% endif -%}
{%- for message in (messages[1:] if led else messages) -%}
{%- if message.role == 'assistant' -%}
{{- RESPONSE + words(message) + eos_token -}}
{%- else -%}
{{- (INPUT if message.role == 'tool' else INSTRUCTION) + words(message) -}}
{{- INPUT + message.input if message.input -}}
{%- endif -%}
{%- endfor -%}
{{- RESPONSE if add_generation_prompt -}}
"""
JINJA_PLAIN = """\
{{- system -}}
{%- for message in (messages[1:] if led else messages) -%}
{{- words(message) -}}
{{- '\\n\\n' + message.input if message.input -}}
{{- eos_token if message.role == 'assistant' -}}
{%- endfor -%}
"""


@dataclass(frozen=True)
class Template:
    """How messages become text.

    `source` is the Jinja text, or the wording of a built-in template. Data in the text is sealed (see
    `tokenizer`): control tokens in it come from the template alone, end-of-turn tokens included.
    `reads_tools` and `reads_calls` say whether the template shows tool schemas and tool calls itself;
    when it does not, they are written as JSON into the system prompt and the answer.
    """

    name: str
    source: str = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    write: Writer = field(repr=False, compare=False)

    def render(self, messages: Sequence[Message], tools: Tools = (), *, prompt: bool) -> str:
        """The text of `messages`; `prompt` adds what asks the model for its turn.

        Raises InputError with the template's own words when it refuses the messages.
        """
        return self.open(messages, tools)(len(messages), prompt)

    def open(self, messages: Sequence[Message], tools: Tools = ()) -> Text:
        """`render` of a conversation's first messages, for several counts: open(m)(k, p) = render(m[:k], prompt=p)."""
        if not self.reads_calls:
            messages = [_calls_in_words(message) if message.tool_calls else message for message in messages]
        if not tools or self.reads_tools:
            return self.write(messages, tools)
        told = _tools_in_words(messages, tools)
        text, added = self.write(told, ()), len(told) - len(messages)
        return lambda count, prompt: text(count + added, prompt)

    def as_jinja(self) -> str:
        """The Jinja text that renders the same, for programs that read a tokenizer's `chat_template`.

        For 'alpaca' and 'plain' a rendition of what is written here: it takes OpenAI's messages, and the
        `input` of an Alpaca row as a field of the user's message. It cannot seal: control tokens in data are
        read as such by whoever tokenizes its text.
        """
        if self.name not in ("alpaca", "plain"):
            return self.source
        before, after = TOOLS.split("%s")
        wording = {
            "TASK_INPUT": ALPACA_TASK_INPUT, "TASK": ALPACA_TASK, "INSTRUCTION": INSTRUCTION, "INPUT": INPUT,
            "RESPONSE": RESPONSE, "TOOLS_BEFORE": before, "TOOLS_AFTER": after,
        }  # fmt: skip
        body = JINJA_WORDS + (JINJA_ALPACA if self.name == "alpaca" else JINJA_PLAIN)
        body = re.sub(rf"\b({'|'.join(wording)})\b", lambda found: json.dumps(wording[found[0]]), body)
        return ("{{- bos_token -}}\n" if self.tokenizer.opening else "") + body

    @property
    def reads_tools(self) -> bool:
        """Whether tool schemas reach the text."""
        return "tools" in self.source

    @property
    def reads_calls(self) -> bool:
        """Whether the tool calls of an assistant turn reach the text."""
        return "tool_calls" in self.source

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of everything that turns messages into text."""
        parts = (self.source, self.tokenizer.opening, self.tokenizer.bos, self.tokenizer.eos)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def end_of_turn(self) -> int | None:
        """The first control token that this template puts after an answer; None where it puts none."""
        answer = "luthier-answer"
        try:
            text = self.render([Message("user", "?"), Message("assistant", answer)], prompt=False)
        except InputError:
            return None
        _, _, rest = text.rpartition(answer)
        found = self.tokenizer.control_pattern.search(rest) if answer in text else None
        return self.tokenizer.control[found[0]] if found else None

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a turn: the tokenizer's, and `end_of_turn`."""
        return self.tokenizer.stop_ids | ({self.end_of_turn} if self.end_of_turn is not None else set())

    @cached_property
    def stops(self) -> tuple[str, ...]:
        """The texts of `stop_ids`."""
        return tuple(text for text, index in self.tokenizer.control.items() if index in self.stop_ids)


def load_template(name: str, tokenizer: Tokenizer) -> Template:
    """The template called `name`: 'auto', 'alpaca', 'plain', or the path of a Jinja file.

    'auto' is the model's own chat template, or alpaca when it has none. Raises InputError for an unknown
    name, an unreadable file, a template that is not valid Jinja, and a built-in one without an EOS to write.
    """
    own = tokenizer.fast.chat_template
    if isinstance(own, Mapping):
        own = own.get("default")
    if name == "auto" and own:
        return _jinja(own, "chat", tokenizer)
    if name in BUILT_IN:
        if not tokenizer.eos:
            raise InputError(
                f"the template '{name}' ends answers with EOS, but this tokenizer has none",
                where="--text.template", mend="give a Jinja file that writes an end-of-turn token",
            )  # fmt: skip
        if name == "plain":
            return Template("plain", "plain", tokenizer, _plain_writer(tokenizer))
        wording = "\n".join((ALPACA_TASK, ALPACA_TASK_INPUT, INSTRUCTION, INPUT, RESPONSE))
        return Template("alpaca", wording, tokenizer, _alpaca_writer(tokenizer))
    return _jinja(_read(name), name, tokenizer)


def _read(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        guess = nearest(name, BUILT_IN)
        mend = f"did you mean '{guess}'?" if guess else "give auto, alpaca, plain, or the path of a Jinja file"
        raise InputError(f"no template '{name}'", where="--text.template", mend=mend)
    try:
        return text_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the template: {error}", where=name) from None


def _alpaca_writer(tokenizer: Tokenizer) -> Writer:
    """Stanford Alpaca's layout. A system message takes the place of its first paragraph; several turns repeat
    the headings. It differs from Stanford's in the newline after `### Response:`, as most later users have it."""

    def write(messages: Sequence[Message], tools: Tools) -> Text:
        first = next((message for message in messages if message.role == "user"), None)
        task = ALPACA_TASK_INPUT if first and first.input else ALPACA_TASK
        parts = [_alpaca_part(message, tokenizer) for message in messages]
        if messages and messages[0].role == "system":
            task, parts[0] = tokenizer.seal(messages[0].content), ""
        return lambda count, prompt: tokenizer.opening + task + "".join(parts[:count]) + (RESPONSE if prompt else "")

    return write


def _alpaca_part(message: Message, tokenizer: Tokenizer) -> str:
    content = tokenizer.seal(message.content)
    if message.role == "assistant":
        return RESPONSE + content + tokenizer.eos
    heading = INPUT if message.role == "tool" else INSTRUCTION
    return heading + content + (INPUT + tokenizer.seal(message.input) if message.input else "")


def _plain_writer(tokenizer: Tokenizer) -> Writer:
    """Contents one after the other with nothing between; EOS after each answer."""

    def write(messages: Sequence[Message], tools: Tools) -> Text:
        parts = [tokenizer.seal(message.as_dict()["content"]) for message in messages]
        answers = [message.role == "assistant" for message in messages]

        def text(count: int, prompt: bool) -> str:
            out, run = tokenizer.opening, ""
            for part, answer in zip(parts[:count], answers, strict=False):
                if answer:
                    out, run = out + run + part + tokenizer.eos, ""
                else:
                    run = tokenizer.guard(run + part)  # two harmless halves could make a control token
            return out + run

        return text

    return write


def _jinja(source: str, name: str, tokenizer: Tokenizer) -> Template:
    environment = _Environment()
    compiled = environment.build(source, name)
    names = {**tokenizer.fast.special_tokens_map, "documents": None}

    def write(messages: Sequence[Message], tools: Tools) -> Text:
        sealed = [tokenizer.seal_value(message.as_dict()) for message in messages]
        names_here = names | {"tools": tokenizer.seal_value(list(tools)) or None}

        def text(count: int, prompt: bool) -> str:
            values = names_here | {"messages": sealed[:count], "add_generation_prompt": prompt}
            return environment.run(compiled, values)

        return text

    return Template(name, source, tokenizer, write)


class _Generation(Extension):
    """Accepts `{% generation %}...{% endgeneration %}`, which marks answers for other trainers: shown as it is."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads it from the class)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox with bounds. Templates come with models, so they may be broken or hostile: every turn of a loop
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
            _replaced(text, *values, **named)
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


def _tools_in_words(messages: Sequence[Message], tools: Tools) -> list[Message]:
    words = TOOLS % "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    if messages and messages[0].role == "system":
        return [replace(messages[0], content=f"{messages[0].content}\n\n{words}"), *messages[1:]]
    return [Message("system", words), *messages]


def _calls_in_words(message: Message) -> Message:
    lines = [message.content] if message.content else []
    for call in message.tool_calls:
        function = call.get("function", call)
        lines.append(f"<tool_call>{json.dumps(function, ensure_ascii=False)}</tool_call>")
    return replace(message, content="\n".join(lines), tool_calls=())
