"""Words that a dictionary does not know and that are one slip away from a common word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from unicodedata import combining, normalize

LETTERS = 4  # words shorter than this are too near to others to be judged
FLUENT = 0.6  # of the words are in the dictionary, or the language was guessed wrong
COMMON, VERY_COMMON = 30_000, 10_000  # rank of the dictionary's words by how often its texts have them
DICTIONARIES = {"English": "en", "German": "de", "French": "fr", "Spanish": "es", "Italian": "it", "Portuguese": "pt",
                "Dutch": "nl"}  # fmt: skip

_WORD = re.compile(r"(?<![\w@#/\\.\-'’`_<])[^\W\d_]+(?:['’][^\W\d_]+)?(?![\w@/\\\-'’`_(=:>]|\.\w)")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|<[^<>\n]*>|\$[^$\n]*\$|^(?: {4}|\t).*$", re.S | re.M)
# Taken for one another by their sound.
_ALIKE = ("aeiouy", "aäeéèê", "oöô", "uüû", "iîï", "cs", "ck", "sz", "dt", "fv", "mn", "gj")
# Newer than the dictionary, or of set phrases in other languages.
_NEW_WORDS = """
    app apps blog blogs blogger vlog vlogs wifi emoji emojis hashtag podcast podcasts selfie smartphone cafe cafes carb carbs
    versa vitro vivo coli quoi sais facto
"""
_NEW = frozenset(_NEW_WORDS.split())
_BRITISH = (("our", "or"), ("tre", "ter"), ("is", "iz"), ("ys", "yz"), ("ll", "l"), ("ogue", "og"), ("ae", "e"),
            ("oe", "e"), ("ence", "ense"), ("mme", "m"))  # fmt: skip
_ENDINGS_WORDS = """
    s es d ed r er ers ly ing ings al ally ness less ful able ish ism ist ists ity ize ized ise ised y
"""
_ENDINGS = _ENDINGS_WORDS.split()
_BEGINNINGS_WORDS = """
    un re non pre anti de dis over under out mis inter sub super semi multi micro macro hyper hypo bio neuro cardio
    hemo haemo immuno electro photo thermo auto mega mini co up down counter pro trans ultra cyber geo eco poly mono
