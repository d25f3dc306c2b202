"""Ground that is not trusted because of what lies beside it."""

import math

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.circle import half_widths
from rtsx.cube.numba import near
from rtsx.errors import CubeError

__all__ = ["erode_quality", "erosion_halo"]

_INVALID = 0


def erode_quality(
    quality: NDArray[np.uint8],
    *,
    distance_m: float,
    resolution_m: float | tuple[float, float],
    outside_is_invalid: bool = False,
) -> NDArray[np.uint8]:
    """Quality without the ground beside invalid ground: it becomes invalid too, whatever it was.

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
        then the answer for its middle does not depend on how the raster was cut.

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
        circle = half_widths(distance_m, heights_m=np.array([height_m]), widths_m=np.array([width_m]))[0]
        eroded[near(invalid, circle)[edge : edge + quality.shape[0], edge : edge + quality.shape[1]]] = _INVALID
    return eroded


def erosion_halo(*, distance_m: float, resolution_m: float | tuple[float, float]) -> int:
    """Pixels around a block that `erode_quality` looks at.

    Examples
    --------
    >>> erosion_halo(distance_m=30, resolution_m=3), erosion_halo(distance_m=30, resolution_m=(3, 20))
    (10, 10)
    """
    return math.ceil(distance_m / min(_sides(distance_m, resolution_m)))


def _sides(distance_m: float, resolution_m: float | tuple[float, float]) -> tuple[float, float]:
    height_m, width_m = resolution_m if isinstance(resolution_m, tuple) else (resolution_m, resolution_m)
    if not (math.isfinite(distance_m) and distance_m >= 0 and height_m > 0 and width_m > 0):
        raise CubeError(
            f"Quality is eroded by a distance of 0 m or more on pixels above 0 m; got {distance_m} and {resolution_m}."
        )
    return float(height_m), float(width_m)
