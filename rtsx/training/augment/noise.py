"""Tiles multiplied by random gains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rtsx.training.augment.augmentation import check_flag, check_pair
from rtsx.training.augment.chance import Chance
from rtsx.training.augment.radiometry import changed_layers, check_changed_layers, chosen_layers, layer_names_of
from rtsx.training.batch import Batch

__all__ = ["MultiplicativeNoise"]


@dataclass(frozen=True, kw_only=True)
class MultiplicativeNoise:
    """Reflectance times a gain: one for the tile, which leaves ndvi as it is, or one per layer, per pixel, or both."""

    turns: ClassVar[bool] = False

    multiplier: tuple[float, float] = (0.9, 1.1)
    """Least and greatest gain, above 0; all equally likely."""
    per_layer: bool = False
    """True: each layer has its own."""
    per_pixel: bool = False
    """True: each pixel has its own."""
    layers: tuple[str, ...] | None = None
    """Which layers; None: those of reflectance."""

    def __post_init__(self) -> None:
        """Refuse what cannot be; lists, as YAML has them, become tuples."""
        multiplier = check_pair("multiplier of MultiplicativeNoise", self.multiplier, low=0.01, high=100)
        object.__setattr__(self, "multiplier", multiplier)
        check_flag("per_layer of MultiplicativeNoise", self.per_layer)
        check_flag("per_pixel of MultiplicativeNoise", self.per_pixel)
        object.__setattr__(self, "layers", layer_names_of("MultiplicativeNoise", self.layers))

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers that are not there, and angles."""
        check_changed_layers("MultiplicativeNoise", layers, wanted=self.layers)

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """Every tile changed, each by its own numbers."""
        names = chosen_layers(batch.layers, self.layers)
        height, width = batch.valid.shape[1:] if self.per_pixel else (1, 1)
        shape = (len(batch.valid), len(names) if self.per_layer else 1, height, width)
        low, high = self.multiplier
        gains = chance.uniform(shape, low=low, high=high).to(batch.stored)
        return changed_layers(batch, names, lambda values, _: values * gains)
