"""An answer as detectors see it, and what they say of it."""

from __future__ import annotations

from dataclasses import dataclass

from luthier.core.types.findings import Finding as Finding


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer to a prompt. `reference` is the expected answer, "" where there is none.

    row      the data-set row
    ended    by 'stop' or 'length' (as generate/generate.py says it); "" where that is not known, as for rows of data
    logps    log p of each token of the answer; empty where that is not known
    """

    prompt: str
    answer: str
    reference: str = ""
    row: int = 0
    ended: str = ""
    logps: tuple[float, ...] = ()
