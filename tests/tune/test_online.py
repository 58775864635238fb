"""Learning from rewards, whole runs: PPO with its four models, GRPO, reward models at work, streams and mixed rows."""

from __future__ import annotations

import io
import json
import random
import re
import sys
from pathlib import Path

import pytest
import torch

from conftest import tiny_model
from luthier.cli import run as cli
from luthier.config.resolve import resolve
from luthier.core.errors import InputError, RunError
from luthier.core.types.examples import Message
from luthier.generate.request import Sample
from luthier.model.adapt import tune as tune_kinds
from luthier.runs.reward_model import open_scorer
from luthier.tune.policy_models import with_rewards_of_cut
from luthier.tune.train import run
from luthier.tune.verify import resume
from sentences import sentence
from whole_runs import WORDS, bits, run_until, same


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path):
    """The same 30 questions answered, and with a better and a worse answer."""
    draw, chats, pairs = random.Random(0), [], []
    for i in range(30):
        question = " ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 5))) + f" {i}?"
        good = question.split()[0]
        chats.append({"prompt": question, "completion": good})
        pairs.append({"prompt": question, "chosen": good, "rejected": f"no {draw.choice(WORDS)}"})
    return {"chat": write(tmp_path / "chat.jsonl", chats), "pairs": write(tmp_path / "pairs.jsonl", pairs)}


@pytest.fixture
def settings(tiny_folder, files, tmp_path):
    def make(method, out="run", data="chat", **changes):
        base = {
            "method": method, "model": str(tiny_folder), "data.path": [str(files[data])], "out": str(tmp_path / out),
            "train.batch": 3, "train.tokens": 256, "train.checkpoint": 2, "train.keep": 9, "train.steps": 6,
            "data.holdout": 0.2, "eval.max_new_tokens": 6, "eval.samples": 6, "eval.forgetting": False, "lora.rank": 2,
            "threads": 1, "device": "cpu", "dtype": "float32", "train.lr": 1e-2,
        }  # fmt: skip
        if method in ("ppo", "grpo"):
            base |= {"reward.use": ["length:3"], "rollout.samples": 4, "rollout.max_new_tokens": 6}
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


def vowels(folder):
    """A reward: the share of vowels."""
    code = folder / "mine.py"
    code.write_text(
        "def vowels(answers):\n    return [sum(c in 'aeiou' for c in a) / max(1, len(a)) for a in answers]\n"
    )
    return f"python:{code}:vowels"


@pytest.mark.medium
@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize(("method", "more"), [("grpo", {}), ("ppo", {"policy.epochs": 2, "policy.minibatches": 2})])
def test_what_a_run_that_learns_from_rewards_tells(settings, tmp_path, method, more, tune):
    """That it learns is shown with several seeds by tests/training/test_learns.py."""
    result = run(resolve(settings(method, tune=tune, train__steps=12, **more)))
    of_loss = result["metrics"]["loss"]  # of the right answers: likelihood
    assert all(
        {"before", "after", "low", "high", "n"} <= set(found) for found in (result["metrics"]["reward"], of_loss)
    )
    assert result["kl_per_answer"] != 0
    records = lines(tmp_path / "run" / "metrics.jsonl")
    wanted = {"reward", "reward/length:3", "kl_per_answer", "length", "ended", "entropy", "clipped", "groups_skipped"}
    assert all(wanted <= set(record) for record in records)
    of_critic = {"explained_variance", "value_loss"}
    assert all(of_critic & set(record) == (of_critic if method == "ppo" else set()) for record in records)
    page = (tmp_path / "run" / "report.html").read_text()
    drawn = {"reward", "spread", "equal", "kl", "entropy", "length", "ended", "clipped"}
    assert drawn | ({"critic", "value"} if method == "ppo" else set()) <= set(re.findall(r'id="chart-([a-z-]+)"', page))
    _samples_of_rollouts(lines(tmp_path / "run" / "samples.jsonl"), page)


