"""Tiles in another light."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from rtsx.training.augment.augmentation import check_number
from rtsx.training.augment.chance import Chance
from rtsx.training.augment.radiometry import changed_layers, check_changed_layers, chosen_layers, layer_names_of
from rtsx.training.batch import Batch

__all__ = ["RandomBrightnessContrast"]


@dataclass(frozen=True, kw_only=True)
class RandomBrightnessContrast:
    """Reflectance brighter or darker, and spread or gathered about the tile's mean.

    With m the mean of a layer's valid pixels in the tile, ``v -> (m + (v - m) * (1 + contrast)) * (1 + brightness)``.
    One contrast and one brightness for all layers of a tile, so that brightness alone leaves ndvi as it is. No value
    that is above 0 falls below half of what it was, because reflectance is not negative and ndvi has to stay defined.
    """

    turns: ClassVar[bool] = False

    brightness: float = 0.2
    """Greatest part by which a tile gets brighter or darker, 0 to 0.9."""
    contrast: float = 0.2
    """Greatest part by which distances from the mean grow or shrink, 0 to 0.9."""
    layers: tuple[str, ...] | None = None
    """Which layers; None: those of reflectance."""

    def __post_init__(self) -> None:
        """Refuse what cannot be; a list, as YAML has it, becomes a tuple."""
        check_number("brightness of RandomBrightnessContrast", self.brightness, low=0, high=0.9)
        check_number("contrast of RandomBrightnessContrast", self.contrast, low=0, high=0.9)
        object.__setattr__(self, "layers", layer_names_of("RandomBrightnessContrast", self.layers))

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers that are not there, and angles."""
        check_changed_layers("RandomBrightnessContrast", layers, wanted=self.layers)

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """Every tile changed, each by its own numbers."""
        shape = (len(batch.valid), 1, 1, 1)
        contrast = 1 + chance.uniform(shape, low=-self.contrast, high=self.contrast).to(batch.stored)
        brightness = 1 + chance.uniform(shape, low=-self.brightness, high=self.brightness).to(batch.stored)

        def change(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            mean = values.sum((-2, -1), keepdim=True) / valid.sum((-2, -1), keepdim=True).clamp_min(1)
            changed = (mean + (values - mean) * contrast) * brightness
            return torch.where(values > 0, torch.maximum(changed, values / 2), changed)

        return changed_layers(batch, chosen_layers(batch.layers, self.layers), change)
