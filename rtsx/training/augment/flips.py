"""Mirrored tiles."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rtsx.training.augment.aspect import check_directions, turned_aspect
from rtsx.training.augment.chance import Chance
from rtsx.training.batch import Batch

__all__ = ["HorizontalFlip", "VerticalFlip"]


def _flipped(batch: Batch, axis: int) -> Batch:
    return replace(batch, stored=batch.stored.flip(axis), valid=batch.valid.flip(axis), truth=batch.truth.flip(axis))


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip:
    """Left and right change places."""

    turns: ClassVar[bool] = True

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers with a fixed direction."""
        check_directions(type(self).__name__, layers)

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """Every tile mirrored."""
        return turned_aspect(_flipped(batch, -1), sign=-1, degrees=0.0)


@dataclass(frozen=True, kw_only=True)
class VerticalFlip:
    """Top and bottom change places."""

    turns: ClassVar[bool] = True

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers with a fixed direction."""
        check_directions(type(self).__name__, layers)

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """Every tile mirrored."""
        return turned_aspect(_flipped(batch, -2), sign=-1, degrees=180.0)
