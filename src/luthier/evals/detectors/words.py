"""Words of a text in any script, and what the detectors count and compare of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

# Scripts that are written without spaces: every character counts as a word.
UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:['’][^\W\d_{UNSPACED}]+)*")
_ONE_UNSPACED = re.compile(f"[{UNSPACED}]")
_SENTENCE = re.compile(r"(?<=[.!?。！？])[\"'”’)]*\s+|(?<=[。！？])|\n+")
_ACRONYM = re.compile(r"(?<![\w-])[A-Z]{2,6}s?(?![\w-])")
LIST_MARK = re.compile(r"^[ \t]*(?:\d{1,3}[.):]|[a-zA-Z][.)]|[-*•+])[ \t]+", re.MULTILINE)

# Function words of four letters or more, which say nothing about what a text is about.
_EMPTY_WORDS = """
    about above after again also always among another around away back because become becomes been before being below
    between both came come comes could does doing done down during each either else enough even ever every first from
    gets give gives goes going have having here however into it's itself just keep kind know least less like likely
    made make makes making many mean means might more most much must need needs never next often once only other
    others over part perhaps quite rather said same second several shall should since some something sometimes soon
    still such take takes than that their them themselves then there therefore these they thing things this those
    though three through thus together told took toward towards under until upon used uses using usually very want
    wants well went were what when where whether which while whose will with within without would years your yours
    please write aber alle allem allen aller alles auch beim bitte dann dass deine dem den denn deren diese diesem
    diesen dieser dieses doch durch eine einem einen einer eines etwas für ganz haben hatte heute hier ihre ihrem
    ihren immer jede jedem jeden kann kein keine können machen mehr mein meine muss müssen nach neben nicht nichts
    noch oder ohne sehr sein seine seinem seinen seiner sich sind soll sondern über unter viel viele vom wann warum
    weil welche wenn werden wird wurde wurden zwei zwischen avec cette comme dans elle elles être fait leur leurs mais
    même nous plus pour quand sans sont sous sur très tout tous toute vous como desde donde entre esta este esto está
    hasta muito muy para pero porque puede sobre también todo todos tiene della delle degli nella questo questa sono
    anche essere door maar naar niet voor wordt zijn
"""
_EMPTY = frozenset(_EMPTY_WORDS.split())


def words(text: str) -> list[str]:
    """Lower-case words; each character is one in Chinese, Japanese and Thai. Underscores part words."""
    return _WORD.findall(text.lower())


def spans(text: str) -> list[tuple[int, int]]:
    """Where each of `words(text)` stands, in characters."""
    return [match.span() for match in _WORD.finditer(text)]


def unspaced(text: str) -> bool:
    """Whether most words of the text are single characters of a script without spaces."""
    return len(_ONE_UNSPACED.findall(text)) * 2 > len(_WORD.findall(text))


def sentences(text: str) -> list[str]:
    """The text cut after full stops, question and exclamation marks, and at line ends."""
    return [part for part in _SENTENCE.split(text) if part and part.strip()]


def content(text: str) -> set[str]:
    """What a text is about: the first five letters of its words of four letters or more that are not function words.

    Five letters stand for a stem ("treated" and "treatment" are one). In scripts without spaces: pairs of neighbours.
    """
    found: set[str] = set()
    before = ""
    for word in words(text):
        if _ONE_UNSPACED.match(word):
            if before:
                found.add(before + word)
            before = word
            continue
        before = ""
        if len(word) >= 4 and word not in _EMPTY:
            found.add(word[:5])
    return found


def acronyms(text: str, about: str) -> bool:
    """Whether the text has a word in capitals that is made of the initials of words of `about`, as CM is of "Chiari
    malformation", or that stands in it."""
    initials = "".join(word[0] for word in words(about))
    known = set(words(about))
    found = (match.lower() for match in _ACRONYM.findall(text))
    return any(name in initials or name in known or name.rstrip("s") in initials for name in found)


def longest_shared(first: Sequence[str], second: Sequence[str]) -> tuple[int, int]:
    """Start in `first`, and length, of the longest run of words that both have."""
    match = SequenceMatcher(None, first, second, autojunk=False).find_longest_match()
    return match.a, match.size


def contains(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Whether `part` stands in `whole` as one run."""
    return longest_shared(part, whole)[1] == len(part)
