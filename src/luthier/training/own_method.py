"""A method of the user's own: `python:FILE:NAME`, where NAME is a loss, a row like those of METHODS, or a function that gives one.

It is the user's code and runs in this process, since a loss needs tensors and gradients: only where a command or a call names it
(`luthier train`, `luthier verify`). What reads a finished run runs none of it.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from luthier.core.errors import FunctionError, InputError, LuthierError, unknown
from luthier.core.storage.files import sha256
from luthier.core.types.batch import Batch, Loss, Needs, Output
from luthier.core.types.examples import Chat, Example
from luthier.rewards.function_process import describe
from luthier.rewards.imports import sources
from luthier.training.method_table import OWN, Method, declare, keeps_row_numbers

SECTIONS = ("", "preference", "ranking", "policy")  # whose settings a loss may be given
CHOICES = {"steps": ("rows", "samples"), "scope": ("batch", "step"), "schedule": ("constant", "cosine")}
FIX = "fix it, then run the same command again: nothing else is lost"


def load(name: str) -> None:
    """Run the file that `name` means, so that `method_table.method` knows the method from now on; nothing for a built-in one.

    Raises InputError for a name, a file or a row that is not right.
    """
    if not name.startswith(OWN):
        return
    where, file = _where(name), file_of(name)
    wanted = name.rpartition(":")[2]
    module = _module(file, where)
    found = getattr(module, wanted, None)
    if found is None:
        own = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        there = [n for n in own if _is_loss(getattr(module, n))]
        there += [n for n, value in vars(module).items() if isinstance(value, Method)]
        if there:
            raise unknown("method", wanted, there, where=where)
        raise InputError(f"no '{wanted}' in the file", where=where, fix="define a loss of (batch, output), or a Method")
    row = _row(found, file, where)
    _check(row, where)
    tree, arrange = (function and _reporting(function, file, where) for function in (row.tree, row.arrange))
    declare(name, replace(row, loss=_guarded(row.loss, file, where), tree=tree, arrange=arrange))


def file_of(name: str) -> Path:
    """The file of a method of the user's. Raises InputError where there is none."""
    file, _, wanted = name.removeprefix(OWN).rpartition(":")
    if not file or not wanted.isidentifier():
        raise InputError("'python' needs a file and a name in it", where=_where(name), fix="write python:FILE.py:NAME")
    if not Path(file).is_file():
        raise InputError(f"no such file: {file}", where=_where(name), fix="check the path")
    return Path(file).resolve()


def digests(name: str) -> dict[str, dict[str, str]]:
    """{'method': {file: sha256}} of its file and what that imports from beside it, for lineage; nothing for a built-in method."""
    if not name.startswith(OWN):
        return {}
    file_of(name)
    return {"method": {str(path): sha256(path) for path in sources(Path(name.removeprefix(OWN).rpartition(":")[0]))}}


def _where(name: str) -> str:
    return f"method '{name}'"


def _module(file: Path, where: str) -> ModuleType:
    """The file, run anew; what lies beside it can be imported."""
    if (folder := str(file.parent)) not in sys.path:
        sys.path.append(folder)  # at the end: it hides nothing that is installed
    spec = importlib.util.spec_from_file_location(f"method_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError("this is not a Python file", where=where, fix="give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"did not load: {_said(error, file)}", where=where, fix="fix the file") from error
    return module


def _row(found: Any, file: Path, where: str) -> Method:
    """The method that was found: a row, a function that gives one, or a loss on conversations."""
    if isinstance(found, Method):
        return found
    if not callable(found):
        raise InputError(f"it is {type(found).__name__}", where=where, fix="give a loss, or a Method")
    if _is_loss(found):
        summary = (inspect.getdoc(found) or "a loss of one's own").splitlines()[0]
        return Method((Chat,), found, summary)
    try:
        given = found()
    except Exception as error:
        raise InputError(f"did not load: {_said(error, file)}", where=where, fix="fix the file") from error
    if not isinstance(given, Method):
        raise InputError(
            f"it gives {type(given).__name__}, not a Method", where=where,
            fix="let a loss take (batch, output), and a function without parameters give a Method",
        )  # fmt: skip
    return given


