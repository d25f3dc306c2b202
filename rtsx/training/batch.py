"""What a training step works on: stored pixels, which of them count, and what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from rtsx.labels import IGNORED
from rtsx.model import InputLayer, Packing, prepare

__all__ = ["Batch"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Tiles before any scaling: augmentation changes these, and the network's input is made by inference's own `prepare`.

    Values under an invalid pixel mean nothing, here as everywhere.
    """

    stored: torch.Tensor
    """Layers as stored, (tile, layer, y, x) float32."""
    layers: tuple[str, ...]
    """Names of the stored layers, in their order; those that the bundle's channels are made of."""
    packings: Mapping[str, Packing]
    """How each layer is stored; the same for all tiles."""
    valid: torch.Tensor
    """True (tile, y, x) where inference would trust a pixel."""
    truth: torch.Tensor
    """Coded as by `Truth`, (tile, y, x) uint8; `IGNORED` where a label is not to be learnt from."""

    def channels(self, inputs: Sequence[InputLayer], *, fill: float) -> torch.Tensor:
        """Network input (tile, layer, y, x) float32, by the function that inference uses."""
        stored = dict(zip(self.layers, self.stored.unbind(1), strict=True))
        prepared = prepare(stored, self.valid, inputs=inputs, packings=self.packings, fill=fill)
        return prepared.transpose(0, 1)

    def target(self) -> torch.Tensor:
        """Truth (tile, y, x) with every invalid pixel ignored too: what losses and scores go by."""
        return self.truth.masked_fill(~self.valid, IGNORED)

    def to(self, device: torch.device) -> Self:
        """Move everything to a device."""
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in ("stored", "valid", "truth")}
        return replace(self, **moved)
