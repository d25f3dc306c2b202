"""Outlines with fewer corners that still fit together."""

import math

import geopandas
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints.pyproj import centroids, measure
from rtsx.footprints.schema import arranged, validate_footprints

__all__ = ["simplify_footprints"]

Geometries = NDArray[np.object_]


def simplify_footprints(footprints: geopandas.GeoDataFrame, *, tolerance_m: float) -> geopandas.GeoDataFrame:
    """Take corners out of outlines, such as the steps of pixels.

    All outlines are simplified together, so that neighbours with a common border keep it common, holes and parts stay,
    and outlines that did not overlap do not begin to. The corner that spans the smallest triangle with its neighbours
    goes first (Visvalingam and Whyatt 1993), down to a triangle at least.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        Footprints in any CRS, also a geographic one.
    tolerance_m : float
        Corners go whose triangle has an area on the ground of less than the square of this length, in m. A pixel's
        width smooths its steps.

    Returns
    -------
    geopandas.GeoDataFrame
        The same rows and columns. Geometry, area_m2, perimeter_m and centroid are those of the simplified outlines;
        `area_outlined_m2` is the area before. What pixels told, n_pixels and prob_*, stays.

    Raises
    ------
    FootprintError
        `footprints` is not what `validate_footprints` expects, or the tolerance is no length above 0.
    """
    validate_footprints(footprints)
    if not (math.isfinite(tolerance_m) and tolerance_m > 0):
        raise FootprintError(
            f"tolerance_m is a length above 0 m, not {tolerance_m}: a pixel's width smooths the steps of pixels"
        )
    crs = CRS.from_user_input(footprints.crs)
    outlines = np.asarray(footprints.geometry.array, np.object_)
    # As an area, instead of a length, because degrees of longitude and latitude are of different lengths, while the
    # area of a triangle is stretched alike in all directions.
    before, _ = measure(outlines, crs)
    tolerance = tolerance_m * np.sqrt(shapely.area(outlines) / before)
    simple = outlines.copy()
    for members in _clusters(outlines):
        simple[members] = _simplify(outlines[members], tolerance=float(tolerance[members].min()))
    area, perimeter = measure(simple, crs)
    lat, lon = centroids(simple, crs)
    if "area_outlined_m2" in footprints.columns:
        before = footprints["area_outlined_m2"].to_numpy(float)  # simplified once more
    geometry = geopandas.GeoSeries(simple, index=footprints.index, crs=footprints.crs)
    return arranged(
        footprints.set_geometry(geometry).assign(
            area_m2=area, perimeter_m=perimeter, centroid_lat=lat, centroid_lon=lon, area_outlined_m2=before
        )
    )


def _clusters(outlines: Geometries) -> list[NDArray[np.int64]]:
    """Return outlines whose bounding boxes meet, together.

    Others cannot get in each other's way, because an outline without some of its corners stays in its box.
    """
    boxes = shapely.box(*shapely.bounds(outlines).reshape(-1, 4).T)
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    graph = scipy.sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(len(boxes),) * 2)
    _, cluster = scipy.sparse.csgraph.connected_components(graph, directed=False)
    order = np.argsort(cluster, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1) if len(order) else []


def _simplify(outlines: Geometries, *, tolerance: float) -> Geometries:
    """Simplify outlines together; a corner of one that lies on the border of another is a corner of both."""
    if len(outlines) == 1:
        simple = shapely.coverage_simplify(outlines, tolerance)
    else:
        faces, owned = _faces(outlines)
        faces = shapely.coverage_simplify(faces, tolerance)
        simple = np.array([shapely.union_all(faces[members]) for members in owned], np.object_)
    is_sound = shapely.is_valid(simple) & (shapely.area(simple) > 0) & np.isin(shapely.get_type_id(simple), (3, 6))
    # Otherwise all stay, because one that stays alone would no longer fit its neighbours.
    return np.asarray(shapely.normalize(simple), np.object_) if is_sound.all() else outlines


def _faces(outlines: Geometries) -> tuple[Geometries, list[NDArray[np.int64]]]:
    """Return the pieces of ground that the borders of outlines divide it into, and those of each outline."""
    borders = shapely.union_all(shapely.boundary(outlines))
    faces = np.asarray(shapely.get_parts(shapely.polygonize([borders])), np.object_)
    owner, face = shapely.STRtree(shapely.point_on_surface(faces)).query(outlines, predicate="contains")
    is_owned = np.zeros(len(faces), bool)
    is_owned[face] = True
    number = np.cumsum(is_owned) - 1
    return faces[is_owned], [number[face[owner == outline]] for outline in range(len(outlines))]
