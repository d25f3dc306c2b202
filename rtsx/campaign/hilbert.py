"""The order of cells along a Hilbert curve: whoever follows it always goes on to a neighbour."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["hilbert_order"]


def hilbert_order(addresses: NDArray[np.int32]) -> NDArray[np.intp]:
    """Places (cell,) of some cells in the order of a Hilbert curve over the square that holds them all.

    Instead of row by row, because images are about as high as wide: what a worker has read of one is then wanted again
    soon, by the cells beside and below as well.

    Parameters
    ----------
    addresses
        Rows and columns (cell, 2).

    Examples
    --------
    >>> addresses = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32)
    >>> addresses[hilbert_order(addresses)].tolist()
    [[0, 0], [1, 0], [1, 1], [0, 1]]
    """
    if not len(addresses):
        return np.zeros(0, np.intp)
    low = addresses.min(axis=0).astype(np.int64)
    y, x = (addresses.astype(np.int64) - low).T
    place = np.zeros(len(addresses), np.int64)
    half = 1 << max(int(max(y.max(), x.max())).bit_length() - 1, 0)
    while half:
        right, below = (x & half) > 0, (y & half) > 0
        place += half * half * ((3 * right) ^ below)
        # The quarter is turned so that its curve begins where that of the last one ended.
        flipped = right & ~below
        x, y = (
            np.where(flipped, half - 1 - (x & (half - 1)), x & (half - 1)),
            np.where(flipped, half - 1 - (y & (half - 1)), y & (half - 1)),
        )
        x, y = np.where(below, x, y), np.where(below, y, x)
        half >>= 1
    return np.argsort(place, kind="stable")
