"""How aligned values are stored: resampling method, dtype, rounding, and the value of missing pixels."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import CubeError

_WIDER = {1: np.dtype(np.int16), 2: np.dtype(np.int32), 4: np.dtype(np.int64), 8: np.dtype(np.float64)}
"""Signed dtype by bytes of an integer, that holds all its values and one more."""


def output_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return the nodata value as it can be stored in `dtype`; None where no pixel of that dtype can have it.

    Examples
    --------
    >>> output_nodata(-9999, np.dtype("float32")), output_nodata(-9999, np.dtype("uint8"))
    (-9999.0, None)
    """
    if nodata is None or math.isnan(nodata):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(nodata))
    if dtype.kind == "b":
        return None
    limits = np.iinfo(dtype)
    return (
        float(nodata)
        if math.isfinite(nodata) and limits.min <= nodata <= limits.max and nodata == int(nodata)
        else None
    )


def is_representable(pixels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Return True where a stored pixel is neither masked nor nodata nor NaN nor infinite.

    Examples
    --------
    >>> is_representable(np.array([1.0, np.nan, -9999.0]), -9999)
    array([ True, False, False])
    """
    stored = np.ma.getdata(pixels)
    valid: NDArray[np.bool_] = np.isfinite(stored)
    value = output_nodata(nodata, stored.dtype)
    if value is not None:
        valid &= stored != stored.dtype.type(value)
    if np.ma.isMaskedArray(pixels):
        valid &= ~np.ma.getmaskarray(pixels)
    return valid


def without_mask(pixels: NDArray[Any], nodata: float | None) -> tuple[NDArray[Any], float | None]:
    """Return pixels with a stored value in the place of what a mask hides, and that value: nodata, else NaN, else one of a wider dtype.

    Examples
    --------
    >>> without_mask(np.ma.MaskedArray(np.array([7, 8], np.uint8), mask=[True, False]), None)
    (array([-32768,      8], dtype=int16), -32768.0)
    """
    if not np.ma.isMaskedArray(pixels):
        return pixels, nodata
    stored: Any = np.ma.getdata(pixels)
    if output_nodata(nodata, stored.dtype) is None and stored.dtype.kind != "f":
        stored = stored.astype(_WIDER[stored.dtype.itemsize])
        nodata = None if stored.dtype.kind == "f" else float(np.iinfo(stored.dtype).min)
    filled = np.array(stored)
    filled[np.ma.getmaskarray(pixels)] = OutputDtype(stored.dtype, nodata).fill
    return filled, nodata


@dataclass(frozen=True)
class OutputDtype:
    """How values go into an array of one dtype.

    Integers are rounded to the nearest and clipped; a valid value that would become the nodata value becomes the next
    one above or below, on the side that it came from.

    Raises
    ------
    CubeError
        Values cannot be stored in that dtype.

    Examples
    --------
    >>> storing = OutputDtype(np.dtype("uint8"), nodata=0)
    >>> storing.fill, storing.above
    (0.0, 1.0)
    >>> storing.stored(np.array([0.2, 99.6, 400.0]), valid=np.array([True, True, False]))
    array([  1, 100,   0], dtype=uint8)
    """

    dtype: np.dtype[Any]
    """NumPy dtype, an integer or a float."""
    nodata: float | None
    """Stored value of a missing pixel; None where there is none."""

    def __post_init__(self) -> None:
        """Refuse what has no numbers in it."""
        if self.dtype.kind not in "iufb":
            raise CubeError(f"Aligned values are integers or floats; got dtype {self.dtype}. Read the bands apart.")

    @property
    def has_fill(self) -> bool:
        """Whether missing pixels have a stored value of their own; NaN cannot be met by rounding."""
        return output_nodata(self.nodata, self.dtype) is not None

    @property
    def fill(self) -> float:
        """Value of missing pixels: nodata, else NaN for floats and 0 for integers."""
        value = output_nodata(self.nodata, self.dtype)
        return value if value is not None else math.nan if self.dtype.kind == "f" else 0.0

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that can be stored."""
        if self.dtype.kind == "f":
            return -math.inf, math.inf
        if self.dtype.kind == "b":
            return 0.0, 1.0
        # A float64 next to the end of 64 bits may lie beyond it.
        low, high = float(np.iinfo(self.dtype).min), float(np.iinfo(self.dtype).max)
        return low, high if int(high) <= np.iinfo(self.dtype).max else math.nextafter(high, 0)

    @property
    def above(self) -> float:
        """What replaces the nodata value for a value that is not below it."""
        return self._neighbour(1) if self.fill < self.limits[1] else self._neighbour(-1)

    @property
    def below(self) -> float:
        """What replaces the nodata value for a value below it."""
        return self._neighbour(-1) if self.fill > self.limits[0] else self._neighbour(1)

    def stored(self, values: NDArray[Any], *, valid: NDArray[np.bool_]) -> NDArray[Any]:
        """Return values in this dtype, with the fill where they are not valid."""
        if values.dtype == self.dtype:
            out = values.copy()
        else:
            low, high = self.limits
            with np.errstate(invalid="ignore", over="ignore"):
                if self.dtype.kind != "f":
                    values = np.clip(np.rint(np.where(valid, values, 0)), low, high)
                out = values.astype(self.dtype)
            if self.has_fill:
                hit = valid & (out == self.dtype.type(self.fill))
                out[hit] = np.where(values[hit] >= self.fill, self.above, self.below)
        out[~valid] = self.fill
        return out

    def _neighbour(self, side: int) -> float:
        if self.dtype.kind == "f":
            towards = self.dtype.type(math.copysign(math.inf, side))
            return float(np.nextafter(self.dtype.type(self.fill), towards))
        return self.fill + side


Resampling = Literal["nearest", "bilinear", "cubic", "average"]
"""``nearest`` for masks and classes; ``bilinear`` or ``cubic`` for what varies smoothly; ``average`` where the target is
coarser."""
