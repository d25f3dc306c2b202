"""A Zarr store as a lazy cube, whoever wrote it."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.crs import CRS

from rtsx.cube.conventions import as_cube
from rtsx.cube.georeference import geobox_of, with_georeference, with_pixel_centres
from rtsx.cube.rasters import AUTO_CHUNK
from rtsx.cube.validation import layer_names
from rtsx.cube.window import cell_window
from rtsx.cube.zarr import LAYERS, StorageOptions, open_group
from rtsx.errors import CubeError
from rtsx.grid import Cell

__all__ = ["open_store", "read_metadata"]

_STORE_ATTRS = ("zarr_conventions", "multiscales", "proj:", "spatial:", "rtsx:")
"""Attributes that describe the store and its shape, not the data; they would lie after the first `isel`."""


def open_store(
    path: str, cell: Cell | None, *, layers: Sequence[str] | None, chunk: int | None, options: StorageOptions
) -> xr.Dataset:
    """Lazy cube of a Zarr store; reads metadata and coordinates only.

    `chunk` in pixels; None chooses about 1024, in whole shards or chunks of the store.
    """
    stored = read_metadata(path, options)
    try:
        cube = with_pixel_centres(_turned(as_cube(_with_crs(_with_plain_strings(_in_order(stored)), path))))
        geobox = geobox_of(cube)
    except CubeError as error:
        raise CubeError(f"{path}: {error}") from error
    if layers is not None:
        missing = [name for name in layers if name not in cube.data_vars]
        if missing:
            raise CubeError(f"Layers {missing} are not in {path}, which has {list(layer_names(cube))}.")
        cube = cube[[*layers, *(["valid"] if "valid" in cube and "valid" not in layers else [])]]
    origin = tuple(cube.attrs.get("lattice_origin", (geobox.affine.c, geobox.affine.f)))
    if cell is not None:
        rows, columns = cell_window(geobox, cell, name=path)
        cube, geobox, origin = cube.isel(y=rows, x=columns), geobox[rows, columns], cell.grid.origin
    attrs = {name: value for name, value in cube.attrs.items() if not name.startswith(_STORE_ATTRS)}
    cube = _chunked(cube.drop_attrs(deep=False).assign_attrs(attrs), chunk)
    if cell is None and "spatial_ref" in cube.coords:
        return cube.assign_attrs(lattice_origin=[float(value) for value in origin])
    return with_georeference(cube.drop_vars(["y", "x", "spatial_ref"], errors="ignore"), geobox, lattice_origin=origin)


def read_metadata(path: str, options: StorageOptions) -> xr.Dataset:
    """The variables of a Zarr store and their attributes as they are stored; no pixel is read."""
    group = open_group(path, options)
    stored: xr.Dataset = xr.open_zarr(
        group.store,
        group=group.path or None,
        chunks=None,  # so that cutting out comes before chunking
        consolidated=group.metadata.consolidated_metadata is not None,
        decode_coords="all",
        mask_and_scale=False,
    )
    return stored


def _in_order(stored: xr.Dataset) -> xr.Dataset:
    """Variables in the order in which they were written, where the store remembers it."""
    known = [name for name in stored.attrs.get(LAYERS, ()) if name in stored.data_vars]
    return stored[[*known, *(name for name in stored.data_vars if name not in known)]] if known else stored


def _with_plain_strings(stored: xr.Dataset) -> xr.Dataset:
    """Text coordinates such as `class` in NumPy's fixed-width type, as they were before they were stored."""
    texts = {
        name: coord.copy(data=np.array([str(text) for text in coord.values.flat], str).reshape(coord.shape))
        for name, coord in stored.coords.items()
        if coord.dtype.kind in "TO"
    }
    return stored.assign_coords(texts)


def _with_crs(stored: xr.Dataset, path: str) -> xr.Dataset:
    """The CRS in a scalar coordinate `spatial_ref`, from wherever this writer put it."""
    mappings = [
        name for name, variable in stored.variables.items() if "crs_wkt" in variable.attrs and not variable.dims
    ]
    if not mappings:
        stated = next((stored.attrs[key] for key in ("proj:code", "proj:wkt2", "crs") if key in stored.attrs), None)
        if stated is None:
            raise CubeError(
                f"{path} does not say its CRS: there is no grid mapping variable such as 'spatial_ref'. Give it with "
                "ds.rio.write_crs('EPSG:...') and write the store again."
            )
        return stored.odc.assign_crs(CRS(stated)) if {"y", "x"} <= set(stored.dims) else stored.assign_attrs(crs=stated)
    cube = stored.set_coords(mappings[0])
    return cube if mappings[0] == "spatial_ref" else cube.rename({mappings[0]: "spatial_ref"})


def _turned(cube: xr.Dataset) -> xr.Dataset:
    """A Dataset with y falling and x rising; lazily."""
    for name, sign in (("y", -1), ("x", 1)):
        axis = cube.coords.get(name)
        if axis is not None and axis.size > 1 and (float(axis[-1]) - float(axis[0])) * sign < 0:
            cube = cube.isel({name: slice(None, None, -1)})
    return cube


def _chunked(cube: xr.Dataset, chunk: int | None) -> xr.Dataset:
    with warnings.catch_warnings():
        # xarray warns where chunks cut through stored ones. `chunk` is the caller's word, and at the edge of a cell the
        # cut is what was asked for.
        warnings.filterwarnings(
            "ignore", message="The specified chunks separate the stored chunks", category=UserWarning
        )
        return cube.chunk({dim: _length(cube, dim, chunk) for dim in cube.dims})


def _length(cube: xr.Dataset, dim: Any, chunk: int | None) -> int:
    if dim not in ("y", "x"):
        return 1 if dim == "time" else cube.sizes[dim]
    if chunk is not None:
        return chunk
    units = []
    for variable in cube.variables.values():
        stored = variable.encoding.get("shards") or variable.encoding.get("chunks")
        if dim in variable.dims and stored and len(stored) == variable.ndim and variable.ndim > 1:
            units.append(stored[variable.dims.index(dim)])
    unit = max(units, default=AUTO_CHUNK)
    return max(1, round(AUTO_CHUNK / unit)) * unit
