"""Blending weights of tiles, and padding by reflection.

Pure and one-dimensional; a tile's weight at a pixel is the product of both axes.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Blend = Literal["linear", "hann", "gaussian", "crop", "max"]
"""How neighbouring tiles are joined; see `window_shape`."""

BLENDS: tuple[Blend, ...] = get_args(Blend)
"""Every blend by name."""

# MONAI's and nnU-Net's choice: the standard deviation is an eighth of the window.
_GAUSSIAN_WIDTH = 0.125


def window_shape(blend: Blend, *, length: int, ramp: int) -> NDArray[np.float64]:
    """Return the raw weights (length,) of one tile along one axis, in (0, 1], before neighbours are made to sum to one.

    Parameters
    ----------
    blend
        `"linear"`: straight ramps, `(i + 0.5) / ramp` and its mirror. `"hann"`: the same with a squared sine.
        `"gaussian"`: a bell over the whole length. `"crop"` and `"max"`: 1 everywhere.
    length
        Pixels of the tile's support.
    ramp
        Pixels that it shares with each neighbour.

    Notes
    -----
    Every weight is above 0: a ramp that starts at exactly 0 would leave a dead frame of one pixel.

    Examples
    --------
    >>> window_shape("linear", length=6, ramp=2)
    array([0.25, 0.75, 1.  , 1.  , 0.75, 0.25])
    """
    position = np.arange(length) + 0.5
    if blend == "gaussian":
        shape: NDArray[np.float64] = np.exp(-0.5 * ((position / length - 0.5) / _GAUSSIAN_WIDTH) ** 2)
        return shape
    if blend in ("crop", "max") or ramp == 0:
        return np.ones(length)
    rise: NDArray[np.float64] = np.clip(np.minimum(position, length - position) / ramp, 0, 1)
    return np.sin(0.5 * np.pi * rise) ** 2 if blend == "hann" else rise


def reflect_pad(start: int, stop: int, *, length: int) -> NDArray[np.intp]:
    """Return indices (stop - start,) into an axis of `length` pixels for the pixels `start` to `stop`, mirrored at both ends.

    The edge pixel itself is not repeated, and a short axis is mirrored as often as it takes, as `numpy.pad` does with
    `mode="reflect"`. An index instead of a padded copy, because only tiles at the edge need it.

    Examples
    --------
    >>> reflect_pad(-2, 5, length=3)
    array([2, 1, 0, 1, 2, 1, 0])
    """
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)
