"""A user's reward function: the protocol, and everything it can do wrong."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import pytest

from luthier.config.rewards import RewardConfig
from luthier.core.errors import InputError, RunError
from luthier.core.types.examples import Message
from luthier.rewards.answer import Answer
from luthier.rewards.function import Function
from luthier.rewards.specs import parse
from sentences import sentence

SETTINGS = RewardConfig(timeout=30.0, memory=512)
ASKED = (Message("system", "be brief"), Message("user", "how many?"))
ANSWERS = [Answer(f"how many {i}?", text, "4", 1, True, ASKED) for i, text in enumerate(("a", "", "ccc", "dddd"))]


@pytest.fixture
def reward(tmp_path):
    """A function with this body (given `answers`), or a whole file; settings by name."""
    with contextlib.ExitStack() as stack:

        def make(code, settings=SETTINGS):
            path = tmp_path / "rewards.py"
            path.write_text(code if "def " in code else f"def score(answers):\n    {code}\n")
            return stack.enter_context(Function("python:rewards.py:score", f"{path}:score", settings))

        yield make


def fails(function, answers=ANSWERS):
    with pytest.raises(RunError) as caught:
        function(answers)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("reward 'python:rewards.py:score': ")
    assert message.endswith("then run the same command again: nothing else is lost")
    return message


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


def gone(pid):
    """Whether it is gone within five seconds: a killed process takes a moment."""
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


# --- What works -------------------------------------------------------------------------------------


def test_it_gets_the_columns_that_it_asks_for(reward):
    code = """def score(messages, references, prompts):
    assert messages[0] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "how many?"}]
    return [float(r) + len(p) for r, p in zip(references, prompts)]
"""
    assert reward(code)(ANSWERS) == [4 + len("how many 0?")] * 4
    everything = "def score(**columns): return [len(columns)] * len(columns['answers'])"
    assert reward(everything)(ANSWERS) == [4] * 4
    own = "def score(answers, bonus=0.5): return [bonus] * len(answers)"
    assert reward(own)(ANSWERS) == [0.5] * 4


def test_one_process_serves_every_batch(reward):
    function = reward(
        "import os\nseen = []\ndef score(answers):\n    seen.append(1)\n    return [len(seen), os.getpid()]"
    )
    first, second = function(ANSWERS[:2]), function(ANSWERS[:2])
    assert [first[0], second[0]] == [1, 2]
    assert first[1] == second[1] != os.getpid()


def test_arrays_and_booleans_are_numbers(reward):
    assert reward("import numpy\ndef score(answers): return numpy.arange(4) > 1")(ANSWERS) == [0, 0, 1, 1]


def test_what_it_prints_and_reads_disturbs_nothing(reward, capfd):
    code = """import os, sys, subprocess
def score(answers):
    print('{"values": [9, 9, 9, 9]}')
    os.write(1, b"raw\\n")
    subprocess.run(["echo", "from a process"])
    return [1] * len(answers)
"""
    assert reward(code)(ANSWERS) == [1] * 4
    out, err = capfd.readouterr()
    assert out == ""
    assert all(line in err for line in ('{"values": [9, 9, 9, 9]}', "raw", "from a process"))


def test_its_standard_input_is_empty(reward):
    ours, theirs = os.pipe()
    os.write(theirs, b"what the user types")
    os.close(theirs)
    before = os.dup(0)
    os.dup2(ours, 0)
    try:
        function = reward("import sys\ndef score(answers): return [len(sys.stdin.read())]")
        assert function(ANSWERS[:1]) == [0]
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(ours)


def test_its_file_imports_its_neighbours(reward, tmp_path):
    (tmp_path / "neighbour_of_rewards.py").write_text("POINTS = 3\n")
    code = "from neighbour_of_rewards import POINTS\ndef score(answers): return [POINTS] * len(answers)"
    assert reward(code)(ANSWERS) == [3] * 4


def test_text_of_any_kind_goes_there_and_back(reward):
    texts = ["\u2028\x00\n", "é🙂", '"\\', "x" * 200_000]
    function = reward("return [len(a) for a in answers]")
    assert function([Answer("p", text, None, 1, True, ()) for text in texts]) == [3, 2, 2, 200_000]


# --- What goes wrong --------------------------------------------------------------------------------


def test_an_exception_names_the_line_and_the_prompt_at_fault(reward):
    message = fails(reward("return [1 / len(a) for a in answers]"))
    assert "ZeroDivisionError: division by zero (" in message
    assert "rewards.py:2), given an answer to 'how many 1?'; fix the function" in message


def test_an_exception_that_no_answer_raises_alone_blames_none(reward):
    message = fails(reward("assert len(answers) < 3, 'too\\nmany'\n    return [0] * len(answers)"))
    assert "AssertionError: too many" in message
    assert "given 4 answers, the first to 'how many 0?'" in message


def test_sys_exit_is_an_exception(reward):
    function = reward(
        "import sys\ndef score(answers):\n    if 'ccc' in answers: sys.exit(3)\n    return [0] * len(answers)"
    )
    assert "it called sys.exit(3)" in (message := fails(function))
    assert "an answer to 'how many 2?'" in message
    assert function(ANSWERS[:2]) == [0, 0]  # the process is still there


def test_too_much_memory(reward):
    message = fails(reward("x = bytearray(2 << 30)\n    return [0] * len(answers)"), ANSWERS[:1])
    assert "MemoryError" in message
    assert "raise --reward.memory above 512 MiB" in message


@pytest.mark.parametrize(
    "code",
    ["import time; time.sleep(60)", "import re; re.match('(a|a|aa)+$', 'a' * 60 + '!')"],
    ids=["sleeping", "holding the interpreter"],
)
def test_a_function_that_hangs_is_ended(reward, code):
    function = reward(code, RewardConfig(timeout=0.3))
    began = time.monotonic()
    assert "it took longer than 0.3 s, given 4 answers" in (message := fails(function))
    assert "raise --reward.timeout or make it quicker" in message
    assert time.monotonic() - began < 5
    assert not alive(function.child.pid)


def test_what_it_started_ends_with_it(reward, tmp_path):
    mark = tmp_path / "pid"
    code = f"""import subprocess, time