"""
_BEGINNINGS = _BEGINNINGS_WORDS.split()


def misspelled(text: str, language: str, known: Callable[[str], bool]) -> tuple[str, str, tuple[int, int]] | None:
    """The first misspelled word of the text, what it should be, and where; None where no word is, or where no dictionary
    knows the language, or less than 60 % of the words are in it.

    Only words in lower case are judged, since names begin with a capital (in German, where nouns do too, long words
    with a capital are judged as well), and only those that stand in the text once: what comes again is a term. Nor is the
    last one where nothing ends it. `known(word)` tells words that are right in this place.
    """
    if language not in DICTIONARIES:
        return None
    found = list(_WORD.finditer(_CODE.sub(lambda match: " " * len(match[0]), text)))
    often = _frequencies(DICTIONARIES[language])
    if sum(match[0].lower() in often for match in found) < FLUENT * len(found):
        return None
    times = Counter(match[0].lower() for match in found)
    for match in found:
        word = match[0]
        if times[word.lower()] > 1 or match.end() == len(text.rstrip()):
            continue  # a term, or cut off
        judged = word.islower() or (language == "German" and word[1:].islower() and len(word) >= 8)
        if len(word) < LETTERS or not judged or "'" in word or "’" in word or known(word.lower()):
            continue
        if right := correction(word.lower(), DICTIONARIES[language]):
            return word, right, match.span()
    return None


@cache
def correction(word: str, language: str) -> str:
    """The common word that `word` was meant to be, or "" where it is right, or where that cannot be told.

    Right are words of the dictionary, and those that a usual ending or beginning, or two words put together, make of
    them. Meant is the most common word at one of `_slips`, or in English a very common one at two edits for words of
    eight letters or more when the first three letters and the last two are the same.
    """
    often = _frequencies(language)
    if word in often or (language == "en" and (word in _NEW or _british(_plain(word), often))):
        return ""
    if language == "en" and (doubled := _best(_doublings(word), "en")):
        return doubled
    if _compound(word, often) or (language == "en" and _derived(word, often)):
        return ""
    best = _best(_slips(word, _letters(language)), language)
    if best or len(word) < 8 or language != "en":
        return best if best and not _inflection(word, best, language) else ""
    near = (other for other in _very_common_by_start()[word[:3]] if abs(len(other) - len(word)) <= 2)
    return max((other for other in near if _two_edits(word, other)), key=lambda other: often[other], default="")


def _best(candidates: Iterator[str], language: str) -> str:
    often = _frequencies(language)
    best = max(candidates, key=lambda other: often.get(other, 0), default="")
    return best if often.get(best, 0) >= _at_rank(language, COMMON) else ""


def _doublings(word: str) -> Iterator[str]:
    """The word with one letter doubled, or one double letter made single: "occured", "writting"."""
    for place, letter in enumerate(word[1:], 1):
        yield word[:place] + letter + word[place:]
        if letter == word[place - 1]:
            yield word[:place] + word[place + 1 :]


def _slips(word: str, letters: str) -> Iterator[str]:
    """What the word was before a slip: a letter left out or doubled, two exchanged, one taken for one that sounds alike,
    or in words of seven letters or more one put in. Any other change of a letter makes another word, which is as likely
    to be a rare one: "struct" is not "struck".
    """
    yield from _doublings(word)
    for place in range(len(word) + 1):
        left, right = word[:place], word[place:]
        yield from (left + letter + right for letter in letters)
        if len(right) > 1:
            yield left + right[1] + right[0] + right[2:]
        if right:
            yield from (left + letter + right[1:] for group in _ALIKE if right[0] in group for letter in group)
        if len(word) >= 7 and 0 < place < len(word) - 1:
            yield left + right[1:]


def _two_edits(word: str, other: str) -> bool:
    """Whether the two end alike and are at two edits at most (a letter more, less or changed, two exchanged)."""
    before, row = [0], list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        twice, before, row = before, row, [i]
        for j, there in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != there))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == there:
                best = min(best, twice[j - 2] + 1)
            row.append(best)
    return word[-2:] == other[-2:] and row[-1] <= 2 and not _inflection(word, other, "en")


@cache
def _very_common_by_start() -> Mapping[str, list[str]]:
    """Very common English words of seven letters or more, by their first three."""
    least = _at_rank("en", VERY_COMMON)
    found: dict[str, list[str]] = defaultdict(list)
    for word, count in _frequencies("en").items():
        if len(word) >= 7 and count >= least:
            found[word[:3]].append(word)
    return found


@cache
def _frequencies(language: str) -> Mapping[str, int]:
    from spellchecker import SpellChecker

    return dict(SpellChecker(language).word_frequency.dictionary)


@cache
def _letters(language: str) -> str:
    """The letters that make up nearly all of the dictionary's words."""
    counts = Counter("".join(_frequencies(language)))
    return "".join(letter for letter, count in counts.items() if letter.isalpha() and count * 10_000 > counts.total())


@cache
def _at_rank(language: str, rank: int) -> int:
    return sorted(_frequencies(language).values(), reverse=True)[rank]


def _plain(word: str) -> str:
    """The word without accents, which English leaves out as often as not."""
    return "".join(letter for letter in normalize("NFD", word) if not combining(letter))


def _british(word: str, often: Mapping[str, int]) -> bool:
    return word in often or any(there in word and word.replace(there, here) in often for there, here in _BRITISH)


def _derived(word: str, often: Mapping[str, int]) -> bool:
    """Whether a known word of four letters or more (three before an s) is left without an ending or a beginning."""
    for ending in _ENDINGS:
        stem = word.removesuffix(ending)
        if (
            stem != word
            and len(stem) >= (3 if ending == "s" else 4)
            and any(form in often for form in (stem, stem + "e", stem + "y"))
        ):
            return True
    stems = (word.removeprefix(beginning) for beginning in _BEGINNINGS if word.startswith(beginning))
    return any(len(stem) >= 4 and stem in often for stem in stems)


def _compound(word: str, often: Mapping[str, int]) -> bool:
    """Whether two known words of four letters or more make it up; in German with an s between them too."""
    return any(
        word[:cut] in often and (word[cut:] in often or word[cut:].removeprefix("s") in often)
        for cut in range(4, len(word) - 3)
    )


def _inflection(word: str, other: str, language: str) -> bool:
    """Whether the two differ only in how they end: "Bedeutsames" and "Bedeutsamer", not "grammer" and "grammar"."""
    if language == "en":
        return word.rstrip("s") == other.rstrip("s")
    shared = next((i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    return shared >= len(word) - 2
