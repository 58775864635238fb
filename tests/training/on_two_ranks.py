"""What one of several processes does in `test_two_ranks.py`; alone it is rank 0 of 1.  usage: on_two_ranks.py FOLDER"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from test_scope import EMBED, contrastive, text_pairs
from torch import nn

from conftest import random_tree, tiny_model
from luthier.config.training import TrainConfig
from luthier.core import ranks
from luthier.core.journal import Journal
from luthier.core.types.batch import Needs
from luthier.methods.likelihood import likelihood
from luthier.model.forward import forward
from luthier.text.loss_weights import RULES
from luthier.training import checkpoint
from luthier.training.loop import State, train
from luthier.training.optim import Optimizer
from luthier.training.passes import shared_out
from luthier.training.steps import OfflineSteps, Packing, make_step

CONFIG = TrainConfig(clip=0.05)  # smaller than the gradients: a wrong norm would change every weight


def random_trees():
    import random

    draw = random.Random(0)
    prefix = tuple(draw.randrange(512) for _ in range(6))
    return [random_tree(draw, prefix=prefix, row=i) for i in range(10)]


def talk(me: ranks.Ranks) -> dict:
    """The collectives, each rank with values of its own."""
    tensors = [torch.full((2,), me.rank + 1.0), torch.full((1, 3), 10.0 * (me.rank + 1), dtype=torch.float64)]
    me.add(tensors)
    me.barrier()
    return {
        "rank": [me.rank, me.world, me.first], "sum": me.sum(me.rank + 0.5, 2), "added": [t.tolist() for t in tensors],
        "gathered": me.gather({"rank": me.rank, "text": "é" * me.rank}), "told": me.broadcast(["from", me.rank]),
    }  # fmt: skip


def learn(folder: Path, loss, trees, needs: Needs, scope: str, stop_at: int | None = None) -> dict:
    """Three steps whose micro-batches the ranks share; a checkpoint and a journal that the first rank writes."""
    model = tiny_model(dtype=torch.float64)
    steps = OfflineSteps(trees, 5, 15, RULES["token"], Packing(40), seed=1)
    assert any(len(steps.step(i).micro) % 2 for i in range(3)), "then one rank has a pass to idle"
    state = State(model, Optimizer(dict(model.named_parameters()), CONFIG, {}))
    journal, reports = Journal(folder / f"{scope}.jsonl", "", sums=False), []
    stopping = lambda: state.step == stop_at and ranks.here().rank == 1  # noqa: E731  one rank alone is told to stop
    try:
        for report in train(
            state, steps, loss, lambda m, batch: forward(m, batch, needs), CONFIG, lr=1e-2, seed=0, device=torch.device("cpu"),
            scope=scope, cancelled=stopping,
        ):  # fmt: skip
            reports.append([report.loss, report.norm, report.rows, report.metrics, report.tokens])
            journal.add({"step": report.step})
    except Exception as error:
        return {"stopped": str(error), "steps": state.step}
    weights = {name: p.detach() for name, p in model.named_parameters()}
    checkpoint.save(folder / scope, state.step, weights, state.optimizer.tensors(), {}, keep=1)
    saved = checkpoint.latest(folder / scope)  # every rank can read what the first one wrote
    assert all(torch.equal(saved.weights[name], weight) for name, weight in weights.items())
    return {"reports": reports, "weights": torch.cat([w.flatten() for w in weights.values()]).tolist()}


def shard(me: ranks.Ranks) -> dict:
    """The gradient and its norm of a model whose weights FSDP cut over the ranks: gathered by hooks of the root module."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    model = tiny_model(dtype=torch.float64)
    if me.world > 1:
        mesh = init_device_mesh("cpu", (me.world,))
        for block in model.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
    step = make_step(random_trees(), RULES["token"], Packing(60))
    for _, batch in shared_out(step.micro):
        likelihood(batch, forward(model, batch)).total.backward()
    optimizer = Optimizer(dict(model.named_parameters()), TrainConfig(clip=1e9), {})
    norm = optimizer.clip()
    whole = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
    return {"norm": norm, "gradient": torch.cat([g.flatten() for g in whole]).tolist()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    me = ranks.join(minutes=2)
    found = {
        "talk": talk(me),
        "batch": learn(folder, likelihood, random_trees(), Needs(), "batch"),
        "step": learn(folder, contrastive, text_pairs(10), EMBED, "step"),
        "stopped": learn(folder, likelihood, random_trees(), Needs(), "batch", stop_at=1),
        "shard": shard(me),
    }
    (folder / f"rank-{me.rank}.json").write_text(json.dumps(found))
    ranks.leave()
    assert ranks.here() == ranks.Ranks()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