open({str(mark)!r}, "w").write(str(subprocess.Popen(["sleep", "60"]).pid))
def score(answers): time.sleep(60)
"""
    fails(reward(code, RewardConfig(timeout=0.3)))
    assert gone(int(mark.read_text()))


def test_what_it_left_running_hides_no_death(reward, tmp_path):
    mark = tmp_path / "pid"
    code = f"""import os
def score(answers):
    open({str(mark)!r}, "w").write(str(os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")))
    os._exit(4)
"""
    began = time.monotonic()
    assert "its process ended with status 4" in fails(reward(code))
    assert time.monotonic() - began < 20
    assert gone(int(mark.read_text()))


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import os; os._exit(4)", "its process ended with status 4"),
        ("import os; os.kill(os.getpid(), 9)", "its process was ended by SIGKILL"),
        ("import os; os.abort()", "its process was ended by SIGABRT"),
    ],
)
def test_a_process_that_dies(reward, code, what):
    assert what in fails(reward(code))


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("pass", "it returned NoneType, not a list of numbers"),
        ("return 1.0", "it returned float, not a list of numbers"),
        ("return {'a': 1}", "it returned dict, not a list of numbers"),
        ("return '1111'", "it returned str, not a list of numbers"),
        ("return ['1'] * 4", "it returned str where a number should stand"),
        ("return [None] * 4", "it returned NoneType where a number should stand"),
        ("return [[1]] * 4", "TypeError: float() argument must be"),
    ],
)
def test_what_is_no_list_of_numbers(reward, code, what):
    assert what in fails(reward(code))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "return [1.0, float('nan'), 1.0, 1.0]",
            sentence(
                "function gave",
                value="nan",
                opening="how many 1?",
                fix="fix it and run the same command again; nothing else is lost",
            ),
        ),
        ("return [float('inf')] * 4", sentence("function gave", value="inf", opening="how many 0?")),
        ("return [1.0]", sentence("function gave too few", numbers=1, answers=4, opening="how many 0?")),
    ],
)
def test_numbers_that_cannot_be_used(tmp_path, code, message):
    path = tmp_path / "r.py"
    path.write_text(f"def score(answers):\n    {code}\n")
    with parse([f"python:{path}:score"], SETTINGS, None) as rewards, pytest.raises(RunError, match=message):
        rewards.score(ANSWERS)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("def other(answers): pass", "did not load: no function 'score'; there are: other; fix the file"),
        ("score = 3  # no def here", "did not load: no function 'score' in the file; fix the file"),
        ("def score(completions): pass", "'score' asks for 'completions', and is given prompts, answers, references"),
        ("def score(answers, /): pass", "'score' asks for 'answers', and is given"),
        ("def score(answers)\n", "SyntaxError: expected ':' (rewards.py, line 1) ("),
        ("import nothing_of_this_name\ndef score(): pass", "ModuleNotFoundError: No module named"),
        ("import sys; sys.exit()\ndef score(): pass", "it called sys.exit() ("),
        ("import os; os._exit(2)\ndef score(): pass", "did not load: its process ended with status 2"),
    ],
)
def test_files_that_do_not_load(reward, code, what):
    with pytest.raises(InputError) as caught:
        reward(code)
    assert what in str(caught.value)


# --- The end ----------------------------------------------------------------------------------------


def test_closing_ends_the_process(reward):
    function = reward("return [0] * len(answers)")
    assert alive(function.child.pid)
    function.close()
    assert not alive(function.child.pid)
    assert function.child.process.returncode == 0


def test_ctrl_c_does_not_reach_it(reward):
    assert os.getpgid(reward("pass").child.pid) != os.getpgid(0)


def test_a_process_whose_luthier_is_gone_ends_itself(tmp_path):
    """Nobody is left to end it, and the function holds the interpreter: the watch in C does it."""
    path = tmp_path / "r.py"
    path.write_text("import re\ndef score(answers): re.match('(a|a|aa)+$', 'a' * 60 + '!')\n")
    ours, theirs = socket.socketpair()
    program = (
        "import sys, luthier.core.foreign.service as s, luthier.rewards.function_process as c; s.GRACE = 0.2;"
        "c.main(int(sys.argv[1]), 512, sys.argv[2], 'score', 0.1)"
    )
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(theirs.fileno()), str(path)], pass_fds=(theirs.fileno(),), stderr=subprocess.DEVNULL
        )  # fmt: skip
        assert ours.recv(100) == b'{"ready": true}\n'
        ours.sendall(b'{"answers": ["a"]}\n')
    assert process.wait(10) == 1
