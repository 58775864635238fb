"""luthier judge"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.judge_options import judge_of, with_judge
from luthier.commands.options import Command, max_new_tokens, option
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import config_of, with_settings


@with_settings(
    "data.layout",
    "data.prompt",
    "data.completion",
    "data.columns",
    "data.values",
    "data.limit",
    "data.skip_bad",
    "base",
    "text.system",
    "seed",
    "device",
    "dtype",
    "threads",
)
@click.command("judge", cls=Command, context_settings={"max_content_width": 110})
@click.argument("contestants", nargs=-1, required=True, metavar="A B [C ...]")
@option("--data", multiple=True, metavar="FILE", help="Rows whose prompts are answered.")
@option("--rows", type=click.IntRange(1), default=100, metavar="N", help="Prompts drawn from the data.  [100]")
@max_new_tokens
@option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("judgments.jsonl"), metavar="FILE",
    help="Where judgments are appended.  [judgments.jsonl]",
)  # fmt: skip
@option(
    "--human", multiple=True, metavar="FILE", help="Judgments by people, to see how far the judge agrees with them."
)
@with_judge(group="")
@as_json
def command(
    contestants: tuple[str, ...], data: tuple[str, ...], rows: int, max_new_tokens: int, out: Path,
    human: tuple[str, ...], json_: bool, **values: Any,
) -> None:  # fmt: skip
    """Let a model judge which of A, B, ... answers better, in both orders; `luthier elo` rates them from its judgments.

    Each is a model, a run, a file of answers ({"prompt": ..., "answer": ...} a line), or 'reference', the answers of the
    data; LABEL=NAME gives it a name of your own.

    \b
    Examples:
      luthier judge base=smollm2-135m runs/mine reference --data rows.jsonl --judge runs/judge
      luthier judge a.jsonl b.jsonl --endpoint https://api.example.com/v1 --endpoint-model big --key-env API_KEY

    Run the same command again to judge what is left.
    """
    from luthier.comparison.contestants import AnswerOptions
    from luthier.comparison.judge import JudgmentOptions, judge
    from luthier.core.threads import use_threads
    from luthier.report.screens.ratings import judge_screen

    config = config_of(data, values)
    use_threads(config.threads)
    place = (config.device, config.dtype, config.base, config.text.system)
    asking = AnswerOptions(config.data, rows, max_new_tokens, out, config.seed, *place)
    result = judge(JudgmentOptions(contestants, judge_of(values, config.device, config.dtype), asking, human))
    if json_:
        print_json(result)
    else:
        screen = console()
        for part in judge_screen(result):
            screen.print(part)
