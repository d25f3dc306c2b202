"""Longitudes across the antimeridian: regions and polygons unwrapped, closed over a pole, and cut."""

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from shapely import MultiPolygon, Polygon, box, difference, get_parts, make_valid, segmentize, union_all
from shapely.affinity import translate

from rtsx.errors import LabelError
from rtsx.geometry.crs import LONLAT, densified, has_seam, period_of, transformed

_POLE_TOLERANCE = 1e-9
"""Degrees from a pole within which a vertex has no longitude of its own."""
_DEGREE_M = 111_700.0
"""The longest degree of latitude, metres."""


def lonlat_polygon(polygon: Polygon, crs: str) -> Polygon | MultiPolygon:
    """Return the outline of a projected polygon in EPSG:4326, x = longitude in [-180, 180].

    Edges are densified to 32 pieces of the longest side first, because a straight edge is curved in degrees. What
    crosses the antimeridian is split there; a polygon around a pole reaches up to it.

    Parameters
    ----------
    polygon
        A polygon without holes in CRS units.
    crs
        Anything that pyproj reads.

    Examples
    --------
    >>> around_the_pole = lonlat_polygon(box(-1000, -1000, 1000, 1000), "EPSG:3413")
    >>> around_the_pole.bounds[0], around_the_pole.bounds[2], around_the_pole.bounds[3]
    (-180.0, 180.0, 90.0)
    """
    return _split(_unwrapped(polygon, crs))


def _unwrapped(polygon: Polygon, crs: str) -> Polygon:
    xmin, ymin, xmax, ymax = polygon.bounds
    ring = np.asarray(segmentize(polygon, max(xmax - xmin, ymax - ymin) / 32).exterior.coords)
    transformer = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
    lon, lat = transformer.transform(ring[:, 0], ring[:, 1])
    return unwrap_ring(np.column_stack([lon, lat]))


def lonlat_region(
    region: Polygon | MultiPolygon, crs: str, *, longest: float, tolerance_m: float = 0.0
) -> Polygon | MultiPolygon:
    """Return the projected ground in EPSG:4326: polygons with holes, any number of them, also around a pole or across the antimeridian.

    Parameters
    ----------
    region
        Polygons in CRS units.
    crs
        Anything that pyproj reads.
    longest
        Length of an edge above which it is densified, because a straight one is curved in degrees; CRS units.
    tolerance_m
        Vertices are left out where the outline then lies within this distance of itself.

    Examples
    --------
    >>> ring = box(-2000, -2000, 2000, 2000) - box(-1000, -1000, 1000, 1000)
    >>> around_the_pole = lonlat_region(ring, "EPSG:3413", longest=100.0)
    >>> 89.98 < around_the_pole.bounds[3] < 90, around_the_pole.bounds[2]
    (True, 180.0)
    """
    parts = []
    for part in get_parts(region):
        dense = segmentize(part, longest)
        outline, *holes = (
            _split(_simplified(_unwrapped(Polygon(ring), crs), tolerance_m))
            for ring in (dense.exterior, *dense.interiors)
        )
        parts.append(difference(make_valid(outline), union_all([make_valid(hole) for hole in holes])))
    joined = union_all(parts)
    return joined if isinstance(joined, Polygon) else MultiPolygon([one for one in get_parts(joined) if one.area > 0])


def _simplified(polygon: Polygon, tolerance_m: float) -> Polygon:
    """Return an unwrapped polygon with fewer vertices, where a degree of longitude counts as at its latitude next to the equator."""
    if not tolerance_m:
        return polygon
    _, south, _, north = polygon.bounds
    shrink = np.cos(np.radians(max(south, -north, 0.0)))
    even = shapely.transform(polygon, lambda lonlat: lonlat * (shrink, 1)).simplify(tolerance_m / _DEGREE_M)
    return shapely.transform(even, lambda lonlat: lonlat / (shrink, 1))


