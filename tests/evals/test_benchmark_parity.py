"""Prompts, tokens, log-likelihoods and scores are those of lm-evaluation-harness, on the same documents.

The harness's own task classes, read from its YAML files, are given the documents in the hub's layout; ours reads
files in the layouts of their authors.
"""

from __future__ import annotations

import csv
import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sentences import sentence

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is in the dev extra")
logging.getLogger("lm_eval").setLevel(logging.ERROR)

from luthier.core.errors import InputError  # noqa: E402
from luthier.core.types.examples import Message  # noqa: E402
from luthier.evals.benchmarks import evaluation, files, results  # noqa: E402
from luthier.evals.benchmarks.encode import HarnessTokenizer  # noqa: E402
from luthier.evals.benchmarks.measure import Engine, chosen, measure  # noqa: E402
from luthier.evals.benchmarks.prompts import Shots, prompt  # noqa: E402
from luthier.evals.benchmarks.tasks import SUBJECTS, SUITES, TASKS, find  # noqa: E402
from luthier.evals.likelihood import LikelihoodRequest, LikelihoodScorer  # noqa: E402
from luthier.generate.generate import generate  # noqa: E402
from luthier.generate.sampling import Sampling  # noqa: E402
from luthier.model import load as model_load  # noqa: E402
from luthier.model.folder.limits import longest_input  # noqa: E402
from luthier.text.template import load_template  # noqa: E402
from luthier.text.tokenizer import SEPARATOR, Tokenizer  # noqa: E402

YAML = {
    "arc_easy": "arc/arc_easy.yaml", "arc_challenge": "arc/arc_challenge.yaml", "hellaswag": "hellaswag/hellaswag.yaml",
    "mmlu": "mmlu/default/mmlu_{group}.yaml", "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml", "piqa": "piqa/piqa.yaml", "winogrande": "winogrande/default.yaml",
    "boolq": "super_glue/boolq/default.yaml", "lambada": "lambada/lambada_openai.yaml", "gsm8k": "gsm8k/gsm8k.yaml",
    "wikitext": "wikitext/wikitext.yaml",
}  # fmt: skip
METRICS = {"truthfulqa_mc2": {"acc": "mc2"}}
WORDS = "the cat sat on a red mat and three dogs ran by it ; who is not blue ? yes , é naïve 中 no one".split()  # noqa: SIM905


def words(draw: random.Random, low: int, high: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(low, high)))


