"""Tiles out of focus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rtsx.training.augment.augmentation import check_pair
from rtsx.training.augment.chance import Chance
from rtsx.training.augment.kornia import blurred
from rtsx.training.augment.radiometry import changed_layers, check_changed_layers, chosen_layers, layer_names_of
from rtsx.training.batch import Batch

__all__ = ["Blur"]


@dataclass(frozen=True, kw_only=True)
class Blur:
    """A Gaussian over the valid pixels around each: haze, or optics out of focus. Nothing leaks out of invalid pixels."""

    turns: ClassVar[bool] = False

    sigma: tuple[float, float] = (0.5, 1.5)
    """Least and greatest standard deviation of the Gaussian, px, 0.1 to 20; all equally likely."""
    layers: tuple[str, ...] | None = None
    """Which layers; None: those of reflectance, because elevation does not get out of focus with them."""

    def __post_init__(self) -> None:
        """Refuse what cannot be; lists, as YAML has them, become tuples."""
        object.__setattr__(self, "sigma", check_pair("sigma of Blur", self.sigma, low=0.1, high=20))
        object.__setattr__(self, "layers", layer_names_of("Blur", self.layers))

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers that are not there, and angles."""
        check_changed_layers("Blur", layers, wanted=self.layers)

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """Every tile blurred, each by its own Gaussian."""
        low, high = self.sigma
        sigmas = chance.uniform((len(batch.valid),), low=low, high=high)
        return changed_layers(
            batch,
            chosen_layers(batch.layers, self.layers),
            lambda values, valid: blurred(values, valid[:, 0], sigmas=sigmas, widest=high),
        )
