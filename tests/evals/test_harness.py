"""lm-evaluation-harness gets the same numbers from our engine as from its own model class."""

from __future__ import annotations

import json
import logging

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is in the dev extra")
logging.getLogger("lm_eval").setLevel(logging.ERROR)

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from luthier.cli import run  # noqa: E402
from luthier.core.types.examples import Message  # noqa: E402
from luthier.evals.benchmarks import harness  # noqa: E402
from luthier.evals.benchmarks.evaluation import chat_text  # noqa: E402


@pytest.fixture(scope="module")
def pair(tiny_folder):
    """Our model class and the harness's, over the same weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = get_model("luthier").create_from_arg_string(
        f"pretrained={tiny_folder},dtype=float32,tokens=128",
        {"batch_size": 4, "device": "cuda:0", "max_batch_size": None},
    )
    theirs = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(tiny_folder), batch_size=2,
    )  # fmt: skip
    return ours, theirs


def asked(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [Instance(kind, {}, found, i) for i, found in enumerate(arguments)]


def test_log_likelihoods(pair):
    ours, theirs = pair
    contexts = ["the cat sat on", "the cat sat by ", "", "who is it? " * 60]
    requests = [(context, choice) for context in contexts for choice in (" the mat", " a tree", " no", "x")]
    ours_, theirs_ = (model.loglikelihood(asked("loglikelihood", requests), disable_tqdm=True) for model in pair)
    assert [logp for logp, _ in ours_] == pytest.approx([logp for logp, _ in theirs_], abs=1e-4)
    assert [greedy for _, greedy in ours_] == [greedy for _, greedy in theirs_]
    assert ours.max_length == theirs.max_length == 512


def test_whole_texts(pair):
    texts = [("the cat sat",), ("a dog ran by the red tree. " * 40,)]
    ours, theirs = (
        model.loglikelihood_rolling(asked("loglikelihood_rolling", texts), disable_tqdm=True) for model in pair
    )
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_answers(pair):
    settings = [{"until": ["\n", "t"], "max_gen_toks": 12, "do_sample": False}, {"until": [], "max_gen_toks": 5}]
    requests = [(text, dict(one)) for text in ("the cat", "who is it? " * 70, "one two") for one in settings]
    ours, theirs = (model.generate_until(asked("generate_until", requests), disable_tqdm=True) for model in pair)
    assert ours == [text.rstrip("\ufffd") for text in theirs]


def test_chat(pair):
    ours, theirs = pair
    turns = [
        {"role": "user", "content": "who?"},
        {"role": "assistant", "content": "it"},
        {"role": "user", "content": "yes?"},
    ]
    assert ours.apply_chat_template(turns) == theirs.apply_chat_template(turns)
    begun = [*turns, {"role": "assistant", "content": "It is"}]
    assert ours.apply_chat_template(begun, add_generation_prompt=False) == theirs.apply_chat_template(
        begun, add_generation_prompt=False
    )
    assert ours.chat_template(True) == theirs.chat_template(True)
    assert ours.tok_decode(ours.tok_encode("the cat")) == "the cat"


def test_a_run_is_asked_under_its_system_prompt(pair, monkeypatch):
    ours, _ = pair
    turns = [{"role": "user", "content": "who?"}]
    plain = ours.apply_chat_template(turns)
    text = ours.opened.config.text.model_copy(update={"system": "Be brief."})
    monkeypatch.setattr(ours.opened, "config", ours.opened.config.model_copy(update={"text": text}))
    asked = ours.apply_chat_template(turns)
    assert asked == "<|im_start|>system\nBe brief.<|im_end|>\n" + plain
    assert asked == chat_text(ours.opened, [Message("user", "who?")])
    assert ours.apply_chat_template([{"role": "assistant", "content": "It"}], add_generation_prompt=False).endswith(
        "It"
    )


@pytest.mark.slow
def test_the_harnesss_command_line_runs_a_task_of_its_own_on_a_model_of_ours(
    tiny_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"question": f"who is {i}", "choices": ["the cat", "a dog"], "label": i % 2} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "output_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{question}}"\ndoc_to_target: label\ndoc_to_choice: choices\n'
    )
    arguments = [
        "--tasks",
        "mine",
        "--include_path",
        str(tmp_path),
        "--device",
        "cpu",
        "--output_path",
        str(tmp_path / "out"),
    ]
    assert run(["lm-eval", "--model_args", f"pretrained={tiny_folder},dtype=float32", *arguments]) == 0
    out = capsys.readouterr().out
    assert "luthier ({" in out and "|mine" in out.replace(" ", "")
    (written,) = (tmp_path / "out").rglob("results_*.json")
    assert 0 <= json.loads(written.read_text())["results"]["mine"]["acc,none"] <= 1


def test_without_the_harness_one_line_says_so(monkeypatch, capsys):
    import sys

    monkeypatch.delitem(sys.modules, "luthier.evals.benchmarks.harness")
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert run(["lm-eval", "--tasks", "piqa"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "luthier: lm-evaluation-harness is not installed; pip install lm-eval"
    )


def test_our_model_class_is_taken_unless_another_is_named(monkeypatch):
    import sys

    seen = []
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: seen.append(sys.argv[1:]))
    harness.main(["--tasks", "piqa"])
    harness.main(["run", "--model=hf", "--tasks", "piqa"])
    harness.main(["ls", "tasks"])
    assert seen == [
        ["--tasks", "piqa", "--model", "luthier"],
        ["run", "--model=hf", "--tasks", "piqa"],
        ["ls", "tasks"],
    ]
