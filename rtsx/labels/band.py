"""The band of pixels along class borders that counts neither way."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from rtsx.labels.truth import IGNORED

__all__ = ["ignore_borders"]


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
    for number in known:
        is_other = (values != number) & (values != IGNORED)
        banded[(values == number) & (distance_transform_edt(~is_other) <= ignore)] = IGNORED
    return banded
