"""Chat templates in the manner of well-known models, tokenizers made for them, and random conversations."""

from __future__ import annotations

import random
from functools import cache

from conftest import CHATML, WORDS
from luthier.core.types.examples import Message
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer

# In each template `{% generation %}` marks the answer with its stop token: transformers then gives the mask to
# compare with. `unmarked` takes the marks out again, for ours must not need them.
MARKED = {
    "chatml": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{{ '\n' }}{% else %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
        "{% if m.role == 'assistant' %}{% generation %}{{ m['content'] | trim }}<|eot_id|>{% endgeneration %}"
        "{% else %}{{ m['content'] | trim }}<|eot_id|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
        "{% if m.role == 'assistant' %}{{ '<start_of_turn>model\n' }}"
        "{% generation %}{{ m.content | trim }}<end_of_turn>{% endgeneration %}{{ '\n' }}"
        "{% else %}{{ '<start_of_turn>user\n' + (first if loop.first else '') + m.content | trim }}"
        "{{ '<end_of_turn>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "zephyr": (
        "{% for m in messages %}\n{% if m.role == 'assistant' %}\n{{ '<|assistant|>\n' }}"
        "{% generation %}{{ m.content + eos_token }}{% endgeneration %}{{ '\n' }}"
        "{% else %}\n{{ '<|' + m.role + '|>\n' + m.content + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
}
# kind -> (beginning, end, does plain text begin with it)
TOKENS = {
    "chatml": (None, "<|im_end|>", False),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", True),
    "gemma": ("<bos>", "<eos>", True),
    "zephyr": ("<s>", "</s>", False),
}
CONTROL = [
    *("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<s>", "</s>"),
]
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_STOP = CHATML.replace("<|im_end|>", "")


def unmarked(source: str) -> str:
    return source.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def byte_level(text_size: int = 320):
    """A byte-level tokenizer: it can spell every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=text_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return tokenizer


def metaspace(scheme: str = "first"):
    """A tokenizer in SentencePiece's manner: spaces become `▁`, and one is put in front of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    alphabet = [chr(c) for c in range(33, 127)] + ["\n", "▁"]
    specials = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=440, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return tokenizer


def fast(backend, *, bos: str | None, eos: str | None, adds_bos: bool = False, template: str | None = None, pad=None):
    """A transformers tokenizer over `backend` that knows all control tokens of the templates here."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    if adds_bos:
        one = f"{bos}:0 $A:0"
        backend.post_processor = processors.TemplateProcessing(
            single=one, pair=f"{one} {bos}:1 $B:1", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token=pad)
    made.chat_template = template
    return made


@cache
def tokenizer_for(kind: str, marked: bool = False) -> Tokenizer:
    """The tokenizer of a kind of model; Zephyr's is in SentencePiece's manner, the others are byte-level."""
    bos, eos, adds = TOKENS[kind]
    source = MARKED[kind] if marked else unmarked(MARKED[kind])
    backend = metaspace() if kind == "zephyr" else byte_level()
    return Tokenizer(fast(backend, bos=bos, eos=eos, adds_bos=adds, template=source))


def template_for(kind: str) -> Template:
    return load_template("auto", tokenizer_for(kind))


def with_source(source: str | None, kind: str = "chatml", **changes) -> Template:
    """The template `source` on a fresh tokenizer of a kind."""
    bos, eos, adds = TOKENS[kind]
    values = {"bos": bos, "eos": eos, "adds_bos": adds} | changes
    return load_template("auto", Tokenizer(fast(byte_level(), template=source, **values)))


LETTERS = "abc xyz TR 012 .,:;!?'\"-_/\\(){}[]<>|#*\n\táéßøл界🙂"


def random_text(draw: random.Random, longest: int = 30) -> str:
    """Words and odd characters; no white space at its ends, where byte pairs could span two segments."""
    parts = [
        draw.choice(WORDS) if draw.random() < 0.5 else draw.choice(LETTERS) for _ in range(draw.randint(1, longest))
    ]
    return draw.choice(["", " "]).join(parts).strip() or "x"


def random_chat(draw: random.Random, turns: int | None = None) -> tuple[Message, ...]:
    """[system?] (user assistant)+"""
    messages = [Message("system", random_text(draw))] if draw.random() < 0.4 else []
    for _ in range(turns or draw.randint(1, 3)):
        messages += [Message("user", random_text(draw)), Message("assistant", random_text(draw))]
    return tuple(messages)


def as_dicts(messages) -> list[dict]:
    return [message.as_dict() for message in messages]
