"""luthier chat"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from luthier.commands.options import MACHINE, SAMPLING, Command, max_new_tokens, option, top_p
from luthier.commands.output import console, say
from luthier.commands.settings import with_threads
from luthier.core import log

HELP = """  /adapter NAME   answer with another adapter, or with 'base'
  /adapters       list them
  /system TEXT    set the system prompt (without TEXT: none), and start again
  /reset          forget the conversation
  /help           this
  /quit           leave (or Ctrl-D)"""


@click.command("chat", cls=Command, context_settings={"max_content_width": 110})
@click.argument("model")
@option("--compare", metavar="NAME", help="Answer twice, side by side: by MODEL and by 'base' or another adapter.")
@option("--adapter", multiple=True, metavar="RUN", help="More adapters over the same base; /adapter switches.")
@option("--system", default=None, help='System prompt; "" for none.  [that of the run\'s training rows]')
@option("--base", metavar="NAME", help="Base model of the adapter, if not the one that it names.")
@option("--prompt", default=None, help="Answer this one prompt, and exit.")
@option(
    "--temperature",
    group=SAMPLING,
    type=click.FloatRange(0),
    default=0.0,
    metavar="X",
    help="0 takes the likeliest token.  [0]",
)
@top_p
@max_new_tokens
@option("--seed", group=SAMPLING, type=int, default=0, metavar="N", help="Fixes what is sampled.  [0]")
@option(
    "--device",
    group=MACHINE,
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    help="Where to compute.  [auto]",
)
@with_threads
def command(
    model: str, compare: str | None, adapter: tuple[str, ...], system: str | None, prompt: str | None,
    temperature: float, top_p: float, max_new_tokens: int, seed: int, device: str, base: str | None, threads: int | None,
) -> None:  # fmt: skip
    """Talk to MODEL: a run directory, or any model that --model takes.

    \b
    Examples:
      luthier chat runs/quickstart
      luthier chat runs/quickstart --compare base
      luthier chat smollm2-135m --adapter runs/one --adapter runs/two
    """
    from luthier.core.threads import use_threads
    from luthier.runs.open import open_model

    use_threads(threads)
    opened = open_model(model, adapter=adapter, device=device, base=base)
    if compare == "base" and not opened.names:
        raise click.UsageError(
            "this run tuned the model itself: it has no separate base; talk to the base by its own name"
        )
    if compare is not None and compare not in opened.names and compare != "base":
        opened.switch(compare)  # raises the error that lists the names
    sampling = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed}
    talk = ChatSession(opened, compare, system, sampling)
    talk.header(quiet=prompt is not None or not sys.stdin.isatty())
    if prompt is not None:
        talk.say(prompt)
        return
    for line in _lines():
        if not talk.take(line):
            break


def _lines() -> Any:
    """What the user types, with editing where the terminal has it."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  gives input() history and editing
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


class ChatSession:
    """A conversation at the terminal. With `compare` each side keeps its own."""

    def __init__(self, opened: Any, compare: str | None, system: str | None, sampling: dict[str, Any]) -> None:
        self.opened, self.compare, self.sampling = opened, compare, sampling
        self.system = system
        self.turns: dict[str, list[Any]] = {}
        self.commands: dict[str, Callable[[str], None]] = {
            "/adapter": opened.switch,
            "/adapters": lambda rest: say("  " + "  ".join(self._marked(name) for name in ("base", *opened.names))),
            "/system": self._set_system,
            "/reset": lambda rest: self.turns.clear(),
            "/help": lambda rest: print(HELP),
        }

    def header(self, quiet: bool) -> None:
        """Who answers, and under which system prompt: on standard error; `quiet` leaves out what a script does not need."""
        if not quiet:
            log.note(f"{self.opened.active}; /help shows the commands")
        system = self.opened.prompt_format.system if self.system is None else self.system
        if system:
            log.note(f"system prompt: {system}")

    def take(self, line: str) -> bool:
        """One line of the user: a command or a message. False means leave."""
        from luthier.core.errors import InputError, nearest

        text = line.strip()
        if not text:
            return True
        if text in ("/quit", "/exit"):
            return False
        name, _, rest = text.partition(" ")
        if text.startswith("/") and name not in self.commands:
            guess = nearest(name, [*self.commands, "/quit"])
            say(f"  unknown command {name}; " + (f"did you mean {guess}?" if guess else "see /help"))
            return True
        try:
            if text.startswith("/"):
                self.commands[name](rest.strip())
            else:
                self.say(text)
        except InputError as error:  # such as a conversation longer than the model's context: /reset fixes it
            say(f"  {error}")
        return True

    def say(self, text: str) -> None:
        """Answer one message, streaming; side by side when comparing."""
        if self.compare is None:
            for piece in self._answer(self.opened.active, text):
                say(piece, end="")
            print()
            return
        first = self.opened.active
        columns = {self.compare: "", first: ""}
        screen = console()
        if not screen.is_terminal:
            for name in columns:
                say(f"[{name}] " + "".join(self._answer(name, text)))
        else:
            self._side_by_side(screen, columns, text)
        self.opened.switch(first)

    def _side_by_side(self, screen: Any, columns: dict[str, str], text: str) -> None:
        from rich.live import Live
        from rich.table import Table
        from rich.text import Text

        from luthier.core.screen import clean

        def table() -> Table:
            out = Table(*map(clean, columns), expand=True, show_lines=False)
            out.add_row(*(Text(clean(answer)) for answer in columns.values()))
            return out

        with Live(table(), console=screen, refresh_per_second=8, vertical_overflow="visible") as live:
            for name in columns:
                for piece in self._answer(name, text):
                    columns[name] += piece
                    live.update(table())

    def _answer(self, name: str, text: str) -> Any:
        """The pieces of one side's answer; its conversation grows by both turns."""
        from luthier.core.errors import InputError
        from luthier.core.types.examples import Message

        if self.opened.active != name:
            self.opened.switch(name)
        turns = self.turns.setdefault(name, [Message("system", self.system)] if self.system else [])
        turns.append(Message("user", text))
        answer = ""
        try:
            none = {"system": ""} if self.system == "" else {}  # not the run's own either
            for piece in self.opened.answer(turns, self.sampling, **none):
                answer += piece
                yield piece
        except InputError:
            turns.pop()  # it was not said
            raise
        turns.append(Message("assistant", answer))

    def _marked(self, name: str) -> str:
        return f"[{name}]" if name == self.opened.active else name

    def _set_system(self, text: str) -> None:
        self.system = text
        self.turns.clear()
