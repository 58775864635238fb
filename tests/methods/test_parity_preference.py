"""Loss and gradient of the preference methods against TRL's trainers, each on the trainer's own batch.

The reference is another model than the policy, so no ratio is 0.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch

from conftest import tiny_config, tiny_model
from luthier.config.data import TextConfig
from luthier.config.resolve import resolve
from luthier.config.training import PreferenceConfig
from luthier.core.types.examples import Labelled, Message, Preference
from luthier.core.types.trees import Node, TokenTree
from luthier.model.adapt import heads
from luthier.model.forward import forward
from luthier.text.encode import encode
from luthier.text.loss_weights import RULES
from luthier.text.template import load_template
from luthier.text.tokenizer import Tokenizer
from luthier.training import annotate
from luthier.training.method_table import METHODS
from luthier.training.steps import Packing, make_step
from luthier.tune.evaluator import loss_of

PAIRS = [
    ("what is it", " the cat", " a blue tree and a red tree"), ("who ran on the mat", " a red dog and a blue dog", " no"),
    ("yes or no", " no", " yes"), ("the tree is", " by the mat, and two cats sat on it", " what"),
]  # fmt: skip
LABELLED = [
    ("the cat", " sat on the mat", True), ("a dog", " ran", False), ("one two", " three", True),
    ("is it", " red or blue?", False),
]  # fmt: skip
MICRO = pytest.mark.parametrize("tokens", [20, 4096], ids=["many micro-batches", "one"])
CPU = {
    "report_to": "none", "use_cpu": True, "bf16": False, "max_steps": 1, "gradient_checkpointing": False,
    "disable_tqdm": True, "per_device_train_batch_size": 4,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _experimental(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture
def apart(tiny_tokenizer):
    """A tokenizer that pads with a token of its own: TRL takes the place of a score by it."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = "<|endoftext|>"
    return tokenizer


def pairs(**columns):
    from datasets import Dataset

    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
    return Dataset.from_list([row | {k: v[i] for k, v in columns.items()} for i, row in enumerate(rows)])


def of_trainer(trainer):
    """The trainer's loss and gradients by name, summed over the batches of an epoch, and the batches."""
    trainer.model.train()
    trainer.model.zero_grad()
    batches = list(trainer.get_train_dataloader())
    value = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, copy.copy(batch)) / len(batches)
        loss.backward()
        value += float(loss.detach())
    return value, gradients(trainer.model), batches


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def encoded(examples, tiny_tokenizer):
    tokenizer = Tokenizer(tiny_tokenizer)
    return encode(examples, load_template("plain", tokenizer), tokenizer, TextConfig()).trees


def said(role, text):
    return (Message(role, text),)


def preferences(margins=(None,) * 4):
    return [
        Preference(said("user", p), said("assistant", c), said("assistant", r), margin=m)
        for (p, c, r), m in zip(PAIRS, margins, strict=True)
    ]


def referred(trees, model):
    score = partial(
        annotate.answer_logps,
        forward,
        model,
        packing=Packing(4096),
        device=torch.device("cpu"),
        title="",
        cancelled=bool,
    )
    return annotate.reference(trees, lambda part: score(trees=part))


def of_ours(method, trees, tokens, model=None, **settings):
    """Luthier's loss and gradients by name over one step of all trees."""
    row, config = METHODS[method], resolve({"method": method, **settings})
    model = model or tiny_model()
    step = make_step(trees, RULES[config.train.weigh], Packing(tokens))
    if step.auxiliary:
        step = annotate.baseline(forward, model, step, torch.device("cpu"))
    assert (len(step.micro) > 1) == (tokens < 4096)
    value = 0.0
    for micro in step.micro:
        loss = loss_of(row, config)(micro, forward(model, micro, row.needs)).total
        loss.backward()
        value += float(loss.detach())
    return value, gradients(model)


def assert_same(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=2e-6)
    assert ours[1].keys() == theirs[1].keys()
    a, b = (torch.cat([found[1][name].flatten() for name in theirs[1]]) for found in (ours, theirs))
    assert float((a - b).norm() / b.norm()) < 1e-5
    assert float(b.norm()) > 1e-3


