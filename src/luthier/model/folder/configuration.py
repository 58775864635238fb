"""The configuration in a folder, as transformers reads it; without torch, which a look at the data does without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.calls import library_errors
from luthier.model.folder.config_sizes import check_against_tensors
from luthier.model.folder.copies import CONFIG, copied, settings
from luthier.model.folder.folder import weight_files, weight_tensors
from luthier.model.quiet import quiet


def load_config(folder: Path) -> Any:
    """The configuration in `folder`. Raises InputError for a kind of model that transformers does not know, for settings that are
    refused or of a wrong type, and for counts that the weights beside it do not bear out."""
    where = folder / CONFIG
    said = settings(folder, CONFIG)
    if said is None:
        raise InputError("no config.json", where=folder, fix="give the folder that holds the model")
    if files := weight_files(folder):
        check_against_tensors(said, weight_tensors(files), where)
    with quiet(), copied(folder, (CONFIG,)) as copy:
        from transformers import AutoConfig

        fix = "take the config.json that was saved with the weights"
        with library_errors("transformers cannot read this configuration", where=where, fix=fix, copy=copy):
            config = AutoConfig.from_pretrained(copy, local_files_only=True, trust_remote_code=False)
    config.name_or_path = str(folder)
    return config
