"""What about some data deserves a word before anything is learned from it, the same in `data`, `show` and `train`.

To add a warning: a generator of sentences and a line in `warnings_of`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from luthier.core.types.examples import Chat, Example, Labelled, Preference, Ranking, Text
from luthier.data.columns_read import ColumnsRead
from luthier.data.example_text import empty_fields
from luthier.data.media import spoken_texts, turns_with_places
from luthier.data.templated import MARK, is_templated

UNREAD_SHARE = 0.2  # of the characters of the rows: an unread column that holds more is told of

ESCAPED_SHARE = 0.05  # of the rows: more with entities of HTML are told of
ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#39|#x27|#34);")

# Columns that say what the right answer is, how good one is, or what an answer needs to be understood.
ANSWERS = re.compile(
    r"(.*_)?label(s)?|label(s)?_.*|annotation(s)?|ground_truth|reward_model|code|(.*_)?solution(s)?|(final|best|expected)_.*|"
    r"category|categories|class(es)?|intent|sentiment|emotion|target(s)?|answer(s)?|output(s)?|response(s)?|"
    r"completion(s)?|reference|chosen|rejected|correct(_answer)?|gold|"
    r"(response|answer|output|completion|generation|candidate)[_-]?(\d|[a-z])|entities|spans|translation|summary"
)
RATINGS = re.compile(
    r"score(s)?|rating(s)?|rank(s)?|ranking|preference|winner|reward(s)?|helpfulness|correctness|coherence|quality|"
    r"is_.*safe.*|safer_.*|better_.*|preferred.*|safety|toxicity|weight|margin|votes?|upvotes|stars?|feedback|(.*[_-])?(score|rating)|(score|rating)[_-].*"
)
CONTEXT = re.compile(
    r"context(s)?|passage(s)?|document(s)?|system(_prompt)?|instruction|input|history|tools|functions|support|evidence|"
    r"choices|options|article|facts|knowledge|persona|schema|chat_template_kwargs|enable_thinking"
)
THOUGHTS = re.compile(r"reasoning(_\w+)?|thinking|thoughts?|rationale|cot|chain_of_thought|scratchpad|channel")
MEDIA = re.compile(r"(image|picture|video|audio|pixel|speech|media)(s|_path|_url|_file|_values|_paths|_urls)?")
# Fields that a column may be given to without another losing its own.
OPTIONAL_FIELDS = {
    "alpaca": ("reasoning_content", "system", "input"),
    "prompt_completion": ("reasoning_content", "system", "input"),
    "labels": ("system",),
}
FASTTEXT = re.compile(r"^__label__\S+ ", re.MULTILINE)
# Columns that name a row or where it came from.
IDENTIFIERS = re.compile(
    r"(.*[_-])?(id|ids|uuid|hash|sha\d*|md5|url|urls|link|source|date|time|timestamp|path|file|filename|index|idx|"
    r"split|subset|type|kind|model|models|lang|language|domain|task|dataset|version|name)"
)


def warnings_of(examples: Sequence[Example], reading: ColumnsRead) -> tuple[str, ...]:
    """What deserves a word, one line each; `reading` says how the columns of these examples were read."""
    corrected = (f"{what}: {_rows(rows)}" for what, rows in reading.corrected.items())
    return (
        *_unread(reading),
        *corrected,
        *_template_marks(examples),
        *_labelled(examples),
        *_media_placeholders(examples),
        *one_sided(examples),
        *_undecided(examples),
        *_empty(examples),
        *_escaped(examples),
    )


def one_sided(examples: Sequence[Example]) -> Iterator[str]:
    """Unpaired answers teach by the contrast of wanted and unwanted ones."""
    labels = {example.label for example in examples if isinstance(example, Labelled)}
    if len(labels) == 1:
        kind = "wanted" if True in labels else "unwanted"
        fix = ", or learn these with --method sft" if True in labels else ""
        what = "the only answer is" if len(examples) == 1 else f"all {len(examples)} answers are"
        yield f"{what} {kind}: kto learns the contrast of wanted and unwanted answers, and there is none here; add the others{fix}"


def _undecided(examples: Sequence[Example]) -> Iterator[str]:
    """Comparisons that prefer no answer teach nothing."""
    alike = sum(isinstance(e, Preference) and e.chosen == e.rejected for e in examples)
    tied = sum(isinstance(e, Ranking) and len(set(e.ranks)) == 1 for e in examples)
    if alike:
        yield f"chosen and rejected are the same text: {_rows(alike)}, and nothing is learned from them"
    if tied:
        yield f"all answers have the same rank: {_rows(tied)}, and nothing is learned from them"


def _empty(examples: Sequence[Example]) -> Iterator[str]:
    """An answer of nothing teaches to say nothing. A turn that is not learned, or calls a tool, may say nothing."""
    rows = 0
    for example in examples:
        if isinstance(example, Chat):
            turns = [turn for turn in example.messages if turn.role == "assistant" and turn.train]
            rows += any(not (turn.content.strip() or turn.reasoning or turn.tool_calls) for turn in turns)
        elif not isinstance(example, Text):
            rows += bool({"answer", "rejected", "response"} & set(empty_fields(example)))
    if rows:
        yield f"an answer is empty: {_rows(rows)}, which teach to say nothing; `luthier data --clean` drops them"


def _escaped(examples: Sequence[Example]) -> Iterator[str]:
    """Text that was escaped once too often: `\\n` in letters where no row has a line end, entities of HTML."""
    lines = breaks = entities = 0
    for example in examples:
        texts = tuple(spoken_texts(example))
        lines += any("\n" in text for text in texts)
        breaks += any("\\n" in text for text in texts)
        entities += any(ENTITY.search(text) for text in texts)
    if breaks and not lines:
        yield f"line ends are spelled as a backslash and an n, and are learned that way: {_rows(breaks)}"
    if entities > ESCAPED_SHARE * len(examples):
        yield f"entities of HTML, such as &amp; or &#39;, are read as plain text: {_rows(entities)}"


def _unread(reading: ColumnsRead) -> Iterator[str]:
    for column in reading.unread:
        if column in reading.said:
            continue  # its text stands in what is read
        plain = column.rpartition(".")[2].strip().lower().replace(" ", "_")
        share = reading.share[column]
        why = next((word for word, names in _COLUMN_KINDS if names.fullmatch(plain)), None)
        if why is None and column in reading.marks and reading.layout == "text":
            why = "true or false in every row: it may be a label of the text"
        if why is None and share >= UNREAD_SHARE and not IDENTIFIERS.fullmatch(plain):
            why = f"{share:.0%} of the text"
        if why is not None and not (ANSWERS.fullmatch(plain) and reading.mapped & {"completion", "output", "label"}):
            rows = (
                "" if reading.filled[column] == reading.rows else f" in {reading.filled[column]} of {reading.rows} rows"
            )
            yield f"column '{column}' is not read ({why}){rows}; if it matters, {_how_to_map(column, plain, reading)}"


def _how_to_map(column: str, plain: str, reading: ColumnsRead) -> str:
    """How to read a column that nothing reads: by the field that suits it, where the layout has one that is free."""
    free = [name for name in OPTIONAL_FIELDS.get(reading.layout, ()) if name not in reading.read]
    if THOUGHTS.fullmatch(plain) and "reasoning_content" in free:
        return f"--data.columns reasoning_content={column} teaches it as the thought before the answer"
    if plain.startswith("system") and "system" in free:
        return f"--data.columns system={column} makes it the system prompt"
    if not ANSWERS.fullmatch(plain) and not RATINGS.fullmatch(plain) and "input" in free:
        return f"--data.columns input={column} puts it below the prompt"
    return f"map it with --data.columns FIELD={column}"


def _template_marks(examples: Sequence[Example]) -> Iterator[str]:
    """Marks of chat templates that stand in what is said: a model would learn to spell them."""
    found: Counter[str] = Counter()
    marked = written = 0
    for example in examples:
        marks = [mark.strip() for text in spoken_texts(example) for mark in MARK.findall(text)]
        marked += bool(marks)
        found.update(set(marks))
        written += not marks and isinstance(example, Text) and is_templated(example.text)
    if marked:
        names = ", ".join(repr(mark) for mark, _ in found.most_common(3))
        yield f"marks of a chat template are read as plain text ({names}): {_rows(marked)}; write such rows as messages"
    if written:
        yield f"conversations are read as documents: {_rows(written)}; --data.layout templated reads their turns"


def _labelled(examples: Sequence[Example]) -> Iterator[str]:
    """fastText's lines, each a label and its text, in documents."""
    if rows := sum(isinstance(e, Text) and bool(FASTTEXT.search(e.text)) for e in examples):
        yield f"labels such as __label__x are read as plain text: {_rows(rows)}; write each line as a text and its label"


def _media_placeholders(examples: Sequence[Example]) -> Iterator[str]:
    if rows := sum(map(turns_with_places, examples)):
        yield f"a place for a picture or sound, such as <image>, is read as plain text: {_rows(rows)}"


_COLUMN_KINDS = (
    ("it may hold what is to be answered", ANSWERS),
    ("it may be how an answer is reached", THOUGHTS),
    ("it may say how good an answer is", RATINGS),
    ("an answer may need it", CONTEXT),
    ("pictures and sound cannot be read", MEDIA),
)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
