"""Loss and gradient of sft against TRL's SFTTrainer on the same rows."""

from __future__ import annotations

import copy

import pytest
import torch

from conftest import gradient, tiny_model
from luthier.config.data import TextConfig
from luthier.core.types.examples import Chat, Message
from luthier.methods.likelihood import likelihood
from luthier.model.forward import forward
from luthier.text.encode import encode
from luthier.text.loss_weights import RULES
from luthier.text.template import load_template
from luthier.text.tokenizer import Tokenizer
from luthier.training.steps import Packing, make_step

ROWS = [
    ("what is it", " the cat"), ("who ran on the mat", " a red dog and a blue dog"), ("yes or no", " no"),
    ("the tree is", " by the mat, and two cats sat on it"),
]  # fmt: skip


@pytest.mark.parametrize("tokens", [16, 4096], ids=["many micro-batches", "one"])
@pytest.mark.medium
def test_sft_equals_trl(tiny_tokenizer, tmp_path, tokens):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = tiny_model("sdpa")
    ours = tiny_model("luthier")
    settings = SFTConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, per_device_train_batch_size=len(ROWS),
        max_steps=1, gradient_checkpointing=False, disable_tqdm=True, shuffle_dataset=False,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": p, "completion": c} for p, c in ROWS])
    trainer = SFTTrainer(model=model, args=settings, train_dataset=rows, processing_class=copy.deepcopy(tiny_tokenizer))
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.model.zero_grad()
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()

    tokenizer = Tokenizer(tiny_tokenizer)
    chats = [Chat((Message("user", p), Message("assistant", c))) for p, c in ROWS]
    trees = encode(chats, load_template("plain", tokenizer), tokenizer, TextConfig()).trees
    value = 0.0
    for micro in make_step(trees, RULES["token"], Packing(tokens)).micro:
        loss = likelihood(micro, forward(ours, micro)).total
        loss.backward()
        value += float(loss.detach())
    assert value == pytest.approx(float(theirs.detach()), rel=2e-6)
    a, b = gradient(ours), gradient(trainer.model)
    assert float((a - b).norm() / b.norm()) < 1e-5
    assert float(b.norm()) > 0


def test_a_swapped_sign_would_be_seen():
    """The loss falls when the trained tokens become likelier: a check of sign and scale by hand."""
    from luthier.core.types.batch import Output
    from luthier.core.types.trees import Node, TokenTree
    from luthier.text.pack import pack

    batch = pack([TokenTree((Node((1, 2, 3), (False, True, True)),))], [[0.25, 0.75]])
    loss = likelihood(batch, Output(torch.tensor([-1.0, -3.0])))
    assert float(loss.total) == pytest.approx(0.25 * 1 + 0.75 * 3)
    assert loss.metrics["nll"] == (4.0, 2.0)
