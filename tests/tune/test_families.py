"""Today's families end to end: runs of every kind give what transformers gives, resume to the same bits, and load elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from families import FAMILIES, SHORT, beside_transformers, train, verify

from tiny_architectures import make

pytestmark = pytest.mark.filterwarnings("ignore:.*rank_pattern|.*alpha_pattern|.*is_gradient_checkpointing")
PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("families")
    return {kind: make(kind, folder / kind, tiny_tokenizer) for kind in ("lfm2", "qwen3_moe")}


@pytest.mark.medium
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
@pytest.mark.parametrize("kind", ["lfm2", "qwen3_moe"])
def test_training_sees_the_numbers_of_transformers(kind: str, method: str, model, tmp_path: Path) -> None:
    """A hybrid and a mixture of experts: log p and gradients of the first step, at the start and with what was learned."""
    run = tmp_path / "run"
    assert train(model[kind], run, method, "lora", train__steps=2, eval__samples=0, **SHORT) == 0
    found = beside_transformers(run)
    assert found.logp < 1e-4 and found.gradient < 1e-4


@pytest.mark.medium
def test_another_model_is_told_apart(model, tmp_path: Path) -> None:
    """The comparison itself can fail: a run whose base is another one by now."""
    run = tmp_path / "run"
    assert train(model["lfm2"], run, "sft", "lora", train__steps=2, eval__samples=0, **SHORT) == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("families.transformers_model", _moved)
        found = beside_transformers(run)
    assert found.logp > 1e-4 and found.gradient > 1e-4


def _moved(folder: Path, kind: type, dtype):
    theirs = kind.from_pretrained(folder, attn_implementation="eager", dtype=dtype).eval()
    theirs.model.layers[0].conv.conv.weight.data.mul_(1.01)
    return theirs


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_end_to_end(kind: str, tmp_path: Path, tiny_tokenizer) -> None:
    """Every method and tune kind, resume, chat, eval, compare, PEFT, merge."""
    found = verify(kind, tmp_path, tiny_tokenizer)
    assert found.exact, found
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {FAMILIES[kind]} (`{kind}`)"))
    assert f"| {', '.join(found.resumed)} |" in line
