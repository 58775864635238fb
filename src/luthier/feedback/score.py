"""Score answers in a file with a reward model, and say how good the scores are where the file knows better."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.storage.opening import require_new
from luthier.core.threads import use_threads
from luthier.core.types.examples import Chat, Conversation, Example, Labelled, Messages, Preference, Ranking
from luthier.data import load as data_load
from luthier.data.write import write_jsonl
from luthier.evals.stats.calibration import correlation, expected_calibration_error
from luthier.evals.stats.intervals import mean_interval, share_interval
from luthier.runs.reward_model import open_scorer

ROWS_AT_ONCE = 64  # rows scored before the bar moves


def score(config: RunConfig, out: Path) -> dict[str, Any]:
    """Score every answer of the rows with the reward model `config.model`; write one line an answer to `out`.

    Returns the keys of `luthier score --json` (docs/rewards.md). Raises InputError for rows without answers and when
    `out` is there already.
    """
    require_new(out, "give another --out")
    use_threads(config.threads)
    loaded = data_load.load(config.data.path, config.data)
    rows = [(example, *_answers(example)) for example in loaded.examples]
    scorer = open_scorer(config.model, device=config.device, dtype=config.dtype, base=config.base)
    lines: list[dict[str, Any]] = []
    differences: list[float] = []
    with log.progress("scoring rows", len(rows)) as bar:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            found = iter(
                scorer.score(
                    [(prompt, answer) for _, prompt, answers, _ in part for answer in answers],
                    [_template_inputs(example) for example, _, answers, _ in part for _ in answers],
                )
            )
            for number, (_, prompt, answers, pairs) in enumerate(part, start):
                values = [next(found) for _ in answers]
                differences += [values[a] - values[b] for a, b in pairs]
                asked = prompt[-1].said
                lines += [
                    {"row": number, "answer": i, "score": value, "prompt": asked, "text": text}
                    for i, (value, text) in enumerate(zip(values, answers, strict=True))
                ]
            bar.advance(len(part))
    write_jsonl(lines, out)
    scores = [line["score"] for line in lines]
    won = [0.5 if d == 0 else float(d > 0) for d in differences]
    lengths = [float(len(line["text"])) for line in lines]
    return {
        "out": str(out), "rows": len(rows), "answers": len(lines), "score": asdict(mean_interval(scores)),
        "length_correlation": correlation(scores, lengths), "pairs": len(differences),
        "accuracy": asdict(share_interval(won)) if won else None,
        "calibration_error": expected_calibration_error(differences) if differences else None,
    }  # fmt: skip


def _template_inputs(example: Example) -> dict[str, Any]:
    """What a row gives the template beside the messages."""
    assert isinstance(example, Conversation)
    return {"tools": example.tools, "template_kwargs": example.template_kwargs}


def _answers(example: Example) -> tuple[Messages, list[str], list[tuple[int, int]]]:
    """(prompt, answers, (better, worse) pairs among them). Raises InputError for a row that has no answer."""
    match example:
        case Chat(messages=(*prompt, last)) if prompt and last.role == "assistant":
            return tuple(prompt), [last.content], []
        case Labelled(prompt=asked, completion=completion) if asked:
            return asked, [_text(completion)], []
        case Preference(prompt=asked, chosen=chosen, rejected=rejected) if asked:
            return asked, [_text(chosen), _text(rejected)], [(0, 1)]
        case Ranking(prompt=asked, responses=responses, ranks=ranks) if asked:
            numbers = range(len(ranks))
            pairs = [(i, j) for i in numbers for j in numbers if ranks[i] < ranks[j]]
            return asked, [_text(response) for response in responses], pairs
    raise InputError(
        "this row has no prompt with an answer to score", where=example.origin,
        fix="give conversations, preferences, rankings or labelled answers",
    )  # fmt: skip


def _text(messages: Messages) -> str:
    return messages[-1].content
