"""Sentence encoders: sentence-transformers' vectors, whatever a text stands beside."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from luthier.core.errors import InputError
from luthier.model.hub import sources
from luthier.model.sentence_encoder import Encoder
from sentences import sentence

TEXTS = ["the cat sat on the mat", "who?", "a red tree and a blue dog ran by the tree and the mat", "yes it is", ""]


@pytest.fixture
def folder(tmp_path, tiny_tokenizer):
    """A small BERT with random weights, as transformers writes it."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=40,
    )  # fmt: skip
    path = tmp_path / "encoder"
    BertModel(config).eval().save_pretrained(path)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None  # sentence-transformers would take a text for a message
    tokenizer.save_pretrained(path)
    return path


def pooling(folder, **modes):
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **modes}))


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.medium
def test_vectors_are_those_of_sentence_transformers(folder, mode):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    pooling(folder, **{{"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[mode]: True})
    theirs = SentenceTransformer(
        modules=[Transformer(str(folder), max_seq_length=12), Pooling(24, pooling_mode=mode), Normalize()], device="cpu"
    )
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    wanted = torch.from_numpy(theirs.encode(TEXTS[:-1]))
    torch.testing.assert_close(Encoder(folder).embed(TEXTS[:-1]), wanted, atol=1e-5, rtol=1e-5)
    saved = folder.parent / "saved"
    theirs.save(str(saved))
    assert (saved / "modules.json").is_file()
    torch.testing.assert_close(Encoder(saved).embed(TEXTS[:-1]), wanted, atol=1e-5, rtol=1e-5)


def test_a_text_has_the_same_vector_alone_and_beside_others(folder):
    encoder = Encoder(folder)
    together = encoder.embed(TEXTS * 9)
    assert encoder.embed([]).shape == (0, 24)
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(together[i], encoder.embed([text])[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together[i], together[i + len(TEXTS)], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[:4].norm(dim=-1), torch.ones(4))


def test_texts_longer_than_the_model_reads_are_cut(folder):
    assert Encoder(folder).longest == 40
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 900}')
    encoder = Encoder(folder)
    assert encoder.longest == 40
    assert torch.isfinite(encoder.embed(["cat " * 500])).all()


def test_what_cannot_be_computed_is_refused(folder):
    pooling(folder, pooling_mode_max_tokens=True, pooling_mode_mean_tokens=False)
    with pytest.raises(InputError, match=sentence("pools otherwise", how="pooling_mode_max_tokens")):
        Encoder(folder)
    pooling(folder, pooling_mode_mean_tokens=True)
    module = "sentence_transformers.models."
    listed = [
        {"type": f"{module}{kind}", "path": f"{i}_{kind}"} for i, kind in enumerate(("Transformer", "Pooling", "Dense"))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(InputError, match=sentence("module not computed", odd="Dense")):
        Encoder(folder)
    (folder / "modules.json").write_text(json.dumps(listed[:2]))
    assert Encoder(folder).pool == "mean"
    (folder / "modules.json").write_text(json.dumps([*listed[:1], {**listed[1], "path": "elsewhere"}]))
    with pytest.raises(InputError, match=sentence("does not say how it pools")):
        Encoder(folder)
    (folder / "modules.json").unlink()
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in tokenizer.items() if k != "pad_token"}))
    with pytest.raises(InputError, match=sentence("not a sentence encoder", reason="…no token to pad with…")):
        Encoder(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(shape | {"num_hidden_layers": 3}))
    with pytest.raises(
        InputError,
        match=sentence("not a sentence encoder", reason="…missing in the weights: encoder.layer.2…"),
    ):
        Encoder(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match=sentence("not a sentence encoder")):
        Encoder(folder)


def test_where_encoders_come_from(folder):
    assert sources.resolve_encoder(str(folder)).folder == folder
    with pytest.raises(InputError, match=sentence("unknown name", fix="did you mean 'all-minilm-l6-v2'?")):
        sources.resolve_encoder("all-minilm-l6-v3")
    with pytest.raises(InputError, match=sentence("encoder writes nothing")):
        sources.resolve("all-minilm-l6-v2")


@pytest.mark.slow
def test_the_embedded_encoder_knows_what_is_alike():
    encoder = Encoder(sources.resolve_encoder("all-minilm-l6-v2").folder)
    vectors = encoder.embed(["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply today."])
    assert sum(p.numel() for p in encoder.model.parameters()) == sources.ENCODERS["all-minilm-l6-v2"].parameters
    assert float(vectors[0] @ vectors[1]) > 0.6
    assert float(vectors[0] @ vectors[2]) < 0.2
