"""A folder of weights -> a model and a tokenizer, ready on a device. No code of the model's own is run."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from luthier.core.errors import InputError
from luthier.model import fuse
from luthier.model.attention import NAME, register
from luthier.model.same_bits import same_products
from luthier.model.sources import Source, check_folder, weight_files
from luthier.model.tokenizer import first_line, load_tokenizer, quiet

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}  # as safetensors has them
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


def load(source: Source | Path, *, device: torch.device, dtype: torch.dtype, attention: str = NAME) -> LoadedModel:
    """Load a decoder on `device` in `dtype`, in evaluation mode, with no parameter frozen.

    `attention` is the name of an attention function of transformers; Luthier's own takes `tree=`.
    Raises InputError for weights that are pickled, broken or not those of the configuration, and for
    a model that transformers does not know.
    """
    source = source if isinstance(source, Source) else Source(source.name, source, "folder")
    folder = source.folder
    check_folder(folder)
    config = load_config(folder)
    odd = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if odd and attention == NAME:
        raise InputError(
            f"layers of kind '{min(odd)}' mix tokens outside of attention, so packed rows would see each other",
            where=folder / "config.json", mend="use a model whose layers are all attention",
        )  # fmt: skip
    register()
    with quiet():
        try:
            model, report = _from_pretrained(folder, config, device, dtype, attention)
        except (OSError, ValueError, RuntimeError, SafetensorError, KeyError) as error:
            raise InputError(f"cannot load the model: {first_line(error)}", where=folder) from error
    for key in ("missing_keys", "mismatched_keys"):
        if report[key]:
            first = sorted(str(item) for item in report[key])[0]
            raise InputError(
                f"{key.replace('_', ' ')} in the weights: {first}", where=folder, mend="copy the folder again"
            )
    fuse.fuse(model.to(device))
    tokenizer = load_tokenizer(folder)
    return LoadedModel(model.eval(), tokenizer, config, source.address, _eos_ids(model, tokenizer))


def _from_pretrained(folder: Path, config: Any, device: torch.device, dtype: torch.dtype, attention: str) -> Any:
    """(the model in `folder`, which keys its weights lack) on the processor.

    Weights of another type than `dtype` are read one by one and let go: in files that are mapped, as transformers
    reads them, they would all stay in memory beside the new ones.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    settings: dict[str, Any] = {
        "config": config,
        "dtype": dtype,
        "attn_implementation": attention,
        "output_loading_info": True,
    }
    one_by_one = _slices(folder) if device.type == "cpu" else {}
    if not one_by_one or {tensor.get_dtype() for tensor in one_by_one.values()} == {_NAMES[dtype]}:
        return AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **settings
        )
    with torch.device("meta"):
        kind = type(AutoModelForCausalLM.from_config(copy.deepcopy(config)))
    if not isinstance(config, kind.config_class):  # of a model of text and pictures, the part that writes text
        settings["config"] = config.get_text_config()
    model, report = kind.from_pretrained(None, state_dict=one_by_one, **settings)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model, report


def _slices(folder: Path) -> dict[str, Any]:
    """The tensors of a folder by name, none read yet; empty where safetensors can only map files, and for files that
    transformers would choose among."""
    files = weight_files(folder)
    out: dict[str, Any] = {}
    if len(files) > 1 and not (folder / "model.safetensors.index.json").is_file():
        return {}
    for path in files:
        try:
            file: Any = safe_open(path, framework="pt", backend="pread")
        except TypeError:
            return {}
        out |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    return out


def load_config(folder: Path) -> Any:
    """The configuration in `folder`. Raises InputError for a kind of model that transformers does not know."""
    from transformers import AutoConfig

    with quiet():
        try:
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"transformers cannot read this configuration: {first_line(error)}", where=folder / "config.json"
            ) from None


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end an answer: the tokenizer's own, then those of generation_config.json, each once."""
    found = model.generation_config.eos_token_id
    listed = found if isinstance(found, list) else [found]
    return tuple(dict.fromkeys(token for token in (tokenizer.eos_token_id, *listed) if token is not None))


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: cuda, else mps, else cpu for 'auto'. Raises InputError when it is absent."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, present in here.items() if present)
    if not here.get(name, False):
        present = ", ".join(kind for kind, found in here.items() if found)
        raise InputError(f"no device '{name}' here", where="--device", mend=f"present: {present}")
    if name == "cuda":
        same_products()
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The compute type: 'auto' takes bfloat16 where the device multiplies it natively, float32 elsewhere."""
    if name != "auto":
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
