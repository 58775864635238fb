"""The optimizer against torch's AdamW; master weights; 8-bit state; schedules by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luthier.config.training import TrainConfig
from luthier.training import optim
from luthier.training.optim import Optimizer, schedule


def descend(optimizer, weight, target, steps=30, lr=1e-2):
    for _ in range(steps):
        ((weight.float() - target) ** 2).sum().backward()
        optimizer.step(lr)


def test_equal_to_torch_adamw():
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(20, 7)), None
    theirs = nn.Parameter(ours.detach().clone())
    target = torch.randn(20, 7)
    optimizer = Optimizer({"w": ours}, TrainConfig(weight_decay=0.1), {})
    reference = torch.optim.AdamW([theirs], lr=1e-2, weight_decay=0.1)
    for _ in range(25):
        ((ours - target) ** 2).sum().backward()
        optimizer.step(1e-2)
        ((theirs - target) ** 2).sum().backward()
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_vectors_are_not_decayed_and_rates_multiply():
    matrix, vector, fast = (nn.Parameter(torch.ones(*shape)) for shape in ((2, 2), (3,), (2, 2)))
    optimizer = Optimizer({"m": matrix, "v": vector, "f": fast}, TrainConfig(weight_decay=0.5), {"f": 4.0})
    for p in (matrix, vector, fast):
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    assert matrix[0, 0].item() == pytest.approx(1 - 0.1 * 0.5)
    assert fast[0, 0].item() == pytest.approx(1 - 0.4 * 0.5)
    assert vector.tolist() == [1, 1, 1]


def test_small_updates_survive_in_bfloat16():
    """Each update is far below half a step of bfloat16 at 1.0; only a float32 master can add them up."""
    weight = nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = Optimizer({"w": weight}, TrainConfig(), {})
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimizer.step(1e-4)
    assert weight[0, 0].item() == pytest.approx(0.98, abs=0.005)


def test_gradients_of_16_bits_are_cast_a_few_at_a_time_with_the_same_bits(monkeypatch):
    """All float32 copies at once would take twice the gradients' memory again."""
    found, groups = [], []
    update = optim.Adam.update
    monkeypatch.setattr(
        optim.Adam, "update", staticmethod(lambda group, *rest: (groups.append(len(group)), update(group, *rest)))
    )
    for most in (0, 1 << 30):
        monkeypatch.setattr(optim, "CAST", most)
        torch.manual_seed(0)
        weights = {str(i): torch.nn.Parameter(torch.randn(8, 8, dtype=torch.bfloat16)) for i in range(5)}
        optimizer = Optimizer(weights, TrainConfig(), {})
        for weight in weights.values():
            weight.grad = torch.randn_like(weight)
        optimizer.step(1e-2)
        found.append(list(optimizer.masters.values()))
    assert groups == [1, 1, 1, 1, 1, 5]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_eight_bit_state_learns_like_adamw_in_a_quarter_of_the_memory():
    torch.manual_seed(0)
    start, target = torch.randn(64, 64), torch.randn(64, 64)
    ends, sizes = [], []
    for kind in ("adamw", "adamw8bit"):
        weight = nn.Parameter(start.clone())
        optimizer = Optimizer({"w": weight}, TrainConfig(optimizer=kind), {})
        descend(optimizer, weight, target, steps=150)
        ends.append(float(((weight.detach() - target) ** 2).mean()))
        sizes.append(sum(t.nbytes for t in optimizer.tensors().values()))
    started = float(((start - target) ** 2).mean())
    assert ends[1] < 1.1 * ends[0] + 0.01 * started
    assert sizes[1] < 0.27 * sizes[0]


def test_eight_bit_state_never_explodes_on_values_of_very_different_size():
    weight = nn.Parameter(torch.zeros(256))
    optimizer = Optimizer({"w": weight}, TrainConfig(optimizer="adamw8bit"), {})
    scales = torch.logspace(-8, 2, 256)
    for i in range(20):
        weight.grad = scales * (1 if i % 2 else 0.5)
        optimizer.step(1e-3)
    assert weight.abs().max() <= 20 * 1e-3 * 1.01


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_state_goes_on_with_the_same_bits(kind, dtype):
    torch.manual_seed(0)
    target = torch.randn(8, 40)
    first = nn.Parameter(torch.zeros(8, 40, dtype=dtype))
    optimizer = Optimizer({"w": first}, TrainConfig(optimizer=kind), {})
    descend(optimizer, first, target, 5)
    saved = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    second = nn.Parameter(first.detach().clone())
    resumed = Optimizer({"w": second}, TrainConfig(optimizer=kind), {})
    resumed.load(saved, optimizer.t)
    descend(optimizer, first, target, 5)
    descend(resumed, second, target, 5)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(optimizer.tensors().values(), resumed.tensors().values(), strict=True))


def test_clipping_returns_the_norm_before_and_leaves_small_gradients_alone():
    weight = nn.Parameter(torch.zeros(3))
    optimizer = Optimizer({"w": weight}, TrainConfig(clip=1.0), {})
    weight.grad = torch.tensor([3.0, 0.0, 4.0])
    assert optimizer.clip() == pytest.approx(5.0)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.0, 0.8]))
    assert optimizer.clip() == pytest.approx(1.0)
    weight.grad = torch.tensor([float("nan"), 0.0, 0.0])
    assert optimizer.clip() != optimizer.clip()


def test_schedules_by_hand():
    linear = TrainConfig(schedule="linear", warmup=0.2)
    assert [schedule(i, 10, linear) for i in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert schedule(9, 10, linear) == pytest.approx(1 / 8)
    cosine = TrainConfig(schedule="cosine", warmup=0.0)
    assert [schedule(i, 4, cosine) for i in (0, 2)] == pytest.approx([1.0, 0.5])
    assert schedule(7, 10, TrainConfig(schedule="constant", warmup=0.0)) == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
def test_an_optimizer_at_home_gives_the_same_bits_and_the_same_files(kind, dtype):
    """`train.offload optimizer`, from the processor to itself: moments and copies at home, weights where they were."""
    torch.manual_seed(0)
    start = torch.randn(8, 300).to(dtype)
    here, away = (torch.nn.Parameter(start.clone()) for _ in range(2))
    config = TrainConfig(optimizer=kind)
    plain, offloaded = Optimizer({"w": here}, config, {}), Optimizer({"w": away}, config, {}, torch.device("cpu"))
    assert offloaded.learned_copy("w", away).data_ptr() != away.data_ptr()
    for step in range(3):
        grad = torch.randn(8, 300).to(dtype)
        here.grad, away.grad = grad.clone(), grad.clone()
        plain.step(1e-3)
        offloaded.step(1e-3)
        assert torch.equal(here, away), step
    saved, other = plain.tensors(), offloaded.tensors()
    assert saved.keys() == other.keys() and all(torch.equal(saved[name], other[name]) for name in saved)
    again = torch.nn.Parameter(here.detach().clone())  # each goes on from the other's files
    resumed = Optimizer({"w": again}, config, {}, torch.device("cpu"))
    resumed.load(saved, 3)
    here.grad, again.grad = torch.ones_like(here), torch.ones_like(again)
    plain.step(1e-3)
    resumed.step(1e-3)
    assert torch.equal(here, again)
