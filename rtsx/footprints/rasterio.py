"""Outlines of labelled pixels by GDAL's polygonizer."""

from itertools import chain
from threading import Lock

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

__all__ = ["trace"]

# Until rasterio stops filtering warnings while it makes an array a dataset, which is not safe between threads and lets
# a NotGeoreferencedWarning out. It holds the interpreter's lock throughout, so that waiting costs nothing.
_ONE_AT_A_TIME = Lock()


def trace(labels: NDArray[np.int32], count: int, *, origin: tuple[int, int]) -> NDArray[np.object_]:
    """Outline labelled objects along their pixel borders.

    Parameters
    ----------
    labels : numpy.ndarray
        `(y, x)` int32; 0 is background, objects are 1 to `count`, each with at least one pixel.
    count : int
        Number of objects.
    origin : tuple of int
        Row and column of the first pixel; added to the coordinates.

    Returns
    -------
    numpy.ndarray
        `(count,)` of valid Polygons or MultiPolygons in pixel coordinates: x is the column, y the row, whole numbers,
        vertices at corners only, holes kept. The parts of a MultiPolygon meet in corners.

    Examples
    --------
    >>> trace(np.array([[1, 0], [0, 1]], np.int32), 1, origin=(0, 0))[0].wkt
    'MULTIPOLYGON (((0 0, 0 1, 1 1, 1 0, 0 0)), ((1 1, 1 2, 2 2, 2 1, 1 1)))'
    """
    if count == 0:
        return np.empty(0, np.object_)
    # Four-connected parts, put together by their label, because GDAL's eight-connected outlines cross
    # themselves where pixels meet in a corner, which no geometry library accepts as a polygon.
    polygons: list[list[list[tuple[float, float]]]] = []
    owners: list[int] = []
    with _ONE_AT_A_TIME:
        for geometry, label in rasterio.features.shapes(labels, mask=labels > 0, connectivity=4):
            polygons.append(geometry["coordinates"])
            owners.append(int(label) - 1)
    rings = list(chain.from_iterable(polygons))
    coordinates = np.array(list(chain.from_iterable(rings)), np.float64)
    coordinates += np.array(origin[::-1])
    ring_offsets = np.cumsum([0, *map(len, rings)])
    polygon_offsets = np.cumsum([0, *map(len, polygons)])
    parts = shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, (ring_offsets, polygon_offsets))
    return _gather(parts, np.array(owners), count)


def _gather(parts: NDArray[np.object_], owners: NDArray[np.int64], count: int) -> NDArray[np.object_]:
    order = np.argsort(owners, kind="stable")
    parts, owners = parts[order], owners[order]
    several = np.bincount(owners, minlength=count) > 1
    outlines = np.empty(count, np.object_)
    single = ~several[owners]
    outlines[owners[single]] = parts[single]
    if several.any():
        rank = np.cumsum(several) - 1
        outlines[several] = shapely.multipolygons(parts[~single], indices=rank[owners[~single]])
    return outlines
