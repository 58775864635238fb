"""What the values of a coded field mean: which output `1`, `A` or `model_b` calls the better one.

A code is taken for what it names: a column (`response_a`), the part in which the columns differ (`a`), or a usual word.
Numbers that could count from 0 or from 1, or stand for true and false, name nothing: they are refused until
`--data.values` says what they mean.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core.errors import InputError, unknown

FIRST, SECOND, BOTH = "output_1", "output_2", "tie"
MAX_LISTED = 8  # codes that a message lists
MAX_TIE_SHARE = 0.1  # share of the rows, at most, in which 0 stands for a tie beside 1 and 2
MIN_AGREEMENT = (
    0.95  # share of the rows in which codes and scores say the same, for the scores to tell what the codes mean
)

# Words for an answer that was wanted or not; which is which is said with `--data.values`.
VERDICTS = {
    "-1", "good", "bad", "positive", "negative", "pos", "neg", "accepted", "rejected", "accept", "reject", "wanted", "unwanted", "chosen",
    "like", "dislike", "liked", "disliked", "thumbs_up", "thumbs_down", "thumbs up", "thumbs down", "up", "down", "correct",
    "incorrect", "right", "wrong", "desirable", "undesirable", "safe", "unsafe", "pass", "fail", "ok", "helpful", "unhelpful",
}  # fmt: skip
_TIES = {"tie", "ties", "tied", "draw", "equal", "same", "neither", "both", "none", "bothbad", "a=b", "b=a", "[[c]]"}
_TIES |= {"tiebothbad", "bothgood", "bothequal", "nopreference", ""}
_VERDICT = re.compile(r"\[*(\w+?)(<+|>+|=+)(\w+?)\]*")
_NAMED = (
    "{}",
    "model_{}",
    "output_{}",
    "response_{}",
    "answer_{}",
    "assistant_{}",
    "assistant{}",
    "model{}",
    "option_{}",
    "[[{}]]",
)


@dataclass(frozen=True)
class Codes:
    """value -> what it means. `leaning`: numbers between 1 and 2 lean to the nearer output, 1.5 is a tie.
    `free`: a value that is not listed means itself."""

    means: Mapping[str, str]
    leaning: bool = False
    source: str = "the first rows"

    def __call__(self, value: Any) -> str:
        """What a value means. Raises InputError for one that is not known."""
        code = plain_code(value)
        if code in self.means:
            return self.means[code]
        if self.leaning and (number := _number(code)) is not None and 1 < number < 2:
            return BOTH if number == 1.5 else FIRST if number < 1.5 else SECOND
        known = ", ".join(f"{code}={means}" for code, means in list(self.means.items())[:MAX_LISTED])
        raise InputError(
            f"value {value!r} is not among those that {self.source} gives a meaning for: {known}",
            fix="name it in --data.values, or leave such rows out with --data.skip_bad",
        )


def plain_code(value: Any) -> str:
    """A value as it is compared: without case and outer blanks, 1.0 as 1, null as ''."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().lower()
    return text.removesuffix(".0") if re.fullmatch(r"-?\d+\.0", text) else text


def natural(value: Any) -> str:
    """The meaning of a single value, where no others are known: FIRST, SECOND, BOTH, or AlpacaEval's numbers: 1, 2, what
    lies between leaning to the nearer, 0 and 1.5 and null ties. Raises InputError for any other."""
    if value in (FIRST, SECOND, BOTH):
        return str(value)
    code = plain_code(value)
    number = _number(code)
    if code in ("", "0"):
        return BOTH
    if number is None or not 1 <= number <= 2:
        raise InputError(
            f"preference {value!r} is not from 1 to 2",
            fix="1: output_1 is better, 2: output_2 is; or give --data.values",
        )
    return BOTH if number == 1.5 else FIRST if number < 1.5 else SECOND


def declared(values: Mapping[str, str], targets: Sequence[str], columns: Sequence[str] = ()) -> Codes:
    """The codes as `--data.values` says; a target is one of `targets` (any text, where there are none), or the name of the
    column that it stands for. Raises InputError for another."""
    names = {plain_code(name): target for target, name in zip(targets, columns, strict=False)}
    names |= {plain_code(name): name for name in targets}
    means = {}
    for value, target in values.items():
        if targets and plain_code(target) not in names:
            raise unknown("meaning", target, targets, where=f"--data.values {value}={target}")
        means[plain_code(value)] = names[plain_code(target)] if targets else target
    return Codes(means, source="--data.values")


def compared(
    seen: Counter[str], columns: tuple[str, str], field: str, scored: Sequence[tuple[str, float, float]] = ()
) -> Codes:
    """What the codes `seen` say of the outputs in two columns. `scored` are (code, score of the first, of the second) of rows
    that have scores: they decide what the numbers 0 and 1 mean, which else are refused.

    Raises InputError for codes that could mean two things or that name nothing.
    """
    tokens = _tokens(columns)
    names = _names(columns, tokens)
    numbers = {code for code in seen if _number(code) is not None}
    words = {code for code in seen if code not in numbers}
    means: dict[str, str] = dict(names)
    if nameless := [code for code in words if _of_word(code, names) is None]:
        raise _refused(nameless, field, f"{_quoted(nameless)} names neither {columns[0]} nor {columns[1]}")
    means |= {code: word for code in words if (word := _of_word(code, names)) is not None}
    if numbers:
        means |= _of_numbers(seen, numbers, tokens, columns, field, scored)
    return Codes(means | {"": BOTH}, leaning=means.get("1.5") == BOTH)


