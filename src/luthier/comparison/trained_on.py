"""Which of the rows that models are compared on a run has learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.types.examples import Example
from luthier.data.held_out_warnings import MAX_COMPARED, NEAR_SIMILARITY
from luthier.data.split import leaks
from luthier.runs.folder import read_run
from luthier.runs.rows import read_examples
from luthier.training.method_table import method


def warn_of_seen(name: str, config: RunConfig, examples: Sequence[Example]) -> None:
    """Say how many of `examples` the run `name` learned from, or a run that it went on from; or that this is not known, where
    its rows cannot be read again. Nothing is said of a model that is no run."""
    for settings in _settings_of_chain(config):
        files = ", ".join(settings.data.path)
        try:
            rows_of_run = read_examples(settings, method(settings.method).example)
        except InputError as error:
            log.warn(f"whether {name} learned from these rows is not known: {error}")
            continue
        if rows_of_run.stream:
            log.warn(f"whether {name} learned from these rows is not known: it read {files} as a stream")
            continue
        rows = (*rows_of_run.train, *rows_of_run.replay)
        overlaps = Counter(
            leak.kind for leak in leaks(rows, examples, near=NEAR_SIMILARITY if len(rows) <= MAX_COMPARED else None)
        )
        if overlaps:
            log.warn(
                f"{name} learned from {overlaps['exact']} of these {len(examples)} prompts, and from near copies of {overlaps['near']}, "
                f"in {files}: compare on rows that it has not seen"
            )


def _settings_of_chain(config: RunConfig) -> Iterator[RunConfig]:
    """The settings of a run, and of those that it went on from."""
    while config.data.path and "-" not in config.data.path:
        yield config
        base_run = Path(config.model)
        if not (base_run / "run.yaml").is_file():
            return
        _, config = read_run(base_run)
