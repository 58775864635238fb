"""A folder of weights -> a model and a tokenizer, ready on a device. No code of the model's own is run."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn import ModuleList

from luthier.core import log
from luthier.core.errors import InputError, unknown
from luthier.core.foreign.calls import library_errors, reason
from luthier.core.foreign.forms import shown
from luthier.model import check, checked, memory
from luthier.model.adapt import heads
from luthier.model.folder.config_sizes import FIX
from luthier.model.folder.configuration import load_config
from luthier.model.folder.copies import CONFIG, GENERATION, copied
from luthier.model.folder.folder import check_folder, weight_files, weight_tensors
from luthier.model.folder.limits import check_layers, check_vocabulary
from luthier.model.folder.safetensors_header import Tensor
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.model.hub.sources import Source
from luthier.model.layers import experts, fuse
from luthier.model.layers.attention import NAME, register
from luthier.model.layers.decoder import auto_class
from luthier.model.layers.determinism import same_products
from luthier.model.layers.own_attention import hand_down, know
from luthier.model.layers.state import carry
from luthier.model.quiet import quiet

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}  # as safetensors has them
# How many times as many weights as the files hold a configuration may describe before it is refused unbuilt; what is missing exactly
# is said where the sizes can be right. Buffers are tables of positions and masks, which no file holds.
TOO_MANY, BUFFERS = 4, 1 << 30
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model, its tokenizer, and the tokens that end its answers, most usual first. `address` is where other programs
    find it."""

    model: Any
    tokenizer: Any
    config: Any
    address: str
    eos_ids: tuple[int, ...]


def load(
    source: Source | Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    attention: str = NAME,
    tokenizer: Any = None,
) -> LoadedModel:
    """Load a decoder on `device` in `dtype`, in evaluation mode, with no parameter frozen.

    `attention` is the name of an attention function of transformers; Luthier's own takes `tree=`. A `tokenizer` may be at
    hand, such as that of an adapter which brings its own; it is not held against the embedding then.
    Raises InputError for weights that are pickled, broken or not those of the configuration, for a model that transformers
    does not know, for one that Luthier would compute otherwise (see `check`), and for a tokenizer that is too large for it.
    """
    source = source if isinstance(source, Source) else Source(source.name, source, "folder")
    folder = source.folder
    check_folder(folder)
    config = load_config(folder)
    model = _whole_model(folder, config, device, dtype, attention)
    if tokenizer is None:
        tokenizer = load_tokenizer(folder)
        check_vocabulary(tokenizer, config.get_text_config().vocab_size, folder)
    return LoadedModel(model, tokenizer, config, source.address, _eos_ids(model, tokenizer, folder))


def verify(source: Source, *, device: torch.device, dtype: torch.dtype) -> None:
    """Raise InputError for a model that `load` would refuse, but for its tokenizer. One that was loaded or compared before, as it lies
    here, is not loaded; nor is one whose weights do not fit into memory."""
    check_folder(source.folder)
    config = load_config(source.folder)
    check_layers(config, source.folder / CONFIG)
    files = weight_files(source.folder)
    if checked.known(checked.mark(config, files, dtype, device)):
        return
    if sum(tensor.size for tensor in weight_tensors(files).values()) * dtype.itemsize > memory.available(device):
        return
    with torch.random.fork_rng(devices=[]):  # what the run draws does not depend on whether it was here before
        _whole_model(source.folder, config, device, dtype, NAME)
    memory.give_back(models=True)


