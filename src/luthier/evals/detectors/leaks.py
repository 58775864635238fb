"""Tokens or turns of a chat template that stand in an answer."""

from __future__ import annotations

import re

_TOKENS = re.compile(
    r"<\|/?[a-zA-Z_][\w ]{0,30}\|>|<｜[^｜\n]{1,30}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_(?:turn|text)>"
    r"|<(?:bos|eos|pad|unk|mask)>|\[(?:CLS|SEP|PAD|UNK|MASK|BOS|EOS)\]|<extra_id_\d+>"
    r"|\A(?:assistant|model)\n+(?=\S+ \S)"  # a header without its special tokens
    r"|^###? ?(?:Instruction|Input|Response|Human|Assistant|User|System|End)(?: \d+)?:",
    re.MULTILINE,
)
_TURN = re.compile(
    r"^(?:User|Human|System|USER|HUMAN|SYSTEM|Assistant|ASSISTANT|AI|Bot|<(?:user|assistant)>)\s?:", re.MULTILINE
)
_INVENTED = re.compile(r"\n(?:Question|Q|Instruction)\s?\d{0,2}[:.)][^\n]*\n+(?:Answer|A|Response)\s?\d{0,2}[:.)]")
_WANTS_TURNS = re.compile(
    r"dialog|conversation|script|chat|transcript|interview|scene|\bplay\b|role|faq|q&a|question|quiz|trivia|turns|"
    r"assistant|\buser\b|\bhuman\b|gespräch|entretien",
    re.IGNORECASE,
)
_HTML = re.compile(r"</?(?:html|body|p|b|i|div|span|ul|li|h[1-6]|br|a|td|tr|del)\b|html", re.IGNORECASE)


def leak(answer: str, prompt: str) -> tuple[int, int] | None:
    """Where a token of a chat template or an invented turn stands; what the prompt itself has or asks for is none."""
    for match in _TOKENS.finditer(answer):
        html = match[0] in ("<s>", "</s>") and (_HTML.search(answer) or _HTML.search(prompt))
        if match[0] not in prompt and not html:
            return match.span()
    if _WANTS_TURNS.search(prompt):
        return None
    turns = list(_TURN.finditer(answer))
    first_is_turn = bool(turns) and not answer[: turns[0].start()].strip()
    if turns and (not first_is_turn or len(turns) > 1 or turns[0][0].lower().startswith(("assistant", "ai", "bot"))):
        return turns[0].span()
    invented = _INVENTED.search(answer)
    return invented.span() if invented else None
