"""Footprints in longitude and latitude, and their lengths and areas on the ellipsoid."""

from collections.abc import Iterator

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints.geometry import Placement
from rtsx.footprints.schema import validate_footprints
from rtsx.geometry.antimeridian import split_at_antimeridian, unwrap_ring
from rtsx.geometry.crs import geodesic_measures, longest_edge, lonlat_transformer

Floats = NDArray[np.float64]


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
    dense = shapely.segmentize(outlines, longest_edge(crs))
    return geodesic_measures(shapely.transform(dense, lambda xy: points_to_lonlat(xy, crs)))


def centroids(outlines: NDArray[np.object_], crs: CRS) -> tuple[Floats, Floats]:
    """Return latitude and longitude, from -180 to 180 degrees, of the outlines' centres of mass in `crs`."""
    lon, lat = points_to_lonlat(shapely.get_coordinates(shapely.centroid(outlines)), crs).T
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


def points_to_lonlat(points: Floats, crs: CRS) -> Floats:
    """Convert points `(n, 2)` in `crs` to WGS84 longitude and latitude in degrees, no farther than a pole."""
    lonlat = np.column_stack(lonlat_transformer(crs).transform(points[:, 0], points[:, 1]))
    strange = ~np.isfinite(lonlat).all(axis=1) | (np.abs(lonlat[:, 1]) > 90 + _BEYOND)
    if strange.any():
        x, y = points[np.argmax(strange)]
        raise FootprintError(
            f"the point x = {x}, y = {y} has no longitude and latitude in {crs.name!r}: "
            "is the CRS of the prediction the right one?"
        )
    lonlat[:, 1] = np.clip(lonlat[:, 1], -90, 90)
    return lonlat


_BEYOND = 1.0
"""Degrees that the outer pixels of a raster of the whole Earth may reach beyond a pole, where the outermost lie on it."""


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
    dense = shapely.segmentize(outlines, longest_edge(crs))
    moved = shapely.transform(dense, lambda xy: points_to_lonlat(xy, crs))
    west, south, east, north = shapely.bounds(moved).reshape(-1, 4).T
    # No outline is 90 degrees wide unless it crosses the antimeridian or lies at a pole; a few more do no harm.
    careful = (east - west > 90) | (east > 180) | (west < -180) | (north > 89.99) | (south < -89.99)
    for index in np.flatnonzero(careful):
        moved[index] = _cut(outlines[index], crs)
    return footprints.set_geometry(geopandas.GeoSeries(moved, index=footprints.index, crs="EPSG:4326"))


def _cut(outline: shapely.Geometry, crs: CRS) -> shapely.Geometry:
    """Convert one outline that meets the antimeridian or a pole."""
    for pole in _poles(crs):
        # A vertex at the pole, instead of an edge that runs through it and whose longitude jumps by 180 degrees.
        outline = shapely.snap(outline, pole, tolerance=1e-6 * longest_edge(crs))
    edge = min(longest_edge(crs), shapely.length(outline) / 512)
    regions = []
    for part in shapely.get_parts(shapely.segmentize(outline, edge)):
        shell, *holes = (
            _fold(points_to_lonlat(shapely.get_coordinates(ring), crs)) for ring in [part.exterior, *part.interiors]
        )
        regions.append(shapely.difference(shell, shapely.union_all(holes)))
    return shapely.normalize(shapely.union_all(regions))


def _poles(crs: CRS) -> Iterator[shapely.Point]:
    """Yield the poles that have a place in a projected CRS."""
    if crs.is_geographic:
        return
    for latitude in (90.0, -90.0):
        x, y = lonlat_transformer(crs).transform(0.0, latitude, direction="INVERSE")
        if np.isfinite((x, y)).all():
            yield shapely.Point(x, y)


def _fold(ring: Floats) -> shapely.Geometry:
    """Return what a closed ring of longitudes and latitudes encloses on the map."""
    region = shapely.make_valid(unwrap_ring(ring))
    return shapely.union_all(split_at_antimeridian(region, west=-180.0, inset=0.0))
