"""From logits to tokens, and from tokens to whole characters.

Shape legend: B sequences, V vocabulary.

Every filter is a floor: a token stays when its probability reaches it. Filters apply in the order of
transformers: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from luthier.core import seeds
from luthier.core.errors import InputError, RunError

Decode = Callable[[Sequence[int]], str]
ROWS = 16  # rows of logits worked on at once on a CPU: what they need stays in its cache
TORN = "�"  # what decoders print for the bytes of an unfinished character


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when a sample ends.

    temperature         0 takes the likeliest token; 1 samples from the model's own distribution
    top_p               keep the fewest tokens whose probability sums to this (Holtzman et al., 2020); 1 keeps all
    top_k               keep the k likeliest tokens; 0 keeps all
    min_p               keep tokens at least this times as likely as the likeliest (Nguyen et al., 2024); 0 keeps all
    repetition_penalty  divides positive logits of tokens already in prompt or answer, multiplies negative ones
                        (Keskar et al., 2019); 1 changes nothing
    max_new_tokens      longest answer in tokens
    stop_ids, stop      tokens and strings that end an answer
    seed                fixes the random numbers of sample (prompt, number), whatever the batch
    n                   samples of each prompt
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 128
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    seed: int = 0
    n: int = 1

    def __post_init__(self) -> None:
        rules = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "more than 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "more than 0"),
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
            "n": (self.n >= 1, "1 or more"),
            "stop": (all(self.stop), "strings of one character or more"),
        }
        for name, (holds, range_) in rules.items():
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)!r}", where="sampling", fix=f"give {range_}")


def random_numbers(sampling: Sampling, prompt: int, number: int, count: int) -> np.ndarray:
    """The random numbers of one sample, one for each of its `count` tokens: float64 in [0, 1)."""
    return seeds.generator(sampling.seed, "sample", prompt, number).random(count)


def draw(
    logits: torch.Tensor, sampling: Sampling, share: torch.Tensor, seen: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose a token for each row of logits [B, V].

    `share` [B] in [0, 1) is the random number of each row: the token drawn is the first at which the
    cumulative distribution exceeds it. `seen` [B, V] marks tokens that the repetition penalty is for.

    Returns token ids [B] and their log-probabilities [B] under the model itself, log_softmax(logits):
    before temperature, penalty and filters, as a scoring pass would give them. Raises RunError when a row
    is not finite.
    """
    rows = ROWS if logits.device.type == "cpu" else len(logits)
    marks = [None] * len(logits) if seen is None else seen.split(rows)
    parts = [
        _draw(x, sampling, u, mark) for x, u, mark in zip(logits.split(rows), share.split(rows), marks, strict=False)
    ]
    ids, logp = zip(*parts, strict=True)
    return torch.cat(ids), torch.cat(logp)


def _draw(
    logits: torch.Tensor, sampling: Sampling, share: torch.Tensor, seen: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    norm = logits.logsumexp(-1, keepdim=True)
    if not bool(norm.isfinite().all()):
        raise RunError(
            "the model's logits are not finite", fix="use a checkpoint from before the loss broke, or float32"
        )
    scores = logits
    if seen is not None:
        penalty = sampling.repetition_penalty
        scores = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature == 0:
        ids = scores.argmax(-1, keepdim=True)
    elif scores is logits and sampling.temperature == 1:
        ids = pick(keep(torch.exp(logits - norm), sampling), share[:, None])
    else:
        ids = pick(keep(torch.softmax(scores / sampling.temperature, -1), sampling), share[:, None])
    return ids[:, 0], (logits.gather(-1, ids) - norm)[:, 0]


def keep(probs: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The probabilities [B, V] with those that top-k, top-p and min-p reject set to zero; rows need not sum to 1.

    Tokens exactly as likely as the last one kept are kept too, so that order in the vocabulary never
    decides (transformers breaks such ties of top-p by the order of its sort).
    """
    floor = torch.zeros_like(probs[:, :1])
    if 0 < sampling.top_k < probs.shape[-1]:
        floor = probs.topk(sampling.top_k).values[:, -1:]
        probs = probs.where(probs >= floor, 0)
    if sampling.top_p < 1:
        floor = torch.maximum(floor, _nucleus(probs, sampling.top_p))
    if sampling.min_p > 0:
        floor = torch.maximum(floor, sampling.min_p * probs.amax(-1, keepdim=True))
    return probs.where(probs >= floor, 0)


def _nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """The probability [B, 1] of the last token among the fewest whose sum reaches top_p of the row's sum.

    Only the likeliest 256 are sorted, eight times more when they do not suffice for some row.
    """
    enough = top_p * probs.sum(-1, keepdim=True)
    size = min(256, probs.shape[-1])
    while True:
        best = probs.topk(size).values
        reached = best.cumsum(-1)
        if size == probs.shape[-1] or bool((reached[:, -1:] >= enough).all()):
            last = torch.searchsorted(reached, enough).clamp(max=size - 1)
            return best.gather(-1, last)
        size = min(8 * size, probs.shape[-1])


def pick(weights: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """The first index at which the running sum of weights [B, V] exceeds share [B, 1] of their total: [B, 1].

    Never an index of weight zero, whatever rounding does: the point searched for stays below the total.
    """
    running = weights.cumsum(-1)
    total = running[:, -1:].contiguous()
    point = torch.minimum(share.to(weights) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(running, point, right=True)


class Text:
    """The text of tokens that come one by one, in whole characters only.

    Only the last few tokens are decoded again, after the tokens before them, so that decoders which
    treat the start of a text apart (SentencePiece) give the same text as for all tokens at once.
    """

    def __init__(self, decode: Decode, stop: tuple[str, ...]) -> None:
        self.text = ""
        self.stopped = False
        self._decode, self._stop = decode, stop
        self._ids: list[int] = []
        self._context = self._fresh = 0  # where the context and the unsettled tokens begin
        self._settled = 0  # characters of text that no later token changes
        self._skip = 0  # characters of the context

    def add(self, token: int) -> None:
        """One more token. Sets `stopped`, and cuts the text, at the first stop string."""
        self._ids.append(token)
        before = len(self.text)
        tail = self._decode(self._ids[self._context :])[self._skip :]
        whole = tail.rstrip(TORN)
        self.text = self.text[: self._settled] + whole
        if whole == tail:
            self._context, self._fresh = self._fresh, len(self._ids)
            self._skip = len(self._decode(self._ids[self._context :]))
            self._settled = len(self.text)
        self._cut(before)

    def _cut(self, before: int) -> None:
        found = [self.text.find(stop, max(0, before - len(stop) + 1)) for stop in self._stop]
        if any(place >= 0 for place in found):
            self.text = self.text[: min(place for place in found if place >= 0)]
            self.stopped = True

    @property
    def safe(self) -> int:
        """How many characters cannot become part of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=0)
        for size in range(min(longest - 1, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-size:]) for stop in self._stop):
                return len(self.text) - size
        return len(self.text)
