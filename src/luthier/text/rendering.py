"""Jinja templates, compiled and rendered in a process beside us (see `sandbox`), one for all templates of this process.

It is started with the first template, and again when a template had it ended. Conversations of which it is known what will
be asked are sent together, many in one request, and their texts are fetched when they are wanted: meanwhile it works on.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.child import Child, Ended
from luthier.text.built_in_templates import Wanted
from luthier.text.template_reads import TemplateReads

MAX_SOURCE = 1 << 18
MEMORY = 512  # MiB
SECONDS = 3.0  # of computing, for one text; hundreds of times what a long conversation takes
MAX_CLOCK_SECONDS = 60.0  # seconds on the clock, on a machine that has much else to do
MAX_KILLS = 2  # so often may a template have the process ended; then it is not tried again
BATCH_CHARACTERS = 1 << 17  # characters of conversations in one request, unless it holds only one
KEPT_VARIABLES = (
    "PATH",
    "LANG",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)  # of the environment: no keys, and nothing of the user's
FIX = "use another --text.template"

_encode = json.JSONEncoder(ensure_ascii=False).encode


class Jinja:
    """A template. `reads` says what it looks at."""

    def __init__(self, source: str, name: str, names: Mapping[str, Any]) -> None:
        """Compile `source`, which looks up `names` where a conversation does not give them. Raises InputError with the line."""
        if len(source) > MAX_SOURCE:
            raise too_long(name)
        self.source, self.name, self.names = source, name, names
        self.strikes = 0
        self.last: InputError | None = None  # why it had the process ended
        self.reads = TemplateReads(**{part: frozenset(words) for part, words in PROCESS.build(self).items()})

    def open(self, messages: Sequence[Any], values: Mapping[str, Any], asked: Sequence[Wanted] = ()) -> Conversation:
        """What it makes of a conversation; `asked` is what of it will surely be wanted."""
        opened = Conversation(self, messages, values, tuple(dict.fromkeys(asked)))
        if asked:
            PROCESS.ahead(opened)
        return opened


@dataclass(eq=False)
class Conversation:
    """Messages and values for a template, and the texts that were made of them. Called with how many of the messages are
    wanted, and whether to ask for an answer, it gives the text, or raises InputError in the template's words."""

    template: Jinja
    messages: Sequence[Any]
    values: Mapping[str, Any]
    asked: Sequence[Wanted] = ()
    texts: dict[Wanted, str | InputError] = field(default_factory=dict)

    def __call__(self, count: int, prompt: bool) -> str:
        wanted = count, prompt
        text = self.texts.get(wanted)
        if text is None:
            text = PROCESS.text(self, wanted)
        if isinstance(text, InputError):
            raise InputError(text.what, where=text.where, fix=text.fix)
        return text


