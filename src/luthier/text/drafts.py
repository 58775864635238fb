"""Example -> its text: the nodes of a tree before tokenization."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from luthier.config.data import TextConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import (
    Chat,
    Conversation,
    Example,
    Labelled,
    Message,
    Messages,
    Preference,
    Prompt,
    Ranking,
    Text,
)
from luthier.text.built_in_templates import in_words
from luthier.text.lost_content import unwritten
from luthier.text.spans import Segment, prompt_spans_later, spans_later
from luthier.text.template import Template
from luthier.text.tokenizer import Tokenizer

UNLEARNED = "no method learns from such rows; map them to a layout that one does, with --data.layout and --data.columns"


@dataclass(frozen=True, slots=True)
class Branch:
    """A node before tokenization."""

    segments: tuple[Segment, ...]
    parent: int = -1


@dataclass(frozen=True, slots=True)
class Draft:
    """A tree before tokenization. `unwritten` is what the row says and the text does not (see `unwritten`)."""

    example: Example
    row: int
    branches: tuple[Branch, ...]
    columns: Mapping[str, Any]
    unwritten: frozenset[str] = frozenset()


_Nodes = tuple[tuple[Branch, ...], Mapping[str, Any]]


def draft_later(example: Example, row: int, template: Template, settings: TextConfig) -> Callable[[], Draft]:
    """The nodes of an example as text, in two steps: all examples that take the first one before the second are rendered
    together. The second raises InputError when the example does not fit the template."""

    def draft() -> Draft:
        branches, columns = later()
        return Draft(example, row, branches, columns, _unwritten(example, branches, template))

    try:
        later = _branches_later(example, template, settings)
    except InputError as error:
        later = partial(_raise, error)
    return draft


def _branches_later(example: Example, template: Template, settings: TextConfig) -> Callable[[], _Nodes]:
    """The branches and columns of an example."""
    match example:
        case Text(text=text):
            tokenizer = template.tokenizer
            whole = Segment(tokenizer.opening + tokenizer.seal(text) + tokenizer.eos, bool(text))
            return lambda: ((Branch((whole,)),), {})
        case Chat(messages=messages, tools=tools, template_kwargs=kwargs):
            messages = with_system(messages, settings.system)
            said = spans_later(messages, tools, template, settings.train_on, kwargs=kwargs)
            return lambda: ((Branch(tuple(said())),), {})
        case Prompt(messages=messages, answer=answer, tools=tools, template_kwargs=kwargs):
            asked = prompt_spans_later(with_system(messages, settings.system), tools, template, kwargs)
            return lambda: ((Branch(tuple(asked())),), {"answer": answer})
        case Preference(chosen=chosen, rejected=rejected, margin=margin):
            return _compared_later(example, (chosen, rejected), template, settings, margin=margin or 0.0)
        case Ranking(responses=responses):  # pairs may stand beside it
            return _compared_later(example, responses, template, settings, margin=0.0)
        case Labelled(completion=completion, label=label):
            return _compared_later(example, (completion,), template, settings, label=label)
        case _:
            raise InputError(f"a row of kind {type(example).__name__.lower()}", where=example.origin, fix=UNLEARNED)


def _raise(error: InputError) -> _Nodes:
    raise error


def _compared_later(
    example: Preference | Ranking | Labelled,
    completions: Sequence[Messages],
    template: Template,
    settings: TextConfig,
    **columns: Any,
) -> Callable[[], _Nodes]:
    """The prompt as root, a child for each completion. Without a prompt: bare texts, with at most BOS as root."""
    if not example.prompt:
        bare = tuple(_bare(completions, template.tokenizer))
        return lambda: (bare, columns)
    prompt, tools, kwargs = with_system(example.prompt, settings.system), example.tools, example.template_kwargs
    asked = prompt_spans_later(prompt, tools, template, kwargs)
    answered = [
        spans_later((*prompt, *completion), tools, template, kwargs=kwargs, first=len(prompt))
        for completion in completions
    ]

    def branches() -> _Nodes:
        root = tuple(asked())
        children = []
        for segments in (tuple(later()) for later in answered):
            if segments[: len(root)] != root:
                raise InputError(
                    "the prompt is not a prefix of prompt and answer",
                    fix="an answer must begin with an assistant turn that should be learned",
                )
            children.append(Branch(segments[len(root) :], parent=0))
        return (Branch(root), *children), columns

    return branches


def _bare(completions: Sequence[Messages], tokenizer: Tokenizer) -> list[Branch]:
    texts = [tokenizer.seal("".join(in_words(message).content for message in completion)) for completion in completions]
    parent = 0 if tokenizer.opening else -1
    root = [Branch((Segment(tokenizer.opening, False),))] if tokenizer.opening else []
    return root + [Branch((Segment(text + tokenizer.eos, True, answer=True),), parent) for text in texts]


def _unwritten(example: Example, branches: Sequence[Branch], template: Template) -> frozenset[str]:
    if not isinstance(example, Conversation):
        return frozenset()
    text = "".join(segment.text for branch in branches for segment in branch.segments)
    return frozenset(unwritten(_spoken_texts(example), example.tools, example.template_kwargs, text, template))


def _spoken_texts(example: Conversation) -> Messages:
    """Every message of an example."""
    match example:
        case Chat(messages=messages) | Prompt(messages=messages):
            return messages
        case Preference(prompt=prompt, chosen=chosen, rejected=rejected):
            return (*prompt, *chosen, *rejected)
        case Ranking(prompt=prompt, responses=responses):
            return (*prompt, *(message for response in responses for message in response))
        case Labelled(prompt=prompt, completion=completion):
            return (*prompt, *completion)
    raise AssertionError(f"no such example: {type(example).__name__}")


def with_system(messages: Messages, system: str | None) -> Messages:
    """`messages` with the system prompt `system` in front, unless they have one of their own."""
    if not system or (messages and messages[0].role == "system"):
        return messages
    return (Message("system", system), *messages)
