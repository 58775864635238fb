"""docs/security.md says what is so: the tests that it names are there, and the limits are those of the code."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def named():
    """(file, test) of each test in the text; `::name` is in the file before it."""
    file = ""
    for path, test in re.findall(r"`(tests/\S+?\.py)?::(\w+)`", TEXT):
        file = path or file
        yield file, test


@pytest.mark.parametrize(("file", "test"), sorted(set(named())))
def test_a_test_that_holds_a_promise_is_there(file, test):
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_promise_names_one():
    promises = TEXT.partition("| promise | held by |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(promises) > 8 and all("`tests/" in line for line in promises)


def test_limits_are_those_of_the_code():
    from luthier.config.data import DataConfig
    from luthier.config.rewards import RewardConfig
    from luthier.core import errors
    from luthier.core.foreign import forms, json_schema, patterns, yaml_file
    from luthier.data import size_limits
    from luthier.evals.judging import endpoint, http_post
    from luthier.evals.suites import checks
    from luthier.model.folder import copies, settings_files, tokenizer_file
    from luthier.model.gguf import container
    from luthier.text import rendering

    rows = {
        line.split("|")[1].strip(): line.split("|")[2].strip() for line in TEXT.splitlines() if line.startswith("| ")
    }
    mib = 1 << 20
    said = {
        "a row of data": f"{DataConfig().max_row} MB",
        "columns of a row; lists and objects nested in each other": f"{size_limits.MAX_COLUMNS:,}; {forms.MAX_DEPTH}",
        "what a compressed file grows to": f"{size_limits.MAX_GROWTH} times its size, at least {size_limits.ALLOWED_BYTES // 10**6} MB",
        "a chat template: source, memory, computing for one text":
            f"{rendering.MAX_SOURCE:,} characters, {rendering.MEMORY} MiB, {rendering.SECONDS:g} s",
        "a run file or a suite: size, values, depth": f"{yaml_file.MAX_BYTES // mib} MiB, {yaml_file.MAX_VALUES:,}, {yaml_file.MAX_DEPTH}",
        "a pattern; a schema's file": f"{patterns.MAX_CHARACTERS:,} characters; {json_schema.MAX_BYTES // mib} MiB",
        "a pattern or a schema on one answer: in a suite; as a reward": f"{checks.SECONDS:g} s; {RewardConfig().timeout:g} s",
        "a python reward: time for a batch, memory": f"{RewardConfig().timeout:g} s, {RewardConfig().memory:,} MiB",
        "settings of a model's folder: size, depth": f"{settings_files.SETTINGS_BYTES // mib} MiB, {settings_files.DEEPEST}",
        "the whole reply of an endpoint; its size": f"{endpoint.Endpoint.timeout:g} s; {http_post.MAX_REPLY_BYTES // mib} MiB",
        "a tokenizer: its file, added tokens, the length of one, rules of a stage, what one character may become":
            f"{copies.VOCABULARY_BYTES // mib} MiB, {copies.MAX_ADDED_TOKENS:,}, {tokenizer_file.LONGEST_TOKEN}, "
            f"{tokenizer_file.MAX_RULES}, {tokenizer_file.MAX_GROWTH} characters",
        "the header of a GGUF file: size, items": f"{container.HEADER_BYTES // mib} MiB, {container.ITEMS:,}",
        "files of a run: depth, size of a measured number": f"{forms.MAX_DEPTH}, 10^{round(math.log10(forms.LARGEST_NUMBER))}",
        "each part of an error: what, where, the fix": f"{errors.MAX_CHARACTERS} characters",
    }  # fmt: skip
    assert {name: rows.get(name) for name in said} == said


def test_readme_links_to_it():
    assert "docs/security.md" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "security.md" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
