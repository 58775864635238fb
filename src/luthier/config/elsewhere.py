"""What other programs call our settings: TRL and transformers, PEFT, Axolotl, Unsloth, LLaMA-Factory."""

from __future__ import annotations

from collections.abc import Mapping

from luthier.core.errors import nearest

# setting -> its names elsewhere
NAMES = {
    "model": "model_name_or_path base_model model_name model_id pretrained pretrained_model",
    "out": "output_dir save_dir output",
    "method": "stage trainer algorithm objective",
    "tune": "load_in_4bit adapter use_peft use_lora finetuning_type load_in_8bit full_finetuning lora qlora peft peft_type",
    "dtype": "bf16 fp16 torch_dtype precision mixed_precision tf32",
    "track": "report_to use_wandb wandb_project logging",
    "seed": "random_state data_seed",
    "data.path": "dataset dataset_name datasets dataset_path data_path train_file data_files train_dataset data_file",
    "data.eval": "eval_dataset eval_file validation_file test_datasets test_file val_file",
    "data.holdout": "val_set_size test_size val_size eval_split validation_split",
    "data.columns": "dataset_text_field field_instruction field_output text_field prompt_column text_column",
    "data.limit": "max_samples max_train_samples",
    "data.stream": "streaming",
    "text.max_length": "max_seq_length sequence_len max_length cutoff_len block_size model_max_length max_seq_len",
    "text.template": "chat_template template prompt_template",
    "text.system": "system_prompt default_system system_message",
    "text.train_on": "train_on_inputs train_on_responses_only completion_only_loss assistant_only_loss mask_prompt train_on_prompt",
    "lora.rank": "lora_r lora_rank r rank",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
    "lora.modules_to_save": "modules_to_save lora_modules_to_save additional_target peft_modules_to_save",
    "text.add_tokens": "add_tokens added_tokens new_special_tokens",
    "lora.targets": "lora_target_modules target_modules lora_target lora_target_linear",
    "lora.rslora": "use_rslora peft_use_rslora",
    "lora.dora": "use_dora peft_use_dora",
    "lora.lr_ratio": "loraplus_lr_ratio",
    "quant.kind": "bnb_4bit_quant_type",
    "train.router_loss": "router_aux_loss_coef aux_loss_coef moe_aux_loss_coef",
    "train.lr": "learning_rate lr max_lr peak_lr",
    "train.epochs": "num_train_epochs num_epochs n_epochs epochs max_epochs epoch",
    "train.steps": "max_steps total_steps num_steps max_iters iters",
    "train.batch": "per_device_train_batch_size micro_batch_size batch_size train_batch_size gradient_accumulation_steps "
    "global_batch_size bs",
    "train.schedule": "lr_scheduler_type lr_scheduler scheduler",
    "train.warmup": "warmup_ratio warmup_steps num_warmup_steps",
    "train.optimizer": "optim optimizer_type",
    "train.weight_decay": "weight_decay wd adam_weight_decay",
    "train.clip": "max_grad_norm gradient_clipping grad_clip",
    "train.beta1": "adam_beta1",
    "train.beta2": "adam_beta2",
    "train.checkpoint": "save_steps save_strategy checkpoint_every",
    "train.recompute": "gradient_checkpointing use_gradient_checkpointing activation_checkpointing",
    "train.offload": "fsdp_cpu_offload offload_optimizer offload_param",
    "train.keep": "save_total_limit",
    "eval.every": "eval_steps eval_strategy evaluation_strategy evals_per_epoch",
    "eval.patience": "early_stopping_patience",
    "eval.max_new_tokens": "max_new_tokens max_tokens",
    "eval.temperature": "temperature",
    "preference.beta": "beta dpo_beta pref_beta rl_beta",
    "preference.loss": "loss_type pref_loss dpo_loss",
    "preference.smoothing": "label_smoothing",
    "rollout.samples": "num_generations num_return_sequences",
    "rollout.max_new_tokens": "max_completion_length response_length",
    "policy.kl": "kl_coef init_kl_coef kl_beta",
    "policy.kl_target": "target_kl kl_target",
    "policy.clip": "cliprange clip_range clip_eps cliprange_low epsilon",
    "policy.clip_high": "epsilon_high cliprange_high",
    "policy.epochs": "num_ppo_epochs ppo_epochs num_iterations",
    "policy.minibatches": "num_mini_batches mini_batches",
    "policy.value_weight": "vf_coef",
    "policy.value_clip": "cliprange_value",
    "reward.use": "reward_funcs reward_functions reward_model",
}  # fmt: skip
# What needs no setting here.
NEEDLESS = {
    "packing sample_packing eval_packing eval_sample_packing": "rows are always packed, and none sees another",
    "resume resume_from_checkpoint auto_resume_from_checkpoints": "run the same command again to resume an unfinished run",
    "logging_steps logging_strategy": "every step is logged, in metrics.jsonl of the run",
    "attn_implementation flash_attention flash_attn use_flash_attention_2": "attention is Luthier's own, for packed rows",
    "do_train do_eval": "a run trains, and measures the held-out rows before and after",
    "per_device_eval_batch_size eval_batch_size": "how many rows are measured at once follows from --train.tokens",
    "dataloader_num_workers dataset_num_proc preprocessing_num_workers": "rows are read and tokenized without workers",
    "push_to_hub hub_model_id": "nothing is uploaded",
    "trust_remote_code": "code that comes with a model is never run",
    "deepspeed fsdp": "a run computes on one device",
    "overwrite_output_dir": "give another --out, or remove the folder",
    "save_safetensors": "weights are always written as safetensors",
    "plot_loss": "the report of a run has the curves",
    "overwrite_cache dataset_prepared_path": "no prepared data is kept",
    "pad_to_sequence_len pad_to_max_length group_by_length": "rows are packed without padding",
    "ddp_timeout ddp_find_unused_parameters local_rank": "a run computes on one device",
    "logging_first_step include_num_input_tokens_seen": "every step is logged, with its tokens",
    "model_type tokenizer_type is_llama_derived_model strict": "the model's own config says what it is",
    "remove_unused_columns": "columns that nothing reads are named, and left alone",
    "roles_to_train": "the assistant's turns are learned; --text.train_on",
    "bnb_4bit_compute_dtype": "computed in --dtype",
    "use_liger_kernel liger_rms_norm liger_fused_linear_cross_entropy": "the loss never makes the logits of a whole pass",
    "neftune_noise_alpha noisy_embedding_alpha": "noise on the embeddings (NEFTune) is not offered; against memorizing, "
    "--lora.dropout and --eval.patience",
}
SAYINGS = {name: said for names, said in NEEDLESS.items() for name in names.split()}
SETTINGS = {name: setting for setting, names in NAMES.items() for name in names.split()}


def nearest_setting(name: str, known: Mapping[str, str]) -> tuple[str, str] | None:
    """The setting most like a mistyped `name`, and what it was taken for; None where nothing is close. `known`: every spelling
    of the settings to choose from -> the setting. Names of other programs are looked at too: `lerning_rate` is train.lr."""
    plain = name.lstrip("-").replace("-", "_").lower()
    others = {elsewhere: setting for elsewhere, setting in SETTINGS.items() if setting in known}
    guess = nearest(plain, {**others, **known})
    if guess is None:
        return None
    return known.get(guess) or known[others[guess]], guess


def setting_for(name: str) -> str | None:
    """Our setting for a name of another program's (dashes, case and sections aside), or None."""
    return SETTINGS.get(_plain(name))


def needless(name: str) -> str | None:
    """Why there is no setting for what another program calls so, or None."""
    return SAYINGS.get(_plain(name))


def _plain(name: str) -> str:
    return name.lstrip("-").rpartition(".")[2].replace("-", "_").lower()
