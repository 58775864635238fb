"""log p(continuation | context) for many requests at once: each token is computed once, the head runs once a place.

Requests are truncated, and long texts cut into windows, as lm-evaluation-harness 0.4.13 does for causal models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from luthier.core.errors import InputError, RunError
from luthier.evals.prefix_forest import Ids, grow, prefix_batches
from luthier.model.forward import logp_of
from luthier.model.layers.prefix import Prefix, hidden_after
from luthier.text.pack import pack

SHAPE = 64  # rows are padded to a multiple in bfloat16, whose kernels are compiled for every new length


@dataclass(frozen=True, slots=True)
class LikelihoodRequest:
    """What is asked: the probability of `continuation` after `context`, both as tokens."""

    context: Ids
    continuation: Ids


@dataclass(frozen=True, slots=True)
class Likelihood:
    """`logp` is summed over the tokens of the continuation, in nats; `greedy` says whether each of them is the
    likeliest where it stands; `cut` counts the tokens of the context that the model could not hold."""

    logp: float
    greedy: bool
    cut: int


class LikelihoodScorer:
    """A model that answers requests. `room` is its context in tokens, `tokens` the most of a forward pass (a
    single request may need more): it bounds memory and changes nothing but rounding.

    What the requests of one pass begin with is remembered for the next, so the weights must stay as they are.
    """

    def __init__(self, model: nn.Module, room: int, tokens: int) -> None:
        self.model, self.room, self.tokens = model, room, tokens
        self._kept = Prefix()

    def forget(self) -> None:
        """Let the next pass depend on nothing that was asked before."""
        self._kept = Prefix()

    @torch.inference_mode()
    def answer(self, requests: Sequence[LikelihoodRequest]) -> Iterator[tuple[int, Likelihood]]:
        """(index, answer) of every request, as they become known. Raises InputError for a continuation that is empty or
        longer than the model's context, RunError when a probability is not a number."""
        inputs = [self._input(request) for request in requests]
        first = [len(ids) - len(request.continuation) for ids, request in zip(inputs, requests, strict=True)]
        weight = next(self.model.parameters())
        device, shape = weight.device, 1 if weight.dtype == torch.float32 else SHAPE
        for load in prefix_batches(inputs, first, self.tokens, self._kept.ids):
            forest = grow(inputs, load.members)
            batch = pack([forest.tree], [()], pad_to=shape, share=False).to(device)
            hidden, self._kept = hidden_after(self.model, batch, self._kept, load.known, load.keep)
            place = [at for i in load.members for at in forest.places(i, first[i], len(inputs[i]))]
            token = [token for i in load.members for token in requests[i].continuation]
            logp, best = logp_of(
                self.model, hidden, torch.tensor(place, device=device) - load.known, torch.tensor(token, device=device)
            )
            yield from self._split(requests, load.members, logp.double().cpu(), best.cpu())

    def rolling(self, texts: Sequence[Ids], prefix: int) -> Iterator[tuple[int, float]]:
        """(index, log p of the whole text) of every text of any length; `prefix` is what its first token follows.

        Every token is predicted once. A text longer than the context is cut into windows, each of which begins with
        the token before it; the last one reaches back as far as it can.
        """
        requests = [(i, request) for i, ids in enumerate(texts) for request in windows(ids, prefix, self.room)]
        sums, left = [0.0] * len(texts), [0] * len(texts)
        for owner, _ in requests:
            left[owner] += 1
        for index, answer in self.answer([request for _, request in requests]):
            owner = requests[index][0]
            sums[owner] += answer.logp
            left[owner] -= 1
            if not left[owner]:
                yield owner, sums[owner]

    def _input(self, request: LikelihoodRequest) -> Ids:
        """What the model reads: all but the last token, the end of it when it is too long."""
        if not request.continuation:  # its probability would be one
            raise InputError("there is nothing to predict", fix="leave the document out")
        if len(request.continuation) > self.room:
            raise InputError(
                f"{len(request.continuation)} tokens are to be predicted at once, the model's context is {self.room}",
                fix="leave the document out",
            )
        return (request.context + request.continuation)[-self.room - 1 : -1]

    def _split(
        self, requests: Sequence[LikelihoodRequest], members: Sequence[int], logp: torch.Tensor, best: torch.Tensor
    ) -> Iterator[tuple[int, Likelihood]]:
        if not bool(logp.isfinite().all()):
            raise RunError("the model gives a probability that is not a number", fix="try --dtype float32")
        sizes = [len(requests[index].continuation) for index in members]
        for index, values, hits in zip(members, logp.split(sizes), best.split(sizes), strict=True):
            request = requests[index]
            cut = max(0, len(request.context) + len(request.continuation) - self.room - 1)
            yield index, Likelihood(float(values.sum()), bool(hits.all()), cut)


def windows(ids: Ids, prefix: int, room: int) -> Iterator[LikelihoodRequest]:
    """The requests that predict each token of a text once; see `Scorer.rolling`."""
    if ids:
        yield LikelihoodRequest((prefix,), ids[:room])
    for start in range(room, len(ids), room):
        end = min(start + room, len(ids))
        yield LikelihoodRequest(ids[end - room - 1 : start], ids[start:end])
