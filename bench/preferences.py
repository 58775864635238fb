"""The pairs that bench/dpo.py and bench/reward.py learn from, as TRL and as Luthier take them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

from beside import DATA

FILE = DATA / "hh_rlhf_harmless" / "test.jsonl.gz"
TURN = "\n\nAssistant:"
LONGEST = 1024


def pairs(count: int, tokenizer: Any) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of the first usable rows: dialogues that differ in their last answer only, neither
    answer empty, and no longer than 1024 tokens."""
    out: list[tuple[str, str, str]] = []
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            chosen, rejected = (row[key].rpartition(TURN) for key in ("chosen", "rejected"))
            prompt = chosen[0] + TURN
            answers = chosen[2].rstrip(), rejected[2].rstrip()
            if chosen[0] != rejected[0] or not all(answers) or answers[0] == answers[1]:
                continue
            if max(len(tokenizer(prompt + answer)["input_ids"]) for answer in answers) >= LONGEST:
                continue
            out.append((prompt, *answers))
            if len(out) == count:
                break
    return out


def rows(found: list[tuple[str, str, str]]) -> Any:
    """A data set as TRL's trainers take it."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in found])


def trees(found: list[tuple[str, str, str]], tokenizer: Any) -> list[Any]:
    """Luthier's trees of the same text: nothing around it, a stop token after each answer."""
    from luthier.config.data import TextConfig
    from luthier.core.types.examples import Message, Preference
    from luthier.text.encode import encode
    from luthier.text.template import load_template
    from luthier.text.tokenizer import Tokenizer

    own = Tokenizer(tokenizer)
    examples = [
        Preference((Message("user", p),), (Message("assistant", c),), (Message("assistant", r),)) for p, c, r in found
    ]
    done = encode(examples, load_template("plain", own), own, TextConfig())
    assert not done.dropped and not done.cut, "usable rows are"
    return done.trees


@dataclass(frozen=True)
class FileOrder:
    """Luthier's steps in the order of the file, as TRL's sampler has them."""

    trees: list[Any]
    batch: int
    packing: Any

    def __len__(self) -> int:
        return -(-len(self.trees) // self.batch)

    def step(self, index: int) -> Any:
        from luthier.text.loss_weights import RULES
        from luthier.training.steps import make_step

        return make_step(self.trees[index * self.batch : (index + 1) * self.batch], RULES["token"], self.packing)