class Process:
    """The process beside us, what it was asked and has not answered, and what it will be asked with the next."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.child: Child | None = None
        self.built: dict[Jinja, int] = {}
        self.waiting: deque[tuple[Conversation, Wanted]] = deque()
        self.later: deque[weakref.ref[Conversation]] = deque()

    def build(self, template: Jinja) -> dict[str, list[str]]:
        """What the template reads, by `TemplateReads`. Raises InputError where it is no Jinja."""
        with self.lock:
            while self.waiting:
                self._receive()
            reply = self._ask_to_build(template)
        if "error" in reply:
            line = reply.get("line")
            if line is None:
                raise _failed(reply["error"])
            raise InputError(reply["error"], where=f"{template.name}:{line}")
        return reply

    def ahead(self, conversation: Conversation) -> None:
        """Render what is asked of it with the next request, if it is still there."""
        with self.lock:
            self.later.append(weakref.ref(conversation))

    def text(self, conversation: Conversation, wanted: Wanted) -> str | InputError:
        """One text, or what is wrong."""
        with self.lock:
            while wanted not in conversation.texts:
                if self.waiting:
                    self._receive()
                elif conversation.template.strikes >= MAX_KILLS and conversation.template.last:
                    conversation.texts[wanted] = conversation.template.last
                else:
                    self._send(conversation, wanted)
            return conversation.texts[wanted]

    def _send(self, first: Conversation, wanted: Wanted) -> None:
        """Ask for a text, for the others that are asked of the same conversation, and for those of conversations ahead."""
        asked = [wanted, *(other for other in first.asked if other != wanted and other not in first.texts)]
        try:
            if first.template not in self.built and "error" in (reply := self._ask_to_build(first.template)):
                raise _failed(str(reply["error"]))
            rows = [self._row(first, asked)]
        except InputError as error:
            first.texts[wanted] = error
            return
        sent: list[tuple[Conversation, Sequence[Wanted]]] = [(first, asked)]
        size = 0
        while self.later and size < BATCH_CHARACTERS:
            other = self.later.popleft()()
            if other is None or other.texts or other is first or other.template not in self.built:
                continue
            with suppress(InputError):  # it is said when its own text is wanted
                rows.append(self._row(other, other.asked))
                sent.append((other, other.asked))
                size += len(rows[-1])
        try:
            self.running().send_line(f'{{"rows": [{", ".join(rows)}]}}', MAX_CLOCK_SECONDS)
        except Ended as ended:
            first.texts[wanted] = self._blamed(first.template, ended)
            return
        except BaseException:
            self.end()
            raise
        self.waiting.extend((conversation, one) for conversation, several in sent for one in several)

    def _row(self, conversation: Conversation, asked: Sequence[Wanted]) -> str:
        """A conversation as the process reads it. Raises InputError where it holds what is not JSON."""
        try:
            return _encode([self.built[conversation.template], conversation.values, conversation.messages, asked])
        except (TypeError, ValueError, RecursionError) as error:
            raise _not_json(error) from None

    def _ask_to_build(self, template: Jinja) -> dict[str, Any]:
        child, number = self.running(), len(self.built)
        try:
            request = {"template": number, "source": template.source, "names": template.names}
            reply = child.ask(request, MAX_CLOCK_SECONDS)
        except Ended as ended:
            raise self._blamed(template, ended) from None
        except BaseException:
            self.end()
            raise
        if not isinstance(reply, dict):
            raise self._blamed(template, Ended("reply", "it sent something else than it was asked for"))
        if reply.get("spent"):
            raise self._blamed(template, Ended("memory", ""))
        if "error" not in reply:
            self.built[template] = number
        return reply

    def _receive(self) -> None:
        """The next text that comes back, put where it belongs."""
        conversation, wanted = self.waiting[0]
        try:
            reply = self.running().receive(MAX_CLOCK_SECONDS)
        except Ended as ended:
            conversation.texts[wanted] = self._blamed(conversation.template, ended)
            return
        except BaseException:  # a line that was half read cannot be read on
            self.end()
            raise
        self.waiting.popleft()
        if isinstance(reply, str):
            conversation.texts[wanted] = reply
        elif not isinstance(reply, dict) or reply.get("spent"):
            why = Ended("memory" if isinstance(reply, dict) else "reply", "it sent something else than a text")
            conversation.texts[wanted] = self._blamed(conversation.template, why)
        else:
            conversation.texts[wanted] = _failed(str(reply.get("error")))

    def running(self) -> Child:
        if self.child is None:
            environment = {
                name: value
                for name, value in os.environ.items()
                if name in KEPT_VARIABLES or name.startswith(("PYTHON", "LC_"))
            }
            self.child = Child("luthier.text.sandbox", MEMORY, [str(SECONDS)], silent=True, environment=environment)
            self.built = {}
        return self.child

    def _blamed(self, template: Jinja, ended: Ended) -> InputError:
        """What a template did to the process, which is no more; what others were waiting for is asked again."""
        self.end()
        template.strikes += 1
        what = ended.what
        if ended.why == "memory":
            what = f"it takes more than {MEMORY} MiB of memory"
        elif ended.why == "late" or ended.number == signal.SIGPROF:
            what = f"it takes longer than {SECONDS:g} s"
        template.last = _failed(what, FIX)
        return template.last

    def end(self) -> None:
        if self.child is not None:
            self.child.kill()
        self.child, self.built = None, {}
        self.waiting.clear()


def too_long(name: str) -> InputError:
    """The error for a template that is none."""
    return InputError(f"the template is longer than {MAX_SOURCE:,} characters", where=name, fix=FIX)


def _failed(what: str, fix: str | None = None) -> InputError:
    return InputError(f"the chat template failed: {what}", fix=fix)


def _not_json(error: Exception) -> InputError:
    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return InputError(
        f"a value for the chat template cannot be passed to it: {what}", fix="write it as text or as a JSON value"
    )


def _new_process() -> None:
    """In a process that was just forked: the process beside its parent is not its own."""
    global PROCESS
    PROCESS = Process()


PROCESS = Process()
os.register_at_fork(after_in_child=_new_process)