def _of_numbers(
    seen: Counter[str], numbers: set[str], tokens: tuple[str, str], columns: tuple[str, str], field: str,
    scored: Sequence[tuple[str, float, float]],
) -> dict[str, str]:  # fmt: skip
    """What numbers mean: places that the columns' names or a list count, or what the scores tell. Raises InputError for others."""
    listed = columns == ("0", "1")
    if tokens == ("0", "1") and numbers <= {"0", "1"} and (not listed or "0" in numbers):
        return {"0": FIRST, "1": SECOND}
    if numbers <= {"0", "1"} and (found := _by_scores(scored, numbers, columns, field)):
        return found
    from_one = all(code == "0" or 1 <= float(code) <= 2 for code in numbers) and (tokens != ("0", "1") or listed)
    told = "2" in numbers or (tokens == ("1", "2") and "0" not in numbers)
    # AlpacaEval writes a few of its ties as 0; many zeros beside 1 and 2 may be the first answer, and 2 a tie.
    few = seen["0"] <= MAX_TIE_SHARE * seen.total() and tokens == ("1", "2")
    if from_one and told and ("0" not in numbers or few):
        return {"0": BOTH, "1": FIRST, "1.5": BOTH, "2": SECOND}
    raise _refused(sorted(numbers), field, f"{_quoted(sorted(numbers))} could mean two things")


def _by_scores(
    scored: Sequence[tuple[str, float, float]], numbers: set[str], columns: tuple[str, str], field: str
) -> dict[str, str]:
    """What 0 and 1 mean by the scores of both outputs. Raises InputError when they fit neither reading."""
    told = [(code, first > second) for code, first, second in scored if first != second and code in numbers]
    one_is_first = sum((code == "1") == first for code, first in told)
    if told and max(one_is_first, len(told) - one_is_first) < MIN_AGREEMENT * len(told):
        raise _refused(
            sorted(numbers), field,
            f"its values and the scores contradict each other: 1 is the higher score of {columns[0]} in {one_is_first} rows and "
            f"of {columns[1]} in {len(told) - one_is_first}",
        )  # fmt: skip
    if not told:
        return {}
    first = one_is_first * 2 > len(told)
    return {"1": FIRST if first else SECOND, "0": SECOND if first else FIRST}


def _tokens(columns: tuple[str, str]) -> tuple[str, str]:
    """Where two names differ: response_a, response_b -> a, b."""
    first, second = (name.strip().lower().replace(" ", "_") for name in columns)
    before = _alike(first, second)
    after = _alike(first[before:][::-1], second[before:][::-1])
    one, two = (name[before : len(name) - after].strip("_-") for name in (first, second))
    return one, two


def _alike(first: str, second: str) -> int:
    """How many characters both begin with."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _names(columns: tuple[str, str], tokens: tuple[str, str]) -> dict[str, str]:
    """The names that the two outputs go by."""
    out: dict[str, str] = {}
    places = [("a", "b"), ("first", "second"), ("left", "right")]
    if tokens in (("0", "1"), ("1", "2")):
        places.append(tokens)
    if not any(token.isdigit() for token in tokens):
        places.append(tokens)
    for pair in places:
        for target, token in zip((FIRST, SECOND), pair, strict=True):
            out |= {form.format(token): target for form in _NAMED if token}
    for target, column in zip((FIRST, SECOND), columns, strict=True):
        out[plain_code(column)] = target
    if tokens not in (("0", "1"),):
        out |= {"output_1": FIRST, "output_2": SECOND}
    return out


def _of_word(code: str, names: Mapping[str, str]) -> str | None:
    """The meaning of a word, or of a verdict such as a>b; None for neither."""
    bare = re.sub(r"[\s_()-]", "", code)
    if code in _TIES or bare in _TIES:
        return BOTH
    if code in names:
        return names[code]
    found = _VERDICT.fullmatch(re.sub(r"\s", "", code))
    if found and names.get(found[1]) and names.get(found[3]) and found[1] != found[3]:
        return BOTH if found[2][0] == "=" else names[found[1] if found[2][0] == ">" else found[3]]
    return None


def _number(code: str) -> float | None:
    try:
        number = float(code)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _quoted(codes: Sequence[str]) -> str:
    more = f" and {len(codes) - MAX_LISTED} more" if len(codes) > MAX_LISTED else ""
    return ", ".join(repr(code) for code in codes[:MAX_LISTED]) + more


def _refused(codes: Sequence[str], field: str, why: str) -> InputError:
    targets = [FIRST, SECOND, BOTH]
    example = ",".join(f"{code or 'null'}={target}" for code, target in zip(codes, targets, strict=False))
    return InputError(f"column '{field}': {why}", fix=f"say what each means, such as --data.values '{example}'")
