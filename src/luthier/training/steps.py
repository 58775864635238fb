"""Offline step source: which examples make up optimizer step i, packed and weighed.

Step i is a function of (seed, i) alone: nothing is carried along, so the cursor of a run is its step
number, and a resumed run cannot take another order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from luthier.core import seeds
from luthier.core.errors import InputError
from luthier.core.types.batch import Batch, Step
from luthier.core.types.trees import TokenTree
from luthier.data.mix import turns
from luthier.text.arrange import arrange
from luthier.text.loss_weights import Rule, learned_flags
from luthier.text.pack import pack


@dataclass(frozen=True)
class Packing:
    """How a step becomes micro-batches: tokens per forward pass, row lengths padded to a multiple of `pad_to`."""

    tokens: int
    pad_to: int = 1


def make_step(trees: Sequence[TokenTree], rule: Rule, packing: Packing) -> Step:
    """Pack `trees` into micro-batches whose weights together are normalised once over all of them."""
    weights = rule(trees)
    compared = sum(bool(tree.pairs) for tree in trees) or len(trees)
    micro = [
        pack(
            [trees[i] for i in members], [weights[i] for i in members],
            tree_weight=1 / compared, pad_to=packing.pad_to,
        )
        for members in arrange(trees, packing.tokens)
    ]  # fmt: skip
    return Step(
        micro=tuple(micro),
        tokens=sum(len(tree) for tree in trees),
        examples=len(trees),
        auxiliary=_auxiliary(trees, packing),
    )


def scoring_step(trees: Sequence[TokenTree], packing: Packing) -> Step:
    """All `trees` as one step that is only measured."""
    micro = tuple(scoring_batches(trees, packing))
    return Step(micro, sum(len(tree) for tree in trees), len(trees), _auxiliary(trees, packing))


def _auxiliary(trees: Sequence[TokenTree], packing: Packing) -> tuple[Batch, ...]:
    others = [tree.columns["other"] for tree in trees if "other" in tree.columns]
    return tuple(scoring_batches(others, packing))


@dataclass(frozen=True)
class OfflineSteps:
    """Steps over encoded examples in memory: epochs end to end, each in an order of its own.

    `total` examples are seen in all (epochs x examples, which need not be whole); the last step may be
    smaller than `batch`. The last `replay` of the trees are general rows: they make up `share` of the examples, to
    within one in every stretch, and the others come in the order they would have without them.
    """

    trees: Sequence[TokenTree]
    batch: int
    total: int
    rule: Rule
    packing: Packing
    seed: int
    replay: int = 0
    share: float = 0.0

    def __len__(self) -> int:
        return -(-self.total // self.batch)

    def step(self, index: int) -> Step:
        """Optimizer step `index`, from 0."""
        chosen = self.examples_at(index * self.batch, min(self.total, (index + 1) * self.batch))
        return make_step([self.trees[i] for i in chosen], self.rule, self.packing)

    def used(self) -> list[int]:
        """The trees that any step takes, by index."""
        if self.total >= len(self.trees) and not self.replay:
            return list(range(len(self.trees)))
        return sorted(set(self.examples_at(0, self.total)))

    def state(self, step: int) -> dict[str, Any]:
        """Nothing: a step is a function of seed and index."""
        return {}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Nothing to do."""

    def confirm(self, saved: Mapping[str, Any]) -> None:
        """Nothing to do: the lineage has the hashes of its files."""

    def examples_at(self, start: int, stop: int) -> list[int]:
        """The trees at places start..stop, by index."""
        own = len(self.trees) - self.replay
        if not self.replay:
            return chosen_places(self.seed, "order", own, start, stop)
        out = []
        for source, turn in islice(turns((1 - self.share, self.share), self.seed, start), stop - start):
            name, count, first = ("replay", self.replay, own) if source else ("order", own, 0)
            out.append(first + chosen_places(self.seed, name, count, turn, turn + 1)[0])
        return out


