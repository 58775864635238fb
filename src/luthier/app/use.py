"""A model or a run, opened for use: the base, its adapter, and the template it was trained with."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from luthier.app.start import find
from luthier.core.config import RunConfig
from luthier.core.errors import InputError
from luthier.core.files import sha256
from luthier.core.types import Message
from luthier.model import adapters, lora, quantize, sources
from luthier.model import load as model_load
from luthier.model.generate import stream
from luthier.model.sample import Sampling
from luthier.text.encode import encode_prompt_ids
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer


@dataclass
class Opened:
    """A model ready to answer. `names` are the adapters that can be switched to; 'base' is the model without any."""

    model: Any
    tokenizer: Tokenizer
    template: Template
    config: RunConfig
    names: dict[str, Path] = field(default_factory=dict)
    active: str = "base"

    def switch(self, name: str) -> None:
        """Answer with this adapter from now on, or with the bare 'base'. Raises InputError for an unknown name."""
        if name not in self.names and name != "base":
            raise InputError(f"no adapter '{name}'", mend=f"there are: {', '.join(('base', *self.names))}")
        if name == "base":
            lora.detach(self.model)
        else:
            adapters.apply(self.model, self.names[name])
        self.active = name

    def answer(self, messages: Sequence[Message], sampling: dict[str, Any]) -> Iterator[str]:
        """The answer in pieces, as they come. A run is asked under the system prompt it was trained with, unless
        `messages` bring their own."""
        system = self.config.text.system
        ids = encode_prompt_ids(messages, (), self.template, self.tokenizer, system=system)
        settings = Sampling(**sampling, stop_ids=tuple(sorted(self.template.stop_ids)), stop=self.template.stops)
        return stream(self.model, ids, settings, self.tokenizer.decode)


def open_model(name: str, *, adapter: Sequence[str] = (), device: str = "auto", dtype: str = "auto") -> Opened:
    """Open a run directory, or a model by any name that --model takes, with more adapters from other runs.

    Raises InputError for a run that is not finished, and for adapters that do not fit the model.
    """
    start = find(name)
    config = start.config
    found: dict[str, Path] = {Path(name).resolve().name: start.adapter} if start.adapter else {}
    for other in adapter:
        folder = Path(other) / "adapter" if (Path(other) / "adapter").is_dir() else Path(other)
        found[_own_name(Path(other).resolve(), found)] = folder
    place = model_load.pick_device(device)
    loaded = model_load.load(start.source, device=place, dtype=model_load.pick_dtype(dtype, place))
    loaded.model.requires_grad_(False)
    if config.tune == "qlora" and start.adapter:
        q = config.quant
        quantize.quantize_linears(loaded.model, kind=q.kind, block=q.block, double=q.double)
    tokenizer = Tokenizer(loaded.tokenizer)
    opened = Opened(loaded.model, tokenizer, load_template(config.text.template, tokenizer), config, found)
    for other in reversed(found):  # each is tried now, and the first one stays
        opened.switch(other)
    return opened


def weights(opened: Opened, name: str) -> dict[str, str]:
    """The sha256 of every file of weights of what was opened as `name`: of a run its own, and those of its base."""
    path = Path(name)
    if not (path / "run.yaml").is_file():
        return sources.resolve(name).digests()
    files = [file for part in ("adapter", "model") for file in sorted((path / part).glob("*.safetensors"))]
    own = {str(file.relative_to(path)): sha256(file) for file in files}
    return own | (sources.resolve(opened.config.model).digests() if (path / "adapter").is_dir() else {})


def _own_name(folder: Path, taken: Container[str]) -> str:
    """The shortest end of the path that no other adapter has: 'run', or 'second/run'."""
    ends = ["/".join(folder.parts[-n:]) for n in range(1, len(folder.parts))]
    return next((end for end in ends if end not in taken), str(folder))


@torch.no_grad()
def log_probabilities(opened: Opened, texts: Sequence[str], longest: int = 256) -> torch.Tensor:
    """log p of every token of `texts` after its first, text by text as they are packed: the same order each time."""
    from luthier.core.types import Node, TokenTree
    from luthier.model.forward import forward
    from luthier.train.steps import Packing, scoring_batches

    trees = []
    for text in texts:
        ids = tuple(opened.tokenizer.encode(text)[:longest])
        if len(ids) > 1:
            trees.append(TokenTree((Node(ids, (False,) + (True,) * (len(ids) - 1)),)))
    device = next(opened.model.parameters()).device
    opened.model.eval()
    return torch.cat([forward(opened.model, b.to(device)).logp.cpu() for b in scoring_batches(trees, Packing(1024))])
