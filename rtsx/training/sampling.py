"""Which tiles a network gets to see."""

from dataclasses import dataclass
from typing import Literal

from rtsx.errors import TrainingError

__all__ = ["SamplingSpec"]


@dataclass(frozen=True, kw_only=True)
class SamplingSpec:
    """How tiles are drawn from scenes; a draw is a pure function of seed, epoch and place in the epoch."""

    negatives: float = 1.0
    """Tiles without a labelled pixel per tile with one, at the start of the training, at least 0."""
    final_negatives: float | None = None
    """The same at the end, reached in equal steps of its logarithm over the epochs; None: it stays as it is."""
    drawn_by: Literal["tile", "pixel"] = "tile"
    """``tile``: each tile with a label as often as any other; ``pixel``: as often as it has labelled pixels, so that large objects
    are shown as much as they weigh in an IoU."""
    jitter: bool = True
    """Shift each tile at random by up to half a tile, so that no two epochs show the same cuts."""
    min_valid: float = 0.05
    """Least part of a tile's pixels that have to be valid, above 0 to 1; a tile with less is never drawn."""
    blocks_at_once: int | None = None
    """Blocks of 8 by 8 tiles whose tiles are shown, mixed, before those of others, at least 1; None: all ground is mixed. For
    scenes that are computed lazily and do not fit the cache: fewer blocks are read less often, but batches see less at a time."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        ratios = (self.negatives, self.negatives if self.final_negatives is None else self.final_negatives)
        if min(ratios) < 0 or (self.final_negatives is not None and min(ratios) <= 0):
            raise TrainingError(
                f"Sampling needs at least 0 negatives per positive, and more than 0 where the ratio changes; got {ratios}."
            )
        if self.drawn_by not in ("tile", "pixel"):
            raise TrainingError(f"Tiles are drawn_by 'tile' or 'pixel'; got {self.drawn_by!r}.")
        if not 0 < self.min_valid <= 1:
            raise TrainingError(f"min_valid is the part of a tile that is valid, above 0 to 1; got {self.min_valid}.")
        if self.blocks_at_once is not None and self.blocks_at_once < 1:
            raise TrainingError(
                f"blocks_at_once is at least 1; got {self.blocks_at_once}. Leave it out to mix tiles over all ground."
            )
