"""The types that flow through: frozen, counted, readable."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from luthier.core.types.batch import Batch
from luthier.core.types.examples import Chat, Message, Origin
from luthier.core.types.trees import Node, TokenTree


def test_a_place_reads_as_file_and_line():
    assert str(Origin("a.jsonl", 3)) == "a.jsonl:3"


def test_a_message_leaves_absent_fields_out():
    assert Message("user", "hi").as_dict() == {"role": "user", "content": "hi"}
    assert Message("user", "sum", input="1 2").as_dict() == {"role": "user", "content": "sum\n\n1 2"}
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    assert Message("assistant", "", tool_calls=(call,), name="x").as_dict() == {
        "role": "assistant", "content": "", "tool_calls": [call], "name": "x",
    }  # fmt: skip


def test_a_tree_counts_its_tokens():
    tree = TokenTree((Node((1, 2, 3), (False, False, True)), Node((4,), (True,), 0), Node((5, 6), (True, True), 0)))
    assert (len(tree), tree.trained) == (6, 4)


@pytest.mark.parametrize("value", [Origin(), Message("user", ""), Chat(()), Node((), ()), TokenTree(())])
def test_nothing_can_be_changed(value):
    name = next(iter(value.__dataclass_fields__))
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, 1)


def test_a_batch_moves_with_all_its_tensors():
    ones = torch.ones(2, dtype=torch.int64)
    tensors = ("tokens", "positions", "source", "label", "weight", "tree", "leaf", "leaf_tree", "leaf_end")
    tensors += ("pairs", "ties", "tree_weight")
    batch = Batch(
        **dict.fromkeys(tensors, ones), node_start=(0, 2), node_parent=(-1,), rows=(0,),
        columns={"margin": ones.float()}, real=2,
    )  # fmt: skip
    moved = batch.to(torch.device("meta"))
    tensors = [
        moved.tokens,
        moved.positions,
        moved.source,
        moved.label,
        moved.weight,
        moved.tree,
        moved.columns["margin"],
    ]
    assert all(tensor.is_meta for tensor in tensors)
    assert (moved.node_start, moved.node_parent, moved.rows, moved.real) == ((0, 2), (-1,), (0,), 2)
