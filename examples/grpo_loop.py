"""Learning from rewards as a flat loop on Luthier's kernel, to change as you like. It makes the bits of

    luthier train ROWS --method grpo --reward exact --data.eval HELD_OUT --out RUN \
        --train.steps 8 --train.batch 4 --rollout.samples 4 --rollout.max_new_tokens 16

Each step samples four answers to each of four prompts, rewards them, and makes the better ones of each prompt likelier
(GRPO, Shao et al. 2024). Usage: examples/grpo_loop.py ROWS OUT [MODEL]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import luthier
from luthier.kernel import (
    RULES,
    LoraConfig,
    Node,
    Optimizer,
    Packing,
    PolicyConfig,
    Prompt,
    QuantConfig,
    Sampling,
    TextConfig,
    Tokenizer,
    TokenTree,
    TrainConfig,
    as_prompts,
    chosen_places,
    derive_seed,
    encode,
    find_model,
    forward,
    generate,
    group_relative,
    grpo,
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

STEPS, BATCH, SAMPLES, LONGEST, SEED, TOKENS = 8, 4, 4, 16, 0, 1024
RATE = 0.25  # of the learning rate that suits supervised tuning


def right(answer: str, reference: str) -> float:
    """The reward: 1 for the row's own answer, 0 for any other."""
    return float(answer.strip() == reference.strip())


def answered(tree: TokenTree, answers: Sequence[Sequence[int]], advantages: Sequence[float]) -> TokenTree:
    """A prompt with its sampled answers as leaves, every token of an answer with the answer's advantage."""
    leaves = [Node(tuple(ids), (True,) * len(ids), 0) for ids in answers]
    column = [value for ids, value in zip(answers, advantages, strict=True) for _ in ids]
    return TokenTree((tree.nodes[0], *leaves), row=tree.row, target_columns={"advantage": column})


def learn(rows: str, out: Path, model: str = "smollm2-135m", reward: Callable[[str, str], float] = right) -> None:
    """Tune a LoRA adapter by the rewards of its own answers to the prompts in `rows`, and save it in PEFT's format."""
    device = pick_device("auto")
    dtype = pick_dtype("auto", device)
    loaded = load_model(find_model(model), device=device, dtype=dtype)
    tokenizer = Tokenizer(loaded.tokenizer)
    template = load_template("auto", tokenizer)
    prompts = [prompt for prompt in as_prompts(luthier.read(rows)) if isinstance(prompt, Prompt)]
    trees = encode(prompts, template, tokenizer, TextConfig()).trees

    seed_torch(SEED, "adapter")
    shape = LoraConfig()
    tuned = prepare(loaded.model, "lora", shape, QuantConfig())
    settings, policy = TrainConfig(schedule="constant"), PolicyConfig(kl=0.0)
    optimizer = Optimizer(tuned.parameters, settings, {})
    rate = RATE * peak_rate("lora", loaded.config.get_text_config().hidden_size)
    packing = Packing(TOKENS, 128 if device.type == "cpu" and dtype == torch.bfloat16 else 1)

    for i in range(STEPS):
        asked = [trees[place] for place in chosen_places(SEED, "prompts", len(trees), i * BATCH, (i + 1) * BATCH)]
        sampling = Sampling(
            temperature=1.0, max_new_tokens=LONGEST, n=SAMPLES, seed=derive_seed(SEED, "rollout", i, 0) % 2**31,
            stop_ids=tuple(sorted(template.stop_ids)), stop=template.stops,
        )  # fmt: skip
        samples = generate(tuned.model, [tree.nodes[0].ids for tree in asked], sampling, tokenizer.decode, batch=64)
        rewards = [reward(sample.text, prompts[asked[sample.prompt].row].answer or "") for sample in samples]
        groups = []
        for number, tree in enumerate(asked):
            own = slice(number * SAMPLES, (number + 1) * SAMPLES)
            advantages = group_relative(rewards[own], scale=True)
            groups.append((any(advantages), answered(tree, [sample.ids for sample in samples[own]], advantages)))
        # Answers that all got the same teach nothing: they are not computed, but count among the answers of the step.
        teaching = [tree for differs, tree in groups if differs] or [groups[0][1]]
        share = len(teaching) / BATCH
        step = make_step(
            teaching, lambda t, share=share: [[share * w for w in row] for row in RULES["answer"](t)], packing
        )

        tuned.model.train()
        for number, batch in enumerate(step.micro):
            seed_torch(SEED, "dropout", i, number)
            batch = batch.to(device)
            grpo(batch, forward(tuned.model, batch), policy).total.backward()
        norm = optimizer.clip()
        optimizer.step(rate * schedule(i, STEPS, settings))
        print(f"step {i + 1}: reward {sum(rewards) / len(rewards):.3f}, gradient norm {norm:.3f}")
    out.mkdir(parents=True, exist_ok=True)
    save_adapter(out, tuned.model, model, shape)


if __name__ == "__main__":
    learn(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:4])
