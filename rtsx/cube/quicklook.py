"""A cube small enough for a picture: its overviews, or the same recipe on a coarser lattice."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.zarr_cube import open_zarr_cube
from rtsx.grid import Grid, grid_offset
from rtsx.storage.zarr import open_group

__all__ = ["coarse_recipe", "small_store", "thinned"]


def small_store(path: str, *, side: int, options: Mapping[str, Any]) -> xr.Dataset:
    """The coarsest level of a store that still has `side` pixels on its longer side, thinned to about that."""
    group = open_group(path, options)
    multiscales: Any = group.attrs.get("multiscales", {"layout": []})
    level = path
    for entry in multiscales["layout"]:
        if max(entry["spatial:shape"]) >= side and entry["asset"] != ".":
            level = f"{path.rstrip('/')}/{entry['asset']}"
    return thinned(open_zarr_cube(level, None, layers=None, chunk=None, options=options), side=side)


def thinned(cube: xr.Dataset, *, side: int) -> xr.Dataset:
    """Every n-th pixel of a cube, so that its longer side has about `side`."""
    step = max(1, max(cube.sizes["y"], cube.sizes["x"]) // side)
    return cube.isel(y=slice(step // 2, None, step), x=slice(step // 2, None, step)) if step > 1 else cube


def coarse_recipe(recipe: CubeRecipe, raster: GeoBox, *, side: int) -> tuple[CubeRecipe, GeoBox]:
    """A recipe and its raster on pixels that are so many times larger that the longer side has about `side`.

    Sources then read their overviews, so that a look at a large region costs little; terrain on the cube's grid looks
    smoother than it is.

    Examples
    --------
    >>> from rtsx.cube.quicklook import coarse_window
    >>> coarse_window(Grid.arctic(resolution=3), Grid.arctic(resolution=3).window((10, 2010), (0, 100)), side=500)[0]
    Grid('EPSG:3413', 12, cell_size=12288, origin=(0.0, 0.0))
    """
    grid, window = coarse_window(recipe.grid, raster, side=side)
    return replace(recipe, grid=grid), window


def coarse_window(grid: Grid, raster: GeoBox, *, side: int) -> tuple[Grid, GeoBox]:
    """The coarser grid, and the window of it that holds a raster of the finer one."""
    factor = max(1, max(raster.shape) // side)
    row, column = grid_offset(raster, grid.origin)
    coarse = Grid(grid.crs, grid.resolution * factor, cell_size=grid.cell_size, origin=grid.origin)
    rows, columns = (
        (math.floor(start / factor), math.ceil((start + size) / factor))
        for start, size in zip((row, column), raster.shape.yx, strict=True)
    )
    return coarse, coarse.window(rows, columns)
