"""Two processes that work together (gloo, on the CPU) leave what one leaves: weights, reports, files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import on_two_ranks
import pytest
import torch
from test_scope import EMBED, contrastive, text_pairs

from luthier.core import ranks
from luthier.core.errors import InputError
from luthier.methods.likelihood import likelihood
from luthier.training.passes import IDLE, shared_out
from luthier.training.steps import Packing, make_step
from sentences import sentence


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two ranks found, and their folder."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    paths = [str(Path(ranks.__file__).parents[2]), str(here), str(here.parent)]
    given = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, str(here / "on_two_ranks.py"), str(folder)], env=given | {"RANK": str(rank)}, stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)], folder


@pytest.mark.medium
def test_ranks_tell_each_other_numbers_and_json(two):
    (first, second), _ = two
    assert (first["talk"].pop("rank"), second["talk"].pop("rank")) == ([0, 2, True], [1, 2, False])
    assert first["talk"] == second["talk"]
    assert first["talk"] == {
        "sum": [2.0, 4.0], "added": [[3.0, 3.0], [[30.0, 30.0, 30.0]]], "told": ["from", 0],
        "gathered": [{"rank": 0, "text": ""}, {"rank": 1, "text": "é"}],
    }  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize(("scope", "needs"), [("batch", on_two_ranks.Needs()), ("step", EMBED)])
def test_two_ranks_learn_what_one_learns(two, scope, needs, tmp_path):
    """Each computes a part of the micro-batches, one of them an idle pass too; weights are normalised over both."""
    (first, second), _ = two
    loss, trees = {"batch": (likelihood, on_two_ranks.random_trees()), "step": (contrastive, text_pairs(10))}[scope]
    alone = on_two_ranks.learn(tmp_path, loss, trees, needs, scope)
    assert first[scope] == second[scope]
    weights, wanted = (torch.tensor(found["weights"], dtype=torch.float64) for found in (first[scope], alone))
    assert float((weights - wanted).abs().max()) < 1e-9
    for (loss_, norm, rows, metrics, tokens), report in zip(first[scope]["reports"], alone["reports"], strict=True):
        assert (loss_, norm, tokens) == pytest.approx((report[0], report[1], report[4]), rel=1e-9)
        assert metrics == pytest.approx(report[3], rel=1e-6)
        assert [row[0] for row in rows] == [row[0] for row in report[2]]
    assert alone["reports"][0][1] > on_two_ranks.CONFIG.clip


@pytest.mark.medium
def test_only_the_first_rank_writes(two):
    _, folder = two
    assert [json.loads(line)["step"] for line in (folder / "step.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert [path.name for path in (folder / "step").iterdir()] == ["step-00000003"]


@pytest.mark.medium
def test_all_ranks_stop_after_the_same_step(two):
    """Only the second was told to; the first would wait for it for ever."""
    (first, second), _ = two
    assert first["stopped"] == second["stopped"] == {"stopped": "stopped after step 1", "steps": 1}


@pytest.mark.medium
def test_a_model_cut_over_the_ranks_has_the_same_gradient_and_norm(two):
    (first, second), _ = two
    alone = on_two_ranks.shard(ranks.here())
    for found in (first["shard"], second["shard"]):
        assert found["norm"] == pytest.approx(alone["norm"], rel=1e-12)
        gradient, wanted = (torch.tensor(one["gradient"], dtype=torch.float64) for one in (found, alone))
        assert float((gradient - wanted).norm() / wanted.norm()) < 1e-12


def test_one_process_alone_is_rank_0_of_1(monkeypatch):
    me = ranks.join()
    assert (me, me.first) == (ranks.Ranks(0, 1), True)
    tensor = torch.ones(2)
    me.add([tensor])
    me.barrier()
    assert (me.sum(1.5, 2), me.gather({"a": 1}), me.broadcast("x"), tensor.tolist()) == (
        [1.5, 2],
        [{"a": 1}],
        "x",
        [1, 1],
    )
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(InputError, match=sentence("rank that is no number")):
        ranks.join()
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(InputError, match=sentence("rank beyond the world", rank=2, world=1)):
        ranks.join()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_micro_batch_is_computed_once_and_every_rank_runs_as_many_passes(world, monkeypatch):
    micro = make_step(text_pairs(), on_two_ranks.RULES["token"], Packing(40)).micro
    shares = []
    for rank in range(world):
        monkeypatch.setattr(ranks, "HERE", ranks.Ranks(rank, world))
        shares.append(shared_out(micro))
    assert sorted(number for share in shares for number, _ in share if number != IDLE) == list(range(len(micro)))
    assert len({len(share) for share in shares}) == 1
    assert all(not batch.tree_weight.any() for share in shares for number, batch in share if number == IDLE)
    loads = [sum(batch.real for number, batch in share if number != IDLE) for share in shares]
    assert max(loads) - min(loads) <= max(batch.real for batch in micro)
