"""What the compiled kernels are given, by name."""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.align.coordinates import Coordinates
from rtsx.cube.align.storing import Storing, stored_nodata
from rtsx.cube.align.window import Window

__all__ = ["SAMPLE_LIMIT", "Block", "Frame", "Positions", "Rule", "Samples"]

Floats = NDArray[np.float64]

SAMPLE_LIMIT = 64
"""Rows or columns of samples in one target pixel: more differ by less than a hundredth from these."""


class Block(NamedTuple):
    """A block of target pixels."""

    row: int
    """Global row of the first pixel."""
    column: int
    """Global column of the first pixel."""
    height: int
    """Rows of the block."""
    width: int
    """Columns of the block."""
    y: int
    """Row in the arrays of the answer of the first pixel."""
    x: int
    """Column in the arrays of the answer of the first pixel."""

    @classmethod
    def of(cls, coordinates: Coordinates, *, within: tuple[slice, slice]) -> Self:
        """The block of some coordinates, a part of the global rows and columns of the answer."""
        rows, columns = coordinates.rows, coordinates.columns
        size = rows.stop - rows.start, columns.stop - columns.start
        return cls(rows.start, columns.start, *size, rows.start - within[0].start, columns.start - within[1].start)


class Positions(NamedTuple):
    """Source positions of a block of target pixels, as `Coordinates` has them."""

    node_rows: Floats
    node_columns: Floats
    is_exact: NDArray[np.bool_]
    exact_rows: Floats
    exact_columns: Floats

    @classmethod
    def of(cls, coordinates: Coordinates) -> Self:
        """The arrays of some coordinates."""
        return cls(
            coordinates.node_rows,
            coordinates.node_columns,
            coordinates.is_exact,
            coordinates.exact_rows,
            coordinates.exact_columns,
        )


class Frame(NamedTuple):
    """Where a window of stored pixels lies, and which of them count."""

    top: int
    """Row of the first pixel in the raster."""
    left: int
    """Column of the first pixel in the raster; with a period, any number of turns away."""
    height: int
    """Rows of the window."""
    width: int
    """Columns of the window."""
    period: int
    """Columns after which the raster begins again; 0 if it does not."""
    has_nodata: bool
    """Whether a stored value means missing."""
    nodata: Any
    """That value, in the dtype of the pixels."""

    @classmethod
    def of(cls, window: Window, dtype: np.dtype[Any], *, nodata: float | None) -> Self:
        """The frame of a window of pixels of that dtype."""
        value = stored_nodata(nodata, dtype)
        place = window.top, window.left, window.height, window.width
        return cls(*place, window.period, value is not None, dtype.type(value or 0))


class Rule(NamedTuple):
    """How values are stored, as `Storing` has it."""

    is_integer: bool
    """Whether to round to the nearest."""
    low: float
    """Lowest value that can be stored."""
    high: float
    """Highest value that can be stored."""
    has_fill: bool
    """Whether missing pixels are told by a value that a valid one must not get."""
    fill: Any
    """That value, in the dtype of the answer."""
    above: Any
    """What a valid pixel gets instead, from above."""
    below: Any
    """What a valid pixel gets instead, from below."""

    @classmethod
    def of(cls, storing: Storing) -> Self:
        """The rule of an array."""
        kind = storing.dtype.type
        fill, above, below = (storing.fill, storing.above, storing.below) if storing.has_fill else (0, 0, 0)
        return cls(storing.dtype.kind != "f", *storing.limits, storing.has_fill, kind(fill), kind(above), kind(below))


class Samples(NamedTuple):
    """How many samples `average` takes in a target pixel."""

    counts: NDArray[np.int64]
    """(cell, cell, 2): rows and columns of samples in each pixel of a lattice cell."""
    limit: int
    """Most rows or columns of samples in a pixel of an exact cell."""
    corner_rows: Floats
    """Source rows of the pixels' upper left corners in exact cells, (height + 1, width + 1)."""
    corner_columns: Floats
    """Source columns of these corners."""
    turn: float
    """Columns once around the earth; 0 for none."""

    @classmethod
    def of(cls, coordinates: Coordinates) -> Self:
        """Two for each source pixel along a target pixel, so that half a pixel counts half."""
        steps = np.nan_to_num(coordinates.steps(), nan=0.0, posinf=0.0)  # only exact cells are not finite
        # One thousandth less, so that 2.0001 source pixels are 2.
        counts = np.clip(2 * np.ceil(np.minimum(steps, SAMPLE_LIMIT) - 1e-3), 1, SAMPLE_LIMIT).astype(np.int64)
        corners = coordinates.corner_rows, coordinates.corner_columns
        return cls(counts, SAMPLE_LIMIT, *corners, float(coordinates.placement.turn))
