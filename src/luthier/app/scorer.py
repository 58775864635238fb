"""A reward model at work: answers -> numbers, by a run of `--method reward`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from luthier.app.start import Start, find
from luthier.core.errors import InputError
from luthier.core.types import Chat, Message, Messages, Needs, TokenTree
from luthier.model import adapters, heads, lora
from luthier.model import load as model_load
from luthier.model.forward import forward
from luthier.rewards.answer import Answer
from luthier.text.encode import encode
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer
from luthier.train.steps import Packing, scoring_batches

SCORE = Needs(logp=False, score=True)


@dataclass
class Scorer:
    """Scores answers as they are written: text is rendered and tokenized as the reward model learned it, so it may
    have another tokenizer and template than the model that answered. `role` is what `model` plays meanwhile."""

    model: Any
    tokenizer: Tokenizer
    template: Template
    start: Start
    role: lora.Role | None = None
    tokens: int = 1024

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """The score of each answer to its prompt: a component of rewards."""
        return self.score([(answer.messages, answer.text) for answer in answers])

    @torch.no_grad()
    def score(self, rows: Sequence[tuple[Messages, str]]) -> list[float]:
        """The score of each (prompt, answer). An answer longer than the length it was trained on is cut."""
        examples = [Chat((*prompt, Message("assistant", text))) for prompt, text in rows]
        settings = self.start.config.text.model_copy(update={"too_long": "cut", "train_on": "last"})
        trees: list[TokenTree] = encode(examples, self.template, self.tokenizer, settings).trees
        assert len(trees) == len(rows), "an answer always has its stop token to be scored at"
        training = self.model.training
        self.model.eval()
        out = [0.0] * len(rows)
        device = next(self.model.parameters()).device
        with lora.playing(self.model, self.role) if self.role else nullcontext():
            for batch in scoring_batches(trees, Packing(self.tokens)):
                found = forward(self.model, batch.to(device), SCORE).score
                assert found is not None
                for row, value in zip(batch.rows, found.tolist(), strict=True):
                    out[row] = value
        self.model.train(training)
        return out


def open_scorer(
    run: str, *, device: str = "auto", dtype: str = "auto", share: tuple[Any, Start] | None = None
) -> Scorer:
    """The reward model of a run. With `share` = (model, where it started) and an adapter on the same base, that
    model plays it and nothing more is loaded. Raises InputError for a run that is no reward model."""
    start = find(run)
    if start.config.method != "reward":
        raise InputError("not a reward model", where=run, mend="give a run of `luthier train --method reward`")
    tokenizer = Tokenizer(model_load.load_tokenizer(start.source.folder))
    template = load_template(start.config.text.template, tokenizer)
    if share and start.adapter and share[1].source.digests() == start.source.digests():
        model = share[0]
        return Scorer(model, tokenizer, template, start, adapters.role(model, start.adapter))
    place = model_load.pick_device(device)
    model = model_load.load(start.source, device=place, dtype=model_load.pick_dtype(dtype, place)).model
    model.requires_grad_(False)
    if start.adapter:
        adapters.apply(model, start.adapter)
        lora.merge(model)
    else:
        heads.put(model, "score", _head(start.source.folder))
    return Scorer(model, tokenizer, template, start)


def _head(folder: Path) -> torch.Tensor:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            if "score.weight" in tensors.keys():  # noqa: SIM118  not a mapping
                weight: torch.Tensor = tensors.get_tensor("score.weight")
                return weight
    raise InputError("no score head in this model", where=folder, mend="train it again with --method reward")
