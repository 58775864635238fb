"""Pictures, films and sound beside a row or in its turns: what they show is not in the text, so the row is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Example, Labelled, Message, Pair, Preference, Prompt, Ranking, Text

COLUMN = re.compile(
    r"(image|img|picture|photo|video|audio)s?([_-]?(path|url|file|data)s?)?|pixel_values", re.IGNORECASE
)
PLACEHOLDER = re.compile(r"<\|?(image|video|audio|img|image_pad|vision_start)\|?>|<image_?\d*>")


def media_columns(columns: Iterable[str]) -> tuple[str, ...]:
    """Those columns whose names say that they hold pictures or sound."""
    return tuple(name for name in columns if COLUMN.fullmatch(str(name).strip()))


def refuse_media(columns: tuple[str, ...], example: Example, label: bool) -> None:
    """Raises InputError where the example has a column of pictures or sound beside its prompt, or a place for some in its
    text; a document, and a text with a `label`, may stand beside a picture that it does not speak of."""
    turns = tuple(_turns(example))
    keys = media_columns(key for turn in turns for key in turn.fields)
    if not (columns or keys):
        return
    spoken_of = any(PLACEHOLDER.search(turn.content) for turn in turns)
    if keys or spoken_of or not (label or isinstance(example, Text)):
        raise InputError(
            f"'{(columns or keys)[0]}' holds images or sound, which cannot be read",
            fix="leave such rows out with --data.skip_bad, or remove the column if the text is enough",
        )


def turns_with_places(example: Example) -> bool:
    """Whether a turn keeps a place for a picture or sound, such as `<image>`."""
    return any(PLACEHOLDER.search(turn.content) for turn in _turns(example))


def spoken_texts(example: Example) -> Iterator[str]:
    """Every text that an example says."""
    match example:
        case Text(text=text):
            yield text
        case Pair(texts=texts):
            yield from texts
    for turn in _turns(example):
        yield from (turn.content, turn.input)


def _turns(example: Example) -> Iterator[Message]:
    match example:
        case Chat(messages=turns) | Prompt(messages=turns):
            yield from turns
        case Preference(prompt=prompt, chosen=one, rejected=other):
            yield from (*prompt, *one, *other)
        case Ranking(prompt=prompt, responses=responses):
            yield from prompt
            for response in responses:
                yield from response
        case Labelled(prompt=prompt, completion=completion):
            yield from (*prompt, *completion)
