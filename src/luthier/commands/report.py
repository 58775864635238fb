"""luthier report"""

from __future__ import annotations

from pathlib import Path

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, console, print_json


@click.command("report", cls=Command, context_settings={"max_content_width": 110})
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN ...]", type=click.Path(path_type=Path))
@option("--coding", is_flag=True, help="Write RUN/errors/coding.html instead: a page to code answers by hand.")
@option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where the page goes.  [RUN/report.html; of several runs report-compare.html]",
)  # fmt: skip
@option("--open", "open_", is_flag=True, help="Open the page in a browser.")
@as_json
def command(runs: tuple[Path, ...], coding: bool, out: Path | None, open_: bool, json_: bool) -> None:
    """Write the page of a finished run again, or one page of several runs side by side.

    The page is one file that loads nothing: summary, before and after, samples, errors, curves, settings, lineage.
    `luthier train` writes it at the end of a run. No model is loaded.

    \b
    Examples:
      luthier report runs/mine --open
      luthier report runs/old runs/new --out compare.html
      luthier report runs/mine --coding
    """
    from luthier.core.errors import InputError
    from luthier.tune import write_report

    if coding and len(runs) > 1:
        raise InputError("--coding takes one run", where="luthier report", fix="code the answers of one run at a time")
    path = write_report.write_coding_page(runs[0], out) if coding else write_report.write_report(runs, out)
    if json_:
        print_json({"coding" if coding else "report": str(path)})
    else:
        console().print(f"  {path}", soft_wrap=True)
    if open_:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
