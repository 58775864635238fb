"""Requests are answered as an untouched model answers them one by one."""

from __future__ import annotations

import random

import pytest
import torch

from conftest import tiny_model
from luthier.core.errors import InputError, RunError
from luthier.evals import likelihood
from luthier.evals.likelihood import LikelihoodRequest, LikelihoodScorer, windows
from sentences import sentence


def ids(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.randrange(512) for _ in range(count))


def alone(model, request: LikelihoodRequest, room: int) -> tuple[float, bool]:
    """The answer of an unmodified model to one request."""
    whole = (request.context + request.continuation)[-room - 1 :]
    logits = model(torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)[-len(request.continuation) :]
    wanted = torch.tensor(request.continuation)
    return float(logits.gather(-1, wanted[:, None]).sum()), bool((logits.argmax(-1) == wanted).all())


@pytest.mark.parametrize("tokens", [64, 300, 4096])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}], ids=["tied", "untied"])
def test_many_requests_together_are_the_requests_one_by_one(tokens, changes):
    draw = random.Random(1)
    ours, plain = tiny_model(**changes), tiny_model("sdpa", **changes)
    examples = ids(draw, 150)  # longer than a pass of 64: what it holds is remembered
    contexts = [examples + ids(draw, draw.randint(1, 20)) for _ in range(7)] + [ids(draw, 40), (5,)]
    requests = [LikelihoodRequest(c, ids(draw, draw.randint(1, 6))) for c in contexts for _ in range(4)]
    requests += [LikelihoodRequest(contexts[0], (index,)) for index in range(8)]
    with torch.no_grad():
        expected = [alone(plain, request, 512) for request in requests]
    scorer = LikelihoodScorer(ours, 512, tokens)
    for _ in range(2):  # the second time something is remembered from the first
        found = dict(scorer.answer(requests))
        assert sorted(found) == list(range(len(requests)))
        assert [found[i].logp for i in sorted(found)] == pytest.approx([logp for logp, _ in expected], abs=2e-4)
        assert [found[i].greedy for i in sorted(found)] == [greedy for _, greedy in expected]
        assert not any(answer.cut for answer in found.values())


def test_what_is_shared_is_not_computed_again(monkeypatch):
    computed = []
    original = likelihood.hidden_after

    def counted(model, batch, prefix, known, keep):
        computed.append(len(batch.tokens) - known)
        return original(model, batch, prefix, known, keep)

    monkeypatch.setattr(likelihood, "hidden_after", counted)
    draw = random.Random(2)
    examples = ids(draw, 192)
    requests = [LikelihoodRequest(examples + ids(draw, 20), (1,)) for _ in range(40)]
    scorer = LikelihoodScorer(tiny_model(), 512, 256)
    list(scorer.answer(requests[:20]))
    list(scorer.answer(requests[20:]))
    # what the requests share, 192 tokens, once in all; in float32 nothing is padded
    assert sum(computed) <= 192 + 40 * 20
    assert len(computed) > 4


def test_a_greedy_continuation_is_known_as_such():
    model, plain = tiny_model(), tiny_model("sdpa")
    context = (3, 1, 4, 1, 5)
    with torch.no_grad():
        best = int(plain(torch.tensor([context])).logits[0, -1].argmax())
    found = dict(
        LikelihoodScorer(model, 512, 64).answer(
            [LikelihoodRequest(context, (best,)), LikelihoodRequest(context, ((best + 1) % 512,))]
        )
    )
    assert (found[0].greedy, found[1].greedy) == (True, False)


def test_a_request_too_long_loses_its_beginning_and_says_how_much():
    draw = random.Random(3)
    model, plain = tiny_model(), tiny_model("sdpa")
    request = LikelihoodRequest(ids(draw, 90), ids(draw, 7))
    ((_, answer),) = LikelihoodScorer(model, 50, 64).answer([request])
    with torch.no_grad():
        assert answer.logp == pytest.approx(alone(plain, request, 50)[0], abs=1e-4)
    assert answer.cut == 90 + 7 - 51


def test_a_continuation_longer_than_the_context_is_refused():
    with pytest.raises(InputError, match=sentence("document too long", tokens=9)):
        list(LikelihoodScorer(tiny_model(), 8, 64).answer([LikelihoodRequest((1,), (2,) * 9)]))


def test_a_model_that_is_broken_says_so():
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(RunError, match=sentence("probability not a number")):
        list(LikelihoodScorer(model, 512, 64).answer([LikelihoodRequest((1, 2), (3,))]))


def test_windows_predict_every_token_once_with_as_much_before_it_as_fits():
    """The example in the harness's documentation: ten tokens, a context of four."""
    found = list(windows(tuple(range(10)), 99, 4))
    assert found == [
        LikelihoodRequest((99,), (0, 1, 2, 3)),
        LikelihoodRequest((3,), (4, 5, 6, 7)),
        LikelihoodRequest((5, 6, 7), (8, 9)),
    ]
    assert list(windows((), 99, 4)) == []


def test_rolling_sums_the_windows_of_each_text():
    draw = random.Random(4)
    model, plain = tiny_model(), tiny_model("sdpa")
    texts = [ids(draw, 5), ids(draw, 45), ids(draw, 1)]
    found = dict(LikelihoodScorer(model, 20, 64).rolling(texts, 7))
    for index, text in enumerate(texts):
        with torch.no_grad():
            expected = sum(alone(plain, request, 20)[0] for request in windows(text, 7, 20))
        assert found[index] == pytest.approx(expected, abs=1e-4)
