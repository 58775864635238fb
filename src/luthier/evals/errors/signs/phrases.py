"""Phrases that give an answer away: refusals, and tokens or turns of a chat template."""

from __future__ import annotations

import re

REFUSAL_WORDS = 30  # a refusal begins within the first words

_NOT_ABLE = (
    r"(?:can(?:'t|’t|not| not)|could not|couldn't|won't|will not|am not able to|'m not able to|’m not able to"
    r"|am unable to|'m unable to|’m unable to|am not allowed to|must decline(?: to)?|have to decline(?: to)?)"
)
_DO = (
    r"(?:help (?:you )?(?:with|in|hack|make|to)|help\b(?=[.!,]|$)|assist|answer|fulfil+|comply|generate|create|produce"
    r"|write|engage|discuss|support|complete (?:this|that|your)|process|access|browse|open (?:links|files|the link)"
    r"|share (?:that|this|personal|any)|diagnose|predict|advise|recommend (?:any|a |specific)|respond to|do that|do this"
    r"|give (?:you )?(?:\w+ )?(?:advice|information|instructions|a recommendation)"
    r"|provide (?:that\b|this\b|(?:you )?(?:with )?(?:\w+ ){0,3}(?:information|advice|instructions|guidance|answer|content"
    r"|details|assistance|links?)))"
)
_LEAD = (
    r"(?:(?:i'?m|i am|i’m)? ?(?:very |really |so )?sorry[,.]?(?: but)?|i apologi[sz]e[,.]?(?: but)?|unfortunately,?"
    r"|my apologies[,.]?(?: but)?|i'm afraid(?: that)?|no,|however,)"
)
_REFUSALS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"^(?:{_LEAD}\s*)*(?:but )?(?:as an? [\w ]{{2,40}}, )?i\s?{_NOT_ABLE} {_DO}",
        r"^(?:well, )?as an? (?:ai|artificial intelligence|language model|large language model|virtual assistant|chatbot"
        r"|ai language model|ai model|ai assistant)\b[^.]{0,40}?\bi (?:do not|don't|cannot|can't|can not|am not|'m not|am unable"
        r"|have no\b)",
        r"^(?:i'm|i am|i’m) (?:just |only )?an? (?:ai|language model|large language model|ai language model)\b"
        r"[^.]{0,30}(?:\bso\b|\band\b|,)[^.]{0,20}"
        r"\b(?:can't|cannot|can not|don't|do not|not able|unable|not an?\b)",
        r"^i (?:do not|don't|don’t) have (?:the (?:ability|capability|capacity)|access to|personal (?:opinions|preferences"
        r"|experiences|feelings|beliefs)|(?:enough|sufficient|any) information)",
        r"^it is not (?:possible|appropriate|ethical) for me to",
        r"^(?:sorry, )?i (?:do not|don't) know(?: the answer)?[.,!]",
        r"^(?:es tut mir (?:sehr )?leid|tut mir leid|leider)[^.!?]{0,20}? kann ich[^.!?]{0,40} (?:nicht|keine)[^.!?]{0,30}"
        r"(?:helfen|beantworten|unterstützen|geben|erstellen|weiterhelfen)",
        r"^(?:es tut mir leid[^.!?]{0,10})?(?:dabei|damit) kann ich[^.!?]{0,20} nicht (?:weiter)?helfen",
        r"^ich kann[^.!?]{0,40} (?:nicht|keine)[^.!?]{0,30} (?:helfen|beantworten|erstellen)",
        r"^(?:je suis (?:vraiment )?désolée?,?(?: mais)? )?je ne peux pas (?:vous |t'|te )?(?:aider|répondre|fournir|créer)",
        r"^(?:lo siento,?(?: pero)? )?no puedo (?:ayudar|responder|proporcionar|cumplir)",
        r"^(?:对不起|抱歉|很抱歉)[，,。]?.{0,10}(?:无法|不能)(?:回答|提供|帮助|协助)",
    )
]
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?。]\s)|(?<=\n))(?=\S)")
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»")

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


def refusal(answer: str) -> tuple[int, int] | None:
    """Where a refusal stands that begins a sentence within the first 30 words, outside quotes; None where none does."""
    plain = _QUOTED.sub(lambda match: '"' * len(match[0]), answer)
    for start in (match.start() for match in _SENTENCE_START.finditer(plain)):
        if len(plain[:start].split()) > REFUSAL_WORDS:
            return None
        for pattern in _REFUSALS:
            if match := pattern.search(plain[start:]):
                return start, start + match.end()
    return None


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
