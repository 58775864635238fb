"""What a policy learns from a reward in 20 steps: every online method of Luthier beside TRL's GRPOTrainer.

    python bench/learns.py [--luthier] [--only grpo rloo] [--rates 3.2e-3 6.4e-3] [--seeds 3]

The task is that of tests/training/rewarded.py: a tiny model, 8 prompts a step with 16 answers each of at most 12 tokens, LoRA rank 16, a
constant rate, no divergence but that of ppo. Both sides have the same models, prompts, rewards and held-out prompts; adapters and answers
are drawn by each. A line tells a reward, what was learned from, who learned and, at each rate, the mean gain over the seeds in units of r,
its standard error, and the least gain of a seed. TRL's best rate gives the figures of which tests/training/test_learns.py asks for half.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path += [str(TESTS), str(TESTS / "training")]

import rewarded as task  # noqa: E402
import torch  # noqa: E402


def tokenizer() -> Any:
    """Words and the end, one token each."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(task.WORDS)}, unk_token=task.WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([AddedToken("<end>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")


def trl(name: str, seed: int, kind: str, scale: str, rate: float) -> torch.nn.Module:
    """The model after TRL's GRPOTrainer with PEFT, its loss the default (dapo's mean over tokens) or grpo's."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    a, b = task.SCALES[scale]
    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(), report_to="none", use_cpu=True, bf16=False, disable_tqdm=True, save_strategy="no",
        logging_strategy="no", gradient_checkpointing=False, lr_scheduler_type="constant", learning_rate=rate, seed=seed, beta=0.0,
        max_steps=task.STEPS, per_device_train_batch_size=task.BATCH * task.SAMPLES, num_generations=task.SAMPLES,
        max_completion_length=task.TOKENS, temperature=1.0, **({"loss_type": "grpo"} if name.endswith("loss") else {}),
    )  # fmt: skip
    asked = [" ".join(task.WORDS[i] for i in ids) for ids in task.prompts(task.STEPS * task.BATCH, seed)]
    trainer = GRPOTrainer(
        model=task.start(seed, "sdpa"), args=settings, train_dataset=Dataset.from_list([{"prompt": text} for text in asked]),
        reward_funcs=lambda completion_ids, **_: [a * task.REWARDS[kind](ids) + b for ids in completion_ids],
        processing_class=tokenizer(),
        peft_config=LoraConfig(r=task.LORA.rank, lora_alpha=task.LORA.alpha, target_modules="all-linear"),
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # its summary
        trainer.train()
    model = task.start(seed)
    model.load_state_dict(trainer.model.merge_and_unload().state_dict())
    return model


def row(learn: Callable[[int, float], torch.nn.Module], kind: str, rates: list[float], seeds: int) -> tuple[str, float]:
    """At each rate the mean gain over the seeds, its standard error and the least; and the greatest standard error of one gain."""
    cells, errors = [], []
    for rate in rates:
        gains, by_prompt = zip(*(task.gain(learn(seed, rate), seed, kind) for seed in range(seeds)), strict=True)
        error = stdev(gains) / seeds**0.5 if seeds > 1 else float("nan")
        cells.append(f"{fmean(gains):6.3f} ± {error:.3f} ({min(gains):6.3f})")
        errors.append(max(by_prompt))
    return "   ".join(cells), max(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--luthier", action="store_true", help="Luthier's methods too")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="of Luthier only these")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    methods = {"trl grpo": trl, "trl grpo loss": trl} if not options.only else {}
    if options.luthier or options.only:
        methods |= dict.fromkeys(options.only or task.VARIANTS, task.learned)
    print(
        f"{options.seeds} seeds; mean gain ± standard error (least) at rate {', '.join(f'{r:g}' for r in options.rates)}"
    )
    worst = 0.0
    for kind in task.REWARDS:
        for scale in task.SCALES:
            for name, learn in methods.items():
                one = lambda seed, rate, learn=learn, name=name: learn(name, seed, kind, scale, rate)  # noqa: B023, E731
                found, error = row(one, kind, options.rates, options.seeds)
                worst = max(worst, error)
                print(f"{kind:7} {scale:9} {name:14} {found}", flush=True)
    print(f"the standard error of one seed's gain over its {task.HELD_OUT} prompts is at most {worst:.3f}")


if __name__ == "__main__":
    main()
