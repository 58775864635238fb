"""Label Studio's export -> a chat whose answer is the label that people chose, or what they marked in the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat
from luthier.data.layouts import Unused, Values, labels
from luthier.data.spans import are_spans, spans


def label_studio(values: Values) -> Chat:
    """One text, and one choice or its spans. Raises InputError for other tasks (ratings, pictures) and for people who disagree."""
    data, made = values["data"], values["annotations"] or []
    if not (isinstance(data, Mapping) and isinstance(made, list) and all(isinstance(one, Mapping) for one in made)):
        raise InputError("not in Label Studio's format", fix="export the project as JSON")
    texts = [data["text"]] if "text" in data else list(data.values())
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise InputError(
            f"a task of {', '.join(map(str, data))}, not of one text",
            fix="turn each row into a prompt and a completion",
        )
    finished = [annotation for annotation in made if not annotation.get("was_cancelled")]
    if any(_is_marked(annotation) for annotation in finished):
        return _marked(texts[0], finished)
    chosen = {_choices(annotation) for annotation in finished}
    if not chosen:
        raise Unused("no annotation")
    if len(chosen) > 1:
        raise InputError(
            f"annotators chose differently: {' and '.join(map(', '.join, sorted(chosen)))}",
            fix="keep one annotation per row",
        )
    return labels({"text": texts[0], "label": list(chosen.pop())})


def _is_marked(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation is of spans."""
    results = annotation.get("result") or []
    values = [result.get("value") if isinstance(result, Mapping) else None for result in results]
    kinds = {result.get("type") for result in results if isinstance(result, Mapping)}
    return kinds == {"labels"} and are_spans(values)


def _marked(text: str, made: list[Mapping[str, Any]]) -> Chat:
    """The text with its spans; one who found none marked nothing."""
    found = [spans({"text": text, "spans": [result["value"] for result in one["result"]]}) if _is_marked(one)
             else spans({"text": text, "spans": one.get("result")}) for one in made]  # fmt: skip
    if any(other.messages != found[0].messages for other in found):
        raise InputError("annotators marked different spans", fix="keep one annotation per row")
    return found[0]


def _choices(annotation: Mapping[str, Any]) -> tuple[str, ...]:
    results: list[Any] = annotation.get("result") or []
    kinds = {str(result.get("type")) if isinstance(result, Mapping) else "nothing known" for result in results}
    chosen = results[0].get("value", {}).get("choices") if kinds == {"choices"} and len(results) == 1 else None
    if not isinstance(chosen, list):
        what = ", ".join(sorted(kinds)) or "nothing"
        raise InputError(
            f"an annotation of {what}, not one choice or spans", fix="turn each row into a prompt and a completion"
        )
    return tuple(map(str, chosen))
