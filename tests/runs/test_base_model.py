"""The base below an adapter: in one folder, named, moved, given with --base; and system prompts that a run remembers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from luthier.cli import run as cli
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.runs.base_model import RecordedBase, recorded_base
from luthier.runs.locate import resolve_model
from luthier.runs.open import log_probabilities, open_model
from luthier.tune.train import run
from sentences import sentence

TEXTS = ["the cat sat on the mat"]
QUIET = {
    "threads": 1,
    "device": "cpu",
    "dtype": "float32",
    "eval.samples": 0,
    "eval.forgetting": False,
    "train.lr": 1e-2,
}


def opened(path: Path, **named):
    return open_model(str(path), device="cpu", dtype="float32", **named)


def says(path: Path, **named) -> torch.Tensor:
    return log_probabilities(opened(path, **named), TEXTS)


@pytest.fixture
def project(tmp_path: Path, tiny_folder: Path) -> Path:
    """A folder with models/base and rows.jsonl."""
    home = tmp_path / "project"
    shutil.copytree(tiny_folder, home / "models" / "base")
    rows = [{"prompt": f"who {i}", "completion": "cat"} for i in range(16)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


def tuned(home: Path, model: Path | str, name: str = "one", **changes: object) -> Path:
    values = QUIET | {"model": str(model), "data.path": [str(home / "rows.jsonl")], "out": str(home / "runs" / name)}
    run(resolve(values | {key.replace("__", "."): value for key, value in changes.items()}))
    return home / "runs" / name


@pytest.fixture
def adapter(project: Path) -> Path:
    """An adapter by itself, as PEFT saves it, which names its base by an absolute path."""
    from peft import LoraConfig, get_peft_model

    base = project / "models" / "base"
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(project / "peft")
    return project / "peft"


def named(folder: Path, base: str | None) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
@pytest.mark.parametrize("beside", [False, True])
def test_an_adapter_alone_or_beside_its_base_is_applied_as_transformers_does(adapter, project, beside) -> None:
    folder = adapter
    if beside:
        folder = Path(shutil.copytree(project / "models" / "base", project / "both"))
        shutil.copytree(named(adapter, "models/that/is/nowhere"), folder, dirs_exist_ok=True)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    model = opened(folder)
    ids = torch.tensor([model.tokenizer.encode(TEXTS[0])])
    with torch.no_grad():
        wanted = theirs(ids).logits[0].log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(log_probabilities(model, TEXTS), wanted, atol=2e-5, rtol=0)
    assert (wanted - says(project / "models" / "base")).abs().max() > 0.01


def test_the_base_of_an_adapter_is_found_by_a_path_of_its_project_or_refused_with_its_name(adapter, project) -> None:
    wanted = says(adapter)
    assert torch.equal(says(named(adapter, "models/base")), wanted)  # from a folder above
    assert torch.equal(says(named(adapter, "../models/base")), wanted)  # from the adapter's own
    for name in ("models/gone", "someone/some-model"):
        with pytest.raises(InputError, match=sentence("base not here", name=name, fix="give it with --base…")):
            opened(named(adapter, name))
        assert torch.equal(says(adapter, base=str(project / "models" / "base")), wanted)
    with pytest.raises(InputError, match=sentence("adapter does not name its base")):
        opened(named(adapter, None))


def test_an_adapter_brings_its_own_tokenizer_and_template(adapter, tiny_tokenizer) -> None:
    own = tiny_tokenizer.chat_template
    try:
        tiny_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
        tiny_tokenizer.save_pretrained(adapter)
    finally:
        tiny_tokenizer.chat_template = own
    assert opened(adapter).template.source == "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"


@pytest.mark.medium
def test_training_goes_on_with_an_adapter_of_others_and_merges(adapter, project, capsys) -> None:
    out = tuned(project, adapter, data__limit=8)
    assert (out / "adapter").is_dir()
    assert says(out).shape == says(adapter).shape
    assert cli(["merge", str(adapter), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-4


def test_a_base_for_a_whole_model_is_refused(project) -> None:
    base = str(project / "models" / "base")
    with pytest.raises(InputError, match=sentence("model has no base")):
        resolve_model(base, base)
    assert cli(["chat", base, "--base", base]) == 2


@pytest.mark.medium
def test_a_run_that_was_moved_still_loads(project, tmp_path: Path, monkeypatch) -> None:
    out = tuned(project, project / "models" / "base")
    wanted = says(out)
    shutil.move(out, tmp_path / "elsewhere")
    assert torch.equal(says(tmp_path / "elsewhere"), wanted)


@pytest.mark.medium
def test_a_project_that_was_moved_as_a_whole_still_loads(project, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(project)
    one = tuned(project, "models/base", "one")
    two = tuned(project, project / "models" / "base", "two", text__template="alpaca")
    three = tuned(project, "runs/two", "three")
    named_base = json.loads((one / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named_base == "models/base"  # as PEFT, started in the project, finds it on any machine
    wanted = [says(path) for path in (one, two, three)]
    monkeypatch.chdir(tmp_path)
    moved = Path(shutil.move(project, tmp_path / "other"))
    for name, before in zip(("one", "two", "three"), wanted, strict=True):
        assert torch.equal(says(moved / "runs" / name), before)
    shutil.rmtree(moved / "runs" / "two")
    assert torch.equal(says(moved / "runs" / "three"), wanted[2])  # it holds the whole adapter
    assert opened(moved / "runs" / "three").template.stops == opened(moved / "runs" / "one").template.stops
    assert "### Response:" in opened(moved / "runs" / "three").template.source  # of the run that is gone


@pytest.mark.medium
def test_a_base_that_was_moved_is_named_with_the_way_to_give_another(project, tmp_path: Path, capsys) -> None:
    out = tuned(project, project / "models" / "base")
    wanted = says(out)
    base = Path(shutil.move(project / "models" / "base", tmp_path / "new-place"))
    capsys.readouterr()
    assert cli(["chat", str(out), "--prompt", "who 1", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "/models/base' is not here; give it with --base" in error
    assert len(error.strip().splitlines()) == 1
    assert torch.equal(says(out, base=str(base)), wanted)
    assert (
        cli(["chat", str(out), "--base", str(base), "--prompt", "who 1", "--device", "cpu", "--max-new-tokens", "2"])
        == 0
    )
    assert cli(["merge", str(out), "--base", str(base)]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.medium
def test_other_weights_than_a_run_was_trained_on_are_not_taken_for_its_base(project, tmp_path: Path, capsys) -> None:
    out = tuned(project, project / "models" / "base")
    other = AutoModelForCausalLM.from_pretrained(project / "models" / "base")
    with torch.no_grad():
        other.model.norm.weight.add_(1)
    shutil.move(project / "models" / "base", tmp_path / "base")
    away = Path(shutil.move(project, tmp_path / "away"))
    other.save_pretrained(away / "models" / "base")
    shutil.copytree(
        tmp_path / "base", away / "models" / "base", ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True
    )
    with pytest.raises(InputError, match=sentence("base not here", fix="give it with --base: a folder, a .gguf file")):
        opened(away / "runs" / out.name)  # a model stands where it would be, but not that one
    opened(away / "runs" / out.name, base=str(away / "models" / "base"))
    assert "does not have the weights that" in capsys.readouterr().err


@pytest.mark.medium
def test_a_template_file_that_was_moved_or_changed_is_the_one_that_was_trained(project) -> None:
    template = project / "chat.jinja"
    template.write_text("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    out = tuned(project, project / "models" / "base", text__template=str(template))
    before = opened(out).template.source
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert opened(out).template.source == before
    template.unlink()
    assert opened(out).template.source == before


# --- System prompts ---------------------------------------------------------------------------------


def chats(home: Path, systems: list[str | None]) -> None:
    rows = []
    for i, system in enumerate(systems):
        head = [] if system is None else [{"role": "system", "content": system}]
        rows.append(
            {"messages": [*head, {"role": "user", "content": f"who {i}"}, {"role": "assistant", "content": "cat"}]}
        )
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_remembers_the_system_prompt_of_its_rows(project, capsys, kind) -> None:
    chats(project, ["be a cat"] * 16)
    out = tuned(project, project / "models" / "base", tune=kind)
    assert "every row has the same system prompt; the tuned model will be prompted with it" in capsys.readouterr().err
    assert "system: null" in (out / "run.yaml").read_text()  # the settings are as they were given
    part = "adapter" if kind == "lora" else "model"
    assert (out / part / "system_prompt.txt").read_text() == "be a cat"
    assert opened(out).config.text.system == "be a cat"
    assert opened(out, system="").config.text.system is None
    assert opened(out, system="be a dog").config.text.system == "be a dog"
    ask = ["chat", str(out), "--prompt", "who", "--device", "cpu", "--max-new-tokens", "1"]
    assert cli(ask) == 0
    assert capsys.readouterr().err == "system prompt: be a cat\n"
    assert cli([*ask, "--system", ""]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.medium
def test_a_merged_model_and_an_adapter_by_itself_remember_it_too(project, tmp_path: Path, capsys) -> None:
    chats(project, ["be a cat"] * 16)
    out = tuned(project, project / "models" / "base")
    assert cli(["merge", str(out), "--out", str(tmp_path / "merged")]) == 0
    alone = shutil.copytree(out / "adapter", tmp_path / "alone")
    for path in (tmp_path / "merged", alone, out / "adapter"):
        assert opened(path).config.text.system == "be a cat"


@pytest.mark.medium
@pytest.mark.parametrize(
    ("systems", "found", "words"),
    [
        (
            ["be a cat"] * 39 + [None],
            "be a cat",
            r"(every row has|\d+ rows have) the same system prompt; the tuned model will be",
        ),
        (
            [f"be {i}" for i in range(16)],
            None,
            r"(\d+) of \1 rows have \1 different system prompts: the tuned model will be prompted without one",
        ),
        (
            ["be a cat"] * 8 + [None] * 8,
            None,
            "rows have the same system prompt: the tuned model will be prompted without one",
        ),
        ([None] * 16, None, ""),
    ],
    ids=["nearly all", "all different", "half", "none"],
)
def test_which_system_prompt_is_the_runs_own(project, capsys, systems, found, words) -> None:
    import re

    chats(project, systems)
    out = tuned(project, project / "models" / "base")
    assert re.search(words, capsys.readouterr().err)
    assert opened(out).config.text.system == found


@pytest.mark.medium
def test_a_system_prompt_that_was_set_is_kept_where_the_rows_bring_several(project) -> None:
    chats(project, ["be a cat", None] * 8)
    assert opened(tuned(project, project / "models" / "base", text__system="be any")).config.text.system == "be any"


@pytest.mark.medium
def test_held_out_rows_without_one_are_measured_under_it(project) -> None:
    """Rows of --data.eval that are bare questions: the model answers them as it learned to be asked."""
    base, losses = project / "models" / "base", []
    for name, system in (("with", "be a cat"), ("without", None)):
        chats(project, [system] * 4)
        (project / "rows.jsonl").rename(project / f"{name}.jsonl")
    chats(project, ["be a cat"] * 16)
    for name in ("with", "without"):
        out = tuned(
            project, base, name, data__eval=[str(project / f"{name}.jsonl")], eval__samples=2, eval__max_new_tokens=4
        )
        rows = [json.loads(line) for line in (out / "evals" / "after.jsonl").read_text().splitlines()]
        losses.append([(row.get("loss"), row.get("answer")) for row in rows])
    assert losses[0] == losses[1]


# --- Before training --------------------------------------------------------------------------------


@pytest.mark.medium
def test_rows_longer_than_the_context_are_refused_before_training(project) -> None:
    rows = [{"prompt": f"who {i}", "completion": "the cat " * 700} for i in range(12)]
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        InputError, match=sentence("row longer than context", most=512, fix="--text.max_length 512 cuts rows there")
    ):
        tuned(project, project / "models" / "base", text__max_length=4096)
    assert not (project / "runs").exists()
    tuned(project, project / "models" / "base", text__max_length=512, train__steps=1)


@pytest.mark.medium
def test_a_stream_longer_than_the_context_is_refused_before_training(project) -> None:
    with open(project / "rows.jsonl", "a") as rows:
        rows.write(json.dumps({"prompt": "who", "completion": "the cat " * 700}) + "\n")
    with pytest.raises(
        InputError, match=sentence("row longer than context", where="rows.jsonl:17", longest="1,024", most=512)
    ):
        tuned(project, project / "models" / "base", data__stream=True, train__steps=1)
    assert not list((project / "runs" / "one" / "checkpoints").glob("step-*1"))  # told before the first step
    tuned(project, project / "models" / "base", "two", data__stream=True, train__steps=1, text__max_length=512)


def test_a_tokenizer_longer_than_the_embedding_is_refused_before_training(project, capsys) -> None:
    from transformers import AutoTokenizer

    base = project / "models" / "base"
    longer = AutoTokenizer.from_pretrained(base)
    longer.add_tokens([f"<|{i}|>" for i in range(9)], special_tokens=True)
    longer.save_pretrained(base)
    for command in ("train", "show"):
        assert cli([command, str(project / "rows.jsonl"), "--model", str(base)]) == 2
        assert "tokens and the embedding" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("nothing", "no layer matches"),
        ("q_proj,v_proj", "names in one target"),
        ("lm_head", "cannot take an adapter"),
    ],
)
def test_a_target_that_matches_nothing_beside_one_that_does_is_refused(project, target, fault) -> None:
    with pytest.raises(InputError, match=sentence(fault, target=target)):
        tuned(project, project / "models" / "base", lora__targets=["q_proj", target])


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (7, sentence("record of another form", given=7)),
        ({"name": "a", "kind": "folder"}, sentence("record lacks", key="folder")),
        ({"name": 1, "kind": "hub", "folder": "x"}, sentence("record of another form", key="'name'")),
        (
            {"name": "a", "kind": "hub", "folder": "x", "quant": {"kind": "nf5"}},
            sentence("not a setting of a quantized base"),
        ),
    ],
)
def test_a_start_that_is_not_as_it_was_noted_is_refused(tmp_path, start, words):
    (tmp_path / "lineage.json").write_text(json.dumps({"inputs": {}, "start": start}))
    with pytest.raises(InputError, match=words):
        recorded_base(tmp_path)


def test_what_a_later_version_notes_of_a_start_is_left_alone(tmp_path):
    start = {"name": "a", "kind": "folder", "folder": "x", "later": 1}
    (tmp_path / "lineage.json").write_text(json.dumps({"inputs": {}, "start": start}))
    assert recorded_base(tmp_path) == RecordedBase("a", "folder", "x")
