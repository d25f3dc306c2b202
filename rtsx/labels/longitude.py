"""Longitudes that run on across the antimeridian, instead of jumping from one end of the world to the other."""

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import LabelError
from rtsx.labels.pyproj import densified, has_seam, period_of, transformed

__all__ = ["check_latitudes", "cut", "jumping", "to_lonlat", "unwrapped"]

Geometries = NDArray[np.object_]

_LONLAT = CRS.from_epsg(4326)


def to_lonlat(polygons: Geometries, crs: CRS) -> tuple[Geometries, NDArray[np.bool_]]:
    """Convert Polygons to longitude and latitude, running on across the antimeridian.

    Edges are straight in `crs`: long ones get further vertices first.

    Parameters
    ----------
    polygons : numpy.ndarray
        `(n,)` Polygons in `crs`, which is geographic or projected.
    crs : pyproj.CRS
        Theirs.

    Returns
    -------
    tuple of numpy.ndarray
        `(n,)` Polygons in degrees on WGS84, longitudes perhaps beyond 180; and `(n,)` bool, whether the polygon was drawn
        with an edge from one end of the world to the other, which is taken for one across the antimeridian.

    Raises
    ------
    LabelError
        A vertex has no longitude and latitude, or a latitude beyond the poles.
    """
    if (period := period_of(crs)) is not None:
        across = jumping(polygons, period)
        polygons = unwrapped(polygons, period)
        lonlat = unwrapped(transformed(densified(polygons, crs), crs, _LONLAT), 360.0)
        check_latitudes(shapely.bounds(lonlat).reshape(-1, 4))
        return lonlat, across
    lonlat = unwrapped(transformed(densified(polygons, crs), crs, _LONLAT), 360.0)
    bounds = shapely.bounds(lonlat).reshape(-1, 4)
    check_latitudes(bounds)
    west, south, east, north = bounds.T
    across = np.zeros(len(polygons), bool)
    for index in np.flatnonzero(east - west > 180):  # followed around the world, unless it goes around a pole
        vertices = transformed(polygons[[index]], crs, _LONLAT)
        across[index] = jumping(vertices, 360.0)[0] and has_seam(crs, float(south[index] + north[index]) / 2)
        if across[index]:
            lonlat[index] = unwrapped(vertices, 360.0)[0]
    return lonlat, across


def check_latitudes(bounds: NDArray[np.float64]) -> None:
    """Refuse rectangles of longitude and latitude, `(n, 4)` degrees, beyond the poles."""
    beyond = np.abs(bounds[:, [1, 3]]).max(axis=1, initial=0) > 90 + 1e-9
    if beyond.any():
        south, north = bounds[np.argmax(beyond), [1, 3]]
        raise LabelError(
            f"{int(beyond.sum())} of {len(bounds)} labels lie beyond the poles; the first has a latitude of "
            f"{max(south, north, key=abs)}. Are longitude and latitude swapped? rtsx.standardise_labels finds out and swaps "
            "them back."
        )


def jumping(polygons: Geometries, period: float) -> NDArray[np.bool_]:
    """Whether a Polygon has an edge that is wider than half a turn, `(n,)` bool: so it was drawn across the antimeridian."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    vertices, ring = shapely.get_coordinates(rings, return_index=True)
    is_jump = (ring[:-1] == ring[1:]) & (np.abs(np.diff(vertices[:, 0])) > period / 2)
    jumps = np.zeros(len(polygons), bool)
    jumps[owner[ring[:-1][is_jump]]] = True
    return jumps


def unwrapped(polygons: Geometries, period: float) -> Geometries:
    """Polygons whose longitudes, in units of which `period` are a full turn, run on across the antimeridian.

    One that goes around a pole, with an edge along it, stays as it is.

    Examples
    --------
    >>> polygon = shapely.Polygon([(179, 70), (-179, 70), (-179, 71), (179, 71)])
    >>> unwrapped(np.array([polygon]), 360.0)[0].bounds
    (179.0, 70.0, 181.0, 71.0)
    """
    jumps = jumping(polygons, period)
    if not jumps.any():
        return polygons
    continuous = polygons.copy()
    for index in np.flatnonzero(jumps):
        continuous[index] = _run_on(polygons[index], period)
    return continuous


def cut(polygon: shapely.Polygon, *, west: float, inset: float) -> Geometries:
    """Pieces of a Polygon whose longitudes run on, cut at a meridian and moved into the turn that begins there.

    Parameters
    ----------
    polygon : shapely.Polygon
        In degrees.
    west : float
        Longitude of the meridian.
    inset : float
        Degrees that pieces stay off it.

    Returns
    -------
    numpy.ndarray
        `(n,)` Polygons with longitudes from `west` to `west` + 360.

    Examples
    --------
    >>> [piece.bounds for piece in cut(shapely.box(179, 70, 181, 71), west=-180, inset=0)]
    [(179.0, 70.0, 180.0, 71.0), (-180.0, 70.0, -179.0, 71.0)]
    """
    low, south, high, north = polygon.bounds
    pieces: list[shapely.Polygon] = []
    for turn in range(int(np.floor((low - west) / 360)), int(np.ceil((high - west) / 360))):
        start = west + 360 * turn
        piece = shapely.intersection(polygon, shapely.box(start + inset, south, start + 360 - inset, north))
        shift = np.array([360 * turn, 0])
        whole = [one for one in shapely.get_parts(piece) if one.geom_type == "Polygon"]
        pieces += [shapely.transform(one, lambda lonlat, shift=shift: lonlat - shift) for one in whole]
    return np.array(pieces, np.object_)


def _run_on(polygon: shapely.Polygon, period: float) -> shapely.Polygon:
    rings = []
    for ring in (polygon.exterior, *polygon.interiors):
        vertices = shapely.get_coordinates(ring)
        vertices[:, 0] = np.unwrap(vertices[:, 0], period=period)
        if abs(vertices[-1, 0] - vertices[0, 0]) > period / 2:
            return polygon
        rings.append(vertices)
    shell, *holes = rings
    for hole in holes:
        hole[:, 0] += period * np.rint((shell[:, 0].mean() - hole[:, 0].mean()) / period)
    return shapely.Polygon(shell, holes)
