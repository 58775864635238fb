"""Texts -> vectors whose cosine says how alike in meaning they are, by a sentence encoder (Reimers and Gurevych 2019).

    v = pool(h_1 .. h_L) / |pool(h_1 .. h_L)|     pool: the mean of a text's last hidden states, or the state of its first token

The pooling and the longest text are read from the files that sentence-transformers writes beside a model; without them
the mean is taken. Other poolings, and other modules after the transformer, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from luthier.core.errors import InputError
from luthier.core.foreign.calls import reason
from luthier.core.foreign.forms import shown
from luthier.model.folder.configuration import load_config
from luthier.model.folder.folder import ENCODER, weight_files, weight_tensors
from luthier.model.folder.settings_files import COPY_AGAIN, read_list, read_object
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.model.load import hold_size, slices
from luthier.model.quiet import quiet

BATCH = 32
MODULES = ("Transformer", "Pooling", "Normalize")
POOLS = {"mean": "mean", "cls": "first", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


class Encoder:
    """A sentence encoder in float32 on the processor. Raises InputError for a folder that holds none."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel

        self.pool = _pool(folder)
        self.tokenizer: Any = load_tokenizer(folder)
        try:
            config, files = load_config(folder), weight_files(folder)
            with quiet():
                with torch.device("meta"):
                    empty = AutoModel.from_config(config)
                hold_size(empty, weight_tensors(files), folder)
                model, report = type(empty).from_pretrained(
                    None, config=config, state_dict=slices(files), dtype=torch.float32, output_loading_info=True
                )
        except InputError as error:
            raise InputError(f"not a sentence encoder: {error.what}", where=error.where, fix=error.fix) from None
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the code of an architecture comes to with odd settings
            what = f"not a sentence encoder: {reason(error)}"
            raise InputError(what, where=folder, fix="give another encoder") from None
        self.model: Any = model.eval()
        missing = [str(key) for key in sorted(report["missing_keys"], key=str) if "pooler" not in str(key)]
        if missing or self.tokenizer.pad_token is None:
            what = f"missing in the weights: {missing[0]}" if missing else "its tokenizer has no token to pad with"
            raise InputError(f"not a sentence encoder: {what}", where=folder, fix="give another encoder")
        self.longest = _longest(folder, self.model.config, self.tokenizer)

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of length 1, [N, D], zero for a text without a token; the end of a text that is too long is not looked at."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths meet: little is padded
        if not self.tokenizer("")["input_ids"]:
            order = [i for i in order if texts[i]]
        out = torch.zeros(len(texts), self.model.config.hidden_size)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            read = self.tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
            )
            states = self.model(**read).last_hidden_state
            if self.pool == "first":
                pooled = states[:, 0]
            else:
                real = read["attention_mask"][..., None].to(states.dtype)
                pooled = (states * real).sum(1) / real.sum(1).clamp(min=1)
            out[rows] = torch.nn.functional.normalize(pooled, dim=-1)
        return out


def _pool(folder: Path) -> str:
    listed = folder / ENCODER[0]
    modules = _modules(listed) if listed.exists() else []
    if odd := [kind for kind, _ in modules if kind not in MODULES]:
        raise InputError(
            f"a module '{odd[0][:100]}', which Luthier does not compute", where=listed, fix="give another encoder"
        )
    path = folder / next((name for kind, name in modules if kind == "Pooling"), "1_Pooling") / "config.json"
    if not path.exists():
        if modules:
            raise InputError("it does not say how it pools", where=path, fix="copy the folder again")
        return "mean"
    said = read_object(path)
    older = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    asked = [said["pooling_mode"]] if isinstance(said.get("pooling_mode"), str) else older
    if len(asked) != 1 or asked[0] not in POOLS:
        what = ", ".join(asked)[:100] or "no pooling"
        raise InputError(
            f"it pools by {what}; Luthier supports the mean and the first token", where=path, fix="give another encoder"
        )
    return POOLS[asked[0]]


def _modules(listed: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module, which lies in the encoder's own folder. Raises InputError for a list of another form."""
    found = []
    for module in read_list(listed):
        kind, place = (module.get(key) if isinstance(module, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(place, str) or not re.fullmatch(r"|[\w-][\w.-]*", place):
            raise InputError(f"a module is {shown(kind)} at {shown(place)}", where=listed, fix=COPY_AGAIN)
        found.append((kind.rpartition(".")[2], place))
    return found


def _longest(folder: Path, config: Any, tokenizer: Any) -> int:
    """Tokens of the longest text that is read whole."""
    path = folder / ENCODER[1]
    asked = read_object(path).get("max_seq_length") if path.exists() else None
    if asked is not None and (type(asked) is not int or asked < 1):
        raise InputError(f"'max_seq_length' is {shown(asked)}, not a number of tokens", where=path, fix=COPY_AGAIN)
    places = getattr(config, "max_position_embeddings", None)
    return int(min(limit for limit in (asked, places, tokenizer.model_max_length, 1 << 16) if limit))