def _is_loss(value: Any) -> bool:
    """Whether it is a function of a batch and an output."""
    if not inspect.isfunction(value):
        return False
    needed = [p for p in inspect.signature(value).parameters.values() if p.default is p.empty]
    return len(needed) == 2 and all(p.kind is p.POSITIONAL_OR_KEYWORD for p in needed)


def _check(row: Method, where: str) -> None:
    """Raise InputError for a row whose fields are not what they should be."""
    kinds = row.example
    if (
        not isinstance(kinds, tuple)
        or not kinds
        or not all(isinstance(k, type) and issubclass(k, Example) for k in kinds)
    ):
        raise InputError("its `example` is not a tuple of kinds of examples", where=where, fix="write such as (Chat,)")
    if not isinstance(row.needs, Needs):
        raise InputError("its `needs` is not a Needs", where=where, fix="write such as Needs(entropy=True)")
    if not callable(row.loss):
        raise InputError("its `loss` is not a function", where=where, fix="give a function of a batch and an output")
    if not isinstance(row.reads, tuple):
        raise InputError("its `reads` is not a tuple", where=where, fix='write such as ("train.weigh",)')
    for name, allowed in CHOICES.items():
        if getattr(row, name) not in allowed:
            raise InputError(f"its `{name}` is {getattr(row, name)!r}", where=where, fix=f"give {' or '.join(allowed)}")
    if not keeps_row_numbers(row):
        raise InputError(
            "its `prepare` may change the rows, and commands that read its runs do not run its code", where=where,
            fix="write the rows to a file as they should be, or take the `prepare` and the `reads` of dpo or grpo",
        )  # fmt: skip
    if row.needs.value and not row.online:
        raise InputError(
            "a value of each token is the critic's, of methods that learn from samples", where=where,
            fix="use Needs(score=1)",
        )  # fmt: skip
    if row.section not in SECTIONS:
        raise InputError(
            f"its `section` is {row.section!r}", where=where, fix=f"give one of {', '.join(SECTIONS[1:])}, or none"
        )


def _guarded(loss: Callable[..., Loss], file: Path, where: str) -> Callable[..., Loss]:
    """The loss; an error of it, or what is no Loss, says where in the user's file it comes from."""
    asked = _reporting(loss, file, where)

    def guarded(batch: Batch, output: Output, **settings: Any) -> Loss:
        found: Loss = asked(batch, output, **settings)
        if wrong := _fault(found, batch):
            raise FunctionError(wrong, kind="method", where=where, fix=FIX)
        return found

    return guarded


def _reporting(function: Callable[..., Any], file: Path, where: str) -> Callable[..., Any]:
    """A function of the user's, whose errors say where in his file they come from."""

    def asked(*given: Any, **settings: Any) -> Any:
        try:
            return function(*given, **settings)
        except LuthierError:
            raise
        except Exception as error:
            raise FunctionError(_said(error, file), kind="method", where=where, fix=FIX) from error

    return asked


def _fault(found: Any, batch: Batch) -> str | None:
    """What is wrong with what a loss returned, in words."""
    if not isinstance(found, Loss):
        return f"it returned {type(found).__name__}, not a Loss"
    if not isinstance(found.total, torch.Tensor) or found.total.dim():
        return "the `total` of its Loss is not one number"
    for name in ("each", "count"):
        value, trees = getattr(found, name), len(batch.rows)
        if not isinstance(value, torch.Tensor) or value.shape != (trees,):
            return f"the `{name}` of its Loss is not one number for each of the {trees} examples of the batch"
    if torch.is_grad_enabled() and not found.total.requires_grad:
        return "the `total` of its Loss has no gradient: it was detached"
    for name, value in found.metrics.items():
        if not isinstance(value, tuple) or len(value) != 2:
            return f"'{name}' in the `metrics` of its Loss is not (sum, weight)"
    return None


def _said(error: BaseException, file: Path) -> str:
    told = describe(error, str(file))
    return str(told["error"]) + (f" ({file.name}:{told['line']})" if told["line"] else "")
