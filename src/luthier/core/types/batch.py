"""Trees packed into one row, what a forward pass makes of them, and a loss.

Shape legend: T tokens of a packed row, N nodes, M targets (predicted tokens), L leaves, S trees, H hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from luthier.core.types.trees import Mask, Media

Pool = Literal["last", "mean", "first"]

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """Many trees packed end to end into one row of T tokens, nodes in depth-first order.

    tokens       [T] int64    token ids; padding, if any, is a node of its own at the tail
    positions    [T] or [axes, T] int64   what rotary embeddings see: depth in the tree, unless a node has its own
    node_start   N+1 ints     where each node begins; the last entry is T
    node_parent  N ints       index of the parent node, -1 for a root
    node_mask    N kinds      how node n sees itself: causally, or whole; () where all are causal. Its ancestors it sees
                              whole: that is the entire attention mask.
    source       [M] int64    index of the token whose hidden state predicts
    label        [M] int64    id that is predicted: of a causal node, unless it says otherwise, the token after the source
    weight       [M] float32  normalised over the whole optimizer step, over all ranks
    tree         [M] int64    which tree of this batch a target belongs to (0..S-1)
    leaf         [M] int64    which leaf of this batch it belongs to (0..L-1), -1 for the targets of a shared prompt
    leaf_tree    [L] int64    the tree of each leaf
    leaf_end     [L] int64    index of the last trained token of each leaf (its last token, when none is): where
                              an answer is scored
    pairs        [P, 2] int64 (better, worse) leaves that are compared
    ties         [Q, 2] int64 leaves that were judged equal
    tree_weight  [S] float32  1 / (trees of the optimizer step, over all ranks; those with pairs, when some have)
    rows         S ints       the data-set row of each tree
    columns                   name -> values per tree [S, ...], per leaf [L, ...] or per target [M, ...], as the trees have
                              them: numbers as float32; of arrays whole numbers as int64, others as float32
    media                     pictures and sounds, each once where trees share it
    real                      tokens that are not padding, shared prefixes counted once
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    node_start: tuple[int, ...]
    node_parent: tuple[int, ...]
    source: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor
    tree: torch.Tensor
    leaf: torch.Tensor
    leaf_tree: torch.Tensor
    leaf_end: torch.Tensor
    pairs: torch.Tensor
    ties: torch.Tensor
    tree_weight: torch.Tensor
    rows: tuple[int, ...]
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)
    real: int = 0
    node_mask: tuple[Mask, ...] = ()
    media: tuple[Media, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        from dataclasses import replace

        moved = {name: value.to(device) for name, value in vars(self).items() if hasattr(value, "to")}
        return replace(self, **moved, columns={k: v.to(device) for k, v in self.columns.items()})


@dataclass(frozen=True)
class Step:
    """The micro-batches of one optimizer step, and what they stand for.

    `tokens` counts the tokens of the examples themselves (a shared prefix once per example). `auxiliary` are batches
    that are only read: what a method compares the step with. `metrics` is what is known of it before it is taken.
    """

    micro: tuple[Batch, ...]
    tokens: int
    examples: int
    auxiliary: tuple[Batch, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """What a method wants of the forward pass, beside or instead of log-probabilities.

    logp       log p of every target              entropy    of the distribution at every target, without gradient
    score      so many numbers per leaf           value      one number per target, of the state before it
    embed      a vector per leaf, and how it is drawn from the states of its text (see `model/layers/pooling.py`)
    balance    a number per leaf: how unevenly its text was spread over the experts   load   of a mixture: what each expert was given
    temperature  what logits are divided by before they become probabilities: 1 for the model itself
    """

    logp: bool = True
    entropy: bool = False
    score: int = 0
    value: bool = False
    embed: Pool | None = None
    balance: bool = False
    load: bool = False
    temperature: float = 1.0


LOGP = Needs()  # what most methods need


@dataclass(frozen=True)
class Output:
    """What the model says of a batch, in float32: what `Needs` asked for, None for the rest.

    logp     [M]  log p(target m | its ancestors)
    entropy  [M]  of the distribution target m was drawn from, in nats
    score    [L, K]  the score head's numbers for each leaf, at its last trained token
    value    [M]  the value head's number for the state before each target
    embed    [L, H]  the hidden states of each leaf's text as one vector, of whatever length
    balance  [L]  the load-balancing loss of each leaf's text
    load     [layers, E] int64  how many choices of tokens each expert got
    """

    logp: torch.Tensor
    entropy: torch.Tensor | None = None
    score: torch.Tensor | None = None
    value: torch.Tensor | None = None
    embed: torch.Tensor | None = None
    balance: torch.Tensor | None = None
    load: torch.Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """`total` is a weighted SUM, never a mean: weights were normalised before.

    each     [S]  the unweighted loss of each tree, summed over its `count` units (tokens, or 1), detached
    items    name -> [S] one number per tree, whose plain mean is reported, with an interval on held-out rows; nan where a
             tree has none
    metrics  name -> (sum, weight), for what belongs to no single tree
    """

    total: torch.Tensor
    each: torch.Tensor
    count: torch.Tensor
    items: Mapping[str, torch.Tensor] = field(default_factory=dict)
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
