"""Outlines in geocentric coordinates, brought to the ground."""

from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rtsx.errors import LabelError
from rtsx.labels.pyproj import crs_text
from rtsx.labels.report import Finding

__all__ = ["Hemisphere", "from_geocentric"]

Geometries = NDArray[np.object_]
Floats = NDArray[np.float64]
Hemisphere = Literal["north", "south"]

_HIGHEST_M = 20_000.0
"""Metres off the ellipsoid beyond which nothing lies on the ground."""


def from_geocentric(
    outlines: Geometries, crs: CRS, *, hemisphere: Hemisphere | None
) -> tuple[Geometries, list[Finding]]:
    """Bring outlines in metres from the Earth's centre to longitude and latitude.

    Geocentric coordinates are three: with X, Y and Z they are exact. Software that writes plane polygons loses Z. Then X and
    Y tell the longitude, and how far the axis is; on the ellipsoid that leaves two places, one in each hemisphere, and the
    caller has to say which. Heights cannot be told any more: a place 1000 m above the ellipsoid comes out up to
    1000 m / tan(latitude) too far from its pole.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` Polygons, MultiPolygons or None.
    crs : pyproj.CRS
        Geocentric.
    hemisphere : "north", "south" or None
        Where outlines without Z lie.

    Returns
    -------
    tuple
        `(row,)` in EPSG:4326, None where the ground has no such place; and what was found.

    Raises
    ------
    LabelError
        There are outlines without Z, and `hemisphere` is None.
    """
    there = shapely.is_geometry(outlines)
    flat = there & ~shapely.has_z(outlines)
    if flat.any() and hemisphere is None:
        raise LabelError(
            f"{int(flat.sum())} of {int(there.sum())} labels lie in {crs_text(crs)}, which is geocentric: metres from the Earth's centre along "
            "three axes. Z is missing, without which a place in the north and one in the south look the same. Use a file in "
            "another CRS, or say hemisphere='north' or 'south' (--hemisphere): labels are then taken to lie on the ellipsoid."
        )
    transformer = Transformer.from_crs(crs, CRS.from_epsg(4979), always_xy=True)
    moved = np.full(len(outlines), None, np.object_)
    findings = []
    for row in np.flatnonzero(there):
        coordinates = shapely.get_coordinates(outlines[row], include_z=True)
        x, y, z = coordinates.T
        if flat[row]:
            z = _z_on_ellipsoid(np.hypot(x, y), crs) * (1 if hemisphere == "north" else -1)
        lon, lat, height = transformer.transform(x, y, z)
        if not np.isfinite(lat).all() or np.abs(height).max() > _HIGHEST_M:
            detail = f"X = {x[0]:.0f} m, Y = {y[0]:.0f} m is no place on the ground in {crs_text(crs)}"
            findings.append(Finding(row=int(row), problem="no place on Earth", action="dropped", detail=detail))
            continue
        lonlat = np.column_stack((lon, lat))
        moved[row] = shapely.transform(shapely.force_2d(outlines[row]), lambda _, lonlat=lonlat: lonlat)
        if flat[row]:
            detail = f"geocentric without Z: taken to lie on the ellipsoid, in the {hemisphere}"
            findings.append(Finding(row=int(row), problem="height missing", action="repaired", detail=detail))
    return moved, findings


def _z_on_ellipsoid(radius: Floats, crs: CRS) -> Floats:
    """Z of points of the ellipsoid whose distance from the axis is given, m; NaN where there is none."""
    assert crs.ellipsoid is not None  # a geocentric CRS has one
    a, b = crs.ellipsoid.semi_major_metre, crs.ellipsoid.semi_minor_metre
    inside = 1 - (radius / a) ** 2
    return np.asarray(b * np.sqrt(np.where(inside >= 0, inside, np.nan)), np.float64)
