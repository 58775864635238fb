"""Keys in what servers say, in addresses and in the environment: never shown, in whatever form they come."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from luthier.core import secrets
from luthier.core.errors import InputError
from luthier.core.secrets import ALL_HIDDEN, hide, said_by_server, without
from sentences import sentence

KEY = "sk-proj-Zq7/Wt+9dLr2mXv4HnBc"


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(secrets, "KNOWN", set())
    secrets.keep(KEY)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"wrong key {KEY}.", "wrong key [hidden]."),
        (f"wrong key {KEY.upper()}.", "wrong key [hidden]."),
        (f"wrong key {KEY[:14]} {KEY[14:]}", "wrong key [hidden]"),
        ("wrong key " + "-".join(KEY), "wrong key [hidden]"),
        ("wrong key\n" + "\n".join(KEY), "wrong key\n[hidden]"),
        (f"wrong key {KEY[:16]}", "wrong key [hidden]"),  # cut
        (f"wrong key …{KEY[9:]}", "wrong key …[hidden]"),
    ],
)
def test_keys_and_their_pieces_are_hidden(kept, said, shown):
    assert without(said, [KEY]) == shown
    assert hide(said) == shown


@pytest.mark.parametrize(
    "form",
    [
        lambda key: base64.b64encode(key.encode()).decode(),
        lambda key: base64.urlsafe_b64encode(f"Bearer {key}".encode()).decode(),
        lambda key: "\n".join(base64.b64encode(f"x{key}".encode()).decode()),
        lambda key: "".join(f"%{ord(c):02X}" for c in key),
        lambda key: quote(quote("".join(f"%{ord(c):02x}" for c in key))),
        lambda key: "".join(f"&#{ord(c)};" for c in key),
        lambda key: "".join(f"&#x{ord(c):x};" for c in key),
        lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
        lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
        lambda key: key.encode().hex(),
        lambda key: " ".join(f"{ord(c):02X}" for c in key),
        lambda key: key[::-1],
        lambda key: quote(base64.b64encode(key.encode()).decode(), safe=""),
        lambda key: base64.b32encode(f"Bearer {key}".encode()).decode(),
        lambda key: " ".join(str(ord(c)) for c in key),
        lambda key: str(list(key.encode())),
        lambda key: "".join(f"\\{ord(c):03o}" for c in key),
        lambda key: "".join(chr(ord(c) + 0xFEE0) for c in key),
    ],
)
def test_where_a_key_comes_back_encoded_nothing_is_shown(form):
    assert without(f"denied: {form(KEY)}", [KEY]) == ALL_HIDDEN


def test_other_words_stay(kept):
    text = (
        "Rate limit reached for gpt-4 in organization org-abc on tokens per min: 30,000; see https://example.com/a?b=c"
    )
    assert said_by_server(text) == text
    assert without("a short one hides a word: EMPTY, and no part of emptying", ["EMPTY"]) == (
        "a short one hides a word: [hidden], and no part of emptying"
    )


def test_keys_in_addresses_and_in_the_environment(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abcd-efgh-ijkl")
    monkeypatch.setenv("CACHE_KEY", "/home/me/cache")
    error = InputError("no connection to http://me:pa55@host/v1?api_key=123&x=1", where="abcd-efgh-ijkl")
    assert str(error) == "[hidden]: no connection to http://[hidden]@host/v1?api_key=[hidden]&x=1"
    assert said_by_server("no file /home/me/cached") == "no file /home/me/cached"


def test_a_hub_and_a_tracker_that_say_the_key_are_quoted_without_it(monkeypatch):
    """Their servers' messages come in exceptions of their clients."""
    import huggingface_hub

    from luthier.model.hub.hugging_face import snapshot
    from luthier.runs.tracking import reason_of

    monkeypatch.setenv("HF_TOKEN", "hf_" + "AbCdEfGh" * 4)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")

    def fail(name, **settings):
        if settings.get("local_files_only"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        raise OSError("401 for 'Bearer hf_" + "AbCdEfGh" * 4 + "'")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=sentence("cannot fetch from hub", reason="401 for 'Bearer [hidden]'")):
        snapshot("some/model", download=True)
    assert reason_of(ValueError("bad key 0123456789abcdef0123")) == "bad key [hidden]"
