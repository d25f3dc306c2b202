"""`open_cube`: the door to every source."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import xarray as xr
from odc.geo.geobox import GeoBox

from rtsx.cube.conventions import validate_cube, validate_georeference
from rtsx.cube.load import recipe_geobox
from rtsx.cube.masks import apply_mask
from rtsx.cube.rasters import RasterSource, open_rasters
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.sensors import Sensor, get_sensor
from rtsx.cube.zarr_cube import open_zarr_cube
from rtsx.errors import CubeError
from rtsx.grid import Cell, grid_offset
from rtsx.storage import file_name, is_url, local_path
from rtsx.storage.diagnosis import RASTER_SUFFIXES
from rtsx.storage.zarr import is_zipped, open_group

_GDAL_NAME = re.compile(r"/vsi|\w\w+:(?!//|:)")
"""How names begin that only GDAL knows, such as ``NETCDF:"a.nc":red``."""


def open_source(
    source: RasterSource | CubeRecipe,
    cell: Cell | GeoBox | None = None,
    *,
    layers: Sequence[str] | None = None,
    mask: tuple[str | PathLike[str] | xr.DataArray, str] | None = None,
    chunks: int | Literal["auto"] = "auto",
    sensor: str | Sensor | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a lazy cube: one variable per layer, as stored; reads metadata, no pixel.

    Parameters
    ----------
    source
        A Zarr store (v2 or v3, path or URL), of layers or a prediction; or raster files that already share one grid: a path, several paths, or a
        mapping from layer name to the path of a one-band file or to a `Layer`. Or a `CubeRecipe`, whose sources have
        grids of their own: each chunk of the cube reads and aligns what it needs.
    cell
        Keep what lies in this cell; tiles are then anchored to the cell's grid. A store or files have to be on that grid.
        A recipe fills the cell, or any raster on its grid; None takes the recipe's region.
    layers
        Names of the layers to keep, in this order. For raster files without band names: the names, in band order.
    mask
        Quality data and the rule that reads it, e.g. ``("udm2.tif", "tss-v1")``; see `apply_mask`.
    chunks
        Side of a chunk, px. ``"auto"``: about 1024, in whole blocks, chunks or shards of the source; the recipe's own.
    sensor
        What the bands of the raster files are: ``"planetscope"``, ``"sentinel2-l2a"``, ``"sentinel2-l2a-04.00"``,
        ``"landsat"``, ``"arcticdem"`` or another name of `SENSORS`, or a `Sensor`; gives names, scale, nodata and units.
    storage_options
        For fsspec, where a Zarr store is behind a URL.

    Returns
    -------
    xarray.Dataset
        Dask-backed variables on (y, x) or (time, y, x), those of a prediction also with `class`, in their stored dtype, packing in their attributes, coordinates
        `y`, `x`, `spatial_ref`, the attribute `lattice_origin`, and with `mask` the boolean variable `valid`.

    Raises
    ------
    CubeError
        A source is missing, damaged, unfinished, or not on the common grid; a layer is missing. A file that turns out
        to be damaged later raises it when the chunk is computed.
    """
    if chunks != "auto" and (not isinstance(chunks, int) or chunks < 1):
        raise CubeError(f"Chunks are a number of pixels above 0, or 'auto'; got {chunks!r}.")
    if isinstance(layers, str):
        raise CubeError(f"Layers are a list of names; got the string {layers!r}. Write layers=[{layers!r}].")
    if layers is not None and len(set(layers)) != len(layers):
        raise CubeError(f"Every layer can be asked for once; got {list(layers)}.")
    chunk = None if chunks == "auto" else chunks
    if isinstance(source, CubeRecipe):
        if mask is not None or sensor is not None or storage_options:
            raise CubeError(
                "A recipe says itself what its bands, masks and stores are; leave mask=, sensor= and "
                "storage_options= out."
            )
        from rtsx.cube.load import load_recipe  # compiles the warp, which files that share a grid do not need

        recipe = replace(source if layers is None else source.only(tuple(layers)), chunk=chunk or source.chunk)
        geobox = recipe_geobox(recipe, cell)
        cube = load_recipe(recipe, geobox, anchor=recipe.grid.origin)
        validate_cube(cube)
        return cube
    if isinstance(cell, GeoBox):
        raise CubeError("Stores and files are cut by a cell of their grid, grid[iy, ix]; a GeoBox is for recipes.")
    if isinstance(source, str | PathLike) and is_store(str(source)):
        if sensor is not None:
            raise CubeError("A Zarr store says itself what its layers are; sensor= is for raster files.")
        cube = open_zarr_cube(str(source), cell, layers=layers, chunk=chunk, options=storage_options or {})
        validate_georeference(cube)  # not as a cube, because a stored prediction may have a dimension `class`
    else:
        if storage_options:
            raise CubeError(
                f"storage_options= is for Zarr stores behind a URL; got {sorted(storage_options)} for raster files, which "
                "GDAL reads. Leave it out, and give GDAL its settings as environment variables or in rasterio.Env(...)."
            )
        cube = open_rasters(
            source, cell, layers=layers, sensor=None if sensor is None else get_sensor(sensor), chunk=chunk
        )
        validate_cube(cube)
    return cube if mask is None else apply_mask(cube, mask[0], rule=mask[1])


def is_store(path: str) -> bool:
    """Test whether a path is to be read as Zarr: by what is there, else by its suffix."""
    suffix = Path(file_name(path)).suffix.lower()
    if is_url(path):
        return suffix not in RASTER_SUFFIXES
    local = local_path(path)
    if local.is_file():
        return is_zipped(local)
    return local.is_dir() or (suffix not in RASTER_SUFFIXES and not _GDAL_NAME.match(path))


def small_store(path: str, *, side: int, options: Mapping[str, Any]) -> xr.Dataset:
    """Return the coarsest level of a store that still has `side` pixels on its longer side, every n-th pixel of it if need be."""
    group = open_group(path, options)
    multiscales: Any = group.attrs.get("multiscales", {"layout": []})
    level = path
    for entry in multiscales["layout"]:
        if max(entry["spatial:shape"]) >= side and entry["asset"] != ".":
            level = f"{path.rstrip('/')}/{entry['asset']}"
    cube = open_zarr_cube(level, None, layers=None, chunk=None, options=options)
    step = max(1, max(cube.sizes["y"], cube.sizes["x"]) // side)
    return cube.isel(y=slice(step // 2, None, step), x=slice(step // 2, None, step)) if step > 1 else cube


def coarse_recipe(recipe: CubeRecipe, raster: GeoBox, *, side: int) -> tuple[CubeRecipe, GeoBox]:
    """Return a recipe and its raster on pixels that are so many times larger that the longer side has about `side`.

    Sources then read their overviews, so that a look at a large region costs little; terrain on the cube's grid looks
    smoother than it is.
    """
    grid = recipe.grid
    factor = max(1, max(raster.shape) // side)
    row, column = grid_offset(raster, grid.origin)
    coarse = replace(grid, resolution=grid.resolution * factor)
    rows, columns = (
        (math.floor(start / factor), math.ceil((start + size) / factor))
        for start, size in zip((row, column), raster.shape.yx, strict=True)
    )
    return replace(recipe, grid=coarse), coarse.window(rows, columns)
