"""Places and areas on the WGS84 ellipsoid."""

import math

import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Geod

from rtsx.cube import geobox_of
from rtsx.errors import CubeError, EvaluationError
from rtsx.labels.pyproj import densified, transformed

__all__ = ["equal_area", "lonlat_of", "pixel_area_m2", "to_plane"]

Geometries = NDArray[np.object_]
_LONLAT = CRS.from_epsg(4326)
_GEOD = Geod(ellps="WGS84")


def pixel_area_m2(pred: xr.Dataset) -> float:
    """Ground area of the pixel in the middle of a raster, m².

    Raises
    ------
    EvaluationError
        The raster has no CRS or no place on the Earth.
    """
    try:
        geobox = geobox_of(pred)
    except CubeError as error:
        raise EvaluationError(
            f"Objects are measured on the ground, and the prediction has no place there: {error}"
        ) from error
    row, column = (length // 2 for length in geobox.shape)
    transform = geobox.affine
    pixel = np.array([(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)], np.float64)
    corners = pixel @ [[transform.a, transform.d], [transform.b, transform.e]] + [transform.c, transform.f]
    ring = transformed(np.array([shapely.Polygon(corners)], np.object_), CRS.from_user_input(geobox.crs), _LONLAT)
    lon, lat = shapely.get_coordinates(ring)[:-1].T
    return abs(float(_GEOD.polygon_area_perimeter(lon, lat)[0]))


def lonlat_of(outlines: Geometries, crs: CRS) -> Geometries:
    """Outlines in longitude and latitude, degrees, their edges followed closely."""
    return transformed(densified(outlines, crs), crs, _LONLAT)


def equal_area(outlines: Geometries, crs: CRS) -> CRS:
    """Lambert's azimuthal equal-area projection about the middle of outlines, so that areas in it are true, in m²."""
    moved = transformed(shapely.centroid(outlines), crs, _LONLAT)
    lon, lat = np.radians(shapely.get_coordinates(moved)).T
    # The mean of directions, instead of angles, because 179 and -179 degrees lie side by side.
    x, y, z = (np.mean(part) for part in (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    middle = {"lat_0": math.degrees(math.atan2(z, math.hypot(x, y))), "lon_0": math.degrees(math.atan2(y, x))}
    return CRS.from_dict({"proj": "laea", "ellps": "WGS84", "units": "m"} | middle)


def to_plane(outlines: Geometries, crs: CRS, plane: CRS) -> Geometries:
    """Outlines in another CRS, their edges followed closely, and valid."""
    moved = transformed(densified(outlines, crs), crs, plane)
    broken = ~shapely.is_valid(moved)
    moved[broken] = shapely.make_valid(moved[broken])
    return moved
