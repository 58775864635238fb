"""Requests with adapters of their own, in one pass over one base: each gives what it gives with the engine to itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from conftest import tiny_model
from luthier.config.model import LoraConfig
from luthier.core.errors import InputError
from luthier.generate.engine import Engine
from luthier.generate.generate import complete, generate, stream
from luthier.generate.request import Request, Sample
from luthier.generate.sampling import Sampling
from luthier.model.adapt import lora, roles
from luthier.model.adapt.roles import Role
from luthier.model.layers import packed_weights
from sentences import sentence

SHAPES = {
    "small": LoraConfig(rank=4, alpha=4, targets=("q_proj", "v_proj")),
    "wide": LoraConfig(rank=8, alpha=20),
    "dora": LoraConfig(rank=4, alpha=8, dora=True),
}
PROMPTS = [[5, 9, 2], [7], list(range(1, 41)), [3, 3, 3, 8, 1], [60, 61], list(range(1, 30))]
ADAPTERS = ["small", "wide", None, "dora", "wide", "small"]


def decode(ids: Sequence[int]) -> str:
    return "".join(f"<{i}>" for i in ids)


def adapters_of(model: Any) -> dict[str, Role]:
    """Adapters of three shapes, large enough to change every answer."""
    out = {}
    for seed, (name, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(seed)
        for layer in lora.attach(model, shape).values():
            torch.nn.init.normal_(layer.B, std=0.3)
        out[name] = roles.role(model)
        lora.detach(model)
    return out


def requests() -> list[Request]:
    ways = [Sampling(max_new_tokens=9), Sampling(temperature=0.9, max_new_tokens=7, seed=3, n=2)]
    return [
        Request(ids, ways[place % 2], place, adapter=name)
        for place, (ids, name) in enumerate(zip(PROMPTS, ADAPTERS, strict=True))
    ]


def said(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    return [sample.ids for sample in samples]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_requests_with_other_adapters_in_the_same_pass_answer_as_they_do_alone(dtype) -> None:
    model = tiny_model(dtype=dtype)
    adapters = adapters_of(model)
    mixed = complete(model, requests(), decode, adapters=adapters)
    for place, request in enumerate(requests()):
        with roles.playing(model, adapters[request.adapter] if request.adapter else Role({}, {})):
            alone = complete(model, [Request(request.ids, request.sampling, place)], decode)
        found = [sample for sample in mixed if sample.prompt == place]
        assert said(found) == said(alone)
        for one, other in zip(found, alone, strict=True):
            assert one.logp == pytest.approx(other.logp, rel=1e-4)
    sampling = Sampling(temperature=1.0, max_new_tokens=9)
    asked = [Request(PROMPTS[0], sampling, adapter=name) for name in (None, *SHAPES)]
    answers = said(complete(model, asked, decode, adapters=adapters))
    assert len(set(answers)) == 4, "adapters that change nothing would show nothing"


@pytest.mark.parametrize("pack", [False, True])
def test_the_adapters_of_others_change_no_bit(monkeypatch: pytest.MonkeyPatch, pack: bool) -> None:
    """The same passes, once with one adapter alone and once among requests of others: products of one size, equal bits."""
    monkeypatch.setattr(packed_weights, "SMALLEST", 1)  # the layers of a tiny model too
    model = tiny_model()
    adapters = adapters_of(model)
    sampling = Sampling(temperature=1.0, max_new_tokens=12, seed=1)

    def run(names: Sequence[str | None]) -> list[Sample]:
        with Engine(model, decode, rows=8, pack=pack, adapters=adapters) as engine:
            engine.submit(
                [Request([9 + place, 4, 2], sampling, place, adapter=name) for place, name in enumerate(names)]
            )
            return sorted(
                (s.sample(decode) for _ in range(12) for s in engine.step() if s.ended), key=lambda s: s.prompt
            )

    mixed = run(["small", None, "wide", "dora"] * 2)
    for name in (None, *SHAPES):
        alone = run([name] * 8)
        places = [place for place, one in enumerate(["small", None, "wide", "dora"] * 2) if one == name]
        assert len(places) == 2
        for place in places:
            assert mixed[place] == alone[place]


def test_a_common_beginning_is_read_once_for_each_adapter() -> None:
    model = tiny_model()
    adapters = adapters_of(model)
    start, sampling = list(range(100, 130)), Sampling(max_new_tokens=6)
    asked = [
        Request([*start, last], sampling, adapter=name)
        for last, name in ((1, "small"), (2, "wide"), (3, "small"), (4, "wide"))
    ]
    together = complete(model, asked, decode, adapters=adapters)
    with Engine(model, decode, rows=4, adapters=adapters) as engine:
        engine.submit(asked)
        assert [prompt.read for _, _, prompt in engine.waiting] == [30] * 4
        assert len({id(prompt.prefix) for _, _, prompt in engine.waiting}) == 2
    for request, found in zip(asked, together, strict=True):
        assert [found.ids] == said(complete(model, [request], decode, adapters=adapters))


def test_none_is_the_model_as_it_stands_with_the_adapters_on_it() -> None:
    model = tiny_model()
    adapters = adapters_of(model)
    for layer in lora.attach(model, LoraConfig(rank=2, alpha=2, targets=("o_proj",))).values():
        torch.nn.init.normal_(layer.B, std=0.5)
    own, sampling = dict(lora.adapters(model)), Sampling(temperature=1.0, max_new_tokens=8)
    plain = said(generate(model, [PROMPTS[0]], sampling, decode))
    asked = [Request(PROMPTS[0], sampling, adapter=name) for name in (None, "small", "base")]
    found = said(complete(model, asked, decode, adapters=adapters | {"base": Role({}, {})}))
    assert [found[0]] == plain
    with roles.playing(model, adapters["small"]):
        assert [found[1]] == said(generate(model, [PROMPTS[0]], sampling, decode))
    with roles.playing(model, Role({}, {})):
        assert [found[2]] == said(generate(model, [PROMPTS[0]], sampling, decode))
    assert len(set(found)) == 3
    assert dict(lora.adapters(model)) == own, "the model is left as it was"


def test_one_answer_in_pieces_and_an_adapter_that_is_not_there() -> None:
    model = tiny_model()
    adapters = adapters_of(model)
    sampling = Sampling(max_new_tokens=8)
    (whole,) = complete(model, [Request(PROMPTS[0], sampling, adapter="wide")], decode, adapters=adapters)
    assert "".join(stream(model, PROMPTS[0], sampling, decode, adapter="wide", adapters=adapters)) == whole.text
    with pytest.raises(
        InputError,
        match=sentence("unknown name", where="prompt 0", kind="adapter", fix="did you mean 'wide'?"),
    ):
        complete(model, [Request([1], sampling, adapter="wild")], decode, adapters=adapters)
