"""What the warp reads from: one raster on its own grid, a window at a time."""

from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

__all__ = ["ArrayReader", "WindowReader"]


class WindowReader(Protocol):
    """Reads windows of the bands of one raster.

    Values, not handles: a reader can be pickled, holds no open file, and may be used by several threads at once.
    """

    @property
    def geobox(self) -> GeoBox:
        """CRS, transform and shape of the raster."""

    @property
    def count(self) -> int:
        """Number of bands."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what `read` returns."""

    @property
    def nodata(self) -> float | None:
        """Stored value of a missing pixel; None where there is none. NaN is always missing."""

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Stored pixels (band, y, x) of a window that lies within the raster; the caller owns them.

        A `numpy.ma.MaskedArray` where a mask of the raster says what is missing.
        """

    def coarser(self, factor: float) -> "WindowReader":
        """The reader of the coarsest overview whose pixels are at most `factor` times as large; itself where none is."""


class ArrayReader:
    """A raster in memory: the fake for tests, and the reader of what has been computed.

    Examples
    --------
    >>> from affine import Affine
    >>> box = GeoBox((2, 3), Affine(10, 0, 0, 0, -10, 20), "EPSG:3413")
    >>> ArrayReader(np.arange(6).reshape(1, 2, 3), box, nodata=0).read(slice(0, 1), slice(1, 3))
    array([[[1, 2]]])
    """

    def __init__(self, pixels: NDArray[Any], geobox: GeoBox, *, nodata: float | None) -> None:
        self.pixels = pixels
        """Stored pixels (band, y, x)."""
        self.geobox = geobox
        self.nodata = nodata

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.pixels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the pixels."""
        return self.pixels.dtype

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Stored pixels (band, y, x) of a window, copied."""
        return self.pixels[:, rows, columns].copy()

    def coarser(self, factor: float) -> Self:
        """Itself: an array has no overviews."""
        return self


_conforms: type[WindowReader] = ArrayReader
