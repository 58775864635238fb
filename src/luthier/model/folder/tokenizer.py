"""The tokenizer in a folder, as transformers reads it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from luthier.core import log
from luthier.core.foreign.calls import library_errors
from luthier.model.folder.copies import TOKENIZER, copied
from luthier.model.folder.tokenizer_file import check_added_tokens, check_tokenizer
from luthier.model.quiet import quiet

_ends_with_texts = False


def leave_torch_out() -> None:
    """Promise that this process ends without computing anything: transformers then reads tokenizers without the seconds
    that torch takes to import, which it would import beside every configuration."""
    global _ends_with_texts
    _ends_with_texts = True


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`. Raises InputError when there is none that can be read."""
    if _ends_with_texts and not {"torch", "transformers"} & sys.modules.keys():
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to say: not to be found
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # which would say that it was not found
    with quiet(), copied(folder) as copy:
        if (copy / TOKENIZER).exists():
            check_tokenizer(copy / TOKENIZER, folder / TOKENIZER)
        from transformers import AutoTokenizer

        fix = "tokenizer.json must be beside the weights"
        with library_errors("cannot read the tokenizer", where=folder, fix=fix, copy=copy):
            tokenizer = AutoTokenizer.from_pretrained(copy, local_files_only=True, trust_remote_code=False)
        _hold(tokenizer, folder, copy)
    tokenizer.name_or_path = str(folder)
    return tokenizer


def _hold(tokenizer: Any, folder: Path, copy: Path) -> None:
    """Raise InputError for what other files than tokenizer.json bring: added tokens, and rules of a SentencePiece model. A tokenizer
    that drops merges at random, as some are trained with, reads each text in one way."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    check_added_tokens((token.content for token in backend.get_added_tokens_decoder().values()), folder)
    if not (copy / TOKENIZER).exists():
        backend.save(str(copy / TOKENIZER))
        check_tokenizer(copy / TOKENIZER, folder)
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
        log.once(
            f"{folder}: the tokenizer's random dropping of merges (dropout) is turned off: a text is always read the same way"
        )
