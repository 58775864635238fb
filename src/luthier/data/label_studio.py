"""Label Studio's export: texts with the choices that people made -> a chat whose answer is the label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat
from luthier.data.layouts import Unused, Values, labels


def label_studio(values: Values) -> Chat:
    """One text and one choice. Raises InputError for other tasks (spans, ratings, pictures) and for people who disagree."""
    data, made = values["data"], values["annotations"] or []
    if not (isinstance(data, Mapping) and isinstance(made, list) and all(isinstance(one, Mapping) for one in made)):
        raise InputError("not as Label Studio writes it", fix="export the project as JSON")
    texts = [data["text"]] if "text" in data else list(data.values())
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise InputError(
            f"a task of {', '.join(map(str, data))}, not of one text", fix="make a prompt and a completion of each row"
        )
    chosen = {_choices(annotation) for annotation in made if not annotation.get("was_cancelled")}
    if not chosen:
        raise Unused("no annotation")
    if len(chosen) > 1:
        raise InputError(
            f"people chose differently: {' and '.join(map(', '.join, sorted(chosen)))}",
            fix="keep one annotation a row",
        )
    return labels({"text": texts[0], "label": list(chosen.pop())})


def _choices(annotation: Mapping[str, Any]) -> tuple[str, ...]:
    results: list[Any] = annotation.get("result") or []
    kinds = {str(result.get("type")) if isinstance(result, Mapping) else "nothing known" for result in results}
    chosen = results[0].get("value", {}).get("choices") if kinds == {"choices"} and len(results) == 1 else None
    if not isinstance(chosen, list):
        what = ", ".join(sorted(kinds)) or "nothing"
        raise InputError(f"an annotation of {what}, not one choice", fix="make a prompt and a completion of each row")
    return tuple(map(str, chosen))
