"""Tokens/s of generation: Luthier's and transformers' `generate`, on the same prompts, weights and threads.

    python bench/rollout.py [--model smollm2-135m] [--dtype float32] [--tokens 64] [--batch 1 16 64] [--times 3] [--device cuda]

Both take the likeliest token and never stop early, so both make the same number of tokens; how many are
equal is printed too (in bfloat16, rounding makes the two diverge after a while). Medians of --times.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from luthier.generate.generate import generate
from luthier.generate.sampling import Sampling
from luthier.model.hub.sources import resolve
from luthier.model.load import DTYPES, load

TOPICS = (
    *("rivers", "bread", "violins", "winter", "maps", "bees", "glass", "trains"),
    *("salt", "gardens", "clouds", "chess", "bridges", "tea", "whales", "ink"),
)
ASK = "I am writing a short page for children. Please tell me, in plain words and a few sentences, about {}. {}"
ENDS = ("Begin with a question.", "Say how they are made or found.", "Give one number.", "End with a joke.")


def prompts(tokenizer: Any, count: int) -> list[list[int]]:
    """`count` chats that differ in subject and length."""
    asks = [ASK.format(topic, end) for end in ENDS for topic in TOPICS]
    chats = [[{"role": "user", "content": ask}] for ask in asks[:count]]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def ours(model: Any, tokenizer: Any, ids: list[list[int]], tokens: int) -> list[list[int]]:
    samples = generate(model, ids, Sampling(max_new_tokens=tokens), tokenizer.decode, batch=len(ids))
    return [list(sample.ids) for sample in samples]


def theirs(model: Any, tokenizer: Any, ids: list[list[int]], tokens: int) -> list[list[int]]:
    padded = tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding_side="left").to(model.device)
    out = model.generate(**padded, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, eos_token_id=None)
    rows: list[list[int]] = out[:, padded["input_ids"].shape[1] :].tolist()
    return rows


def rate(work: Callable[[], list[list[int]]], times: int) -> tuple[float, list[list[int]]]:
    """Median tokens/s of so many runs after one that warms up, and what the last run made."""
    work()
    rates = []
    for _ in range(times):
        began = time.perf_counter()
        rows = work()
        rates.append(sum(map(len, rows)) / (time.perf_counter() - began))
    return statistics.median(rates), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()

    source, device, dtype = resolve(args.model), torch.device(args.device), DTYPES[args.dtype]
    own = load(source, device=device, dtype=dtype)
    other = load(source, device=device, dtype=dtype, attention="sdpa")
    own.tokenizer.pad_token = own.tokenizer.pad_token or own.tokenizer.eos_token
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{source.name}, {args.dtype}, {where}, {args.tokens} new tokens")
    print(f"{'batch':>5} {'luthier':>12} {'transformers':>12} {'ratio':>6} {'equal':>6}")
    for batch in args.batch:
        ids = prompts(own.tokenizer, batch)
        fast, a = rate(partial(ours, own.model, own.tokenizer, ids, args.tokens), args.times)
        slow, b = rate(partial(theirs, other.model, own.tokenizer, ids, args.tokens), args.times)
        same = [x == y for row, twin in zip(a, b, strict=True) for x, y in zip(row, twin, strict=True)]
        equal = sum(same) / len(same)
        print(f"{batch:>5} {fast:>10.1f}/s {slow:>10.1f}/s {fast / slow:>6.2f} {equal:>6.1%}", flush=True)


if __name__ == "__main__":
    main()
