"""The rows of a stream as trees, read and encoded as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from luthier.config.run import RunConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import Example
from luthier.core.types.trees import TokenTree
from luthier.data import load as data_load
from luthier.data.example_text import prompt_key
from luthier.runs.method import chosen_method
from luthier.runs.rows import check_kind
from luthier.runs.tokenizer_and_template import TextFormat
from luthier.text.encode import encode_chunk
from luthier.tune.context_length import check_context
from luthier.tune.prepare import RowCounts, arrange_trees

STREAM_CHUNK = 256  # rows of a stream that are encoded together


def stream_trees(
    texts: TextFormat,
    config: RunConfig,
    live: data_load.Stream | None,
    test: Sequence[Example],
    read: Callable[[RowCounts], None],
) -> Iterator[TokenTree]:
    """The trees of a stream, read and encoded as they are asked for; those of `live`, where it cannot be read again. Rows whose
    prompt is that of a held-out row, of `test`, are counted.

    `read` gets the tally of all rows so far, again and again. Raises InputError for a row that the method does not learn from,
    or that is longer than the model's context.
    """
    source = data_load.stream(config.data.path, config.data) if live is None else live
    held_out = {prompt_key(example) for example in test}
    rows, kinds, counts, found = enumerate(source), chosen_method(config).example, RowCounts(), False
    while chunk := list(islice(rows, STREAM_CHUNK)):
        examples = [example for _, example in chunk]
        check_kind(examples, kinds, config.method, source.layout.name)
        part = encode_chunk(
            examples, texts.template, texts.tokenizer, config.text, chunk[0][0], skip_bad=config.data.skip_bad
        )
        check_context(part.trees, texts, config)
        counts.add(examples, part)
        counts.system_prompts.add(examples, config.text.system)
        counts.seen += sum(prompt_key(example) in held_out for example in examples)
        counts.skipped = source.skipped.count
        read(counts)
        found = found or bool(part.trees)
        yield from arrange_trees(part.trees, config)
    if not found:
        raise InputError(
            "no row of the stream is left to learn from",
            where=config.data.path[0],
            fix="look at it with `luthier show`",
        )
