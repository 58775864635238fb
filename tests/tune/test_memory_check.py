"""What a run does without so that it fits, and what it is refused for, by numbers given here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import tiny_config
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.types.trees import Node, TokenTree
from luthier.model import memory
from luthier.model.estimate import Memory
from luthier.tune import memory_check, prepare
from luthier.tune.prepare import EncodedData
from sentences import sentence

CPU = torch.device("cpu")
ROWS = [TokenTree((Node((1,) * 100, (False,) * 90 + (True,) * 10),), row=row) for row in range(8)]


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The choice of a run of a wide model with so many bytes free."""
    config = tiny_config(hidden_size=64, intermediate_size=256, num_hidden_layers=6)
    for module in (memory_check, prepare):
        monkeypatch.setattr(module, "load_config", lambda folder: config)
    texts: Any = SimpleNamespace(
        new_tokens=(), resolved=SimpleNamespace(source=SimpleNamespace(folder=None), adapter=None, quantized=False)
    )

    def choose(free: int, **settings: Any) -> tuple[Memory, bool]:
        monkeypatch.setattr(memory, "available", lambda device: free)
        run = resolve({"data.path": ["rows.jsonl"], "train.tokens": 1024, **settings})
        return memory_check.check_memory(texts, run, EncodedData(ROWS, ROWS), torch.float32, CPU)

    return choose


@pytest.mark.medium
def test_blocks_are_computed_again_where_the_run_would_not_fit_else(chosen: Any, capsys: Any) -> None:
    whole, again = chosen(1 << 40)
    assert not again
    small, again = chosen(whole.needed - 1)
    assert again and small.needed < whole.needed and small.activations < whole.activations / 2
    assert "blocks are recomputed" in capsys.readouterr().err
    assert chosen(1 << 40, **{"train.recompute": "blocks"})[1]
    with pytest.raises(InputError, match=sentence("not enough memory")):
        chosen(small.needed - 1)
    with pytest.raises(InputError, match=sentence("not enough memory")):
        chosen(whole.needed - 1, **{"train.recompute": "none"})


@pytest.mark.medium
def test_passes_are_counted_as_they_are_packed(chosen: Any) -> None:
    """Eight rows of 100 tokens, of which 90 are a prompt that they share: together 170 tokens, not 800."""
    whole, _ = chosen(1 << 40)
    alone, _ = chosen(1 << 40, **{"train.batch": 1})
    assert alone.activations < whole.activations < 2.5 * alone.activations


def test_an_optimizer_that_is_on_the_processor_is_not_brought_there() -> None:
    with pytest.raises(InputError, match=sentence("optimizer on the processor already", where="--train.offload")):
        memory_check.check_offload(resolve({"data.path": ["a"], "train.offload": "optimizer", "device": "cpu"}))
    memory_check.check_offload(resolve({"data.path": ["a"], "device": "cpu"}))
