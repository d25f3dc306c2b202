"""Water beneath outlines: a map of it brought onto the prediction's pixels, or polygons of it."""

import geopandas
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rtsx.errors import FootprintError
from rtsx.footprints.placement import Placement

__all__ = ["covered_fraction", "water_on"]


def water_on(placement: Placement, water: xr.DataArray) -> xr.DataArray:
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
    is_in = xr.DataArray((y >= 0) & (y < source.shape[0]), dims="y") & xr.DataArray(
        (x >= 0) & (x < source.shape[1]), dims="x"
    )
    picked = water.transpose("y", "x").isel(y=np.clip(y, 0, source.shape[0] - 1), x=np.clip(x, 0, source.shape[1] - 1))
    bare = xr.DataArray(picked.data, dims=("y", "x"))
    return ((bare == 1) & is_in).astype(np.uint8)


def covered_fraction(
    outlines: NDArray[np.object_], polygons: geopandas.GeoDataFrame | geopandas.GeoSeries, *, crs: CRS
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
    fraction = np.zeros(len(outlines))
    order = np.argsort(owner, kind="stable")
    owner, cover = owner[order], cover[order]
    start = np.flatnonzero(np.diff(owner, prepend=-1))
    for first, stop in zip(start, np.append(start, len(owner))[1:], strict=True):
        outline = outlines[owner[first]]
        common = shapely.intersection(outline, shapely.union_all(water[cover[first:stop]]))
        fraction[owner[first]] = min(shapely.area(common) / shapely.area(outline), 1.0)
    return fraction


def _brought(
    water: NDArray[np.object_], source: CRS, outlines: NDArray[np.object_], *, crs: CRS
) -> NDArray[np.object_]:
    """Return the polygons around outlines in the CRS of these.

    Without what lies elsewhere, because water of the whole world comes in one file, and a projection has no place for
    most of it.
    """
    x, y = Transformer.from_crs(crs, source, always_xy=True).transform(*shapely.get_coordinates(outlines).T)
    west, south, east, north = np.min(x), np.min(y), np.max(x), np.max(y)
    if np.isfinite((west, south, east, north)).all():
        # Wider by a part, because edges that are straight in one CRS bend in another.
        reach = 0.01 * max(east - west, north - south)
        near = shapely.box(west - reach, south - reach, east + reach, north + reach)
        boxes = shapely.box(*shapely.bounds(water).reshape(-1, 4).T)
        meets = shapely.intersects(boxes, near)
        water, boxes = water[meets], boxes[meets]
        wide = ~shapely.contains(near, boxes)
        water[wide] = shapely.intersection(shapely.make_valid(water[wide]), near)
    there = Transformer.from_crs(source, crs, always_xy=True)
    moved = shapely.transform(water, lambda xy: np.column_stack(there.transform(*xy.T)))
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise FootprintError(
            f"polygons of water reach where {crs.name!r} has no place: cut them to the surroundings of the map"
        )
    return np.asarray(moved, np.object_)


def _centres(first: float, step: float, count: int) -> NDArray[np.float64]:
    """Return the centres of `count` pixels."""
    return np.asarray(first + step * (np.arange(count) + 0.5), np.float64)
