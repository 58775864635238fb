"""What is printed for people: foreign text cannot move the cursor, change the screen, or look like other text than it is.

Column names, keys, file names, template errors, fields of model files and answers of models are written by others. What a
terminal would act on, or nobody would see, is shown as �. Results for machines (`--json`, files) are exact.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys

SHOWN = "\ufffd"
# Controls (C0, DEL, C1), direction marks, overrides and isolates, line and paragraph separators, characters without width,
# tags, half surrogates (a file name that is not UTF-8). The joiners U+200C and U+200D stay: scripts and emoji need them.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
UNSEEN = re.compile(f"[{_UNSEEN}]")
_ENDS = re.compile("[ \t]*(?:\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029])\\s*")
# What Luthier, rich and progress bars write themselves: colours, a line drawn anew, the cursor up, down, hidden and shown.
_OURS = re.compile(rf"(\x1b\[(?:[\d;:]*m|[0-2]?[JK]|\d*[A-G]|\?25[hl])|\r)|[{_UNSEEN}]")


def printable(text: str) -> str:
    """The text as it may be printed: tabs and line ends kept, every other unseen character as �."""
    return UNSEEN.sub(SHOWN, text.replace("\r\n", "\n"))


def clean(text: str) -> str:
    """`printable`, with tabs as spaces: for tables, whose cells are measured."""
    return printable(text.expandtabs(4))


def line(text: str) -> str:
    """The text on one line: `clean`, with line ends of any kind as a blank."""
    return clean(_ENDS.sub(" ", text)).strip()


class Screen(io.TextIOWrapper):
    """Standard output or standard error. What is printed past `clean`, such as a traceback or the log of a library, is cleaned
    here; to a terminal, colours and the moves of progress bars pass."""

    def write(self, text: str) -> int:
        if self.isatty() or "FORCE_COLOR" in os.environ:
            super().write(_OURS.sub(lambda found: found[1] or SHOWN, text))
        else:
            super().write(printable(text))
        return len(text)


def guard() -> None:
    """Put a `Screen` in the place of standard output and standard error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, Screen):
            encoding, by_line = stream.encoding, stream.line_buffering or name == "stderr"
            with contextlib.suppress(OSError):  # a closed pipe is told by whoever writes next
                stream.flush()
            screen = Screen(stream.detach(), encoding, "backslashreplace", line_buffering=by_line)
            setattr(sys, name, screen)
            setattr(sys, f"__{name}__", screen)
