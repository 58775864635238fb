"""What Luthier makes of a model, beside what transformers makes of it: verdict, log-probabilities, answers, gradients.

The reference is transformers' own eager attention, one sequence alone at a time; Luthier's side is the usual one: `load`, a
packed row of trees, the engine.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from luthier.core.errors import InputError
from luthier.core.types.trees import Node, TokenTree
from luthier.generate.generate import generate
from luthier.generate.sampling import Sampling
from luthier.model import load
from luthier.model.forward import forward
from luthier.text.pack import pack
from tiny_architectures import make

LIMIT = 1e-4  # of a difference that is rounding
LOWEST = 10  # tokens below stand for something


@dataclass(frozen=True)
class Finding:
    """Of one model: why it is refused, or else the largest differences to transformers: of log p over a packed row, of log p of the
    tokens that were generated (and how many of them transformers would have chosen too), relative ones of all gradients."""

    refused: str | None = None
    logp: float = 0.0
    spread: float = 0.0
    generated: float = 0.0
    same: int = 0
    of: int = 0
    gradient: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether Luthier gives what transformers gives, in float32."""
        found = self.logp, self.generated, self.gradient
        return self.refused is None and all(one < LIMIT for one in found) and self.same == self.of

    @property
    def why(self) -> str:
        """The reason of the refusal, without where and fix."""
        said = (self.refused or "").split("; ")[0].partition(": ")[2]
        return re.sub(r"^Luthier does not compute models of type '[^']*' exactly: ", "", said).replace("|", "/")


def architectures() -> list[str]:
    """Every kind of model that transformers has as a language model or as one that writes about pictures."""
    from transformers.models.auto import modeling_auto

    return sorted(
        {*modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    )


def survey_all(kinds: list[str], folder: Path) -> dict[str, Finding | str]:
    """What each kind comes to; a text for those of which no tiny model can be made."""
    import shutil

    from conftest import made_tokenizer

    out: dict[str, Finding | str] = {}
    for kind in kinds:
        try:
            make(kind, folder / kind, made_tokenizer())
        except Exception as error:  # whatever the defaults of an architecture made small come to
            out[kind] = f"{type(error).__name__}: {error}"
            continue
        out[kind] = survey(folder / kind)
        shutil.rmtree(folder / kind)
    return out


def trees(size: int) -> list[TokenTree]:
    """Chats with a common beginning, a pair, and a tree of three storeys; of tokens below `size`."""
    draw = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(LOWEST, size) for _ in range(count))

    def node(tokens: tuple[int, ...], parent: int = -1, learned: bool = True) -> Node:
        return Node(tokens, (learned,) * len(tokens), parent)

    system, out = ids(14), []
    for row, (asked, answered) in enumerate(((9, 21), (3, 30))):
        out.append(TokenTree((node(system + ids(asked), learned=False), node(ids(answered), 0)), row=row))
    out.append(TokenTree((node(system + ids(8), learned=False), node(ids(19), 0), node(ids(11), 0)), row=2))
    deep = (node(ids(25)), node(ids(10), 0), node(ids(6), 1), node(ids(13), 1), node(ids(9), 0))
    return [*out, TokenTree(deep, row=3)]


def separate(model: Any, tree: TokenTree) -> torch.Tensor:
    """log p of every learned token under transformers, each path of the tree read alone."""
    out, above = [], []
    for node in tree.nodes:
        before = above[node.parent] if node.parent >= 0 else ()
        above.append(before + node.ids)
        if not any(node.trained):
            continue
        row = torch.tensor([above[-1]])
        logp = model(input_ids=row, use_cache=False).logits[0].float().log_softmax(-1)
        first = max(len(before), 1)
        places = torch.arange(first, row.shape[1])
        out.append(logp[places - 1, row[0, places]])
    return torch.cat(out)


def reference(folder: Path, kind: type, dtype: torch.dtype, attention: str = "eager") -> Any:
    """The model in `folder` as transformers computes it."""
    return kind.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()


def survey(folder: Path, dtype: torch.dtype = torch.float32) -> Finding:
    """The model in `folder`, loaded and held against transformers. Of refusals the whole sentence is kept."""
    try:
        model = load.load(folder, device=torch.device("cpu"), dtype=dtype).model
    except InputError as error:
        return Finding(refused=str(error))
    theirs = reference(folder, type(model), dtype)
    size = model.get_input_embeddings().weight.shape[0]
    rows = trees(min(size, 300))
    weights = [[(row + place) % 5 + 0.5 for place in range(tree.trained)] for row, tree in enumerate(rows)]
    batch = pack(rows, weights)
    model.requires_grad_(True)
    ours, alone = forward(model, batch).logp, torch.cat([separate(theirs, tree) for tree in rows])
    (ours * batch.weight).sum().backward()
    (alone * batch.weight).sum().backward()
    apart, same, of = _answers(model, theirs, size)
    return Finding(
        None,
        float((ours - alone).detach().abs().max()),
        float(alone.detach().std()),
        apart,
        same,
        of,
        _gradients(model, theirs),
    )


def _gradients(model: Any, theirs: Any) -> float:
    """|difference| over |gradient|, of all weights together."""
    own = {name: weight.grad for name, weight in model.named_parameters()}
    apart = whole = 0.0
    for name, weight in theirs.named_parameters():
        wanted = torch.zeros_like(weight) if weight.grad is None else weight.grad
        found = own[name]
        apart += float((wanted if found is None else found - wanted).double().square().sum())
        whole += float(wanted.double().square().sum())
    return float((apart / whole) ** 0.5)


@torch.no_grad()
def _answers(model: Any, theirs: Any, size: int) -> tuple[float, int, int]:
    """(largest difference of log p, tokens that are transformers' likeliest, tokens) of greedy answers to three prompts."""
    draw = random.Random(5)
    start = [draw.randrange(LOWEST, size) for _ in range(20)]
    prompts = [start + [draw.randrange(LOWEST, size) for _ in range(count)] for count in (3, 9, 1)]
    apart, same, of = [], 0, 0
    for prompt, answer in zip(
        prompts, generate(model, prompts, Sampling(max_new_tokens=14, temperature=0.0), lambda ids: ""), strict=True
    ):
        row = torch.tensor([[*prompt, *answer.ids]])
        logp = theirs(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        ids = torch.tensor(answer.ids)
        apart.append((logp.gather(1, ids[:, None])[:, 0] - torch.tensor(answer.logp)).abs().max())
        same += int((logp.argmax(-1) == ids).sum())
        of += len(ids)
    return float(torch.stack(apart).max()), same, of  # of a NaN it is NaN
