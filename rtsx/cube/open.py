"""`open_cube`: the door to every source, and masks of quality data on the pixels of a cube."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.conventions import as_cube, validate_cube, validate_times, with_axis_names
from rtsx.cube.encoding import missing_values
from rtsx.cube.georeference import GRID_MAPPING, describe_geobox, geobox_of, rounding, validate_georeference
from rtsx.cube.graph import lazy_bands
from rtsx.cube.load import recipe_geobox
from rtsx.cube.mask_rules import GOOD, LOW, MaskRule, band_places, mask_rule
from rtsx.cube.rasterio import read_header
from rtsx.cube.rasters import RasterSource, open_rasters
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.sensors import Sensor, get_sensor
from rtsx.cube.zarr_cube import open_zarr_cube
from rtsx.errors import CubeError, LayerValuesWarning
from rtsx.grid import Cell, grid_offset
from rtsx.storage import file_name, is_url, local_path
from rtsx.storage.diagnosis import RASTER_SUFFIXES
from rtsx.storage.zarr import is_zipped, open_group


def apply_mask(
    cube: xr.Dataset | xr.DataArray,
    data: str | PathLike[str] | xr.DataArray,
    *,
    rule: str | MaskRule,
    keep_low: bool = False,
) -> xr.Dataset:
    """Return the cube with `valid`: True where quality data calls a pixel good; lazy.

    Where the cube has a `valid` already, a pixel has to be valid in both. Nodata of the layers is not looked at here:
    every reader of a cube takes it from the layers themselves.

    Parameters
    ----------
    cube
        Any cube, or what `as_cube` makes one.
    data
        UDM2 or scene classification on the cube's own pixels: path of a raster file, or an array on ([band,] y, x), whose
        coordinates, where it has any, say which way it lies. Where its bands have names in another order, that counts.
    rule
        Name in `MASK_RULES`, or what `mask_rule` makes of expressions.
    keep_low
        Trust low quality too.

    Raises
    ------
    CubeError
        Unknown rule, wrong number of bands or a dtype that the rule cannot read, names of which only some are known at other places, or data that is not on the
        cube's pixels.
    """
    cube = as_cube(cube)
    found = rule if isinstance(rule, MaskRule) else mask_rule(rule, data=None)
    if isinstance(data, xr.DataArray):
        name, (bands, nodata), seen = "Quality data", _array_bands(data, cube, found), None
    else:
        name, (bands, nodata, seen) = str(data), _file_bands(str(data), cube, found)
    found.require_dtype(bands.dtype)
    if doubt := found.doubt(nodata=nodata, dtype=bands.dtype.name):
        warnings.warn(f"{name} {doubt}", LayerValuesWarning, stacklevel=2)
    blocks = bands.rechunk({0: -1})
    valid = da.map_blocks(
        _valid_block,
        blocks,
        dtype=bool,
        drop_axis=0,
        meta=np.empty((0, 0), bool),
        rule=found,
        nodata=nodata,
        least=LOW if keep_low else GOOD,
    )
    if seen is not None:
        valid = valid & seen
    coords = {name: cube.coords[name] for name in ("y", "x", "spatial_ref")}
    variable = xr.DataArray(valid, dims=("y", "x"), coords=coords)
    variable.attrs = {"long_name": "True where a pixel can be trusted", "mask_rule": found.name}
    variable.variable.encoding |= GRID_MAPPING
    if "valid" in cube:
        variable = (cube["valid"] & variable).assign_attrs(variable.attrs)
    return cube.assign(valid=variable)


def _valid_block(block: NDArray[Any], *, rule: MaskRule, nodata: float | None, least: int) -> NDArray[np.bool_]:
    return np.asarray(rule.levels(block, nodata=nodata) >= least, bool)


def _array_bands(data: xr.DataArray, cube: xr.Dataset, rule: MaskRule) -> tuple[da.Array, float | None]:
    """Return the bands of an array (band, y, x) in the directions of the cube's axes and the order of the rule, and their nodata."""
    geobox = geobox_of(cube)
    data = with_axis_names(data)
    stacked = data if data.ndim == 3 else data.expand_dims("band")
    if stacked.ndim == 3 and {"y", "x"} <= set(stacked.dims):
        stacked = stacked.transpose(..., "y", "x")
    if stacked.dims[1:] != ("y", "x") or stacked.shape != (rule.bands, *geobox.shape):
        raise CubeError(
            f"Rule {rule.name!r} needs quality data on the cube's pixels, ({rule.bands}, {geobox.shape[0]}, "
            f"{geobox.shape[1]}); got {dict(data.sizes)}."
        )
    for name, size in (("y", geobox.affine.e), ("x", geobox.affine.a)):
        if name not in data.coords or _only_counts(data, cube):
            continue
        wanted, own = cube[name].values, data[name].values
        is_turned = size * (own[-1] - own[0]) < 0
        if is_turned:
            stacked = stacked.isel({name: slice(None, None, -1)})
        tolerance = 0.01 * abs(size) + max(rounding(wanted), rounding(own)) / 2
        if np.abs((own[::-1] if is_turned else own) - wanted).max() > tolerance:
            raise CubeError(
                f"Quality data has to lie on the cube's pixels: along {name!r} it goes from {own[0]:.10g} to {own[-1]:.10g}, the cube "
                f"from {wanted[0]:.10g} to {wanted[-1]:.10g}. Warp it first with nearest neighbour, e.g. with gdalwarp -r near."
            )
    order = list(band_places(rule.names, _described(stacked)))
    if order != sorted(order):
        stacked = stacked.isel({stacked.dims[0]: order})
    return da.asarray(stacked.data), next(iter(missing_values(data)), None)


