"""The process in which a tokenizer of unknown patterns is tried: `python -m luthier.model.folder.tokenizer_trial FD MIB FILE`.

It is sent the patterns, none where other rules are to be tried, and says {"why": null} when every token can be written and long
runs of each kind of character, and of each that stands in a pattern, are cut in time that grows with their length, else why not.
"""

from __future__ import annotations

import sys
import time

from luthier.core.foreign.service import Line, limit_memory, watched

SHORT, LONG = 40, 20_000  # characters of a run
LETTERS = 40
TOKENS = 300_000  # that are written alone
MOST = 0.3  # seconds for one: a hundredth is usual, and patterns that take the square of it need several
TOTAL = 30.0
ALPHABET = "aA0 \n\t'-.,é漢ا_<"


def main(descriptor: int, mib: int, file: str) -> None:
    """Serve one request."""
    limit_memory(mib)
    line = Line(descriptor)
    with watched(TOTAL):
        for request in line:
            line.send({"why": trial(file, str(request))})


def trial(file: str, patterns: str) -> str | None:
    """What is wrong with a tokenizer; None where nothing was found."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(file)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        for index in range(min(tokenizer.get_vocab_size(), TOKENS)):
            tokenizer.decode([index])
        letters = list(dict.fromkeys(ALPHABET + patterns))[:LETTERS]
        texts = [letter * SHORT + end for letter in letters for end in ("!", " ", "")] + [
            letter * LONG + "!" for letter in letters
        ]
        words = "".join(filter(str.isalnum, patterns))[:8] or "a1"
        texts += [words * 5 + "!", words * (LONG // len(words)) + "!", words[0] + words[-1] * SHORT + "!"]
        if late := next(filter(None, (_late(tokenizer, text) for text in texts)), None):
            return late
    except BaseException as error:  # the library raises bare Exception, and panics
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def _late(tokenizer: object, text: str) -> str | None:
    began = time.process_time()
    ids = tokenizer.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined]
    tokenizer.decode(ids[:1000])  # type: ignore[attr-defined]
    spent = time.process_time() - began
    return f"{len(text):,} times '{text[0]}' take {spent:.1f} s" if spent > MOST else None


if __name__ == "__main__":
    descriptor, mib, file = sys.argv[1:]
    main(int(descriptor), int(mib), file)
