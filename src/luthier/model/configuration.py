"""The configuration in a folder, as transformers reads it; without torch, which a look at the data does without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.model.tokenizer import first_line, quiet


def load_config(folder: Path) -> Any:
    """The configuration in `folder`. Raises InputError for a kind of model that transformers does not know."""
    with quiet():
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"transformers cannot read this configuration: {first_line(error)}", where=folder / "config.json"
            ) from None
