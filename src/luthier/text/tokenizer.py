"""Text <-> token ids, quickly, and without letting data write control tokens.

A control token (`<|im_start|>`, `</s>`, ...) steers the model. Templates write them; data must not:
an answer that quotes "<|im_end|>" would end the turn in the middle. So data is *sealed* before it
meets a template: a border character, a Unicode noncharacter that no text contains, is put inside every
control token's text. No token spans a border, so the quoted text becomes ordinary tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.deadline import ends_after

SEPARATOR = "\ufdd0"
# Seconds that a tokenizer with regular expressions of its own may take for a call, and characters a second beside these; shorter calls
# than SHORT characters are not timed.
MAX_SECONDS, SLOWEST_SPEED, SHORT_TEXT = 120.0, 5_000.0, 1_000

END_OF_TURN = (
    *("</s>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eos|>", "<|end|>", "<|return|>", "<|call|>"),
    *("<end_of_turn>", "<|end_of_turn|>", "<|endofturn|>", "<|END_OF_TURN_TOKEN|>", "<turn|>"),
)


@dataclass(frozen=True)
class Tokenizer:
    """A transformers fast tokenizer, as Luthier uses it: nothing is added, cut or padded behind one's back.

    Raises InputError when `fast` is not backed by a `tokenizer.json`.
    """

    fast: Any

    def __post_init__(self) -> None:
        backend = getattr(self.fast, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                "this model's tokenizer has no fast version", fix="use a model whose folder has a tokenizer.json"
            )
        # A tokenizer.json may carry the truncation and padding of the program that wrote it.
        backend.no_truncation()
        backend.no_padding()

    @cached_property
    def bos_id(self) -> int | None:
        """The token that starts a sequence, or None."""
        return _whole(self.fast.bos_token_id)

    @cached_property
    def eos_id(self) -> int | None:
        """The token that ends a sequence, or None."""
        return _whole(self.fast.eos_token_id)

    @cached_property
    def bos(self) -> str:
        """The text of `bos_id`; "" when there is none."""
        return str(self.fast.bos_token or "")

    @cached_property
    def eos(self) -> str:
        """The text of `eos_id`; "" when there is none."""
        return str(self.fast.eos_token or "")

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the model was made for plain text that starts with BOS."""
        ids = self.fast("a")["input_ids"]
        return self.bos_id is not None and ids[:1] == [self.bos_id]

    @cached_property
    def opening(self) -> str:
        """What plain text starts with: BOS where the model expects it, else nothing."""
        return self.bos if self.adds_bos else ""

    @cached_property
    def control(self) -> Mapping[str, int]:
        """The control tokens: text -> id. Those marked special, BOS, EOS and the known ends of a turn.

        Added tokens that are not special, such as `<think>`, are ordinary vocabulary: data may use them.
        A token of one character cannot be sealed and is left out.
        """
        added = self.fast.backend_tokenizer.get_added_tokens_decoder()
        named = {*END_OF_TURN, self.bos, self.eos}
        return {
            token.content: index
            for index, token in sorted(added.items())
            if len(token.content) > 1 and (token.special or token.content in named)
        }

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """EOS, and the known end-of-turn tokens that the model's own chat template writes.

        `Template.stop_ids` also knows those of other templates.
        """
        template = str(self.fast.chat_template or "")
        found = {index for text, index in self.control.items() if text in END_OF_TURN and text in template}
        return frozenset(found | ({self.eos_id} if self.eos_id is not None else set()))

    @property
    def size(self) -> int:
        """How many ids there are; every id is below it."""
        return len(self.fast)

    def fingerprint(self) -> str:
        """16 hex digits of everything that turns text into ids: what was made with one holds for no other."""
        parts = (self.fast.backend_tokenizer.to_str(), self.bos, self.eos, str(self.adds_bos))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def seal(self, text: str) -> str:
        """`text` with a border inside every control token's text."""
        return self.guard(text.replace(SEPARATOR, ""))

    def guard(self, text: str) -> str:
        """As `seal`, for text whose borders are to stay."""
        if not self.control_pattern.search(text):
            return text
        return self._starts.sub(rf"\g<0>{SEPARATOR}", text)

    def seal_value(self, value: Any) -> Any:
        """A JSON value, rebuilt from plain dicts and lists, with every string in it sealed."""
        if isinstance(value, str):
            return self.seal(value)
        if isinstance(value, Mapping):
            return {self.seal(str(key)): self.seal_value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.seal_value(item) for item in value]
        return value

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of `text`, nothing added. Control tokens in it are read as such only with `special`."""
        return self.encode_batch([text], special=special)[0]

    def encode_batch(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """`encode` of many texts, on all the threads of the Rust tokenizer."""
        return self.encode_pieces([("", text if special else self.seal(text)) for text in texts])

    def encode_pieces(self, pieces: Sequence[tuple[str, str]]) -> list[list[int]]:
        """The ids of each (before, text): `text` as the continuation of `before`, without `before`'s ids.

        Texts are sealed or trusted. What comes before matters to tokenizers that mark the start of a text
        with a space (SentencePiece), or whose control tokens swallow the white space beside them.
        """
        parts: list[tuple[str, str]] = []
        owners: list[int] = []
        for owner, (before, text) in enumerate(pieces):
            for part in text.split(SEPARATOR) if SEPARATOR in text else (text,):
                if part:
                    parts.append((self._anchor(before), part))
                    owners.append(owner)
                    before = part
        out: list[list[int]] = [[] for _ in pieces]
        for owner, ids in zip(owners, self._encode_parts(parts), strict=True):
            out[owner] += ids
        return out

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of `ids`; control tokens are left out unless `special`. Raises InputError where the library panics."""
        try:
            return str(self.fast.backend_tokenizer.decode(list(ids), skip_special_tokens=not special))
        except BaseException as error:
            raise self._panicked(error, "write") from None

    def token(self, index: int) -> str:
        """The vocabulary's own spelling of a token, such as `Ġthe`."""
        return str(self.fast.backend_tokenizer.id_to_token(index))

    @cached_property
    def control_pattern(self) -> re.Pattern[str]:
        """Finds control tokens in text, the longest first; never matches when there are none."""
        return re.compile(_any_of(self.control) or "(?!)")

    @cached_property
    def _starts(self) -> re.Pattern[str]:
        """The first character of every control token in text, of those that overlap too."""
        return re.compile(rf"(?=(?:{self.control_pattern.pattern})).", re.DOTALL)

    @cached_property
    def _needs_anchor(self) -> bool:
        """Whether a text's ids depend on what stands before it although no token spans the two."""
        newline, letter, both = self._encode_raw(["\n", "a", "\na"])
        added = self.fast.backend_tokenizer.get_added_tokens_decoder().values()
        return both[len(newline) :] != letter or any(token.lstrip or token.rstrip for token in added)

    def _anchor(self, before: str) -> str:
        """The shortest text that stands for `before`: its last control token, or a newline."""
        if not before or not self._needs_anchor:
            return ""
        found = re.search(rf"(?:{self.control_pattern.pattern})\Z", before[-256:])
        return found[0] if found else "\n"

    def _encode_parts(self, parts: Sequence[tuple[str, str]]) -> list[list[int]]:
        unique = list(dict.fromkeys([anchor + text for anchor, text in parts] + [a for a, _ in parts if a]))
        table = dict(zip(unique, self._encode_raw(unique), strict=True))
        out = []
        for anchor, text in parts:
            ids, lead = table[anchor + text], table.get(anchor, [])
            if anchor and ids[: len(lead)] == lead:
                ids = ids[len(lead) :]
            elif anchor:  # a token spans anchor and text: take the text alone
                ids = self._encode_raw([text])[0]
            out.append(ids)
        return out

    @cached_property
    def _has_patterns(self) -> bool:
        """Whether regular expressions of the tokenizer's own cut the text: one may take years."""
        backend = self.fast.backend_tokenizer
        stages = [stage.__getstate__() for stage in (backend.normalizer, backend.pre_tokenizer) if stage is not None]
        return any(b'"Regex"' in state for state in stages)

    def _encode_raw(self, texts: Sequence[str]) -> list[list[int]]:
        long = self._has_patterns and (size := sum(map(len, texts))) > SHORT_TEXT
        limit = MAX_SECONDS + size / SLOWEST_SPEED if long else 0.0
        what = f"the tokenizer took longer than {limit:.0f} s; its regular expressions cannot be used"
        try:
            with ends_after(limit, what) if long else nullcontext():
                found = self.fast.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except BaseException as error:  # the library panics, which is no Exception
            raise self._panicked(error, "read") from None
        return [encoding.ids for encoding in found]

    def _panicked(self, error: BaseException, verb: str) -> BaseException:
        """What to raise for an error of the library: itself, unless it is a panic or a bare Exception."""
        if type(error).__name__ != "PanicException" and type(error) is not Exception:
            return error
        where = self.fast.name_or_path or None
        return InputError(
            f"the tokenizer cannot {verb} a text: {str(error)[:200]}", where=where, fix="use another tokenizer"
        )


