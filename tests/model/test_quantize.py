"""Quantized weights: levels and bounds by hand, round trips, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luthier.model.adapt.quantize import (
    LEVELS,
    Kind,
    QuantLinear,
    quantizable,
    quantize,
    quantize_linears,
    stored_bytes,
)


def test_levels_are_the_papers_quantiles() -> None:
    """QLoRA, section 3: 8 quantiles below zero, 0, and 7 above, evenly spaced in probability, scaled to [-1, 1]."""
    outer = (1 - 1 / 32 + 1 - 1 / 30) / 2  # where the tails are cut
    above = torch.special.ndtri(torch.linspace(outer, 0.5, 9, dtype=torch.float64)[:-1])
    below = -torch.special.ndtri(torch.linspace(outer, 0.5, 8, dtype=torch.float64)[:-1])
    levels = torch.cat([below, torch.zeros(1, dtype=torch.float64), above.flip(0)])
    assert torch.allclose(LEVELS.double(), levels / above.max(), atol=2e-7)
    assert len(LEVELS) == 16
    assert LEVELS[7] == 0


def test_one_block_by_hand() -> None:
    # absmax 2: shares 1, -1, 0, 0.1, 0.5, -0.4 -> levels 15, 0, 7, 8 (0.0796), 12 (0.4407; 13 is 0.5626), 3 (-0.3949)
    weight = torch.tensor([2.0, -2.0, 0.0, 0.2, 1.0, -0.8, 0.0, 0.0] * 2)
    got = quantize(weight, "nf4", 16, double=False)
    assert got.codes[:3].tolist() == [15 << 4 | 0, 7 << 4 | 8, 12 << 4 | 3]
    assert got.scales().tolist() == [2.0]
    expected = torch.tensor([2.0, -2.0, 0.0, 2 * LEVELS[8], 2 * LEVELS[12], 2 * LEVELS[3], 0.0, 0.0])
    assert torch.equal(got.dequantize(torch.float32)[:8], expected)


def test_one_affine_block_by_hand() -> None:
    # from -1 to 1.55: scale 2.55 / 255 = 0.01, zero point 100
    weight = torch.tensor([-1.0, 1.55, 0.0, 0.123, *[0.5] * 12])
    got = quantize(weight, "int8", 16)
    assert got.zero is not None
    assert got.zero.tolist() == [100]
    assert got.codes[0, :4].tolist() == [0, 255, 100, 112]
    assert torch.allclose(got.dequantize(torch.float32)[:4], torch.tensor([-1.0, 1.55, 0.0, 0.12]), atol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([16, 64, 128]), st.floats(1e-6, 1e4), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
@pytest.mark.medium
def test_errors_stay_within_their_bounds(seed: int, block: int, size: float, count: int) -> None:
    weight = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * size
    padded = torch.nn.functional.pad(weight, (0, -count % block)).view(-1, block)
    for kind in ("nf4", "int8"):
        got = quantize(weight, kind, block, double=False)
        error = torch.nn.functional.pad((got.dequantize(torch.float32) - weight).abs(), (0, -count % block)).view(
            -1, block
        )
        half_gap = (LEVELS[1:] - LEVELS[:-1]).max() / 2 if kind == "nf4" else 0.5
        assert (error <= (half_gap * got.scales() * 1.0001)[:, None]).all()
        assert (got.dequantize(torch.float32)[padded.view(-1)[:count] == 0] == 0).all()


def test_double_quantization_moves_scales_by_half_a_step() -> None:
    torch.manual_seed(0)
    weight = torch.randn(256, 512)
    plain, double = quantize(weight, double=False), quantize(weight, double=True)
    assert torch.equal(plain.codes, double.codes)
    scales = plain.scales()
    step = (scales.max() - scales.min()) / 255
    assert (double.scales() - scales).abs().max() <= step / 2 * 1.01
    assert not torch.equal(double.scales(), scales)


def test_bits_per_weight() -> None:
    weight = torch.randn(512, 512)  # 4096 blocks of 64, whose scales make 16 blocks of 256
    assert quantize(weight, "nf4", 64, double=False).bits_per_weight == 4 + 32 / 64
    assert quantize(weight, "nf4", 64, double=True).bits_per_weight == 4 + 8 / 64 + 40 / (64 * 256) + 32 / 512**2
    assert quantize(weight, "int8", 64).bits_per_weight == 8 + 40 / 64


@pytest.mark.parametrize("shape", [(7, 5), (64, 64), (3, 1000)])
@pytest.mark.parametrize(("kind", "double"), [("nf4", True), ("nf4", False), ("int8", True)])
def test_stored_bytes_is_what_is_stored(shape: tuple[int, int], kind: Kind, double: bool) -> None:
    got = quantize(torch.randn(shape), kind, 32, double)
    assert sum(t.nbytes for t in got.tensors().values()) == stored_bytes(shape[0] * shape[1], kind, 32, double)
    assert got.dequantize(torch.float32).shape == shape


def test_zeros_and_constants_survive() -> None:
    for value in (0.0, 0.25, -3.0):
        weight = torch.full((4, 64), value)
        assert torch.equal(quantize(weight, "nf4", 64, double=False).dequantize(torch.float32), weight)
        assert torch.allclose(quantize(weight, "nf4").dequantize(torch.float32), weight)
        assert torch.allclose(quantize(weight, "int8").dequantize(torch.float32), weight)


def test_sixteen_bits_are_rounded_once() -> None:
    got = quantize(torch.randn(64, 640))
    assert torch.equal(got.dequantize(torch.bfloat16), got.dequantize(torch.float32).to(torch.bfloat16))


@pytest.mark.parametrize("chunk", [64, 128, 1 << 18])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(10, 50)
    whole = quantize(weight, "nf4", 16).dequantize(torch.float32)
    monkeypatch.setattr("luthier.model.adapt.quantize.CHUNK", chunk)
    assert torch.equal(quantize(weight, "nf4", 16).dequantize(torch.float32), whole)


@pytest.mark.parametrize(("kind", "double"), [("nf4", True), ("nf4", False), ("int8", True)])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_and_gradient_are_those_of_the_expanded_weight(kind: Kind, double: bool, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 20, bias=bias).requires_grad_(False)
    layer = QuantLinear(linear, kind, 16, double)
    linear.weight.copy_(layer.dequantize())
    x, y = (torch.randn(2, 5, 48, requires_grad=True) for _ in range(2))
    y.data.copy_(x.data)
    out, expected = layer(x), linear(y)
    assert torch.equal(out, expected)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    expected.backward(upstream)
    assert x.grad is not None
    assert y.grad is not None
    assert torch.equal(x.grad, y.grad)


def test_the_expanded_weight_is_not_kept() -> None:
    layer = QuantLinear(nn.Linear(64, 64, bias=False).requires_grad_(False), "nf4", 64, True)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(3, 64, requires_grad=True))
    assert kept == []


def test_layers_are_replaced_but_for_the_head() -> None:
    model = nn.Sequential()
    model.add_module("block", nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32, bias=False)))
    model.add_module("lm_head", nn.Linear(32, 100))
    assert list(quantizable(model)) == ["block.0", "block.2"]
    before = model(torch.ones(1, 64))
    assert quantize_linears(model, "int8") == 2
    assert type(model.lm_head) is nn.Linear
    assert [name for name, _ in model.named_parameters()] == ["block.0.bias", "lm_head.weight", "lm_head.bias"]
    after = model(torch.ones(1, 64))
    assert 0 < (after - before).abs().max() < 0.02


def test_state_dict_round_trip() -> None:
    a, b = (QuantLinear(nn.Linear(64, 64), "nf4", 64, True) for _ in range(2))
    b.load_state_dict(a.state_dict())
    assert torch.equal(a.dequantize(), b.dequantize())
