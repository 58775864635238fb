"""Example -> TokenTree: which text, which tokens, which of them are learned.

Each segment (`spans`) is tokenized on its own, so that generation starts from exactly the ids of training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from luthier.config.data import TextConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import Example, Labelled, Message, Origin, Preference, Prompt, Ranking, Text
from luthier.core.types.trees import Node, TokenTree
from luthier.text.built_in_templates import Tools
from luthier.text.drafts import Branch, Draft, draft_later, with_system
from luthier.text.spans import prompt_spans
from luthier.text.template import NO_VALUES, Template
from luthier.text.tokenizer import SEPARATOR, SegmentIds, Tokenizer, ids_of, tokenize_rows

CHUNK = 2048

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that gives no tree, and why."""

    origin: Origin
    row: int
    reason: str


@dataclass(frozen=True)
class Encoded:
    """Trees in the order of their rows, and what was lost on the way.

    cut         rows that lost tokens at their end to the length limit
    cut_tokens  how many tokens they lost
    unended     of the rows cut, those whose answer lost its stop token: they do not teach where to end
    quoted      rows whose data spells out a control token; it was read as plain text
    unwritten   what rows say and their text does not, in words that follow on 'the template': how many rows
    """

    trees: list[TokenTree]
    dropped: list[Dropped]
    cut: int = 0
    cut_tokens: int = 0
    unended: int = 0
    quoted: int = 0
    unwritten: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Drafts:
    """A chunk of rows before tokenization. `pieces` are all their segments, each with the text before it."""

    drafts: list[Draft]
    dropped: list[Dropped]
    pieces: list[tuple[str, str]]

    @property
    def sizes(self) -> list[int]:
        """How many segments each row has."""
        return [sum(len(branch.segments) for branch in draft.branches) for draft in self.drafts]