def made_up(name: str, count: int, seed: int) -> list[dict]:
    """Documents in the hub's layout, with what trips readers up: labels 1 to 4, brackets, blanks at both ends."""
    draw = random.Random(f"{name} {seed}")

    def arc(i: int) -> dict:
        size = 3 + i % 3
        labels = [str(k + 1) for k in range(size)] if i % 2 else list("ABCDE"[:size])
        choices = {"text": [words(draw, 1, 5) for _ in labels], "label": labels}
        return {
            "id": f"d{i}",
            "question": words(draw, 4, 9) + " ?",
            "choices": choices,
            "answerKey": draw.choice(labels),
        }

    def hellaswag(i: int) -> dict:
        scene = {"ctx_a": words(draw, 3, 8) + ".", "ctx_b": words(draw, 0, 3), "activity_label": "Red mats"}
        endings = [f"{words(draw, 2, 5)} [title] {words(draw, 1, 3)} [substeps]  {words(draw, 1, 2)}" for _ in range(4)]
        return {"ind": i, **scene, "endings": endings, "label": str(draw.randrange(4))}

    def mmlu(i: int) -> dict:
        subject = "us_foreign_policy" if i % 2 else "anatomy"
        question = f" {words(draw, 3, 9)}\n{words(draw, 1, 3)} "
        return {
            "question": question,
            "subject": subject,
            "choices": [words(draw, 1, 4) for _ in range(4)],
            "answer": i % 4,
        }

    def truthfulqa(i: int) -> dict:
        answers = list(dict.fromkeys(words(draw, 2, 5) + "." for _ in range(6)))
        one = {"choices": answers[:4], "labels": [1, 0, 0, 0]}
        labels = [1, 1] + [0] * (len(answers) - 2)
        return {
            "question": words(draw, 3, 8),
            "mc1_targets": one,
            "mc2_targets": {"choices": answers, "labels": labels},
        }

    def piqa(i: int) -> dict:
        return {"goal": words(draw, 2, 6), "sol1": words(draw, 1, 4), "sol2": words(draw, 5, 9), "label": i % 2}

    def winogrande(i: int) -> dict:
        sentence = f"{words(draw, 2, 5)} _ {words(draw, 2, 4)} ."
        return {"sentence": sentence, "option1": "Ann", "option2": "Bo the cat", "answer": str(1 + i % 2)}

    def boolq(i: int) -> dict:
        return {"question": words(draw, 3, 6), "passage": words(draw, 10, 20), "idx": i, "label": i % 2}

    def lambada(i: int) -> dict:
        return {"text": f"{words(draw, 5, 12)}\n\n{words(draw, 2, 6)}"}

    def gsm8k(i: int) -> dict:
        return {
            "question": words(draw, 4, 9),
            "answer": f"{words(draw, 2, 6)}\n#### {draw.choice(['1,2', '3', '-4', '$5'])}",
        }

    def wikitext(i: int) -> dict:
        lines = [
            f" = {WORDS[i]} = ",
            "",
            f' {words(draw, 5, 9)} @-@ {words(draw, 1, 3)} . " {words(draw, 1, 3)} " ( a )  ',
        ]
        return {
            "page": "\n".join([*lines, f" = = {WORDS[i + 1]} = = ", " it 's 1 @,@ 000 , the dogs ' mats "] + [""] * 2)
        }

    rows = {"arc_easy": arc, "arc_challenge": arc, "truthfulqa_mc1": truthfulqa, "truthfulqa_mc2": truthfulqa}
    row = rows.get(name) or locals()[name]
    return [row(i) for i in range(count)]


