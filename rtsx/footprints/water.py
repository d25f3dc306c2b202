"""Water beneath outlines: a map of it brought onto the prediction's pixels, or polygons of it."""

import geopandas
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

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
        The polygons have no CRS, or are none.
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
    water = shapely.make_valid(np.asarray(polygons.geometry[there].to_crs(crs).array, np.object_))
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


def _centres(first: float, step: float, count: int) -> NDArray[np.float64]:
    """Return the centres of `count` pixels."""
    return np.asarray(first + step * (np.arange(count) + 0.5), np.float64)