def _samples_of_rollouts(samples, page):
    """Of every rollout the two best and the two worst answers, with prompts; the page has those of the first and the last."""
    by_rollout = {}
    for line in samples:
        by_rollout.setdefault(line["rollout"], []).append(line)
        assert {"among", "row", "prompt", "answer", "reward", "ended", "length"} <= set(line)
        assert line["prompt"].endswith("?")
    assert list(by_rollout) == list(range(len(by_rollout)))
    for found in by_rollout.values():
        assert [line["among"] for line in found] == ["best", "best", "worst", "worst"]
        assert min(line["reward"] for line in found[:2]) >= max(line["reward"] for line in found[2:])
    assert page.count('<article class="sample" aria-label="Rollout ') == 3
    assert f">Rollout {len(by_rollout)}<" in page


@pytest.mark.medium
def test_a_reward_that_rises_where_the_judge_falls_is_told_at_the_end(settings, tmp_path, capsys):
    reward = vowels(tmp_path)
    changes = {
        "data__holdout": 0.4,
        "eval__samples": 12,
        "train__steps": 12,
        "rollout__max_new_tokens": 12,
        "eval__max_new_tokens": 12,
    }
    result = run(resolve(settings("ppo", reward__use=[reward], reward__judge=[f"-1*{reward}"], **changes)))
    learned, judge = result["metrics"]["reward"], result["metrics"]["judge"]
    assert (learned["verdict"], judge["verdict"]) == ("better", "worse")
    assert judge["difference"] == pytest.approx(-learned["difference"])
    sentence = result["judge"]["sentence"]
    assert result["judge"]["confirmed"] is False
    assert f"the reward that was learned from rose by {learned['difference']:.3f} (95 % interval" in sentence
    assert f"warning: {sentence}; " in capsys.readouterr().err
    folder = tmp_path / "run"
    assert f'<p class="worse">T{sentence[1:]}.</p>' in (folder / "report.html").read_text()
    assert {"over", "over-judge", "judge"} <= set(
        re.findall(r'id="chart-([a-z-]+)"', (folder / "report.html").read_text())
    )
    assert "judging reward" in (folder / "reward.svg").read_text()


@pytest.mark.medium
@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("ppo", {"policy.epochs": 2, "policy.minibatches": 2, "policy.kl_target": 1.0}),
        ("grpo", {"policy.epochs": 2, "policy.variant": "dapo"}),
        (
            "grpo",
            {
                "policy.minibatches": 3,
                "policy.kl": 0.1,
                "policy.kl_target": 1.0,
                "policy.kl_budget": 1.0,
                "eval.every": 3,
            },
        ),
    ],
)
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_stopped_in_the_middle_of_a_rollout_and_gone_on_equals_uninterrupted(
    settings, tmp_path, method, more, tune, monkeypatch
):
    changes = {"tune": tune, "train__steps": 7, "lora__dropout": 0.1, **more}
    whole = run(resolve(settings(method, out="whole", **changes)))
    config = resolve(settings(method, out="parts", **changes))
    for stop_at in (1, 3, 6):
        run_until(stop_at, config)
    parts = run(config)
    assert same(bits(tmp_path / "whole"), bits(tmp_path / "parts"))
    assert parts["metrics"] == whole["metrics"]
    assert resume(tmp_path / "parts")["same_bits"]


@pytest.mark.medium
def test_a_reward_that_raises_stops_before_the_update_and_loses_nothing(settings, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(
        "def score(answers, prompts):\n    return [1.0 + 'x' if '3' in p else float(len(a)) for a, p in zip(answers, prompts)]\n"
    )
    arguments = settings("grpo", reward__use=[f"python:{code}:score"], data__holdout=0)
    with pytest.raises(RunError, match=sentence("function failed", fault="TypeError…")):
        run(resolve(arguments))
    saved = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    code.write_text("def score(answers):\n    return [float(len(a)) for a in answers]\n")
    result = run(resolve(arguments))
    assert result["steps"] == 6
    assert saved or result["metrics"]["reward"]["n"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reward__use": []}, "none is given"),
        ({"reward__use": ["exakt"]}, "did you mean 'exact'"),
        ({"reward__use": ["model:nowhere"]}, "nowhere"),
        ({"policy__kl_budget": 1.0}, "--eval.every"),
        ({"policy__pretrain": ["PAIRS"]}, "neither text nor conversations"),
        ({"data__stream": True}, "needs all rows"),
    ],
)
def test_bad_settings_are_refused_in_one_line_and_leave_nothing(settings, files, change, says):
    values = settings("ppo", **change)
    if values.get("policy.pretrain"):
        values["policy.pretrain"] = [str(files["pairs"])]
    with pytest.raises(InputError) as caught:
        run(resolve(values))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path(values["out"]).exists()


