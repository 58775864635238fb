"""Several answers to a prompt, and their order: the layout `ranking`. Ranks count from 1, the best; scores rise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Messages, Ranking
from luthier.data.codes import Codes
from luthier.data.layouts import Values, beside, number, opened, prompt_of
from luthier.data.messages import messages_of
from luthier.data.preferences import Found

# Keys of answers that are objects.
TEXTS = ("response", "text", "answer", "completion", "generated_text", "generation", "output", "body")
RANKS = ("rank",)
VERDICT = re.compile(
    r"(best|chosen|preferred|winner|better|correct|label|choice|preference|selected|rank|ranking|order|ordering)(_.*)?s?",
    re.IGNORECASE,
)
SCORES = ("overall_score", "score", "rating", "pm_score", "reward", "overall_rating")


UNRANKED = "no rank and no score: the answers are taken as best first, as they stand"


def ranking(values: Values) -> Ranking:
    """Responses with their ranks or scores, beside them or inside; without either the best stands first."""
    responses = values["responses"]
    if not isinstance(responses, (list, tuple)) or len(responses) < 2:
        raise InputError("field 'responses' is not a list of two or more answers", fix="write them as a list")
    ranks, scores = values.get("ranks", inner(responses, RANKS)), values.get("scores", inner(responses, SCORES))
    order = _ranks(ranks, len(responses)) if ranks is not None else None
    by_score = _by_score(scores, len(responses)) if scores is not None else None
    if order is not None and by_score is not None and not _agree(order, by_score):
        raise InputError("ranks and scores contradict each other", fix="rank 1 is the best, the highest score too")
    if order is None and by_score is None and any(_is_answer(item) for item in responses):
        raise InputError(
            "the responses are objects without a rank or a score",
            fix=f"give each a rank or a score ({', '.join((*RANKS, *SCORES))})",
        )
    answers = tuple(_answer(item, f"responses[{i}]") for i, item in enumerate(responses))
    ranked = order or by_score or tuple(range(1, len(responses) + 1))
    return Ranking(opened(values, prompt_of(values)), answers, ranked, **beside(values))


def rated(values: Values) -> bool:
    """Whether ranks or scores stand beside the responses, or inside them."""
    if isinstance(values["responses"], str):
        return False
    if values.get("ranks") is not None or values.get("scores") is not None:
        return True
    return inner(values["responses"], RANKS) is not None or inner(values["responses"], SCORES) is not None


def check_ranking(found: Found, given: Mapping[str, str]) -> Codes | None:
    """Raises InputError where nothing tells the order, but an unread column holds a number for each response."""
    for fields, where in found:
        responses = fields[where["responses"]]
        if rated({name: fields[column] for name, column in where.items()}):
            continue
        for name, value in fields.items():
            if name in where.values() or value is None:
                continue
            alike = (
                isinstance(value, (list, tuple))
                and isinstance(responses, (list, tuple))
                and len(value) == len(responses)
            )
            if alike and all(isinstance(item, (int, float)) for item in value):
                raise InputError(
                    f"column '{name}' holds a number for each response, which may say how good it is",
                    fix=f"map it with --data.columns scores={name} (higher is better) or ranks={name} (1 is best)",
                )
            if VERDICT.fullmatch(str(name)):
                raise InputError(
                    f"column '{name}' may say which response is the best, and there are no ranks or scores",
                    fix="give each response a rank (1 is best) or a score, or remove the column if the best comes first",
                )
    return None


def inner(responses: Any, names: Sequence[str]) -> list[Any] | None:
    """What each response says under the first of `names` that any has; None where they are no objects."""
    items = responses if isinstance(responses, (list, tuple)) else ()
    if not items or not all(_is_answer(item) for item in items):
        return None
    name = next((name for name in names if any(item.get(name) is not None for item in items)), None)
    return None if name is None else [item.get(name) for item in items]


def _is_answer(item: Any) -> bool:
    return isinstance(item, Mapping) and not {"role", "from"} & set(item)


def _answer(item: Any, field: str) -> Messages:
    if _is_answer(item):
        name = next((name for name in TEXTS if item.get(name) is not None), None)
        if name is None:
            raise InputError(f"field '{field}' has no text", fix=f"write it as one of {', '.join(TEXTS)}")
        item = item[name]
    return messages_of(item, field, "assistant")


def _ranks(ranks: Any, count: int) -> tuple[int, ...]:
    whole = isinstance(ranks, (list, tuple)) and all(
        not isinstance(rank, bool) and (isinstance(rank, int) or (isinstance(rank, float) and rank.is_integer()))
        for rank in ranks
    )
    if not whole or len(ranks) != count:
        raise InputError("field 'ranks' is not one whole number per response", fix="give each response its rank")
    order = tuple(int(rank) for rank in ranks)
    if max(order) > count or min(order) != 1:
        raise InputError(
            f"ranks {list(order)} of {count} responses do not count from 1, the best",
            fix="if they are ratings, the higher the better, map them with --data.columns scores=COLUMN",
        )
    return order


def _by_score(scores: Any, count: int) -> tuple[int, ...]:
    if not isinstance(scores, (list, tuple)) or len(scores) != count:
        raise InputError("field 'scores' is not one number per response", fix="give each response its score")
    values = [number(score, "scores") for score in scores]
    return tuple(1 + sum(other > own for other in values) for own in values)


def _agree(order: Sequence[int], other: Sequence[int]) -> bool:
    pairs = ((i, j) for i in range(len(order)) for j in range(len(order)))
    return not any(order[i] < order[j] and other[i] > other[j] for i, j in pairs)
