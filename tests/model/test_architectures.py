"""Every architecture of the installed transformers is computed as transformers does it, or refused: never wrong in silence."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from survey import architectures, reference, separate, survey, survey_all, trees

from conftest import medium_but
from luthier.core.errors import InputError
from luthier.model import load
from luthier.model.forward import forward
from luthier.text.pack import pack
from tiny_architectures import make

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
EXACT = (
    "llama",
    "qwen3",
    "gemma2",
    "gemma3",
    "gemma4",
    "gpt_oss",
    "llama4",
    "phimoe",
    "gpt2",
    "qwen2_5_vl",
    "qwen3_5",
    "lfm2",
    "falcon_h1",
    "qwen3_moe",
    "deepseek_v3",
    "glm4_moe",
    "granitemoehybrid",
    "nemotron_h",
    "stablelm",
    "gpt_neo",
    "falcon",
    "bloom",
    "mpt",
    "modernbert-decoder",
)
REFUSED = ("xglm", "diffllama")


def said(kind: str) -> str:
    """The section of docs/models.md that lists a kind."""
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S):
        if re.search(rf"(^\| |(^|, )){re.escape(kind)}( \||,|$)", body, re.M):
            return title
    return "nowhere"


@pytest.mark.parametrize("kind", medium_but([*EXACT, *REFUSED], "gemma2", "qwen3_5", "diffllama"))
def test_an_architecture_is_what_the_page_says(kind, tmp_path, tiny_tokenizer) -> None:
    found = survey(make(kind, tmp_path / kind, tiny_tokenizer))
    assert found.exact is (kind in EXACT), found
    assert said(kind) == ("Exact" if kind in EXACT else "Refused")
    assert "\n" not in (found.refused or "")


def test_the_page_lists_every_architecture_of_this_transformers() -> None:
    if f"transformers {transformers.__version__} " not in PAGE:
        pytest.skip("docs/models.md was made with another version of transformers")
    assert [kind for kind in architectures() if said(kind) == "nowhere"] == []


def test_the_page_begins_as_it_would_be_written_now() -> None:
    head = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "models.py"))["HEAD"]
    assert PAGE.startswith(head.format(version=re.search(r"transformers (\S+)", PAGE)[1]))


@pytest.mark.slow
def test_no_architecture_is_wrong_and_the_page_is_true(tmp_path) -> None:
    found = survey_all(architectures(), tmp_path)
    tried = {kind: one for kind, one in found.items() if not isinstance(one, str)}
    assert len(tried) > 180
    assert {kind: one for kind, one in tried.items() if one.refused is None and not one.exact} == {}
    assert {kind for kind, one in tried.items() if said(kind) != ("Refused" if one.refused else "Exact")} == set()


@pytest.mark.slow
def test_in_16_bits_each_is_as_near_to_float32_as_transformers(tmp_path, tiny_tokenizer) -> None:
    """Sums are rounded otherwise, and a router may choose another expert; so the mean over the tokens counts, and not one token. Twice
    as far as transformers' own attention is from float32, or as its two ways of attending are from each other."""
    far, refused = {}, set()
    for kind in [kind for kind in architectures() if said(kind) == "Exact"]:
        folder = make(kind, tmp_path / kind, tiny_tokenizer)
        try:
            ours, allowed = in_16_bits(folder)
            if not ours <= 2 * allowed:
                far[kind] = ours, allowed
        except InputError:
            refused.add(kind)
        shutil.rmtree(folder)
    assert far == {}
    assert refused == {"mamba2"}  # whose steps in plain PyTorch mix float32 with the weights' type


def in_16_bits(folder: Path) -> tuple[float, float]:
    """Mean |difference| of log p in bfloat16 to transformers in float32: Luthier's, and what transformers' own come to."""
    model = load.load(folder, device=torch.device("cpu"), dtype=torch.bfloat16).model
    rows = trees(min(model.get_input_embeddings().weight.shape[0], 300))

    def alone(dtype: torch.dtype, attention: str) -> torch.Tensor:
        theirs = reference(folder, type(model), dtype, attention)
        return torch.cat([separate(theirs, tree) for tree in rows])

    with torch.no_grad():
        ours = forward(model, pack(rows, [[1.0] * tree.trained for tree in rows])).logp
        wide, eager = alone(torch.float32, "eager"), alone(torch.bfloat16, "eager")
        between = 0.0
        if getattr(type(model), "_supports_sdpa", False):
            between = float((alone(torch.bfloat16, "sdpa") - eager).abs().mean())
    return float((ours - wide).abs().mean()), max(between, float((eager - wide).abs().mean()))
