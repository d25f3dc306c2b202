"""What a map hides: how long its pixels are on the ground, and where true north is."""

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer

__all__ = ["is_north_up", "metres_per_unit", "pixel_lengths", "towards_north"]

Floats = NDArray[np.float64]

_STEP = 1e-5
"""Degrees of latitude, about a metre, over which the direction of a meridian is measured: shorter, and the rounding of
coordinates shows; longer, and the meridian bends."""


_UPRIGHT = ("Mercator (variant A)", "Mercator (variant B)", "Popular Visualisation Pseudo Mercator")

_THINNEST_M = 1e-6
"""Metres that the side of a pixel has at least."""


def is_north_up(crs: str) -> bool:
    """Whether meridians are columns and parallels rows: geographic and Mercator."""
    system = CRS.from_user_input(crs)
    operation = system.coordinate_operation
    return system.is_geographic or (operation is not None and operation.method_name in _UPRIGHT)


def metres_per_unit(crs: str) -> float:
    """Length of the unit of a projected CRS."""
    return float(CRS.from_user_input(crs).axis_info[0].unit_conversion_factor)


def pixel_lengths(crs: str, edges: Floats, width: float) -> tuple[Floats, Floats]:
    """Height and width in m of the pixels of each row on the ellipsoid, along geodesics.

    Parameters
    ----------
    crs
        One in which meridians are columns.
    edges
        (row + 1,) y of the edges of rows, CRS units.
    width
        Width of a pixel, CRS units.
    """
    system = CRS.from_user_input(crs)
    geodesic = system.get_geod()
    assert geodesic is not None  # only a CRS of heights alone has no ellipsoid
    to_lonlat = _to_lonlat(system)
    x = np.zeros_like(edges)
    lon, lat = to_lonlat.transform(x, edges)
    # A raster whose pixels are centred on the pole has an edge beyond it.
    lat = np.clip(lat, -90, 90)
    _, _, heights = geodesic.inv(lon[:-1], lat[:-1], lon[1:], lat[1:])
    middle = (edges[:-1] + edges[1:]) / 2
    lon, lat = to_lonlat.transform(x[1:], middle)
    right, _ = to_lonlat.transform(x[1:] + width, middle)
    lat = np.clip(lat, -90, 90)
    _, _, widths = geodesic.inv(lon, lat, right, lat)
    # A pixel on the pole has no width, and a division has to have an answer.
    return np.maximum(heights, _THINNEST_M), np.maximum(widths, _THINNEST_M)


def towards_north(crs: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Unit vector (x, y) of true north at points of a projected CRS, in the plane of its map."""
    system = CRS.from_user_input(crs)
    to_lonlat = _to_lonlat(system)
    lon, lat = to_lonlat.transform(x, y)
    # Stepped towards the equator, because there is no north of the pole.
    step = np.where(lat > 0, -_STEP, _STEP)
    there_x, there_y = to_lonlat.transform(lon, lat + step, direction="INVERSE")
    east, north = (there_x - x) * np.sign(step), (there_y - y) * np.sign(step)
    length = np.hypot(east, north)
    return east / length, north / length


def _to_lonlat(system: CRS) -> Transformer:
    # To the CRS's own datum: a change of datum would ask for grid files, and turns nothing by a measurable angle.
    assert system.geodetic_crs is not None
    return Transformer.from_crs(system, system.geodetic_crs, always_xy=True)
