"""Coarser levels of a raster: the rule of each variable, and the kernel that halves it."""

import math
from typing import Any, Literal

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

__all__ = ["Reduction", "halve", "halved_geobox", "level_count", "reduction_of"]

Reduction = Literal["average", "max", "nearest"]

_SMALLEST_TOP_LEVEL = 1024
"""Pixels: the coarsest level is the first whose longer side is at most this long, one look on a screen."""


def reduction_of(variable: xr.DataArray) -> Reduction:
    """How four pixels of a variable become one.

    - ``"max"`` for masks and for `binary`, because an overview is for finding things: a slump of a few pixels has to
      stay visible, and under the mode it would be gone at the first level. Areas are not measured on overviews.
    - ``"nearest"`` for classes (those with CF ``flag_values``, and Sentinel-2's `scl`), whose numbers have no mean.
    - ``"average"`` for the rest, over the valid pixels.
    """
    if variable.dtype == bool or variable.name == "binary":
        return "max"
    if "flag_values" in variable.attrs or variable.name in ("scl", "class_index"):
        return "nearest"
    return "average"


def level_count(shape: tuple[int, int]) -> int:
    """Number of overview levels below full resolution.

    Examples
    --------
    >>> level_count((1024, 1000)), level_count((1025, 10)), level_count((12288, 12288))
    (0, 1, 4)
    """
    return max(0, math.ceil(math.log2(max(shape) / _SMALLEST_TOP_LEVEL)))


def halved_geobox(geobox: GeoBox) -> GeoBox:
    """Geobox of pixels twice as large from the same corner; an odd side is rounded up and reaches beyond the data."""
    height, width = geobox.shape
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    return GeoBox((-(-height // 2), -(-width // 2)), Affine(2 * a, 2 * b, c, 2 * d, 2 * e, f), geobox.crs)


def halve(block: NDArray[Any], *, reduction: Reduction, nodata: float | None) -> NDArray[Any]:
    """Halve the last two axes of an array; nodata counts only where all four pixels are nodata.

    Parameters
    ----------
    block
        Array (..., y, x). An odd side is completed by a pixel that counts as nodata.
    reduction
        ``"average"`` (rounded for integers), ``"max"`` or ``"nearest"`` (the upper left pixel).
    nodata
        Stored value of a missing pixel, or None; NaN is always missing.

    Returns
    -------
    ndarray
        Same dtype, sides rounded up.

    Examples
    --------
    >>> halve(np.array([[10, 255], [20, 255]], np.uint8), reduction="average", nodata=255)
    array([[15]], dtype=uint8)
    """
    if reduction == "nearest":
        return block[..., ::2, ::2]
    shape = (*block.shape[:-2], *(-(-size // 2) for size in block.shape[-2:]))
    count = np.zeros(shape, np.uint8)
    # Four pixels of 8 bits fit into 16; the rest is summed as float64, which holds every int32 sum exactly.
    dtype = block.dtype if reduction == "max" else np.uint16 if block.dtype == np.uint8 else np.float64
    reduced = np.full(shape, _lowest(block.dtype) if reduction == "max" else 0, dtype)
    for quarter in (block[..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)):
        part = (..., slice(quarter.shape[-2]), slice(quarter.shape[-1]))  # smaller than the rest at an odd side
        is_data = _is_data(quarter, nodata)
        count[part] += is_data
        if reduction == "max":
            np.maximum(reduced[part], quarter, out=reduced[part], where=is_data)
        else:
            np.add(reduced[part], quarter, out=reduced[part], where=is_data)
    if reduction == "average":
        mean = reduced / np.maximum(count, 1)
        reduced = mean if block.dtype.kind == "f" else np.rint(mean)
    out: NDArray[Any] = reduced.astype(block.dtype)
    out[count == 0] = _missing_value(block.dtype, nodata)
    return out


def _lowest(dtype: np.dtype[Any]) -> float:
    if dtype.kind == "b":
        return False
    return float("-inf") if dtype.kind == "f" else np.iinfo(dtype).min


def _is_data(block: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    is_data = np.ones(block.shape, bool)
    if block.dtype.kind == "f":
        is_data &= np.isfinite(block)
    if nodata is not None and not math.isnan(nodata):
        is_data &= block != nodata
    return is_data


def _missing_value(dtype: np.dtype[Any], nodata: float | None) -> float:
    if nodata is not None:
        return nodata
    return math.nan if dtype.kind == "f" else 0
