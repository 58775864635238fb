"""Linear layers whose weight the module around them reads itself: what stands in their place would be missed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from functools import cache

from torch import nn

CALLED = ("out_proj",)  # the last layer of Mamba: `layers.state` has what stands in its place called
DIRECTLY = re.compile(
    r"\bself\.(\w+)\.weight\b(?!\[|\.shape)"
)  # slices are Bloom's, of a model that was trained in parts


def read_past(model: nn.Module, names: Iterable[str]) -> frozenset[str]:
    """Of the layers `names` those that take no adapter and are not quantized, such as routers that are read in a precision of
    their own."""
    parts = [(name, *name.rpartition(".")[::2]) for name in names]
    return frozenset(
        name
        for name, around, own in parts
        if own not in CALLED and own in _read_by(type(model.get_submodule(around)))  # type: ignore[arg-type]
    )


@cache
def _read_by(module: type) -> frozenset[str]:
    """NAME of every `self.NAME.weight` that the methods of a class read, but for the one that makes the module."""
    methods = (method for name, method in vars(module).items() if inspect.isfunction(method) and name != "__init__")
    return frozenset(found[1] for method in methods for found in DIRECTLY.finditer(inspect.getsource(method)))
