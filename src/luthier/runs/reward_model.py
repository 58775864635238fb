"""A reward model at work: answers -> numbers, by a run of `--method reward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from luthier.core.errors import InputError
from luthier.core.types.batch import Needs
from luthier.core.types.examples import Chat, Message, Messages
from luthier.model.adapt import adapters, heads, lora, roles
from luthier.model.folder.limits import longest_input
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.model.forward import forward
from luthier.rewards.answer import Answer, opening
from luthier.runs.locate import ResolvedModel, resolve_model
from luthier.runs.open import load_with_adapter
from luthier.text.encode import encode_chunk
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer
from luthier.training.method_table import method
from luthier.training.steps import Packing, scoring_batches

SCORE = Needs(logp=False, score=1)


@dataclass
class Scorer:
    """Scores answers as they are written: text is rendered and tokenized as the reward model learned it, so it may
    have another tokenizer and template than the model that answered. `role` is what `model` plays meanwhile."""

    model: Any
    tokenizer: Tokenizer
    template: Template
    resolved: ResolvedModel
    role: roles.Role | None = None
    tokens: int = 1024

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """The score of each answer to its prompt: a component of rewards."""
        rows = [(answer.messages, answer.text) for answer in answers]
        return self.score(rows, [{"tools": a.tools, "template_kwargs": a.template_kwargs} for a in answers])

    @torch.no_grad()
    def score(
        self, rows: Sequence[tuple[Messages, str]], beside: Sequence[Mapping[str, Any]] | None = None
    ) -> list[float]:
        """The score of each (prompt, answer); `beside` is what each gives the template beside the messages. An answer is
        cut where the model's context ends.

        Raises InputError for a prompt that alone fills it.
        """
        examples = [
            Chat((*prompt, Message("assistant", text)), **more)
            for (prompt, text), more in zip(rows, beside or [{}] * len(rows), strict=True)
        ]
        context = longest_input(self.model.config, self.tokenizer.fast)
        update = {"too_long": "cut", "train_on": "last", "max_length": context}
        settings = self.resolved.config.text.model_copy(update=update)
        trees = encode_chunk(examples, self.template, self.tokenizer, settings).trees
        if lost := set(range(len(rows))) - {tree.row for tree in trees}:  # all others have a token to be scored at
            asked = rows[min(lost)][0][-1].content
            raise InputError(
                f"the prompt '{opening(asked)}' leaves no room for an answer in the context of {context} tokens",
                where=f"reward model {self.resolved.adapter or self.resolved.source.folder}",
                fix="shorten it, or leave its row out",
            )  # fmt: skip
        training = self.model.training
        self.model.eval()
        out = [0.0] * len(rows)
        device = next(self.model.parameters()).device
        with roles.playing(self.model, self.role) if self.role else nullcontext():
            for batch in scoring_batches(trees, Packing(self.tokens)):
                found = forward(self.model, batch.to(device), SCORE).score
                assert found is not None
                for row, value in zip(batch.rows, found[:, 0].tolist(), strict=True):
                    out[row] = value
        self.model.train(training)
        return out


def fits_base(reward: ResolvedModel, policy: ResolvedModel, tune_kind: str, init: str) -> bool:
    """Whether the model that starts from `policy` can play the reward model: where its base stays as the adapter of
    the reward model found it. Other tune kinds than lora move or quantize it, and PiSSA takes a part out of it."""
    if tune_kind != "lora" or init == "pissa" or not reward.adapter or reward.config.tune != "lora":
        return False
    return reward.source.folder == policy.source.folder or reward.source.digests() == policy.source.digests()


def open_scorer(
    run: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    policy: Callable[[ResolvedModel], Any] = lambda reward: None,
    base: str | None = None,
) -> Scorer:
    """The reward model of a run. `policy` gives the model that can play it, and then nothing more is loaded.
    Raises InputError for a run that is no reward model."""
    resolved = resolve_model(run, base)
    if not method(resolved.config.method).needs.score:
        raise InputError("not a reward model", where=run, fix="give a run of `luthier train --method reward`")
    tokenizer = Tokenizer(load_tokenizer(resolved.texts))
    template = load_template(resolved.config.text.template, tokenizer, resolved.config.text.template_kwargs)
    if resolved.adapter and (model := policy(resolved)) is not None:
        return Scorer(model, tokenizer, template, resolved, adapters.role(model, resolved.adapter))
    model = load_with_adapter(resolved, device, dtype).model
    model.requires_grad_(False)
    if resolved.adapter:
        lora.merge(model)
    else:
        heads.put(model, "score", _head(resolved.source.folder))
    return Scorer(model, tokenizer, template, resolved)


def _head(folder: Path) -> torch.Tensor:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            if "score.weight" in tensors.keys():  # noqa: SIM118  not a mapping
                weight: torch.Tensor = tensors.get_tensor("score.weight")
                if len(weight) != 1:
                    fix = "give a model trained with --method reward"
                    raise InputError(f"its score head gives {len(weight)} numbers, not one", where=folder, fix=fix)
                return weight
    raise InputError("no score head in this model", where=folder, fix="train it again with --method reward")
