"""The band of pixels along class borders that counts neither way."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from rtsx.labels.truth import IGNORED

__all__ = ["ignore_borders"]

_SMALL = 6
"""Width, px, up to which comparing with each pixel of a disk is faster than the distances of all pixels."""


def ignore_borders(values: NDArray[np.uint8], *, ignore: int) -> NDArray[np.uint8]:
    """Ignore the pixels that have another class within some distance: `ignore` px on both sides of each border.

    Distances are Euclidean, between pixel centres, so that the band is equally wide in all directions. Pixels that are
    `IGNORED` already are no class: nothing is known of a border there. The edge of the array is no border either.

    Parameters
    ----------
    values : numpy.ndarray
        `(y, x)` uint8, coded as in `Truth`.
    ignore : int
        Width, px; 0 changes nothing.

    Returns
    -------
    numpy.ndarray
        `(y, x)` uint8; exact at least `ignore` px inside the array's edge.

    Examples
    --------
    >>> ignore_borders(np.array([[0, 0, 0, 1, 1, 1]], np.uint8), ignore=2)
    array([[  0, 255, 255, 255, 255,   1]], dtype=uint8)
    """
    if ignore == 0:
        return values
    banded = values.copy()
    present = np.unique(values)
    known = present[present != IGNORED]
    if len(known) < 2:
        return banded
    if ignore <= _SMALL:
        banded[_differing(values, ignore)] = IGNORED
        return banded
    for number in known:
        is_other = (values != number) & (values != IGNORED)
        banded[(values == number) & (distance_transform_edt(~is_other) <= ignore)] = IGNORED
    return banded


def _differing(values: NDArray[np.uint8], radius: int) -> NDArray[np.bool_]:
    """Whether a pixel and another within a radius are of different classes; each pair is looked at once."""
    height, width = values.shape
    known = values != IGNORED
    differing = np.zeros(values.shape, bool)
    for down in range(min(radius, height - 1) + 1):
        reach = math.isqrt(radius**2 - down**2)
        for right in range(max(-reach, 1 - width) if down else 1, min(reach, width - 1) + 1):
            here = (slice(0, height - down), slice(max(-right, 0), width - max(right, 0)))
            there = (slice(down, height), slice(max(right, 0), width + min(right, 0)))
            other = (values[here] != values[there]) & known[here] & known[there]
            differing[here] |= other
            differing[there] |= other
    return differing
