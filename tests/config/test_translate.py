"""Settings that were written for other programs: every line becomes a setting, is not needed, or is listed as not followed."""

from __future__ import annotations

import json

import pytest

from luthier.config.other_programs import DEFAULTS, METHODS
from luthier.config.resolve import resolve
from luthier.config.run import fields
from luthier.config.translate import translate
from luthier.core.errors import InputError
from sentences import sentence

AXOLOTL = {
    "base_model": "models/base",
    "load_in_4bit": True,
    "adapter": "qlora",
    "datasets": [{"path": "rows.jsonl", "type": "alpaca"}, {"path": "owner/hub-name", "field_messages": "dialog"}],
    "val_set_size": 0.05,
    "sequence_len": 2048,
    "sample_packing": True,
    "lora_r": 8,
    "lora_target_linear": True,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_epochs": 2,
    "optimizer": "paged_adamw_8bit",
    "learning_rate": "2e-4",
    "bf16": "auto",
    "wandb_project": None,
    "warmup_steps": 10,
    "chat_template": "chatml",
    "frobnicate": 3,
}
FACTORY = {
    "model_name_or_path": "models/base",
    "stage": "dpo",
    "pref_loss": "ipo",
    "pref_beta": 0.2,
    "finetuning_type": "lora",
    "lora_target": "q_proj,v_proj",
    "dataset": "mine",
    "cutoff_len": 512,
    "max_steps": 100,
    "warmup_steps": 10,
    "bf16": True,
}


def written(made):
    """The settings as a run has them."""
    return resolve(made.settings)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    return tmp_path / "settings.yaml"


def test_a_file_of_axolotl(file):
    made = translate(AXOLOTL, file)
    config = written(made)
    assert made.program == "Axolotl"
    assert (config.tune, config.quant.kind, config.lora.rank, config.lora.targets) == (
        "qlora",
        "nf4",
        8,
        ("all-linear",),
    )
    assert (config.train.batch, config.train.epochs, config.train.lr, config.train.optimizer) == (
        8,
        2,
        2e-4,
        "adamw8bit",
    )
    assert (config.text.max_length, config.data.holdout, config.data.path) == (
        2048,
        0.05,
        (str(file.parent / "rows.jsonl"),),
    )
    assert config.data.columns == {}  # that of a file which is not here
    assert list(made.needless) == ["sample_packing: true"]
    assert [line.partition(":")[0] for line in made.left] == [
        "warmup_steps",
        "data.path",
        "chat_template",
        "frobnicate",
    ]


def test_a_file_of_llama_factory(file):
    (file.parent / "data").mkdir()
    (file.parent / "data" / "mine.json").write_text("[]")
    columns = {"prompt": "question", "chosen": "chosen", "rejected": "worse"}
    info = {"mine": {"file_name": "mine.json", "ranking": True, "columns": columns}}
    (file.parent / "data" / "dataset_info.json").write_text(json.dumps(info))
    made = translate(FACTORY, file)
    config = written(made)
    assert made.program == "LLaMA-Factory"
    assert (config.method, config.preference.loss, config.preference.beta, config.dtype) == (
        "dpo",
        "ipo",
        0.2,
        "bfloat16",
    )
    assert config.data.path == (str(file.parent / "data" / "mine.json"),)
    assert config.data.columns == {"instruction": "question", "rejected": "worse"}
    assert config.train.warmup == 0.1  # 10 of 100 steps
    assert (config.lora.targets, config.lora.rank, config.lora.alpha) == (
        ("q_proj", "v_proj"),
        8,
        16,
    )  # silent: 8, twice 8
    assert (config.train.lr, config.train.batch, config.train.schedule) == (5e-5, 8, "linear")  # as it does by default
    assert "train.lr: 5e-05" in made.assumed and not made.left


def test_a_file_of_trl(file):
    settings = {
        "model_name_or_path": "m",
        "dataset_name": "rows.jsonl",
        "use_peft": True,
        "lora_r": 4,
        "beta": 0.1,
        "method": "grpo",
    }
    made = translate(settings, file)
    config = written(made)
    assert (made.program, config.tune, config.lora.rank, config.policy.kl) == ("TRL", "lora", 4, 0.1)


def test_without_an_adapter_all_weights_learn_and_no_adapter_is_set(file):
    full = translate({"base_model": "m", "micro_batch_size": 2}, file)
    assert full.settings["tune"] == "full" and not any(name.startswith("lora.") for name in full.settings)
    frozen = translate({"stage": "sft", "finetuning_type": "freeze", "freeze_trainable_layers": 3}, file)
    assert frozen.settings["tune"] == "last:3"