def unwrap_ring(ring: NDArray[np.float64]) -> Polygon:
    """Return a closed ring (n, 2) as a plane polygon whose longitudes run on beyond ±180, closed over a pole that it goes around."""
    vertices: list[tuple[float, float]] = []
    for before, here, after in zip(np.roll(ring[:-1], 1, 0), ring[:-1], np.roll(ring[:-1], -1, 0), strict=True):
        if 90 - abs(here[1]) < _POLE_TOLERANCE:  # the pole is a line in this plane: one point per neighbour
            vertices += [(before[0], here[1]), (after[0], here[1])]
        else:
            vertices.append((here[0], here[1]))
    vertices.append(vertices[0])
    lon = np.unwrap([vertex[0] for vertex in vertices], period=360)
    lat = np.array([vertex[1] for vertex in vertices])
    if abs(lon[-1] - lon[0]) > 180:  # once around
        pole = 90.0 if lat.mean() > 0 else -90.0
        lon, lat = np.append(lon, [lon[-1], lon[0]]), np.append(lat, [pole, pole])
    return Polygon(np.column_stack([lon, lat]))


def _split(polygon: Polygon) -> Polygon | MultiPolygon:
    """Return the parts of an unwrapped polygon, each moved into [-180, 180]."""
    xmin, _, xmax, _ = polygon.bounds
    first, last = (int(np.floor((x + 180) / 360)) for x in (xmin, xmax))
    if first == last == 0:
        return polygon
    parts = [
        translate(polygon.buffer(0) & box(-180 + 360 * turn, -90, 180 + 360 * turn, 90), -360 * turn)
        for turn in range(first, last + 1)
    ]
    joined = union_all([part for part in parts if part.area > 0])
    if not isinstance(joined, Polygon | MultiPolygon):
        joined = MultiPolygon([part for part in joined.geoms if isinstance(part, Polygon)])
    return joined


Geometries = NDArray[np.object_]


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
        across = crosses_antimeridian(polygons, period)
        polygons = unwrap(polygons, period)
        lonlat = unwrap(transformed(densified(polygons, crs), crs, LONLAT), 360.0)
        check_latitudes(shapely.bounds(lonlat).reshape(-1, 4))
        return lonlat, across
    lonlat = unwrap(transformed(densified(polygons, crs), crs, LONLAT), 360.0)
    bounds = shapely.bounds(lonlat).reshape(-1, 4)
    check_latitudes(bounds)
    west, south, east, north = bounds.T
    across = np.zeros(len(polygons), bool)
    for index in np.flatnonzero(east - west > 180):  # followed around the world, unless it goes around a pole
        vertices = transformed(polygons[[index]], crs, LONLAT)
        across[index] = crosses_antimeridian(vertices, 360.0)[0] and has_seam(
            crs, float(south[index] + north[index]) / 2
        )
        if across[index]:
            lonlat[index] = unwrap(vertices, 360.0)[0]
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


def crosses_antimeridian(polygons: Geometries, period: float) -> NDArray[np.bool_]:
    """Test whether a Polygon has an edge that is wider than half a turn, `(n,)` bool: so it was drawn across the antimeridian."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    vertices, ring = shapely.get_coordinates(rings, return_index=True)
    is_jump = (ring[:-1] == ring[1:]) & (np.abs(np.diff(vertices[:, 0])) > period / 2)
    jumps = np.zeros(len(polygons), bool)
    jumps[owner[ring[:-1][is_jump]]] = True
    return jumps


def unwrap(polygons: Geometries, period: float) -> Geometries:
    """Return polygons whose longitudes, in units of which `period` are a full turn, run on across the antimeridian.

    One that goes around a pole, with an edge along it, stays as it is.

    Examples
    --------
    >>> polygon = shapely.Polygon([(179, 70), (-179, 70), (-179, 71), (179, 71)])
    >>> unwrap(np.array([polygon]), 360.0)[0].bounds
    (179.0, 70.0, 181.0, 71.0)
    """
    jumps = crosses_antimeridian(polygons, period)
    if not jumps.any():
        return polygons
    continuous = polygons.copy()
    for index in np.flatnonzero(jumps):
        continuous[index] = _run_on(polygons[index], period)
    return continuous


def split_at_antimeridian(polygon: Polygon | MultiPolygon, *, west: float, inset: float) -> Geometries:
    """Return the pieces of a Polygon whose longitudes run on, cut at a meridian and moved into the turn that begins there.

    Parameters
    ----------
    polygon : shapely.Polygon or shapely.MultiPolygon
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
    >>> [piece.bounds for piece in split_at_antimeridian(shapely.box(179, 70, 181, 71), west=-180, inset=0)]
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
