"""The quickstart's data: real, deterministic, without leaks."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import pytest

from luthier.core.errors import InputError
from luthier.data import stdlib_pairs
from luthier.data.stdlib_pairs import INSTRUCTION, LONGEST_CODE, LONGEST_LINE, SHORTEST_LINE, pairs
from sentences import sentence


@pytest.fixture(scope="module")
def both():
    return pairs(limit=1000, test=96, seed=0)


def code_of(chat):
    return chat.messages[0].content.removeprefix(INSTRUCTION)


@pytest.mark.medium
def test_there_are_as_many_as_asked_for(both):
    train, test = both
    assert (len(train), len(test)) == (1000, 96)


@pytest.mark.medium
def test_modules_of_the_test_are_unseen(both):
    train, test = both
    assert not {chat.group for chat in train} & {chat.group for chat in test}
    assert len({chat.group for chat in test}) > 10


@pytest.mark.medium
def test_no_answer_stands_in_its_question(both):
    for chat in (*both[0], *both[1]):
        question, answer = (message.content for message in chat.messages)
        assert question.startswith(INSTRUCTION)
        assert "\n" not in answer
        assert SHORTEST_LINE <= len(answer) <= LONGEST_LINE
        assert answer not in question
        assert len(code_of(chat)) <= LONGEST_CODE <= 320


@pytest.mark.medium
def test_code_is_one_whole_function_without_docstring(both):
    for chat in (*both[0], *both[1]):
        (function,) = ast.parse(code_of(chat)).body
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(function) is None


@pytest.mark.medium
def test_nothing_stands_twice(both):
    texts = [chat.messages[0].content for chat in (*both[0], *both[1])]
    assert len(set(texts)) == len(texts)
    lines = [chat.messages[1].content.casefold() for chat in (*both[0], *both[1])]
    assert len(set(lines)) == len(lines)


@pytest.mark.medium
def test_origins_point_at_the_function(both):
    for chat in both[1][:20]:
        line = Path(chat.origin.file).read_text(encoding="utf-8").split("\n")[chat.origin.line - 1]
        assert line.strip() == code_of(chat).split("\n")[0].strip()


# A library of our own: 40 modules of five functions, fast to read.


def library(folder, modules=40):
    for m in range(modules):
        functions = [
            f'def task_{m}_{i}(x):\n    """Compute the result number {m} and {i}."""\n    return x + {m} * {i}\n'
            for i in range(5)
        ]
        (folder / f"module{m}.py").write_text("\n".join(functions), encoding="utf-8")
    return folder


def fresh(*arguments, **named):
    """Without the cache, which would make any two calls equal."""
    return pairs.__wrapped__(*arguments, **named)


def lines_of(chats):
    return [chat.messages[1].content for chat in chats]


def test_the_same_seed_gives_the_same_pairs_in_the_same_order(tmp_path):
    root = library(tmp_path)
    assert fresh(50, 20, seed=4, root=root) == fresh(50, 20, seed=4, root=root)


def test_another_seed_draws_others_from_the_same_modules(tmp_path):
    root = library(tmp_path)
    (train, test), (other_train, other_test) = fresh(50, 20, seed=0, root=root), fresh(50, 20, seed=1, root=root)
    assert lines_of(train) != lines_of(other_train)
    assert lines_of(test) != lines_of(other_test)
    everything, everything_else = fresh(9999, 9999, seed=0, root=root), fresh(9999, 9999, seed=1, root=root)
    for side, other in zip(everything, everything_else, strict=True):
        assert sorted(lines_of(side)) == sorted(lines_of(other))
    assert sum(map(len, everything)) == 200


def test_limits_cut_and_never_stretch(tmp_path):
    root = library(tmp_path)
    train, test = fresh(7, 3, root=root)
    assert (len(train), len(test)) == (7, 3)
    assert lines_of(fresh(9999, 3, root=root)[0])[:7] == lines_of(train)


def test_the_test_takes_from_its_modules_in_turn(tmp_path):
    _, test = fresh(100, 9999, root=library(tmp_path))
    modules = len({chat.group for chat in test})
    assert modules >= 2
    for start in range(0, len(test), modules):
        assert len({chat.group for chat in test[start : start + modules]}) == modules


ODD = '''
class Thing:
    @property
    def kept(
        self,
    ) -> int:
        """Return the number that is kept.

        More words that nobody asks for.
        """
# a comment in the first column
        return 1

    def on_one_line(self): """Stand on one line with the code."""; return 2

    def of_no_body(self):
        """Have a docstring and nothing else."""

    def a_title(self):
        """This one has no full stop at its end"""
        return 3

    def again(
        self,
    ) -> int:
        """RETURN the number that is kept."""
        return 4


async def wait():
    r"""Wait for nothing and come back."""

    return None


def long():
    """Be longer than the code may be at most."""
    return "LONG"
'''.replace("LONG", "x" * LONGEST_CODE)


def test_odd_functions_are_cut_right_or_left_out(tmp_path):
    (tmp_path / "odd.py").write_text(ODD, encoding="utf-8")
    (tmp_path / "broken.py").write_text("def f(:\n", encoding="utf-8")
    (tmp_path / "test_skipped.py").write_text(ODD, encoding="utf-8")
    (tmp_path / "idlelib").mkdir()
    (tmp_path / "idlelib" / "skipped.py").write_text(ODD, encoding="utf-8")
    train, test = fresh(9999, 9999, root=library(tmp_path))
    found = {chat.messages[1].content: code_of(chat) for chat in (*train, *test) if chat.group == "odd"}
    assert found == {
        "Return the number that is kept.": (
            "def kept(\n    self,\n) -> int:\n# a comment in the first column\n    return 1"
        ),
        "Wait for nothing and come back.": "async def wait():\n    return None",
    }
    assert {chat.group for chat in (*train, *test)} == {"odd", *(f"module{m}" for m in range(40))}


DEEP = """
try:
    match 1:
        case 1:
            def outer():
                def inner():
                    # a comment stands first

                    'Find a docstring in single quotes.'
                    return 1
                return inner
finally:
    pass
"""


def test_functions_are_found_however_deep_they_stand(tmp_path):
    (tmp_path / "deep.py").write_text(DEEP, encoding="utf-8")
    train, test = fresh(9999, 9999, root=library(tmp_path))
    found = [chat for chat in (*train, *test) if chat.group == "deep"]
    assert [chat.messages[1].content for chat in found] == ["Find a docstring in single quotes."]


def test_a_look_at_the_text_leaves_out_no_file_that_parsing_would_use():
    """Every file of this interpreter's library that `DOCUMENTED` passes over has no function of use in it."""
    root = Path(sysconfig.get_paths()["stdlib"])
    unread = [
        path for path in sorted(root.glob("*.py"))[:120] if not stdlib_pairs.DOCUMENTED.search(path.read_text("utf-8"))
    ]
    assert len(unread) > 5
    for path in unread:
        found = ast.walk(ast.parse(path.read_text("utf-8")))
        assert not any(
            isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and stdlib_pairs.summary_of(n) for n in found
        )


def test_a_library_without_sources_is_told_with_the_way_out(tmp_path):
    with pytest.raises(InputError, match=sentence("too few functions in library", count=0)):
        fresh(root=tmp_path)
    assert stdlib_pairs.FEWEST_FUNCTIONS > 10
    with pytest.raises(InputError, match=sentence("too few functions in library", count=10)):
        fresh(root=library(tmp_path, modules=2))
