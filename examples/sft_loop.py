"""Supervised tuning as a flat loop on Luthier's kernel, to change as you like. It makes the bits of

    luthier train ROWS --data.eval HELD_OUT --train.steps 8 --train.batch 4 --out RUN

Usage: examples/sft_loop.py ROWS OUT [MODEL]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import luthier
from luthier.kernel import (
    RULES,
    LoraConfig,
    Optimizer,
    Packing,
    QuantConfig,
    TextConfig,
    Tokenizer,
    TrainConfig,
    chosen_places,
    encode,
    find_model,
    forward,
    likelihood,
    load_model,
    load_template,
    make_step,
    peak_rate,
    pick_device,
    pick_dtype,
    prepare,
    save_adapter,
    schedule,
    seed_torch,
)

STEPS, BATCH, SEED, TOKENS = 8, 4, 0, 1024


def sft(rows: str, out: Path, model: str = "smollm2-135m") -> None:
    """Tune a LoRA adapter on the conversations in `rows`, and save it in PEFT's format."""
    device = pick_device("auto")
    dtype = pick_dtype("auto", device)
    source = find_model(model)
    loaded = load_model(source, device=device, dtype=dtype)
    tokenizer = Tokenizer(loaded.tokenizer)
    trees = encode(luthier.read(rows), load_template("auto", tokenizer), tokenizer, TextConfig()).trees

    seed_torch(SEED, "adapter")
    shape = LoraConfig()
    tuned = prepare(loaded.model, "lora", shape, QuantConfig())
    settings = TrainConfig()
    optimizer = Optimizer(tuned.parameters, settings, {})
    rate = peak_rate("lora", loaded.config.get_text_config().hidden_size)
    # Tokens of a forward pass change no result but rounding; a new length costs a compilation in bfloat16 on a CPU.
    packing = Packing(TOKENS, 128 if device.type == "cpu" and dtype == torch.bfloat16 else 1)

    tuned.model.train()
    for i in range(STEPS):
        chosen = [trees[place] for place in chosen_places(SEED, "order", len(trees), i * BATCH, (i + 1) * BATCH)]
        step = make_step(chosen, RULES["token"], packing)  # weights sum to 1 over the whole step
        value = 0.0
        for number, batch in enumerate(step.micro):
            seed_torch(SEED, "dropout", i, number)
            batch = batch.to(device)
            loss = likelihood(batch, forward(tuned.model, batch))
            loss.total.backward()  # a sum: no division, however the step is cut
            value += float(loss.total.detach())
        norm = optimizer.clip()
        optimizer.step(rate * schedule(i, STEPS, settings))
        print(f"step {i + 1}: loss {value:.4f}, gradient norm {norm:.3f}")
    out.mkdir(parents=True, exist_ok=True)
    save_adapter(out, tuned.model, model, shape)


if __name__ == "__main__":
    sft(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:4])
