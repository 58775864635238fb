"""Which of the rows that models are compared on a run has learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.types.examples import Example
from luthier.data.held_out import COMPARED, NEAR
from luthier.data.split import leaks
from luthier.runs.folder import read_run
from luthier.runs.rows import read_examples
from luthier.training.table import METHODS


def warn_of_seen(name: str, config: RunConfig, examples: Sequence[Example]) -> None:
    """Say how many of `examples` the run `name` learned from, or a run that it went on from; or that this is not known, where
    its rows cannot be read again. Nothing is said of a model that is no run."""
    for settings in _runs(config):
        files = ", ".join(settings.data.path)
        try:
            learned = read_examples(settings, METHODS[settings.method].example)
        except InputError as error:
            log.warn(f"whether {name} learned from these rows is not known: {error}")
            continue
        if learned.stream:
            log.warn(f"whether {name} learned from these rows is not known: it read {files} as a stream")
            continue
        rows = (*learned.train, *learned.replay)
        found = Counter(leak.kind for leak in leaks(rows, examples, near=NEAR if len(rows) <= COMPARED else None))
        if found:
            log.warn(
                f"{name} learned from {found['exact']} of these {len(examples)} prompts, and nearly so from {found['near']}, "
                f"in {files}: compare on rows that it has not seen"
            )


def _runs(config: RunConfig) -> Iterator[RunConfig]:
    """The settings of a run, and of those that it went on from."""
    while config.data.path and "-" not in config.data.path:
        yield config
        before = Path(config.model)
        if not (before / "run.yaml").is_file():
            return
        _, config = read_run(before)
