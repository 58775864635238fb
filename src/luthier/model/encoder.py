"""Texts -> vectors whose cosine says how alike in meaning they are, by a sentence encoder (Reimers and Gurevych 2019).

    v = pool(h_1 .. h_L) / |pool(h_1 .. h_L)|     pool: the mean of a text's last hidden states, or the state of its first token

The pooling and the longest text are read from the files that sentence-transformers writes beside a model; without them
the mean is taken. Other poolings, and other modules after the transformer, are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from luthier.core.errors import InputError
from luthier.core.files import read_json
from luthier.model.tokenizer import first_line, load_tokenizer, quiet

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
            with quiet():
                model, report = AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
                    output_loading_info=True,
                )  # fmt: skip
        except (OSError, ValueError, KeyError) as error:
            what = f"not a sentence encoder: {first_line(error)}"
            raise InputError(what, where=folder, mend="give another encoder") from None
        self.model: Any = model.eval()
        missing = [str(key) for key in sorted(report["missing_keys"], key=str) if "pooler" not in str(key)]
        if missing or self.tokenizer.pad_token is None:
            what = f"missing in the weights: {missing[0]}" if missing else "its tokenizer has no token to pad with"
            raise InputError(f"not a sentence encoder: {what}", where=folder, mend="give another encoder")
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
    listed = folder / "modules.json"
    modules = [(str(m["type"]).rpartition(".")[2], m["path"]) for m in read_json(listed)] if listed.is_file() else []
    if odd := [kind for kind, _ in modules if kind not in MODULES]:
        raise InputError(
            f"a module '{odd[0]}', which Luthier does not compute", where=listed, mend="give another encoder"
        )
    path = folder / next((name for kind, name in modules if kind == "Pooling"), "1_Pooling") / "config.json"
    if not path.is_file():
        if modules:
            raise InputError("it does not say how it pools", where=path, mend="copy the folder again")
        return "mean"
    said = read_json(path)
    older = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    asked = [said["pooling_mode"]] if isinstance(said.get("pooling_mode"), str) else older
    if len(asked) != 1 or asked[0] not in POOLS:
        what = ", ".join(asked) or "no pooling"
        raise InputError(
            f"it pools by {what}; Luthier by the mean or the first token", where=path, mend="give another encoder"
        )
    return POOLS[asked[0]]


def _longest(folder: Path, config: Any, tokenizer: Any) -> int:
    """Tokens of the longest text that is read whole."""
    path = folder / "sentence_bert_config.json"
    asked = read_json(path).get("max_seq_length") if path.is_file() else None
    places = getattr(config, "max_position_embeddings", None)
    return int(min(limit for limit in (asked, places, tokenizer.model_max_length, 1 << 16) if limit))
