"""Messages -> text: the model's own chat template, one of its named ones, alpaca, plain, or a Jinja file.

Training, evaluation and chat render through here, with the conventions of transformers'
`apply_chat_template`, byte for byte (but for the day of `strftime_now`, see `sandbox`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError, nearest
from luthier.core.storage.files import text_file
from luthier.core.types.examples import TEMPLATE_GIVEN, Message
from luthier.text import built_in_templates
from luthier.text.built_in_templates import Text, Tools, Wanted, Writer
from luthier.text.rendering import MAX_SOURCE, Jinja, too_long
from luthier.text.template_reads import TemplateReads, Thoughts, calls_missing, find_blocks, find_thoughts, forms
from luthier.text.tokenizer import SEPARATOR, Tokenizer

BUILT_IN = ("auto", "alpaca", "plain")
CONTINUATION = "LUTHIER_GOES_ON "  # put after the beginning of a turn; the space shows whether the template trims
NO_VALUES: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Template:
    """How messages become text.

    `source` is the Jinja text, or the wording of a built-in template. Data in the text is sealed (see
    `tokenizer`): control tokens in it come from the template alone, end-of-turn tokens included.
    `kwargs` are values that the template reads, unless a row brings its own; `for_tools` is the template that takes
    this one's place where tools are given. `reads` says what it looks at: tools, calls and thoughts that it has no
    place for are written into the system prompt and the answer (see `built_in`).
    """

    name: str
    source: str = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    write: Writer = field(repr=False, compare=False)
    reads: TemplateReads = field(default=TemplateReads(), repr=False, compare=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    for_tools: Template | None = None
    find_thoughts: Callable[[], Thoughts] = field(default=lambda: "content", repr=False, compare=False)

    def render(
        self, messages: Sequence[Message], tools: Tools = (), kwargs: Mapping[str, Any] = NO_VALUES, *, prompt: bool
    ) -> str:
        """The text of `messages`; `prompt` adds what asks the model for its turn.

        Raises InputError with the template's own words when it refuses the messages.
        """
        return self.open(messages, tools, kwargs)(len(messages), prompt)

    def begin(self, messages: Sequence[Message], tools: Tools = (), kwargs: Mapping[str, Any] = NO_VALUES) -> str:
        """The text of `messages`, the last of which is a beginning: it stops where that stops, and nothing ends the turn.

        As transformers' `continue_final_message`: white space at its end is gone where the template trims. Raises
        InputError when the template does not write the beginning as it is.
        """
        *before, last = messages
        text = self.render([*before, replace(last, content=last.content + CONTINUATION)], tools, kwargs, prompt=False)
        place = text.rfind(CONTINUATION.strip())
        if place < 0 or self.tokenizer.seal(last.content.strip()) not in text:
            raise InputError(
                f"turn {len(messages)}: the template {self.name} does not write the beginning of an answer unchanged",
                fix="use another --text.template, or end the prompt before the assistant's turn",
            )
        return text[:place] if text[place:].startswith(CONTINUATION) else text[:place].rstrip()

    def open(
        self,
        messages: Sequence[Message],
        tools: Tools = (),
        kwargs: Mapping[str, Any] = NO_VALUES,
        asked: Sequence[Wanted] = (),
    ) -> Text:
        """`render` of a conversation's first messages, for several counts: open(m)(k, p) = render(m[:k], prompt=p).

        `asked` are the (k, p) that will be wanted: of conversations that are opened one after the other before the first
        text is, they are rendered together.
        """
        if tools and self.for_tools:
            return self.for_tools.open(messages, tools, kwargs, asked)
        kwargs = {**self.kwargs, **kwargs}
        if self.thoughts == "content":
            messages = [
                built_in_templates.thought_in_words(message) if message.reasoning else message for message in messages
            ]
        if not self.reads_calls:
            messages = [
                built_in_templates.calls_in_words(message) if message.tool_calls else message for message in messages
            ]
        if not tools or self.reads_tools:
            return self.write(messages, tools, kwargs, asked)
        told = built_in_templates.tools_in_words(messages, tools)
        added = len(told) - len(messages)
        text = self.write(told, (), kwargs, [(count + added, prompt) for count, prompt in asked])
        return lambda count, prompt: text(count + added, prompt)

    def as_jinja(self) -> str:
        """The Jinja text that renders the same, for programs that read a tokenizer's `chat_template`.

        For 'alpaca' and 'plain' a rendition of what is written here: it takes OpenAI's messages, and the
        `input` of an Alpaca row as a field of the user's message. It cannot seal: control tokens in data are
        read as such by whoever tokenizes its text. Values given to the template are its defaults, and one for tools is
        joined to it.
        """
        text = self.source
        if self.name in ("alpaca", "plain"):
            text = built_in_templates.as_jinja(self.name, self.tokenizer.opening)
        elif self.for_tools:
            with_tools, without = self.for_tools.source.removesuffix("\n"), text.removesuffix("\n")
            text = f"{{% if tools %}}\n{with_tools}{{% else %}}\n{without}{{% endif %}}"
        defaults = (
            f"{{% if {k} is not defined %}}{{% set {k} = {_literal(v)} %}}{{% endif %}}" for k, v in self.kwargs.items()
        )
        return "".join(defaults) + text

    @property
    def reads_tools(self) -> bool:
        """Whether tool schemas reach the text."""
        return "tools" in self.reads.variables

    @property
    def reads_calls(self) -> bool:
        """Whether the tool calls of an assistant turn reach the text."""
        return "tool_calls" in self.reads.fields

    @property
    def thoughts(self) -> Thoughts:
        """Where the template finds a thought: in fields of a message, in blocks of its content, or nowhere but in the
        content itself."""
        return self.find_thoughts()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of everything that turns messages into text."""
        more = [json.dumps(self.kwargs, sort_keys=True)] if self.kwargs else []
        more += [self.for_tools.fingerprint] if self.for_tools else []
        parts = (self.source, self.tokenizer.opening, self.tokenizer.bos, self.tokenizer.eos, *more)
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
        """Tokens that end a turn: the tokenizer's, and `end_of_turn`, also of the template for tools."""
        ends = {self.end_of_turn, self.for_tools.end_of_turn if self.for_tools else None}
        return self.tokenizer.stop_ids | {end for end in ends if end is not None}

    @cached_property
    def stops(self) -> tuple[str, ...]:
        """The texts of `stop_ids`."""
        return tuple(text for text, index in self.tokenizer.control.items() if index in self.stop_ids)


