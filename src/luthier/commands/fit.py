"""luthier fit"""

from __future__ import annotations

from typing import Any

import click

from luthier.commands.options import MACHINE, Command, option
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import config_of, with_settings


@with_settings(
    "lora.rank", "lora.expert_rank", "lora.targets", "quant.block", "train.optimizer", "device", "dtype", "threads"
)
@click.command("fit", cls=Command, context_settings={"max_content_width": 110})
@click.argument("model", metavar="MODEL")
@option(
    "--gpu", group=MACHINE, metavar="SIZE", help="A GPU with so much memory, such as 24GB; by default this machine's."
)
@option("--memory", group=MACHINE, metavar="SIZE", help="A machine without a GPU, with so much memory, such as 16GB.")
@option(
    "--context", "contexts", type=click.IntRange(1), multiple=True, metavar="N",
    help="Tokens of a row; may be given several times.  [512, 2048 and 8192, where the model reads as many]",
)  # fmt: skip
@option("--batch", type=click.IntRange(1), default=1, metavar="N", help="Rows in one pass, or answers at once.  [1]")
@as_json
def command(
    model: str, gpu: str | None, memory: str | None, contexts: tuple[int, ...], batch: int, json_: bool, **settings: Any
) -> None:
    """What fits into memory: tuning MODEL in every way, and serving it, on this machine or another.

    Nothing is loaded or computed: a folder with its config.json is enough. Also shows how many weights each layer has, and how many
    an adapter adds.

    \b
    Examples:
      luthier fit smollm2-135m
      luthier fit ./my-model --gpu 24GB --context 4096 --batch 4
      luthier fit model.gguf --memory 16GB --lora.rank 64
    """
    from luthier.core.machine import share
    from luthier.inspect import fit as fits
    from luthier.report.screens.fit import fit_tables

    config = config_of((), settings)
    share(config.threads)
    room = fits.room(config.device, gpu, memory)
    found = fits.fit(model, config, room, contexts, batch).as_dict()
    if json_:
        print_json(found)
        return
    screen = console()
    for part in fit_tables(found):
        screen.print(part)
