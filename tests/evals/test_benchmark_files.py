"""Benchmark files in every layout they come in, and what is said of files that are not as they should be."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from luthier.core.errors import InputError
from luthier.core.types.examples import Origin
from luthier.data.read import Row
from luthier.evals.benchmarks import documents, files, rows
from luthier.evals.benchmarks.prompts import Shots, prompt
from luthier.evals.benchmarks.tasks import SUBJECTS, SUITES, TASKS, find
from sentences import sentence

ARC = {"question": "Why?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"}


def row(**fields) -> Row:
    return Row(fields, Origin("x.jsonl", 7))


def lines(path: Path, *values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(value) + "\n" for value in values)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


# --- Where the files are ------------------------------------------------------------------------------


def test_files_are_found_at_any_depth_in_any_case_compressed_or_not(tmp_path):
    lines(tmp_path / "a/b/ARC-Easy-Test.jsonl.gz", ARC, ARC)
    lines(tmp_path / "a/b/ARC-Easy-Train.jsonl", ARC, ARC, ARC)
    found = files.from_folder(TASKS["arc_easy"], tmp_path, 2)
    assert (len(found.documents), len(found.shots), found.own_shots) == (2, 3, True)
    digest = hashlib.sha256((tmp_path / "a/b/ARC-Easy-Test.jsonl.gz").read_bytes()).hexdigest()
    assert found.files["a/b/ARC-Easy-Test.jsonl.gz"] == digest
    assert list(found.files) == ["a/b/ARC-Easy-Test.jsonl.gz", "a/b/ARC-Easy-Train.jsonl"]


def test_examples_are_not_read_when_none_are_asked_for(tmp_path):
    lines(tmp_path / "arc_easy_test.jsonl", ARC)
    (tmp_path / "arc_easy_train.jsonl").write_text("broken")
    found = files.from_folder(TASKS["arc_easy"], tmp_path, 0)
    assert list(found.files) == ["arc_easy_test.jsonl"]


def test_a_folder_of_the_benchmark_itself_will_do(tmp_path):
    answer = {"question": "q", "answer": "a\n#### 1"}
    lines(tmp_path / "gsm8k/test.jsonl", answer)
    lines(tmp_path / "other/test.jsonl", {"unrelated": 1})
    for folder in (tmp_path, tmp_path / "gsm8k"):
        assert len(files.from_folder(TASKS["gsm8k"], folder, 0).documents) == 1


def test_a_folder_without_the_files_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        InputError, match=sentence("no file of task", name="hellaswag", looked="'hellaswag_val.jsonl'…")
    ) as error:
        files.from_folder(TASKS["hellaswag"], tmp_path, 0)
    assert error.value.where == tmp_path
    with pytest.raises(InputError, match=sentence("no folder of benchmarks")):
        files.from_folder(TASKS["hellaswag"], tmp_path / "nowhere", 0)


def test_records_are_not_taken_for_data(tmp_path):
    """After `luthier eval M --tasks piqa --data-dir .` there is a second piqa.jsonl below."""
    lines(tmp_path / "evals/m/piqa.jsonl", {"doc": 0, "acc": 1.0})
    (tmp_path / "evals/m/piqa.json").write_text('{"model": "m", "task": "piqa"}')
    lines(tmp_path / "a/b/c/piqa.jsonl", {"goal": "g", "sol1": "a", "sol2": "b", "label": 0})
    assert list(files.from_folder(TASKS["piqa"], tmp_path, 0).files) == ["a/b/c/piqa.jsonl"]


def test_an_empty_file_and_a_subject_that_is_not_there(tmp_path):
    (tmp_path / "arc_easy_test.jsonl").write_text("")
    with pytest.raises(InputError, match=sentence("no rows")):
        files.from_folder(TASKS["arc_easy"], tmp_path, 0)
    lines(tmp_path / "mmlu_test.jsonl", {"subject": "anatomy", "question": "q", "choices": list("wxyz"), "answer": 0})
    with pytest.raises(InputError, match=sentence("no rows of subject", subject="virology")):
        files.from_folder(find("mmlu_virology")[0], tmp_path, 0)


def test_without_datasets_the_hub_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=sentence("package datasets missing")):
        files.from_hub(TASKS["piqa"], 0)


def test_rows_of_the_hub_become_documents(monkeypatch):
    import datasets

    asked = []

    def load_dataset(path, name, split):
        asked.append((path, name, split))
        return datasets.Dataset.from_list([ARC | {"id": str(i)} for i in range(3)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = files.from_hub(TASKS["arc_easy"], 2)
    assert asked == [("allenai/ai2_arc", "ARC-Easy", "test"), ("allenai/ai2_arc", "ARC-Easy", "train")]
    assert (len(found.documents), found.own_shots, list(found.files)) == (
        3,
        True,
        [f"{p}/{n}/{s}" for p, n, s in asked],
    )

    def broken(*_, **__):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(
        InputError, match=sentence("cannot get split", split="test", path="allenai/ai2_arc", reason="no network")
    ):
        files.from_hub(TASKS["arc_easy"], 0)


# --- What is in them ----------------------------------------------------------------------------------


def test_mmlu_with_and_without_a_header(tmp_path):
    (tmp_path / "anatomy_test.csv").write_text('"What, then?",w,"x ""y""",y,z,C\n')
    (found,) = rows.mmlu(tmp_path / "anatomy_test.csv")
    assert found.fields == {
        "question": "What, then?",
        "choices": ["w", 'x "y"', "y", "z"],
        "answer": "C",
        "subject": "anatomy",
    }
    (tmp_path / "virology_dev.csv").write_text("question,choice0,choice1,choice2,choice3,answer\nq,w,x,y,z,3\n")
    (found,) = rows.mmlu(tmp_path / "virology_dev.csv")
    assert documents.mmlu(found).gold == 3
    (tmp_path / "short_test.csv").write_text("q,w,x,y,C\n")
    with pytest.raises(InputError, match=sentence("mmlu row", cells=5)) as error:
        list(rows.mmlu(tmp_path / "short_test.csv"))
    assert str(error.value.where).endswith("short_test.csv:1")


