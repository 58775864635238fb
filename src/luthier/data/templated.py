"""Text that is already written in a chat template -> its turns, where only one reading is possible.

A format is known by the marks before its turns. A text is read as one when it begins with such a mark (after a beginning of
text, or a paragraph that is taken for the system prompt where the format has such), when user and assistant take turns, and
when no mark of any template is left in what they say. Anything else is left alone, and warned of (`warn`).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from luthier.core.types.examples import Message, Messages
from luthier.data.corrections import STOPS

# What no person writes: control tokens of templates, in any spelling.
MARK = re.compile(
    r"<\|[A-Za-z]\w*\|>|<｜[^｜\s]{1,40}｜>|\[\|\w+\|\]|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[gMASK\]|"
    r"<(?:extra_id_\d+|reserved_\d+|eoh|eom|sop|eop|[BE]OS_TOKEN)>|<(?:human|bot)>:|GPT4 Correct (?:User|Assistant):|"
    r"(?:^|(?<=\n))### ?(?:Human|Assistant|Instruction|Response|User|System):"
)
BEGIN = re.compile(r"\s*(?:<s>|<bos>|<BOS_TOKEN>|<\|begin_of_text\|>|<\|startoftext\|>|<｜begin▁of▁sentence｜>)?\s*")
ALPACA = "Below is an instruction that describes a task"

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "instruction": "user",
    "assistant": "assistant", "model": "assistant", "response": "assistant", "gpt": "assistant", "ai": "assistant", "bot": "assistant",
    "chatbot": "assistant", "instruct": "user", "output": "assistant", "tool": "tool", "ipython": "tool",
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """How one template writes turns: `turn` finds the mark before each, the role in its first group that matches.
    `opening`: whether a text without a mark may stand first, as the system prompt."""

    name: str
    turn: re.Pattern[str]
    ends: tuple[str, ...] = STOPS
    opening: bool = False


FORMATS = (
    Format("chatml", re.compile(r"<\|im_start\|>(system|user|assistant|tool)\n")),
    Format("llama-3", re.compile(r"<\|start_header_id\|>(system|user|assistant|ipython|tool)<\|end_header_id\|>\n*")),
    Format("llama-4", re.compile(r"<\|header_start\|>(system|user|assistant|ipython|tool)<\|header_end\|>\n*")),
    Format("granite", re.compile(r"<\|start_of_role\|>(system|user|assistant)<\|end_of_role\|>")),
    Format("command", re.compile(r"<\|START_OF_TURN_TOKEN\|><\|(SYSTEM|USER|CHATBOT)_TOKEN\|>")),
    Format("exaone", re.compile(r"\[\|(system|user|assistant)\|\]")),
    Format("gemma", re.compile(r"<start_of_turn>(system|user|model)\n")),
    Format("zephyr", re.compile(r"(?i:<\|(system|user|assistant)\|>)\n?")),
    Format("deepseek", re.compile(r"<｜(User|Assistant)｜>")),
    Format("hashes", re.compile(r"(?:^|(?<=\n))### ?(Human|User|System|Assistant): ?|(?<=\S)### ?(Human|Assistant): ?"), opening=True),
    Format("alpaca", re.compile(r"(?:^|(?<=\n))### ?(Instruction|Response): ?\n*"), opening=True),
    Format("vicuna", re.compile(r"(?:^|(?<=\s)|(?<=</s>))(USER|ASSISTANT): ?"), opening=True),
    Format("transcript", re.compile(r"(?:^|(?<=\n\n))(Human|User|Assistant|AI): ?")),
    Format("openchat", re.compile(r"(?:^|(?<=<\|end_of_turn\|>))\s*GPT4 Correct (User|Assistant): ?")),
    Format("phi-2", re.compile(r"(?:^|(?<=\n))(Instruct|Output): ?")),
    Format("angles", re.compile(r"(?:^|(?<=\n))<(human|bot)>: ?")),
    Format("lines", re.compile(r"(?:^|(?<=\n))(Human|User|Assistant): ?")),
)  # fmt: skip
LLAMA2 = re.compile(r"\[INST\](.*?)\[/INST\](.*?)(?=\[INST\]|\Z)", re.DOTALL)
SYSTEM2 = re.compile(r"\s*<<SYS>>\s*(.*?)\s*<</SYS>>\s*", re.DOTALL)
INPUT = re.compile(r"\n+### ?Input:\s*")


def turns_in(text: str) -> Messages | None:
    """The turns that a templated text writes; None where it is none, or can be read in more than one way.

    What an assistant begins and does not end is not read: a text that ends in an open mark is the prompt before it.
    """
    begin = BEGIN.match(text)
    body = text[begin.end() if begin else 0 :]
    if body.startswith("[INST]"):
        return _checked(_llama2(body))
    for form in FORMATS:
        if form.turn.search(body) and (turns := _checked(_split(body, form))) is not None:
            return turns
    return None


def is_templated(text: str) -> bool:
    """Whether a text as a whole is a conversation in a known template, with an answer in it."""
    turns = turns_in(text)
    return turns is not None and any(turn.role == "assistant" for turn in turns)


def _split(body: str, form: Format) -> Messages | None:
    parts = form.turn.split(body)
    groups = form.turn.groups
    opening, rest = parts[0].strip(), parts[1:]
    if opening and not form.opening:
        return None
    turns = [] if not opening or opening.startswith(ALPACA) else [Message("system", opening)]
    for i in range(0, len(rest), groups + 1):
        role = ROLES[next(name for name in rest[i : i + groups] if name).lower()]
        said = _ended(rest[i + groups], form.ends)
        if form.name == "alpaca" and role == "user":
            instruction, *given = INPUT.split(said, maxsplit=1)
            turns.append(Message(role, instruction.strip(), input=given[0].strip() if given else ""))
        else:
            turns.append(Message(role, said))
    return tuple(turns)


def _llama2(body: str) -> Messages | None:
    turns: list[Message] = []
    at = 0
    for found in LLAMA2.finditer(body):
        if body[at : found.start()].strip():
            return None
        asked = found[1]
        if not turns and (system := SYSTEM2.match(asked)):
            turns.append(Message("system", system[1]))
            asked = asked[system.end() :]
        answer = re.sub(r"\s*</s>\s*(?:<s>)?\s*\Z", "", found[2]).strip()
        turns += [Message("user", asked.strip()), Message("assistant", answer)]
        at = found.end()
    return None if body[at:].strip() else tuple(turns)


def _ended(said: str, ends: tuple[str, ...]) -> str:
    """What was said without the mark of its end."""
    said = said.strip()
    while end := next((end for end in ends if said.endswith(end)), ""):
        said = said[: -len(end)].rstrip()
    return said


def _checked(turns: Messages | None) -> Messages | None:
    """The turns where they are a conversation: user and assistant in turn, something said in each, no mark left in it, and
    an answer, or at the end the mark that one is to follow."""
    if not turns:
        return None
    asked = turns[-1].role == "assistant" and not turns[-1].content
    turns = turns[:-1] if asked else turns
    roles = [turn.role for turn in turns]
    spoken = [role for role in roles if role in ("user", "assistant")]
    in_turn = "tool" in roles or all(one != other for one, other in itertools.pairwise(spoken))
    answered = "assistant" in roles or asked
    plain = all(turn.content and not MARK.search(f"{turn.content}\n{turn.input}") for turn in turns)
    whole = "user" in roles and answered and in_turn and plain and "system" not in roles[1:]
    return turns if whole else None
