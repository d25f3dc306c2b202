"""How often each probability was given to pixels that are the target and to pixels that are not."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVELS_OF_FLOAT", "LEVELS_OF_UINT8", "PixelTally"]

Counts = NDArray[np.int64]

LEVELS_OF_UINT8 = 100
"""Steps between probability 0 and 1 of a stored prediction, which are counted exactly."""
LEVELS_OF_FLOAT = 10_000
"""Steps to which float probabilities are rounded before they are counted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelTally:
    """Counts of pixels by truth and probability: all that pixel scores need, however large the map was.

    Tallies of parts add up to the tally of the whole, so a map is counted chunk by chunk and never held.

    Examples
    --------
    >>> tally = PixelTally.of(np.array([0.9, 0.6, 0.2, 0.7]), np.array([True, True, True, False]), levels=10)
    >>> tally.n_target, tally.n_other
    (3, 1)
    >>> tally.above(0.5)
    (2, 1)
    """

    target: Counts
    """Pixels that are the target by level of probability, int64 (levels + 1,)."""
    other: Counts
    """Pixels that are not, likewise."""

    @classmethod
    def empty(cls, *, levels: int) -> Self:
        """No pixel yet."""
        return cls(target=np.zeros(levels + 1, np.int64), other=np.zeros(levels + 1, np.int64))

    @classmethod
    def of(cls, probability: NDArray[np.generic], is_target: NDArray[np.bool_], *, levels: int) -> Self:
        """Count pixels.

        Parameters
        ----------
        probability
            Of the pixels that count and no others, any shape: float 0-1, or unsigned integers from 0 to `levels`.
        is_target
            Truth of the same pixels.
        levels
            Steps between 0 and 1; floats are rounded to the nearest.
        """
        raw = np.asarray(probability).ravel()
        steps = np.rint(raw.astype(np.float64) * levels).astype(np.int64) if raw.dtype.kind == "f" else raw
        truth = np.asarray(is_target, bool).ravel()
        target = np.bincount(steps[truth], minlength=levels + 1).astype(np.int64)
        other = np.bincount(steps[~truth], minlength=levels + 1).astype(np.int64)
        return cls(target=target, other=other)

    @property
    def levels(self) -> int:
        """Steps between probability 0 and 1."""
        return len(self.target) - 1

    @property
    def n_target(self) -> int:
        """Pixels that are the target."""
        return int(self.target.sum())

    @property
    def n_other(self) -> int:
        """Pixels that are not."""
        return int(self.other.sum())

    def above(self, threshold: float) -> tuple[int, int]:
        """Pixels with at least this probability: those that are the target, and those that are not."""
        # Less a thousandth of a step, because 0.29 * 100 is 28.999999999999996 and the level 29 is meant.
        first = max(int(np.ceil(threshold * self.levels - 1e-3)), 0)
        return int(self.target[first:].sum()), int(self.other[first:].sum())

    def __add__(self, more: Self) -> Self:
        if not isinstance(more, PixelTally) or more.levels != self.levels:
            raise ValueError(f"Tallies of one map have the same levels; got {self.levels} and {more!r}.")
        return type(self)(target=self.target + more.target, other=self.other + more.other)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PixelTally):
            return NotImplemented
        return np.array_equal(self.target, other.target) and np.array_equal(self.other, other.other)

    __hash__ = None  # type: ignore[assignment]  # it holds arrays