def published(name: str, split: str, rows: list[dict], folder: Path) -> None:
    """Write rows of the hub's layout as the authors of the benchmark publish them."""

    def lines(path: str, values: list[dict]) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")

    train = split == "shots"
    if name.startswith("arc"):
        title = {"arc_easy": "ARC-Easy", "arc_challenge": "ARC-Challenge"}[name]
        values = []
        for row in rows:
            texts, labels = row["choices"]["text"], row["choices"]["label"]
            listed = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
            values.append(
                {
                    "id": row["id"],
                    "question": {"stem": row["question"], "choices": listed},
                    "answerKey": row["answerKey"],
                }
            )
        lines(f"ARC-V1-Feb2018-2/{title}/{title}-{'Train' if train else 'Test'}.jsonl", values)
    elif name == "hellaswag":
        lines(
            f"data/hellaswag_{'train' if train else 'val'}.jsonl", [{**row, "label": int(row["label"])} for row in rows]
        )
    elif name == "mmlu":
        kind = "dev" if train else "test"
        for subject in {row["subject"] for row in rows}:
            (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
            with open(folder / "data" / kind / f"{subject}_{kind}.csv", "w", encoding="utf-8", newline="") as handle:
                writer = csv.writer(handle)
                for row in rows:
                    if row["subject"] == subject:
                        writer.writerow([row["question"], *row["choices"], "ABCD"[row["answer"]]])
    elif name.startswith("truthfulqa") and not train:
        both = ("mc1_targets", "mc2_targets")
        values = [
            {"question": row["question"]}
            | {k: dict(zip(row[k]["choices"], row[k]["labels"], strict=True)) for k in both}
            for row in rows
        ]
        (folder / "mc_task.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    elif name == "piqa":
        stem = "train" if train else "valid"
        lines(f"piqa/{stem}.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in rows])
        (folder / f"piqa/{stem}-labels.lst").write_text("".join(f"{row['label']}\n" for row in rows))
    elif name == "winogrande":
        lines(f"winogrande_1.1/{'train_xl' if train else 'dev'}.jsonl", rows)
    elif name == "boolq":
        lines(f"BoolQ/{'train' if train else 'val'}.jsonl", [{**row, "label": bool(row["label"])} for row in rows])
    elif name == "lambada" and not train:
        lines("lambada_test.jsonl", rows)
    elif name == "gsm8k":
        lines(f"grade_school_math/data/{'train' if train else 'test'}.jsonl", rows)
    elif name == "wikitext" and not train:
        (folder / "wikitext-2-raw").mkdir()
        (folder / "wikitext-2-raw/wiki.test.raw").write_text("\n".join(row["page"] for row in rows), encoding="utf-8")


def harness_task(name: str, measured: list[dict], shots: list[dict], count: int, group: str = "", **changes):
    """The harness's own task over these documents."""
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    path = Path(lm_eval.__file__).parent / "tasks" / YAML[name].format(group=group)
    config = load_yaml(path, resolve_func=True) | changes
    if group:
        measured, shots = ([row for row in rows if row["subject"] == group] for rows in (measured, shots))
    eval_split = config.get("test_split") or config["validation_split"]
    parts = {config.get("fewshot_split") or config.get("training_split") or "none": shots, eval_split: measured}
    if config.get("validation_split"):
        parts.setdefault(config["validation_split"], measured)
    data = DatasetDict({split: Dataset.from_list(rows) for split, rows in parts.items()})
    if config.get("num_fewshot") != 0:
        config["num_fewshot"] = count
    task = ConfigurableTask(config={**config, "custom_dataset": lambda **_: data, "metadata": None})
    task.set_fewshot_seed(1234)
    return task


@pytest.fixture(scope="module")
def harness(tiny_folder):
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    return HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(tiny_folder), batch_size=3)


@pytest.fixture(scope="module")
def engine(tiny_folder) -> Engine:
    loaded = model_load.load(tiny_folder, device=torch.device("cpu"), dtype=torch.float32)
    tokenizer = Tokenizer(loaded.tokenizer)

    def write(prompts, stops):
        sampling = Sampling(max_new_tokens=40, stop_ids=(tokenizer.eos_id,), stop=(*stops, tokenizer.eos))
        return [s.text for s in generate(loaded.model, prompts, sampling, tokenizer.decode)]

    return Engine(
        LikelihoodScorer(loaded.model, longest_input(loaded.config, tokenizer.fast), 256),
        HarnessTokenizer(tokenizer),
        write,
    )


def ours(name: str, folder: Path, shots: int) -> tuple:
    task = TASKS[name]
    return task, files.from_folder(task, folder, shots)


CASES = [
    ("arc_easy", 0), ("arc_easy", 3), ("arc_challenge", 5), ("hellaswag", 0), ("hellaswag", 2), ("mmlu", 0), ("mmlu", 4),
    ("truthfulqa_mc1", 0), ("truthfulqa_mc2", 0), ("piqa", 2), ("winogrande", 0), ("winogrande", 3), ("boolq", 1),
    ("lambada", 0), ("lambada", 1), ("gsm8k", 2),
]  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize(("name", "shots"), CASES)
def test_prompts_tokens_loglikelihoods_and_scores_are_the_harnesss(name, shots, tmp_path, harness, engine):
    measured, examples = made_up(name, 8, seed=0), made_up(name, 9 if name != "mmlu" else 10, seed=1)
    published(name, "measured", measured, tmp_path)
    published(name, "shots", examples, tmp_path)
    task, material = ours(name, tmp_path, shots)
    records = {r["doc"]: r for r in measure(task, material, engine, shots=0 if task.fixed else shots)}
    assert sorted(records) == list(range(8))
    draws = Shots(task, material, shots)
    for group in sorted({d.group for d in material.documents}):
        documents = [i for i, d in enumerate(material.documents) if d.group == group]
        theirs = harness_task(name, measured, examples, shots, group)
        theirs.build_all_requests(limit=None)
        prompts = [prompt(task, material.documents[i], draws.draw(material.documents[i]), None) for i in documents]
        if task.kind == "generated":
            _same_generation(theirs, prompts, [records[i] for i in documents], harness)
            continue
        pairs = [pair for part in prompts for pair in part.pairs]
        assert pairs == [instance.args for instance in theirs.instances]
        requests = engine.coder.requests(pairs)
        assert [(list(r.context), list(r.continuation)) for r in requests] == [harness._encode_pair(*p) for p in pairs]
        found = harness.loglikelihood(theirs.instances, disable_tqdm=True)
        at = 0
        for index, part in zip(documents, prompts, strict=True):
            answers, at = found[at : at + len(part.pairs)], at + len(part.pairs)
            logp = records[index]["logp"]
            assert (logp if isinstance(logp, list) else [logp]) == pytest.approx([a for a, _ in answers], abs=1e-4)
            doc = theirs.eval_docs[documents.index(index)]
            for metric, value in theirs.process_results(doc, answers).items():
                if metric != "perplexity":
                    key = METRICS.get(name, {}).get(metric, metric)
                    assert records[index][key] == pytest.approx(value, abs=1e-4), metric


def _same_generation(theirs, prompts, records, harness) -> None:
    assert [part.contexts[0] for part in prompts] == [instance.args[0] for instance in theirs.instances]
    for instance in theirs.instances:
        instance.args[1]["max_gen_toks"] = 40
    texts = harness.generate_until(theirs.instances, disable_tqdm=True)
    assert [record["answer"] for record in records] == [text.rstrip("\ufffd") for text in texts]  # half a character
    # a model of random weights never finds the number: score answers that do, wholly or in part
    tries = ["so 3\n#### 1,2", "#### $5.", "it is 3 of -4", "none", "#### 3\n#### 4", "about 12.0 $5 ."]
    from luthier.evals.benchmarks.measure import bare_number, flexible_answer, strict_answer

    for record, doc in zip(records, theirs.eval_docs, strict=True):
        for text in tries:
            for number, filters in enumerate(theirs._filters):
                instance = type(theirs.instances[0])("generate_until", doc, ("", {}), 0, ("", 0, 1), resps=[text])
                filters.apply([instance])
                (answer,) = instance.filtered_resps.values()
                expected = theirs.process_results(doc, [answer])["exact_match"]
                got = (strict_answer, flexible_answer)[number](text)
                assert (bare_number(got) == bare_number(record["gold"])) == bool(expected), (text, doc)


@pytest.mark.medium
def test_long_documents_are_truncated_from_the_left_like_the_harnesss(tmp_path, harness, engine):
    """25 examples do not fit in the 512 tokens of this model."""
    measured, examples = made_up("arc_easy", 4, seed=0), made_up("arc_easy", 40, seed=1)
    published("arc_easy", "measured", measured, tmp_path)
    published("arc_easy", "shots", examples, tmp_path)
    task, material = ours("arc_easy", tmp_path, 25)
    theirs = harness_task("arc_easy", measured, examples, 25)
    theirs.build_all_requests(limit=None)
    found = [logp for logp, _ in harness.loglikelihood(theirs.instances, disable_tqdm=True)]
    records = sorted(measure(task, material, engine, shots=25), key=lambda r: r["doc"])
    assert all(record["cut"] > 0 for record in records)
    assert [value for record in records for value in record["logp"]] == pytest.approx(found, abs=1e-4)


def test_wikitext_pages_perplexities_and_long_windows_are_the_harnesss(tmp_path, harness, engine):
    pages = made_up("wikitext", 6, seed=0)
    pages[2]["page"] += " the dogs ran by ." * 200  # more than one window
    published("wikitext", "measured", pages, tmp_path)
    task, material = ours("wikitext", tmp_path, 0)
    theirs = harness_task("wikitext", pages, pages, 0)
    theirs.build_all_requests(limit=None)
    assert [document.choices[0] for document in material.documents] == [
        instance.args[0] for instance in theirs.instances
    ]
    found = harness.loglikelihood_rolling(theirs.instances, disable_tqdm=True)
    records = sorted(measure(task, material, engine, shots=0), key=lambda r: r["doc"])
    assert records[2]["tokens"] > engine.scorer.room
    assert [record["logp"] for record in records] == pytest.approx(found, abs=1e-3)
    scored = [theirs.process_results(doc, [logp]) for doc, logp in zip(theirs.eval_docs, found, strict=True)]
    scores = results.summary(task, records)
    for metric, aggregate in theirs.aggregation().items():
        assert scores[metric].value == pytest.approx(aggregate([score[metric] for score in scored]), rel=1e-5)


def test_without_a_file_of_examples_they_are_drawn_as_the_harness_does_without_a_training_split(tmp_path):
    measured = made_up("hellaswag", 5, seed=0)
    measured.insert(3, measured[1])  # the same document twice: neither may be shown to the other
    published("hellaswag", "measured", measured, tmp_path)
    task, material = ours("hellaswag", tmp_path, 3)
    assert not material.own_shots
    theirs = harness_task("hellaswag", measured, measured, 3, training_split=None)
    theirs.build_all_requests(limit=None)
    draws = Shots(task, material, 3)
    pairs = [pair for d in material.documents for pair in prompt(task, d, draws.draw(d), None).pairs]
    assert pairs == [instance.args for instance in theirs.instances]


def test_the_leaderboards_examples_of_hellaswag_are_those_of_the_harnesss_openllm(tmp_path):
    """That group gives the task `fewshot_split: train`, and then no example too many is drawn."""
    from lm_eval.tasks._yaml_loader import load_yaml

    group = load_yaml(Path(lm_eval.__file__).parent / "tasks" / "benchmarks" / "openllm.yaml")
    (entry,) = [one for one in group["task"] if one["task"] == "hellaswag"]
    measured, examples = made_up("hellaswag", 6, seed=0), made_up("hellaswag", 14, seed=1)
    published("hellaswag", "measured", measured, tmp_path)
    published("hellaswag", "shots", examples, tmp_path)
    (ours_,) = [one for one in SUITES["leaderboard"] if one.task == "hellaswag"]
    (job,) = evaluation.tasks_of(evaluation.BenchmarkOptions(data_dir=tmp_path), [ours_])
    assert job.shots == entry["num_fewshot"]
    draws = Shots(job.task, job.material, job.shots)
    pairs = [pair for d in job.material.documents for pair in prompt(job.task, d, draws.draw(d), None).pairs]
    for changes, same in ({"fewshot_split": entry["fewshot_split"]}, True), ({}, False):
        theirs = harness_task("hellaswag", measured, examples, job.shots, **changes)
        theirs.build_all_requests(limit=None)
        assert (pairs == [instance.args for instance in theirs.instances]) is same


CHATS = [
    ("arc_easy", 2), ("mmlu", 2), ("winogrande", 1), ("lambada", 0), ("gsm8k", 2), ("boolq", 1), ("hellaswag", 2),
    ("truthfulqa_mc1", 0), ("truthfulqa_mc2", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shots"), CHATS)
def test_chat_prompts_are_the_harnesss(name, shots, tmp_path, harness, engine):
    measured, examples = made_up(name, 4, seed=0), made_up(name, 9, seed=1)
    published(name, "measured", measured, tmp_path)
    published(name, "shots", examples, tmp_path)
    task, material = ours(name, tmp_path, shots)
    template = load_template("auto", engine.coder.tokenizer)

    def chat(messages: list[Message]) -> str:
        return template.render(messages, prompt=True).replace(SEPARATOR, "")

    draws = Shots(task, material, shots)
    for group in sorted({d.group for d in material.documents}):
        theirs = harness_task(name, measured, examples, shots, group)
        theirs.build_all_requests(
            limit=None, apply_chat_template=True, fewshot_as_multiturn=True, chat_template=harness.apply_chat_template
        )
        documents = [d for d in material.documents if d.group == group]
        pairs = [pair for d in documents for pair in prompt(task, d, draws.draw(d), chat).pairs]
        if task.kind == "generated":
            contexts = [context for context, _ in pairs]
            assert contexts == [instance.args[0] for instance in theirs.instances]
            assert [list(ids) for ids in engine.coder.encode(contexts)] == [harness.tok_encode(c) for c in contexts]
            continue
        assert pairs == [instance.args for instance in theirs.instances]
        requests = engine.coder.requests(pairs)
        assert [(list(r.context), list(r.continuation)) for r in requests] == [harness._encode_pair(*p) for p in pairs]


def test_a_choice_that_has_no_token_of_its_own_stops_as_the_harness_does(tmp_path, harness, engine):
    """Nothing is sure to follow anything, so it would win. HellaSwag's "[header]" is cleaned to nothing, and behind a chat
    template that ends without white space, as Mistral's does, nothing is left of it."""
    measured = made_up("hellaswag", 3, seed=0)
    measured[1]["endings"][2] = "[header]"
    published("hellaswag", "measured", measured, tmp_path)
    task, material = ours("hellaswag", tmp_path, 0)
    asking = replace(engine, chat=lambda messages: f"[INST] {messages[-1].content} [/INST]")
    with pytest.raises(InputError, match=sentence("choice empty", where="hellaswag_val.jsonl:2", number=3)):
        list(measure(task, material, asking, shots=0))
    assert len(list(measure(task, material, engine, shots=0))) == 3  # without a template its space is scored
    with pytest.raises(AssertionError):
        harness._loglikelihood_tokens([(("a", ""), [5], [])], disable_tqdm=True)
    with pytest.raises(InputError, match=sentence("nothing to predict")):
        list(engine.scorer.answer([LikelihoodRequest((5,), ())]))


@pytest.mark.parametrize("bos", [False, True])
def test_texts_become_the_harnesss_tokens(bos, tiny_folder, monkeypatch):
    """Spaces at the border, no context, a context that begins with BOS, control tokens in the data, merges over the border."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    start = tokenizer.bos_token
    if bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, tokenizer.bos_token_id)]
        )
    theirs = HFLM(pretrained=AutoModelForCausalLM.from_pretrained(tiny_folder), tokenizer=tokenizer, batch_size=1)
    coder = HarnessTokenizer(Tokenizer(tokenizer))
    pairs = [
        ("the cat", " sat"), ("the cat  ", "sat on"), ("the ca", "t"), ("", " the mat"), ("", f"{start} the mat"), ("  ", "a dog"),
        (f"{start}the cat", " ran"), ("a <|im_end|> dog", " <|im_end|>"), ("two\n\n", "three"), ("one", "中 é"),
    ]  # fmt: skip
    if not bos:
        pairs.remove(("  ", "a dog"))  # nothing is left before it: the harness stops there
    found = []
    monkeypatch.setattr(theirs, "_loglikelihood_tokens", lambda requests, **_: found.extend(requests))
    theirs.loglikelihood([type("Request", (), {"args": pair, "task_name": ""}) for pair in pairs], disable_tqdm=True)
    ours = [(list(r.context), list(r.continuation)) for r in coder.requests(pairs)]
    assert ours == [(context, continuation) for _, context, continuation in found]
    if not bos:
        ((request,),) = [coder.requests([("  ", "a dog")])]
        assert request.context == (tokenizer.bos_token_id,)


def test_a_limit_counts_each_subject_as_the_harness_does(tmp_path):
    published("mmlu", "measured", made_up("mmlu", 8, seed=0), tmp_path)
    _, material = ours("mmlu", tmp_path, 0)
    kept = [material.documents[i].group for i in chosen(material.documents, 2)]
    assert sorted(kept) == ["anatomy"] * 2 + ["us_foreign_policy"] * 2


def test_every_subject_has_the_harnesss_description():
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default"
    theirs = {path.stem.removeprefix("mmlu_"): load_yaml(path) for path in folder.glob("mmlu_*.yaml")}
    assert sorted(theirs) == sorted(SUBJECTS)
    for subject, config in theirs.items():
        assert TASKS["mmlu"].description.format(group=subject.replace("_", " ")) == config["description"]
    assert [task.group for task in find("mmlu_virology")] == ["virology"]
