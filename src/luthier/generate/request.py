"""What is asked of a model, and one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.generate.sampling import Sampling

Ended = Literal["stop", "length", "stop_string"]


@dataclass(frozen=True)
class Sample:
    """One answer.

    prompt  index of its prompt
    ids     the new tokens, the stop token or the tokens of the stop string included
    text    their text without the stop token or from the stop string on, and without a character cut in half
    logp    log p(ids[i] | prompt, ids[:i]) under the model itself, before temperature, penalty and filters
    ended   by a stop token, by length (max_new_tokens, or the model's context is full), or by a stop string
    """

    prompt: int
    ids: tuple[int, ...]
    text: str
    logp: tuple[float, ...]
    ended: Ended


@dataclass(frozen=True)
class Request:
    """A prompt to be answered `sampling.n` times.

    ids      the prompt's tokens
    place    its random numbers are those of (sampling.seed, place, number of the sample): nothing else decides a sample
    text     whether its text is decoded as it comes, as stop strings need it, and who shows an answer while it is written
    adapter  which of the engine's adapters answers; None leaves the model as it stands
    """

    ids: Sequence[int]
    sampling: Sampling
    place: int = 0
    text: bool = False
    adapter: str | None = None
