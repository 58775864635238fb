"""Kills, signals, full and read-only disks, damaged files, at every command that goes on: the bits of one that ran through,
or one line that says what is wrong.

Everything is drawn from a seed. A failure names what to run alone: `KILLS=sft-lora:half:37 pytest tests/tune/test_kills.py -m
slow` (the case, what befalls it, at which operation or after how many seconds). `KILLS_SEED` draws others.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from whole_runs import WORDS

pytestmark = pytest.mark.medium

SEED = int(os.environ.get("KILLS_SEED", "0"))
ALONE = os.environ.get("KILLS")
# What differs from run to run: how fast it went, and the page that says so.
TIMES = {
    "seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "estimated_memory_bytes",
    "memory_bytes",
    "documents_per_second",
    "documents",
    "journals",
}
PAGES = {".html"}
DAMAGES = ("cut", "emptied", "garbled", "digit", "deleted")
# What a start says that finds the whole result of an earlier one.
DONE = re.compile("this file already exists and is not overwritten|the folder is not empty")


@dataclass(frozen=True)
class Case:
    """A command, and what befalls it: how many kills and signals, faults of the disk, damaged files."""

    arguments: tuple[str, ...]
    kills: int = 13
    damages: int = 0
    faults: tuple[str, ...] = field(default=("full", "readonly"))


class Parent:
    """The process that forks starts (killing.py)."""

    def __init__(self) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "0",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killing.py"))], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, folder: Path, arguments, **fault) -> dict:
        """Do a start in `folder`; how it ended, and what it said."""
        assert self.process.stdin and self.process.stdout
        order = {"folder": str(folder), "arguments": list(arguments), **fault}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        ended = json.loads(self.process.stdout.readline())
        return ended | {"said": (folder.parent / "said").read_text(encoding="utf-8", errors="replace")}

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


@pytest.fixture(scope="module")
def parent():
    one = Parent()
    yield one
    one.close()


def _write(path: Path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_folder):
    """Small files of every kind, which no command changes."""
    folder, draw = tmp_path_factory.mktemp("inputs"), random.Random(0)
    asked = [" ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 5))) + f" {i}?" for i in range(18)]
    _write(folder / "chat.jsonl", [{"prompt": q, "completion": q.split()[0]} for q in asked])
    _write(
        folder / "pairs.jsonl", [{"prompt": q, "chosen": q.split()[0], "rejected": "no " + q.split()[1]} for q in asked]
    )
    _write(
        folder / "wanted.jsonl",
        [{"prompt": q, "completion": q.split()[0], "label": i % 2 == 0} for i, q in enumerate(asked)],
    )
    _write(folder / "texts.jsonl", [{"text": q * 3} for q in asked])
    _write(folder / "response.jsonl", [{"chosen": q, "rejected": q[::-1]} for q in asked])
    for name, shift in (("one", 0), ("two", 1)):
        _write(folder / f"{name}.jsonl", [{"prompt": q, "answer": q.split()[shift]} for q in asked[:6]])
    (folder / "text.txt").write_text("\n\n".join(asked))
    (folder / "rewards.py").write_text("def short(answers):\n    return [-len(a) / 10 for a in answers]\n")
    (folder / "suite.yaml").write_text(
        "name: toy\ngroups:\n  - name: short\n    cases:\n"
        + "".join(
            f'      - prompt: {json.dumps(q)}\n        checks: [{{judged: {{question: "Is it short?"}}}}]\n'
            for q in asked[:4]
        )
    )
    (folder / "tiny").symlink_to(tiny_folder)
    return folder


@pytest.fixture(scope="module")
def runs(parent, inputs, tmp_path_factory):
    """Finished runs that other commands read, made when the first of these asks."""
    folder = tmp_path_factory.mktemp("runs")

    def made() -> Path:
        for name in ("sft-lora", "reward"):
            if not (folder / name).exists():
                (folder / name / "here").mkdir(parents=True)
                words = [word.replace("{inputs}", str(inputs)) for word in CASES[name].arguments]
                assert parent.start(folder / name / "here", words)["status"] == 0
        return folder

    return made


def training(method: str, data: str, *more: str, **changes) -> Case:
    """`luthier train` of four steps with two checkpoints."""
    common = (
        "train", f"{{inputs}}/{data}.jsonl", "--method", method, "--model", "{inputs}/tiny", "--out", "run", "--device", "cpu",
        "--dtype", "float32", "--threads", "1", "--train.batch", "3", "--train.tokens", "256", "--train.steps", "4",
        "--train.checkpoint", "2", "--train.keep", "2", "--data.holdout", "0.2", "--eval.rows", "3", "--eval.samples", "2",
        "--eval.max_new_tokens", "4", "--lora.rank", "2", "--train.lr", "1e-2", "--json",
    )  # fmt: skip
    forgetting = () if "--eval.general" in more or "--keep-forgetting" in more else ("--no-eval.forgetting",)
    return Case(
        (*common, *forgetting, *(word for word in more if word != "--keep-forgetting")), **({"damages": 4} | changes)
    )


ONLINE = ("--rollout.samples", "2", "--rollout.max_new_tokens", "4", "--reward")
HERE = ("--device", "cpu", "--dtype", "float32", "--threads", "1")
CASES: dict[str, Case] = {
    "sft-lora": training("sft", "chat", "--eval.every", "2", "--keep-forgetting", kills=18),
    "sft-full": training("sft", "chat", "--tune", "full", "--eval.every", "2"),
    "sft-head": training("sft", "chat", "--tune", "head"),
    "sft-last": training("sft", "chat", "--tune", "last:1"),
    "sft-layers": training("sft", "chat", "--tune", "layers:*.mlp.*"),
    "sft-qlora": training("sft", "chat", "--tune", "qlora"),
    "cpt": training("cpt", "texts", "--data.replay", "{inputs}/text.txt"),
    "reward": training("reward", "pairs"),
    "dpo": training("dpo", "pairs", "--eval.every", "2"),
    "simpo": training("simpo", "pairs"),
    "orpo": training("orpo", "pairs"),
    "kto": training("kto", "wanted"),
    "response": training("response", "response"),
    "ppo": training("ppo", "chat", *ONLINE, "exact", kills=16),
    "grpo": training("grpo", "chat", *ONLINE, "python:{inputs}/rewards.py:short", kills=16),
    "eval": Case(("eval", "{inputs}/tiny", "--tasks", "perplexity", "--text", "{inputs}/text.txt", "--out", "out", *HERE,
                  "--json"), damages=4),
    "sample": Case(("sample", "{inputs}/tiny", "{inputs}/chat.jsonl", "--reward", "length:6", "--samples", "3", "--max-new-tokens", "6",
                    "--write", "pairs", "--out", "out.jsonl", *HERE, "--json"), damages=4),
    "judge": Case(("judge", "{inputs}/one.jsonl", "{inputs}/two.jsonl", "--judge", "{inputs}/tiny", "--out", "out.jsonl", *HERE,
                   "--json")),
    "compare": Case(("compare", "{inputs}/tiny", "other={inputs}/tiny", "--data", "{inputs}/chat.jsonl", "--out", "out.jsonl",
                     *HERE, "--json")),
    "test": Case(("test", "{inputs}/suite.yaml", "--model", "{inputs}/tiny", "--judge", "{inputs}/tiny", "--judged", "said.jsonl",
                  "--junit", "out.xml", *HERE, "--json")),
    "score": Case(("score", "{runs}/reward/here/run", "{inputs}/pairs.jsonl", "--out", "out.jsonl", *HERE, "--json"), 4),
    "merge": Case(("merge", "{runs}/sft-lora/here/run", "--out", "merged", "--threads", "1", "--json"), 4),
    "report": Case(("report", "{runs}/sft-lora/here/run", "--out", "page.html"), 4),
    "errors": Case(("errors", "{runs}/sft-lora/here/run", "--fix", "fixes.jsonl"), 4),
    "data": Case(("data", "{inputs}/chat.jsonl", "--model", "{inputs}/tiny", "--clean", "--split", "--out", "to"), 0),
}  # fmt: skip


def _plain(value):
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in TIMES}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, object]:
    """Every file of a folder: its bytes, or what JSON says but for times. Of the checkpoints the last and the best."""
    found: dict[str, object] = {}
    steps = sorted(folder.glob("run/checkpoints/step-*"))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(old in path.parents for old in steps[:-1]):
            continue
        if path.name in ("manifest.json", "sums"):
            continue  # hashes of files that know the seconds
        if "/damaged-" in name:
            continue  # a damaged checkpoint that was set aside
        if path.suffix in PAGES:
            found[name] = "a page"
        elif path.suffix == ".json":
            found[name] = _plain(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [_plain(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            found[name] = path.read_bytes()
    return found


class Trials:
    """One command, run through once, and then again and again with something befalling it."""

    def __init__(self, name: str, parent: Parent, inputs: Path, runs, scratch: Path) -> None:
        self.name, self.case, self.parent, self.scratch = name, CASES[name], parent, scratch
        places = {"{inputs}": str(inputs)}
        if any("{runs}" in word for word in self.case.arguments):
            places["{runs}"] = str(runs())
        self.arguments = list(self.case.arguments)
        for name, place in places.items():
            self.arguments = [word.replace(name, place) for word in self.arguments]
        self.counts: Counter[str] = Counter()
        (scratch / "whole" / "here").mkdir(parents=True)
        ended = self.start(scratch / "whole" / "here")
        self.status = ended["status"]  # 1 where `luthier test` says that a case fails
        assert self.status in (0, 1) and "luthier: " not in ended["said"], ended["said"]
        self.operations, self.seconds = ended["operations"], ended["seconds"]
        self.whole = contents(scratch / "whole" / "here")
        self.number = 0

    def start(self, folder: Path, **fault) -> dict:
        ended = self.parent.start(folder, self.arguments, **fault)
        assert not ended["hung"], f"hangs: {self._alone(fault)}\n{ended['said']}"
        assert "Traceback" not in ended["said"], f"{self._alone(fault)}\n{ended['said']}"
        return ended

    def _alone(self, fault) -> str:
        return f"KILLS={self.name}:{fault.get('kind')}:{fault.get('at', fault.get('after'))} KILLS_SEED={SEED}"

    def folder(self) -> Path:
        self.number += 1
        folder = self.scratch / str(self.number) / "here"
        folder.mkdir(parents=True)
        return folder

    def befall(self, *faults: dict) -> None:
        """Starts in one folder that end early, each in its way, and then one that may end: with the same bits."""
        folder = self.folder()
        for fault in faults:
            self._ended(self.start(folder, **fault), fault, folder)
        self.finish(folder, ", then ".join(map(self._alone, faults)))

    def finish(self, folder: Path, told: str) -> None:
        """The last start, which nothing befalls: what it leaves is what one that ran through leaves."""
        ended = self.start(folder)
        assert ended["status"] == self.status or DONE.search(ended["said"]), f"{told}\n{ended['said']}"
        found = contents(folder)
        differing = [name for name in found.keys() | self.whole.keys() if found.get(name) != self.whole.get(name)]
        assert not differing, f"other bits than of one that ran through: {sorted(differing)} after {told}"
        shutil.rmtree(folder.parent)

    def _ended(self, ended: dict, fault: dict, folder: Path) -> None:
        """How a start may end that something befell."""
        kind, status, said = fault["kind"], ended["status"], ended["said"]
        where = f"{self._alone(fault)}: status {status}\n{said}"
        late = kind in ("kill", "half", "term", "int") and status not in (-9, -15, -2, 130)
        self.counts[LATE if late else kind if "at" in fault else f"{kind} at a time"] += 1
        if kind in ("kill", "half"):
            assert status in (-9, self.status) or DONE.search(said), where
        elif kind in ("term", "int"):
            early = "at" not in fault and not said and not any(folder.iterdir())  # before it listens
            assert status in (self.status, 130) or (status in (-15, -2) and early) or DONE.search(said), where
            assert status != 130 or said.strip().splitlines()[-1].startswith("luthier: "), where
            assert ended["ending"] is None or ended["ending"] < 20, where
            ENDINGS.append(ended["ending"] or 0.0)
        else:
            assert status in (self.status, 2) or DONE.search(said), where
            if status == 2:
                last = said.strip().splitlines()[-1]
                assert last.startswith("luthier: ") and "; " in last, where

    def damage(self, kind: str, draw: random.Random) -> None:
        """A start is killed, and before the next a file of what it left is damaged: that is said, or changes nothing."""
        folder, at = self.folder(), draw.randint(self.operations // 3, self.operations)
        self.start(folder, kind="kill", at=at)
        left = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
        if not left:
            return
        path = draw.choice(left)
        told = f"{path.relative_to(folder)} {kind} after {self._alone({'kind': 'kill', 'at': at})}"
        before = path.read_bytes()
        _spoil(path, kind, draw)
        if path.exists() and path.read_bytes() == before:
            return  # a file without digits
        self.counts[f"file {kind}"] += 1
        ended = self.start(folder)
        last = ended["said"].strip().splitlines()[-1]
        if ended["status"] == 2:
            beside = path.parent.name if path.parent.name not in ("run", "here") else path.name
            named = path.name in last or beside in last or "another run" in last
            assert last.startswith("luthier: ") and named, f"{told}\n{ended['said']}"
        else:
            assert ended["status"] == 0, f"{told}\n{ended['said']}"
            self.finish(folder, told)


def _spoil(path: Path, kind: str, draw: random.Random) -> None:
    content = path.read_bytes()
    if kind == "deleted":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[: draw.randint(0, max(0, len(content) - 1))])
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "garbled":
        place = draw.randint(0, max(0, len(content) - 8))
        path.write_bytes(content[:place] + draw.randbytes(8) + content[place + 8 :])
    else:
        digits = [i for i, byte in enumerate(content) if 0x30 <= byte <= 0x39]
        if digits:
            i = draw.choice(digits)
            path.write_bytes(content[:i] + bytes([0x30 + (content[i] - 0x30 + 1) % 10]) + content[i + 1 :])


def draws(name: str, trials: Trials) -> list[tuple[dict, ...]]:
    """What befalls a command: one fault, or two or three starts in a row that end early."""
    draw = random.Random(f"{name} {SEED}")

    def one(kind: str, timed: bool = False) -> dict:
        if timed:
            return {"kind": kind, "after": round(draw.uniform(0, trials.seconds), 3)}
        return {"kind": kind, "at": draw.randint(1, trials.operations)}

    out: list[tuple[dict, ...]] = []
    count = 0
    kinds = ["kill", "half", "kill", "half", "term", "int"]
    while count < trials.case.kills:
        together = draw.choice([1, 1, 2, 3])
        out.append(tuple(one(kinds[(count + i) % 6], timed=(count + i) % 3 == 2) for i in range(together)))
        count += together
    return out + [(one(kind),) for kind in trials.case.faults for _ in range(2)]


LATE = "too late"  # a start in a row may have less to do than the whole that its end was drawn from
COUNTED: Counter[str] = Counter()
ENDINGS: list[float] = []  # seconds from a signal to the end of the start that it was sent to


def go_through(name: str, parent: Parent, inputs: Path, runs, scratch: Path, few: int | None = None) -> None:
    trials = Trials(name, parent, inputs, runs, scratch)
    if ALONE:
        _, kind, place = ALONE.split(":")
        trials.befall({"kind": kind, "after": float(place)} if "." in place else {"kind": kind, "at": int(place)})
        return
    for faults in draws(name, trials)[:few]:
        trials.befall(*faults)
    draw = random.Random(f"{name} damage {SEED}")
    for kind in draw.sample(DAMAGES, trials.case.damages) if few is None else ():
        trials.damage(kind, draw)
    if few is None:
        COUNTED.update({f"{name} {kind}": count for kind, count in trials.counts.items()})


def test_a_few_kills(parent, inputs, runs, tmp_path):
    """The short form of what follows, in every run of the tests."""
    go_through("sft-head", parent, inputs, runs, tmp_path, few=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [ALONE.split(":")[0]] if ALONE else list(CASES))
def test_whatever_befalls_a_command_it_ends_with_the_same_bits(name, parent, inputs, runs, tmp_path):
    go_through(name, parent, inputs, runs, tmp_path)


@pytest.mark.slow
def test_how_many_there_were(capsys):
    """After the cases above: counts by method and kind."""
    if ALONE or not COUNTED:
        pytest.skip("counts are of all cases")
    kinds: Counter[str] = Counter()
    for key, count in COUNTED.items():
        kinds[key.partition(" ")[2]] += count
    late = kinds.pop(LATE, 0)
    kills = sum(count for kind, count in kinds.items() if kind.split()[0] in ("kill", "half", "term", "int"))
    with capsys.disabled():
        print(
            f"\n{kills} kills and signals, {sum(kinds.values()) - kills} full or read-only disks and damaged files: {dict(kinds)}"
        )
        cases = {name: sum(c for key, c in COUNTED.items() if key.split()[0] == name) for name in CASES}
        print(f"by command: {cases}; {late} kills and signals came when the start had ended, and are not counted above")
        print(f"{len(ENDINGS)} starts ended after a signal: the slowest after {max(ENDINGS):.1f} s")
    assert kills >= 200