DPO = {
    "sigmoid": ({"loss_type": ["sigmoid"]}, {}),
    "beta": ({"loss_type": ["sigmoid"], "beta": 0.7}, {"preference.beta": 0.7}),
    "ipo": ({"loss_type": ["ipo"], "beta": 0.3}, {"preference.loss": "ipo", "preference.beta": 0.3}),
    "hinge": ({"loss_type": ["hinge"]}, {"preference.loss": "hinge"}),
    "robust": (
        {"loss_type": ["robust"], "label_smoothing": 0.2}, {"preference.loss": "robust", "preference.smoothing": 0.2},
    ),
    # TRL has conservative DPO only as 'aot', which sorts the pairs of a batch: of one pair, there is nothing to sort.
    "conservative": (
        {"loss_type": ["aot"], "label_smoothing": 0.2, "per_device_train_batch_size": 1, "max_steps": 4},
        {"preference.smoothing": 0.2},
    ),
    "likelihood": ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.6]}, {"preference.likelihood": 0.6}),
}  # fmt: skip


@pytest.mark.medium
@MICRO
@pytest.mark.parametrize("case", DPO)
def test_dpo_equals_trl(tiny_tokenizer, tmp_path, case, tokens):
    from trl import DPOConfig, DPOTrainer

    changes, settings = DPO[case]
    trainer = DPOTrainer(
        model=tiny_model("sdpa"), ref_model=tiny_model("sdpa", seed=1), train_dataset=pairs(),
        args=DPOConfig(output_dir=str(tmp_path), **(CPU | changes)), processing_class=copy.deepcopy(tiny_tokenizer),
    )  # fmt: skip
    trees = referred(encoded(preferences(), tiny_tokenizer), tiny_model(seed=1))
    assert_same(of_ours("dpo", trees, tokens, **settings), of_trainer(trainer)[:2])


@MICRO
@pytest.mark.parametrize(("start", "above"), [(9, True), (1, False)], ids=["baseline above 0", "held at 0"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.4)])
@pytest.mark.medium
def test_kto_equals_trl_given_its_pairs_for_the_baseline(tiny_tokenizer, tmp_path, weights, start, above, tokens):
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    wanted, unwanted = weights
    rows = Dataset.from_list([{"prompt": p, "completion": c, "label": label} for p, c, label in LABELLED])
    trainer = KTOTrainer(
        model=tiny_model("sdpa"), ref_model=tiny_model("sdpa", seed=start), train_dataset=rows,
        args=KTOConfig(output_dir=str(tmp_path), desirable_weight=wanted, undesirable_weight=unwanted, **CPU),
        processing_class=copy.deepcopy(tiny_tokenizer),
    )  # fmt: skip
    theirs = of_trainer(trainer)[:2]
    assert (trainer._metrics["train"]["kl"][0] > 0.5) == above
    examples = [Labelled(said("user", p), said("assistant", c), label) for p, c, label in LABELLED]
    trees = encoded(examples, tiny_tokenizer)
    trees = [
        replace(tree, columns=tree.columns | {"other": TokenTree((tree.nodes[0], trees[i - 1].nodes[1]))})
        for i, tree in enumerate(trees)
    ]
    trees = referred(trees, tiny_model(seed=start))
    settings = {"preference.desirable": wanted, "preference.undesirable": unwanted}
    assert_same(of_ours("kto", trees, tokens, **settings), theirs)


@MICRO
@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("center", [0.0, 0.05])
def test_reward_equals_trl(apart, tmp_path, margin, center, tokens):
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(tiny_config(num_labels=1), attn_implementation="sdpa")
    start = tiny_model()
    model.model.load_state_dict(start.model.state_dict())
    model.config.pad_token_id = apart.pad_token_id
    margins = [0.0, 0.5, 1.0, 0.25]
    trainer = RewardTrainer(
        model=model, train_dataset=pairs(**({"margin": margins} if margin else {})), processing_class=apart,
        args=RewardConfig(output_dir=str(tmp_path), center_rewards_coefficient=center or None, **CPU),
    )  # fmt: skip
    ours = tiny_model()
    heads.attach(ours, {"score": 1})
    with torch.no_grad():
        ours.score.weight.copy_(model.score.weight)
    trees = encoded(preferences(margins if margin else (None,) * 4), apart)
    assert_same(of_ours("reward", trees, tokens, ours, **{"ranking.center": center}), of_trainer(trainer)[:2])


