"""Every benchmark on one screen: its files, how a row becomes a document, shots and metrics.

Names, prompts, shots and metrics are those of lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from luthier.core.errors import nearest, unknown
from luthier.data.read import Row
from luthier.evals.benchmarks import documents, rows
from luthier.evals.benchmarks.documents import Parse

Kind = Literal["choices", "words", "generated", "text"]


@dataclass(frozen=True)
class Task:
    """A row of TASKS.

    kind         what is asked: which of several choices is likeliest; how likely some words are, and whether they
                 are the likeliest; an answer to write; how likely a whole text is
    parse        a row of the file -> Document
    read         a file -> its rows
    files        names of the file to measure on, the first one found counts: the end of a path, `*` for any part.
                 In lower case and without compression's ending
    shot_files   the same for the rows that are shown as examples; without any, the measured file serves
    hub          data set, configuration, and splits to measure on and to take shots from
    metrics      the first is the one that tables show
    shots        how many examples, when nobody says; `fixed` when nobody may
    first        shots are the first rows of their group; otherwise they are drawn anew for each document
    spare        one shot more is drawn than needed, and the document itself left out: the harness's rule where the
                 measured rows are its validation split
    description  stands before everything, with the group's name for {group}
    group        measure this part alone
    """

    name: str
    kind: Kind
    parse: Parse
    files: tuple[str, ...]
    metrics: tuple[str, ...]
    read: Callable[[Path], Iterable[Row]] = rows.published
    shot_files: tuple[str, ...] = ()
    hub: tuple[str, str | None, str, str] | None = None
    shots: int = 0
    fixed: bool = False
    first: bool = False
    spare: bool = False
    description: str = ""
    group: str = ""


def _arc(name: str) -> Task:
    title = name.replace("_", "-")  # arc-easy
    return Task(
        name, "choices", documents.arc, metrics=("acc_norm", "acc"),
        files=(f"{title}-test.jsonl", f"{name}_test.jsonl", f"{title}/test*.parquet"),
        shot_files=(f"{title}-train.jsonl", f"{name}_train.jsonl", f"{title}/train*.parquet"),
        hub=("allenai/ai2_arc", {"arc_easy": "ARC-Easy", "arc_challenge": "ARC-Challenge"}[name], "test", "train"),
    )  # fmt: skip


_TRUTHFULQA = Task(
    "truthfulqa_mc2", "choices", documents.truthfulqa_mc2, metrics=("mc2",), fixed=True,
    files=("mc_task.json", "truthfulqa.csv", "multiple_choice/validation*.parquet"),
    hub=("truthfulqa/truthful_qa", "multiple_choice", "validation", "validation"),
)  # fmt: skip

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _arc("arc_easy"),
        _arc("arc_challenge"),
        Task(
            "hellaswag", "choices", documents.hellaswag, metrics=("acc_norm", "acc"), spare=True,
            files=("hellaswag_val.jsonl", "hellaswag/validation*.parquet", "hellaswag/data/validation*.parquet"),
            shot_files=("hellaswag_train.jsonl", "hellaswag/train*.parquet", "hellaswag/data/train*.parquet"),
            hub=("Rowan/hellaswag", None, "validation", "train"),
        ),
        Task(
            "mmlu", "choices", documents.mmlu, metrics=("acc",), read=rows.mmlu, first=True,
            files=("test/*_test.csv", "mmlu_test.jsonl", "all/test*.parquet"),
            shot_files=("dev/*_dev.csv", "mmlu_dev.jsonl", "all/dev*.parquet"),
            hub=("cais/mmlu", "all", "test", "dev"),
            description="The following are multiple choice questions (with answers) about {group}.\n\n",
        ),
        replace(_TRUTHFULQA, name="truthfulqa_mc1", parse=documents.truthfulqa_mc1, metrics=("acc",)),
        _TRUTHFULQA,
        Task(
            "piqa", "choices", documents.piqa, metrics=("acc_norm", "acc"), read=rows.piqa, spare=True,
            files=("piqa/valid.jsonl", "physicaliqa-train-dev/dev.jsonl", "piqa.jsonl", "piqa/validation*.parquet"),
            shot_files=("piqa/train.jsonl", "physicaliqa-train-dev/train.jsonl", "piqa/train*.parquet"),
            hub=("baber/piqa", None, "validation", "train"),
        ),
        Task(
            "winogrande", "choices", documents.winogrande, metrics=("acc",), spare=True,
            files=("winogrande*/dev.jsonl", "winogrande.jsonl", "winogrande_xl/validation*.parquet"),
            shot_files=("winogrande*/train_xl.jsonl", "winogrande_xl/train*.parquet"),
            hub=("allenai/winogrande", "winogrande_xl", "validation", "train"),
        ),
        Task(
            "boolq", "choices", documents.boolq, metrics=("acc",), spare=True,
            files=("boolq/val.jsonl", "boolq/dev.jsonl", "boolq.jsonl", "boolq/validation*.parquet"),
            shot_files=("boolq/train.jsonl", "boolq/train*.parquet"),
            hub=("aps/super_glue", "boolq", "validation", "train"),
        ),
        Task(
            "lambada", "words", documents.lambada, metrics=("acc", "perplexity"),
            files=("lambada_openai.jsonl", "lambada_test.jsonl", "lambada_test_en.jsonl", "lambada_openai/test*.parquet"),
            hub=("EleutherAI/lambada_openai", "default", "test", "test"),
        ),
        Task(
            "gsm8k", "generated", documents.gsm8k, metrics=("exact_match", "exact_match_flexible"), shots=5,
            files=("gsm8k/test.jsonl", "grade_school_math/data/test.jsonl", "gsm8k_test.jsonl", "gsm8k/main/test*.parquet"),
            shot_files=(
                "gsm8k/train.jsonl", "grade_school_math/data/train.jsonl", "gsm8k_train.jsonl", "gsm8k/main/train*.parquet",
            ),
            hub=("openai/gsm8k", "main", "test", "train"),
        ),
        Task(
            "wikitext", "text", documents.wikitext, read=rows.wikitext, fixed=True,
            metrics=("word_perplexity", "byte_perplexity", "bits_per_byte", "token_perplexity"),
            files=("wiki.test.raw", "wiki.test.tokens", "wikitext*/test.txt", "wikitext-2-raw-v1/test*.parquet"),
            hub=("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test", "test"),
        ),
        Task(
            "perplexity", "text", documents.plain_text, fixed=True, files=(),
            metrics=("token_perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"),
        ),
    )
}  # fmt: skip

GROUPS: dict[str, tuple[str, ...]] = {
    "truthfulqa": ("truthfulqa_mc1", "truthfulqa_mc2"),
    "arc": ("arc_easy", "arc_challenge"),
}

SUBJECTS = (
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology",
    "college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics",
    "computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics",
    "high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history",
    "human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning",
    "management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition",
    "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
)  # fmt: skip


@dataclass(frozen=True)
class SuiteColumn:
    """A column of a suite: task, title, shots, and the metric that counts."""

    task: str
    title: str
    shots: int
    metric: str


# Open LLM Leaderboard, first version (2023): the average of these four. MMLU is the plain mean of its subjects.
SUITES: dict[str, tuple[SuiteColumn, ...]] = {
    "leaderboard": (
        SuiteColumn("arc_challenge", "ARC", 25, "acc_norm"),
        SuiteColumn("hellaswag", "HellaSwag", 10, "acc_norm"),
        SuiteColumn("mmlu", "MMLU", 5, "acc_subjects"),
        SuiteColumn("truthfulqa_mc2", "TruthfulQA", 0, "mc2"),
    ),
}


def find(names: str) -> list[Task]:
    """The tasks of a comma-separated list: names, groups, and subjects as mmlu_SUBJECT.

    Raises InputError for an unknown name, with the nearest one.
    """
    found: dict[str, Task] = {}
    for name in (part.strip() for part in names.split(",") if part.strip()):
        subject = name.removeprefix("mmlu_")
        if subject in SUBJECTS and name != subject:
            found[name] = replace(TASKS["mmlu"], name=name, group=subject)
            continue
        for member in GROUPS.get(name, (name,)):
            if member not in TASKS:
                subjects = [f"mmlu_{subject}" for subject in SUBJECTS]
                named = subjects if nearest(member, subjects) and not nearest(member, TASKS) else [*TASKS, *GROUPS]
                raise unknown("task", member, named, where="--tasks")
            found[member] = TASKS[member]
    return list(found.values())
