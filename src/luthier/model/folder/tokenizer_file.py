"""What a tokenizer.json asks for, looked at before the tokenizers library makes it: rules that make a text explode are refused.

growth     each Replace may put its content where one character stood, ByteLevel writes each byte as a character, and a table
           has its own replacements, so rules in a row multiply
patterns   regular expressions of others can take years, and rules that few tokenizers have can make the library panic: what
           is not known is tried in a process beside us
counts     added tokens, how long they are, rules, and how deep rules stand in rules
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.child import Child, Ended
from luthier.core.foreign.forms import shown
from luthier.core.storage.files import sha256, small_file
from luthier.model.folder.copies import MAX_ADDED_TOKENS, VOCABULARY_BYTES
from luthier.model.folder.refused_settings import TOKEN
from luthier.model.folder.settings_files import parse_object
from luthier.model.gguf.tokenizer import SPLITS

FIX = "use another tokenizer, or save it again with transformers"
STAGES = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
MAX_RULES = 200  # in one tokenizer: the most known are 19
MAX_GROWTH = 100  # characters that one may become: known rules make 18 of one at most
MAX_PIECE_BYTES = 256  # bytes of one replacement in a table of SentencePiece
LONGEST_TOKEN = 200  # characters of an added token: known ones have up to 128
LONGEST_WORD = 10_000  # characters of a word that WordPiece looks up piece by piece, in time of their square
# Patterns whose time is known to grow with the text's length only: of GPT-2, Llama 3, Qwen, GPT-4o, DeepSeek, SentencePiece conversions.
_CASES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN_PATTERNS = frozenset((
    *(text for text in SPLITS.values() if len(text) > 20), r"\s+", " {2,}", r"\d", r"\p{N}", r"\p{N}{1,3}", "\n", r"[\r\n]",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CASES}{_UPPER}+{_LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_SPACES}",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_SPACES}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*" + _SPACES,
))  # fmt: skip
# Rules that are read without a trial, when their settings are the usual ones; models too.
USUAL_PATTERNS = frozenset((
    "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "BertNormalizer", "Prepend", "Precompiled",
    "Replace", "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer",
    "TemplateProcessing", "RobertaProcessing", "BertProcessing", "Fuse", "ByteFallback", "WordPiece", "BPEDecoder", "Strip",
))  # fmt: skip
STRIPS = ((1, 0), (0, 1), (0, 0))  # characters that decoders take off at the start and the end
_tried: set[str] = set()  # sha256 of tokenizers whose patterns were tried in this process
MEMORY, SECONDS = 2048, 30.0  # MiB and seconds that the trial of patterns may take


def check_tokenizer(path: Path, where: Path) -> None:
    """Raise InputError for a tokenizer.json (in `path`, called `where`) that is none or would make a text explode."""
    try:
        said = parse_object(small_file(path, VOCABULARY_BYTES), where)
    except InputError as error:
        raise InputError(f"cannot read the tokenizer: {error.what}", where=where, fix=FIX) from None
    odd = _check_model(said, where)
    patterns, growth = [], 1.0
    for stage in STAGES:
        rules = list(_rules(said.get(stage)))
        if len(rules) > MAX_RULES:
            raise InputError(f"'{stage}' has {len(rules):,} rules, more than {MAX_RULES}", where=where, fix=FIX)
        growth = 1.0 if stage not in STAGES[:2] else growth  # what normalizers make, pre-tokenizers are given
        for rule in rules:
            growth *= _growth(rule, where)
            found = _regex(rule)
            if found is not None and found not in KNOWN_PATTERNS:
                patterns.append(found)
            elif _unusual(rule):
                odd.append(f"the rule '{shown(rule.get('type'))}'")
        if growth > MAX_GROWTH:
            raise InputError(f"'{stage}' may make {growth:,.0f} characters of one", where=where, fix=FIX)
    if (patterns or odd) and (digest := sha256(path)) not in _tried:
        _try(path, where, patterns, odd)
        _tried.add(digest)


def check_added_tokens(contents: Iterable[object], where: Path) -> None:
    """Raise InputError for an added token that is longer than any is: each is looked for at every character of a text."""
    long = max((len(str(content)) for content in contents), default=0)
    if long > LONGEST_TOKEN:
        raise InputError(f"an added token has {long:,} characters, more than {LONGEST_TOKEN}", where=where, fix=FIX)


def _check_model(said: Mapping[str, Any], where: Path) -> list[str]:
    """What of added tokens and the model is unusual. Raises InputError for what no tokenizer has."""
    added = said.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > MAX_ADDED_TOKENS:
        count = f"{len(added):,} of them" if isinstance(added, list) else shown(added)
        raise InputError(f"'added_tokens': {count}, where at most {MAX_ADDED_TOKENS:,} are read", where=where, fix=FIX)
    for token in added:
        if isinstance(token, Mapping) and (strange := token.keys() - {"id", *TOKEN}):
            raise InputError(f"{shown(min(strange))} of a token in 'added_tokens' is unknown", where=where, fix=FIX)
    model = said.get("model")
    word = model.get("max_input_chars_per_word", 0) if isinstance(model, Mapping) else 0
    if not isinstance(word, int) or word > LONGEST_WORD:
        raise InputError(
            f"'max_input_chars_per_word' is {shown(word)}, more than {LONGEST_WORD:,}", where=where, fix=FIX
        )
    check_added_tokens((token.get("content") for token in added if isinstance(token, Mapping)), where)
    affixed = isinstance(model, Mapping) and model.get("type") == "BPE" and model.get("continuing_subword_prefix")
    return ["'continuing_subword_prefix'"] if affixed else []


def _regex(rule: Mapping[str, Any]) -> str | None:
    pattern = rule.get("pattern")
    found = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    return found if isinstance(found, str) else None


def _unusual(rule: Mapping[str, Any]) -> bool:
    """Whether a rule is of a kind, or has settings, that known tokenizers do not have."""
    pattern = rule.get("pattern")
    if isinstance(pattern, Mapping) and pattern.get("String") == "":
        return True
    if rule.get("type") == "Strip" and "content" in rule and (rule.get("start"), rule.get("stop")) not in STRIPS:
        return True
    return not isinstance(kind := rule.get("type"), str) or kind not in USUAL_PATTERNS


def _rules(value: object) -> Iterator[Mapping[str, Any]]:
    """The rules of a stage, those within others too, in order."""
    if isinstance(value, Mapping):
        yield value
        for key in ("normalizers", "pretokenizers", "processors", "decoders"):
            yield from _rules(value.get(key))
    elif isinstance(value, list):
        for item in value:
            yield from _rules(item)


def _growth(rule: Mapping[str, Any], where: Path) -> float:
    """How many characters may stand where one stood."""
    kind, content, pattern = rule.get("type"), rule.get("content"), rule.get("pattern")
    if kind == "Prepend" and len(str(rule.get("prepend"))) > MAX_PIECE_BYTES:
        raise InputError(f"a rule prepends {len(str(rule['prepend'])):,} characters", where=where, fix=FIX)
    if kind == "Precompiled":
        return _check_table(rule.get("precompiled_charsmap"), where)
    if kind == "ByteLevel":
        return 2.0  # a character beyond ASCII has two bytes and more, and is one of two when it comes again
    if kind != "Replace" or not isinstance(content, str):
        return 1.0
    literal = pattern.get("String") if isinstance(pattern, Mapping) else None
    if isinstance(literal, str) and literal:
        return max(1.0, len(content) / len(literal))
    known = _regex(rule) in KNOWN_PATTERNS
    return max(1.0, len(content)) if known else 1.0 + len(content)  # what is matched may be empty


def _check_table(table: object, where: Path) -> float:
    """SentencePiece's table of replacements: the bytes of a trie, after their number, and replacements that end with 0. How many
    characters the longest has."""
    try:
        content = base64.b64decode(table if isinstance(table, str) else "", validate=True)
    except (binascii.Error, ValueError):
        content = b""
    trie = int.from_bytes(content[:4], "little")
    if len(content) < 4 or trie % 4 or 4 + trie > len(content):
        raise InputError("'precompiled_charsmap' is not a table of replacements", where=where, fix=FIX)
    pieces = content[4 + trie :].split(b"\0")
    if max(map(len, pieces)) > MAX_PIECE_BYTES:
        raise InputError(
            f"'precompiled_charsmap' makes more than {MAX_PIECE_BYTES} bytes of a character", where=where, fix=FIX
        )
    return max(1.0, *(float(len(piece.decode(errors="replace"))) for piece in pieces))


def _try(path: Path, where: Path, patterns: list[str], odd: list[str]) -> None:
    """Let a process beside us read long texts by these patterns. Raises InputError where that takes too long or too much."""
    child = Child("luthier.model.folder.tokenizer_trial", MEMORY, [str(path)], silent=True)
    try:
        said = child.ask("".join(patterns)[:1000], SECONDS)
        why = said["why"] if isinstance(said, dict) else "no reply"
    except Ended as ended:
        why = ended.what
    finally:
        child.close()
    if why:
        what = f"the pattern {shown(patterns[0])} or another of the tokenizer's" if patterns else odd[0]
        raise InputError(
            f"{what} cannot be used: {str(why)[:150]}",
            where=where,
            fix=FIX,
        )
