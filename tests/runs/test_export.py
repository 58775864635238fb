"""What a run leaves for others: PEFT and transformers load it and compute the same."""

from __future__ import annotations

import json

import pytest
import torch

from luthier.config.resolve import resolve
from luthier.tune.train import run

ROWS = [{"instruction": f"name {i}", "input": "the cat" if i % 2 else "", "output": "cat"} for i in range(24)]


@pytest.fixture
def tuned(tmp_path, tiny_folder):
    def make(**changes):
        rows = tmp_path / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        base = {"model": str(tiny_folder), "data.path": [str(rows)], "out": str(tmp_path / "run"), "threads": 1, "device": "cpu",
                "dtype": "float32", "train.lr": 1e-2, "train.batch": 4, "eval.samples": 0, "eval.forgetting": False}  # fmt: skip
        run(resolve(base | {key.replace("__", "."): value for key, value in changes.items()}))
        return tmp_path / "run"

    return make


@pytest.mark.medium
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora__dora": True},
        {"lora__init": "pissa"},
        {"lora__rslora": True},
        {"lora__targets": ["q_proj", "v_proj"]},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_peft_loads_the_adapter_and_gives_the_same_logits(tuned, tiny_folder, changes):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from luthier.runs.open import log_probabilities, open_model

    folder = tuned(**changes)
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    opened = open_model(str(folder), device="cpu", dtype="float32")
    text = "the cat sat on the mat by the tree"
    ids = torch.tensor([opened.tokenizer.encode(text)])

    def logp(model):
        with torch.no_grad():
            return model.eval()(ids).logits[0].log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]

    before = logp(base)
    theirs = logp(PeftModel.from_pretrained(base, folder / "adapter"))
    ours = log_probabilities(opened, [text])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (theirs - before).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
@pytest.mark.medium
def test_peft_finds_the_base_of_an_adapter(tuned, tiny_folder, tmp_path, monkeypatch):
    """A model that was named by a relative path is found from elsewhere too."""
    from peft import AutoPeftModelForCausalLM

    from luthier.runs.open import log_probabilities, open_model

    monkeypatch.chdir(tiny_folder.parent)
    folder = tuned(model=tiny_folder.name)
    monkeypatch.chdir(tmp_path)
    text = "the cat sat on the mat"
    found = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", dtype=torch.float32).eval()
    monkeypatch.chdir(tiny_folder.parent)
    opened = open_model(str(folder), device="cpu", dtype="float32")
    ids = torch.tensor([opened.tokenizer.encode(text)])
    with torch.no_grad():
        theirs = found(ids).logits[0].log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(log_probabilities(opened, [text]), theirs, atol=1e-5, rtol=0)


@pytest.mark.medium
def test_the_exported_template_renders_the_trained_prompt(tuned):
    """LLaMA-Factory#4544 and others: trained in one template, served in another."""
    from transformers import AutoTokenizer

    from luthier.core.types.examples import Message
    from luthier.text.template import load_template
    from luthier.text.tokenizer import Tokenizer

    folder = tuned(text__template="alpaca")
    served = AutoTokenizer.from_pretrained(folder / "adapter")
    ours = load_template("alpaca", Tokenizer(served))
    talks = [
        [Message("user", "who is it")],
        [Message("system", "be kind"), Message("user", "who")],
        [Message("user", "one"), Message("assistant", "two"), Message("user", "three")],
    ]
    for talk in talks:
        theirs = served.apply_chat_template([m.as_dict() for m in talk], tokenize=False, add_generation_prompt=True)
        assert theirs == ours.render(talk, prompt=True)
        assert theirs.endswith("### Response:\n")


@pytest.mark.medium
def test_the_template_of_the_model_is_kept_as_it_is(tuned, tiny_tokenizer):
    folder = tuned()
    assert (folder / "adapter" / "chat_template.jinja").read_text() == tiny_tokenizer.chat_template


