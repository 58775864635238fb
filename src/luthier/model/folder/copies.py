"""Copies of the small files of a model's folder, checked, for transformers to read in place of the folder.

transformers looks for many more files than these: pickles, adapters, code, checkpoints in parts. In a folder that has only what was
checked it finds nothing else, whatever a setting says, and what it reads is what was hashed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.storage.files import refuse_pointer, small_file
from luthier.core.storage.leftovers import private_folder
from luthier.model.folder.config_sizes import check_constants
from luthier.model.folder.refused_settings import TOKENS, known_tokens, refuse, without_paths
from luthier.model.folder.settings_files import SETTINGS_BYTES, parse_object

CONFIG, GENERATION, TOKENIZER_CONFIG, SPECIAL, TOKENIZER = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json",
)  # fmt: skip
SETTINGS = (CONFIG, GENERATION, TOKENIZER_CONFIG, SPECIAL, "added_tokens.json")
# Vocabularies as tokenizers keep them: of `tokenizers`, byte pairs, word pieces, SentencePiece, tiktoken.
VOCABULARIES = (
    TOKENIZER, "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model",
    "tekken.json", "tiktoken.model",
)  # fmt: skip
TEMPLATE, TEMPLATES = "chat_template.jinja", "additional_chat_templates"
VOCABULARY_BYTES = 128 << 20  # the largest known has 41 MB
TEMPLATE_BYTES = 4 << 20
MAX_ADDED_TOKENS = 100_000  # added tokens: the most known are 6,415


def names(folder: Path) -> list[str]:
    """The small files of `folder` that are read, those that are there, by their path in it."""
    found = [name for name in (*SETTINGS, *VOCABULARIES, TEMPLATE) if (folder / name).exists()]
    more = sorted((folder / TEMPLATES).glob("*.jinja")) if (folder / TEMPLATES).is_dir() else []
    return found + [f"{TEMPLATES}/{path.name}" for path in more if re.fullmatch(r"[\w-][\w.-]*", path.name)]


@contextmanager
def copied(folder: Path, only: Sequence[str] | None = None) -> Iterator[Path]:
    """A private folder with copies of the files of `names`, or of some `only`, for the block. Raises InputError for one that is
    refused."""
    with private_folder() as place:
        for name in names(folder) if only is None else only:
            target = place / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(_content(folder / name, name))
        yield place


def settings(folder: Path, name: str) -> dict[str, Any] | None:
    """A file of settings, checked; None where there is none. Raises InputError."""
    path = folder / name
    try:
        found = parse_object(small_file(path, SETTINGS_BYTES), path)
    except FileNotFoundError:
        return None
    refuse(found, path)
    if name == CONFIG:
        check_constants(found, path)
    if name == TOKENIZER_CONFIG:
        found = known_tokens(without_paths(found, path))
    if name == SPECIAL:  # of which every object is a token
        found = known_tokens(found, within=True)
    for key in TOKENS:
        if isinstance(found.get(key), (dict, list)) and len(found[key]) > MAX_ADDED_TOKENS:
            raise InputError(
                f"'{key}' has {len(found[key]):,} tokens, more than {MAX_ADDED_TOKENS:,}",
                where=path,
                fix="use another tokenizer",
            )
    return found


def check_file(path: Path, name: str) -> bytes:
    """What is in a vocabulary or a template of a folder. Raises InputError for a file that none such is."""
    found = small_file(path, VOCABULARY_BYTES if name in VOCABULARIES else TEMPLATE_BYTES)
    refuse_pointer(found, path)
    return found


def _content(path: Path, name: str) -> bytes:
    """What transformers gets of a file: settings as they were checked, other files as they are."""
    return json.dumps(settings(path.parent, name)).encode() if name in SETTINGS else check_file(path, name)
