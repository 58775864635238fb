"""The one reader of YAML: everything that is no plain value, or grows without measure, is one line with its place."""

from __future__ import annotations

import os

import pytest

from luthier.config.resolve import read_yaml, resolve
from luthier.core.errors import InputError
from luthier.core.foreign.yaml_file import MAX_BYTES, MAX_DEPTH, MAX_VALUES, read


def laughs(last, levels=9):
    """Each list holds the one before nine times."""
    lines = [f"{'abcdefghij'[0]}: &a [x,x,x,x,x,x,x,x,x]"]
    for i in range(1, levels):
        below, here = "abcdefghij"[i - 1], "abcdefghij"[i]
        lines.append(f"{here}: &{here} [{','.join([f'*{below}'] * 9)}]")
    return "\n".join([*lines, last.format("abcdefghij"[levels - 1])])


FAULTS = [
    (laughs("model: *{}"), f":6: more than {MAX_VALUES:,} values, copies by aliases counted; split the file"),
    (laughs("data: {{columns: {{prompt: *{}}}}}"), ":6: more than "),
    ("a: &a {x: 1}\n" + "\n".join(f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join([f'*{chr(97 + i)}'] * 20)}]}}"
                                   for i in range(8)), "copies by aliases counted"),
    ("\n".join(["x0: &x0 [1]"] + [f"x{i}: &x{i} [*x{i - 1}]" for i in range(1, 90)]), f"lists and mappings more than {MAX_DEPTH} deep"),
    ("model: " + "[" * 2500 + "]" * 2500, f":1: lists and mappings more than {MAX_DEPTH} deep; write it with less nesting"),
    ("model: " + "{a: " * 2500 + "1" + "}" * 2500, f":1: lists and mappings more than {MAX_DEPTH} deep"),
    ("\n".join(" " * i + "a:" for i in range(200)), f"more than {MAX_DEPTH} deep"),
    ("- " * 200 + "a", f"more than {MAX_DEPTH} deep"),
    ("data: &a\n  b: *a", ":2: a value that stands inside itself; write it out"),
    ("model: &a [*a]", ":1: a value that stands inside itself"),
    ("model: !!python/object/apply:os.system [\"touch planted\"]", "the tag !!python/object/apply:os.system; texts, numbers"),
    ("model: !!python/name:os.system", "the tag !!python/name:os.system"),
    ("model: !own x", "the tag !own"),
    ("model: !!binary \"!!!!\"", "the tag !!binary"),
    ("model: !!set {a, b}", "the tag !!set"),
    ("model: !!omap [a: 1]", "the tag !!omap"),
    ("model: 2020-99-99", ":1: '2020-99-99' is a date; put it in quotes"),
    ("seed: " + "9" * 5000, ":1: a number of 5000 digits"),
    ("seed: !!int x", ":1: 'x' is not what it says to be"),
    ("seed: !!bool x", ":1: 'x' is not what it says to be"),
    ("seed: 0x_", ":1: '0x_' is not what it says to be"),
    ("? {a: b}\n: c", ":1: a key must be a text"),
    ("? [a]\n: b", ":1: a key must be a text"),
    ("a: 1\n---\nb: 2", ":2: not valid YAML: but found another document"),
    ("seed: 1\nmodel: a\nseed: 2", ":3: 'seed' occurs twice; keep one of them"),
    ("a: *b", ":1: not valid YAML: found undefined alias 'b'"),
    ("a: \x00", "not valid YAML: special characters are not allowed"),
    ("<<: 1", ":1: not valid YAML: expected a mapping or list of mappings for merging"),
    ("a: " + "x" * MAX_BYTES, ": longer than 2 MB; no settings is: check the path"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), FAULTS, ids=[message[:40] for _, message in FAULTS])
def test_what_is_not_plain_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read(path, "settings")
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert not (tmp_path / "planted").exists()


def test_anchors_and_merges_that_stay_small_are_read(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: &a {x: 1, y: [1, 2.5, true, null, text]}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n")
    values = read(path, "settings")[1]
    assert values["b"] == {"x": 2, "y": [1, 2.5, True, None, "text"]}
    assert values["c"] == [values["a"], values["a"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("train: {lr: .inf}", "train.lr: should be a finite number, not inf"),
        ("train: {lr: .nan}", "train.lr: should be greater than 0, not nan"),
        ("train: {weight_decay: .inf}", "train.weight_decay: should be a finite number, not inf"),
        ("seed: 0xffffffffffffffffffffffffffffffff", "seed: should be 9,223,372,036,854,775,807 at most, not 3402"),
        ("train: {steps: -5}", "train.steps: should be greater than or equal to 1, not -5"),
        ("model: null", "model: should be a valid string, not None"),
    ],
)
def test_settings_are_numbers_that_can_be_computed_with(tmp_path, settings, message):
    path = tmp_path / "run.yaml"
    path.write_text(settings)
    with pytest.raises(InputError) as error:
        resolve(read_yaml(path), where=path)
    assert message in str(error.value)


def test_a_pipe_is_no_file_of_settings(tmp_path):
    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(InputError):
        read(tmp_path / "run.yaml", "settings")
