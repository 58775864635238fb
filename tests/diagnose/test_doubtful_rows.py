"""Doubtful labels: each witness by hand, what is not flagged, and seeded mistakes in real data."""

from __future__ import annotations

import csv
import json
import random
from math import log

import pytest

from luthier.diagnose.doubtful_rows import by_neighbours, conflicts, is_closed, rank_doubtful

NAMES = ["north", "south", "east", "west"]


def unlike(n: int) -> list[str]:
    """Prompts that share no word."""
    return [f"word{i}" for i in range(n)]


def test_a_label_that_cost_more_than_usual():
    """Four labels: the bar is ln(19 * 3 / 3) = 2.94 nats above the usual 0.2."""
    answers = [NAMES[i % 4] for i in range(400)]
    losses = {row: [(row // 16, 0.2, 3)] for row in range(400)}
    losses[100], losses[200], losses[300] = [(6, 5.3, 3)], [(12, 3.1, 3)], [(18, 3.2, 3)]
    found = rank_doubtful(losses, unlike(400), answers)
    assert [s.row for s in found] == [100, 300]
    assert [s.score for s in found] == pytest.approx([5.1, 3.0])
    assert found[0].why == "loss 5.3 at step 6, usually 0.2"


def test_a_loss_is_compared_with_those_of_its_steps():
    """At first every label costs 10 to 30 nats, at last nothing: 28 nats are usual at the start, 8 are not at the end."""
    draw = random.Random(0)
    answers = [draw.choice(NAMES) for _ in range(1000)]
    losses = {row: [(row // 10, draw.uniform(10, 30) if row < 500 else 0.1, 2)] for row in range(1000)}
    losses[20], losses[900] = [(2, 28.0, 2)], [(90, 8.0, 2)]
    assert [s.row for s in rank_doubtful(losses, unlike(1000), answers)] == [900]


def test_sightings_are_averaged_and_those_of_a_wide_step_count_less():
    """Row 300 was lost on once the usual had become low: the first epoch says nothing either way."""
    draw = random.Random(1)
    answers = [draw.choice(NAMES) for _ in range(600)]
    losses = {row: [(row // 10, draw.uniform(10, 30), 2), (100 + row // 10, 0.1, 2)] for row in range(600)}
    losses[300] = [(30, 20.0, 2), (130, 7.0, 2)]
    losses[301] = [(30, 30.0, 2), (130, 0.1, 2)]
    assert [s.row for s in rank_doubtful(losses, unlike(600), answers)] == [300]


def test_what_neighbours_say():
    """Ten equal prompts with one label of its own, ten others. Every vote is 1. The smoothing a = 1 predicts the labels best:
    9 ln(8.45 / 10) + ln(0.55 / 10) + 10 ln(9.55 / 10) = -4.88, against -5.06 for 2 and -5.08 for 1/2."""
    prompts = ["my card is lost"] * 10 + ["what rates apply today"] * 10
    labels = ["Lost"] * 9 + ["rates"] * 11
    found = by_neighbours(prompts, labels)
    assert found[9].doubt == pytest.approx(log((9 + 0.45) / 0.55), rel=1e-5)
    assert found[9].why == "of the 9 nearest prompts 9 have 'Lost', 0 its own"
    assert found[0].doubt == pytest.approx(log((1 + 0.55) / (8 + 0.45)), rel=1e-5)
    assert 12 not in found  # its neighbours have no other label


def test_neighbours_that_say_nothing_of_labels_count_for_nothing():
    draw = random.Random(2)
    words = [f"w{i}" for i in range(30)]
    prompts = [" ".join(draw.sample(words, 5)) for _ in range(600)]
    labels = [draw.choice(["yes", "no"]) for _ in prompts]
    assert max(w.doubt for w in by_neighbours(prompts, labels).values()) < 0.5


def test_open_answers_are_compared_with_those_as_long():
    """Short answers cost twice as much per token as long ones; what is usual for a short one is not for a long one."""
    draw = random.Random(3)
    losses = {}
    for row in range(2000):
        units = draw.choice([5, 50])
        each = draw.gauss(3.0 if units == 5 else 1.5, 0.2)
        losses[row] = [(row // 8, each * units, units)]
    losses[400], losses[1200] = [(50, 3.0 * 50, 50)], [(150, 3.0 * 5, 5)]
    found = rank_doubtful(losses, unlike(2000), [f"answer {row}" for row in range(2000)])
    assert found[0].row == 400
    assert len(found) < 10 and 1200 not in [s.row for s in found]
    assert found[0].why == "loss 3.0 per token at step 50, usually 1.5"


def test_without_losses():
    done: list[int] = []
    assert rank_doubtful({}, unlike(100), [NAMES[i % 4] for i in range(100)], done.append) == []
    assert sum(done) == 100 and len(done) > 1  # labels are looked up one by one
    rank_doubtful({}, unlike(100), unlike(100), done.append)
    assert sum(done) == 200
    assert rank_doubtful({}, [], []) == [] == rank_doubtful({}, ["a", "b"], ["one", "two"])


def test_closed():
    assert is_closed(["yes"] * 5 + ["no"] * 5) and is_closed(["yes"] * 90 + ["no"] * 8 + ["nay", "n"])
    assert not is_closed(["yes"] * 20) and not is_closed([f"{i}" for i in range(20)])
    assert not is_closed(["yes"] * 50 + ["no"] * 30 + [f"{i}" for i in range(20)])


def test_conflicts():
    prompts = ["Lost card?", "new PIN", "lost  card? ", "new pin", "lost card?", "fees"]
    answers = ["lost", "pin", "stolen", "PIN ", "lost", "fee"]
    assert conflicts(prompts, answers) == [(0, 2, 4)]
    assert conflicts(["My top-up failed!", "my top up failed"], ["declined", "reverted"]) == [(0, 1)]
    assert conflicts(["2 - 1", "2 + 1", "2-1", "21"], ["one", "three", "1", "21"]) == []


def banking(shared, seed: int, labels: int, rows: int) -> tuple[list[str], list[str], set[int]]:
    """Prompts and labels of banking77, and which 5 % of them got another label than their own."""
    draw = random.Random(seed)
    with open(shared / "banking77" / "train.csv", encoding="utf-8", newline="") as handle:
        read = [(row["text"], row["category"]) for row in csv.DictReader(handle)]
    names = draw.sample(sorted({label for _, label in read}), labels)
    kept = [(text, label) for text, label in read if label in names]
    kept = draw.sample(kept, min(rows, len(kept)))
    wrong = set(draw.sample(range(len(kept)), len(kept) // 20))
    given = [draw.choice([n for n in names if n != y]) if i in wrong else y for i, (_, y) in enumerate(kept)]
    return [text for text, _ in kept], given, wrong


def test_neighbours_tell_real_labels_from_wrong_ones(shared):
    prompts, labels, wrong = banking(shared, 0, 25, 1500)
    said = by_neighbours(prompts, labels)
    against = {row: said[row].doubt if row in said else -9.0 for row in range(len(prompts))}
    bar = sorted(against.values())[-len(prompts) // 10]
    assert sum(against[row] >= bar for row in wrong) > 0.7 * len(wrong)


@pytest.mark.slow
def test_seeded_mistakes_are_found_by_the_losses_of_a_run(shared, smollm2_folder, tmp_path):
    from luthier.config.resolve import resolve
    from luthier.tune.train import run

    prompts, labels, wrong = banking(shared, 0, 20, 1200)
    with open(tmp_path / "train.jsonl", "w", encoding="utf-8") as handle:
        for prompt, label in zip(prompts, labels, strict=True):
            handle.write(json.dumps({"prompt": prompt, "completion": label}) + "\n")
    with open(tmp_path / "eval.jsonl", "w", encoding="utf-8") as handle:
        handle.write(json.dumps({"prompt": "Where is my card?", "completion": "card_arrival"}) + "\n")
    run(
        resolve(
            {
                "model": str(smollm2_folder),
                "data.path": [str(tmp_path / "train.jsonl")],
                "data.eval": [str(tmp_path / "eval.jsonl")],
                "out": str(tmp_path / "run"),
                "train.epochs": 2,
                "train.batch": 16,
                "train.lr": 1e-3,
                "eval.forgetting": False,
                "eval.samples": 0,
                "device": "cpu",
            }  # fmt: skip
        )
    )
    losses: dict[int, list[tuple[int, float, int]]] = {}
    for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines():
        record = json.loads(line)
        for row, loss, units in record["rows"]:
            losses.setdefault(row, []).append((record["step"], loss, units))
    found = {s.row for s in rank_doubtful(losses, prompts, labels)}
    assert len(found & wrong) > 0.6 * len(wrong)
    assert len(found & wrong) > 0.4 * len(found)
    without = {s.row for s in rank_doubtful({}, prompts, labels)}
    assert len(found & wrong) > len(without & wrong)
