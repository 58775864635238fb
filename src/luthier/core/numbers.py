r"""Numbers as people and models write them: `9,500`, `5 000`, `9{,}500`, `3/4`, `1.5e3`, `2 \times 10^5`, `-$40`, `50 %`.

What is not understood is no number at all, and equals nothing. A text is read from its end: a chain is a last number with those that
are tied to it, as in `1 1/2`, `10^3` or `10:30`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

DIGITS = 400  # most digits of a number, and the largest exponent; what is longer is not read
LINKS = 4  # of a chain that are looked at: no number has more than two

SPACE = "\u00a0"  # stands for every space that is no blank
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2010\u2011\u2012\ufe63\uff0d", "-"),
        **dict.fromkeys("\u202f\u2009\u2007\u2008\u200a\u2005\u2006", SPACE),
        **dict.fromkeys("\u2019\u2018\u02bc\u0060\u066c", "'"),
        **dict.fromkeys("\u2715\u2a2f\u00b7\u22c5\u2219", "×"),
        **dict.fromkeys("\u2044\u2215\u00f7", "/"),
        **dict.fromkeys("\u200b\u2060\ufeff\u200e\u200f", None),
        "\u066b": ".", "\uff0e": ".", "\u066a": "%", "\uff05": "%", "\uff04": "$",
    }
)  # fmt: skip
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
_LATEX: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\!", ""),
        (r"\{([,.])\}", r"\1"),
        (r"\{\\[,;: ]\}|\\[,;:> ]|~", SPACE),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\(?:left|right)(?![A-Za-z])", ""),
        (r"\\(?:times|cdot)(?![A-Za-z])", "×"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\pm(?![A-Za-z])", "±"),
        (r"\\([%$])", r"\1"),
        (r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1"),
    )
)

_SPACED = rf"\d{{1,3}}(?:[ {SPACE}]\d{{3}})+(?!\d)(?:[.,]\d+)?"
_RUN = rf"(?:{_SPACED}|\d+(?:[.,'_]\d+)*|(?<![A-Za-z])\.\d+)"
_ATOM = re.compile(
    r"\\frac\s*(?:\{(?P<over>[^{}]*)\}\s*\{(?P<under>[^{}]*)\}|(?P<one>\d)\s*(?P<other>\d))"
    rf"|(?P<run>{_RUN})(?:[eE](?P<power>[+-]?\d+))?"
)
_SIGNED = re.compile(rf"\s*(?P<sign>[+-]?)\s*(?P<run>{_RUN})\s*")
# What may stand between two numbers that belong together; other text parts them.
_LINK = re.compile(
    rf"(?P<over>[ {SPACE}]*/[ {SPACE}]*)|(?P<power>\s*\^\s*[{{(]?\s*[+-]?|\*\*[+-]?| \*\* [+-]?)"
    rf"|(?P<times>[ {SPACE}]*×[ {SPACE}]*|\*| \* |[xX]| [xX] )|(?P<whole>[ {SPACE}]*)"
    r"|(?P<dash>-)|(?P<other>:|°|\s*±\s*|\)\s*\^\s*[{(]?\s*[+-]?)"
)
_LETTER = r"[A-Za-z\u00c0-\u024f\u0370-\u04ff]"
_MONEY = r"(?:[$€£¥₹₩₽¢₺]|USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|CAD|AUD|SEK|NOK|DKK|PLN|CZK|BRL|Rs|kr)"
_GLUED = re.compile(rf"(?:{_LETTER}|[\w}}]_\{{?|[\^]\s*\{{?)$")
_MONEY_BEFORE = re.compile(rf"{_MONEY}$")
_WITHIN = re.compile(
    r"(?:\\(?:sqrt|log|ln|lg|sin|cos|tan|exp|overline|binom)(?:_\{?\w*\}?)?\s*(?:\[\w*\]?)?\s*[{(]?|√\s*\(?)$"
)
_OF = re.compile(
    r"[)}\]]*(?:\s*(?:π|√|∞|\\pi|\\sqrt|\\infty|pi\b|\.?\\overline)|i(?!\w)|\^\s*\{?\s*(?!th|st|nd|rd|o\b)[A-Za-z(])"
)
_SIGN = re.compile(rf"(?P<left>\S?\s*)-(?P<gap>\s*)(?:{_MONEY}\s*)?[{{(]?\s*$")
_SAID = re.compile(rf"(?:\d\s*)?\b(?:minus|negative)\s+(?:{_MONEY}\s*)?$", re.IGNORECASE)
_SCALE = re.compile(
    r"[})$]*\s*(hundred|thousand|tausend|million(?:s|en)?|milliarden?|milliards?|billions?|trillions?|mio\.?|mrd\.?|lakhs?|crores?|dozens?)\b"
    r"|[})$]*\s*([万萬亿億])|[})$]*(k|K|M|B|bn)\b",
    re.IGNORECASE,
)
_SCALES = {
    "hun": 2, "tho": 3, "tau": 3, "k": 3, "mio": 6, "m": 6, "milliard": 9, "mrd": 9, "bil": 9, "b": 9, "bn": 9, "tri": 12,
    "lakh": 5, "crore": 7, "万": 4, "萬": 4, "亿": 8, "億": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Number:
    """A number that was read: its values, the usual reading first (`9.500` is 9.5 or 9500), where it stands in the text, and the
    decimal mark that its spelling shows, '' where it shows none."""

    values: tuple[Fraction, ...]
    mark: str
    start: int
    end: int


def same(answer: str, reference: str) -> bool:
    """Whether the last numbers of both texts are equal, exactly; never where one of them cannot be read.

    `9,500` is 9500, and `9.500` may be 9.5 or 9500, unless the reference shows its decimal mark (`9.5`, `1.234,50`): then
    the answer is read by it.
    """
    wanted = last_number(reference)
    said = wanted and last_number(answer, wanted.mark)
    return bool(wanted and said and set(wanted.values) & set(said.values))


def is_number(text: str) -> bool:
    """Whether a text is one number that can be read, but for a sign, a currency or a percent sign, and what stands before `####`."""
    plain = _plain(text.rpartition("####")[2])
    found = _last(plain, "")
    return found is not None and not re.sub(
        rf"[\s%+\-,.{SPACE}]|{_MONEY}", "", plain[: found.start] + plain[found.end :]
    )


def last_number(text: str, mark: str = "") -> Number | None:
    """The last number of a text, read by the decimal mark `mark` where its spelling leaves it open; None where there is none,
    or where it cannot be read."""
    return _last(_plain(text), mark)


def _plain(text: str) -> str:
    """One spelling for what is written in many: signs, spaces, digits of other scripts, LaTeX."""
    if not text.isascii():
        text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda m: "^" + "".join(_RAISED[c] for c in m[0]), text.translate(_ALIKE))
        text = "".join(c if c.isascii() else _ascii(c) for c in text)
        text = re.sub(r"(?<=\d)，(?=\d{3}(?!\d))", ",", text)
    if "\\" in text or "{" in text or "~" in text:
        for pattern, by in _LATEX:
            text = pattern.sub(by, text)
    return text


def _ascii(character: str) -> str:
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if unicodedata.category(character) == "No" and "FRACTION" in unicodedata.name(character, ""):
        return " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    return character


def _last(text: str, mark: str) -> Number | None:
    atoms = list(_ATOM.finditer(text))
    end = len(atoms)
    while end:
        start, links = end - 1, list[str]()
        while start and len(links) < LINKS and (link := _link(text, atoms, start, links)):
            links.insert(0, link)
            start -= 1
        first, last = atoms[start], atoms[end - 1]
        head = text[max(0, first.start() - 24) : first.start()]
        if not _GLUED.search(head) or _MONEY_BEFORE.search(head):
            return (
                None
                if _WITHIN.search(head) or _OF.match(text, last.end())
                else _read(text, atoms[start:end], links, mark)
            )
        end = start  # m2, x_1, cm^2: part of a name
    return None


def _link(text: str, atoms: list[re.Match[str]], place: int, after: list[str]) -> str | None:
    """How the number before `place` is tied to it: over, power, times, whole (of a mixed fraction), dash, other; or not at all."""
    begin, end = atoms[place - 1].end(), atoms[place].start()
    if end - begin > 12 or not (found := _LINK.fullmatch(text, begin, end)):
        return None
    kind = str(found.lastgroup)
    if kind == "power" and found[0][-1] == "-":
        return "root"  # a negative power
    fraction = after[:1] == ["over"] or atoms[place]["run"] is None
    whole = atoms[place - 1]["run"] is not None and len(atoms[place - 1][0]) <= 3 and atoms[place - 1][0].isdigit()
    return None if kind == "whole" and not (fraction and whole) else kind


def _read(text: str, chain: list[re.Match[str]], links: list[str], mark: str) -> Number | None:
    start, end = chain[0].start(), chain[-1].end()
    parts = [_atom(atom, mark) for atom in chain]
    values = _joined([part[0] for part in parts], links)
    if not values:
        return None
    if scale := _SCALE.match(text, end):
        values = _scaled(values, scale)
    if links != ["dash"] and _negative(text[max(0, start - 40) : start]):
        values = tuple(-value for value in values)
    shown = {found for _, found in parts if found}
    return Number(values, shown.pop() if len(shown) == 1 else "", start, end)


def _atom(atom: re.Match[str], mark: str) -> tuple[tuple[Fraction, ...], str]:
    """The values of a number, none where it is not understood, and the decimal mark that it shows."""
    if atom["run"] is None:
        over, under = (_part(atom[a] or atom[b], mark) for a, b in (("over", "one"), ("under", "other")))
        return tuple(a / b for a in over for b in under if b), ""
    values, shown = _run(atom["run"], mark)
    power = (
        int(atom["power"]) if atom["power"] and len(atom["power"]) <= 4 else 0 if atom["power"] is None else DIGITS + 1
    )
    return (tuple(value * Fraction(10) ** power for value in values) if abs(power) <= DIGITS else ()), shown


def _part(text: str, mark: str) -> tuple[Fraction, ...]:
    """One side of a fraction."""
    found = _SIGNED.fullmatch(text)
    return tuple(-v if found["sign"] == "-" else v for v in _run(found["run"], mark)[0]) if found else ()


def _run(run: str, mark: str) -> tuple[tuple[Fraction, ...], str]:
    """Digits with marks between them: thousands in groups of three (or, in India, of two before them), or a decimal mark."""
    run = re.sub(rf"[ {SPACE}'_](?=\d)", "'", run)
    marks, pieces = re.findall(r"[.,']", run), re.split(r"[.,']", run)
    if sum(map(len, pieces)) > DIGITS:
        return (), ""
    kinds = list(dict.fromkeys(marks))
    if not marks:
        return (Fraction(int(run)),), ""
    if len(kinds) == 2 and kinds[1] != "'" and marks.count(kinds[1]) == 1 and _groups(pieces[:-1], kinds[0]):
        return (_decimal("".join(pieces[:-1]), pieces[-1]),), kinds[1]
    if len(kinds) > 1:
        return (), ""
    (kind,) = kinds
    grouped = _groups(pieces, kind)
    if len(marks) > 1 or kind == "'":
        if grouped:
            return (Fraction(int("".join(pieces))),), {",": ".", ".": ","}.get(kind, "")
        return ((Fraction(int(pieces[-1])),), "") if kind == "," else ((), "")  # 1,2,3 is a list
    decimal = _decimal(*pieces)
    if not grouped:
        return (decimal,), kind
    whole = Fraction(int("".join(pieces)))
    if mark:
        return (decimal if kind == mark else whole,), mark
    return ((whole,) if kind == "," else (decimal, whole)), ""


def _groups(pieces: list[str], kind: str) -> bool:
    first, *rest = pieces
    western = 1 <= len(first) <= 3 and all(len(piece) == 3 for piece in rest)
    indian = (
        kind == "," and len(rest) > 1 and len(rest[-1]) == 3 and len(first) <= 2 and {len(p) for p in rest[:-1]} == {2}
    )
    underscored = kind == "'" and all(len(piece) == 3 for piece in rest)
    return (western or indian or underscored) and first[:1] not in ("", "0")


def _decimal(whole: str, rest: str) -> Fraction:
    return Fraction(int(whole + rest or "0"), 10 ** len(rest))


def _joined(parts: list[tuple[Fraction, ...]], links: list[str]) -> tuple[Fraction, ...]:
    """A chain as one number; nothing where it is none: a date, a time, a product that nobody has worked out."""
    if not all(parts):
        return ()
    if not links or links == ["dash"]:
        return parts[-1]
    powers: dict[str, Callable[[Fraction, Fraction], Fraction | None]] = {
        "power": _power,
        "root": lambda a, b: _power(a, -b),
    }
    found: list[Fraction | None] = []
    if links == ["over"]:
        found = [a / b if b else None for a in parts[0] for b in parts[1]]
    elif links in (["whole"], ["whole", "over"]):
        fractions = [a / b for a in parts[1] for b in parts[2] if b] if len(parts) == 3 else parts[1]
        found = [a + b if 0 < b < 1 else None for a in parts[0] for b in fractions]
    elif len(links) == 1 and links[0] in powers:
        found = [powers[links[0]](a, b) for a in parts[0] for b in parts[1]]
    elif len(links) == 2 and links[0] == "times" and links[1] in powers and parts[1] == (Fraction(10),):
        found = [
            a * b if (b := powers[links[1]](Fraction(10), c)) is not None else None for a in parts[0] for c in parts[2]
        ]
    return tuple(value for value in found if value is not None)


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    long = len(str(base.numerator)) + len(str(base.denominator))
    if exponent.denominator != 1 or abs(exponent) * long > 4 * DIGITS or (not base and exponent <= 0):
        return None
    return Fraction(base**exponent.numerator)


def _negative(before: str) -> bool:
    """Whether the number after this text has a minus sign: not the dash of a list, of a range or of a difference."""
    if said := _SAID.search(before):
        return not said[0][0].isdigit()
    found = _SIGN.search(before)
    if not found:
        return False
    left = found["left"].rstrip()
    if found["gap"]:
        return left in ("=", "≈", "(", "<", ">", "{", "[")
    return not (left and not found["left"][-1].isspace() and (left.isalnum() or left in ")}]-"))


def _scaled(values: tuple[Fraction, ...], scale: re.Match[str]) -> tuple[Fraction, ...]:
    """`2 million` is 2000000; a letter, as in 300K, or a dozen may be what is counted too."""
    word, letter = (scale[1] or scale[2] or "").lower(), (scale[3] or "").lower()
    if word.startswith("dozen"):
        return values + tuple(12 * value for value in values)
    power = next(power for start, power in _SCALES.items() if (word or letter).startswith(start))
    large = tuple(value * 10**power for value in values)
    return large if word or (letter == "k" and scale[3] == "k") else values + large