def test_columns_of_one_of_several_files_carry_its_name(file):
    (file.parent / "more.jsonl").write_text('{"q": "a", "a": "b"}\n')
    entries = [{"path": "rows.jsonl"}, {"path": "more.jsonl", "type": {"field_instruction": "q", "field_output": "a"}}]
    made = translate({"base_model": "m", "datasets": entries}, file)
    more = file.parent / "more.jsonl"
    assert made.settings["data.columns"] == {f"{more}:instruction": "q", f"{more}:output": "a"}


def test_raw_text_is_learned_by_cpt(file):
    entries = [{"path": "rows.jsonl", "type": "completion", "field": "output"}]
    made = translate({"base_model": "m", "datasets": entries}, file)
    assert (made.settings["method"], made.settings["data.columns"]) == ("cpt", {"text": "output"})


@pytest.mark.parametrize(("key", "value"), [("rl", "gdpo"), ("stage", "mystery")])
def test_a_way_of_learning_that_is_not_known_is_refused(file, key, value):
    with pytest.raises(InputError, match=sentence("unknown name", where=f"{file}: {key}", kind="method", name=value)):
        translate({key: value}, file)


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        (
            {"rl": "grpo", "temperature": 0.9, "loss_type": "dr_grpo"},
            {"rollout.temperature": 0.9, "policy.variant": "dr_grpo"},
        ),
        ({"lora_target_linear": True, "lora_target_modules": ["q_proj"]}, {"lora.targets": ["all-linear", "q_proj"]}),
        ({"lora_target_linear": False, "lora_target_modules": ["q_proj"]}, {"lora.targets": ["q_proj"]}),
        ({"dtype": "float32"}, {"dtype": "float32"}),
        ({"assistant_only_loss": True}, {"text.train_on": "assistant"}),
        ({"assistant_only_loss": False}, {"text.train_on": "all"}),
        ({"train_on_inputs": False}, {"text.train_on": "assistant"}),
        ({"optim": "adamw_torch_fused"}, {"train.optimizer": "adamw"}),
    ],
)
def test_lines_that_mean_more_than_a_name(file, lines, settings):
    made = translate(lines, file)
    assert {name: made.settings[name] for name in settings} == settings
    assert not made.left


@pytest.mark.parametrize(
    "lines",
    [
        {"temperature": 0.9}, {"optim": "schedule_free_adamw"}, {"data_seed": 3}, {"bnb_4bit_quant_type": "fp4"}, {"fp16": True},
        {"val_set_size": 500}, {"micro_batch_size": "auto"}, {"lora_r": "many", "adapter": "lora"}, {"eval_steps": 0.25},
    ],
)  # fmt: skip
def test_lines_that_cannot_be_followed_are_listed(file, lines):
    assert len(translate(lines, file).left) == 1


@pytest.mark.parametrize(
    "lines", [{"save_strategy": "epoch"}, {"load_in_8bit": False}, {"tf32": False}, {"bf16": False}, {"packing": True}]
)
def test_lines_that_need_nothing_are_listed_too(file, lines):
    made = translate(lines, file)
    assert len(made.needless) == 1 and not made.left and not made.taken


def test_weights_of_three_bits_are_refused(file):
    with pytest.raises(InputError, match=sentence("weights of other bits", where=f"{file}: quantization_bit", bits=3)):
        translate({"quantization_bit": 3}, file)


def test_raw_text_and_held_out_rows_of_llama_factory(file):
    (file.parent / "sets").mkdir()
    info = {"mine": {"file_name": "a.json", "columns": {"prompt": "body"}}, "held": {"file_name": "b.json"}}
    for name in ("a.json", "b.json"):
        (file.parent / "sets" / name).write_text("[]")
    (file.parent / "sets" / "dataset_info.json").write_text(json.dumps(info))
    made = translate({"stage": "pt", "dataset": "mine", "eval_dataset": "held", "dataset_dir": "sets"}, file)
    assert made.settings["data.columns"] == {"text": "body"}
    assert made.settings["data.eval"] == [str(file.parent / "sets" / "b.json")]


def test_tables_name_settings_that_there_are():
    for settings in (*DEFAULTS.values(), *METHODS.values()):
        assert settings.keys() <= fields().keys()


def test_data_may_be_a_file_in_yaml():
    assert resolve({"data": "rows.jsonl"}).data.path == ("rows.jsonl",)
    assert resolve({"data": ["a.jsonl", "b.jsonl"]}).data.path == ("a.jsonl", "b.jsonl")
