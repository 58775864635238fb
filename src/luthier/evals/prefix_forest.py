"""Token sequences -> one tree in which every beginning that some of them share stands once.

    few-shot Q1 A    few-shot Q1 B    few-shot Q2 A    few-shot Q2 B
    [few-shot] -> [Q1] -> [A]
                       -> [B]
               -> [Q2] -> [A]
                       -> [B]

It is the radix tree of the sequences, with no node shorter than MIN_SHARED but at its leaves. Sequences that
are equal, or the beginning of another, cost nothing: the four one-letter choices of a question are four
targets of the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from luthier.core.types.trees import Node, TokenTree
from luthier.text.arrange import MIN_SHARED, shared

PREFIX_MULTIPLE = 64  # a beginning is remembered from one load to the next in multiples of so many tokens

Ids = tuple[int, ...]


@dataclass
class Forest:
    """The tree, nodes in depth-first order; `paths[i]` is how sequence i runs through it: (depth, place) of the
    first token of each of its nodes, place counting the tokens of the tree in that order."""

    nodes: list[Node] = field(default_factory=list)
    paths: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    tokens: int = 0

    @property
    def tree(self) -> TokenTree:
        """The nodes as one tree, which may have several roots; nothing in it is trained."""
        return TokenTree(tuple(self.nodes))

    def places(self, index: int, start: int, stop: int) -> list[int]:
        """Where tokens start..stop-1 of sequence `index` stand."""
        path, out = self.paths[index], list[int]()
        ends = [depth for depth, _ in path[1:]] + [stop]
        for (depth, place), end in zip(path, ends, strict=True):
            out += range(place + max(start, depth) - depth, place + min(end, stop) - depth)
        return out


def grow(sequences: Sequence[Ids], members: Sequence[int]) -> Forest:
    """The forest of those `sequences` that `members` names. None may be empty."""
    forest = Forest()
    _branch(forest, sequences, sorted(members, key=sequences.__getitem__), -1, ())
    return forest


@dataclass(frozen=True)
class PrefixBatch:
    """Sequences that are computed together. They all begin with the `known` tokens that were kept of the load before,
    and the first `keep` of their own are worth keeping for the next."""

    members: list[int]
    known: int
    keep: int


def prefix_batches(sequences: Sequence[Ids], free: Sequence[int], tokens: int, kept: Ids = ()) -> Iterator[PrefixBatch]:
    """Cut the sequences, in the order of their ids, into loads of at most `tokens` new tokens, but for the few at each
    branch that are not worth sharing.

    Of sequence i the first `free[i]` tokens need not be computed when they are known. `kept` is what is known before
    the first load. A sequence that is longer than `tokens` is alone with what it costs nothing to add.
    """
    members: list[int] = []
    known = size = 0
    for index in sorted(range(len(sequences)), key=sequences.__getitem__):
        ids = sequences[index]
        if members:
            new = len(ids) - shared(sequences[members[-1]], ids)
            if _usable(kept, ids, free[index]) >= known and (not new or size + new <= tokens):
                members.append(index)
                size += new
                continue
            common = _common(sequences, members)
            yield PrefixBatch(members, known, _worth(shared(common, ids)))
            kept = common[: _worth(shared(common, ids))]
        members, known = [index], _usable(kept, ids, free[index])
        size = len(ids) - known
    if members:
        yield PrefixBatch(members, known, _worth(len(_common(sequences, members))) if known else 0)


def _usable(kept: Ids, ids: Ids, free: int) -> int:
    return _worth(min(shared(kept, ids), free))


def _worth(length: int) -> int:
    """What is remembered of so many tokens: whole KEPTs, so that the rows that are computed keep their usual lengths."""
    return length // PREFIX_MULTIPLE * PREFIX_MULTIPLE


def _common(sequences: Sequence[Ids], members: Sequence[int]) -> Ids:
    """What all of these, which are in order, begin with."""
    first, last = sequences[members[0]], sequences[members[-1]]
    return first[: shared(first, last)]


def _branch(
    forest: Forest, sequences: Sequence[Ids], members: Sequence[int], parent: int, path: tuple[tuple[int, int], ...],
    depth: int = 0,
) -> None:  # fmt: skip
    """Add the subtree of `members` (sorted), which share the first `depth` tokens: those are in the tree."""
    first, last = sequences[members[0]], sequences[members[-1]]
    until = shared(first, last, depth)
    if until - depth >= MIN_SHARED or until == len(last):
        path += ((depth, forest.tokens),)
        ids = first[depth:until]
        forest.nodes.append(Node(ids, (False,) * len(ids), parent))
        forest.tokens += len(ids)
        parent, depth = len(forest.nodes) - 1, until
        for index in members:
            if len(sequences[index]) == until:
                forest.paths[index] = path
        members = [index for index in members if len(sequences[index]) > until]
    for _, group in groupby(members, key=lambda index: sequences[index][until : until + 1]):
        _branch(forest, sequences, list(group), parent, path, depth)
