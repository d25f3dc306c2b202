"""Flag doubtful footprints instead of deleting them: by water, shape and size; and simplify outlines that still fit together."""

import math
import warnings
from collections.abc import Sequence

import geopandas
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints.geometry import Placement, components, measure, measured_columns
from rtsx.footprints.schema import FLAGS, reorder, validate_footprints
from rtsx.geometry.crs import cached_transformer

WATER_PART = 0.2
"""Part of an outline (0-1) that may be water unless something else is said."""


def clean_footprints(
    footprints: geopandas.GeoDataFrame,
    *,
    min_area_m2: float = 288.0,
    min_pixels: int = 0,
    edge: bool = True,
    max_water: float | None = WATER_PART,
    min_prob_mean: float = 0.0,
    min_prob_max: float = 0.0,
    keep: Sequence[str] | None = None,
) -> geopandas.GeoDataFrame:
    """Flag outlines by rules, and leave rows out only when asked to.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        What `extract_footprints` or `merge_footprints` gives. Flags that are there already are made anew.
    min_area_m2, min_pixels : float, int
        "small": an outline of less, in m² on the ellipsoid or in pixels. 288 m² are 32 pixels of 3 m.
    edge : bool
        "edge": an outline with `touches_edge`, so that the true one may go on in ground without data.
    max_water : float, optional
        "water": an outline of which more than this part (0-1) is water. Applies where there is a column
        `water_fraction`, which `extract_footprints(..., water=...)` gives; None for no such rule.
    min_prob_mean, min_prob_max : float
        "weak": an outline whose mean or largest probability (0-1) is lower.
    keep : sequence of str, optional
        Flags that a row may have and stay: `()` leaves only rows without a flag. Default: every row stays.

    Returns
    -------
    geopandas.GeoDataFrame
        A copy with the column `flags`: the words that apply out of small, edge, water, weak, in this order, separated
        by commas; empty where nothing speaks against the outline.

    Raises
    ------
    FootprintError
        `footprints` is not what `validate_footprints` expects, a number is out of its range, or a flag is unknown.

    Examples
    --------
    >>> from rtsx.footprints.extract import extract_footprints
    >>> import rioxarray
    >>> import xarray as xr
    >>> probability = np.zeros((60, 60), np.uint8)
    >>> probability[20:30, 20:30], probability[50:52, 40:50] = 80, 60
    >>> pred = xr.Dataset(
    ...     {"probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": 255})},
    ...     coords={"y": 4000.0 - 3 * np.arange(60), "x": 5000.0 + 3 * np.arange(60)},
    ... ).rio.write_crs("EPSG:32608")
    >>> footprints = extract_footprints(pred, threshold=0.5, min_area_m2=0)
    >>> clean_footprints(footprints, min_prob_mean=0.7)["flags"].tolist()
    ['', 'small,edge,weak']
    >>> len(clean_footprints(footprints, keep=()))
    1
    """
    validate_footprints(footprints)
    _check(min_area_m2=min_area_m2, min_pixels=min_pixels, keep=keep)
    parts = {"max_water": max_water or 0.0, "min_prob_mean": min_prob_mean, "min_prob_max": min_prob_max}
    for name, value in parts.items():
        if not 0 <= value <= 1:
            raise FootprintError(f"{name} is a part from 0 to 1, not {value}: for 20 per cent give 0.2")
    has_water = max_water is not None and "water_fraction" in footprints.columns
    rules = {
        "small": (footprints["area_m2"] < min_area_m2) | (footprints["n_pixels"] < min_pixels),
        "edge": footprints["touches_edge"] & edge,
        "water": footprints["water_fraction"] > max_water if has_water else pd.Series(False, footprints.index),
        "weak": (footprints["prob_mean"] < min_prob_mean) | (footprints["prob_max"] < min_prob_max),
    }
    applies = np.column_stack([rules[flag].to_numpy(bool) for flag in FLAGS])
    flags = [",".join(np.array(FLAGS)[row]) for row in applies]
    flagged = reorder(footprints.assign(flags=pd.Series(flags, index=footprints.index, dtype=object)))
    if keep is None:
        return flagged
    forbidden = [flag not in keep for flag in FLAGS]
    return flagged[~applies[:, forbidden].any(axis=1)].reset_index(drop=True)


