"""What a method sees of an example: a tree of token segments. Lists of ints until packing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.core.types.examples import Origin


@dataclass(frozen=True, slots=True)
class Node:
    """A segment of tokens that continues its parent. `parent` is the index of an earlier node, -1 for a root.

    `trained[i]` says whether token i is learned, that is, predicted from what precedes it.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    parent: int = -1


@dataclass(frozen=True, slots=True)
class TokenTree:
    """One example as tokens. Siblings never see each other; a child sees its ancestors whole.

    `row` numbers the example in its data set (for losses per example). `cut` counts dropped tokens.
    What methods need besides tokens, all without gradient:

    pairs, ties   (better, worse) leaves that are compared, by their place among the leaves; leaves that are equal
    columns       values of the whole example; the numbers among them reach the Batch
    leaf_columns  name -> one number per leaf, such as the reference's log-probability of each answer
    target_columns  name -> one number per trained token, such as advantages
    """

    nodes: tuple[Node, ...]
    row: int = 0
    origin: Origin = Origin()  # noqa: RUF009  it is frozen
    columns: Mapping[str, Any] = field(default_factory=dict)
    cut: int = 0
    pairs: tuple[tuple[int, int], ...] = ()
    ties: tuple[tuple[int, int], ...] = ()
    leaf_columns: Mapping[str, Sequence[float]] = field(default_factory=dict)
    target_columns: Mapping[str, Sequence[float]] = field(default_factory=dict)

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
