"""Which trees stand together in a packed row, and what they begin with, which stands once: the nodes of a common system prompt,
below it of a common instruction, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from luthier.core.types.trees import TokenTree

MIN_SHARED = 4  # a shorter beginning saves less than the extra node costs


@dataclass(frozen=True)
class Shared:
    """Tokens begin..end of the roots of some neighbouring trees, which stand once: a node below `parent` (-1: none)."""

    begin: int
    end: int
    parent: int


def shared(a: Sequence[int], b: Sequence[int], start: int = 0) -> int:
    """How many tokens `a` and `b` begin with in common; the first `start` are known to be."""
    shortest = min(len(a), len(b))
    step = 64  # slices compare much faster than tokens one by one
    while start < shortest and a[start : start + step] == b[start : start + step]:
        start += step
    start = min(start, shortest)
    while start < shortest and a[start] == b[start]:
        start += 1
    return start


def shared_tokens(trees: Sequence[TokenTree]) -> list[int]:
    """How many leading tokens each tree has in common with the next one, none of them trained in either.

    What a full node begins with sees what it ends with, so it is not shared.
    """
    roots = [tree.nodes[0] for tree in trees]
    heads = [root.ids[: root.trained.index(True)] if True in root.trained else root.ids for root in roots]
    common = [shared(one, other) for one, other in pairwise(heads)]
    if all(root.plain for root in roots) and not any(tree.media for tree in trees):
        return common
    return [_alike(one, other, count) for (one, other), count in zip(pairwise(trees), common, strict=True)]


def _alike(one: TokenTree, other: TokenTree, count: int) -> int:
    """How many of the `count` tokens that both begin with are causal, at the same positions, and stand for the same media."""
    roots = one.nodes[0], other.nodes[0]
    if "full" in (roots[0].mask, roots[1].mask):
        return 0
    if (roots[0].positions is None) != (roots[1].positions is None):
        return 0
    for axis, beside in zip(roots[0].positions or (), roots[1].positions or (), strict=True):
        count = min(count, shared(axis, beside))
    for media in sorted({*one.media, *other.media}, key=lambda media: media.begin):
        both = media in one.media and media in other.media
        if media.node == 0 and media.begin < count and not (both and media.end <= count):
            return media.begin
    return count


def shared_nodes(common: Sequence[int]) -> tuple[list[Shared], list[int]]:
    """What neighbouring trees share, given `shared_tokens`: the nodes in depth-first order, and which of them each tree
    hangs below (-1: none).

    A node is at least MIN_SHARED tokens long, and at least two trees hang below it.
    """
    nodes: list[Shared] = []
    below = [-1] * (len(common) + 1)

    # Trees first..last begin with the `begin` tokens that `parent` ends with. No recursion: each row of a long transcript may be a level.
    branches = [(0, len(common), 0, -1)]
    while branches:
        first, last, begin, parent = branches.pop()
        if first == last:
            below[first] = parent
            continue
        end = min(common[first:last])
        if end - begin >= MIN_SHARED:
            nodes.append(Shared(begin, end, parent))
            begin, parent = end, len(nodes) - 1
        parted = [i for i in range(first, last) if common[i] == end]
        parts = [(before + 1, until, begin, parent) for before, until in pairwise([first - 1, *parted, last])]
        branches += reversed(parts)  # the first of them is next
    return nodes, below


def arrange(trees: Sequence[TokenTree], capacity: int) -> list[list[int]]:
    """Which trees are computed together, in rows of at most `capacity` tokens, and in which order, by index.

    Those that begin alike stand side by side; where that saves nothing, trees keep their order. Of two ways the one that
    computes fewer tokens: bins of any trees, and runs of the sorted ones, which keep a beginning together. A row may
    exceed `capacity` by the few tokens at each branch that are not worth sharing; a tree that is longer is alone.
    """
    order = sorted(range(len(trees)), key=lambda i: (trees[i].nodes[0].ids, i))
    sizes = [len(trees[i]) for i in order]
    common = shared_tokens([trees[i] for i in order])
    prefix = min(common, default=0)
    mixed = bins([size - prefix for size in sizes], max(1, capacity - prefix))

    def cost(row: Sequence[int]) -> int:
        return _cost([trees[i] for i in row])

    ways = [[[order[i] for i in row] for row in way] for way in (mixed, _runs(sizes, common, capacity))]
    best = min(ways, key=lambda rows: sum(map(cost, rows)))
    return [min(sorted(row), row, key=cost) for row in best]


def _cost(trees: Sequence[TokenTree]) -> int:
    """Tokens that a row of these trees computes."""
    nodes, below = shared_nodes(shared_tokens(trees))
    return (
        sum(len(tree) for tree in trees)
        - sum(nodes[n].end for n in below if n >= 0)
        + sum(n.end - n.begin for n in nodes)
    )


def _runs(sizes: Sequence[int], common: Sequence[int], capacity: int) -> list[list[int]]:
    """Cut a sequence into as few runs of at most `capacity` as go, then evened out: the smallest capacity gives as many."""
    runs = _cut(sizes, common, capacity)
    low, high = 1, capacity
    while low < high:
        middle = (low + high) // 2
        found = _cut(sizes, common, middle)
        low, high = (low, middle) if len(found) == len(runs) else (middle + 1, high)
    return _cut(sizes, common, low)


def _cut(sizes: Sequence[int], common: Sequence[int], capacity: int) -> list[list[int]]:
    runs: list[list[int]] = []
    load = 0
    for i, size in enumerate(sizes):
        more = size - common[i - 1] if i else size
        if runs and load + more <= capacity:
            runs[-1].append(i)
            load += more
        else:
            runs.append([i])
            load = size
    return runs


def bins(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `sizes` in as few bins of `capacity` as first-fit decreasing finds, bins then evened out.

    An item larger than the capacity gets a bin of its own. Deterministic; order within a bin is by index.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    loads: list[int] = []
    for i in order:
        slot = next((b for b, load in enumerate(loads) if load + sizes[i] <= capacity), None)
        if slot is None:
            loads.append(sizes[i])
        else:
            loads[slot] += sizes[i]
    # Same number of bins, each item to the lightest: equal sizes keep the processor equally busy.
    even: list[list[int]] = [[] for _ in loads]
    loads = [0] * len(even)
    for i in order:
        slot = min(range(len(even)), key=lambda b: (loads[b], b))
        if loads[slot] and loads[slot] + sizes[i] > capacity:
            return _first_fit(sizes, order, capacity)
        even[slot].append(i)
        loads[slot] += sizes[i]
    return [sorted(b) for b in even]


def _first_fit(sizes: Sequence[int], order: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing as it stands, for the rare sizes that do not even out."""
    out: list[list[int]] = []
    loads: list[int] = []
    for i in order:
        slot = next((b for b, load in enumerate(loads) if load + sizes[i] <= capacity), None)
        if slot is None:
            out.append([i])
            loads.append(sizes[i])
        else:
            out[slot].append(i)
            loads[slot] += sizes[i]
    return [sorted(b) for b in out]