def test_piqa_takes_its_answers_from_the_file_beside_it(tmp_path):
    lines(tmp_path / "valid.jsonl", {"goal": "g", "sol1": "a", "sol2": "b"}, {"goal": "h", "sol1": "a", "sol2": "b"})
    (tmp_path / "valid-labels.lst").write_text("1\n0\n")
    assert [documents.piqa(found).gold for found in rows.piqa(tmp_path / "valid.jsonl")] == [1, 0]
    (tmp_path / "valid-labels.lst").write_text("1\n")
    with pytest.raises(InputError, match=sentence("labels not one a row", labels=1, rows=2)):
        list(rows.piqa(tmp_path / "valid.jsonl"))


def test_truthfulqa_from_the_table_equals_the_published_json():
    table = row(**{
        "Question": "Is it?", "Best Answer": "Yes", "Correct Answers": "Yes; It is.;", "Incorrect Answers": "No; Perhaps",
    })  # fmt: skip
    both = {"Yes.": 1, "It is.": 1, "No.": 0, "Perhaps.": 0}
    published = row(question="Is it?", mc1_targets={"Yes.": 1, "No.": 0, "Perhaps.": 0}, mc2_targets=both)
    for parse in (documents.truthfulqa_mc1, documents.truthfulqa_mc2):
        assert parse(table) == parse(published)
    assert parse(published).true == (True, True, False, False)


def test_boolq_of_its_authors_gets_its_title_in_front():
    published = row(question="is it", title="It", passage="It is.", answer=True)
    superglue = row(question="is it", passage="It -- It is.", label=1)
    assert documents.boolq(published) == documents.boolq(superglue)
    assert documents.boolq(published).contexts == ("It -- It is.\nQuestion: is it?\nAnswer:",)


def test_llm_foundrys_layout_gives_the_same_documents():
    arc = row(query="Question: Why?", choices=["a", "b", "c"], gold=2)
    assert documents.arc(arc) == documents.arc(row(**ARC))
    blank = row(context_options=["He", "She"], continuation="left.", gold=1)
    assert documents.winogrande(blank) == documents.winogrande(
        row(sentence="_ left.", option1="He", option2="She", answer="2")
    )
    assert documents.lambada(row(context="a b", continuation="c")) == documents.lambada(row(text="a b c"))
    goal = row(query="Question: go\n", choices=["a", "b"], gold=1)
    assert documents.piqa(goal) == documents.piqa(row(goal="go", sol1="a", sol2="b", label=1))


