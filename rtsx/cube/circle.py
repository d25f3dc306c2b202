"""Circles on pixels, row by row, for pixels of any shape."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["half_widths"]

_TIE = 1e-9
"""Pixels by which a centre may lie outside and still belong, so that 60-80-100 is inside a circle of 100 m."""


def half_widths(radius_m: float, *, heights_m: NDArray[np.float64], widths_m: NDArray[np.float64]) -> NDArray[np.int32]:
    """How far a circle reaches to either side, for each row of the raster and each row of the circle.

    Parameters
    ----------
    radius_m
        Radius, m; 0 holds the middle alone.
    heights_m, widths_m
        Pixel size in m, one per row of the raster, or one for all.

    Returns
    -------
    ndarray
        (row, 2 reach + 1) int32: entry (r, reach + i) is the number of pixels to either side of the middle column that
        belong to a circle around a pixel of row r, in the row i below it; -1 where none belongs. A pixel belongs where
        its centre is at most `radius_m` away, in pixels of the middle's size.

    Examples
    --------
    >>> half_widths(100.0, heights_m=np.array([50.0]), widths_m=np.array([20.0])).tolist()
    [[0, 4, 5, 4, 0]]
    """
    reach = int(np.floor(radius_m / heights_m.min() + _TIE))
    offsets_m = np.arange(-reach, reach + 1) * heights_m[:, None]
    left = radius_m**2 - offsets_m**2
    is_inside = left > -2 * _TIE * radius_m * heights_m[:, None]
    widths = np.floor(np.sqrt(np.maximum(left, 0)) / widths_m[:, None] + _TIE)
    return np.where(is_inside | (offsets_m == 0), widths, -1).astype(np.int32)
