"""Ground of a cube: the raster of a region on a grid, and what to search for it."""

import math

from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.errors import CubeError
from rtsx.grid import Grid, lonlat_polygon

__all__ = ["region_geobox", "search_area"]

_LARGEST = 2**31
"""Pixels per side of the largest raster that is taken for meant."""


def region_geobox(grid: Grid, region: BaseGeometry) -> GeoBox:
    """The smallest raster of a grid's pixels around a region.

    Parameters
    ----------
    grid
        Whose pixels.
    region
        Any shapely geometry in longitude and latitude, not empty.

    Raises
    ------
    CubeError
        The region has no extent on this grid.

    Examples
    --------
    >>> from shapely import box
    >>> region_geobox(Grid.arctic(resolution=30), box(-139.3, 69.5, -138.9, 69.65)).shape
    Shape2d(x=595, y=560)
    """
    xmin, ymin, xmax, ymax = grid.projected(region).bounds
    left, right = (xmin - grid.origin[0]) / grid.resolution, (xmax - grid.origin[0]) / grid.resolution
    top, bottom = (grid.origin[1] - ymax) / grid.resolution, (grid.origin[1] - ymin) / grid.resolution
    rows, columns = (math.floor(top), math.ceil(bottom)), (math.floor(left), math.ceil(right))
    for what, (start, stop) in (("rows", rows), ("columns", columns)):
        if not 0 < stop - start < _LARGEST:
            raise CubeError(
                f"The region {region.bounds} spans {stop - start} {what} of {grid}. Give it as longitude and latitude, in "
                "this order, with an area."
            )
    return grid.window(rows, columns)


def search_area(geobox: GeoBox) -> BaseGeometry:
    """Outline of a raster in longitude and latitude, split at the antimeridian; what sources are asked for."""
    return lonlat_polygon(geobox.extent.geom, str(geobox.crs))
