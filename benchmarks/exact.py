"""Alignment done plainly: every position by pyproj, every tap by NumPy. What the warp is held to, slow and obvious."""

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

Floats = NDArray[np.float64]


def exact_positions(
    source: GeoBox, target: GeoBox, *, shift: tuple[float, float] = (0.5, 0.5), turn: float = 0.0
) -> tuple[Floats, Floats]:
    """Rows and columns in `source`, counted from its corner, of a point in every pixel of `target`; its middle by default.

    `turn`: columns once around the earth, for a source that goes around it.
    """
    height, width = target.shape
    columns, rows = np.meshgrid(np.arange(width) + shift[1], np.arange(height) + shift[0])
    a = target.affine
    x, y = a.a * columns + a.b * rows + a.c, a.d * columns + a.e * rows + a.f
    transformer = Transformer.from_crs(CRS(str(target.crs)), CRS(str(source.crs)), always_xy=True)
    x, y = transformer.transform(x, y)
    inverse = ~source.affine
    column, row = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
    return row, column % turn if turn else column


def exact_warp(
    pixels: NDArray[np.generic],
    positions: tuple[Floats, Floats],
    *,
    resampling: str,
    nodata: float | None,
    wrap: bool = False,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Values (float64) and validity (band, y, x) at these positions; ``"nearest"``, ``"bilinear"`` or ``"cubic"``."""
    answers = [_band(band, positions, resampling=resampling, nodata=nodata, wrap=wrap) for band in pixels]
    return np.stack([value for value, _ in answers]), np.stack([valid for _, valid in answers])


def _band(
    band: NDArray[np.generic], positions: tuple[Floats, Floats], *, resampling: str, nodata: float | None, wrap: bool
) -> tuple[Floats, NDArray[np.bool_]]:
    row, column = (np.where(np.isfinite(axis), axis, -1e6) for axis in positions)

    def tap(y: NDArray[np.int64], x: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
        x = x % band.shape[1] if wrap else x
        exists = (y >= 0) & (y < band.shape[0]) & (x >= 0) & (x < band.shape[1])
        value = band[np.where(exists, y, 0), np.where(exists, x, 0)].astype(np.float64)
        is_data = exists & np.isfinite(value) & (True if nodata is None else value != np.float64(nodata))
        return np.where(is_data, value, 0.0), is_data

    value, valid = tap(np.floor(row).astype(int), np.floor(column).astype(int))
    if resampling == "nearest":
        return value, valid
    y0, x0 = np.floor(row - 0.5).astype(int), np.floor(column - 0.5).astype(int)
    dy, dx = row - 0.5 - y0, column - 0.5 - x0
    total, weight = np.zeros_like(row), np.zeros_like(row)
    for i in (0, 1):
        for j in (0, 1):
            value, is_data = tap(y0 + i, x0 + j)
            w = np.where(is_data, (dy if i else 1 - dy) * (dx if j else 1 - dx), 0)
            total, weight = total + w * value, weight + w
    answer = total / np.where(weight > 0, weight, 1)
    if resampling == "cubic":
        total, whole = np.zeros_like(row), np.ones(row.shape, bool)
        for i in range(-1, 3):
            for j in range(-1, 3):
                value, is_data = tap(y0 + i, x0 + j)
                total, whole = total + _keys(dy - i) * _keys(dx - j) * value, whole & is_data
        answer = np.where(whole, total, answer)
    return np.where(valid, answer, 0.0), valid


def _keys(distance: Floats) -> Floats:
    d = np.abs(distance)
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
