"""Turned tiles."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from rtsx.training.augment.aspect import check_directions, turned_aspect
from rtsx.training.augment.augmentation import check_number
from rtsx.training.augment.chance import Chance
from rtsx.training.augment.kornia import rotation, warped
from rtsx.training.batch import Batch

__all__ = ["RandomRotate90", "Rotate"]


@dataclass(frozen=True, kw_only=True)
class RandomRotate90:
    """A quarter, half or three quarters of a turn, equally often; pixels stay as they are.

    Never none, so that `probability` is what it says: at 0.75 all four positions are equally likely.
    """

    turns: ClassVar[bool] = True

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers with a fixed direction."""
        check_directions(type(self).__name__, layers)

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """Every tile turned, counter-clockwise."""
        quarters = chance.integers(len(batch.valid), low=1, high=3)
        stored, valid, truth = (
            torch.stack([torch.rot90(tile, int(k), dims=(-2, -1)) for tile, k in zip(whole, quarters, strict=True)])
            for whole in (batch.stored, batch.valid, batch.truth)
        )
        turned = replace(batch, stored=stored, valid=valid, truth=truth)
        return turned_aspect(turned, sign=1, degrees=-90.0 * quarters)


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """Turned about the middle by any angle; the corners that come in are invalid and ignored."""

    turns: ClassVar[bool] = True

    limit: float = 90.0
    """Greatest angle, degrees, above 0 to 180; either way, all equally likely."""

    def __post_init__(self) -> None:
        """Refuse what is no angle."""
        check_number("limit of Rotate, in degrees,", self.limit, low=1e-3, high=180)

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers with a fixed direction."""
        check_directions(type(self).__name__, layers)

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """Every tile turned, counter-clockwise for angles above 0."""
        degrees = chance.uniform((len(batch.valid),), low=-self.limit, high=self.limit)
        turned = warped(batch, rotation(degrees, size=batch.valid.shape[-1]))
        return turned_aspect(turned, sign=1, degrees=-degrees)
