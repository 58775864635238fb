"""Detectors of an answer's words: spelling, repetition, refusal, template tokens, language."""

from __future__ import annotations

import re

from luthier.data.languages import languages, scripts
from luthier.evals.detectors import leaks
from luthier.evals.detectors.answer import Finding, GivenAnswer
from luthier.evals.detectors.refusals import refusal
from luthier.evals.detectors.repeats import repeats
from luthier.evals.detectors.spelling import misspelled
from luthier.evals.detectors.task import Task
from luthier.evals.detectors.words import words

REPEATING = 0.05  # of the training answers may repeat themselves
FOREIGN_LETTERS, FOREIGN_SHARE = 8, 0.1  # of a script that is not the task's
FAMILIAR = 0.9  # of the words were seen in training: then a guess of another language is wrong
SENTENCE = 8  # words from which a language is guessed

_VERSE = re.compile(
    r"\b(?:songs?|lyrics|poems?|poetry|rap|haikus?|verses?|chorus|refrain|lied|gedicht)\b", re.IGNORECASE
)
_NAMES_LANGUAGE = re.compile(
    r"\b(?:translat\w*|überset\w*|tradui\w*|traduc\w*|english|englisch\w*|german|deutsch\w*|french|français\w*|"
    r"französisch\w*|spanish|spanisch\w*|español|italian|portuguese|dutch|russian|russisch|chinese|chinesisch|mandarin|"
    r"japanese|japanisch|korean|arabic|arabisch|hindi|greek|griechisch|latin|hebrew|turkish|polish|swedish|language|"
    r"sprache|langue|idioma)\b|翻译|英文|英语|日语|法语|德语",
    re.IGNORECASE,
)


def misspelling(answered: GivenAnswer, task: Task) -> Finding | None:
    if _NAMES_LANGUAGE.search(answered.prompt):
        return None  # words of two languages
    around = {*words(answered.prompt), *words(answered.reference)}
    language = _language(answered.answer) or _language(f"{answered.prompt} {answered.answer}")
    found = misspelled(answered.answer, language, lambda word: word in around or word in task.known_words)
    if found is None:
        return None
    return Finding("misspelling", f"'{found[0]}': '{found[1]}'?", found[2])


def repetitive(answered: GivenAnswer, task: Task) -> Finding | None:
    finding = repeats(answered.answer)
    if finding and finding.span is None and _VERSE.search(answered.prompt):
        return None
    if finding is None or task.repeats >= REPEATING:
        return None
    return None if answered.reference.strip() and repeats(answered.reference) else finding


def refused(answered: GivenAnswer, task: Task) -> Finding | None:
    span = refusal(answered.answer)
    return Finding("refusal", f"'{answered.answer[span[0] : span[1]][:60]}'", span) if span else None


def template_leak(answered: GivenAnswer, task: Task) -> Finding | None:
    span = leaks.leak(answered.answer, answered.prompt + answered.reference)
    return Finding("template_leak", f"'{answered.answer[span[0] : span[1]].strip()[:40]}'", span) if span else None


def wrong_language(answered: GivenAnswer, task: Task) -> Finding | None:
    reference = answered.reference.strip()
    if not reference and (not task.rows or _NAMES_LANGUAGE.search(answered.prompt)):
        return None
    letters = sum(character.isalpha() for character in answered.answer)
    allowed = set(scripts([reference])) if reference else set(task.scripts) | set(scripts([answered.prompt]))
    for script, share in scripts([answered.answer]).items():
        if allowed and script not in allowed and share >= FOREIGN_SHARE and share * letters >= FOREIGN_LETTERS:
            return Finding("wrong_language", f"{share:.0%} of its letters are {script}")
    said = _language(answered.answer)
    wanted = ({_language(reference)} if reference else {*task.languages, _language(answered.prompt)}) - {""}
    found = words(answered.answer)
    familiar = sum(word in task.known_words for word in found) >= FAMILIAR * len(found)
    if said and wanted and said not in wanted and len(found) >= SENTENCE and not familiar:
        return Finding("wrong_language", f"{said}, not {' or '.join(sorted(wanted))}")
    return None


def _language(text: str) -> str:
    """The guessed language, or ""."""
    guess = next(iter(languages([text])))
    return "" if guess == "unknown" else guess