@pytest.mark.parametrize(
    ("method", "change", "says"),
    [
        ("grpo", {"rollout__samples": 1}, "--rollout.samples: one answer has no other"),
        ("grpo", {"policy__kl_target": 1.0}, "--policy.kl_target: the weight of the divergence is 0"),
        ("ppo", {"policy__kl_target": 1.0, "policy__kl": 0.0}, "--policy.kl_target: the weight of the divergence is 0"),
        (
            "grpo",
            {"policy__pretrain": ["texts.jsonl"]},
            "--policy.pretrain: grpo does not read this setting; leave it out",
        ),
        ("ppo", {"policy__variant": "gspo"}, "--policy.variant: ppo does not read this setting; leave it out"),
        ("sft", {"reward__use": ["exact"]}, "--reward: sft does not read this setting; leave it out"),
        ("dpo", {"reward__judge": ["exact"]}, "--reward.judge: dpo does not"),
        ("sft", {"policy__kl_budget": 1.0}, "--policy.kl_budget: sft does not"),
        ("grpo", {"policy__kl_budget": 1.0, "eval__every": 2, "eval__samples": 0}, "no held-out prompt"),
        ("grpo", {"reward__use": ["exat"], "data__path": ["no.jsonl"]}, "did you mean 'exact'?"),  # before data is read
        ("ppo", {"reward__judge": ["length:x"], "data__path": ["no.jsonl"]}, "reward 'length:x'"),
        (
            "ppo",
            {"reward__truncated": "maybe"},
            "--reward.truncated: should be keep, zero, mask or a number below zero",
        ),
        ("ppo", {"reward__truncated": "0.5"}, "--reward.truncated: should be keep, zero, mask or a number below zero"),
    ],
)
def test_what_would_teach_nothing_or_not_be_read_is_refused_in_one_line(settings, method, change, says):
    with pytest.raises(InputError) as caught:
        run(resolve(settings(method, **change)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["reward__use", "reward__judge"])
def test_a_row_without_a_right_answer_is_refused_where_a_reward_compares_with_it(settings, files, tmp_path, name):
    rows = [{"prompt": row["prompt"], "answer": row["completion"]} for row in lines(files["chat"])]
    del rows[7]["answer"]
    files["asked"] = write(tmp_path / "asked.jsonl", rows)
    with pytest.raises(
        InputError, match=sentence("row without right answer", where="asked.jsonl:8", referring="exact")
    ):
        run(resolve(settings("grpo", data="asked", data__layout="prompt", **{name: ["exact"]})))


@pytest.mark.medium
def test_four_models_on_one_base(settings, tmp_path):
    """Demonstrations, a reward model that goes on from them, PPO that goes on from the same adapter with it."""
    run(resolve(settings("sft", out="sft", train__steps=4)))
    start = str(tmp_path / "sft")
    rm = run(resolve(settings("reward", out="rm", data="pairs", model=start, train__steps=20, train__epochs=1)))
    assert rm["metrics"]["accuracy"]["after"] > 0.5
    assert 0 <= rm["reward_model"]["calibration_error"] <= 1
    spec = f"model:{tmp_path / 'rm'}"
    result = run(
        resolve(settings("ppo", model=start, reward__use=[spec], policy__pretrain=[str(tmp_path / "chat.jsonl")]))
    )
    records = lines(tmp_path / "run" / "metrics.jsonl")
    # the reference is the demonstrations' run, adapter included
    assert records[0]["kl_per_answer"] == pytest.approx(0, abs=1e-5)
    assert "pretrain_nll" in records[0]
    rows = [row for line in lines(tmp_path / "run" / "losses.jsonl") for row, _, _ in line["rows"]]
    assert len(rows) == 6 * 3  # those of the data alone
    assert result["metrics"]["reward"]["n"] == 6
    # what the policy plays during PPO scores as the reward model opened on its own
    alone = open_scorer(str(tmp_path / "rm"), device="cpu", dtype="float32")
    kept = [record for record in lines(tmp_path / "run" / "evals" / "after.jsonl") if "rewards" in record]
    again = alone.score([((Message("user", record["prompt"]),), record["answer"]) for record in kept])
    assert [record["rewards"]["reward"] for record in kept] == pytest.approx(again, abs=1e-4)


@pytest.mark.medium
@pytest.mark.parametrize(
    "change",
    [
        {"tune": "full"}, {"tune": "qlora"}, {"lora__init": "pissa"},
        {},  # played by the policy, whose other adapters must not be merged before the last measurement
    ],
)  # fmt: skip
def test_a_reward_model_scores_the_same_whatever_is_tuned(settings, tmp_path, change):
    run(resolve(settings("reward", out="rm", data="pairs", train__steps=12, lora__targets=["q_proj"])))
    run(resolve(settings("grpo", reward__use=[f"model:{tmp_path / 'rm'}"], train__lr=3e-2, **change)))
    alone = open_scorer(str(tmp_path / "rm"), device="cpu", dtype="float32")
    for stage in ("before", "after"):
        kept = [r for r in lines(tmp_path / "run" / "evals" / f"{stage}.jsonl") if "rewards" in r]
        again = alone.score([((Message("user", record["prompt"]),), record["answer"]) for record in kept])
        assert [record["rewards"]["reward"] for record in kept] == pytest.approx(again, abs=1e-4)


@pytest.mark.medium
def test_a_reward_model_on_a_quantized_base_scores_as_it_was_measured(settings, files, tmp_path):
    held_out = {"data__eval": [str(files["pairs"])], "ranking__gather": False}
    run(resolve(settings("reward", out="rm", data="pairs", tune="qlora", **held_out)))
    rows, found = lines(files["pairs"]), lines(tmp_path / "rm" / "evals" / "after.jsonl")
    alone = open_scorer(str(tmp_path / "rm"), device="cpu", dtype="float32")
    for record in found[:5]:
        row = rows[record["row"]]
        prompt = (Message("user", row["prompt"]),)
        again = alone.score([(prompt, row["chosen"]), (prompt, row["rejected"])])
        assert record["items"]["scores"] == pytest.approx(again, abs=1e-5)


@pytest.mark.medium
def test_a_reward_model_of_its_own_counts_in_the_memory(settings, tmp_path, capsys):
    run(resolve(settings("reward", out="rm", data="pairs", train__steps=1)))
    spec = {"reward__use": [f"model:{tmp_path / 'rm'}"], "train__steps": 1}
    run(resolve(settings("grpo", **spec)))
    assert "for reward models" not in capsys.readouterr().err
    run(resolve(settings("grpo", out="full", tune="full", **spec)))
    assert "for reward models" in capsys.readouterr().err


@pytest.mark.medium
def test_the_context_is_the_limit_of_a_reward_model(settings, tmp_path):
    """Not the length it was trained on: a long prompt is scored, and one that fills the context is an error."""
    run(resolve(settings("reward", out="rm", data="pairs", train__steps=1, text__max_length=64)))
    scorer = open_scorer(str(tmp_path / "rm"), device="cpu", dtype="float32")
    context = scorer.model.config.max_position_embeddings
    short, long = "the cat " * 40, "the cat sat " * context
    assert len(scorer.score([((Message("user", short),), "yes")])) == 1
    with pytest.raises(
        InputError, match=sentence("prompt leaves no room", opening="the cat sat …", context=context)
    ) as e:
        scorer.score([((Message("user", text),), "yes") for text in (short, long)])
    assert "\n" not in str(e.value)


@pytest.mark.medium
def test_a_reward_model_scores_a_file(settings, files, tmp_path, capsys):
    run(resolve(settings("reward", out="rm", data="pairs", train__steps=12, tune="full", train__lr=3e-3)))
    out = tmp_path / "scores.jsonl"
    arguments = ["score", str(tmp_path / "rm"), str(files["pairs"]), "--out", str(out), "--threads", "1", "--json"]
    assert cli(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {
        "out", "rows", "answers", "score", "length_correlation", "pairs", "accuracy", "calibration_error",
    }  # fmt: skip
    assert (result["rows"], result["answers"], result["pairs"]) == (30, 60, 30)
    assert result["accuracy"]["value"] > 0.8
    written = lines(out)
    better = [a["score"] > b["score"] for a, b in zip(written[::2], written[1::2], strict=True)]
    assert sum(better) / 30 == pytest.approx(result["accuracy"]["value"])
    assert cli(arguments) == 2
    assert "already exists" in capsys.readouterr().err
    assert cli([*arguments[:4], str(tmp_path / "other.jsonl")]) == 0
    assert "better preferred" in capsys.readouterr().out


@pytest.mark.medium
def test_only_a_reward_model_scores(settings, files, tmp_path, capsys):
    run(resolve(settings("sft", out="sft", train__steps=1)))
    assert cli(["score", str(tmp_path / "sft"), str(files["pairs"]), "--out", str(tmp_path / "s.jsonl")]) == 2
    assert "not a reward model" in capsys.readouterr().err


@pytest.mark.medium
def test_a_reward_model_chooses_the_best_of_n(settings, files, tmp_path, capsys):
    run(resolve(settings("reward", out="rm", data="pairs", train__steps=4)))
    out = tmp_path / "best.jsonl"
    arguments = [
        "sample", settings("sft")["model"], str(files["chat"]), "--reward", f"model:{tmp_path / 'rm'}", "--samples", "3",
        "--limit", "4", "--max-new-tokens", "6", "--write", "pairs", "--out", str(out), "--threads", "1", "--json",
    ]  # fmt: skip
    assert cli(arguments) == 0
    best = json.loads(capsys.readouterr().out)["best_of"]
    assert best[-1]["reward"] > best[0]["reward"]


@pytest.mark.medium
def test_the_best_checkpoint_within_the_budget_is_kept(settings, tmp_path):
    def kept(out, budget):
        result = run(resolve(settings("grpo", out=out, eval__every=2, policy__kl_budget=budget)))
        evals = [record for record in lines(tmp_path / out / "metrics.jsonl") if "eval_reward" in record]
        return result["kept"], {record["step"]: record for record in evals}

    found, evals = kept("wide", 1e9)
    assert found["step"] == max(evals.values(), key=lambda r: (r["eval_reward"], -r["step"]))["step"]
    apart = {step: record["eval_kl_per_answer"] for step, record in evals.items()}
    assert apart[2] > 0  # measured at the weights of step 2, which have moved
    middle = sorted(apart.values())[1]
    found, evals = kept("middle", middle)
    within = [record for step, record in evals.items() if apart[step] <= middle]
    assert found["step"] == max(within, key=lambda r: (r["eval_reward"], -r["step"]))["step"]
    found, _ = kept("narrow", min(apart.values()) / 2)
    assert found == {"step": 0, "why": "the start: no step stayed within --policy.kl_budget"}
    assert all(not bool(value.any()) for name, value in bits(tmp_path / "narrow").items() if "lora_B" in name)


@pytest.mark.medium
def test_orpo_learns_from_mixed_rows(settings, files, tmp_path):
    texts = [{"text": " ".join(WORDS)}] * 3
    mixed = tmp_path / "mixed.jsonl"
    write(mixed, [*lines(files["chat"])[:6], *lines(files["pairs"])[6:14], *texts])
    files["mixed"] = mixed
    result = run(resolve(settings("orpo", data="mixed", data__layout="mixed", data__holdout=0)))
    assert result["data"]["rows"] == 17
    with pytest.raises(InputError, match=sentence("method and rows", name="dpo")):
        run(resolve(settings("dpo", out="other", data="mixed", data__layout="mixed")))


@pytest.mark.medium
def test_standard_input_is_a_stream_that_ends(settings, files, tmp_path, monkeypatch):
    class Pipe(io.BytesIO):
        """Standard input with 30 pairs."""

    def piped():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(files["pairs"].read_bytes())))

    changes = {"data__stream": True, "train__steps": 50, "data__path": ["-"], "data__eval": [str(files["pairs"])]}
    piped()
    result = run(resolve(settings("orpo", data="pairs", **changes)))
    assert result["steps"] == 10  # 30 rows, 3 a step
    assert not torch.isnan(torch.tensor(result["loss"]["last"]))
    with pytest.raises(InputError, match=sentence("standard input gone")):
        resume(tmp_path / "run")