@pytest.mark.medium
def test_nothing_is_pickled(tuned):
    folder = tuned(tune="full")
    assert {p.suffix for p in folder.rglob("*") if p.is_file() and p.name not in (".lock", "sums")} <= {
        ".html", ".json", ".jsonl", ".yaml", ".safetensors", ".svg", ".jinja", ".txt",
    }  # fmt: skip


# A base model whose EOS no turn ends with, tuned with a template whose turns end in <|im_end|>.

PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def base(tmp_path, tiny_folder):
    """The tiny model as a base model: EOS <|endoftext|>, no chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = None
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    for settings in (model.config, model.generation_config):
        settings.eos_token_id = settings.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "chatml.jinja").write_text(PLAIN)
    return tmp_path / "base"


def answer(folder, model, **settings):
    """The new tokens of `generate` in transformers, asked with the tokenizer and template of `folder`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "name 3"}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.eval().generate(**asked, max_new_tokens=24, do_sample=False, **settings)[
        0, asked["input_ids"].shape[1] :
    ]
    return tokenizer, out.tolist()


@pytest.mark.medium
@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_what_is_exported_stops_where_turns_were_trained_to_end(tuned, base, tmp_path, tune):
    """TRL and LLaMA-Factory: a base model tuned with ChatML wrote on after <|im_end|> in every other program."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, GenerationConfig

    from luthier.export.merge import merge

    rate = 1e-2 if tune == "full" else 3e-2
    folder = tuned(
        model=str(base), text__template=str(tmp_path / "chatml.jinja"), tune=tune, train__epochs=12.0, train__lr=rate
    )
    whole = folder / "model"
    if tune == "lora":
        merge(folder, tmp_path / "merged", "float32")
        whole = tmp_path / "merged"
        adapter = folder / "adapter"
        listed = GenerationConfig.from_pretrained(adapter)
        tokenizer, new = answer(adapter, AutoPeftModelForCausalLM.from_pretrained(adapter), generation_config=listed)
        assert tokenizer.convert_ids_to_tokens(new[-1]) == "<|im_end|>"
        assert len(new) < 24
        by_name = {"eos_token_id": tokenizer.eos_token_id}  # of the tokenizer in the adapter
        assert answer(adapter, AutoPeftModelForCausalLM.from_pretrained(adapter), **by_name)[1] == new
    model = AutoModelForCausalLM.from_pretrained(whole)
    tokenizer, new = answer(whole, model)
    assert tokenizer.convert_ids_to_tokens(new[-1]) == "<|im_end|>"
    assert len(new) < 24
    stops = {tokenizer.convert_ids_to_tokens(token) for token in model.generation_config.eos_token_id}
    assert stops == {"<|im_end|>", "<|endoftext|>"}
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.chat_template == PLAIN


@pytest.mark.medium
def test_a_template_that_writes_eos_keeps_the_tokenizers_own(tuned, base, tmp_path):
    """Naming another end would change what the template writes."""
    from transformers import AutoTokenizer

    source = PLAIN.replace("<|im_end|>\n", "<|im_end|>{{ eos_token }}")
    (tmp_path / "chatml.jinja").write_text(source)
    folder = tuned(model=str(base), text__template=str(tmp_path / "chatml.jinja"), train__steps=1)
    tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
    assert tokenizer.eos_token == "<|endoftext|>"
    listed = json.loads((folder / "adapter" / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in listed


def test_a_folder_of_the_hubs_cache_is_named_as_the_hub_names_it(tmp_path, tiny_folder):
    import shutil

    from luthier.model.hub.sources import resolve as source_of

    snapshot = tmp_path / "hub" / "models--some-one--a-model" / "snapshots" / "0123"
    shutil.copytree(tiny_folder, snapshot)
    assert source_of(str(snapshot)).address == "some-one/a-model"
    assert source_of(str(tiny_folder)).address == str(tiny_folder.resolve())