def chosen_places(seed: int, name: str, count: int, start: int, stop: int) -> list[int]:
    """Which of `count` items stand at places start..stop of epochs laid end to end, each in an order of its own."""
    return [int(_order(seed, name, place // count, count)[place % count]) for place in range(start, stop)]


@lru_cache(maxsize=4)
def _order(seed: int, name: str, epoch: int, count: int) -> np.ndarray:
    return seeds.generator(seed, name, epoch).permutation(count)


@dataclass
class StreamSteps:
    """Steps over a stream, in its own order, for data larger than memory or of unknown length.

    `read()` yields encoded examples from the first on. Steps must be asked for in order; to go on from the
    middle, what comes before is read again and passed over: it must be what was learned from, whose hash a checkpoint
    keeps. A stream that ends starts again, and reads what was added to its file meanwhile; with `once` it is over.
    """

    read: Callable[[], Iterator[TokenTree]]
    batch: int
    total: int
    rule: Rule
    packing: Packing
    once: bool = False

    def __post_init__(self) -> None:
        self._next = -1
        self._trees: Iterator[TokenTree] = iter(())
        self._marks = {0: ""}  # of the steps before the one at hand, and with it
        self._expected: tuple[int, str] | None = None

    def __len__(self) -> int:
        return -(-self.total // self.batch)

    def step(self, index: int) -> Step | None:
        """Optimizer step `index`; None when the stream is over."""
        if index != self._next:
            self.reach(index)
        self._next = index + 1
        trees = self._take(index)
        return make_step(trees, self.rule, self.packing) if trees else None

    def reach(self, index: int) -> None:
        """Pass over what comes before step `index`. Raises InputError when it is not what was learned from."""
        self._trees, self._marks = self._endless(), {0: ""}
        for passed in range(index):
            self._take(passed)
        if self._expected and self._expected[0] == index and self._expected[1] != self._marks[index]:
            raise InputError(
                f"the first {index * self.batch} examples are not those that this run learned from, so it cannot resume exactly",
                where="--data.stream", fix="give the same rows first, in the same order, or another --out to start over",
            )  # fmt: skip

    def state(self, step: int) -> dict[str, Any]:
        """`stream`: (step, hash of all examples of the steps before it), of the step at hand, or the next one. What is expected
        there stays so, whatever was read instead; nothing where nothing is known, as of a checkpoint without it."""
        if self._expected and self._expected[0] == step:
            return {"stream": self._expected}
        return {"stream": (step, self._marks[step])} if step in self._marks else {}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Refuse to go on with other rows than those that an earlier start learned from."""
        if "stream" in saved:
            step, digest = saved["stream"]
            self._expected = (step, digest)

    def confirm(self, saved: Mapping[str, Any]) -> None:
        """Read again what was learned from: a file may grow, so no hash of it is kept. Raises InputError where it differs."""
        self.load(saved)
        if self._expected:
            self.reach(self._expected[0])

    def _take(self, index: int) -> list[TokenTree]:
        trees = list(islice(self._trees, min(self.batch, self.total - index * self.batch)))
        digest = hashlib.sha256(self._marks[index].encode())
        for tree in trees:
            for node in tree.nodes:
                digest.update(np.array(node.ids, dtype=np.int64).tobytes() + bytes(node.trained))
                if not node.plain:
                    digest.update(repr(node.further).encode())
        self._marks = {index: self._marks[index], index + 1: digest.hexdigest()}
        return trees

    def _endless(self) -> Iterator[TokenTree]:
        """Pass after pass over the stream."""
        while True:
            empty = True
            for tree in self.read():
                empty = False
                yield tree
            if self.once:
                return
            assert not empty, "a stream is never empty: it was looked at before"


def scoring_batches(trees: Sequence[TokenTree], packing: Packing) -> Iterator[Batch]:
    """Batches for measuring loss: weight 1 on every target that is learned, longest first so that packs are even."""
    order = sorted(range(len(trees)), key=lambda i: (-len(trees[i]), i))
    ones = [[float(flag) for flag in learned_flags(tree)] for tree in trees]
    at = 0
    while at < len(order):
        chunk, size = [order[at]], len(trees[order[at]])
        while at + len(chunk) < len(order) and size + len(trees[order[at + len(chunk)]]) <= packing.tokens:
            chunk.append(order[at + len(chunk)])
            size += len(trees[chunk[-1]])
        at += len(chunk)
        chunk.sort(key=lambda i: (trees[i].nodes[0].ids, i))  # what begins alike stands together
        yield pack([trees[i] for i in chunk], [ones[i] for i in chunk], pad_to=packing.pad_to)
