"""luthier errors"""

from __future__ import annotations

from pathlib import Path

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import with_threads
from luthier.core.machine import share

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("errors", cls=Command, context_settings={"max_content_width": 110})
@click.argument("run", type=click.Path(path_type=Path))
@option("--category", metavar="NAME", help="Show all answers of one category.")
@option(
    "--compare",
    "against",
    former=["--against"],
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Show each category of an earlier run beside this one.",
)
@option("--fix", type=FILE, metavar="FILE", help="Propose fixes of the training rows: JSON Lines for you to accept.")
@option("--apply", "fixes", type=FILE, metavar="FILE", help="Apply the accepted fixes; with --out.")
@option(
    "--out",
    "to",
    former=["--to"],
    type=FILE,
    metavar="FILE",
    help="--apply: the new version of the data set, JSON Lines.",
)
@with_threads
@as_json
def command(
    run: Path,
    category: str | None,
    against: Path | None,
    fix: Path | None,
    fixes: Path | None,
    to: Path | None,
    threads: int | None,
    json_: bool,
) -> None:
    """What is wrong with the held-out answers of RUN, base and tuned side by side, where it is worse than elsewhere, and which
    training rows taught it. No judge is asked and no model is loaded.

    \b
    Examples:
      luthier errors runs/NAME
      luthier errors runs/NAME --category repetitive
    From the errors to better data, and back:
      luthier errors runs/NAME --fix fixes.jsonl                     propose; write "accept": true where you agree
      luthier errors runs/NAME --apply fixes.jsonl --out rows2.jsonl
      luthier train runs/NAME/run.yaml rows2.jsonl --out runs/NEW
      luthier errors runs/NEW --compare runs/NAME
    """
    share(threads)
    from luthier.core.errors import InputError
    from luthier.diagnose.apply_fixes import apply
    from luthier.diagnose.before_after import compare_runs
    from luthier.diagnose.errors import errors
    from luthier.diagnose.fixes import propose
    from luthier.report.screens import errors as report
    from luthier.tune.write_report import rewrite_run_page

    given = [
        name for name, value in (("category", category), ("compare", against), ("fix", fix), ("apply", fixes)) if value
    ]
    if len(given) > 1:
        raise InputError(f"--{given[0]} and --{given[1]} cannot both be given", fix="give one of them")
    if bool(fixes) != bool(to):
        raise InputError("--apply and --out go together", fix="luthier errors RUN --apply FIXES.jsonl --out NEW.jsonl")
    if fixes and to:
        result, screen = apply(run, fixes, to), report.applied_screen
    elif fix:
        result, screen = propose(run, fix), report.fixes_screen
    elif against:
        result, screen = compare_runs(run, against), report.comparison_screen
    else:
        result = errors(run, category)
        written = rewrite_run_page(run)
        result["report"] = written and str(written)
        screen = report.category_screen if category else report.errors_screen
    if json_:
        print_json(result)
        return
    page = console()
    for part in screen(result):
        page.print(part)