@pytest.mark.medium
def test_held_out_answers_are_drawn_at_the_temperature_asked_for(settings, tmp_path):
    found = {}
    for name, temperature in (("greedy", 0.0), ("drawn", 1.0), ("again", 1.0)):
        run(resolve(settings("sft", out=name, train__steps=1, eval__temperature=temperature)))
        found[name] = [r["answer"] for r in lines(tmp_path / name / "evals" / "before.jsonl") if "answer" in r]
    assert found["drawn"] == found["again"]
    assert found["drawn"] != found["greedy"]


@pytest.fixture(scope="session")
def wider_folder(tmp_path_factory, tiny_tokenizer):
    """A model wide enough for 16 bits to round otherwise in another packing."""
    folder = tmp_path_factory.mktemp("models") / "wider"
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
    tiny_model("sdpa", vocabulary=len(tiny_tokenizer) + 5, **sizes).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


VARIANTS = [
    ("ppo", {}),
    *(("grpo", {"policy.variant": v}) for v in ("grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo")),
]


@pytest.mark.medium
@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize(("method", "more"), VARIANTS)
def test_in_bfloat16_no_token_is_clipped_before_the_policy_has_moved(
    settings, wider_folder, tmp_path, method, more, minibatches
):
    """Several micro-batches of one step round otherwise than one pass over the rollout: the ratio must be 1 all the same."""
    changes = {
        "model": str(wider_folder), "dtype": "bfloat16", "train__tokens": 64, "train__batch": 6, "train__steps": 1, "eval__samples": 0,
        "rollout__max_new_tokens": 24, "policy__minibatches": minibatches, "policy__kl": 0.05, "data__holdout": 0,
        "reward__use": [vowels(tmp_path)], "policy__clip": 1e-4,
    }  # fmt: skip
    run(resolve(settings(method, **changes, **more)))
    first = lines(tmp_path / "run" / "metrics.jsonl")[0]
    assert first["equal_rewards"] < 0.5
    assert first["clipped"] == 0


