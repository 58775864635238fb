"""luthier test"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from luthier.commands.judge_options import judge_of, with_judge
from luthier.commands.options import Command, option
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import config_of, with_settings


@with_settings("base", "text.system", "device", "dtype", "threads", "reward.timeout", "reward.memory")
@click.command("test", cls=Command, context_settings={"max_content_width": 110})
@click.argument("suite", type=click.Path(path_type=Path))
@option("--model", required=True, metavar="NAME", help="The model or run that is tested.")
@option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write JUnit XML for a CI server."
)
@option(
    "--judged",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep what the judge says, line by line; the same command resumes from there.",
)
@with_judge()
@as_json
def command(suite: Path, model: str, junit: Path | None, judged: Path | None, json_: bool, **values: Any) -> None:
    """Test a model with SUITE, a YAML file of prompts and of what their answers must be (docs/compare.md).

    Exit status 1 when a threshold of the suite is missed or, in a suite without thresholds, a case fails. --judge or --endpoint names
    the model for checks of the kind `judged`.

    \b
    Examples:
      luthier test suite.yaml --model runs/mine
      luthier test suite.yaml --model runs/mine --junit results.xml
    """
    from luthier.core.threads import use_threads
    from luthier.evals.suites.evaluation import run_suite
    from luthier.report.screens.suites import suite_screen

    config = config_of((), values)
    use_threads(config.threads)
    judge = judge_of(values, config.device, config.dtype)
    found = run_suite(
        suite,
        model,
        judge,
        settings=config.reward,
        xml=junit,
        said=judged,
        device=config.device,
        dtype=config.dtype,
        base=config.base,
        system=config.text.system,
    )
    result = {"model": model, **found.as_dict()}
    if json_:
        print_json(result)
    else:
        screen = console()
        for part in suite_screen(result):
            screen.print(part)
    if not found.met:
        sys.exit(1)
