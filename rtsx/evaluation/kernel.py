"""The kernel: one block of a prediction against the same block of the truth, arrays in and counts out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import EvaluationError
from rtsx.evaluation.cases import UNCOUNTED
from rtsx.evaluation.counts import ClassCounts
from rtsx.evaluation.pieces import ObjectPieces, pieces_of
from rtsx.footprints.plan import Block
from rtsx.labels import IGNORED
from rtsx.scores import PixelTally, boundary_band

__all__ = ["BlockCounts", "judge_block"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockCounts:
    """What remains of a block, or of several, when its pixels are forgotten."""

    counts: tuple[ClassCounts, ...]
    """One for each class, without objects."""
    pieces: tuple[tuple[ObjectPieces, ...], ...]
    """For each class the objects, block by block."""

    def __add__(self, other: "BlockCounts") -> "BlockCounts":
        return BlockCounts(
            counts=tuple(one + more for one, more in zip(self.counts, other.counts, strict=True)),
            pieces=tuple(one + more for one, more in zip(self.pieces, other.pieces, strict=True)),
        )


def judge_block(
    decided: NDArray[np.uint8],
    probability: NDArray[Any] | None,
    truth: NDArray[np.uint8],
    *,
    block: Block,
    numbers: tuple[int, ...],
    levels: int,
    boundary: int,
) -> BlockCounts:
    """Count one block.

    Parameters
    ----------
    decided
        (class, y, x) of the block with a halo of `boundary` pixels, cut to the raster: 1 found, 0 not, `UNCOUNTED`.
    probability
        (class, y, x) of the block alone, uint8 in `levels` steps or float 0-1; None for none.
    truth
        (y, x) of the block with the same halo, coded as by `Truth`.
    block
        Where it lies.
    numbers
        Value of each class in the truth.
    levels
        Steps between probability 0 and 1.
    boundary
        Width of the bands, px.
    """
    (tall, wide), (y, x) = block.halo(boundary), block.window
    core = (slice(y.start - tall.start, y.stop - tall.start), slice(x.start - wide.start, x.stop - wide.start))
    counts, pieces = [], []
    for place, number in enumerate(numbers):
        counted = (decided[place] != UNCOUNTED) & (truth != IGNORED)
        found, true = counted & (decided[place] == 1), counted & (truth == number)
        bands = [boundary_band(mask, counted, distance=boundary)[core] for mask in (found, true)]
        inner_counted, inner_found, inner_true = counted[core], found[core], true[core]
        n_hits, n_found, n_true = (
            int(np.count_nonzero(mask)) for mask in (inner_found & inner_true, inner_found, inner_true)
        )
        rest = int(np.count_nonzero(inner_counted)) - n_found - n_true + n_hits
        tally = None
        if probability is not None:
            values = probability[place][inner_counted]
            _check_range(values, levels=levels, block=block)
            tally = PixelTally.of(values, inner_true[inner_counted], levels=levels)
        counts.append(
            ClassCounts(
                extent=np.array([n_hits, n_found - n_hits, n_true - n_hits, rest], np.float64),
                boundary=np.array([np.count_nonzero(bands[0] & bands[1]), np.count_nonzero(bands[0] | bands[1])]),
                objects=np.zeros(3, np.int64),
                tally=tally,
            )
        )
        pieces.append((pieces_of(inner_found, inner_true, block=block),))
    return BlockCounts(counts=tuple(counts), pieces=tuple(pieces))


def _check_range(values: NDArray[Any], *, levels: int, block: Block) -> None:
    greatest = 1.0 if values.dtype.kind == "f" else levels
    if values.size and not 0 <= values.min() <= values.max() <= greatest:
        raise EvaluationError(
            f"probability runs from 0 to {greatest:g}, but a pixel in rows {block.y[0]}-{block.y[1] - 1}, columns "
            f"{block.x[0]}-{block.x[1] - 1} has {values.max()} or {values.min()}: mark such pixels in `valid`, or correct the "
            "scale_factor of `probability`"
        )