def trees_of(batch):
    """The pairs of a batch of TRL's ORPO and CPO trainers, as trees."""
    trees = []
    for i in range(len(batch["chosen_input_ids"])):
        nodes = [Node(tuple(batch["prompt_input_ids"][i, batch["prompt_attention_mask"][i] > 0].tolist()), ())]
        nodes = [Node(nodes[0].ids, (False,) * len(nodes[0].ids))]
        for side in ("chosen", "rejected"):
            ids = tuple(batch[f"{side}_input_ids"][i, batch[f"{side}_labels"][i] >= 0].tolist())
            nodes.append(Node(ids, (True,) * len(ids), 0))
            whole = batch[f"{side}_input_ids"][i, batch[f"{side}_attention_mask"][i] > 0].tolist()
            assert whole == list(nodes[0].ids + ids)
        trees.append(TokenTree(tuple(nodes), pairs=((0, 1),)))
    return trees


def orpo_trainer(tokenizer, out, beta):
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    settings = ORPOConfig(output_dir=str(out), beta=beta, **CPU)
    return ORPOTrainer(
        model=tiny_model("sdpa"), args=settings, train_dataset=pairs(), processing_class=copy.deepcopy(tokenizer)
    )


@MICRO
@pytest.mark.parametrize("beta", [0.1, 0.8])
def test_orpo_over_prompt_and_answer_equals_trl(tiny_tokenizer, tmp_path, beta, tokens):
    *theirs, (batch,) = of_trainer(orpo_trainer(tiny_tokenizer, tmp_path, beta))
    trees = [annotate.with_prompt(tree, PreferenceConfig(span="all")) for tree in trees_of(batch)]
    assert_same(of_ours("orpo", trees, tokens, **{"preference.beta": beta, "preference.span": "all"}), theirs)


def test_orpo_over_the_answer_alone_is_the_papers_formula(tiny_tokenizer, tmp_path):
    """-log p(chosen) per token over the step's tokens, less beta log s(log odds ratio), from plain logits."""
    trainer = orpo_trainer(tiny_tokenizer, tmp_path, 0.8)
    trees = trees_of(next(iter(trainer.get_train_dataloader())))
    model = tiny_model("sdpa")
    nll, ratio = [], 0.0
    for tree in trees:
        means = []
        for answer in tree.nodes[1:]:
            ids = torch.tensor([tree.nodes[0].ids + answer.ids])
            logp = model(ids).logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[-len(answer.ids) :, 0]
            means.append(logp.mean())
            if answer is tree.nodes[1]:
                nll.append(-logp)
        better, worse = ((mean.exp() / (1 - mean.exp())).log() for mean in means)
        ratio = ratio - (better - worse).sigmoid().log() / len(trees)
    loss = torch.cat(nll).mean() + 0.8 * ratio
    loss.backward()
    assert_same(of_ours("orpo", trees, 32, **{"preference.beta": 0.8}), (float(loss.detach()), gradients(model)))


@MICRO
@pytest.mark.parametrize(("beta", "gamma", "smoothing"), [(2.0, 1.0, 0.0), (1.2, 0.3, 0.1)])
def test_simpo_equals_trl(tiny_tokenizer, tmp_path, beta, gamma, smoothing, tokens):
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    settings = CPOConfig(
        output_dir=str(tmp_path), loss_type="simpo", cpo_alpha=0.0, beta=beta, simpo_gamma=gamma,
        label_smoothing=smoothing, **CPU,
    )  # fmt: skip
    trainer = CPOTrainer(
        model=tiny_model("sdpa"), args=settings, train_dataset=pairs(), processing_class=copy.deepcopy(tiny_tokenizer)
    )
    *theirs, (batch,) = of_trainer(trainer)
    settings = {"preference.beta": beta, "preference.target_margin": gamma, "preference.smoothing": smoothing}
    assert_same(of_ours("simpo", trees_of(batch), tokens, **settings), theirs)
