"""Every real file that has a layout: which one is detected, how many examples it gives, what stands in them.

Numbers of rows are those of the data sets' own descriptions.
"""

import pytest

from luthier.config.data import DataConfig
from luthier.core.errors import InputError
from luthier.data.clean import clean
from luthier.data.data_card import card
from luthier.data.load import load
from luthier.data.split import leaks, split

pytestmark = pytest.mark.medium

# file, layout, examples, rows without one
FILES = [
    ("alpaca/alpaca_data.json.gz", "alpaca", 52002, 0),
    ("alpaca_eval_pref/alpaca_eval_pref_test.jsonl.gz", "comparison", 1543, 17),
    ("alpaca_eval_pref/alpaca_eval_pref_train.jsonl.gz", "comparison", 6414, 76),
    ("banking77/test.csv", "labels", 3080, 0),
    ("banking77/train.csv", "labels", 10003, 0),
    ("gsm8k/test.jsonl.gz", "prompt_completion", 1319, 0),
    ("gsm8k/train.jsonl.gz", "prompt_completion", 7473, 0),
    ("hh_rlhf_harmless/test.jsonl.gz", "preference", 2312, 0),
    ("llamafactory_demo/alpaca_en_demo.json.gz", "alpaca", 999, 0),
    ("llamafactory_demo/c4_demo.jsonl.gz", "text", 300, 0),
    ("llamafactory_demo/dpo_en_demo.json.gz", "preference", 300, 0),
    ("llamafactory_demo/glaive_toolcall_en_demo.json.gz", "sharegpt", 300, 0),
    ("llamafactory_demo/identity.json", "alpaca", 91, 0),
    ("llamafactory_demo/kto_en_demo.json.gz", "unpaired_chat", 300, 0),
    ("llamafactory_demo/reason_tool_use_demo_50.jsonl", "chat", 50, 0),
    ("llamafactory_demo/wiki_demo.txt.gz", "text", 7, 0),
    ("medquad/medquad.jsonl.gz", "prompt_completion", 9000, 0),
    ("nli_counterfactual/nli_dev.tsv", "pair", 1000, 0),
    ("nli_counterfactual/nli_train.tsv.gz", "pair", 8330, 0),
    ("python_peps/peps_heldout.jsonl.gz", "text", 75, 0),
    ("rasbt_instruct/instruction-data.json", "alpaca", 1100, 0),
    ("rasbt_instruct/instruction-data-with-preference.json", "preference", 1100, 0),
    ("stsb/stsb-en-dev.csv", "pair", 1500, 0),
    ("stsb/stsb-en-train.csv", "pair", 5749, 0),
    ("tinyshakespeare/input.txt", "text", 12, 0),
    ("wikitext2/test.txt.gz", "text", 13, 0),
]


@pytest.mark.parametrize(("file", "layout", "count", "ties"), FILES)
def test_file_is_understood(shared, file, layout, count, ties):
    loaded = load([str(shared / file)], DataConfig())
    assert loaded.layout.name == layout
    assert len(loaded.examples) == count
    assert loaded.unused.count == ties
    assert loaded.skipped.count == 0
    assert all(isinstance(example, loaded.layout.example) for example in loaded.examples)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("arc/arc_challenge_test.jsonl", "multiple-choice"),
        ("mmlu/mmlu_test.jsonl.gz", "multiple-choice"),
        ("gauntlet_mix/lambada_openai.jsonl.gz", "try --data.columns prompt=context,completion=continuation;"),
        ("truthfulqa/v1/TruthfulQA.csv", "try --data.columns 'prompt=Question,completion=Best Answer';"),
        ("banking77/categories.json", "must be a JSON object"),
        ("cranfield_cisi/cran.doc.1400.xml", "XML"),
        ("multi30k/val.en.gz", "unknown file extension '.en'"),
    ],
)
def test_file_without_a_layout_says_so(shared, file, said):
    with pytest.raises(InputError) as caught:
        load([str(shared / file)], DataConfig())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_make_a_layout_of_any_table(shared):
    settings = DataConfig(columns={"completion": "Best Answer"})
    loaded = load([str(shared / "truthfulqa/v1/TruthfulQA.csv")], settings)
    assert len(loaded.examples) == 817
    assert loaded.examples[0].messages[1].content.startswith("The watermelon seeds pass")


def test_a_whole_folder(shared):
    assert len(load([str(shared / "banking77/*.csv")], DataConfig()).examples) == 13083


def test_transcripts_share_their_prompt(shared):
    for example in load([str(shared / "hh_rlhf_harmless/test.jsonl.gz")], DataConfig()).examples:
        assert example.prompt[0].role == "user"
        assert (
            example.chosen[0].role == example.rejected[0].role == "assistant" or example.prompt[-1].role == "assistant"
        )
        assert example.chosen != example.rejected


def test_tool_calls_are_objects(shared):
    loaded = load([str(shared / "llamafactory_demo/glaive_toolcall_en_demo.json.gz")], DataConfig())
    calls = [call for example in loaded.examples for turn in example.messages for call in turn.tool_calls]
    assert len(calls) == 211
    assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
    assert all(tool["type"] == "function" for example in loaded.examples for tool in example.tools)


def test_card_and_cleaning_of_alpaca(shared):
    """28 rows have an empty output, as the data set's readers know."""
    examples = load([str(shared / "alpaca/alpaca_data.json.gz")], DataConfig(limit=15000)).examples
    made = card(examples, count=len, limit=10**6)
    result = clean(examples)
    assert made.rows == 15000
    assert made.empty == {"answer": sum(not example.messages[-1].content.strip() for example in examples)}
    assert result.counts["empty"] == made.faults["empty"] == made.empty["answer"]
    assert made.languages["English"] > 0.9


def test_medquad_holds_many_answers_to_one_question_and_near_duplicates(shared):
    examples = load([str(shared / "medquad/medquad.jsonl.gz")], DataConfig()).examples
    made = card(examples, count=None, limit=1)
    assert made.conflicts == 536
    assert made.duplicates["exact"] == 10
    train, test = split(examples, 0.05, 0)
    assert not [leak for leak in leaks(train, test) if leak.kind == "exact"]
