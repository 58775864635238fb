"""What flows through Luthier: Example -> TokenTree -> Batch -> Output -> Loss.

Lists of ints until packing, tensors only after it. Every class is frozen.

Shape legend: T tokens of a packed row, N nodes, M targets (predicted tokens), S trees, H hidden size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROLES = ("system", "user", "assistant", "tool")
REASONING = ("reasoning_content", "thinking", "reasoning")  # the names of a thought, in transformers' order

# What a chat template is given anyway: no value of a row or a setting may take its place.
TEMPLATE_GIVEN = ("messages", "tools", "add_generation_prompt", "continue_final_message", "tokenize")


@dataclass(frozen=True, slots=True)
class Origin:
    """The place an example came from; printed as `file:line` in every message about it."""

    file: str = "<memory>"
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    content     what was said. `bare` marks an empty one that the row did not write (null, or no such key): chat
                templates get no content then, as transformers gives them none
    input       the input field of an Alpaca row: the alpaca template shows it apart, every other template after the
                content
    tool_calls  plain JSON objects, as chat templates take them; the arguments as the row has them, an object or text
    train       False for an assistant turn that is read but not learned (OpenAI's `weight: 0`)
    begun       the turn is a beginning only: the assistant's next turn goes on in it (TRL's prompts that end in one)
    fields      what else the row says of the turn, under its own names: `tool_call_id`, `reasoning_content`, ...
    """

    role: str
    content: str
    input: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str | None = None
    train: bool = True
    begun: bool = False
    bare: bool = field(default=False, compare=False)
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def said(self) -> str:
        """The content, and the input below it."""
        return f"{self.content}\n\n{self.input}" if self.input else self.content

    @property
    def reasoning(self) -> str:
        """The thought before the answer, under whichever of REASONING the row has it; "" for none."""
        return next((self.fields[name] for name in REASONING if self.fields.get(name)), "")

    def calls_as(self, kind: type) -> list[dict[str, Any]]:
        """The tool calls with their arguments as objects (dict) or as JSON text (str), whichever way the row has them."""
        out = []
        for call in self.tool_calls:
            function = call.get("function", call)
            arguments = function.get("arguments", {})
            if kind is dict and isinstance(arguments, str):
                arguments = json.loads(arguments)
            elif kind is str and not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            function = {**function, "arguments": arguments}
            out.append({**call, "function": function} if "function" in call else function)
        return out

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates read it; absent fields are left out."""
        out: dict[str, Any] = {"role": self.role}
        if self.said or not self.bare:
            out["content"] = self.said
        out |= self.fields
        if self.tool_calls:
            out["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.name is not None:
            out["name"] = self.name
        return out


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a person wrote. `group` keeps related rows on one side of a split; "" means none."""

    origin: Origin = Origin()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Text(Example):
    """A document, for self-supervised training."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Example):
    """An example that a chat template writes: with the tools that may be called, and values that the template reads
    (TRL's `chat_template_kwargs`, such as {"enable_thinking": false})."""

    tools: tuple[Mapping[str, Any], ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Chat(Conversation):
    """A conversation. An instruction with its answer is a chat of two or three messages."""

    messages: Messages


@dataclass(frozen=True, slots=True)
class Preference(Conversation):
    """Two answers to one prompt, the first preferred. The prompt is empty for bare accepted/rejected texts."""

    prompt: Messages
    chosen: Messages
    rejected: Messages
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking(Conversation):
    """K answers to one prompt. `ranks[i]` is the rank of answer i: 1 is best, equal ranks are ties.

    `pairs` are the comparisons that were made, (better, worse) by index; empty when all were ranked together.
    """

    prompt: Messages
    responses: tuple[Messages, ...]
    ranks: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Labelled(Conversation):
    """One answer and whether it was wanted (KTO)."""

    prompt: Messages
    completion: Messages
    label: bool


@dataclass(frozen=True, slots=True)
class Prompt(Conversation):
    """A prompt without an answer, for online methods; `answer` is a reference a reward may use."""

    messages: Messages
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Pair(Example):
    """Texts that belong together: (anchor, positive) or (anchor, positive, negative), with a score or none."""

    texts: tuple[str, ...]
    score: float | None = None


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
    origin: Origin = Origin()
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


@dataclass(frozen=True)
class Batch:
    """Many trees packed end to end into one row of T tokens, nodes in depth-first order.

    tokens       [T] int64    token ids; padding, if any, is a node of its own at the tail
    positions    [T] int64    depth in the tree: what rotary embeddings see
    node_start   N+1 ints     where each node begins; the last entry is T
    node_parent  N ints       index of the parent node, -1 for a root. Node n sees itself causally and
                              its ancestors whole: the entire attention mask.
    source       [M] int64    index of the token whose hidden state predicts
    target       [M] int64    index of the token that is predicted
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
    columns                   name -> values per tree [S], per leaf [L] or per target [M], as the trees have them
    real                      tokens that are not padding, shared prefixes counted once
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    node_start: tuple[int, ...]
    node_parent: tuple[int, ...]
    source: torch.Tensor
    target: torch.Tensor
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

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        from dataclasses import replace

        moved = {name: value.to(device) for name, value in vars(self).items() if hasattr(value, "to")}
        return replace(self, **moved, columns={k: v.to(device) for k, v in self.columns.items()})


@dataclass(frozen=True)
class Step:
    """The micro-batches of one optimizer step, and what they stand for.

    `tokens` counts the tokens of the examples themselves (a shared prefix once per example). `aside` are batches
    that are only read: what a method compares the step with. `metrics` is what is known of it before it is taken.
    """

    micro: tuple[Batch, ...]
    tokens: int
    examples: int
    aside: tuple[Batch, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """What a method wants of the forward pass, beside or instead of log-probabilities.

    logp       log p of every target              entropy    of the distribution at every target, without gradient
    score      one number per leaf                value      one number per target, of the state before it
    temperature  what logits are divided by before they become probabilities: 1 for the model itself
    """

    logp: bool = True
    entropy: bool = False
    score: bool = False
    value: bool = False
    temperature: float = 1.0


LOGP = Needs()  # what most methods need


@dataclass(frozen=True)
class Output:
    """What the model says of a batch, in float32: what `Needs` asked for, None for the rest.

    logp     [M]  log p(target m | its ancestors)
    entropy  [M]  of the distribution target m was drawn from, in nats
    score    [L]  the score head's number for each leaf
    value    [M]  the value head's number for the state before each target
    """

    logp: torch.Tensor
    entropy: torch.Tensor | None = None
    score: torch.Tensor | None = None
    value: torch.Tensor | None = None


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
