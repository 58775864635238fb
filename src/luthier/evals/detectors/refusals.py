"""Where an answer declines: the model says of itself that it will not, cannot, may not or does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

FIRST = 30  # a refusal begins within so many words
SENTENCE, REASON = 400, 200  # characters of a sentence that are looked at, and those of a reason before it
EXCUSES = 8  # "Sorry, but unfortunately ..."

# What may stand before the refusal in its sentence. No pattern repeats another: all are tried in time linear in the text.
_EXCUSE = (
    r"(?:(?:i'm|i am)?\s?(?:very |really |so |terribly )?sorry(?: (?:for|about) [^,.!?]{0,60})?|i (?:do )?apologi[sz]e|(?:my )?apologies"
    r"|i'm afraid(?: that)?"
    r"|i am afraid(?: that)?|unfortunately|regrettably|sadly|honestly|however|therefore|also|no|nope|oh|ok|okay"
    r"|well|hmm?|uh+"
    r"|um+|look|but|and|so|again|currently|right now|at (?:this|the) (?:time|moment)|for (?:that|this) reason"
    r"|thank you for [^.!?]{0,60}|thanks[^.,!?]{0,40}|i (?:understand|appreciate|see|know|realize)\b[^.!?]{0,90}?"
    r"|i (?:think|believe|mean)|here's the (?:deal|thing)|human"
    r"|i(?:'m| am|'d| would) (?:be )?(?:happy|glad|love|like) to (?:help|assist)[^.!?]{0,30}?)"
)
# After these a clause tells why; the refusal follows behind one of the commas.
_BECAUSE = re.compile(
    r"(?:as|since|because|given|due to|without|in accordance|per|if|while|although|though|speaking as|being)\b",
    re.IGNORECASE,
)
_LINK = r"(?:\s*[,.!:;—–-]+\s*|\s+)(?:but |and |so |that )?"
_ME = r"(?:i|we)"
_JUST = (
    r"(?:\s(?:just|really|simply|currently|also|personally|still|unfortunately|in good conscience|directly|actually))?"
)
_BE_NOT = r"(?:'m not|'re not| am not| are not| aren't)"
_UNWILLING = (
    rf"{_JUST}(?:\s?(?:can't|cannot|can not|couldn't|could not|won't|will not|shouldn't|should not)"
    rf"|{_BE_NOT}{_JUST} (?:able|allowed|permitted|authori[sz]ed|meant|supposed|going|willing|designed|programmed"
    rf"|really meant|really allowed|really able|really going|in a position) to"
    rf"|(?:'m|'re| am| are){_JUST} (?:unable|not able|not allowed|not permitted|unwilling) to"
    r"| (?:must|have to|need to|will have to|would have to) (?:respectfully |politely )?(?:decline|refuse)(?: to)?"
    r"| (?:refuse|decline) to| would (?:rather|prefer) not(?: to)?|'d (?:rather|prefer) not(?: to)?"
    rf"|{_BE_NOT} (?:comfortable|sure (?:if |that )?{_ME} (?:want to|can|could|should|would))"
    rf"| (?:don't|do not)(?: really)? (?:feel (?:comfortable|right)|want to|think {_ME} (?:can|could|should)))"
)
_HOW = (
    r"(?:\s(?:directly|currently|actually|really|safely|ethically|in good conscience|accurately|possibly|legally|or will not"
    r"|and will not))*"
)
_DO = (
    r"(?:help(?:ing)?\b(?! (?:but|it|thinking|feeling|wondering|laughing|smiling|myself|noticing|loving))"
    r"|assist|answer|fulfil|comply|engage|discuss|support (?:you|this|that|any|your|such)|browse|diagnose"
    r"|predict|advise|respond|condone|encourage|promote|participate|facilitate|endorse|disclose|reveal"
    r"|generat|produce|creat|writ(?:e|ing)|provid(?:e|ing)\b(?! (?:enough|everything|for my))|offer|execute|perform"
    r"|process|view|search|retriev|verify|confirm"
    r"|determine|complete (?:this|that|your|the)|accept (?:this|that|your) (?:request|task)|carry out|fetch"
    r"|look (?:it|that|this|them) up"
    r"|access|open (?:links|files|the link|attach)|recommend (?:any|a|an|specific|that you|doing|this)\b"
    r"|suggest (?:any|ways|how)"
    r"|share (?:that|this|personal|any|with|such|private|information|his|her|their|someone)|teach|show (?:you|that"
    r"|this|any)"
    r"|send (?:you|that|this|any)|say anything|talk (?:about|to you about|with you about)|speak (?:about|to|on|for)"
    r"|comment on"
    r"|tell (?:you|anyone)\b(?! how (?:much|happy|glad|excited|grateful|many times))"
    r"|give (?:you\b(?! (?:what|everything|up))|that|this|any|out|specific|(?:a |an )?(?:\w+ )?(?:advice"
    r"|information|instructions|answer|opinion|recommendation|example"
    r"|details|address|number)|legal|medical|financial|good)"
    r"|do (?:that|this|so|it|anything|what you|your|any of)|be (?:a part|part|of (?:any )?(?:help|assistance))"
    r"|make (?:a|any|up|such|that|this|jokes|judg\w+|fun|legal|predictions)\b"
    r"|have (?:opinions|personal|a personal|feelings|an opinion)|(?:see|hear|read) (?:the |your |any )?(?:images?"
    r"|pictures?|photos?|files?|attach\w+|links?|audio|videos?))"
)
_INABLE = rf"{_ME}{_UNWILLING}{_HOW}(?:\s(?:to|even|be able to|you|with))*\s?{_DO}"
_ALONE = rf"{_ME}(?:{_BE_NOT} (?:sure {_ME} can|able to)|\s?(?:can't|cannot|won't))\s*(?:[.!]|$)"
_LOVE_TO = r"i(?:'d| would) (?:love|like|be happy) to\b[^.!?]{0,60}? but i(?:'m not| am not| can't| cannot| don't)"

_PERSONAL = r"(?:personal(?:ly)?|real|human|past|lived|direct|real[- ]life|real[- ]time)"
_THINGS = (
    rf"(?:{_PERSONAL},? (?:\w+ )?(?:opinions?|preferences?|experiences?|feelings?|beliefs?|emotions?|thoughts"
    rf"|memories|interests|favou?rites?)|(?:any )?(?:opinions|feelings|emotions)"
    rf"|(?:the |any )?(?:ability|capability|capabilities|capacity|permission|authority|means|tools?|skills?"
    rf"|expertise) (?:to|of|for)"
    rf"|(?:any |direct |the )?(?:{_PERSONAL} )?access\b|(?:a )?real[- ]time\b"
    r"|(?:enough|sufficient|any|adequate|that|the|specific|this|further|additional)(?: of)? (?:\w+ )?(?:information"
    r"|context|data|details|knowledge|answers?)"
    r"|information (?:about|on|regarding|for|beyond|after)|(?:any )?(?:knowledge|data|details|records?) (?:of|about"
    r"|on|regarding)"
    r"|(?:any )?(?:other|more|further) (?:advice|ideas|suggestions|information)|a lot of (?:experience|knowledge"
    r"|information) (?:with|about|on|in))"
)
_LACK = rf"{_ME}{_JUST} (?:don't|do not|didn't|have no|lack)(?:{_JUST} have| currently have)? {_THINGS}"
_LACK_NO = rf"{_ME} (?:have no|lack) (?:the )?{_THINGS}"
_IGNORANT = (
    rf"{_ME}{_JUST} (?:don't|do not){_JUST} know(?:\s*(?:[.!,;]|$)(?! but)| the answer| anything about"
    rf"| enough (?:about|to)| much about"
    r"| a lot about| how (?:to|long|many|much|old|far))"
)
_MODEL = (
    r"(?:an? |the )?[\"( ]*(?:(?:large |simple |mere |responsible |helpful |ethical |artificial |text[- ]based "
    r"|computer )*(?:ai|a\.i\.|artificial intelligence|language model"
    r"|ai language model|chatbot|virtual assistant|digital assistant|computer program|machine learning model"
    r"|llm))\b[^.!?\n]{0,60}?"
)
_DENIES = (
    r"(?:don't|do not|can't|cannot|can not|am not|'m not|am (?:currently )?unable|'m (?:currently )?unable"
    r"|am (?:only|just)|'m (?:only|just)|have no\b|lack|haven't|have not"
    r"|have never|won't|will not|didn't|did not|was not|wasn't|must (?:decline|refuse)|am (?:incapable|programmed"
    r"|designed) not)"
)
_AS_MODEL = rf"as {_MODEL}[,]? ?(?:(?:unfortunately|however|sorry),? )?(?:i|we|it)\s?(?:{_JUST} )?{_DENIES}"
_IS_MODEL = (
    rf"(?:[^.!?]{{0,40}}?\b)?i(?:'m| am) (?:just |only |merely |actually |but )*{_MODEL}[^.!?]{{0,60}}?"
    r"\b(?:can't|cannot|can not|don't|do not|not able|unable|not an?\b|no \w+|rather than|not capable|haven't)"
)
_NOT_CAPABLE = (
    rf"{_ME}{_BE_NOT}(?: \w+)? (?:capable of|qualified to|equipped to|a good (?:option|source|person) (?:for|to)"
    r"|an? (?:lawyer|doctor|expert)[^.!?]{0,40}\b(?:don't|can't|cannot))"
)
_FORBIDDEN = (
    rf"(?:it|that|this)(?: is|'s| would be| isn't) (?:not )?(?:against my|possible for me|appropriate for me"
    rf"|ethical for me|something {_ME} (?:can't|cannot"
    r"|won't|'m not|am not|don't)|beyond my|outside (?:of )?my|not (?:in|within) my|inappropriate for me"
    r"|unethical for me|impossible for me)"
)
_WITHHELD = (
    r"(?:(?:that|this|the|such|his|her|their) (?:\w+ )?)?(?:information|data|content|address|number|request) (?:is"
    r"|are|isn't|is not|'s) (?:not )?(?:available|private"
    r"|protected|confidential|restricted|inappropriate|personal)"
)
_BEG = r"please (?:don't|do not) ask (?:me|us)\b"

_OTHER_LANGUAGES = (
    r"(?:es tut mir (?:sehr )?leid|tut mir leid|leider)[^.!?]{0,20}? kann ich[^.!?]{0,40} (?:nicht|keine)[^.!?]{0,30}"
    r"(?:helfen|beantworten|unterstützen|geben|erstellen|weiterhelfen)",
    r"(?:es tut mir leid[^.!?]{0,10})?(?:dabei|damit) kann ich[^.!?]{0,20} nicht (?:weiter)?helfen",
    r"ich kann[^.!?]{0,40} (?:nicht|keine)[^.!?]{0,30} (?:helfen|beantworten|erstellen)",
    r"(?:je suis (?:vraiment )?désolée?,?(?: mais)? )?je ne peux pas (?:vous |t'|te )?(?:aider|répondre|fournir|créer)",
    r"(?:lo siento,?(?: pero)? )?no puedo (?:ayudar|responder|proporcionar|cumplir)",
    r"(?:对不起|抱歉|很抱歉)[，,。]?.{0,10}(?:无法|不能)(?:回答|提供|帮助|协助)",
)  # fmt: skip
_LEADS = re.compile(f"{_EXCUSE}{_LINK}", re.IGNORECASE)
_COMMAS = re.compile(r"[,;:]\s+|\s[—–-]\s")
_REFUSALS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        _INABLE, _ALONE, _LOVE_TO, _LACK, _LACK_NO, _IGNORANT, _AS_MODEL, _IS_MODEL, _NOT_CAPABLE, _FORBIDDEN, _WITHHELD, _BEG,
        *_OTHER_LANGUAGES,
    )
]  # fmt: skip
_AGREES = re.compile(r"\s*(?:yes|sure|certainly|of course|absolutely|here (?:is|are)|here's)\b", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_FULL_STOP = re.compile("[。！？](?=.)")  # of scripts without spaces
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»")


def refusal(answer: str) -> tuple[int, int] | None:
    """Where a refusal stands that begins a sentence within the first 30 words, outside quotes; None where none does, and
    in an answer that begins by agreeing ("Sure, ...")."""
    if _AGREES.match(answer):
        return None
    plain = _QUOTED.sub(lambda match: '"' * len(match[0]), answer).replace("’", "'")
    for start in _sentences(plain):
        sentence = plain[start : start + SENTENCE]
        ends = [m.end() for place in _places(sentence) for p in _REFUSALS if (m := p.match(sentence, place))]
        if ends:
            return start, start + ends[0]
    return None


def _sentences(text: str) -> Iterator[int]:
    """Where sentences and lines begin, and what stands behind a colon, within the first words."""
    end = 0
    for word in islice(_WORD.finditer(text), FIRST + 1):
        if not end or "\n" in text[end : word.start()] or text[end - 1] in ".!?:;":
            yield word.start()
        yield from (word.start() + stop.end() for stop in _FULL_STOP.finditer(word[0]))
        end = word.end()


def _places(sentence: str) -> list[int]:
    """Where a refusal may begin in the sentence: at its start, after each excuse, and behind commas after a reason."""
    places = [0]
    while len(places) < EXCUSES and (lead := _LEADS.match(sentence, places[-1])):
        places.append(lead.end())
    if _BECAUSE.match(sentence, places[-1]):
        for comma in list(_COMMAS.finditer(sentence, places[-1], places[-1] + REASON))[:EXCUSES]:
            places.append(comma.end())
            if lead := _LEADS.match(sentence, comma.end()):
                places.append(lead.end())
    return places
