"""What a model can read, as its configuration says: which layers, how many tokens in a row, which token ids."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError

ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")
# Layers with a causal convolution of their own are computed path by path (`layers/state.py`).
STATES = ("linear_attention", "conv", "hybrid", "mamba")
TOKENWISE = ("mlp", "moe")  # layers of Nemotron-H that look at each token alone
ROWS = (
    64,
    256,
)  # sequences that are generated at once where nobody says: the more, the quicker, while their cache is small
CACHE = 1 << 30  # bytes of keys and values that are small
DEFAULT_CONTEXT = 2048  # the context of a model that does not say, as lm-evaluation-harness has it
UNLIMITED = int(1e30)  # what tokenizers without a limit say
# Tokens that stand for what is no text, as tokenizers name them (`image_token`): no text becomes one of them.
_PLACEHOLDERS = ("image", "video", "audio", "boi", "eoi", "boa", "eoa")


def check_layers(config: Any, where: object) -> None:
    """Raise InputError where a layer is of a kind that mixes tokens outside of attention, and for encoder-decoders, whose
    decoder without what it decodes is no language model."""
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"models of type '{config.model_type}' have an encoder before the decoder", where=where,
            fix="use a decoder-only model",
        )  # fmt: skip
    odd = set(getattr(config.get_text_config(), "layer_types", None) or ()) - {*ATTENTION, *STATES, *TOKENWISE}
    if odd:
        raise InputError(
            f"models of type '{config.model_type}' have layers of kind '{min(odd)}', which mix tokens outside of attention, so "
            "packed rows would see each other", where=where, fix="see docs/models.md for the kinds that are exact",
        )  # fmt: skip


def context(config: Any) -> int | None:
    """The most tokens that the model reads, prompt and answer together; None where its configuration does not say.

    Where positions are rescaled (`rope_parameters`) by a factor that `max_position_embeddings` leaves out, as YaRN is set up
    by hand, the factor counts. Where they are rescaled anew from some length on, as in LongRoPE, that length is the most:
    transformers looks at the longest row of a pass, so rows of both sorts would change each other.
    """
    text = config.get_text_config()
    places = getattr(text, "max_position_embeddings", None)
    if not places:
        return None
    before = getattr(text, "original_max_position_embeddings", None)
    return min((_reach(rope, int(places), before) for rope in _ropes(text)), default=int(places))


def attention_widths(config: Any) -> list[tuple[int, int]]:
    """How wide the queries and the keys of a token are in each layer: heads times their size. Layers may differ, as in Gemma 4."""
    text = config.get_text_config()
    try:
        return [_widths(text)] * int(text.num_hidden_layers)
    except RuntimeError:  # of transformers, for a setting that layers have each of their own
        return [_widths(layer) for layer in text.per_layer_config]


def rows_at_once(config: Any, itemsize: int, longest: int) -> int:
    """How many sequences of up to `longest` tokens are generated at once where nobody says; the same on every machine."""
    token = 2 * sum(keys for _, keys in attention_widths(config)) * itemsize
    least, most = ROWS
    return int(min(most, max(least, CACHE // max(1, token * longest))))


def _widths(config: Any) -> tuple[int, int]:
    heads = getattr(config, "num_attention_heads", None) or 0  # of a model without attention, none
    keys = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
    return heads * size, keys * size


def longest_input(config: Any, tokenizer: Any) -> int:
    """The longest input in tokens of a model and its tokenizer (transformers'), as lm-evaluation-harness finds it, where
    Luthier reads as many."""
    text = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if (found := getattr(text, name, None)) is not None:
            return min(int(found), context(config) or int(found))
    longest = getattr(tokenizer, "model_max_length", None)
    return DEFAULT_CONTEXT if longest is None or longest >= UNLIMITED else int(longest)


def _ropes(text: Any) -> list[dict[str, Any]]:
    """The ways in which positions are rotated: one, or one for each kind of layer."""
    rope = getattr(text, "rope_parameters", None) or {}
    nested = [item for item in rope.values() if isinstance(item, dict) and "rope_type" in item]
    return nested or ([rope] if rope else [])


def _reach(rope: dict[str, Any], places: int, before: int | None) -> int:
    kind, factor = rope.get("rope_type"), rope.get("factor")
    first = rope.get("original_max_position_embeddings") or before
    if kind in ("longrope", "dynamic"):
        return min(places, int(first or places))
    if kind in ("yarn", "linear") and isinstance(factor, (int, float)):
        return max(places, int(factor * (first or places)))
    return places


def check_rows(longest: int, config: Any, *, where: object, fix: str) -> None:
    """Raise InputError where a row of `longest` tokens does not fit the model's context."""
    most = context(config)
    if most is not None and longest > most:
        raise InputError(
            f"the longest row has {longest:,} tokens, and the model's context is {most:,}", where=where, fix=fix
        )


def check_vocabulary(tokenizer: Any, rows: int, where: Path, new: Collection[int] = ()) -> None:
    """Raise InputError where `tokenizer` gives ids that an embedding of `rows` rows has none for, but for those of `new` tokens,
    which get one.

    Placeholders of pictures and sound may lie beyond, as Gemma 3's do in models of text alone: no text becomes one.
    """
    if len(tokenizer) <= rows and tokenizer.vocab_size <= rows and not _beyond(tokenizer, rows):
        return
    named = {str(text) for key, text in tokenizer.special_tokens_map.items() if key.startswith(_PLACEHOLDERS)}
    if beyond := [text for text, token in _beyond(tokenizer, rows) if text not in named and token not in new]:
        raise InputError(
            f"the tokenizer has {len(tokenizer):,} tokens and the embedding {rows:,} rows: none for '{beyond[0]}'", where=where,
            fix="name such tokens in a file for --tune.add_tokens, and train",
        )  # fmt: skip


def _beyond(tokenizer: Any, rows: int) -> list[tuple[str, int]]:
    """The tokens whose ids have no row, lowest id first."""
    found = [(text, token) for text, token in tokenizer.get_vocab().items() if token >= rows]
    return sorted(found, key=lambda pair: pair[1])
