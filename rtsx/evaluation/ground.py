"""Ground that was mapped: the valid pixels of a map near outlines, and outlines cut to them."""

import math
from itertools import product

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.cube import geobox_of
from rtsx.footprints.blocks import polygonize
from rtsx.footprints.class_maps import missing_pixels
from rtsx.labels.rasterize import to_pixels

_BLOCK = 2048
"""Side of what is read of a map at once, px."""
_LEAST_M2 = 0.01
"""Smaller rests of outlines along the border of the ground are noise of the arithmetic, m²."""


def mapped_ground(pred: xr.Dataset, *tables: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Outline the valid pixels of a map in all blocks that outlines meet, so that a large map is not read whole.

    Parameters
    ----------
    pred : xarray.Dataset
        (y, x), as `predict_cube` returns it: its `valid`, or else what is not missing in `binary` or `probability`.
    *tables : geopandas.GeoDataFrame
        Valid Polygons or MultiPolygons in any CRS.

    Returns
    -------
    geopandas.GeoDataFrame
        Polygons in the CRS of the map; no row where outlines meet no valid pixel.
    """
    grid = geobox_of(pred)
    met: set[tuple[int, int]] = set()
    for table in tables:
        crs = CRS.from_user_input(table.crs)
        placed, _ = to_pixels(np.asarray(table.geometry.array, np.object_), crs, grid, margin=0)
        for left, top, right, bottom in shapely.bounds(shapely.get_parts(placed)).reshape(-1, 4).tolist():
            met |= {*product(_blocks(top, bottom, grid.shape.y), _blocks(left, right, grid.shape.x))}
    valid = _valid(pred)
    parts = []
    for row, column in sorted(met):
        origin = (row * _BLOCK, column * _BLOCK)
        window = valid[origin[0] : origin[0] + _BLOCK, origin[1] : origin[1] + _BLOCK].to_numpy()
        if window.any():
            parts.append(polygonize(window.astype(np.int32), 1, origin=origin)[0])
    pixels = shapely.transform(np.array(parts, np.object_), lambda xy: np.stack(grid.affine * xy.T, axis=1))
    return gpd.GeoDataFrame(geometry=pixels, crs=str(grid.crs))


def _blocks(low: float, high: float, size: int) -> range:
    """Numbers of the blocks along one axis that a stretch of pixels meets."""
    return range(math.floor(max(low, 0.0)) // _BLOCK, math.ceil(min(high, size) / _BLOCK))


def _valid(pred: xr.Dataset) -> xr.DataArray:
    if "valid" in pred.data_vars:
        return pred["valid"].transpose("y", "x") == 1
    known = ~missing_pixels(pred["binary" if "binary" in pred.data_vars else "probability"])
    return known.transpose("y", "x", ...) if "class" not in known.dims else known.all("class").transpose("y", "x")


def cut_to(ground: shapely.Geometry, outlines: NDArray[np.object_]) -> NDArray[np.object_]:
    """Cut valid outlines to a ground in the same equal-area plane; those that lie elsewhere are left out."""
    shapely.prepare(ground)
    cut: NDArray[np.object_] = outlines.copy()
    beyond = ~shapely.covers(ground, outlines)
    cut[beyond] = shapely.intersection(outlines[beyond], ground)
    cut = cut[shapely.area(cut) > _LEAST_M2]
    mixed = shapely.get_type_id(cut) == shapely.GeometryType.GEOMETRYCOLLECTION
    cut[mixed] = shapely.buffer(cut[mixed], 0)  # which leaves the lines and points out where outlines only touch
    return cut
