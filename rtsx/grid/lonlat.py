"""Outlines in longitude and latitude that stay true at the antimeridian and at the poles."""

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from shapely import MultiPolygon, Polygon, box, difference, get_parts, make_valid, segmentize, union_all
from shapely.affinity import translate

__all__ = ["lonlat_polygon", "lonlat_region"]

_POLE_TOLERANCE = 1e-9
"""Degrees from a pole within which a vertex has no longitude of its own."""


def lonlat_polygon(polygon: Polygon, crs: str) -> Polygon | MultiPolygon:
    """Outline of a projected polygon in EPSG:4326, x = longitude in [-180, 180].

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
    xmin, ymin, xmax, ymax = polygon.bounds
    ring = np.asarray(segmentize(polygon, max(xmax - xmin, ymax - ymin) / 32).exterior.coords)
    transformer = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
    lon, lat = transformer.transform(ring[:, 0], ring[:, 1])
    return _split(_unwrapped(np.column_stack([lon, lat])))


def lonlat_region(region: Polygon | MultiPolygon, crs: str, *, longest: float) -> Polygon | MultiPolygon:
    """Projected ground in EPSG:4326: polygons with holes, any number of them, also around a pole or across the antimeridian.

    Parameters
    ----------
    region
        Polygons in CRS units.
    crs
        Anything that pyproj reads.
    longest
        Length of an edge above which it is densified, because a straight one is curved in degrees; CRS units.

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
        outline = lonlat_polygon(Polygon(dense.exterior), crs)
        holes = [lonlat_polygon(Polygon(ring), crs) for ring in dense.interiors]
        parts.append(difference(make_valid(outline), union_all([make_valid(hole) for hole in holes])))
    joined = union_all(parts)
    return joined if isinstance(joined, Polygon) else MultiPolygon([one for one in get_parts(joined) if one.area > 0])


def _unwrapped(ring: NDArray[np.float64]) -> Polygon:
    """The ring as a plane polygon whose longitudes run on beyond ±180, closed over a pole that it goes around."""
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
    """The parts of an unwrapped polygon, each moved into [-180, 180]."""
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
