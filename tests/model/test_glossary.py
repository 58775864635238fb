"""The arithmetic of docs/glossary.md, as Luthier does it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from luthier.cli import COMMANDS
from luthier.config.model import LoraConfig
from luthier.config.run import fields, flag_of
from luthier.model.adapt.lora_layer import LoraLinear
from luthier.model.adapt.quantize import LEVELS, quantize
from luthier.training.method_table import METHODS

PAGE = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text()
BLOCK = torch.tensor([0.12, 0.57, -0.89, 1.34])


def tables() -> list[dict[str, list[float]]]:
    """The two tables of quantization: each line's name -> its four numbers."""
    parts = PAGE.split("**8 bits, affine**")[1].split("**4 bits, NF4**")
    return [
        {
            line.split("|")[1].strip().partition(",")[0]: [float(cell) for cell in line.split("|")[2:6]]
            for line in part.splitlines()
            if re.match(r"\| \w.*\d", line)
        }
        for part in parts
    ]


def test_lora_of_rank_4_on_512_by_512():
    layer = LoraLinear(nn.Linear(512, 512, bias=False), LoraConfig(rank=4))
    learned = layer.A.numel() + layer.B.numel()
    assert f"4 × (512 + 512) = {learned:,} numbers, {learned / 512**2:.2%}".replace("%", " %") in PAGE
    assert f"{512 * 512:,} numbers" in PAGE
    assert layer.B.abs().max() == 0


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_block_of_four(kind):
    table = tables()[kind == "nf4"]
    made = quantize(BLOCK, kind, block=4, double=False)
    restored = made.dequantize(torch.float32)
    codes = made.tensors()["codes"].flatten()
    if kind == "nf4":
        codes = torch.stack([codes >> 4, codes & 15], dim=1).flatten()
        assert torch.tensor(table["level"]).allclose(LEVELS[codes.long()], atol=5e-5)
        assert torch.tensor(table["divided by 1.34"]).allclose(BLOCK / 1.34, atol=5e-5)
    assert table["value"] == pytest.approx(BLOCK.tolist())
    assert table["code"] == codes.tolist()
    assert table["restored"] == pytest.approx(restored.tolist(), abs=5.1e-5)
    assert table["error"] == pytest.approx((restored - BLOCK).tolist(), abs=5.1e-5)


def test_scale_zero_point_and_errors():
    int8 = quantize(BLOCK, "int8", block=4).tensors()
    assert f"2.23 / 255 = {int8['scale'].item():.4f}" in PAGE
    assert f"= {int8['zero'].item()}   the code of 0" in PAGE
    assert f"half a step, {int8['scale'].item() / 2:.4f}" in PAGE
    largest = [
        (quantize(BLOCK, k, block=4, double=False).dequantize(torch.float32) - BLOCK).abs().max()
        for k in ("int8", "nf4")
    ]
    assert f"the largest error here is {largest[1] / largest[0]:.0f} times" in PAGE


def test_bits_of_a_weight():
    weight = torch.randn(1024, 1024)
    for kind in ("nf4", "int8"):
        assert f"{quantize(weight, kind).bits_per_weight:.2f}" in PAGE


def test_what_it_names_there_is():
    names = set(re.findall(r"luthier ([a-z-]+)", PAGE))
    assert names <= set(COMMANDS)
    flags = {flag.split("=")[0] for flag in re.findall(r"--([\w.]+)", PAGE)}
    assert flags <= {flag_of(name)[2:] for name in fields()}
    assert set(re.findall(r"`--method (\w+)", PAGE)) <= METHODS.keys()
