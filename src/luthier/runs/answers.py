"""Answers of a model or a run to many prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from luthier.core import log
from luthier.core.errors import Stopped
from luthier.core.types.examples import Messages
from luthier.generate.generate import Pace, complete, context
from luthier.generate.request import Request
from luthier.model import memory
from luthier.runs.open import Opened


def write(
    opened: Opened, prompts: Sequence[Messages], sampling: Mapping[str, Any], stop: Callable[[], bool], title: str,
    system: str | None = None, adapters: Sequence[str | None] | None = None,
) -> list[list[str]]:  # fmt: skip
    """The n answers to each prompt, n as in `sampling`. A run is asked under the system prompt it was trained with,
    unless the messages bring their own. `adapters` names the one that answers each prompt, the active one where that is None.
    Raises Stopped when asked to stop, InputError for a prompt that does not fit and an unknown adapter."""
    names = [None] * len(prompts) if adapters is None else list(adapters)
    own = {name: opened.requested(name) for name in dict.fromkeys(names)}
    settings = {name: opened.sampling(sampling, name) for name in own}
    requests = [
        Request(opened.prompt_ids(prompt, system, name), settings[name], place, adapter=own[name])
        for place, (prompt, name) in enumerate(zip(prompts, names, strict=True))
    ]
    opened.model.eval()
    with log.progress(f"{title}: answers") as bar:
        found = complete(
            opened.model, requests, opened.tokenizer.decode,
            adapters={name: opened.adapters[name] for name in own.values() if name} or None,
            progress=partial(follow, bar, opened.model.device), cancelled=stop,
        )  # fmt: skip
    if stop():
        raise Stopped("stopped while answering")
    out: list[list[str]] = [[] for _ in prompts]
    for sample in found:
        out[sample.prompt].append(sample.text)
    return out


def follow(bar: log.Bar, device: torch.device, pace: Pace) -> None:
    """Show where generation stands."""
    rate = pace.made / max(bar.spent, 1e-9)
    bar.at(pace.step, pace.most, pace.words, **{"tokens/s": f"{rate:.0f}", "memory": log.size(memory.peak(device))})


def too_long(opened: Opened, prompts: Sequence[Messages]) -> dict[int, str]:
    """Of the prompts that leave no room for an answer in the model's context: index -> what is wrong, in words."""
    most = context(opened.model)
    sizes = [len(ids) for ids in map(opened.prompt_ids, prompts)]
    words = "the prompt has {:,} tokens, the model's context {:,}"
    return {i: words.format(size, most) for i, size in enumerate(sizes) if most is not None and size >= most}
