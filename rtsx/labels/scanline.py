"""Pixels whose centre lies in an outline, by scan lines that do not depend on the window they are asked for."""

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["paint"]


def paint(values: NDArray[np.uint8], outline: shapely.Geometry, *, number: int, origin: tuple[int, int]) -> None:
    """Set the pixels whose centre lies in an outline to a number, in place.

    Written out, instead of GDAL's rasterisation, because that computes with coordinates relative to the window: where a
    border meets a pixel centre, rounding lets two windows answer differently, and it fills such pixels on both sides.

    Parameters
    ----------
    values : numpy.ndarray
        `(y, x)` uint8, a window of the raster.
    outline : shapely.Geometry
        A valid Polygon or MultiPolygon in pixel coordinates of the whole raster: x is the column, y the row, corners of
        pixels are whole numbers. It may reach beyond the raster.
    number : int
        What the pixels become.
    origin : tuple of int
        Row and column of the window's first pixel.

    Notes
    -----
    Even-odd rule. A centre on a border lies in the outline below it, or right of it: of two outlines that share a border
    one has it, never both.

    Examples
    --------
    >>> values = np.zeros((3, 4), np.uint8)
    >>> paint(values, shapely.box(0.5, 0, 2.5, 2), number=1, origin=(0, 0))
    >>> values
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 0, 0]], dtype=uint8)
    """
    (row, column), (height, width) = origin, values.shape
    left, top, right, bottom = shapely.bounds(outline)
    rows = _meeting(top, bottom, first=row, length=height)
    columns = _meeting(left, right, first=column, length=width)
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        return
    inside = _inside(outline, rows, columns)
    values[rows[0] - row : rows[1] - row, columns[0] - column : columns[1] - column][inside] = number


def _meeting(low: float, high: float, *, first: int, length: int) -> tuple[int, int]:
    """Half-open range of the pixels of a window that an interval meets."""
    return max(first, int(np.floor(low))), min(first + length, int(np.ceil(high)))


def _inside(outline: shapely.Geometry, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether centres lie inside, (y, x) of half-open ranges."""
    (top, bottom), (left, right) = rows, columns
    rings = shapely.get_rings(shapely.get_parts(outline))
    vertices, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[:-1] == ring[1:]
    before, after = vertices[:-1][same], vertices[1:][same]
    # From top to bottom, because neighbours walk a shared border in opposite ways and have to find the same crossings.
    is_upward = (before[:, 1] > after[:, 1])[:, None]
    start, end = np.where(is_upward, after, before), np.where(is_upward, before, after)
    first = np.clip(np.ceil(start[:, 1] - 0.5), top, bottom).astype(np.int64)
    count = np.clip(np.ceil(end[:, 1] - 0.5), top, bottom).astype(np.int64) - first
    edge = np.repeat(np.arange(len(count)), count)
    line = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x, y), (run, rise) = start[edge].T, (end - start)[edge].T
    crossing = x + (line + 0.5 - y) * run / rise
    column = np.clip(np.ceil(crossing - 0.5), left, right).astype(np.int64)
    height, width = bottom - top, right - left
    place = (line - top) * (width + 1) + column - left
    crossed = np.bincount(place, minlength=height * (width + 1)).reshape(height, width + 1)
    is_inside: NDArray[np.bool_] = np.cumsum(crossed[:, :-1], axis=1) % 2 == 1
    return is_inside
