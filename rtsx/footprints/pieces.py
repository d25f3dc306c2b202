"""Objects on their way to become footprints: pieces inside one block, and outlines that are complete."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import FootprintError

LEAST_AREA_M2 = 288.0
"""Smaller objects are left out where neither the caller nor the bundle says otherwise, m²: 32 pixels of 3 m."""
AREA_THRESHOLDS = (0.45, 0.65, 0.8)
"""Probabilities at which the area of an outline is measured where nothing else is said."""

Number = TypeVar("Number", np.int64, np.float64)


@dataclass(frozen=True, kw_only=True)
class _Objects:
    """What is known of objects, complete or not; one entry per object in every array."""

    geometry: NDArray[np.object_]
    """Polygons or MultiPolygons in pixel coordinates of the raster: x is the column, y the row."""
    first: NDArray[np.int64]
    """The object's first pixel in reading order, row * columns + column."""
    touches_edge: NDArray[np.bool_]
    """True where the object comes near the end of the data."""
    cut: NDArray[np.bool_]
    """True where the object may go on in a neighbouring raster."""
    n_water: NDArray[np.int64]
    """Number of pixels on water, as far as known."""

    def __len__(self) -> int:
        return len(self.geometry)

    def _of(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> dict[str, Any]:
        """Return the arrays of these objects, those that `index` selects."""
        return {field.name: getattr(self, field.name)[index] for field in fields(_Objects)}


@dataclass(frozen=True, kw_only=True)
class Outlines(_Objects):
    """Complete objects with their statistics."""

    n_pixels: NDArray[np.int64]
    prob_min: NDArray[np.float64]
    """Smallest probability, 0-1."""
    prob_max: NDArray[np.float64]
    """Largest probability, 0-1."""
    prob_mean: NDArray[np.float64]
    """Mean probability, 0-1."""
    prob_median: NDArray[np.float64]
    """Median probability, 0-1; half-way between the middle two of an even number of pixels."""
    prob_std: NDArray[np.float64]
    """Standard deviation of the probability (divided by n), 0-1."""
    n_at: NDArray[np.int64]
    """`(object, threshold)` pixels that are at least so probable."""
    nodata_fraction: NDArray[np.float64]
    """Part of the bounding box, widened, that is not valid, 0-1; NaN where that is not known."""
    prob_counts: NDArray[np.object_]
    """The histogram as text where the object is cut, as `format_counts` writes it, else None."""

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Outlines":
        """Return the objects that `index` selects."""
        return Outlines(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @classmethod
    def concatenate(cls, parts: Sequence["Outlines"]) -> "Outlines":
        """Return all objects of at least one set, in the order of their first pixels."""
        whole = cls(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        )
        return whole.take(np.argsort(whole.first, kind="stable"))


@dataclass(frozen=True, kw_only=True)
class Pieces(_Objects):
    """Objects, or the parts of objects that lie in one block, with a histogram of their probabilities.

    The histogram is kept because it adds up exactly: whatever the blocks, the same counts come together, and with
    them the same median and the same last bit of the standard deviation.
    """

    owner: NDArray[np.int64]
    """`(bin,)` the piece that a bin of the histogram belongs to; ascending, every piece has a bin."""
    level: NDArray[np.int64]
    """`(bin,)` probability times the number of levels, ascending within a piece."""
    count: NDArray[np.int64]
    """`(bin,)` pixels of this piece at this level, at least one."""

    def take(self, chosen: NDArray[np.bool_]) -> "Pieces":
        """Return the pieces for which `chosen` is True, numbered anew."""
        bins = chosen[self.owner]
        return Pieces(
            **self._of(chosen),
            owner=(np.cumsum(chosen) - 1)[self.owner[bins]],
            level=self.level[bins],
            count=self.count[bins],
        )

    def finish(self, levels: int, *, thresholds: Sequence[float]) -> Outlines:
        """Return the pieces as complete objects, with statistics from `levels` steps of probability."""
        start = np.flatnonzero(np.diff(self.owner, prepend=-1))
        at = [_sums(self.count * (self.level >= least_level(one, levels)), start) for one in thresholds]
        return Outlines(
            **self._of(np.arange(len(self))),
            **statistics(self.owner, self.level, self.count, levels=levels),
            n_at=np.stack(at, axis=1) if at else np.empty((len(self), 0), np.int64),
            nodata_fraction=np.full(len(self), np.nan),
            prob_counts=self._counts(start, levels),
        )

    def _counts(self, start: NDArray[np.int64], levels: int) -> NDArray[np.object_]:
        stop = np.append(start, len(self.level))[1:]
        counts = np.full(len(self), None, np.object_)
        for number in np.flatnonzero(self.cut):
            bins = slice(start[number], stop[number])
            counts[number] = format_counts(self.level[bins], self.count[bins], levels=levels)
        return counts


def least_level(threshold: float, levels: int) -> int:
    """Return the first of `levels` steps of probability that reaches a threshold.

    A whole one, because 0.29 * 100 is a little more than 29 and would lose the pixels at 29.

    Examples
    --------
    >>> least_level(0.29, 100), least_level(0.291, 100)
    (29, 30)
    """
    return math.ceil(threshold * levels - 1e-6)


def area_column(threshold: float) -> str:
    """Return the name of the column of the area that is at least so probable.

    Examples
    --------
    >>> area_column(0.45)
    'area_m2_t45'
    """
    return f"area_m2_t{round(100 * threshold)}"


def checked_thresholds(given: Sequence[float]) -> tuple[float, ...]:
    """Return probabilities at which areas are measured, ascending, each once.

    Raises
    ------
    FootprintError
        One is no whole per cent from 1 to 100.

    Examples
    --------
    >>> checked_thresholds([0.65, 0.45])
    (0.45, 0.65)
    """
    try:
        per_cent = [100 * float(one) for one in given]
    except (TypeError, ValueError) as error:
        raise FootprintError(f"area_thresholds are probabilities such as [0.45, 0.65], not {given!r}") from error
    strange = [one for one in per_cent if not (1 <= one <= 100 and abs(one - round(one)) < 1e-6)]
    if strange:
        raise FootprintError(
            f"area_thresholds are whole per cents, as fractions from 0.01 to 1, not {strange[0] / 100:g}: for 45 per cent give 0.45"
        )
    return tuple(one / 100 for one in sorted({round(one) for one in per_cent}))


def statistics(
    owner: NDArray[np.int64], level: NDArray[np.int64], count: NDArray[np.int64], *, levels: int
) -> dict[str, NDArray[Any]]:
    """Return statistics of the pixels of objects by their columns, from bins as `Pieces` has them."""
    start = np.flatnonzero(np.diff(owner, prepend=-1))
    n_pixels = _sums(count, start)
    mean = _sums(count * level, start) / n_pixels
    seen, before = np.cumsum(count), np.cumsum(n_pixels) - n_pixels
    lower, upper = (
        level[np.searchsorted(seen, before + middle, side="right")] for middle in ((n_pixels - 1) // 2, n_pixels // 2)
    )
    return {
        "n_pixels": n_pixels,
        "prob_min": level[start] / levels,
        "prob_max": level[np.append(start, len(level))[1:] - 1] / levels,
        "prob_mean": mean / levels,
        "prob_median": (lower + upper) / (2 * levels),
        "prob_std": np.sqrt(_sums(count * (level - mean[owner]) ** 2, start) / n_pixels) / levels,
    }


def format_counts(level: NDArray[np.int64], count: NDArray[np.int64], *, levels: int) -> str:
    """Write the histogram of one object as text.

    Examples
    --------
    >>> format_counts(np.array([50, 80]), np.array([3, 1]), levels=100)
    '100;50:3,80:1'
    """
    return f"{levels};" + ",".join(f"{one}:{many}" for one, many in zip(level, count, strict=True))


def parse_counts(text: str) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Read levels, level and count from what `format_counts` has written.

    Examples
    --------
    >>> levels, level, count = parse_counts("100;50:3,80:1")
    >>> levels, level.tolist(), count.tolist()
    (100, [50, 80], [3, 1])
    """
    levels, _, bins = text.partition(";")
    pairs = np.array([word.split(":") for word in bins.split(",")], np.int64)
    return int(levels), pairs[:, 0], pairs[:, 1]


def _sums(values: NDArray[Number], start: NDArray[np.int64]) -> NDArray[Number]:
    """Return the sums of the runs of values that begin at `start`, also where there is no run."""
    return np.add.reduceat(values, start) if len(start) else values[:0]
