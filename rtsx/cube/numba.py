"""Compiling kernels, and those over masks. They release the GIL and run on one thread."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["compiled", "near"]


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel as machine code: made at its first call, and kept on disk, because that takes seconds.

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
    """True where a pixel of the mask lies in the circle around a pixel.

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