def _check(*, min_area_m2: float, min_pixels: int, keep: Sequence[str] | None) -> None:
    if not (math.isfinite(min_area_m2) and min_area_m2 >= 0):
        raise FootprintError(f"min_area_m2 is a finite area of at least 0 m², not {min_area_m2}: 0 flags nothing")
    if min_pixels < 0 or min_pixels != int(min_pixels):
        raise FootprintError(f"min_pixels is a whole number of pixels from 0, not {min_pixels}: 0 flags nothing")
    named = (keep,) if isinstance(keep, str) else keep or ()
    unknown = [flag for flag in named if flag not in FLAGS]
    if unknown or isinstance(keep, str):
        raise FootprintError(
            f"keep lists flags, some of {', '.join(FLAGS)}, but {keep!r} came: "
            f"give a tuple such as ('edge',), or () for rows without a flag"
        )


def water_in(placement: Placement, water: xr.DataArray) -> xr.DataArray:
    """Bring a map of water onto the pixels of a prediction, computing nothing.

    Each pixel takes the value of the water pixel that its centre lies in.

    Parameters
    ----------
    placement : Placement
        Where the prediction lies.
    water : xarray.DataArray
        `(y, x)` bool or integer, NumPy or dask: 1 on water; anything else, nodata among it, is land. On any upright
        grid of the prediction's CRS, of any resolution and extent; outside it there is land.

    Returns
    -------
    xarray.DataArray
        `(y, x)` uint8 0 or 1 on the prediction's pixels, lazy where `water` is.

    Raises
    ------
    FootprintError
        Dimensions, dtype, grid or CRS are others.
    """
    if set(water.dims) != {"y", "x"}:
        raise FootprintError(
            f"a map of water has the dimensions (y, x), but came with ({', '.join(map(str, water.dims))}): "
            "select one entry, for example with water.squeeze() or water.isel(...)"
        )
    if water.dtype.kind not in "biu":
        raise FootprintError(
            f"a map of water is bool or integer, 1 on water, but came as {water.dtype}: make it one, "
            "for example with water == 1"
        )
    try:
        source = Placement.of(water.rename("water").to_dataset())
    except FootprintError as error:
        raise FootprintError(f"the map of water does not say where it lies: {error}") from error
    if source.crs != placement.crs:
        raise FootprintError(
            f"a map of water is in the CRS of the prediction, {placement.crs.name!r}, but came in "
            f"{source.crs.name!r}: warp it, or give water as polygons, which may be in any CRS"
        )
    rows = _centres(placement.transform.f, placement.transform.e, placement.shape[0])
    columns = _centres(placement.transform.c, placement.transform.a, placement.shape[1])
    y = np.floor((rows - source.transform.f) / source.transform.e + 1e-6).astype(np.int64)
    x = np.floor((columns - source.transform.c) / source.transform.a + 1e-6).astype(np.int64)
    height, width = source.shape
    is_in = xr.DataArray((y >= 0) & (y < height), dims="y") & xr.DataArray((x >= 0) & (x < width), dims="x")
    if not is_in.any():
        warnings.warn("The map of water lies beside the map: is it of another place?", RuntimeWarning, stacklevel=4)
    picked = water.transpose("y", "x").isel(y=np.clip(y, 0, height - 1), x=np.clip(x, 0, width - 1))
    bare = xr.DataArray(picked.data, dims=("y", "x"))
    return ((bare == 1) & is_in).astype(np.uint8)


def overlap_fraction(
    outlines: NDArray[np.object_],
    polygons: geopandas.GeoDataFrame | geopandas.GeoSeries,
    *,
    crs: CRS,
    is_part: bool = False,
) -> NDArray[np.float64]:
    """Return the part of each outline that polygons cover, 0-1.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(n,)` valid outlines in `crs`.
    polygons : geopandas.GeoDataFrame or geopandas.GeoSeries
        Water, in any CRS; polygons may overlap.
    crs : pyproj.CRS
        The part is a ratio of areas in it: at one place a projection stretches both alike.
    is_part : bool
        These are some outlines of a map, of which water elsewhere says nothing: no warning.

    Raises
    ------
    FootprintError
        The polygons have no CRS, or are none, or one around the outlines reaches where `crs` has no place.
    """
    if polygons.crs is None:
        raise FootprintError("polygons of water have a CRS, but it is None: set it with water.set_crs(...)")
    given = np.asarray(polygons.geometry.array, np.object_)
    there = ~(shapely.is_missing(given) | shapely.is_empty(given))
    others = np.flatnonzero(there & ~np.isin(shapely.get_type_id(given), (3, 6)))
    if len(others):
        raise FootprintError(
            f"water is given as polygons, but row {others[0]} has {given[others[0]].geom_type}: drop such rows"
        )
    if len(outlines) == 0:
        return np.zeros(0)
    water = shapely.make_valid(_brought(given[there], CRS.from_user_input(polygons.crs), outlines, crs=crs))
    owner, cover = shapely.STRtree(water).query(outlines, predicate="intersects")
    around = shapely.box(*shapely.total_bounds(outlines))
    if not is_part and there.any() and not shapely.intersects(water, around).any():
        warnings.warn(
            "No polygon of water lies anywhere in the box around all outlines. Is it of another place, in another CRS than it says, or does it "
            "have latitude first?",
            RuntimeWarning,
            stacklevel=4,
        )
    fraction = np.zeros(len(outlines))
    order = np.argsort(owner, kind="stable")
    owner, cover = owner[order], cover[order]
    start = np.flatnonzero(np.diff(owner, prepend=-1))
    for first, stop in zip(start, np.append(start, len(owner))[1:], strict=True):
        outline = outlines[owner[first]]
        common = shapely.intersection(outline, shapely.union_all(water[cover[first:stop]]))
        fraction[owner[first]] = min(shapely.area(common) / shapely.area(outline), 1.0)
    return fraction


