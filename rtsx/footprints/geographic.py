"""Footprints in longitude and latitude, cut where the map is cut."""

from collections.abc import Iterator

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rtsx.footprints.pyproj import longest_edge, to_lonlat
from rtsx.footprints.schema import validate_footprints

__all__ = ["to_geographic"]

Floats = NDArray[np.float64]


def to_geographic(footprints: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Convert footprints to EPSG:4326, split at the antimeridian.

    Instead of `to_crs(4326)`, because that draws an outline across longitude 180 as a band around the whole Earth, and
    one around the pole as a line. Long edges get further vertices, so that they stay where they are on the ground.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        Footprints in any CRS.

    Returns
    -------
    geopandas.GeoDataFrame
        The same columns; geometry in EPSG:4326, longitudes from -180 to 180, outlines across the antimeridian as
        MultiPolygons.

    Raises
    ------
    FootprintError
        `footprints` is not what `validate_footprints` expects.
    """
    validate_footprints(footprints)
    crs = CRS.from_user_input(footprints.crs)
    outlines = np.asarray(footprints.geometry.array)
    convert = to_lonlat(crs)
    moved = shapely.transform(shapely.segmentize(outlines, longest_edge(crs)), convert)
    west, south, east, north = shapely.bounds(moved).reshape(-1, 4).T
    # No outline is 90 degrees wide unless it crosses the antimeridian or lies at a pole; a few more do no harm.
    careful = (east - west > 90) | (east > 180) | (west < -180) | (north > 89.99) | (south < -89.99)
    for index in np.flatnonzero(careful):
        moved[index] = _cut(outlines[index], crs)
    return footprints.set_geometry(geopandas.GeoSeries(moved, index=footprints.index, crs="EPSG:4326"))


def _cut(outline: shapely.Geometry, crs: CRS) -> shapely.Geometry:
    """Convert one outline that meets the antimeridian or a pole."""
    convert = to_lonlat(crs)
    for pole in _poles(crs):
        # A vertex at the pole, instead of an edge that runs through it and whose longitude jumps by 180 degrees.
        outline = shapely.snap(outline, pole, tolerance=1e-6 * longest_edge(crs))
    edge = min(longest_edge(crs), shapely.length(outline) / 512)
    regions = []
    for part in shapely.get_parts(shapely.segmentize(outline, edge)):
        shell, *holes = (
            _fold(convert(shapely.get_coordinates(ring)[:-1])) for ring in [part.exterior, *part.interiors]
        )
        regions.append(shapely.difference(shell, shapely.union_all(holes)))
    return shapely.normalize(shapely.union_all(regions))


def _poles(crs: CRS) -> Iterator[shapely.Point]:
    """Yield the poles that have a place in a projected CRS."""
    if crs.is_geographic:
        return
    transformer = Transformer.from_crs(CRS.from_epsg(4326), crs, always_xy=True)
    for latitude in (90.0, -90.0):
        x, y = transformer.transform(0.0, latitude)
        if np.isfinite((x, y)).all():
            yield shapely.Point(x, y)


def _fold(ring: Floats) -> shapely.Geometry:
    """Return what a ring of longitudes and latitudes, without its closing vertex, encloses on the map."""
    ring = _open_at_poles(ring)
    lon, lat = np.unwrap(ring[:, 0], period=360), ring[:, 1]
    turn = ring[0, 0] - ring[-1, 0]
    winding = lon[-1] + (turn - 360 * np.rint(turn / 360)) - lon[0]
    if abs(winding) > 180:
        pole = np.copysign(90.0, lat.mean())
        lon = np.append(lon, [lon[0] + winding, lon[0] + winding, lon[0]])
        lat = np.append(lat, [lat[0], pole, pole])
    region = shapely.make_valid(shapely.Polygon(np.column_stack((lon, lat))))
    pieces = []
    for turns in range(int(np.floor((lon.min() + 180) / 360)), int(np.floor((lon.max() + 180) / 360)) + 1):
        inside = shapely.intersection(region, shapely.box(360 * turns - 180, -90, 360 * turns + 180, 90))
        parts = shapely.get_parts(inside)
        areas = parts[shapely.get_dimensions(parts) == 2]
        pieces.append(shapely.transform(shapely.union_all(areas), lambda lonlat, t=turns: lonlat - (360 * t, 0)))
    return shapely.union_all(pieces)


def _open_at_poles(ring: Floats) -> Floats:
    """Replace a vertex at a pole, whose longitude means nothing, by two: at its neighbours' longitudes."""
    polar = np.abs(ring[:, 1]) > 90 - 1e-9
    start = int(np.argmin(polar))
    ring, polar = np.roll(ring, -start, axis=0), np.roll(polar, -start)
    before, after = np.roll(ring[:, 0], 1), np.roll(ring[:, 0], -1)
    doubled = np.repeat(ring, np.where(polar, 2, 1), axis=0)
    first = (np.arange(len(ring)) + np.cumsum(polar) - polar)[polar]
    doubled[first, 0], doubled[first + 1, 0] = before[polar], after[polar]
    return doubled