@pytest.mark.parametrize(
    ("rule", "given"), [("keep", [0.5, 0.7]), ("zero", [0.5, 0.0]), ("-1.5", [0.5, -1.5]), ("mask", [0.5, 0.7])]
)
def test_what_a_cut_answer_is_worth(rule, given):
    samples = [Sample(0, (1,), "a", (0.0,), "stop"), Sample(0, (1,), "b", (0.0,), "length")]
    assert with_rewards_of_cut([0.5, 0.7], samples, rule) == given


def test_other_rules_for_cut_answers_are_refused(settings):
    with pytest.raises(InputError, match=sentence("nonnumber reward", where="reward.truncated")):
        resolve(settings("grpo", reward__truncated="drop"))


@pytest.mark.medium
def test_policies_learn_at_a_constant_rate_and_others_do_not(settings, tmp_path):
    """By default: after the warm-up, of which six steps have none; sft's falls on a cosine. A schedule that is given counts."""
    for method, changes, falls in (
        ("grpo", {}, False), ("sft", {}, True), ("grpo", {"train__schedule": "cosine"}, True),
    ):  # fmt: skip
        out = f"{method}-{falls}"
        run(resolve(settings(method, out=out, train__lr=None, train__steps=3, eval__samples=0, **changes)))
        rates = [record["lr"] for record in lines(tmp_path / out / "metrics.jsonl")]
        assert (rates[-1] < rates[0]) == falls
    base = tune_kinds.peak_rate("lora", 32)
    assert lines(tmp_path / "grpo-False" / "metrics.jsonl")[0]["lr"] == pytest.approx(base / 4)
