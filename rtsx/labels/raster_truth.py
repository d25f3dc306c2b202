"""Truth of a label raster on the cube's own grid."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rtsx.errors import LabelError
from rtsx.labels.band import ignore_borders
from rtsx.labels.label_truth import check_classes, check_ignore
from rtsx.labels.truth import IGNORED, Truth, TruthWindow

__all__ = ["RasterTruth", "raster_truth"]

_ROWS_AT_ONCE = 1024
"""Rows of the raster that are in memory together while its digest is made."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RasterTruth:
    """A raster of codes, recoded window by window; made by `raster_truth`."""

    classes: tuple[str, ...]
    """Names of the classes, counted from 1."""
    raster: xr.DataArray = field(repr=False)
    """Codes, (y, x), integers, lazy or not."""
    codes: tuple[tuple[int, ...], ...]
    """Codes of each class."""
    ignored: tuple[int, ...]
    """Codes that become `IGNORED`."""
    ignore: int
    """Pixels on both sides of each class border that become `IGNORED`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the raster, px."""
        height, width = self.raster.shape
        return height, width

    @cached_property
    def digest(self) -> str:
        """sha256, as hex, over classes, codes, band and the recoded pixels; reads the whole raster once, rows at a time."""
        height, width = self.shape
        digest = hashlib.sha256(repr((self.classes, self.shape, self.ignore)).encode())
        for start in range(0, height, _ROWS_AT_ONCE):
            digest.update(self._recoded(slice(start, min(start + _ROWS_AT_ONCE, height)), slice(0, width)).tobytes())
        return digest.hexdigest()

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Values (y, x) of a window; reads `ignore` px around it."""
        (rows, columns), (height, width), band = window, self.shape, self.ignore
        top, left = max(rows.start - band, 0), max(columns.start - band, 0)
        values = self._recoded(slice(top, min(rows.stop + band, height)), slice(left, min(columns.stop + band, width)))
        inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        return ignore_borders(values, ignore=band)[inner].copy()

    def _recoded(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        found = np.asarray(self.raster[rows, columns])
        values = np.zeros(found.shape, np.uint8)
        for number, codes in enumerate(self.codes, 1):
            values[np.isin(found, codes)] = number
        values[np.isin(found, self.ignored)] = IGNORED
        return values


def raster_truth(
    raster: xr.DataArray, *, classes: Mapping[str, Sequence[int]], ignored: Sequence[int] = (), ignore: int = 0
) -> RasterTruth:
    """Truth of a raster of codes, such as a land cover map, on the pixels of a cube.

    Nothing is read before a window is asked for.

    Parameters
    ----------
    raster : xarray.DataArray
        Codes, (y, x), integers or booleans, lazy or not; on the grid of the cube that it is the truth of.
    classes : mapping of str to sequence of int
        Codes of each class; the k-th class, counted from 1, becomes the value k. Any other code becomes 0.
    ignored : sequence of int
        Codes of pixels that count neither way. What the attribute `_FillValue` or `nodata` of the raster says is one of
        them, unless a class names it.
    ignore : int
        Pixels on both sides of each class border that become 255, where distance is Euclidean between pixel centres.
        Ignored pixels and the raster's edge are no border.

    Returns
    -------
    RasterTruth
        Can be pickled, if the raster can.

    Raises
    ------
    LabelError
        The raster is not (y, x) or not of integers; a class has no code, or two have the same.

    Examples
    --------
    >>> cover = xr.DataArray(np.array([[1, 2, 3], [0, 3, 3]], np.uint8), dims=("y", "x"))
    >>> raster_truth(cover, classes={"low": [3], "water": [1]}, ignored=[0]).read((slice(0, 2), slice(0, 3)))
    array([[  2,   0,   1],
           [255,   1,   1]], dtype=uint8)
    """
    if raster.dims != ("y", "x"):
        raise LabelError(
            f"A label raster has the dimensions (y, x), but this has {tuple(map(str, raster.dims))}. "
            "Select one band and one time, or transpose it."
        )
    if raster.dtype.kind not in "iub":
        raise LabelError(
            f"A label raster holds codes, which are integers, but this holds {raster.dtype}. Convert it with "
            "raster.astype('uint8'), after missing pixels have got a code of their own: raster.fillna(255)."
        )
    names = check_classes(tuple(classes))
    codes = tuple(tuple(int(code) for code in classes[name]) for name in names)
    missing = raster.attrs.get("_FillValue", raster.attrs.get("nodata"))
    flat = [code for some in codes for code in some]
    if missing is not None and float(missing).is_integer() and int(missing) not in flat:
        ignored = (*ignored, int(missing))
    if not all(codes) or len({*flat, *ignored}) < len(flat) + len(set(ignored)):
        raise LabelError(
            f"Each class has codes of its own, but classes are {dict(zip(names, codes, strict=True))} and ignored are "
            f"{[int(code) for code in ignored]}. Give each code to one of them."
        )
    return RasterTruth(
        classes=names,
        raster=raster,
        codes=codes,
        ignored=tuple(sorted({int(code) for code in ignored})),
        ignore=check_ignore(ignore),
    )


def _conforms(truth: RasterTruth) -> Truth:
    return truth
