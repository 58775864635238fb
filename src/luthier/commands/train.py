"""luthier train"""

from __future__ import annotations

from typing import Any

import click

from luthier.commands.options import Command
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import config_of, with_settings
from luthier.core import log


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
@click.command("train", cls=Command, context_settings={"max_content_width": 110})
@click.argument("data", nargs=-1)
@as_json
def command(data: tuple[str, ...], json_: bool, **settings: Any) -> None:
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
    config = config_of(data, settings)  # what is wrong with them is told at once
    log.note("loading PyTorch and the model libraries; this takes a few seconds")
    from luthier.report.screens import stages
    from luthier.tune.train import run

    screen = console()
    result = run(config, show=None if json_ else lambda name, value: stages.show(screen, name, value))
    if json_:
        print_json(result)
