"""Part of a tile, enlarged to a whole one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rtsx.training.augment.augmentation import check_pair
from rtsx.training.augment.chance import Chance
from rtsx.training.augment.kornia import warped, zoom
from rtsx.training.batch import Batch

__all__ = ["RandomResizedCrop"]


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A square of the tile, at random, seen from closer.

    The picture gets a finer resolution than the ground has, while values stay physical: a slope is that of the real ground,
    relative elevation is against 100 m of it. Proportions are kept, because ground that is stretched in one direction has
    other slopes and aspects.
    """

    turns: ClassVar[bool] = False

    scale: tuple[float, float] = (0.5, 1.0)
    """Least and greatest part of the tile's area, above 0 to 1; all equally likely."""

    def __post_init__(self) -> None:
        """Refuse what is no part; a list, as YAML has it, becomes a pair."""
        object.__setattr__(self, "scale", check_pair("scale of RandomResizedCrop", self.scale, low=0.01, high=1))

    def check_layers(self, layers: Sequence[str]) -> None:
        """Every layer can be enlarged."""

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """Every tile cut and enlarged."""
        count, size = len(batch.valid), batch.valid.shape[-1]
        sides = chance.uniform((count,), low=self.scale[0], high=self.scale[1]).sqrt() * size
        corners = chance.uniform((count, 2), low=0, high=1) * (size - sides)[:, None]
        return warped(batch, zoom(sides, corners, size=size))
