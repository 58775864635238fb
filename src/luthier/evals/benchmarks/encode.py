"""Text -> tokens, exactly as lm-evaluation-harness's `hf` model does it.

Unlike everywhere else in Luthier, control tokens in the text are read as such: the harness does so, and the
numbers are to be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from luthier.core.errors import InputError
from luthier.evals.likelihood import LikelihoodRequest
from luthier.evals.prefix_forest import Ids
from luthier.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class HarnessTokenizer:
    """The harness's way with one tokenizer."""

    tokenizer: Tokenizer

    @cached_property
    def prefix(self) -> int:
        """The token that a text without context follows: BOS, else EOS."""
        found = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        if found is None:
            raise InputError("this tokenizer has neither BOS nor EOS, so there is nothing that a text could follow")
        return found

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Tokens of each text, with what the tokenizer adds by itself (a BOS, say) unless the text begins with it."""
        start = self.tokenizer.decode([self.prefix], special=True)
        bare = [text.startswith(start) for text in texts]
        out: list[Ids] = [()] * len(texts)
        for begun in (True, False):
            places = [i for i, known in enumerate(bare) if known is begun]
            found = self._encode([texts[i] for i in places], added=not begun)
            for i, ids in zip(places, found, strict=True):
                out[i] = ids
        return out

    def requests(self, pairs: Sequence[tuple[str, str]]) -> list[LikelihoodRequest]:
        """What is asked of the model for each (context, continuation).

        The two are encoded together and cut where the tokens of the context alone end; spaces that end the context
        belong to the continuation. An empty context is the prefix token.
        """
        moved = [_moved(context, continuation) for context, continuation in pairs]
        texts = list(dict.fromkeys(text for before, after in moved if before for text in (before, before + after)))
        tokens = dict(zip(texts, self.encode(texts), strict=True))
        alone = [after for before, after in moved if not before]
        bare = dict(zip(alone, self._encode(alone, added=False), strict=True))
        out = []
        for before, after in moved:
            if before:
                context = tokens[before]
                request = LikelihoodRequest(context, tokens[before + after][len(context) :])
            elif bare[after][:1] == (self.prefix,):
                request = LikelihoodRequest(bare[after][:1], bare[after][1:])
            else:
                request = LikelihoodRequest((self.prefix,), bare[after])
            out.append(request)
        return out

    def _encode(self, texts: Sequence[str], *, added: bool) -> list[Ids]:
        backend = self.tokenizer.fast.backend_tokenizer
        return [tuple(found.ids) for found in backend.encode_batch_fast(list(texts), add_special_tokens=added)]


def _moved(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation
