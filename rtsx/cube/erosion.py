"""Invalid pixels widened by a distance on the ground, and the compiled kernels for it."""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rtsx.errors import CubeError
from rtsx.tiling.plan import WIDEST_HALO

_TIE = 1e-9
"""Pixels by which a centre may lie outside and still belong, so that 60-80-100 is inside a circle of 100 m."""


def disk_half_widths(
    radius_m: float, *, heights_m: NDArray[np.float64], widths_m: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Return how far a circle reaches to either side, for each row of the raster and each row of the circle.

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
    >>> disk_half_widths(100.0, heights_m=np.array([50.0]), widths_m=np.array([20.0])).tolist()
    [[0, 4, 5, 4, 0]]
    """
    reach = int(np.floor(radius_m / heights_m.min() + _TIE))
    offsets_m = np.arange(-reach, reach + 1) * heights_m[:, None]
    left = radius_m**2 - offsets_m**2
    is_inside = left > -2 * _TIE * radius_m * heights_m[:, None]
    widths = np.floor(np.sqrt(np.maximum(left, 0)) / widths_m[:, None] + _TIE)
    return np.where(is_inside | (offsets_m == 0), widths, -1).astype(np.int32)


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel as machine code: made at its first call, and kept on disk, because that takes seconds.

    What is kept is made anew when the kernel's own file changes, and nothing else: what a kernel calls stands beside it,
    and after a change of the options below `__pycache__` has to be cleared.

    No fastmath: it may reorder sums, and then the last bit would depend on where a window begins. Divisions by 0 give
    infinity or NaN.
    """
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(kernel)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, error_model="numpy")(kernel)


def _near(mask: NDArray[np.bool_], half_widths: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return True where a pixel of the mask lies in the circle around a pixel.

    The circle comes as (2 reach + 1,) pixels to either side of its middle column. First the distance to the mask along
    each row, then one look at every row of the circle: pixels x reach instead of pixels x reach².
    """
    rows, columns = mask.shape
    reach = half_widths.shape[0] // 2
    far = np.int32(columns + half_widths.max() + 1)
    along = np.empty((rows, columns), np.int32)
    has_any = np.zeros(rows, np.bool_)
    for row in range(rows):
        distance = far
        for column in range(columns):
            distance = np.int32(0) if mask[row, column] else min(distance + np.int32(1), far)
            along[row, column] = distance
        has_any[row] = distance < far
        distance = far
        for column in range(columns - 1, -1, -1):
            distance = np.int32(0) if mask[row, column] else min(distance + np.int32(1), far)
            along[row, column] = min(along[row, column], distance)
    out = np.zeros((rows, columns), np.bool_)
    for row in range(rows):
        for offset in range(max(-reach, -row), min(reach, rows - 1 - row) + 1):
            width = half_widths[offset + reach]
            if width >= 0 and has_any[row + offset]:
                for column in range(columns):
                    out[row, column] |= along[row + offset, column] <= width
    return out


near: Callable[[NDArray[np.bool_], NDArray[np.int32]], NDArray[np.bool_]] = compiled(_near)


_INVALID = 0


def erode_quality(
    quality: NDArray[np.uint8],
    *,
    distance_m: float,
    resolution_m: float | tuple[float, float],
    outside_is_invalid: bool = False,
) -> NDArray[np.uint8]:
    """Return quality without the ground beside invalid ground: it becomes invalid too, whatever it was.

    Scene edges are dirty, and so is what surrounds unusable ground; low quality, such as a cloud, does not spread.

    Parameters
    ----------
    quality
        (y, x) uint8: 0 invalid, 1 low, 2 good.
    distance_m
        How far it spreads, m, in a straight line between centres of pixels; 0 changes nothing.
    resolution_m
        Size of a pixel in m, or its height and width.
    outside_is_invalid
        Whether the array's own edges are edges of the data. A block has to come with a halo instead (see `erosion_halo`);
        then the result for its middle does not depend on how the raster was cut.

    Returns
    -------
    ndarray
        (y, x) uint8, a new array.

    Raises
    ------
    CubeError
        The distance is negative, or the resolution not above 0.

    Examples
    --------
    >>> quality = np.array([[0, 2, 1, 2, 2]], np.uint8)
    >>> erode_quality(quality, distance_m=6, resolution_m=3)
    array([[0, 0, 0, 2, 2]], dtype=uint8)
    """
    if quality.ndim != 2:
        raise CubeError(f"Quality is (y, x); got shape {quality.shape}. Erode one image at a time.")
    height_m, width_m = _sides(distance_m, resolution_m)
    edge = 1 if outside_is_invalid else 0
    # One ring stands for all that is outside: nothing there is nearer than what lies straight across the edge.
    invalid = np.pad(quality == _INVALID, edge, constant_values=True)
    eroded = quality.copy()
    if distance_m and invalid.any():
        circle = disk_half_widths(distance_m, heights_m=np.array([height_m]), widths_m=np.array([width_m]))[0]
        eroded[near(invalid, circle)[edge : edge + quality.shape[0], edge : edge + quality.shape[1]]] = _INVALID
    return eroded


def erosion_halo(*, distance_m: float, resolution_m: float | tuple[float, float]) -> int:
    """Return pixels around a block that `erode_quality` looks at.

    Raises
    ------
    CubeError
        They are more than `WIDEST_HALO`, which no memory holds around every block.

    Examples
    --------
    >>> erosion_halo(distance_m=30, resolution_m=3), erosion_halo(distance_m=30, resolution_m=(3, 20))
    (10, 10)
    """
    size = min(_sides(distance_m, resolution_m))
    if distance_m > WIDEST_HALO * size:
        raise CubeError(
            f"erode_m is at most {WIDEST_HALO} pixels, here {WIDEST_HALO * size:.10g} m; got {distance_m:.10g}. Dirty edges are tens of metres: "
            "correct it, or leave images out by max_cloud_cover."
        )
    return math.ceil(distance_m / size)


def _sides(distance_m: float, resolution_m: float | tuple[float, float]) -> tuple[float, float]:
    height_m, width_m = resolution_m if isinstance(resolution_m, tuple) else (resolution_m, resolution_m)
    if not (math.isfinite(distance_m) and distance_m >= 0 and height_m > 0 and width_m > 0):
        raise CubeError(
            f"Quality is eroded by a distance of 0 m or more on pixels above 0 m; got {distance_m} and {resolution_m}."
        )
    return float(height_m), float(width_m)