def _near(water: NDArray[np.object_], source: CRS, near: tuple[float, float, float, float]) -> NDArray[np.object_]:
    """Return what of polygons lies near, longitudes as they are written from -180 on and from 0 on."""
    bounds = shapely.bounds(water).reshape(-1, 4)
    low, high = bounds[:, :2].min(axis=0, initial=np.inf), bounds[:, 2:].max(axis=0, initial=-np.inf)
    (west, south), (east, north) = low, high
    if source.is_geographic and (max(-south, north) > 90 + 1e-6 or max(-west, east) > 540):
        raise FootprintError(
            f"polygons of water have longitudes and latitudes, but x from {west:.6g} to {east:.6g} and y from {south:.6g} to {north:.6g}: "
            "give them in the CRS that they say, with longitude first"
        )
    found = []
    for turn in (-360, 0, 360) if source.is_geographic else (0,):
        x0, y0, x1, y1 = np.add(bounds, (turn, 0, turn, 0)).T
        meets = (x0 <= near[2]) & (x1 >= near[0]) & (y0 <= near[3]) & (y1 >= near[1])
        within = (x0 >= near[0]) & (x1 <= near[2]) & (y0 >= near[1]) & (y1 <= near[3])
        there = shapely.transform(water[meets], lambda xy, turn=turn: xy + np.array((turn, 0)))
        wide = ~within[meets]
        there[wide] = shapely.intersection(shapely.make_valid(there[wide]), shapely.box(*near))
        found.append(there)
    return np.concatenate(found)


def _brought(
    water: NDArray[np.object_], source: CRS, outlines: NDArray[np.object_], *, crs: CRS
) -> NDArray[np.object_]:
    """Return the polygons around outlines in the CRS of these.

    Without what lies elsewhere, because water of the whole world comes in one file, and a projection has no place for
    most of it.
    """
    x, y = cached_transformer(crs.to_wkt(), source.to_wkt()).transform(*shapely.get_coordinates(outlines).T)
    west, south, east, north = np.min(x), np.min(y), np.max(x), np.max(y)
    if np.isfinite((west, south, east, north)).all():
        # Wider by a part, because edges that are straight in one CRS bend in another.
        reach = 0.01 * max(east - west, north - south)
        water = _near(water, source, (west - reach, south - reach, east + reach, north + reach))
    there = cached_transformer(source.to_wkt(), crs.to_wkt())
    moved = shapely.transform(water, lambda xy: np.column_stack(there.transform(*xy.T)))
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise FootprintError(
            f"polygons of water reach where {crs.name!r} has no place: cut them to the surroundings of the map"
        )
    return np.asarray(moved, np.object_)


def _centres(first: float, step: float, count: int) -> NDArray[np.float64]:
    """Return the centres of `count` pixels."""
    return np.asarray(first + step * (np.arange(count) + 0.5), np.float64)


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
        `area_outlined_m2` is the area before. What comes from pixels, n_pixels and prob_*, stays.

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
    if "area_outlined_m2" in footprints.columns:
        before = footprints["area_outlined_m2"].to_numpy(float)  # simplified once more
    geometry = geopandas.GeoSeries(simple, index=footprints.index, crs=footprints.crs)
    measured = measured_columns(simple, crs)
    return reorder(footprints.set_geometry(geometry).assign(**measured, area_outlined_m2=before))


def _clusters(outlines: Geometries) -> list[NDArray[np.int64]]:
    """Return outlines whose bounding boxes meet, together.

    Others cannot get in each other's way, because an outline without some of its corners stays in its box.
    """
    boxes = shapely.box(*shapely.bounds(outlines).reshape(-1, 4).T)
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    cluster = components(one, other, count=len(boxes))
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
