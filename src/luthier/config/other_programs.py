"""Axolotl, LLaMA-Factory and TRL: how their files of settings are known, and what they do where a file is silent."""

from __future__ import annotations

from typing import Any

AXOLOTL, FACTORY, TRL = "Axolotl", "LLaMA-Factory", "TRL"
# Lines that only one of the programs has.
MARKS = {
    AXOLOTL: ("base_model", "micro_batch_size", "sequence_len", "datasets", "lora_target_linear"),
    FACTORY: ("stage", "finetuning_type", "cutoff_len", "lora_target", "dataset_dir", "quantization_bit"),
}
# What these programs do where their file is silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    AXOLOTL: {"tune": "full", "train.batch": 1, "data.holdout": 0.0, "train.warmup": 0.03},
    FACTORY: {
        "tune": "lora", "lora.rank": 8, "train.epochs": 3.0, "train.batch": 8, "train.lr": 5e-5, "train.schedule": "linear",
        "train.warmup": 0.0, "text.max_length": 2048, "data.holdout": 0.0,
    },
    TRL: {
        "tune": "full", "lora.dropout": 0.05, "train.epochs": 3.0, "train.batch": 8, "train.schedule": "linear", "train.warmup": 0.0,
        "data.holdout": 0.0,
    },
}  # fmt: skip
TRL_RATES = {"sft": 2e-5, "reward": 1e-4} | dict.fromkeys(("dpo", "kto", "grpo"), 1e-6)  # of its trainers
ONLINE = ("ppo", "grpo")
VARIANTS = ("grpo", "dr_grpo", "dapo", "gspo", "rloo")  # of GRPO, as others call them too
METHODS = {
    "sft": {"method": "sft"},
    "pt": {"method": "cpt"},
    "rm": {"method": "reward"},
    "reward": {"method": "reward"},
    "ppo": {"method": "ppo"},
    "grpo": {"method": "grpo"},
    "dpo": {"method": "dpo"},
    "sigmoid": {"method": "dpo"},
    "ipo": {"method": "dpo", "preference.loss": "ipo"},
    "hinge": {"method": "dpo", "preference.loss": "hinge"},
    "robust": {"method": "dpo", "preference.loss": "robust"},
    "kto": {"method": "kto"},
    "orpo": {"method": "orpo"},
    "simpo": {"method": "simpo"},
}
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}