def load_template(name: str, tokenizer: Tokenizer, kwargs: Mapping[str, Any] = NO_VALUES) -> Template:
    """The template called `name`: 'auto', 'alpaca', 'plain', the path of a Jinja file, or one of the model's named ones.

    'auto' is the model's own chat template, or alpaca when it has none. Where it has several, it is 'default', and
    'tool_use' for conversations with tools, as in transformers. `kwargs` are values for it. Raises InputError for an
    unknown name, an unreadable file, a template that is not valid Jinja, a built-in one without an EOS to write, and for
    values that the template does not read.
    """
    template = _found(name, tokenizer, kwargs)
    read = template.reads.variables | (template.for_tools.reads.variables if template.for_tools else frozenset())
    if taken := next((key for key in kwargs if key in TEMPLATE_GIVEN), None):
        raise InputError(f"'{taken}' is set by Luthier itself", where="--text.template_kwargs", fix="leave it out")
    if strange := next((key for key in kwargs if key not in read), None):
        raise InputError(
            f"the template {template.name} does not read '{strange}'", where="--text.template_kwargs",
            fix=f"did you mean '{guess}'?" if (guess := nearest(strange, read)) else "leave it out",
        )  # fmt: skip
    return template


def _found(name: str, tokenizer: Tokenizer, kwargs: Mapping[str, Any]) -> Template:
    own = tokenizer.fast.chat_template
    named = own if isinstance(own, Mapping) else {"default": own} if own else {}
    if name == "auto" and named:
        if "default" not in named:
            raise InputError(
                f"the model has no default template, but {', '.join(named)}", where="--text.template",
                fix=f"choose one, such as --text.template {min(named)}",
            )  # fmt: skip
        tools = named.get("tool_use")
        for_tools = _jinja(tools, "chat (tool_use)", tokenizer, kwargs) if tools else None
        return replace(_jinja(named["default"], "chat", tokenizer, kwargs), for_tools=for_tools)
    if name in BUILT_IN:
        if not tokenizer.eos:
            raise InputError(
                f"the template '{name}' ends answers with EOS, but this tokenizer has none",
                where="--text.template", fix="give a Jinja file that writes an end-of-turn token",
            )  # fmt: skip
        if name == "plain":
            return Template("plain", "plain", tokenizer, built_in_templates.plain(tokenizer))
        return Template("alpaca", built_in_templates.WORDING, tokenizer, built_in_templates.alpaca(tokenizer))
    if name in named and not Path(name).is_file():
        return _jinja(named[name], name, tokenizer, kwargs)
    return _jinja(_read(name, (*BUILT_IN, *named)), name, tokenizer, kwargs)


