"""Which scripts a text is written in, and a guess at its language."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

# First code point of each run, and whose it is; '' for what belongs to none (digits, punctuation, symbols).
_RUNS: tuple[tuple[int, str], ...] = (
    (0x0000, ""), (0x0041, "Latin"), (0x005B, ""), (0x0061, "Latin"), (0x007B, ""),
    (0x00C0, "Latin"), (0x0250, ""), (0x0370, "Greek"), (0x0400, "Cyrillic"), (0x0530, "Armenian"),
    (0x0590, "Hebrew"), (0x0600, "Arabic"), (0x0700, ""), (0x0750, "Arabic"), (0x0780, ""),
    (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, "Gurmukhi"), (0x0A80, "Gujarati"), (0x0B00, ""),
    (0x0B80, "Tamil"), (0x0C00, "Telugu"), (0x0C80, "Kannada"), (0x0D00, "Malayalam"), (0x0D80, ""),
    (0x0E00, "Thai"), (0x0E80, ""), (0x10A0, "Georgian"), (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x1380, ""),
    (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, ""), (0x3041, "Kana"), (0x3100, ""),
    (0x3400, "Han"), (0xA000, ""), (0xAC00, "Hangul"), (0xD7B0, ""), (0xF900, "Han"), (0xFB00, ""),
    (0x20000, "Han"), (0x32000, ""),
)  # fmt: skip

# Words so common that a few of them tell a language; those shared by several of these are left out.
_COMMON = {
    "English": "the and of to is that it for with was on are this you be have not my how what can your would there",
    "German": "der die das und ist nicht ein eine zu den mit von auf für sich im dem wird",
    "French": "le les et des est une du dans qui pour pas sur ce avec au il sont vous",
    "Spanish": "el los y las una por con para es del lo su como más pero muy está",
    "Italian": "il di che è gli per non sono della nel alla anche più questo dei",
    "Portuguese": "o os não uma em para com do da que dos ao mais seu são você",
    "Dutch": "de het een en van is niet dat op te zijn voor met ook aan er",
}
_WORDS = {word for words in _COMMON.values() for word in words.split()}
_VOTES = {word: [name for name, words in _COMMON.items() if word in words.split()] for word in _WORDS}

# A script that one large language is written in.
_BY_SCRIPT = {
    "Cyrillic": "Russian or another in Cyrillic", "Arabic": "Arabic or Persian", "Devanagari": "Hindi or Marathi",
    "Hangul": "Korean", "Kana": "Japanese", "Han": "Chinese",
}  # fmt: skip


def scripts(texts: Sequence[str]) -> dict[str, float]:
    """The share of each script among all letters, the largest first."""
    counts = _letters("".join(texts))
    total = sum(counts.values())
    return {name: count / total for name, count in counts.most_common()}


def languages(texts: Sequence[str]) -> dict[str, float]:
    """The share of texts in each language, the largest first: a guess, by script and by common words."""
    counts = Counter(_language(text) for text in texts)
    return {name: count / len(texts) for name, count in counts.most_common()}


def _letters(text: str) -> Counter[str]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    runs = np.searchsorted([first for first, _ in _RUNS], codes, side="right") - 1
    counts: Counter[str] = Counter()
    for run, count in enumerate(np.bincount(runs, minlength=len(_RUNS))):
        if _RUNS[run][1] and count:
            counts[_RUNS[run][1]] += int(count)
    return counts


def _language(text: str) -> str:
    counts = _letters(text[:2000])
    if not counts:
        return "unknown"
    # Japanese mixes Kana into Han, and any language mixes in Latin names.
    script = "Kana" if counts["Kana"] * 5 > counts["Han"] > 0 else counts.most_common(1)[0][0]
    if script != "Latin":
        return _BY_SCRIPT.get(script, script)
    votes: defaultdict[str, float] = defaultdict(float)
    for word in text[:2000].lower().split():
        names = _VOTES.get(word.strip(".,;:!?\"'()"), ())
        for name in names:
            votes[name] += 1 / len(names)
    best = sorted(votes.items(), key=lambda vote: -vote[1])
    if not best or best[0][1] < min(2, len(text.split()) / 8) or (len(best) > 1 and best[0][1] < 1.5 * best[1][1]):
        return "unknown"
    return best[0][0]
