"""Padding by reflection, as an index: which real pixel stands in for one beyond the data's edge."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["reflected"]


def reflected(start: int, stop: int, *, length: int) -> NDArray[np.intp]:
    """Indices (stop - start,) into an axis of `length` pixels for the pixels `start` to `stop`, mirrored at both ends.

    The edge pixel itself is not repeated, and a short axis is mirrored as often as it takes, as `numpy.pad` does with
    `mode="reflect"`. An index instead of a padded copy, because only tiles at the edge need it.

    Examples
    --------
    >>> reflected(-2, 5, length=3)
    array([2, 1, 0, 1, 2, 1, 0])
    """
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)