def _read(name: str, known: Sequence[str]) -> str:
    path = Path(name)
    if not path.is_file():
        guess = nearest(name, known)
        fix = f"did you mean '{guess}'?" if guess else "give auto, alpaca, plain, or the path of a Jinja file"
        raise InputError(f"no template '{name}'", where="--text.template", fix=fix)
    if path.stat().st_size > 4 * MAX_SOURCE:
        raise too_long(name)
    try:
        return text_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the template: {error}", where=name) from None


def _jinja(source: str, name: str, tokenizer: Tokenizer, kwargs: Mapping[str, Any]) -> Template:
    names = {**tokenizer.fast.special_tokens_map, "documents": None}
    jinja = Jinja(source, name, {key: _as_json(value) for key, value in names.items()})

    def text_of(
        turns: Sequence[Mapping[str, Any]], tools: Tools, given: Mapping[str, Any], asked: Sequence[Wanted] = ()
    ) -> Text:
        values = tokenizer.seal_value(given) | {"tools": tokenizer.seal_value(list(tools)) or None}
        return jinja.open(tokenizer.seal_value(turns), values, asked)

    @cache
    def thoughts() -> Thoughts:
        return find_thoughts(jinja.reads, lambda turns: text_of(turns, (), kwargs)(len(turns), False))

    @cache
    def blocks() -> bool:
        return find_blocks(jinja.reads, lambda turns: text_of(turns, (), kwargs)(len(turns), False))

    def write(
        messages: Sequence[Message], tools: Tools, given: Mapping[str, Any], asked: Sequence[Wanted] = ()
    ) -> Text:
        return _fitting(messages, [text_of(turns, tools, given, asked) for turns in forms(messages, thoughts, blocks)])

    return Template(name, source, tokenizer, write, jinja.reads, kwargs, find_thoughts=thoughts)


def _fitting(messages: Sequence[Message], texts: Sequence[Text]) -> Text:
    """The first of several forms in which the template takes the messages with all their calls; else the first."""
    if len(texts) == 1:
        return texts[0]
    asks = messages[-1].role != "assistant"
    taken = []
    for text in texts:
        try:
            whole = text(len(messages), asks)
        except InputError:
            continue
        if not calls_missing(messages, whole.replace(SEPARATOR, "")):
            return text
        taken.append(text)
    return (taken or texts)[0]


def _as_json(value: Any) -> Any:
    """A special token as text, also one that says more of itself."""
    return list(map(_as_json, value)) if isinstance(value, (list, tuple)) else value and str(value)


def _literal(value: Any) -> str:
    """A JSON value as Jinja writes it: `none` for null, the rest as in JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