BAD = [
    (documents.arc, {**ARC, "answerKey": "D"}, "the answer key 'D' is none of the labels 1, 2, 3"),
    (documents.arc, {"question": "q", "answerKey": "A"}, "no 'choices' in it; it has question, answerKey"),
    (documents.arc, {"query": "q", "choices": ["a", "b"], "gold": 2}, "the right answer is number 3 of 2 choices"),
    (documents.arc, {"query": "q", "choices": ["a"], "gold": 0}, "fewer than two choices"),
    (documents.arc, {"query": " ", "choices": ["a", "b"], "gold": 0}, "'question' is not a text"),
    (documents.arc, {"question": "q", "choices": ["a", "b"], "answerKey": "A"}, "not a list of texts with labels"),
    (documents.arc, {**ARC, "choices": {"text": ["a"], "label": ["1", "2"]}}, "'text' and 'label' are not lists of the same length"),
    (documents.arc, {**ARC, "choices": {"text": ["a", "b"]}}, "'text' and 'label' are not lists of the same length"),
    (documents.hellaswag, {"ctx": "c", "endings": ["a", 5], "label": 0}, "a choice is empty or not a text"),
    (documents.hellaswag, {"ctx": "c", "endings": ["a", "b"], "label": "x"}, "'label' is 'x', not a whole number"),
    (documents.mmlu, {"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 0}, "2 choices, a question of MMLU has 4"),
    (documents.mmlu, {"question": "q", "subject": "s", "choices": list("abcd"), "answer": 4}, "number 5 of 4"),
    (documents.truthfulqa_mc1, {"question": "q", "mc1_targets": {"a": 1, "b": 1}}, "2 of the mc1 answers are marked as true"),
    (documents.truthfulqa_mc2, {"question": "q", "mc2_targets": {"a": 1, "b": 1}}, "at least one true and one false"),
    (documents.truthfulqa_mc2, {"question": "q", "mc2_targets": [1]}, "not a map from answers"),
    (documents.truthfulqa_mc1, {"question": "q", "mc1_targets": {"choices": ["a", "b"], "labels": [1]}}, "'choices' and 'labels' are not"),
    (documents.truthfulqa_mc1, {"question": "q", "mc1_targets": {"choices": [["a"], "b"], "labels": [1, 0]}}, "a choice is empty or not"),
    (documents.hellaswag, {"ctx": "c", "endings": ["a", "b"], "label": "--1"}, "'label' is '--1', not a whole number"),
    (documents.winogrande, {"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}, "no blank '_'"),
    (documents.winogrande, {"sentence": "a _", "option1": "a", "option2": "b", "answer": "3"}, "number 3 of 2"),
    (documents.lambada, {"text": "word"}, "fewer than two words"),
    (documents.gsm8k, {"question": "q", "answer": "5"}, "does not end in '#### number'"),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "fields", "words"), BAD, ids=lambda value: getattr(value, "__name__", None))
def test_a_row_that_is_not_as_published_is_named(parse, fields, words):
    with pytest.raises(InputError) as error:
        parse(row(**fields))
    text = str(error.value)
    assert words in text
    assert text.startswith("x.jsonl:7: ")
    assert "\n" not in text


def test_wikitext_is_cut_into_pages(tmp_path):
    path = tmp_path / "wiki.test.raw"
    path.write_text(" \n = One = \n \n text \n = = Part = = \n more \n \n = Two = \n \n end \n", encoding="utf-8")
    found = [page.fields["page"] for page in rows.wikitext(path)]
    assert found == [" = One = \n \n text \n = = Part = = \n more \n ", " = Two = \n \n end \n"]
    document = documents.wikitext(Row({"page": ' it \'s " a b " , ( c ) 1 @,@ 000 = = P = = \n'}, Origin()))
    assert document.answer == ' it\'s "a b", (c) 1,000 == P ==\n'
    assert document.original == ' it \'s " a b " , ( c ) 1 @,@ 000 = = P = = \n'


# --- Tasks and shots ----------------------------------------------------------------------------------


def test_names_groups_subjects_and_the_nearest_name():
    assert [task.name for task in find("truthfulqa, arc_easy,truthfulqa_mc2")] == [
        "truthfulqa_mc1",
        "truthfulqa_mc2",
        "arc_easy",
    ]
    with pytest.raises(
        InputError, match=sentence("unknown name", kind="task", name="helaswag", fix="did you mean 'hellaswag'?")
    ):
        find("helaswag")
    with pytest.raises(
        InputError,
        match=sentence("unknown name", kind="task", name="mmlu_virolgy", fix="did you mean 'mmlu_virology'?"),
    ):
        find("mmlu_virolgy")
    with pytest.raises(
        InputError,
        match=sentence(
            "unknown name",
            name="zzz",
            fix="known: arc, arc_challenge, …",
        ),
    ):
        find("zzz")
    assert len(SUBJECTS) == 57


def test_the_leaderboard_is_25_10_5_0():
    assert [(entry.title, entry.shots) for entry in SUITES["leaderboard"]] == [
        ("ARC", 25), ("HellaSwag", 10), ("MMLU", 5), ("TruthfulQA", 0),
    ]  # fmt: skip
    assert all(entry.metric in (*TASKS[entry.task].metrics, "acc_subjects") for entry in SUITES["leaderboard"])


def material(count: int, own: bool = True) -> files.Material:
    made = tuple(documents.arc(row(**{**ARC, "question": f"Why {i}?"})) for i in range(count))
    return files.Material(made[:3], made, own, {})


def test_more_examples_than_rows_is_an_error():
    with pytest.raises(InputError, match=sentence("too few examples", count=5, found=4)):
        Shots(TASKS["arc_easy"], material(4), 5)
    with pytest.raises(InputError, match=sentence("too few examples", count=4, found=4)):
        Shots(TASKS["arc_easy"], material(4, own=False), 4)
    mmlu = [documents.mmlu(row(question=str(i), subject="anatomy", choices=list("abcd"), answer=0)) for i in range(3)]
    with pytest.raises(InputError, match=sentence("too few examples", count=5, found=3, of_subject=" of anatomy")):
        Shots(TASKS["mmlu"], files.Material(tuple(mmlu), tuple(mmlu), True, {}), 5)
    other = documents.mmlu(row(question="x", subject="virology", choices=list("abcd"), answer=0))
    with pytest.raises(InputError, match=sentence("too few examples", count=3, found=0, of_subject=" of virology")):
        Shots(TASKS["mmlu"], files.Material((*mmlu, other), tuple(mmlu), True, {}), 3)
    with pytest.raises(InputError, match=sentence("no file of examples", name="mmlu", looked="…dev…")):
        Shots(TASKS["mmlu"], files.Material(tuple(mmlu), tuple(mmlu), False, {}), 5)


def test_a_document_is_never_its_own_example():
    found = material(6, own=False)
    shots = Shots(TASKS["arc_easy"], found, 4)
    for document in found.documents * 20:
        drawn = shots.draw(document)
        assert len(drawn) == 4 and document not in drawn


# --- Real files ---------------------------------------------------------------------------------------


SIZES = {
    "arc_easy": 2376, "arc_challenge": 1172, "hellaswag": 10042, "mmlu": 14042, "truthfulqa_mc1": 817, "truthfulqa_mc2": 817,
    "piqa": 1838, "winogrande": 1267, "boolq": 3270, "lambada": 5153, "gsm8k": 1319, "wikitext": 62,
}  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize("name", SIZES)
def test_real_files_are_read(name, shared):
    task = TASKS[name]
    found = files.from_folder(task, shared, 5)
    assert len(found.documents) == SIZES[name]
    text = prompt(task, found.documents[0], (), None)
    assert all(len(pair) == 2 and pair[1] for pair in text.pairs)
    if name == "mmlu":
        assert {document.group for document in found.documents} == set(SUBJECTS)
        draws = Shots(task, found, 5)
        assert all(len(draws.draw(document)) == 5 for document in found.documents[::100])
    if name == "winogrande":
        assert text.pairs[0][0] != text.pairs[1][0] and text.pairs[0][1] == text.pairs[1][1]


def test_the_table_of_truthfulqa_says_what_its_json_says(shared):
    """But for five of 817 items, which were changed in one of the files alone."""
    task = TASKS["truthfulqa_mc2"]
    theirs = {document.asked: document for document in files.from_folder(task, shared, 0).documents}
    table = files.from_folder(replace(task, files=("truthfulqa.csv",)), shared, 0).documents
    same = [document for document in table if theirs.get(document.asked) == document]
    assert len(table) == 817
    assert len(same) >= 810
