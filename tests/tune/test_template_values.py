"""Values for the template: trained with, kept with the run, and exported."""

from __future__ import annotations

import json

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.types.examples import Message
from luthier.runs.locate import resolve_model
from luthier.runs.open import open_model
from luthier.runs.tokenizer_and_template import open_text_format
from luthier.tune.train import run
from sentences import sentence

SOURCE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and enable_thinking is false %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    (folder / "own.jinja").write_text(SOURCE)
    rows = [{"prompt": f"the cat {i}", "completion": f"dog {i}"} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = resolve(
        {
            "model": str(tiny_folder), "data.path": [str(folder / "rows.jsonl")], "out": str(folder / "run"),
            "text.template": str(folder / "own.jinja"), "text.template_kwargs": {"enable_thinking": False},
            "train.steps": 1, "data.holdout": 0, "eval.samples": 0, "eval.forgetting": False, "threads": 1, "device": "cpu",
        }
    )  # fmt: skip
    run(config)
    return folder / "run", config


ASK = [Message("user", "the cat")]
ASKED = "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n<think></think>"


def test_a_run_is_asked_with_the_values_it_was_trained_with(trained):
    folder, _config = trained
    assert resolve_model(str(folder)).config.text.template_kwargs == {"enable_thinking": False}
    assert open_model(str(folder)).template.render(ASK, prompt=True) == ASKED


def test_a_run_from_a_run_keeps_them(trained):
    folder, config = trained
    text = config.text.model_copy(update={"template": "auto", "template_kwargs": {}})
    assert open_text_format(config.model_copy(update={"model": str(folder), "text": text})).template.kwargs == {
        "enable_thinking": False
    }


def test_transformers_asks_with_them_too(trained):
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(trained[0] / "adapter")
    asked = [message.as_dict() for message in ASK]
    assert fast.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == ASKED


def test_a_value_that_the_template_does_not_read_is_refused_before_training(trained):
    _, config = trained
    text = config.text.model_copy(update={"template_kwargs": {"think": True}})
    with pytest.raises(
        InputError, match=sentence("template does not read", where="--text.template_kwargs", value="think")
    ):
        run(config.model_copy(update={"text": text, "out": None}))
