"""Errors in an answer that can be seen without a judge: `CATEGORIES` is all of them on one screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from luthier.evals.detectors import shape, source_texts, wording
from luthier.evals.detectors.answer import Finding, GivenAnswer
from luthier.evals.detectors.task import Task

FixAction = Literal["drop", "shorten", "correct", "rewrite"]

MEAN = 0.45  # probability of a token, geometric mean
DOUBT, DOUBTS = 0.15, 0.2  # a fifth of the tokens, and two of them, are less likely than this
LABEL = 0.5  # probability of a whole label


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of error. `fix`: what a person would usually do to a training row that has it."""

    title: str
    meaning: str
    rule: str
    fix: FixAction


def detect(answered: GivenAnswer, task: Task) -> list[Finding]:
    """What is wrong with the answer, at most one finding a category, in the order of `CATEGORIES`."""
    found = (detector(answered, task) for detector in _DETECTORS.values())
    return [finding for finding in found if finding is not None]


def uncertain(answered: GivenAnswer, task: Task) -> Finding | None:
    if not answered.logps:
        return None
    whole = math.exp(sum(answered.logps))
    if task.format.labels:
        return Finding("uncertain", f"the label has probability {whole:.2f}") if whole < LABEL else None
    mean = math.exp(sum(answered.logps) / len(answered.logps))
    if mean < MEAN:
        return Finding("uncertain", f"tokens have probability {mean:.2f} (geometric mean)")
    doubts = sum(logp < math.log(DOUBT) for logp in answered.logps)
    if doubts >= max(2, DOUBTS * len(answered.logps)):
        return Finding("uncertain", f"{doubts} of {len(answered.logps)} tokens have probability below {DOUBT}")
    return None


CATEGORIES: Mapping[str, Category] = {
    "misspelling": Category(
        "misspelling",
        "A word is misspelled.",
        "A lowercase word of 4 letters or more that is not in the dictionary of its language, the prompt or the "
        "reference, nor in two training rows or twice in the answer, and that differs by one slip (a letter left out, "
        "doubled, swapped, inserted, or replaced by one that sounds alike; in English two slips from 8 letters on) "
        "from one of the 30,000 most common words. English, German, French, Spanish, Italian, Portuguese and Dutch "
        "only, and not if the prompt names a language.",
        "correct",
    ),
    "too_long": Category(
        "too long",
        "The answer has far more words than it should.",
        "More than twice the words of the reference and 10 more; without a reference, more than 1.5 times the 99 % "
        "quantile of the training answers and 5 more.",
        "shorten",
    ),
    "too_short": Category(
        "too short",
        "The answer has far fewer words than it should, or none.",
        "Empty, or fewer than a quarter of the words of a reference of 8 words or more; without a reference, fewer "
        "than half the 1 % quantile of the training answers.",
        "rewrite",
    ),
    "repetitive": Category(
        "repetitive",
        "The answer repeats itself.",
        "A word 6 times, two words 4 times or a longer phrase 3 times in a row, a few characters 15 times, or 40 % of "
        "the words in sequences of 7 that occurred before (in a list, in whole lines that did; not if a song or poem "
        "is asked for); not if the reference or 5 % of the training answers do so.",
        "shorten",
    ),
    "wrong_format": Category(
        "wrong format",
        "The answer does not have the format of the task's answers.",
        "95 % of the training answers are JSON with the same keys, or numbers, or marked in the same way (such as "
        "####), or 90 % are lists, or 99 % are one line, or all are from a closed set of labels (each given 4 times "
        "on average), and this one is not.",
        "correct",
    ),
    "unsupported": Category(
        "not in the context",
        "The answer has a number or a name that is not in the text it was given.",
        "Only for prompts of 40 words or more, if 90 % of the training answers to such prompts have nothing "
        "unsupported (or, with fewer than 10 of them, if the prompt says that it contains a text): a name, or a "
        "number of 10 or more, that neither prompt nor reference has and that cannot be computed from two numbers of "
        "the prompt.",
        "rewrite",
    ),
    "off_topic": Category(
        "off topic",
        "The answer is about something else.",
        "6 content words or more and none in common with prompt and reference, or a final stretch of 20 such words "
        "with none in common with everything before; without a reference only if 98 % of the training answers share "
        "one with their prompt.",
        "drop",
    ),
    "copied_prompt": Category(
        "copied from the prompt",
        "The answer repeats the prompt.",
        "A sequence of 8 words or more that is half of the answer is in the prompt, and 80 % of it is not in the "
        "reference; without a reference a sequence of 12 words that is three quarters of the answer, and only if "
        "fewer than 5 % of the training rows have the former.",
        "rewrite",
    ),
    "copied_training": Category(
        "copied from training",
        "The answer is part of the training answer to another prompt, memorized.",
        "A sequence of 12 words or more (20 characters of Chinese, Japanese or Thai) that is a quarter of the answer "
        "is in one or two training answers to other prompts, and in neither prompt nor reference; needs a reference.",
        "drop",
    ),
    "refusal": Category(
        "refusal",
        "The model declines to answer, rightly or not, or begins by saying that it is a model.",
        "A sentence among the first 30 words begins with a refusal in the first person, such as 'I'm sorry, but I "
        "can't help' or 'As an AI'; in English, and the most common ones in German, French, Spanish and Chinese.",
        "drop",
    ),
    "template_leak": Category(
        "template leaked",
        "The answer contains tokens of a chat template, or turns that nobody asked for.",
        "A token such as <|im_end|>, [INST] or </s>, a heading such as '### Response:', 'assistant' alone in the "
        "first line, a line that begins a turn ('User:', 'Assistant:') or a further question with its answer; not if "
        "the prompt or the reference has it.",
        "correct",
    ),
    "wrong_language": Category(
        "wrong language",
        "The answer, or part of it, is in a language or script that is not the task's.",
        "8 letters or more, a tenth of all, in a script that the reference does not have (without a reference: "
        "neither 2 % of the training letters nor the prompt), or 8 words or more in what is guessed to be another "
        "language than the reference's (without one: than 2 % of the training answers or the prompt; never if the "
        "prompt names a language); a guess does not count if 90 % of the words were seen in training.",
        "drop",
    ),
    "uncertain": Category(
        "uncertain",
        "The model was not sure of what it said.",
        "The geometric mean of the probabilities of its tokens is below 0.45, or at least two and a fifth of them are "
        "below 0.15; for a label of a closed set, the probability of the whole label is below 0.5.",
        "rewrite",
    ),
    "unfinished": Category(
        "unfinished",
        "The answer breaks off.",
        "Cut by the token limit; or leaves a bracket, a code block or the last item of a list open; or has 5 words or "
        "more and ends with a comma, a colon or a word such as 'and'; or its last line is prose of 5 words or more "
        "without the punctuation mark that 95 % of such training answers end with.",
        "rewrite",
    ),
}

_DETECTORS: Mapping[str, Callable[[GivenAnswer, Task], Finding | None]] = {
    "misspelling": wording.misspelling,
    "too_long": shape.too_long,
    "too_short": shape.too_short,
    "repetitive": wording.repetitive,
    "wrong_format": shape.wrong_format,
    "unsupported": source_texts.unsupported_claim,
    "off_topic": source_texts.off_topic,
    "copied_prompt": source_texts.copied_prompt,
    "copied_training": source_texts.copied_training,
    "refusal": wording.refused,
    "template_leak": wording.template_leak,
    "wrong_language": wording.wrong_language,
    "uncertain": uncertain,
    "unfinished": shape.unfinished,
}