def _whole_model(folder: Path, config: Any, device: torch.device, dtype: torch.dtype, attention: str) -> Any:
    """The model in a folder that was checked, held against its files and, with Luthier's attention, compared (`check`)."""
    mark = checked.mark(config, weight_files(folder), dtype, device)
    if attention == NAME:
        check_layers(config, folder / CONFIG)
        know(config)
    register()
    with quiet():
        try:
            model, report = _from_tensors(folder, config, device, dtype, attention)
        except (InputError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the code of one of some 300 architectures comes to with odd settings
            raise _refusal(error, config, folder) from error
    _check_keys(model, report, folder)
    _check_numbers(model, folder)
    model = model.to(device).eval()
    if attention != NAME:
        fuse.fuse(model)
        return model
    experts.install(model)
    try:
        _check_once(model, dtype, device, mark)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of transformers' own forward pass, with settings that building a model does not read
        raise _refusal(error, config, folder) from error
    return model


def _refusal(error: Exception, config: Any, folder: Path) -> InputError:
    """What to say of an error of transformers' own."""
    if isinstance(error, KeyError) and error.args == (NAME,):
        return InputError(
            f"models of type '{config.model_type}' have their own attention code, which cannot be replaced",
            where=folder / CONFIG, fix="use another model",
        )  # fmt: skip
    if isinstance(error, ValueError) and str(error).startswith("Unrecognized configuration class"):
        return InputError(
            f"a model of type '{config.model_type}' is not a causal language model", where=folder / CONFIG,
            fix="use a decoder, such as one of the Llama, Qwen, Gemma or Phi families",
        )  # fmt: skip
    return InputError(
        f"cannot load the model: {reason(error)}",
        where=folder,
        fix="copy the folder again, or fix its config.json",
    )


@torch.no_grad()
def _check_numbers(model: Any, folder: Path) -> None:
    """Raise InputError for a weight that is NaN or infinite: a training that broke, or a damaged file."""
    for name, weight in model.named_parameters():
        if weight.numel() and not all(bool(edge.isfinite()) for edge in torch.aminmax(weight)):
            raise InputError(
                f"'{name}' holds NaN or infinity", where=folder,
                fix="fetch the weights again; a training run that diverged leaves such weights",
            )  # fmt: skip


def _check_keys(model: Any, report: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError for weights that are missing, of another shape, or of a part that the model has otherwise; say which
    others are left unread, such as those of a part that reads pictures."""
    for key in ("missing_keys", "mismatched_keys"):
        if names := sorted(_named(item) for item in report[key]):
            tied = " (config.json says that it is not the embedding's)" if "lm_head" in names[0] else ""
            raise InputError(
                f"{key.replace('_', ' ')} in the weights: {_listed(names)}{tied}", where=folder,
                fix="copy the folder again, or fix its config.json",
            )  # fmt: skip
    unread = sorted(
        str(name) for name in report["unexpected_keys"] if str(name).removesuffix(".weight") not in heads.NAMES
    )
    if own := [name for name in unread if _belongs(model, name)]:
        raise InputError(
            f"config.json describes a model without these weights: {_listed(own)}", where=folder,
            fix="take the config.json that was saved with them",
        )  # fmt: skip
    if unread:
        log.warn(f"{folder}: {len(unread)} weights belong to no part of this model and are not read: {_listed(unread)}")


def _named(item: Any) -> str:
    """A weight that transformers reports, by its name; of one that lies in another shape, with that and its own."""
    if isinstance(item, str):
        return item
    name, there, wanted = item
    return f"{name} (of shape {list(there)}; config.json says {list(wanted)})"


def _belongs(model: Any, name: str) -> bool:
    """Whether a weight that the model has no place for is of a part that it has: a bias of a layer, one more block."""
    parent = name.rpartition(".")[0]
    parts = dict(model.named_modules())
    return parent in parts or any(
        parent.startswith(f"{stack}.") for stack, part in parts.items() if type(part) is ModuleList
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


CHECKED: set[tuple[str, ...]] = set()  # kinds of model that were checked in this process, with type and device


def _check_once(model: Any, dtype: torch.dtype, device: torch.device, mark: str) -> None:
    """Fuse the model, and compare it with itself as transformers made it: once for each kind of model in a process, and not where an
    earlier one did so with these weights."""
    kind = (type(model).__name__, model.config.to_json_string(), str(dtype), str(device))
    wanted = None if kind in CHECKED or checked.known(mark) else check.expected(model)
    carry(model)
    hand_down(model)
    fuse.fuse(model)
    if wanted is not None:
        check.check(model, wanted)
        CHECKED.add(kind)
        checked.keep(mark)
    checked.note(mark)


def _from_tensors(folder: Path, config: Any, device: torch.device, dtype: torch.dtype, attention: str) -> Any:
    """(the model in `folder`, which keys its weights lack) on the processor.

    The tensors are read here, from the files that were checked: transformers gets them by name and never the folder, in which it
    would look for pickles, adapters and code. Weights of another type than `dtype` are read one by one and let go: in files that
    are mapped they would all stay in memory beside the new ones.
    """
    files = weight_files(folder)
    found = weight_tensors(files)
    with torch.device("meta"):
        empty = auto_class(config).from_config(copy.deepcopy(config))
    hold_size(empty, found, folder)
    kind = type(empty)
    if not isinstance(config, kind.config_class):  # of a model of text and pictures, the part that writes text
        config = config.get_text_config()
    changes = device.type == "cpu" and {tensor.dtype for tensor in found.values()} != {_NAMES[dtype]}
    model, report = kind.from_pretrained(
        None, config=config, state_dict=slices(files, one_by_one=changes), dtype=dtype, attn_implementation=attention,
        output_loading_info=True, ignore_mismatched_sizes=True,
    )  # fmt: skip
    if (folder / GENERATION).exists():
        model.generation_config = _generation(folder)
    return model, report


def hold_size(model: Any, found: Mapping[str, Tensor], folder: Path) -> None:
    """Raise InputError where a model without its weights is of quite another size than these: nothing of that size is made."""
    there = sum(tensor.size for tensor in found.values())
    wanted = sum(weight.numel() for weight in model.parameters())
    if wanted > TOO_MANY * there:
        raise InputError(
            f"it describes a model of {wanted:,} weights, and the files hold {there:,}",
            where=folder / CONFIG,
            fix=FIX,
        )
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    if buffers > BUFFERS + 4 * there:
        raise InputError(
            f"its tables of positions would take {log.size(buffers)}",
            where=folder / CONFIG,
            fix="lower the number of positions",
        )


def _generation(folder: Path) -> Any:
    from transformers import GenerationConfig

    with copied(folder, (GENERATION,)) as place:
        fix = "fix it, or remove it"
        with library_errors("transformers cannot read it", where=folder / GENERATION, fix=fix, copy=place):
            return GenerationConfig.from_pretrained(place, local_files_only=True)


def slices(files: Sequence[Path], *, one_by_one: bool = False) -> dict[str, Any]:
    """The tensors of files by name, none read yet. With `one_by_one` they are read into memory of their own, where safetensors can
    do that; else the files are mapped."""
    out: dict[str, Any] = {}
    for path in files:
        try:
            file: Any = safe_open(path, framework="pt", **({"backend": "pread"} if one_by_one else {}))
        except TypeError:
            file = safe_open(path, framework="pt")
        out |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    return out


def _eos_ids(model: Any, tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """The tokens that end an answer: the tokenizer's own, then those of generation_config.json, each once."""
    found = model.generation_config.eos_token_id
    listed = found if isinstance(found, list) else [found]
    tokens = [token for token in (tokenizer.eos_token_id, *listed) if token is not None]
    if odd := [token for token in tokens if type(token) is not int or token < 0]:
        raise InputError(
            f"'eos_token_id' is {shown(odd[0])}, not a token's number",
            where=folder / GENERATION,
            fix="fix it, or remove it",
        )
    return tuple(dict.fromkeys(tokens))


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: cuda, else mps, else cpu for 'auto'. Raises InputError when it is absent."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, present in here.items() if present)
    if not here.get(name, False):
        present = ", ".join(kind for kind, found in here.items() if found)
        raise InputError(f"no device '{name}' here", where="--device", fix=f"present: {present}")
    if name == "cuda":
        same_products()
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The compute type: 'auto' takes bfloat16 where the device multiplies it natively, float32 elsewhere."""
    if name != "auto":
        if name not in DTYPES:
            raise unknown("type", name, ("auto", *DTYPES), where="--dtype")
        return DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and cpu_has_bfloat16()
    return torch.bfloat16 if native else torch.float32


def cpu_has_bfloat16(description: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has bfloat16 products (AMX or AVX-512 on x86, BF16 on Arm), as Linux lists them.

    Where there is no such list (macOS, Windows) the answer is no: float32 is right everywhere.
    oneDNN's own limit, if the user set one, holds here too.
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper().startswith(("AVX2", "SSE41", "AVX512_CORE_VNNI")):
        return False
    try:
        lines = description.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(flags.split())
