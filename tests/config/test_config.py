"""Settings: layers, dotted names, typos, versions, and the fingerprint that names a run."""

from __future__ import annotations

import pytest

from luthier.config.elsewhere import NAMES, SETTINGS
from luthier.config.resolve import read_yaml, resolve, write_yaml
from luthier.config.run import RunConfig, fields
from luthier.core.errors import InputError
from sentences import sentence


def test_later_layers_win_and_names_may_be_nested_or_dotted():
    config = resolve({"train": {"lr": 1, "epochs": 2}}, {"train.lr": 3}, {"data": {"columns": {"a": "b"}}})
    assert (config.train.lr, config.train.epochs, config.data.columns) == (3.0, 2.0, {"a": "b"})


def test_a_mapping_replaces_a_mapping():
    assert resolve({"data.columns": {"a": "b"}}, {"data.columns": {"c": "d"}}).data.columns == {"c": "d"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train.rl": 1},
            sentence("unknown name", where="f.yaml", kind="setting", name="train.rl", fix="did you mean 'train.lr'?"),
        ),
        ({"learning_rate": 1}, sentence("setting named otherwise", where="f.yaml", key="learning_rate")),
        ({"lr": 1}, sentence("unknown name", kind="setting", name="lr", fix="did you mean 'train.lr'?")),
        (
            {"lora": {"rang": 1}},
            sentence("unknown name", kind="setting", name="lora.rang", fix="did you mean 'lora.rank'?"),
        ),
        ({"train": 3}, sentence("section not a value", key="train", key2="train")),
        ({"train.lr": "fast"}, sentence("not a number", where="f.yaml: train.lr", given="'fast'")),
        ({"lora.rank": 0}, sentence("too small", where="f.yaml: lora.rank", least=1, given=0)),
        (
            {"train.schedule": "cosin"},
            sentence("unknown name", where="f.yaml", kind="schedule", name="cosin", fix="did you mean 'cosine'?"),
        ),
        (
            {"policy.kl_in": "foo"},
            sentence("unknown name", where="f.yaml", kind="kl_in", name="foo", fix="known: loss, reward"),
        ),
        ({"version": 2, "new": {"thing": 1}}, sentence("settings of a newer version", version=2, known=1)),
        ({"version": 2}, sentence("settings of a newer version", version=2, known=1)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_named(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        resolve(settings, where="f.yaml")
    assert "\n" not in str(caught.value)


def test_options_are_named_as_they_are_typed():
    with pytest.raises(InputError, match=sentence("not a number", where="--train.lr")):
        resolve({"train.lr": "fast"})
    with pytest.raises(InputError, match=sentence("unknown name", where="--train.schedule", kind="schedule")):
        resolve({"train.schedule": "cosin"})


def test_every_setting_has_a_description_and_is_frozen():
    assert all(info.description and info.description.endswith(".") for info in fields().values())
    with pytest.raises(ValueError, match="frozen"):
        resolve().train.lr = 1


def test_the_fingerprint_is_of_what_changes_the_result():
    base = resolve()
    assert base.fingerprint() == RunConfig().fingerprint()
    assert len(base.fingerprint()) == 8
    assert resolve({"out": "x", "force": True}).fingerprint() == base.fingerprint()
    changed = [{"seed": 1}, {"train.lr": 1e-3}, {"lora.rank": 8}, {"data.path": ["a"]}, {"data.path": ["b"]}]
    assert len({resolve(c).fingerprint() for c in changed} | {base.fingerprint()}) == 6


def test_an_unfinished_run_of_an_older_version_is_found_under_its_default_name():
    # As version 0.1.0 made them, before data.max_row; a new setting belongs in LATER, so that these stay.
    assert resolve().fingerprint() == "eb2087c3"
    assert resolve({"method": "grpo", "reward.use": ["exact"]}).fingerprint() == "3b43d50d"
    limits = {"reward.timeout": 5, "reward.memory": 100}  # may be raised on the way: the run stays where it is
    assert resolve(limits).fingerprint() == resolve().fingerprint() != resolve({"data.max_row": 1}).fingerprint()


def test_yaml_and_back(tmp_path):
    config = resolve({"train.lr": 1e-5, "data.path": ["ü.jsonl"], "text.system": "a: b\n- c", "lora.targets": ["*q*"]})
    path = tmp_path / "run.yaml"
    path.write_text(write_yaml(config), encoding="utf-8")
    assert resolve(read_yaml(path)) == config
    assert "ü" in path.read_text(encoding="utf-8")


def test_one_text_is_a_list_of_one(tmp_path):
    """As people write it."""
    path = tmp_path / "run.yaml"
    path.write_text("data: {path: rows.jsonl}\nlora: {targets: q_proj}\n")
    config = resolve(read_yaml(path))
    assert (config.data.path, config.lora.targets) == (("rows.jsonl",), ("q_proj",))


def test_a_byte_order_mark_is_no_part_of_the_first_setting(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 7\r\nmodel: m\r\n")
    assert read_yaml(path) == {"seed": 7, "model": "m"}


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(
        InputError, match=sentence("yaml tag", where="run.yaml:1", tag="!!python/object/apply:os.getpid")
    ):
        read_yaml(path)


def test_keys_of_other_programs_are_told_by_the_name_that_they_have_here():
    for key, setting in {
        "learning_rate": "train.lr",
        "train.micro_batch_size": "train.batch",
        "base_model": "model",
    }.items():
        with pytest.raises(InputError, match=sentence("setting named otherwise", key=key, setting=setting)):
            resolve({key: 1})
    assert set(NAMES) <= fields().keys()
    assert not SETTINGS.keys() & fields().keys()