def _described(stacked: xr.DataArray) -> list[str | None]:
    """Return what the bands of an array (band, y, x) are called, by their coordinate or by `long_name`; None each where they are not."""
    coord, stated = stacked.coords.get(stacked.dims[0]), stacked.attrs.get("long_name")
    names = list(stated) if isinstance(stated, tuple | list) else [] if coord is None else coord.values.tolist()
    is_named = len(names) == len(stacked) and all(isinstance(name, str) for name in names)
    return names if is_named else [None] * len(stacked)


def _only_counts(data: xr.DataArray, cube: xr.Dataset) -> bool:
    """Test whether coordinates number the pixels from 0, of an array that says no place, for a cube that lies elsewhere."""
    counts = all(np.array_equal(data[name], np.arange(data.sizes[name])) for name in ("y", "x"))
    return counts and "spatial_ref" not in data.coords and not np.array_equal(data["x"], cube["x"])


def _shared(values: Sequence[float | None]) -> float | None:
    """Return what all bands declare; None where they differ."""
    return values[0] if len({str(value) for value in values}) == 1 else None


def _file_bands(path: str, cube: xr.Dataset, rule: MaskRule) -> tuple[da.Array, float | None, da.Array | None]:
    """Return the bands of a file on the cube's pixels in the order of the rule, their nodata, and where its mask has pixels; None without one."""
    header = read_header(path)
    # Of four bands GDAL marks the last as alpha without being asked.
    numbers = header.data_bands if header.count not in (4, rule.bands) else tuple(range(1, header.count + 1))
    if len(numbers) != rule.bands:
        raise CubeError(f"Rule {rule.name!r} reads {rule.bands} bands; {path} has {header.count}.")
    geobox = geobox_of(cube)
    rows, columns = _place(header.geobox, geobox, path)
    sizes = {dim: lengths[0] for dim, lengths in cube.chunksizes.items() if dim in ("y", "x")}
    chunk = (sizes.get("y", geobox.shape[0]), sizes.get("x", geobox.shape[1]))
    bands = tuple(numbers[one] for one in band_places(rule.names, [header.descriptions[band - 1] for band in numbers]))
    window, nodata = (rows, columns), _shared([header.nodata[band - 1] for band in bands])
    pixels = lazy_bands(header, window, bands=bands, chunk=chunk)
    if set(header.masked).isdisjoint(bands):
        return pixels, nodata, None
    return pixels, nodata, lazy_bands(header, window, bands=bands, chunk=chunk, masks=True, any_value=True)


def _place(source: GeoBox, wanted: GeoBox, path: str) -> tuple[slice, slice]:
    """Return rows and columns of `source` that are the pixels of `wanted`."""
    row = (source.affine.f - wanted.affine.f) / -source.affine.e
    column = (wanted.affine.c - source.affine.c) / source.affine.a
    same_pixels = (
        source.crs == wanted.crs
        and max(abs(source.affine.a / wanted.affine.a - 1), abs(source.affine.e / wanted.affine.e - 1)) < 1e-6
        and max(abs(row - round(row)), abs(column - round(column))) < 0.01
    )
    rows = slice(round(row), round(row) + wanted.shape[0])
    columns = slice(round(column), round(column) + wanted.shape[1])
    is_inside = min(rows.start, columns.start) >= 0 and rows.stop <= source.shape[0] and columns.stop <= source.shape[1]
    if not (same_pixels and is_inside):
        raise CubeError(
            f"Quality data has to cover the cube on the same pixels: {path} has "
            f"{describe_geobox(source)}, the cube {describe_geobox(wanted)}. "
            "Warp it first with nearest neighbour, e.g. with gdalwarp -r near."
        )
    return rows, columns


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
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

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
        validate_times(cube)
    else:
        if storage_options:
            raise CubeError(
                f"storage_options= is for Zarr stores behind a URL; got {sorted(storage_options)} for raster files, which "
                "GDAL reads. Leave it out, and give GDAL its settings as environment variables or in rasterio.Env(...)."
            )
        known = None if sensor is None else get_sensor(sensor)
        cube = open_rasters(source, cell, layers=layers, sensor=known, chunk=chunk)
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


def small_store(path: str, *, side: int) -> xr.Dataset:
    """Return the coarsest level of a store that still has `side` pixels on its longer side, every n-th pixel of it if need be."""
    group = open_group(path, {})
    multiscales: Any = group.attrs.get("multiscales", {"layout": []})
    level = path
    for entry in multiscales["layout"]:
        if max(entry["spatial:shape"]) >= side and entry["asset"] != ".":
            level = f"{path.rstrip('/')}/{entry['asset']}"
    cube = open_zarr_cube(level, None, layers=None, chunk=None, options={})
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
