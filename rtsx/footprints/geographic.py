"""Footprints in longitude and latitude, and their lengths and areas on the ellipsoid."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import cast

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from rtsx.errors import FootprintError
from rtsx.footprints.geometry import Placement
from rtsx.footprints.schema import validate_footprints
from rtsx.geometry.crs import longest_edge

Floats = NDArray[np.float64]

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
    lon, lat = lonlat_converter(crs)(coordinates).T
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
    lon, lat = lonlat_converter(crs)(shapely.get_coordinates(shapely.centroid(outlines))).T
    return lat, np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)


def largest_pixel_m2(placement: Placement) -> float:
    """Return an upper bound of the ground area of one pixel, in m²; infinite where it cannot be told.

    The largest of a pixel grid of 17 by 17 pixels over the raster and five per cent, because scale changes slowly.
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


def lonlat_converter(crs: CRS) -> Callable[[Floats], Floats]:
    """Return a function from `(n, 2)` x and y in `crs` to `(n, 2)` WGS84 longitude and latitude in degrees, no farther than a pole."""
    transformer = _transformer(crs.to_wkt())

    def convert(coordinates: Floats) -> Floats:
        lonlat = cast("Floats", np.column_stack(transformer.transform(coordinates[:, 0], coordinates[:, 1])))
        strange = ~np.isfinite(lonlat).all(axis=1) | (np.abs(lonlat[:, 1]) > 90 + _BEYOND)
        if strange.any():
            x, y = coordinates[np.argmax(strange)]
            raise FootprintError(
                f"the point x = {x}, y = {y} has no longitude and latitude in {crs.name!r}: "
                "is the CRS of the prediction the right one?"
            )
        lonlat[:, 1] = np.clip(lonlat[:, 1], -90, 90)
        return lonlat

    return convert


_BEYOND = 1.0
"""Degrees that the outer pixels of a raster of the whole Earth may reach beyond a pole, where the outermost lie on it."""


@lru_cache(maxsize=32)
def _transformer(wkt: str) -> Transformer:
    return Transformer.from_crs(CRS.from_wkt(wkt), CRS.from_epsg(4326), always_xy=True)


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
    convert = lonlat_converter(crs)
    moved = shapely.transform(shapely.segmentize(outlines, longest_edge(crs)), convert)
    west, south, east, north = shapely.bounds(moved).reshape(-1, 4).T
    # No outline is 90 degrees wide unless it crosses the antimeridian or lies at a pole; a few more do no harm.
    careful = (east - west > 90) | (east > 180) | (west < -180) | (north > 89.99) | (south < -89.99)
    for index in np.flatnonzero(careful):
        moved[index] = _cut(outlines[index], crs)
    return footprints.set_geometry(geopandas.GeoSeries(moved, index=footprints.index, crs="EPSG:4326"))


def _cut(outline: shapely.Geometry, crs: CRS) -> shapely.Geometry:
    """Convert one outline that meets the antimeridian or a pole."""
    convert = lonlat_converter(crs)
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
