"""Randomness is a function of seed and place."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from luthier.core.seeds import derive, generator, seed_torch


def test_derived_seeds_are_the_hash_of_the_place():
    digest = hashlib.blake2b(b"3\x1forder\x1f7", digest_size=8).digest()
    assert derive(3, "order", 7) == int.from_bytes(digest, "big") // 2
    assert 0 <= derive(0) < 2**63


@pytest.mark.parametrize("places", [[(0, "a", 1), (0, "a1"), (0, "a", 2), (1, "a", 1), (0, "b", 1), (0, 1, "a")]])
def test_places_are_told_apart(places):
    assert len({derive(*place) for place in places}) == len(places)


def test_draws_depend_on_nothing_else():
    first = generator(1, "x").random(8)
    generator(1, "y").random(100)
    np.random.default_rng(5).random(3)
    assert (generator(1, "x").random(8) == first).all()
    assert not (generator(2, "x").random(8) == first).any()


def test_torch_is_seeded():
    seed_torch(1, "dropout", 3)
    first = torch.rand(8)
    torch.rand(5)
    seed_torch(1, "dropout", 3)
    assert torch.equal(torch.rand(8), first)
    seed_torch(1, "dropout", 4)
    assert not torch.equal(torch.rand(8), first)
