"""Merge a run's adapter into its model, and measure how close the merged model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.storage.files import write_folder
from luthier.core.storage.opening import require_writable
from luthier.core.types.examples import Chat
from luthier.data.stdlib_pairs import pairs
from luthier.evals.forgetting import GENERAL_PROMPTS
from luthier.model.adapt import lora
from luthier.model.adapt.base import dequantize_base
from luthier.model.load import DTYPES
from luthier.runs.export import write_model
from luthier.runs.locate import resolve_model, takes_base
from luthier.runs.open import log_probabilities, open_model
from luthier.runs.system_prompt import trained_system


def merge(run: Path, out: Path | None, dtype: str, base: str | None = None) -> dict[str, Any]:
    """Write the merged model to `out` (RUN/merged) in `dtype`, and compare its log-probabilities with the run's.

    The sum W + s B A is taken in float32 and rounded once. A qlora adapter is merged into the dequantized
    base, which is what it was trained on. The comparison loads what was written, and runs in float32.
    """
    if not run.is_dir():
        raise InputError("no such run", where=run, fix="give a folder under runs/")
    if not takes_base(str(run)):
        what = "this run tuned the model itself" if (run / "model").is_dir() else "no adapter here"
        raise InputError(f"{what}; nothing to merge", where=run, fix="give a run directory with an adapter/")
    target = out or run / "merged"
    if target != run / "merged" and target.exists() and any(target.iterdir()):
        raise InputError("the folder is not empty", where=target, fix="give another --out")
    require_writable(target, folder=True)
    opened = open_model(str(run), device="cpu", dtype="float32", base=base)
    texts = list(GENERAL_PROMPTS) + [_code(chat) for chat in pairs(limit=16, test=2)[0]]
    before = log_probabilities(opened, texts)
    trained = trained_system(resolve_model(str(run), base).adapter or run)
    lora.merge(opened.model)
    dequantize_base(opened.model)  # layers of a qlora run that had no adapter
    opened.model.to(DTYPES[dtype])
    write_folder(
        target, lambda folder: write_model(folder, opened.model, opened.tokenizer.fast, opened.template, trained)
    )
    after = log_probabilities(open_model(str(target), device="cpu", dtype="float32"), texts)
    gap = (before - after).abs()
    return {
        "merged": str(target), "dtype": dtype, "largest_difference": float(gap.max()), "mean_difference": float(gap.mean()),
        "tokens": gap.numel(),
    }  # fmt: skip


def _code(chat: Chat) -> str:
    return chat.messages[0].content
