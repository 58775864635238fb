"""Scores as tables."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from luthier.report.screens.benchmarks import figure, tables


@dataclass(frozen=True)
class Metric:
    title: str
    unit: str


def estimate(value: float, low: float | None = None, high: float | None = None, n: int = 100) -> dict:
    return {"value": value, "low": low, "high": high, "n": n}


RESULT = {
    "model": "runs/[bold]x", "chat_template": False, "template": None, "dtype": "float32",
    "tasks": {
        "mmlu": {"acc": estimate(0.25, 0.2, 0.3, 1234)},
        "wikitext": {"word_perplexity": estimate(123.4, 110.0, 140.0), "bits_per_byte": estimate(0.98)},
    },
    "subjects": {"mmlu": {f"subject_{i}": {"acc": estimate(i / 20)} for i in range(12)}},
    "shots": {"mmlu": 5, "wikitext": 0}, "files": {"mmlu": {f"{i}.csv": "abcdef0123456789" for i in range(4)}, "wikitext": {}},
    "truncated": {"mmlu": 3, "wikitext": 0}, "records": {"mmlu": "evals/mmlu.jsonl", "wikitext": "evals/wikitext.jsonl"},
    "notes": {"mmlu": "no file of examples found"}, "seconds": 75.0, "documents": 50, "documents_per_second": 0.67,
    "peak_memory_bytes": 1_200_000_000,
    "suite": {
        "name": "leaderboard", "average": estimate(0.401, 0.39, 0.41),
        "columns": {"ARC": {"task": "arc_challenge", "shots": 25, "metric": "acc_norm", **estimate(0.433, 0.4, 0.46)}},
    },
}  # fmt: skip
METRICS = {
    "acc": Metric("accuracy", "%"), "word_perplexity": Metric("perplexity per word", ""), "bits_per_byte": Metric("bits per byte", ""),
}  # fmt: skip


def test_every_figure_is_there_and_nothing_is_read_as_markup():
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in tables(RESULT, METRICS):
        console.print(part)
    text = " ".join(console.export_text().split())
    for words in (
        "runs/[bold]x", "Average", "ARC", "40.1", "43.3", "40.0 … 46.0", "25 shots",
        "accuracy, %", "25.0", "20.0 … 30.0", "1,234", "123.4", "110.0 … 140.0", "0.980",
        "subject 0", "subject 11", "chat template off", "50 documents in 1:15, 0.67 a second", "1.2 GB",
        "3 of mmlu: the beginning was left out", "0.csv (abcdef01), 1.csv (abcdef01) and 2 more", "evals/mmlu.jsonl",
        "! mmlu: no file of examples found",
    ):  # fmt: skip
        assert words in text, words
    assert "subject 5" not in text  # only the lowest and the highest


def test_figures_beyond_the_usual():
    assert [figure(value, "") for value in (None, 3e20, 1234.5)] == ["too large", "3.0e+20", "1,234.5"]


def test_a_measurement_that_was_complete_says_so():
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in tables(RESULT | {"documents": 0, "documents_per_second": None}, METRICS):
        console.print(part)
    assert "nothing was left to do" in console.export_text()
