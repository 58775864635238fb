"""Models of the Hugging Face hub: the snapshot in the hub's own cache, or fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from luthier.core.errors import InputError
from luthier.core.log import note
from luthier.core.secrets import keep, said_by_server
from luthier.model.folder.folder import check_folder, weight_files
from luthier.model.hub.wheels import EMBEDDED, Embedded

# Files at the top of a hub repository that Luthier reads; pickles and code are never fetched.
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.jinja", "*.model"]


def snapshot(
    name: str, download: bool, known: Mapping[str, Embedded] = EMBEDDED, subfolders: Sequence[str] = ()
) -> Path:
    """A hub model's snapshot: the one in the hub's own cache when it is whole, otherwise fetched. Of its folders those of
    `subfolders`; `known` is what there is without a hub."""
    from huggingface_hub import get_token, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = [*_WANTED, *subfolders]
    ignored = ["[!1]*/*"] if subfolders else ["*/*"]  # an encoder's pooling stands in 1_Pooling
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=ignored, local_files_only=True))
        if _has_all_weights(folder) and (not subfolders or (folder / "modules.json").is_file()):
            check_folder(folder)
            return folder
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise InputError(f"unknown model '{name}': {str(error).partition(':')[0]}", fix="such as owner/name") from None
    if not download:
        raise InputError(f"hub model '{name}' is not in the cache", fix="run the command with network access")
    note(f"fetching {name} from the hub")
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=ignored))
    except RepositoryNotFoundError:
        raise InputError(
            f"the hub has no model '{name}', or it is private", fix="check the name; `hf auth login`"
        ) from None
    except Exception as error:  # any of several network libraries' own errors
        keep(get_token() or "")
        reason = (said_by_server(str(error)).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot fetch '{name}' from the hub: {reason}",
            fix=f"check the network, or use {', '.join(known)} or a folder on this machine",
        ) from None
    check_folder(folder)
    return folder


def _has_all_weights(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file() and bool(weight_files(folder))
    except InputError:
        return False
