"""Outlines of any CRS in longitude and latitude, and those that have none."""

from textwrap import shorten

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rtsx.labels.axes import in_area
from rtsx.labels.longitude import cut, jumping, to_lonlat
from rtsx.labels.pyproj import crs_text
from rtsx.labels.report import Finding

__all__ = ["on_earth", "to_geographic"]

Geometries = NDArray[np.object_]

_OFF_M = 1.0
"""Metres by which a vertex may miss its own place on the way to longitude and latitude and back."""
_AREA_MARGIN = 10.0
"""Degrees around the area that a CRS is made for within which nothing is said."""


def on_earth(outlines: Geometries, crs: CRS) -> tuple[Geometries, list[Finding]]:
    """Drop outlines whose CRS gives them no longitude and latitude, and tell of those far from where it is made for.

    A vertex has a place when it comes back to within 1 m from longitude and latitude: projections answer something for
    numbers that they are not made for.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` Polygons, MultiPolygons or None.
    crs : pyproj.CRS
        Geographic or projected.
    """
    kept = outlines.copy()
    findings = []
    there = np.flatnonzero(shapely.is_geometry(outlines))
    vertices, owner = shapely.get_coordinates(outlines[there], return_index=True)
    placeless, far = _strange(vertices, crs)
    strange = np.unique(owner[placeless | far])
    starts, stops = (np.searchsorted(owner, strange, side=side) for side in ("left", "right"))
    for position, start, stop in zip(strange, starts, stops, strict=True):
        row = int(there[position])
        mine = slice(start, stop)
        x, y = vertices[mine][np.argmax((placeless if placeless[mine].any() else far)[mine])]
        if placeless[mine].any():
            kept[row] = None
            detail = f"x = {x:.6g}, y = {y:.6g} has no longitude and latitude in {crs_text(crs)}: is that its CRS?"
            findings.append(Finding(row=row, problem="no place on Earth", action="dropped", detail=detail))
        else:
            area = crs.area_of_use
            made_for = shorten(area.name, width=80, placeholder=" ...") if area else "elsewhere"
            detail = f"{crs_text(crs)} is made for {made_for}: is that its CRS?"
            findings.append(Finding(row=row, problem="far from the area of its CRS", action="kept", detail=detail))
    return kept, findings


def to_geographic(outlines: Geometries, crs: CRS) -> tuple[Geometries, list[Finding]]:
    """Convert outlines to EPSG:4326, long edges followed, longitudes from -180 to 180, cut at the antimeridian.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` valid Polygons, MultiPolygons or None, which `on_earth` has passed.
    crs : pyproj.CRS
        Geographic or projected.
    """
    there = np.flatnonzero(shapely.is_geometry(outlines))
    parts, owner = shapely.get_parts(outlines[there], return_index=True)
    lonlat, across = to_lonlat(parts, crs)
    polar = jumping(lonlat, 360.0) if len(lonlat) else np.zeros(0, bool)
    west, _, east, _ = shapely.bounds(lonlat).reshape(-1, 4).T
    pieces: list[list[shapely.Polygon]] = [[] for _ in there]
    for position, part in enumerate(lonlat):
        inside = west[position] >= -180 and east[position] <= 180
        pieces[owner[position]] += [part] if inside else cut(part, west=-180.0, inset=0.0).tolist()
    moved = np.full(len(outlines), None, np.object_)
    findings = []
    for place, mine in zip(there, pieces, strict=True):
        moved[place] = mine[0] if len(mine) == 1 else shapely.multipolygons(mine)
    for position in np.unique(owner[polar]):
        moved[there[position]] = None
        detail = "goes around a pole, where longitude and latitude enclose nothing"
        row = int(there[position])
        findings.append(Finding(row=row, problem="around a pole", action="dropped", detail=detail))
    for position in np.setdiff1d(owner[across], owner[polar]):
        detail = "had an edge from 180 to -180 degrees, around the world: cut at the antimeridian"
        row = int(there[position])
        findings.append(Finding(row=row, problem="drawn around the world", action="repaired", detail=detail))
    return moved, findings


def _strange(vertices: NDArray[np.float64], crs: CRS) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether vertices have no place, and whether they have one far from the area that the CRS is made for."""
    transformer = Transformer.from_crs(crs, CRS.from_epsg(4326), always_xy=True)
    x, y = vertices.T
    lon, lat = (np.asarray(one) for one in transformer.transform(x, y))
    if crs.is_geographic:
        placeless = ~np.isfinite(lat) | (np.abs(lat) > 90 + 1e-9) | (np.abs(lon) > 540)
        return placeless, ~placeless & ~in_area(lon, lat, crs, margin=_AREA_MARGIN)
    back_x, back_y = (np.asarray(one) for one in transformer.transform(lon, lat, direction="INVERSE"))
    with np.errstate(invalid="ignore"):
        off = np.hypot(back_x - x, back_y - y) * crs.axis_info[0].unit_conversion_factor
        # The two ends of a cylinder are one meridian, which comes back at either.
        placeless = ~(off <= _OFF_M) & ~((np.abs(np.abs(lon) - 180) < 1e-6) & np.isfinite(off))
    return placeless, ~placeless & ~in_area(lon, lat, crs, margin=_AREA_MARGIN)
