"""Measures on the WGS84 ellipsoid, because a conformal projection stretches areas by several per cent."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import cast

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from rtsx.errors import FootprintError
from rtsx.footprints.placement import Placement

__all__ = ["LONGEST_EDGE_M", "centroids", "largest_pixel_m2", "longest_edge", "measure", "to_lonlat"]

Floats = NDArray[np.float64]

LONGEST_EDGE_M = 500.0
"""An edge that is straight on the grid is followed in steps of this length; over 500 m a straight edge in EPSG:3413
leaves the geodesic by less than 2 cm."""

_GEOD = Geod(ellps="WGS84")


def measure(outlines: NDArray[np.object_], crs: CRS) -> tuple[Floats, Floats]:
    """Measure area and perimeter of outlines on the WGS84 ellipsoid.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(n,)` Polygons or MultiPolygons in `crs`; holes are taken off the area and add to the perimeter. Outlines
        across the antimeridian and around a pole are measured like any other.
    crs : pyproj.CRS
        Projected or geographic; edges are straight in it.

    Returns
    -------
    tuple of numpy.ndarray
        Area in m² and perimeter in m, `(n,)` float64.

    Raises
    ------
    FootprintError
        An outline lies where `crs` has no longitude and latitude.
    """
    if len(outlines) == 0:
        return np.empty(0), np.empty(0)
    dense = shapely.segmentize(outlines, longest_edge(crs))
    parts, owner = shapely.get_parts(dense, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    coordinates = shapely.get_coordinates(rings)
    lon, lat = to_lonlat(crs)(coordinates).T
    ends = np.cumsum([0, *shapely.get_num_coordinates(rings)])
    measured = [_GEOD.polygon_area_perimeter(lon[i : j - 1], lat[i : j - 1]) for i, j in pairwise(ends)]
    area, perimeter = np.abs(measured).T
    is_shell = np.diff(part, prepend=-1) > 0
    owner_of_ring = owner[part]
    totals = np.zeros((2, len(outlines)))
    np.add.at(totals[0], owner_of_ring, np.where(is_shell, area, -area))
    np.add.at(totals[1], owner_of_ring, perimeter)
    return totals[0], totals[1]


def centroids(outlines: NDArray[np.object_], crs: CRS) -> tuple[Floats, Floats]:
    """Return latitude and longitude, from -180 to 180 degrees, of the outlines' centres of mass in `crs`."""
    lon, lat = to_lonlat(crs)(shapely.get_coordinates(shapely.centroid(outlines))).T
    return lat, np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)


def largest_pixel_m2(placement: Placement) -> float:
    """Return an upper bound of the ground area of one pixel, in m²; infinite where it cannot be told.

    The largest of a lattice of 17 by 17 pixels over the raster and five per cent, because scale changes slowly.
    """
    rows, columns = (np.unique(np.linspace(0, length - 1, 17).astype(int)) for length in placement.shape)
    column, row = (axis.ravel() for axis in np.meshgrid(columns, rows))
    scale, shift = (placement.transform.a, placement.transform.e), (placement.transform.c, placement.transform.f)
    pixels = shapely.transform(shapely.box(column, row, column + 1, row + 1), lambda pixel: pixel * scale + shift)
    try:
        area, _ = measure(pixels, placement.crs)
    except FootprintError:
        return float("inf")
    return float(area.max()) * 1.05


def longest_edge(crs: CRS) -> float:
    """Return `LONGEST_EDGE_M` in the unit of `crs`: for a geographic one, degrees of latitude."""
    factor = crs.axis_info[0].unit_conversion_factor
    return LONGEST_EDGE_M / (factor * 6_371_000.0 if crs.is_geographic else factor)


def to_lonlat(crs: CRS) -> Callable[[Floats], Floats]:
    """Return a function from `(n, 2)` x and y in `crs` to `(n, 2)` WGS84 longitude and latitude in degrees."""
    transformer = _transformer(crs.to_wkt())

    def convert(coordinates: Floats) -> Floats:
        lonlat = cast("Floats", np.column_stack(transformer.transform(coordinates[:, 0], coordinates[:, 1])))
        strange = ~np.isfinite(lonlat).all(axis=1)
        if strange.any():
            x, y = coordinates[np.argmax(strange)]
            raise FootprintError(
                f"the point x = {x}, y = {y} has no longitude and latitude in {crs.name!r}: "
                "is the CRS of the prediction the right one?"
            )
        return lonlat

    return convert


@lru_cache(maxsize=32)
def _transformer(wkt: str) -> Transformer:
    return Transformer.from_crs(CRS.from_wkt(wkt), CRS.from_epsg(4326), always_xy=True)
