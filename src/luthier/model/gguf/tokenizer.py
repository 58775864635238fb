"""The tokenizer and chat template in a GGUF file's header -> tokenizer.json and tokenizer_config.json.

Byte-level BPE is built here, since transformers' own conversion cuts the text of several models (SmolLM2
among them) by GPT-2's rule and not by theirs, and so gives other tokens. Other kinds go through transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.calls import library_errors
from luthier.core.log import warn
from luthier.core.storage.files import read_json, write_json
from luthier.core.storage.leftovers import private_folder
from luthier.model.gguf.container import DOWNLOAD_AGAIN, Header
from luthier.model.quiet import quiet

# How text is cut before byte pairs are merged, by the file's `tokenizer.ggml.pre`. "digits" cuts every digit
# apart and then takes GPT-2's rule; a pattern replaces that rule. What is not here goes through transformers.
_GPT2, _DIGITS = "gpt2", "digits"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "gpt-2": _GPT2, "smollm": _DIGITS, "starcoder": _DIGITS, "refact": _DIGITS, "command-r": _DIGITS,
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3,
    "qwen2": _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
}  # fmt: skip
_CONTROL, _USER_DEFINED = 3, 4


def write_tokenizer(header: Header, out: Path, length: int) -> None:
    """Write the tokenizer into `out`; `length` is the longest input the model takes. Raises InputError when it cannot."""
    split = SPLITS.get(header.text("tokenizer.ggml.pre", ""))
    if header.text("tokenizer.ggml.model", "") != "gpt2" or split is None:
        _write_transformers_tokenizer(header, out)
        return
    tokens = header.several("tokenizer.ggml.tokens", str)
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = header.token(key, len(tokens))
        settings[f"{name}_token"] = None if number is None else tokens[number]
    settings["model_max_length"] = length
    if "tokenizer.chat_template" in header.values:
        settings["chat_template"] = header.text("tokenizer.chat_template")
    with library_errors("the tokenizer cannot be built", where=header.path, fix=DOWNLOAD_AGAIN):
        tokenizer = byte_pair_tokenizer(header, split, settings)
        tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", settings)


def byte_pair_tokenizer(header: Header, split: str, special: dict[str, Any]) -> Any:
    """A byte-level BPE `tokenizers.Tokenizer` with the file's vocabulary, merges and added tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokens = header.several("tokenizer.ggml.tokens", str)
    merges = [tuple(merge.split(" ")) for merge in header.several("tokenizer.ggml.merges", str)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    whole = len(vocabulary) == len(tokens) > 0 and all(len(m) == 2 and "".join(m) in vocabulary for m in merges)
    if not whole or not vocabulary.keys() >= {part for merge in merges for part in merge}:
        raise InputError(
            "the vocabulary or the merges of the tokenizer are broken", where=header.path, fix=DOWNLOAD_AGAIN
        )
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=split == _LLAMA3))
    if header.values.get("tokenizer.ggml.pre") == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    cuts: list[Any] = []
    if split == _DIGITS:
        cuts.append(pre_tokenizers.Digits(individual_digits=True))
    elif split != _GPT2:
        cuts.append(pre_tokenizers.Split(Regex(split), behavior="isolated"))
    cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in (_GPT2, _DIGITS)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, header.several("tokenizer.ggml.token_type", int), strict=False):
        if kind == _CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])
    before = special["bos_token"] if header.flag("tokenizer.ggml.add_bos_token") else None
    after = special["eos_token"] if header.flag("tokenizer.ggml.add_eos_token") else None
    around = [token for token in (before, after) if token]
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*([before] if before else []), "$A", *([after] if after else [])],
            special_tokens=[(token, vocabulary[token]) for token in around],
        )
    return tokenizer


@contextmanager
def alone(path: Path) -> Iterator[Path]:
    """A folder that has nothing but a link to the file, for the block: transformers reads what else lies beside one, such as an
    adapter or another tokenizer."""
    with private_folder() as folder:
        (folder / path.name).symlink_to(path.absolute())
        yield folder


def _write_transformers_tokenizer(header: Header, out: Path) -> None:
    """The tokenizer as transformers builds it, for kinds that are not byte-level BPE of a known cut."""
    from transformers import AutoTokenizer

    kind = header.values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        warn(f"{header.path}: unknown text splitting '{header.values.get('tokenizer.ggml.pre')}'; tokens may differ")
    what, fix = f"tokenizer '{kind}' cannot be converted", "take a folder with safetensors"
    with alone(header.path) as folder, quiet(), library_errors(what, where=header.path, fix=fix, copy=folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=header.path.name, local_files_only=True)
    tokenizer.save_pretrained(out)
    settings = read_json(out / "tokenizer_config.json")
    if "tokenizer.chat_template" in header.values:
        settings["chat_template"] = header.text("tokenizer.chat_template")
        (out / "chat_template.jinja").unlink(missing_ok=True)
    write_json(out / "tokenizer_config.json", settings)
