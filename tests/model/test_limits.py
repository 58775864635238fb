"""What a model can read: its context with rescaled positions, its vocabulary, its kinds of layers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from transformers import GPT2Config, LlamaConfig

from luthier.core.errors import InputError
from luthier.model.folder.limits import check_layers, check_rows, check_vocabulary, context
from luthier.model.folder.tokenizer import load_tokenizer
from sentences import sentence


def test_the_context_counts_positions_that_are_rescaled_beside_it() -> None:
    """vLLM and transformers: YaRN's factor multiplies the original length; Llama 3's own length has it in already."""
    assert context(LlamaConfig(max_position_embeddings=512)) == 512
    assert context(GPT2Config(n_positions=64)) == 64
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 512}
    assert context(LlamaConfig(max_position_embeddings=512, rope_parameters=yarn)) == 2048
    assert context(LlamaConfig(max_position_embeddings=2048, rope_parameters=yarn)) == 2048
    linear = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    assert context(LlamaConfig(max_position_embeddings=512, rope_parameters=linear)) == 1024
    long = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "short_factor": [1.0] * 64, "long_factor": [2.0] * 64,
            "original_max_position_embeddings": 256}  # fmt: skip
    # beyond 256 tokens transformers rotates by the longest row of a pass: rows would change each other
    assert context(LlamaConfig(max_position_embeddings=1024, rope_parameters=long)) == 256
    assert context(LlamaConfig(max_position_embeddings=512, rope_parameters=linear | {"rope_type": "dynamic"})) == 512
    llama3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 256}  # fmt: skip
    assert context(LlamaConfig(max_position_embeddings=2048, rope_parameters=llama3)) == 2048


def test_a_row_longer_than_the_context_is_refused_with_both_numbers() -> None:
    config = LlamaConfig(max_position_embeddings=512)
    check_rows(512, config, where="x", fix="cut it")
    with pytest.raises(InputError, match=sentence("row longer than context", longest="1,404", most=512, fix="cut it")):
        check_rows(1404, config, where="x", fix="cut it")


@pytest.mark.parametrize("special", [True, False])
def test_a_tokenizer_longer_than_the_embedding_is_refused_with_both_numbers(tiny_tokenizer, special: bool) -> None:
    longer = copy.deepcopy(tiny_tokenizer)
    size = len(longer)
    check_vocabulary(longer, size, Path("x"))
    check_vocabulary(longer, size + 64, Path("x"))  # padded
    longer.add_tokens(["<|topic|>"], special_tokens=special)
    with pytest.raises(
        InputError, match=sentence("tokens beyond embedding", tokens=size + 1, rows=size, token="<|topic|>")
    ):
        check_vocabulary(longer, size, Path("x"))


def test_a_placeholder_of_pictures_may_lie_beyond_the_embedding(tiny_tokenizer, tmp_path: Path) -> None:
    """Gemma 3 1B: 262,145 tokens, 262,144 rows."""
    size = len(tiny_tokenizer)
    longer = copy.deepcopy(tiny_tokenizer)
    longer.add_tokens(["<image_soft_token>"], special_tokens=True)
    longer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    named = {"extra_special_tokens": {"image_token": "<image_soft_token>"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    check_vocabulary(load_tokenizer(tmp_path), size, tmp_path)


def test_layers_that_mix_tokens_outside_of_attention_are_named_in_wrappers_too() -> None:
    from transformers import CONFIG_MAPPING

    text = {"layer_types": ["indexed_attention", "full_attention"], "num_hidden_layers": 2}
    wrapped = CONFIG_MAPPING["qwen3_5"](text_config=text)
    with pytest.raises(
        InputError, match=sentence("layers mix tokens", model_type="qwen3_5", layer="indexed_attention")
    ):
        check_layers(wrapped, "config.json")
    check_layers(CONFIG_MAPPING["gemma3"](), "config.json")
    for kind in ("whisper", "bart", "t5"):
        with pytest.raises(InputError, match=sentence("encoder before decoder", model_type=kind)):
            check_layers(CONFIG_MAPPING[kind](), "config.json")
