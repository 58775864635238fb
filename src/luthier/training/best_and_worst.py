"""The best and the worst answers of a rollout, for people to read: what a reward favours is seen in these first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

SHOWN_OF_EACH = 2  # of the best, and of the worst
MAX_CHARACTERS = 1000  # characters of a text: half of them its beginning, half its end, where answers are decided


class SampledText(Protocol):
    """A sampled answer: its ids, the stop token included, its text, and how it ended."""

    ids: tuple[int, ...]
    text: str
    ended: str


def best_and_worst(
    rows: Sequence[int], answers: Sequence[Sequence[SampledText]], rewards: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Records of the answers with the highest rewards, then of those with the lowest, at most FEW of each and no text twice:
    `among` (best or worst), the `row` of the prompt, `answer` (an excerpt), `reward`, how it `ended`, `length` in tokens.

    `rows` are those of the prompts, `answers` and `rewards` by prompt. Of equal rewards the first come first.
    """
    flat = [
        (reward, row, answer)
        for row, group, given in zip(rows, answers, rewards, strict=True)
        for answer, reward in zip(group, given, strict=True)
    ]
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for among, sign in (("best", -1), ("worst", 1)):
        fresh: list[dict[str, Any]] = []
        for reward, row, answer in sorted(flat, key=lambda one: sign * one[0]):
            if len(fresh) < SHOWN_OF_EACH and answer.text not in seen:
                seen.add(answer.text)
                fresh.append(
                    {"among": among, "row": row, "answer": excerpt(answer.text), "reward": reward, "ended": answer.ended,
                     "length": len(answer.ids)}
                )  # fmt: skip
        found += fresh
    return found


def excerpt(text: str) -> str:
    """A text, or its beginning and its end with how much between them is left out."""
    left = len(text) - MAX_CHARACTERS
    return (
        text
        if left <= 0
        else f"{text[: MAX_CHARACTERS // 2]} … {left:,} more characters … {text[-(MAX_CHARACTERS // 2) :]}"
    )
