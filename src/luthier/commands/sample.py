"""luthier sample"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.options import SAMPLING, Command, max_new_tokens, option, top_p
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import given, with_settings


@with_settings("base", "seed", "device", "dtype", "threads", "data.layout", "data.prompt",
               "data.completion", "data.columns", "data.values", "data.limit", "data.skip_bad",
               "text.system", "reward", without=("reward.use", "reward.judge"))  # fmt: skip
@click.command("sample", cls=Command, context_settings={"max_content_width": 110})
@click.argument("model", metavar="MODEL_OR_RUN")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPTS...")
@option(
    "--reward", "use", former=["--reward.use"], multiple=True, metavar="[WEIGHT*]SPEC",
    help="What makes an answer good, such as exact, regex:PATTERN, 0.2*length:40, python:FILE:FUNCTION or "
    "model:REWARD_RUN; at least one, and several are summed.",
)  # fmt: skip
@option(
    "--write", type=click.Choice(["sft", "pairs", "rankings", "all"]), default="sft",
    help="What is written for each prompt: the best answer, best and worst, all by rank, or all as they are.  [sft]",
)  # fmt: skip
@option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("sampled.jsonl"), metavar="FILE",
              help="The new file.  [sampled.jsonl]")  # fmt: skip
@option(
    "--samples",
    "n",
    former=["--n"],
    type=click.IntRange(1),
    default=8,
    metavar="N",
    help="Answers to each prompt.  [8]",
)
@option("--keep-above", type=float, default=None, metavar="X", help="Drop prompts whose best reward is not above X.")
@option("--only-ended", is_flag=True, help="Leave out answers that were cut at --max-new-tokens.")
@option(
    "--temperature",
    group=SAMPLING,
    type=click.FloatRange(0),
    default=1.0,
    metavar="X",
    help="Sampling temperature; 1 is the model's own.  [1]",
)
@top_p
@max_new_tokens
@option("--batch", group=SAMPLING, type=click.IntRange(1), default=64, metavar="N",
              help="Answers generated at once; lower it to save memory. Answers change only by rounding.  [64]")  # fmt: skip
@as_json
def command(
    model: str, prompts: tuple[str, ...], use: tuple[str, ...], write: Any, out: Path, n: int, keep_above: float | None,
    only_ended: bool, temperature: float, top_p: float, max_new_tokens: int, batch: int, json_: bool, **settings: Any,
) -> None:  # fmt: skip
    """Sample answers of MODEL_OR_RUN to PROMPTS (rows of any layout that has a prompt), score them, and write training
    data: best-of-n and rejection sampling.

    \b
    Examples:
      luthier sample smollm2-135m sums.jsonl --reward number --keep-above 0
      luthier sample runs/NAME rows.jsonl --reward python:rewards.py:score --write pairs --out pairs.jsonl
      luthier sample runs/NAME rows.jsonl --reward 2*exact --reward 0.2*length:40 --samples 16

    Run the same command again to resume an unfinished one.
    """
    from luthier.config.resolve import resolve
    from luthier.feedback.sample import SampleOptions, sample
    from luthier.report.screens import samples

    asked = {"model": model, "data.path": prompts, "reward.use": use}
    options = SampleOptions(write, out, n, temperature, top_p, max_new_tokens, batch, keep_above, only_ended)
    result = sample(resolve(asked, given(settings)), options)
    if json_:
        print_json(result)
        return
    screen = console()
    for part in samples.sample_screen(result):
        screen.print(part)
