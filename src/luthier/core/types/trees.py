"""What a method sees of an example: a tree of token segments. Lists of ints until packing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from luthier.core.types.examples import Origin

Mask = Literal["causal", "full"]


@dataclass(frozen=True, slots=True)
class Node:
    """A segment of tokens that continues its parent. `parent` is the index of an earlier node, -1 for a root.

    trained    whether token i is learned: predicted from what precedes it, in a full node from its own state
    labels     what is predicted at each token, where that is not the token itself: the word under a mask, a teacher's choice
    mask       causal: a token sees what precedes it; full: the whole node too, as in an encoder. Ancestors are seen whole
               either way. A full node that learns has labels: what a token is, its own state knows.
    positions  [axes][tokens], where they are not the depth in the tree: three axes for M-RoPE (Qwen2-VL), or one
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    parent: int = -1
    labels: tuple[int, ...] | None = None
    mask: Mask = "causal"
    positions: tuple[tuple[int, ...], ...] | None = None

    @property
    def plain(self) -> bool:
        """Whether tokens say it all: causal, each its own label, at its depth."""
        return self.labels is None and self.positions is None and self.mask == "causal"

    @property
    def further(self) -> tuple[Any, ...]:
        """What a hash of a node takes in beside ids, `trained` and parent; nothing of a plain one."""
        return () if self.plain else (self.labels, self.mask, self.positions)

    def part(self, begin: int, end: int | None = None) -> Node:
        """Tokens begin..end, with what belongs to each."""
        here = slice(begin, end)
        return replace(
            self, ids=self.ids[here], trained=self.trained[here], labels=None if self.labels is None else self.labels[here],
            positions=None if self.positions is None else tuple(axis[here] for axis in self.positions),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or a sound, for which tokens begin..end of a node stand.

    `digest` says which one it is: trees share a beginning only where theirs are the same. `values` is what a model's tower
    reads of it. In a Batch, `node` is the packed node and begin..end count the tokens of the row.
    """

    kind: Literal["picture", "sound"]
    digest: str
    node: int
    begin: int
    end: int
    values: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenTree:
    """One example as tokens. Siblings never see each other; a child sees its ancestors whole.

    `row` numbers the example in its data set (for losses per example). `cut` counts dropped tokens.
    What methods need besides tokens, all without gradient:

    pairs, ties   (better, worse) leaves that are compared, by their place among the leaves; leaves that are equal
    columns       values of the whole example; the numbers and arrays among them reach the Batch
    leaf_columns  name -> one value per leaf, such as the reference's log-probability of each answer
    target_columns  name -> one value per trained token, such as advantages, or the k likeliest tokens of a teacher
    media         pictures and sounds that some of its tokens stand for

    A value is a number, or an array of any shape (NumPy's, or lists of numbers), the same for all.
    """

    nodes: tuple[Node, ...]
    row: int = 0
    origin: Origin = Origin()  # noqa: RUF009  it is frozen
    columns: Mapping[str, Any] = field(default_factory=dict)
    cut: int = 0
    pairs: tuple[tuple[int, int], ...] = ()
    ties: tuple[tuple[int, int], ...] = ()
    leaf_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    target_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    media: tuple[Media, ...] = ()

    def __len__(self) -> int:
        return sum(len(node.ids) for node in self.nodes)

    @property
    def leaves(self) -> tuple[int, ...]:
        """The nodes without a child, in order: the answers, where the tree has a prompt."""
        parents = {node.parent for node in self.nodes}
        return tuple(index for index in range(len(self.nodes)) if index not in parents)

    @property
    def trained(self) -> int:
        """How many tokens of the tree are learned."""
        return sum(sum(node.trained) for node in self.nodes)
