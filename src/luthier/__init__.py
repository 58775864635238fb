"""Luthier: tune language models on your own data, and measure what changed.

`luthier.api` says what a program does with it; its functions are here too, loaded when they are asked for, so that
`import luthier` takes no time. `luthier.kernel` has the parts for a training loop of one's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.api import Model, TrainingRun, compare, evaluate, load, open, read, train
    from luthier.core.errors import InputError, LuthierError

__version__ = "0.1.0"
__all__ = ["InputError", "LuthierError", "Model", "TrainingRun", "compare", "evaluate", "load", "open", "read", "train"]


def __getattr__(name: str) -> Any:
    if name in ("api", "kernel"):
        return import_module(f"luthier.{name}")
    if name in __all__:
        home = "luthier.core.errors" if name.endswith("Error") else "luthier.api"
        return getattr(import_module(home), name)
    raise AttributeError(f"module 'luthier' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "api", "kernel", "__version__"]
