"""Detectors that hold an answer against other texts: its prompt, its reference, the training answers."""

from __future__ import annotations

from luthier.data.languages import languages
from luthier.evals.detectors.answer import Finding, GivenAnswer
from luthier.evals.detectors.grounding import asks_for_it, is_context, unsupported
from luthier.evals.detectors.task import Task, copied, is_german
from luthier.evals.detectors.words import acronyms, contains, content, longest_shared, sentences, spans, words

FAITHFUL = 0.9  # of the training answers to long prompts have nothing unsupported
TOUCH = 0.98  # of the training answers have a word in common with their prompt
FEWEST_WORDS = 6  # words of content with none in common
ADRIFT = 20  # words of content of an end that has none in common with all before
QUOTE = 0.05  # of the training rows may copy from the prompt
ALONE, ALONE_PART = 12, 0.75  # words, and part of the answer, where no reference shows what may be quoted
QUOTED_TOO = 0.8  # of the stretch stand in the reference


def off_topic(answered: GivenAnswer, task: Task) -> Finding | None:
    known = bool(answered.reference.strip())
    if not known and task.touches < TOUCH:
        return None
    about = content(answered.prompt) | content(answered.reference)
    said = content(answered.answer)
    if len(about) < 2:
        return None
    if acronyms(answered.answer, f"{answered.prompt} {answered.reference}"):
        return None
    if len(said) >= FEWEST_WORDS and not said & about:
        return Finding("off_topic", f"no word in common with the prompt{' or the reference' if known else ''}")
    return _adrift(answered.answer, about)


def _adrift(answer: str, about: set[str]) -> Finding | None:
    """Whether the answer ends with sentences that have nothing in common with what is before them."""
    parts = sentences(answer)
    abouts = [content(part) for part in parts]
    ends = [set[str]()]
    for part in reversed(abouts):
        ends.insert(0, ends[0] | part)
    for cut in range(1, len(parts)):
        about = about | abouts[cut - 1]
        if len(ends[cut]) >= ADRIFT and not ends[cut] & about:
            start = answer.rindex(parts[cut])
            return Finding("off_topic", f"leaves the topic at '{parts[cut][:40]}'", (start, len(answer)))
    return None


def unsupported_claim(answered: GivenAnswer, task: Task) -> Finding | None:
    if not is_context(answered.prompt):
        return None
    if not asks_for_it(answered.prompt) if task.faithful is None else task.faithful < FAITHFUL:
        return None
    names = not is_german(languages([answered.prompt]))
    found = unsupported(answered.answer, answered.prompt, answered.reference, names=names)
    return Finding("unsupported", f"'{found[0]}' is not in the prompt", found[1]) if found else None


def copied_prompt(answered: GivenAnswer, task: Task) -> Finding | None:
    stretch = copied(answered.prompt, answered.answer)
    if stretch is None:
        return None
    start, length = stretch
    said, wanted = words(answered.answer), words(answered.reference)
    if wanted:
        part = said[start : start + length]
        whole = length == len(said) and not contains(wanted, part)
        if not whole and longest_shared(part, wanted)[1] >= QUOTED_TOO * length:
            return None
    elif task.quotes is None or task.quotes >= QUOTE or length < max(ALONE, ALONE_PART * len(said)):
        return None
    places = spans(answered.answer)
    span = (places[start][0], places[start + length - 1][1])
    return Finding("copied_prompt", f"{length} of {len(said)} words in a row are the prompt's", span)


def copied_training(answered: GivenAnswer, task: Task) -> Finding | None:
    if not answered.reference.strip():
        return None
    found = task.copies.stretch(answered.prompt, answered.answer, answered.reference)
    if found is None:
        return None
    return Finding("copied_training", f"{found[0]} words in a row of another training answer", found[1])
