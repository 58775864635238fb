"""Several sets of adapters and heads on one frozen base, of which one plays at a time: actor, critic, reference, reward model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from luthier.model.adapt import heads, vocabulary_weights
from luthier.model.adapt.lora import adapters, base_of, set_layer
from luthier.model.adapt.lora_layer import Adapter
from luthier.model.adapt.vocabulary_weights import Vocabulary


@dataclass(frozen=True)
class Role:
    """Another set of adapters and heads for the same frozen base, such as the reference, the critic, the reward model.

    Parameters are named as on a model: `<layer>.A`, `<layer>.B`, `<layer>.magnitude`, and `score.weight`.
    """

    layers: dict[str, Adapter]
    whole: dict[str, nn.Linear]
    vocabulary: Vocabulary | None = None

    @property
    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """Everything that can learn, by name."""
        out: dict[str, nn.Parameter] = {}
        for name, layer in self.layers.items():
            out |= {f"{name}.A": layer.A, f"{name}.B": layer.B}
            if layer.magnitude is not None:
                out[f"{name}.magnitude"] = layer.magnitude
        for name, head in self.whole.items():
            out[f"{name}.weight"] = head.weight  # type: ignore[assignment]
        learned = [part for part in self.vocabulary.parts() if part.requires_grad] if self.vocabulary else []
        return out | {f"vocabulary.{place}": part for place, part in enumerate(learned)}


def role(model: nn.Module, *, learn: bool = False) -> Role:
    """A copy of the adapters and heads that `model` has on it now, sharing its base."""
    layers = {}
    for name, adapter in adapters(model):
        layers[name] = copy.copy(adapter)
        layers[name].cast = None
        layers[name]._parameters = {
            key: None if p is None else nn.Parameter(p.detach().clone(), requires_grad=learn)
            for key, p in adapter._parameters.items()
        }
    whole = {name: copy.deepcopy(head).requires_grad_(learn) for name, head in heads.on(model).items()}
    own = vocabulary_weights.own(model)
    return Role(layers, whole, own and vocabulary_weights.copy_of(own, learn))


@contextmanager
def playing(model: nn.Module, role_: Role) -> Iterator[None]:
    """`model` with the adapters and heads of `role_` in place of its own, for the block."""
    own = dict(adapters(model))
    before = {name: own[name] if name in own else base_of(model, name) for name in own.keys() | role_.layers.keys()}
    whole = heads.on(model)
    try:
        for name in before:
            set_layer(model, name, role_.layers[name] if name in role_.layers else own[name].base)
        model.train(model.training)  # dropout acts on a part when it acts on the model, whatever it last played in
        for name in heads.NAMES:
            setattr(model, name, role_.whole.get(name))
        with vocabulary_weights.with_vocabulary(model, role_.vocabulary):
            yield
    finally:
        for name, module in before.items():
            set_layer(model, name, module)
        for name in heads.NAMES:
            setattr(model, name, whole.get(name))
