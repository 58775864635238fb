"""Hashes of everything that decides the steps of a run: what its lineage compares."""

from __future__ import annotations

from typing import Any

from luthier.config.run import RunConfig
from luthier.runs.rows import Examples
from luthier.runs.tokenizer_and_template import TextFormat
from luthier.training import own_method
from luthier.tune import policy_models
from luthier.tune.prepare import computing


def inputs(config: RunConfig, examples: Examples, texts: TextFormat) -> dict[str, Any]:
    """What it is -> its hash, or file -> sha256: the data, the model, general text that is learned beside, the rewards, a method
    of the user's own."""
    return {
        "data": examples.digests(), "model": texts.resolved.digests(), "template": texts.template.fingerprint,
        "tokenizer": texts.tokenizer.fingerprint(), "computing": computing(texts, config), **examples.replay_digests(),
        **policy_models.reward_digests(config), **own_method.digests(config.method),
    }  # fmt: skip
