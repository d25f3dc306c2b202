"""Masks on a cube: quality data of its own pixels, lazily."""

from os import PathLike
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.conventions import as_cube
from rtsx.cube.georeference import GRID_MAPPING, describe_geobox, geobox_of
from rtsx.cube.graph import lazy_bands
from rtsx.cube.mask_rules import GOOD, LOW, MaskRule, mask_rule
from rtsx.cube.rasterio import read_header
from rtsx.errors import CubeError


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
        UDM2 or scene classification on the cube's own pixels: path of a raster file, or an array on ([band,] y, x).
    rule
        Name in `MASK_RULES`, or what `mask_rule` makes of expressions.
    keep_low
        Trust low quality too.

    Raises
    ------
    CubeError
        Unknown rule, wrong number of bands, or data that is not on the cube's pixels.
    """
    cube = as_cube(cube)
    found = rule if isinstance(rule, MaskRule) else mask_rule(rule, data=None)
    geobox = geobox_of(cube)
    bands = _array_bands(data, geobox, found) if isinstance(data, xr.DataArray) else _file_bands(str(data), cube, found)
    blocks = bands.rechunk({0: -1})
    valid = da.map_blocks(
        _valid_block,
        blocks,
        dtype=bool,
        drop_axis=0,
        meta=np.empty((0, 0), bool),
        rule=found,
        least=LOW if keep_low else GOOD,
    )
    variable = xr.DataArray(
        valid, dims=("y", "x"), coords={name: cube.coords[name] for name in ("y", "x", "spatial_ref")}
    )
    variable.attrs = {"long_name": "True where a pixel can be trusted", "mask_rule": found.name}
    variable.variable.encoding |= GRID_MAPPING
    if "valid" in cube:
        variable = (cube["valid"] & variable).assign_attrs(variable.attrs)
    return cube.assign(valid=variable)


def _valid_block(block: NDArray[Any], *, rule: MaskRule, least: int) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = rule.quality(block) >= least
    return valid


def _array_bands(data: xr.DataArray, geobox: GeoBox, rule: MaskRule) -> da.Array:
    stacked = data if data.ndim == 3 else data.expand_dims("band")
    if stacked.dims[1:] != ("y", "x") or stacked.shape != (rule.bands, *geobox.shape):
        raise CubeError(
            f"Rule {rule.name!r} needs quality data on the cube's pixels, ({rule.bands}, {geobox.shape[0]}, "
            f"{geobox.shape[1]}); got {dict(data.sizes)}."
        )
    bands: da.Array = da.asarray(stacked.data)
    return bands


def _file_bands(path: str, cube: xr.Dataset, rule: MaskRule) -> da.Array:
    header = read_header(path)
    if header.count != rule.bands:
        raise CubeError(f"Rule {rule.name!r} reads {rule.bands} bands; {path} has {header.count}.")
    geobox = geobox_of(cube)
    rows, columns = _place(header.geobox, geobox, path)
    sizes = {dim: lengths[0] for dim, lengths in cube.chunksizes.items() if dim in ("y", "x")}
    chunk = (sizes.get("y", geobox.shape[0]), sizes.get("x", geobox.shape[1]))
    return lazy_bands(header, (rows, columns), bands=tuple(range(1, rule.bands + 1)), chunk=chunk)


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
