"""The tokenizer in a folder, as transformers reads it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luthier.core import log
from luthier.core.errors import InputError
from luthier.model.copies import TOKENIZER, copied
from luthier.model.tokenizer_file import check_tokenizer, hold_added

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

        try:
            tokenizer = AutoTokenizer.from_pretrained(copy, local_files_only=True, trust_remote_code=False)
        except (
            BaseException
        ) as error:  # the tokenizers library raises bare Exception for a broken file, and panics on some
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise InputError(
                f"cannot read the tokenizer: {first_line(error, copy)}",
                where=folder,
                mend="tokenizer.json must be beside the weights",
            ) from None
        _hold(tokenizer, folder, copy)
    tokenizer.name_or_path = str(folder)
    return tokenizer


def _hold(tokenizer: Any, folder: Path, copy: Path) -> None:
    """Raise InputError for what other files than tokenizer.json bring: added tokens, and rules of a SentencePiece model. A tokenizer
    that drops merges at random, as some are trained with, reads each text in one way."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    hold_added((token.content for token in backend.get_added_tokens_decoder().values()), folder)
    if not (copy / TOKENIZER).exists():
        backend.save(str(copy / TOKENIZER))
        check_tokenizer(copy / TOKENIZER, folder)
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
        log.once(f"{folder}: the tokenizer drops merges at random (dropout), which is left out: a text has one reading")


def first_line(error: BaseException, copy: Path | None = None) -> str:
    """The first line of what an error says, or its kind; of a copied folder, without the copy's place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return said.replace(f"{copy}/", "").replace(str(copy), "this folder")[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, notes and warnings for the block."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