# What the tokenizer makes of a segment: its ids, or the error of the row that it could not read.
SegmentIds = list[int] | InputError


def tokenize_rows(segments: Sequence[tuple[str, str]], sizes: Sequence[int], tokenizer: Tokenizer) -> list[SegmentIds]:
    """The ids of the segments of many rows at once, of which the rows have `sizes` each. Where the tokenizer fails, the error
    stands for those of the row at fault."""
    try:
        return list(tokenizer.encode_pieces(segments))
    except InputError:
        out: list[SegmentIds] = []
    for size in sizes:
        try:
            out += tokenizer.encode_pieces(segments[len(out) : len(out) + size])
        except InputError as error:
            out += [error] * size
    return out


def ids_of(found: Sequence[SegmentIds]) -> list[list[int]]:
    """The ids of a branch. Raises InputError where the tokenizer failed."""
    out = []
    for ids in found:
        if isinstance(ids, InputError):
            raise ids
        out.append(ids)
    return out


def _any_of(texts: Iterable[str]) -> str:
    """A pattern that finds the longest of `texts`, letter by letter, so that a hundred thousand take no longer than one."""
    tree: dict[str, Any] = {}
    for text in texts:
        node = tree
        for letter in text:
            node = node.setdefault(letter, {})
        node[""] = {}
    return _branches(tree)


def _branches(node: Mapping[str, Any]) -> str:
    parts = [re.escape(letter) + _branches(below) for letter, below in node.items() if letter]
    if not parts:
        return ""
    may_end = "" in node
    pattern = f"(?:{'|'.join(parts)})" if len(parts) > 1 or may_end else parts[0]
    return f"{pattern}?" if may_end else pattern


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
