"""Which window of a source a block of target pixels needs, and reading it around the earth."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.align.coordinates import Coordinates
from rtsx.cube.align.reader import WindowReader

__all__ = ["Window", "read_window", "window_of"]


@dataclass(frozen=True)
class Window:
    """Rows and columns of a source; columns may run on across the seam of a raster that goes around the earth."""

    top: int
    """First row."""
    height: int
    """Rows."""
    left: int
    """First column; below 0 where the window begins before the seam."""
    width: int
    """Columns."""
    period: int
    """Columns after which the raster begins again; 0 if it does not."""

    @property
    def pixels(self) -> int:
        """Rows times columns."""
        return self.height * self.width


def window_of(coordinates: Coordinates, *, margin: int) -> Window | None:
    """The smallest window that holds all positions and `margin` pixels around; None where it misses the raster."""
    reach = coordinates.reach()
    if reach is None:
        return None
    placement = coordinates.placement
    height, width = placement.source.shape
    top, bottom = _span(reach.rows, margin)
    top, bottom = max(top, 0), min(bottom, height)
    left, right = _span(reach.columns, margin)
    period = placement.period
    if period:
        shifted = _span(reach.shifted, margin)
        if shifted[1] - shifted[0] < right - left:
            left, right = shifted
        if right - left >= period:
            left, right = 0, period
    else:
        left, right = max(left, 0), min(right, width)
    if top >= bottom or left >= right:
        return None
    return Window(top, bottom - top, left, right - left, period)


def read_window(reader: WindowReader, window: Window) -> NDArray[Any]:
    """Stored pixels (band, y, x) of a window, masked where the reader's are."""
    rows = slice(window.top, window.top + window.height)
    start = window.left % window.period if window.period else window.left
    stop = start + window.width
    if window.period and stop > window.period:
        parts = [reader.read(rows, slice(start, window.period)), reader.read(rows, slice(0, stop - window.period))]
        joined: Any = np.ma.concatenate if any(map(np.ma.isMaskedArray, parts)) else np.concatenate
        pixels: NDArray[Any] = joined(parts, axis=2)
        return pixels
    return reader.read(rows, slice(start, stop))


def _span(reach: tuple[float, float], margin: int) -> tuple[int, int]:
    # Limited before it is made whole, because positions far outside a raster may be any number.
    low, high = (min(max(value, -1e9), 1e9) for value in reach)
    return math.floor(low) - margin, math.floor(high) + 1 + margin
