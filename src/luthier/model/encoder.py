"""Texts -> vectors whose cosine says how alike in meaning they are, by a sentence encoder (Reimers and Gurevych 2019).

    v = pool(h_1 .. h_L) / |pool(h_1 .. h_L)|     pool: the mean of a text's last hidden states, or the state of its first token

The pooling and the longest text are read from the files that sentence-transformers writes beside a model; without them
the mean is taken. Other poolings, and dense layers after them, are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from luthier.core.errors import InputError
from luthier.core.files import read_json
from luthier.model.load import quiet

BATCH = 32
POOLS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


class Encoder:
    """A sentence encoder in float32 on the processor. Raises InputError for a folder that holds none."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.pool = _pool(folder)
        try:
            with quiet():
                self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                self.model: Any = AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
                ).eval()
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"not a sentence encoder: {reason}", where=folder, mend="give another encoder") from None
        self.longest = _longest(folder, self.model.config)

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
    path = folder / "1_Pooling" / "config.json"
    if (folder / "2_Dense").exists():
        raise InputError("a layer after the pooling, which Luthier does not compute", where=folder / "2_Dense")
    if not path.is_file():
        return "mean"
    asked = [name for name, value in read_json(path).items() if name.startswith("pooling_mode_") and value is True]
    if len(asked) != 1 or asked[0] not in POOLS:
        what = ", ".join(asked) or "no pooling"
        raise InputError(f"{what}: Luthier pools by {' or '.join(POOLS)}", where=path, mend="give another encoder")
    return POOLS[asked[0]]


def _longest(folder: Path, config: Any) -> int:
    """Tokens of the longest text that is read whole."""
    path = folder / "sentence_bert_config.json"
    asked = read_json(path).get("max_seq_length") if path.is_file() else None
    return int(min(asked or 512, getattr(config, "max_position_embeddings", 512)))
