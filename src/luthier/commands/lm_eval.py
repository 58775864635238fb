"""luthier lm-eval"""

from __future__ import annotations

import click

from luthier.core.errors import InputError


@click.command("lm-eval", context_settings={"ignore_unknown_options": True, "max_content_width": 110})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="OPTIONS OF LM_EVAL...")
def command(arguments: tuple[str, ...]) -> None:
    """Run any task of lm-evaluation-harness on Luthier's engine: its own command line with the model class `luthier`.

    Needs the package lm-eval. --model_args takes pretrained=RUN_OR_MODEL, dtype, device, tokens, threads, max_length.

    \b
    Example:
      luthier lm-eval --model luthier --model_args pretrained=runs/quickstart --tasks piqa,openbookqa --limit 100
    """
    try:
        from luthier.evals.benchmarks.harness import main
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lm_eval"):
            raise
        raise InputError("lm-evaluation-harness is not installed", fix="pip install lm-eval") from None
    main(arguments)
