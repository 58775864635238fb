"""What layers with a state keep between the passes of generation: as transformers' own layers ask a cache for it.

Shape legend: S sequences, one row of every tensor each.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

Key = tuple[str, int, int]  # convolution or recurrence, number of the layer, number of the state within it


class States:
    """The states of some sequences, [S, ...] each."""

    def __init__(self, kept: dict[Key, torch.Tensor] | None = None) -> None:
        self.kept = {} if kept is None else kept

    def of(self, layer: int, rows: slice = slice(None)) -> States:
        """Those of one layer and of some sequences, in tensors that share memory with these."""
        return States({key: state[rows] for key, state in self.kept.items() if key[1] == layer})

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.kept.get(("conv", layer_idx, state_idx))

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.kept.get(("recurrent", layer_idx, state_idx))

    def has_previous_state(self, layer_idx: int | None = None) -> bool:
        return any(layer_idx is None or key[1] == layer_idx for key in self.kept)

    def is_recording_past(self, layer_idx: int) -> bool:
        return False

    def update_conv_state(
        self,
        inputs: torch.Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **others: Any,
    ) -> torch.Tensor:
        """Keep the last inputs [S, channels, L] that the convolution looks at; returns what it looks at now."""
        before = self.get_conv_state(layer_idx, state_idx)
        assert conv_kernel_size is not None
        whole = (
            F.pad(inputs, (max(0, conv_kernel_size - inputs.shape[-1]), 0))
            if before is None
            else torch.cat([before, inputs], -1)
        )
        self.kept["conv", layer_idx, state_idx] = whole[..., -conv_kernel_size:].clone()
        return whole

    def update_recurrent_state(
        self, state: torch.Tensor, layer_idx: int, state_idx: int = 0, **others: Any
    ) -> torch.Tensor:
        """Keep the state after the last token."""
        self.kept["recurrent", layer_idx, state_idx] = state
        return state

    def put(self, found: States, rows: slice | int, most: int) -> None:
        """Write the states of other sequences into rows of these, which hold `most`."""
        for key, state in found.kept.items():
            if key not in self.kept:
                self.kept[key] = state.new_zeros(most, *state.shape[1:])
            self.kept[key][rows] = state[0] if isinstance(rows, int) else state

    def move(self, last: int, row: int) -> None:
        """Put the states of one row into another."""
        for state in self.kept.values():
            state[row] = state[last]
