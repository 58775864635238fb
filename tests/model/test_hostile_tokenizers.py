"""Tokenizers made to do harm: rules that double a text, patterns that take years, counts, tables that lie."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import InputError
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.model.folder.tokenizer_file import KNOWN_PATTERNS
from luthier.text.tokenizer import SEPARATOR, Tokenizer
from sentences import sentence


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    place = tmp_path / "tokenizer"
    place.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder / name, place / name)
    return place


def change(folder: Path, **values: object) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))
    return str(caught.value)


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def in_row(rules: list[dict[str, Any]], key: str = "normalizers") -> dict[str, Any]:
    return {"type": "Sequence", key: rules}


def test_rules_that_double_a_text_are_counted(folder: Path) -> None:
    doubles = [replace({"String": "a"}, "aa")] * 20
    change(folder, normalizer=in_row(doubles))
    assert "'normalizer' may make 1,048,576 characters of one" in refusal(folder)
    nested = in_row(doubles[:7])
    for _ in range(10):
        nested = in_row([nested])
    change(folder, normalizer=nested)
    assert "may make 128 characters of one" in refusal(folder)
    change(folder, normalizer=None, decoder=in_row(doubles, "decoders"))
    assert "'decoder' may make" in refusal(folder)
    change(folder, normalizer=in_row([{"type": "Prepend", "prepend": "a" * 1000}]), decoder=None)
    assert "prepends 1,000 characters" in refusal(folder)
    change(folder, normalizer=in_row([{"type": "NFC"}] * 300))
    assert "'normalizer' has 301 rules, more than 200" in refusal(folder)


def test_what_real_tokenizers_do_is_taken(folder: Path) -> None:
    """SentencePiece's form, as Llama 2 and Gemma have it, and ALBERT's rules."""
    rules = [{"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁"), replace({"String": "``"}, '"'), {"type": "NFKD"},
             {"type": "Lowercase"}, replace({"Regex": " {2,}"}, " ")]  # fmt: skip
    change(folder, normalizer=in_row(rules))
    assert load_tokenizer(folder)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("pattern", "words"),
    [("(a+)+$", "retry-limit"), ("a+b", "20,001 times 'a' take"), ("(zq+)+$", "cannot be used"), ("(a", "end pattern")],
)
def test_patterns_that_take_years_are_found_in_a_process_beside_us(folder: Path, pattern: str, words: str) -> None:
    before = json.loads((folder / "tokenizer.json").read_text())["pre_tokenizer"]
    change(folder, pre_tokenizer=in_row([split(pattern), before], "pretokenizers"))
    said = refusal(folder)
    assert words in said
    assert f'the pattern "{pattern}"' in said


def test_known_and_unknown_patterns_that_are_fit_are_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from luthier.model.folder import tokenizer_file as checked

    before = json.loads((folder / "tokenizer.json").read_text())["pre_tokenizer"]
    change(folder, pre_tokenizer=in_row([split(r" ?\p{L}+| ?\d+|\s"), before], "pretokenizers"))
    assert load_tokenizer(folder)
    monkeypatch.setattr(checked, "Child", None)  # once in a process
    assert load_tokenizer(folder)
    for pattern in sorted(KNOWN_PATTERNS):
        change(folder, pre_tokenizer=in_row([split(pattern), before], "pretokenizers"))
        assert load_tokenizer(folder)("it's 12 red Cats\n")["input_ids"]


@pytest.mark.medium
def test_counts_and_tables(folder: Path) -> None:
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][:1]
    change(folder, added_tokens=added * 100_001)
    assert "'added_tokens': 100,001 of them" in refusal(folder)
    change(folder, added_tokens=[], normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    assert "'precompiled_charsmap' is not a table" in refusal(folder)
    table = base64.b64encode((4).to_bytes(4, "little") + b"\0" * 4 + b"x" * 10_000 + b"\0").decode()
    change(folder, normalizer={"type": "Precompiled", "precompiled_charsmap": table})
    assert "makes more than 256 bytes of a character" in refusal(folder)
    change(
        folder,
        normalizer=None,
        model={"type": "WordPiece", "unk_token": "a", "vocab": {"a": 0}, "max_input_chars_per_word": 10**9},
    )
    assert "'max_input_chars_per_word' is 1000000000" in refusal(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"additional_special_tokens": [f"<{i}>" for i in range(100_001)]})
    )
    assert "'additional_special_tokens' has 100,001 tokens" in refusal(folder)


@pytest.mark.parametrize(
    "values",
    [{"model": None}, {"model": 7}, {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, {"normalizer": {"type": "Wumpus"}},
     {"added_tokens": [{"id": -1}]}, {"added_tokens": 7}, {"pre_tokenizer": "x"}, {"post_processor": {"type": "TemplateProcessing"}},
     {"truncation": {"max_length": 1, "stride": 9, "strategy": "LongestFirst", "direction": "Right"}},
     {"padding": {"strategy": {"Fixed": -1}}}, {"normalizer": [[[]]]}, {"normalizer": {"type": {}}}, {"decoder": {"type": []}}],
)  # fmt: skip
def test_tokenizers_of_wrong_types_end_with_one_line(folder: Path, values: dict[str, object]) -> None:
    change(folder, **values)
    refusal(folder)


def test_a_panic_of_the_library_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tokenizers import Regex, pre_tokenizers

    tokenizer = Tokenizer(load_tokenizer(folder))
    tokenizer.fast.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    with pytest.raises(InputError, match=sentence("tokenizer fails", verb="read", reason="Onig: Regex search error…")):
        tokenizer.encode("a" * 40 + "!")
    capfd.readouterr()


LATE = """
import sys
from pathlib import Path
from tokenizers import Regex, pre_tokenizers
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.text import tokenizer as reading
reading.MAX_SECONDS, reading.SLOWEST_SPEED = 0.3, 1e9
read = reading.Tokenizer(load_tokenizer(Path(sys.argv[1])))
read.fast.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("a+b"), "isolated")
read.encode("a" * 200_000)
"""


@pytest.mark.medium
def test_a_call_that_does_not_end_ends_the_process_with_one_line(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE, str(folder)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("luthier: the tokenizer took longer than 0 s")


ESCAPE = "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"320": {"content": "<|im_start|>", ESCAPE: 1}}}),
        ("tokenizer_config.json", {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>", ESCAPE: 1}}),
        ("tokenizer_config.json", {"deep": [{"er": {"__type": "AddedToken", "content": "x", ESCAPE: 1}}]}),
        ("special_tokens_map.json", {"eos_token": {"content": "<|im_end|>", ESCAPE: 1}}),
        ("special_tokens_map.json", {"extra_special_tokens": [{"content": "<|im_end|>", ESCAPE: 1}]}),
    ],
)  # fmt: skip
def test_what_no_token_says_is_not_printed_by_the_library(
    folder: Path, capfd: pytest.CaptureFixture[str], name: str, values: dict[str, Any]
) -> None:
    config = folder / "tokenizer_config.json"
    plain = json.loads(config.read_text())
    plain.pop("added_tokens_decoder", None)  # where it stands, special_tokens_map.json is not read
    config.write_text(json.dumps(plain))
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))
    load_tokenizer(folder)
    assert capfd.readouterr().out == ""


def test_a_token_of_unknown_keys_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    change(folder, added_tokens=[*tokens, tokens[0] | {ESCAPE: 1}])
    assert "in 'added_tokens' is unknown" in refusal(folder)
    assert capfd.readouterr().out == ""


def test_byte_level_and_tables_in_a_row_multiply(folder: Path) -> None:
    """Each ByteLevel makes two characters of one that is not ASCII, and a table up to its longest replacement."""
    change(folder, normalizer=in_row([{"type": "ByteLevel"}] * 20))
    assert "'normalizer' may make 1,048,576 characters of one" in refusal(folder)
    again = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    change(folder, normalizer=in_row([{"type": "ByteLevel"}] * 4), pre_tokenizer=in_row([again] * 4, "pretokenizers"))
    assert "'pre_tokenizer' may make 256 characters of one" in refusal(folder)
    table = base64.b64encode((4).to_bytes(4, "little") + b"\0" * 4 + b"x" * 20 + b"\0").decode()
    change(folder, normalizer=in_row([{"type": "Precompiled", "precompiled_charsmap": table}] * 2))
    assert "'normalizer' may make 400 characters of one" in refusal(folder)


@pytest.mark.parametrize(
    ("stage", "rule"),
    [("pre_tokenizer", {"type": "FixedLength", "length": 0}), ("normalizer", replace({"String": ""}, "x")),
     ("decoder", {"type": "Strip", "content": "a", "start": 1 << 60, "stop": 1 << 60})],
)  # fmt: skip
def test_rules_at_which_the_library_panics_are_found_in_a_process_beside_us(
    folder: Path, stage: str, rule: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    change(folder, **{stage: rule})
    assert f"the rule '\"{rule['type']}\"' cannot be used: " in refusal(folder)
    assert capfd.readouterr().err == ""


def test_a_tokenizer_that_drops_merges_at_random_reads_a_text_in_one_way(folder: Path) -> None:
    fixed = Tokenizer(load_tokenizer(folder)).encode("three two who what")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    change(folder, model=model | {"dropout": 0.9})
    assert {tuple(Tokenizer(load_tokenizer(folder)).encode("three two who what")) for _ in range(5)} == {tuple(fixed)}


@pytest.mark.medium
def test_many_and_long_added_tokens(folder: Path) -> None:
    """A text that begins like each of 20,000 control tokens is looked through once, not once for each."""

    first = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][0]
    many = [first | {"id": 400 + i, "content": f"cat{i}"} for i in range(20_000)]
    change(folder, added_tokens=many)
    tokenizer = Tokenizer(load_tokenizer(folder))
    assert tokenizer.control_pattern.findall("cat123456 cat7") == ["cat12345", "cat7"]
    assert tokenizer.seal("cat" * 100_000 + "cat1") == "cat" * 100_000 + f"c{SEPARATOR}at1"
    assert len(tokenizer.control_pattern.pattern) < 20_000 * 5
    change(folder, added_tokens=[first | {"content": "x" * 201}])
    assert "an added token has 201 characters, more than 200" in refusal(folder)
    change(folder, added_tokens=[first])
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_special_tokens": ["y" * 300]}))
    assert "an added token has 300 characters" in refusal(folder)


def test_a_panic_in_decoding_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tokenizers import decoders

    tokenizer = Tokenizer(load_tokenizer(folder))
    tokenizer.fast.backend_tokenizer.decoder = decoders.Strip("a", 1 << 60, 1 << 60)
    with pytest.raises(InputError, match=sentence("tokenizer fails", verb="write")):
        tokenizer.decode(tokenizer.encode("a"))
    capfd.readouterr()
