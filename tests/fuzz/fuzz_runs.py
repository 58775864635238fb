"""Settings, suites, schemas, run folders and what people and judges wrote, damaged and read by their commands."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import fuzz_files
from fuzz_files import Material
from fuzz_reading import changed_file, command, one_of, reader, say_something


@reader(12)
def settings_YAML(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.commands.settings import config_of
    from luthier.config.resolve import resolve, write_yaml

    path = folder / "run.yaml"
    path.write_bytes((material.run / "run.yaml").read_bytes())
    changed_file(path, draw)
    config = config_of([str(path)], {})
    import yaml

    assert resolve(yaml.safe_load(write_yaml(config))) == config


@reader(20)
def suite_YAML(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.evals.suites.cases import expand
    from luthier.evals.suites.checks import Verdict
    from luthier.evals.suites.document import read
    from luthier.evals.suites.evaluation import PreparedSuite
    from luthier.evals.suites.results import check_all, prepare, score

    path, rows = folder / "suite.yaml", folder / "rows.jsonl"
    path.write_text(fuzz_files.SUITE)
    rows.write_bytes(material.rows["alpaca.jsonl"])
    changed_file(path if draw.random() < 0.85 else rows, draw)
    document = read(path)
    cases = expand(document)
    ready = prepare(cases, folder)
    answers = [[draw.choice(fuzz_files.ANSWERS)] for _ in cases]
    outcomes = check_all(cases, ready, answers, lambda check, given: [Verdict(False, "asked") for _ in given])
    score(outcomes, document.suite)
    json.dumps([outcome.as_dict() for outcome in outcomes])
    assert PreparedSuite


@reader(30)
def schema_of_a_reward(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.config.rewards import RewardConfig
    from luthier.rewards.answer import Answer
    from luthier.rewards.rules import rule

    path = folder / "schema.json"
    path.write_text(json.dumps({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["a"], "$defs": {"n": {"type": "integer"}},
        "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"type": "string", "pattern": "^x+$", "maxLength": 5, "format": "date"}},
    }))  # fmt: skip
    changed_file(path, draw, structure=0.8)
    score = rule(f"json:{path}", "json", str(path), RewardConfig(timeout=2))
    score([Answer("", text, None, 1, True, ()) for text in ('{"a": 1, "b": "xx"}', "[]", "no")])


RUN_FILES = (
    "run.yaml",
    "lineage.json",
    "result.json",
    "data.json",
    "evals/*.jsonl",
    "errors/*.jsonl",
    "metrics.jsonl",
    "losses.jsonl",
    "samples.jsonl",
)


def _run(material: Material, draw: random.Random, folder: Path, *patterns: str) -> Path:
    place = folder / "run"
    fuzz_files.copies(material.run, place)
    changed_file(one_of(place, draw, *(patterns or RUN_FILES)), draw)
    if draw.random() < 0.8:
        _sum_anew(place)
    return place


def _sum_anew(run: Path) -> None:
    """Checksums that are those of the files as they are: whoever means harm can count too."""
    lines = [line.partition("  ")[2] for line in (run / "sums").read_text().splitlines()]
    digests = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in lines if (run / name).is_file()}
    (run / "sums").write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


@reader(16)
def run_reported(material: Material, draw: random.Random, folder: Path) -> None:
    command("report", _run(material, draw, folder), "--json", *(["--coding"] if draw.random() < 0.3 else []))


@reader(10)
def run_with_errors(material: Material, draw: random.Random, folder: Path) -> None:
    run = _run(material, draw, folder)
    more = draw.choice(((), (), ("--fix", folder / "fixes.jsonl"), ("--compare", material.run)))
    command("errors", run, "--json", *more)


@reader(12)
def run_opened(material: Material, draw: random.Random, folder: Path) -> None:
    say_something(_run(material, draw, folder, "run.yaml", "lineage.json", "adapter/*", "adapter/*.json"))


@reader(4)
def run_that_goes_on(material: Material, draw: random.Random, folder: Path) -> None:
    """A run that was killed in the middle, and something of it damaged."""
    place = _run(
        material, draw, folder, "run.yaml", "lineage.json", "metrics.jsonl", "evals/before.jsonl", "checkpoints/*/*"
    )
    for gone in ("result.json", "evals/after.jsonl"):
        (place / gone).unlink(missing_ok=True)
    _sum_anew(place)
    command("train", material.run / "run.yaml", "--out", place, "--json")


@reader(4)
def run_verified(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.tune.verify import resume

    place = _run(material, draw, folder, "run.yaml", "lineage.json", "checkpoints/*/*", "checkpoints/*/*.json")
    json.dumps(resume(place, threads=1))


@reader(50)
def judgments(material: Material, draw: random.Random, folder: Path) -> None:
    path = folder / "judgments.jsonl"
    rows = draw.choice((fuzz_files.JUDGMENTS, fuzz_files.JUDGMENTS, fuzz_files.ALPACA_EVAL))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed_file(path, draw, structure=0.8)
    command("elo", path, "--rounds", 100, "--json")


@reader(40)
def answers_compared(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.comparison.contestants import AnswerOptions, answer_prompts
    from luthier.config.data import DataConfig

    files = {}
    for name in ("a", "b"):
        files[name] = str(folder / f"{name}.jsonl")
        Path(files[name]).write_text(
            "".join(json.dumps({"prompt": f"who {i}?", "answer": f"{name} {i}"}) + "\n" for i in range(4))
        )
    changed_file(Path(draw.choice(list(files.values()))), draw, structure=0.8)
    answer_prompts(files, AnswerOptions(DataConfig(), 4, 4, folder / "out.jsonl", 0, "cpu", "float32"), lambda: False)


@reader(40)
def kept_samples(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.rewards.sample_journal import SampledAnswer, keeping

    path, settings = folder / "kept.jsonl", {"model": "x", "n": 2}
    with keeping(path, settings, "exact") as kept:
        kept.add_answers({i: [SampledAnswer("the cat", 2, True), SampledAnswer("no", 1, False)] for i in range(3)})
        kept.add_parts({0: {"exact": [1.0, 0.0]}})
    changed_file(path, draw, structure=0.8)
    with keeping(path, settings, "exact") as kept:
        assert all(isinstance(given.text, str) for answers in kept.answers.values() for given in answers)


@reader(12)
def fixes_accepted(material: Material, draw: random.Random, folder: Path) -> None:
    path = folder / "fixes.jsonl"
    path.write_bytes(material.fixes)
    changed_file(path, draw, structure=0.8)
    command("errors", material.run, "--apply", path, "--out", folder / "rows.jsonl", "--json")


@reader(8)
def codes_by_hand(material: Material, draw: random.Random, folder: Path) -> None:
    run = folder / "run"
    fuzz_files.copies(material.run, run)
    path = run / "errors" / "codes.jsonl"
    path.write_text(
        "".join(
            json.dumps({"row": i, "tags": ["vague", "long"], "headings": {"vague": "style"}}) + "\n" for i in range(3)
        )
    )
    changed_file(path, draw, structure=0.8)
    command("report", run, "--json")


@reader(30)
def benchmark_records(material: Material, draw: random.Random, folder: Path) -> None:
    for side in ("a", "b"):
        (folder / side).mkdir()
        lines = [
            {"doc": i, "question": f"q{i}", "choices": ["x", "y"], "gold": 1, "pick": i % 2, "logp": [-1.0, -2.0], "acc": float(i % 2),
             "cut": 0, "origin": "f:1"} for i in range(8)
        ]  # fmt: skip
        card = {
            "model": side,
            "task": "boolq",
            "files": {"f": "0" * 64},
            "shots": 0,
            "chat_template": False,
            "dtype": "float32",
        }
        (folder / side / "boolq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / side / "boolq.json").write_text(json.dumps(card))
    changed_file(one_of(folder / draw.choice("ab"), draw, "*.jsonl", "*.jsonl", "*.json"), draw, structure=0.8)
    command("compare", folder / "a", folder / "b", "--tasks", draw.choice(("all", "boolq")), "--json")


BENCHMARKS = {
    "arc_easy": ("ARC-Easy-Test.jsonl", {"question": "Why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}),
    "hellaswag": ("hellaswag_val.jsonl", {"ctx": "c", "activity_label": "l", "endings": ["a", "b", "c", "d"], "label": 1}),
    "boolq": ("boolq.jsonl", {"question": "is it", "passage": "it is", "title": "t", "answer": True}),
    "gsm8k": ("gsm8k/test.jsonl", {"question": "q", "answer": "a\n#### 1"}),
    "truthfulqa_mc1": ("mc_task.json", {"question": "q", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}}),
}  # fmt: skip


@reader(40)
def benchmark_files(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.evals.benchmarks.files import from_folder
    from luthier.evals.benchmarks.tasks import TASKS

    name = draw.choice(list(BENCHMARKS))
    task = TASKS[name]
    path = folder / task.files[0].replace("*", "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [BENCHMARKS[name][1]] * 3
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    from_folder(task, folder, 0)
    changed_file(path, draw, structure=0.8)
    from_folder(task, folder, 0)
