"""luthier train"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from luthier.commands.options import OUTPUT, SECTIONS, option
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import config_of, with_settings
from luthier.commands.train_help import HELP_ALL, TrainCommand
from luthier.core import log


@option(
    "--from", "from_", group=SECTIONS[""], metavar="FILE",
    help="YAML file of Axolotl, LLaMA-Factory or TRL: its settings as far as there are such here; the others are listed.",
)  # fmt: skip
@with_settings(
    "",
    "data",
    "text",
    "lora",
    "quant",
    "train",
    "preference",
    "ranking",
    "rollout",
    "policy",
    "reward",
    "eval",
    "stop",
    without=("data.path",),
    refused={"dtype": ["float16"]},
)
@click.command("train", cls=TrainCommand, context_settings={"max_content_width": 110})
@click.argument("data", nargs=-1)
@option(HELP_ALL, "help_all", is_flag=True, expose_value=False, group=OUTPUT, help="Show every setting, and exit.")
@as_json
def command(data: tuple[str, ...], from_: str | None, json_: bool, **settings: Any) -> None:
    """Tune a model on DATA (files, folders, globs, '-', or a YAML file of settings) and measure what changed.

    \b
    Methods:
      sft, cpt              learn the answers of conversations; every token of raw text
      dpo, simpo, orpo      prefer the better of two answers, or of several in a ranking
      kto, response         single answers, wanted or not; accepted and rejected texts without a prompt
      reward                a reward model: a number for an answer, from pairs or rankings
      ppo, grpo             learn from rewards of the model's own answers (--reward)
      python:FILE:NAME      a loss or a method of your own (docs/methods.md); it runs in this process
    Tuning:   full, head, last:K, layers:GLOB, lora, qlora

    \b
    Examples:
      luthier train rows.jsonl --out runs/sft
      luthier train notes/*.txt --method cpt --tune full
      luthier train rows.csv --data.columns prompt=question --data.columns completion=answer
      luthier train run.yaml --train.lr 1e-4
      luthier train pairs.jsonl --method dpo --model runs/sft
      luthier train rows.jsonl --method grpo --reward exact --model runs/sft

    Run the same command again to resume an unfinished run.
    """
    config = config_of(data, settings, _from(from_, data) if from_ else None)  # what is wrong with them is told at once
    log.note("loading PyTorch and the model libraries; this takes a few seconds")
    from luthier.report.screens import stages
    from luthier.tune.train import run

    screen = console()
    result = run(config, show=None if json_ else lambda name, value: stages.show(screen, name, value))
    if json_:
        print_json(result)


def _from(name: str, data: Sequence[str]) -> dict[str, Any]:
    """The settings in a file of another program, without the columns of files that `data` takes the place of. What became of each of
    its lines is said on standard error."""
    from luthier.config.resolve import read_yaml
    from luthier.config.translate import translate
    from luthier.training.method_table import METHODS, method

    file = Path(name)
    made = translate(read_yaml(file), file)
    log.note(f"{file}: settings of {made.program}")
    for lines, sign in ((made.taken, "->"), (made.needless, "not needed:")):
        for line, what in lines.items():
            log.note(f"  {line}  {sign} {what}")
    if made.assumed:
        log.note(f"  as {made.program} does where the file is silent  -> {made.assumed}")
    row = method(chosen := made.settings.get("method", "sft"))
    for setting in [
        setting for setting in made.settings if any(other.does_read(setting) for other in METHODS.values())
    ]:
        if not row.does_read(setting):
            made.left[f"{setting}: {made.settings.pop(setting)}"] = f"{chosen} does not read it"
    columns = made.settings.get("data.columns", {})
    if data and any(":" in key for key in columns):
        made.left["data.columns"] = "the columns of files that others were given for; --data.columns"
        made.settings["data.columns"] = {key: column for key, column in columns.items() if ":" not in key}
    for line, why in made.left.items():
        log.warn(f"{file}: not followed: {line}; {why}")
    return made.settings