def encode(
    examples: Sequence[Example],
    template: Template,
    tokenizer: Tokenizer,
    settings: TextConfig,
    first_row: int = 0,
    *,
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Encoded:
    """The trees of `examples`, their rows numbered from `first_row`.

    A document gives a tree for every `max_length` tokens, an example of another kind one tree or none. Rows
    that teach nothing are dropped and counted. Raises InputError, with the row's place, when a row and the
    template do not fit (see `spans`), when BOS occurs twice, and when no row is left; with `skip_bad`, a row
    that does not fit is dropped instead. `progress` gets the number of rows that were done.
    """

    def submit() -> Iterator[tuple[_Drafts, Future[list[SegmentIds]]]]:
        for start in range(0, len(examples), CHUNK):
            drafts = _render(examples[start : start + CHUNK], first_row + start, template, settings, skip_bad)
            yield drafts, tokenizing.submit(tokenize_rows, drafts.pieces, drafts.sizes, tokenizer)

    parts = []
    with ThreadPoolExecutor(1) as tokenizing:
        for drafts, ids in _look_ahead(submit()):
            parts.append(_assemble(drafts, ids.result(), template, settings, skip_bad))
            if progress:
                progress(len(drafts.drafts) + len(drafts.dropped))
    cut, cut_tokens, unended, quoted = (
        sum(getattr(part, name) for part in parts) for name in ("cut", "cut_tokens", "unended", "quoted")
    )
    whole = Encoded(
        [tree for part in parts for tree in part.trees],
        [row for part in parts for row in part.dropped],
        cut, cut_tokens, unended, quoted, sum((part.unwritten for part in parts), Counter()),
    )  # fmt: skip
    refuse_nothing_left(whole)
    return whole


def encode_chunk(
    examples: Sequence[Example],
    template: Template,
    tokenizer: Tokenizer,
    settings: TextConfig,
    first_row: int = 0,
    *,
    skip_bad: bool = False,
) -> Encoded:
    """`encode` for one part of a stream: all its text is tokenized at once, and nothing may be left of it."""
    drafts = _render(examples, first_row, template, settings, skip_bad)
    return _assemble(drafts, tokenize_rows(drafts.pieces, drafts.sizes, tokenizer), template, settings, skip_bad)


def encode_prompt_ids(
    messages: Sequence[Message], tools: Tools, template: Template, tokenizer: Tokenizer, *,
    system: str | None = None, kwargs: Mapping[str, Any] = NO_VALUES,
) -> list[int]:  # fmt: skip
    """The ids from which the model answers `messages`: those that stood before the answer in training. `kwargs` are
    values for the template.

    Raises InputError when the template refuses the messages or BOS occurs twice.
    """
    segments = prompt_spans(with_system(tuple(messages), system), tools, template, kwargs)
    befores = ["", *(segment.text for segment in segments)]
    pieces = list(zip(befores, (segment.text for segment in segments), strict=False))
    ids = [index for piece in tokenizer.encode_pieces(pieces) for index in piece]
    _refuse_two_starts(ids, tokenizer)
    return ids


def refuse_nothing_left(encoded: Encoded) -> None:
    """Raises InputError when rows were read and every one was dropped."""
    if encoded.trees or not encoded.dropped:
        return
    ((reason, count),) = Counter(row.reason for row in encoded.dropped).most_common(1)
    raise InputError(
        f"none of {len(encoded.dropped)} rows is left to learn from; {count} of them: {reason}",
        where=encoded.dropped[0].origin,
        fix="look at a row with `luthier show`, or raise --text.max_length",
    )


def _render(
    examples: Sequence[Example], first_row: int, template: Template, settings: TextConfig, skip_bad: bool
) -> _Drafts:
    drafts: list[Draft] = []
    dropped: list[Dropped] = []
    later = [draft_later(example, row, template, settings) for row, example in enumerate(examples, first_row)]
    for row, (example, draft) in enumerate(zip(examples, later, strict=True), first_row):
        with _naming_row(example, row, dropped, skip_bad):
            drafts.append(draft())
    pieces = []
    for drafted in drafts:
        last: list[str] = []
        for branch in drafted.branches:
            before = last[branch.parent] if branch.parent >= 0 else ""
            for segment in branch.segments:
                pieces.append((before, segment.text))
                before = segment.text
            last.append(before)
    return _Drafts(drafts, dropped, pieces)


def _assemble(
    drafts: _Drafts, pieces: Sequence[SegmentIds], template: Template, settings: TextConfig, skip_bad: bool
) -> Encoded:
    trees: list[TokenTree] = []
    dropped = list(drafts.dropped)
    left = iter(pieces)
    for draft in drafts.drafts:
        found = [[next(left) for _ in branch.segments] for branch in draft.branches]
        with _naming_row(draft.example, draft.row, dropped, skip_bad):
            grown = _grow(draft, list(map(ids_of, found)), template, settings)
            if isinstance(grown, str):
                dropped.append(Dropped(draft.example.origin, draft.row, grown))
            else:
                trees += grown
    return Encoded(
        trees,
        sorted(dropped, key=lambda row: row.row),
        cut=sum(tree.cut > 0 for tree in trees),
        cut_tokens=sum(tree.cut for tree in trees),
        unended=sum(tree.cut > 0 and not _ends(tree, template) for tree in trees),
        quoted=sum(any(SEPARATOR in s.text for b in draft.branches for s in b.segments) for draft in drafts.drafts),
        unwritten=Counter(what for draft in drafts.drafts for what in draft.unwritten),
    )


def _grow(
    draft: Draft, ids: Sequence[Sequence[list[int]]], template: Template, settings: TextConfig
) -> list[TokenTree] | str:
    """The draft's tree or trees, or the reason why there are none.

    Raises InputError for faults that no length limit excuses: BOS twice, an answer whose stop token is missing.
    """
    example, limit = draft.example, settings.max_length
    nodes = [_node(branch, pieces, template) for branch, pieces in zip(draft.branches, ids, strict=True)]
    _refuse_two_starts([index for node in nodes[:2] for index in node.ids[:2]], template.tokenizer)
    if isinstance(example, Text):
        return [TokenTree((node,), draft.row, example.origin) for node in _cut_document(nodes[0], limit)] or "no text"
    leaves = TokenTree(tuple(nodes)).leaves
    if not isinstance(example, Prompt) and not all(any(nodes[leaf].trained) for leaf in leaves):
        return "no token is trained: it has no turn to learn"
    short, lost = _cut(nodes, limit)
    if lost and (settings.too_long == "drop" or isinstance(example, Prompt)):
        return f"longer than {limit} tokens"
    if lost and not all(any(short[leaf].trained) for leaf in leaves):
        return f"no token to be trained within {limit} tokens"
    tree = TokenTree(tuple(short), draft.row, example.origin, draft.columns, cut=lost)
    if isinstance(example, (Preference, Ranking)):
        return _compared(tree, example, template, f" within {limit} tokens" if lost else "")
    if isinstance(example, Labelled) and _empty(short[-1], template):
        return "the answer is empty"
    return [tree]


def _compared(tree: TokenTree, example: Preference | Ranking, template: Template, within: str) -> list[TokenTree] | str:
    """The tree with its answers' pairs and ties, or the reason why they cannot be compared."""
    answers = [tree.nodes[leaf] for leaf in tree.leaves]
    if any(_empty(answer, template) for answer in answers):
        return "an answer is empty"
    if isinstance(example, Preference):
        if answers[0].ids == answers[1].ids:
            return "the two answers are equal" + within
        return [replace(tree, pairs=((0, 1),), leaf_columns={"rank": (1.0, 2.0)})]
    every = [(i, j) for i in range(len(answers)) for j in range(len(answers)) if i != j]
    rank = example.ranks
    pairs = [(i, j) for i, j in example.pairs or every if example.pairs or rank[i] < rank[j]]
    pairs = [(i, j) for i, j in pairs if answers[i].ids != answers[j].ids]
    ties = [] if example.pairs else [(i, j) for i, j in every if i < j and rank[i] == rank[j]]
    if not pairs:
        return "no answer is ranked above another" + within
    return [replace(tree, pairs=tuple(pairs), ties=tuple(ties), leaf_columns={"rank": tuple(map(float, rank))})]


def _empty(answer: Node, template: Template) -> bool:
    """Whether nothing but the stop token is to be learned of an answer."""
    return all(token in template.stop_ids for token, trained in zip(answer.ids, answer.trained, strict=True) if trained)


def _node(branch: Branch, pieces: Sequence[list[int]], template: Template) -> Node:
    ids: list[int] = []
    trained: list[bool] = []
    for segment, piece in zip(branch.segments, pieces, strict=True):
        if segment.answer and segment.trained and piece[-1:] and piece[-1] not in template.stop_ids:
            raise InputError(
                f"the stop token is not trained: the answer ends in {segment.text[-20:]!r}",
                fix="write the EOS token after assistant turns in the template",
            )
        ids += piece
        trained += [segment.trained] * len(piece)
    if branch.parent < 0 and trained:
        trained[0] = False  # nothing stands before it that could predict it
    return Node(tuple(ids), tuple(trained), branch.parent)


def _cut(nodes: Sequence[Node], limit: int) -> tuple[list[Node], int]:
    """The nodes without what lies deeper than `limit` tokens, and how many tokens are lost by it.

    Untrained tokens after the last trained one of a leaf, such as a final newline, teach nothing: they are not
    counted as lost.
    """
    leaves, ends, out, lost = TokenTree(tuple(nodes)).leaves, [0] * len(nodes), [], 0
    for index, node in enumerate(nodes):
        start = ends[node.parent] if node.parent >= 0 else 0
        ends[index] = start + len(node.ids)
        room = max(0, limit - start)
        useful = len(node.ids)
        if useful > room and index in leaves and any(node.trained):
            useful -= node.trained[::-1].index(True)
        lost += max(0, useful - room)
        out.append(node.part(0, room) if len(node.ids) > room else node)
    return out, lost


def _cut_document(node: Node, limit: int) -> list[Node]:
    """Pieces of at most `limit` tokens. Each but the first starts with the last token of the one before,
    untrained, so that every token but the document's first is predicted exactly once."""
    if not any(node.trained):
        return []
    starts = range(0, len(node.ids) - 1, limit - 1)
    pieces = [node.ids[start : start + limit] for start in starts]
    return [Node(ids, (False,) + (True,) * (len(ids) - 1)) for ids in pieces]


def _ends(tree: TokenTree, template: Template) -> bool:
    """Whether every answer kept its stop token."""
    for leaf in tree.leaves:
        node = tree.nodes[leaf]
        if node.ids[-1 - node.trained[::-1].index(True)] not in template.stop_ids:
            return False
    return True


def _refuse_two_starts(ids: Sequence[int], tokenizer: Tokenizer) -> None:
    if tokenizer.bos_id is not None and list(ids[:2]) == [tokenizer.bos_id] * 2:
        raise InputError(
            f"BOS occurs twice: the text starts with {tokenizer.bos}{tokenizer.bos}",
            where="--text.template",
            fix="write bos_token once in the template",
        )


@contextmanager
def _naming_row(example: Example, row: int, dropped: list[Dropped], skip_bad: bool) -> Iterator[None]:
    """Give a fault the place of its row, or count the row as dropped."""
    try:
        yield
    except InputError as error:
        if not skip_bad:
            raise InputError(error.what, where=example.origin, fix=error.fix) from None
        dropped.append(Dropped(example.origin, row, error.what))


def _look_ahead(items: Iterator[T]) -> Iterator[T]:
    """Each item, once the next one is made: work that was begun with it goes on meanwhile."""
    waiting: list[T] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting
