"""`write_cube`: a Dataset to sharded Zarr v3 with overviews, in one pass over the data."""

import itertools
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from os import PathLike
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.diagnostics.progress import ProgressBar
from odc.geo.geobox import GeoBox
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, ZstdCodec

from rtsx.cube.destination import staged_store
from rtsx.cube.georeference import geobox_of, with_georeference
from rtsx.cube.geozarr import multiscale_attrs, spatial_attrs
from rtsx.cube.overviews import halve, halved_geobox, level_count, reduction_of
from rtsx.cube.packing import packing
from rtsx.cube.storage import StoragePlan, plan_storage
from rtsx.cube.validation import layer_names, validate_georeference
from rtsx.errors import CubeError

__all__ = ["write_cube"]


def write_cube(
    cube: xr.Dataset,
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
    shards: int | Literal["auto"] = "auto",
    chunks: int = 512,
    overviews: bool = True,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Write a cube or a prediction as Zarr v3; everything is computed once, together, and all of it or nothing appears.

    Parameters
    ----------
    cube
        Any georeferenced Dataset: layers, predictions, with or without `time` and `class`.
    path
        Local path, or a URL that fsspec knows.
    overwrite
        Replace a Zarr store that is there; the old one stays until the new one is complete.
    shards
        Side of a shard, px; ``"auto"`` makes every dask chunk a shard where it can.
    chunks
        Side of a chunk inside a shard, px.
    overviews
        Also write levels at half the resolution each (groups ``2x``, ``4x``, ...), until one fits a screen.
    progress
        Show a bar; for dask's own schedulers.
    storage_options
        For fsspec, where `path` is a URL.

    Returns
    -------
    str
        The path.

    Raises
    ------
    CubeError
        The Dataset says not where it lies, or has nothing to write.
    OutputExistsError
        Something is there already.
    OutputNotWritableError
        Nothing can be written there; found out before anything is computed.
    """
    validate_georeference(cube)
    if not layer_names(cube) and "valid" not in cube:
        raise CubeError(f"There is nothing on (y, x) to write in {list(cube.data_vars)}.")
    target = str(path)
    geobox = geobox_of(cube)
    plan = plan_storage(geobox.shape.yx, _chunk_lengths(cube), chunk=chunks, shard=shards)
    levels = [(".", geobox)]
    for number in range(level_count(geobox.shape.yx) if overviews else 0):
        levels.append((f"{2 ** (number + 1)}x", halved_geobox(levels[-1][1])))
    with (
        staged_store(target, overwrite=overwrite, options=storage_options or {}) as store,
        ProgressBar() if progress else nullcontext(),
    ):
        root = cube.assign_attrs(cube.attrs | (multiscale_attrs(levels) if len(levels) > 1 else spatial_attrs(geobox)))
        _write_level(_planned(root, plan), store, group=None, plan=plan)
        for (above, _), (name, level_geobox) in itertools.pairwise(levels):
            level = _level_below(cube, store, above=above, geobox=level_geobox, plan=plan)
            _write_level(level, store, group=name, plan=plan)
    return target


def _chunk_lengths(cube: xr.Dataset) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Lengths of the dask chunks along y and x of the variable that has the largest ones; in memory, all in one."""
    found = []
    names = [*layer_names(cube), *(["valid"] if "valid" in cube else [])]
    for name in [name for name in names if cube[name].chunks is not None] or names:
        chunksizes = cube[name].chunksizes
        found.append(tuple(tuple(chunksizes.get(dim, (cube.sizes[dim],))) for dim in ("y", "x")))
    rows, columns = max(found, key=lambda lengths: (max(lengths[0]), max(lengths[1])))
    return rows, columns


def _planned(cube: xr.Dataset, plan: StoragePlan) -> xr.Dataset:
    """The cube with every variable on (y, x) in dask chunks that are whole shards."""
    planned = {}
    for name, variable in cube.data_vars.items():
        if {"y", "x"} <= set(variable.dims):
            lengths = [variable.chunksizes.get(dim, ()) for dim in ("y", "x")]
            if not all(lengths) or not plan.fits(lengths):
                planned[name] = variable.chunk({"y": plan.shard[0], "x": plan.shard[1]})
    return cube.assign(planned)


def _write_level(cube: xr.Dataset, store: Store, *, group: str | None, plan: StoragePlan) -> None:
    """Write one level: metadata and coordinates at once, then all variables in one computation."""
    prepared = cube.drop_encoding()
    for name, variable in prepared.variables.items():
        variable.attrs.pop("grid_mapping", None)  # as other writers keep it; ours goes through `encoding`
        # None, instead of xarray's own NaN for floats, so that what had no nodata value gets none by being stored.
        if variable.dtype.kind == "f" and "_FillValue" not in variable.attrs:
            variable.encoding["_FillValue"] = None
        if name in prepared.data_vars and {"y", "x"} <= set(variable.dims):
            variable.encoding |= {"grid_mapping": "spatial_ref", **_encoding(prepared[name], plan)}
        elif variable.dtype.kind == "U":
            # Fixed-width strings have no stable Zarr v3 type yet; variable-length ones do.
            prepared[name] = prepared[name].astype(object)
    if group is not None:
        zarr.create_group(store, path=group, zarr_format=3)
    written = prepared.to_zarr(store, group=group, mode="a", zarr_format=3, consolidated=False, compute=False)
    written.compute()


def _encoding(variable: xr.DataArray, plan: StoragePlan) -> dict[str, Any]:
    """Zarr encoding of one variable; the leading dimensions are stored one by one."""
    leading = (1,) * (variable.ndim - 2)
    encoding: dict[str, Any] = {"chunks": (*leading, *plan.chunk), "compressors": (_codec(variable),)}
    if plan.has_shards:
        encoding["shards"] = (*leading, *plan.shard)
    nodata = packing(variable)["nodata"]
    if nodata is not None:
        # Chunks without a valid pixel are not stored at all: they are what an absent chunk reads as.
        encoding["fill_value"] = variable.dtype.type(nodata)
    return encoding


def _codec(variable: xr.DataArray) -> BloscCodec | ZstdCodec:
    """Zstandard at level 1, on the bits of masks (1.4 times smaller) and on the bytes of wider numbers."""
    if variable.dtype == bool or variable.name == "binary":
        return BloscCodec(typesize=1, cname="zstd", clevel=1, shuffle="bitshuffle")
    if variable.dtype.itemsize > 1:
        return BloscCodec(typesize=variable.dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")
    return ZstdCodec(level=1)


def _level_below(cube: xr.Dataset, store: Store, *, above: str, geobox: GeoBox, plan: StoragePlan) -> xr.Dataset:
    """The next level, lazily from the stored one above it: nothing of the cube itself is computed again."""
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    source = group if above == "." else group[above]
    if not isinstance(source, zarr.Group):
        raise TypeError(f"{above} is not a group")  # we wrote it a moment ago
    variables = {}
    for name, variable in cube.data_vars.items():
        if {"y", "x"} <= set(variable.dims):
            stored = source[str(name)]
            chunks = (*(1 for _ in variable.dims[:-2]), 2 * plan.shard[0], 2 * plan.shard[1])
            # Named by chance, because hashing the array would read it, and another run may write other values there.
            lazy = da.from_array(stored, chunks=chunks, name=f"level-{uuid.uuid4().hex}", inline_array=True)
            halved = da.map_blocks(
                halve,
                lazy,
                dtype=lazy.dtype,
                chunks=(*lazy.chunks[:-2], *(tuple(-(-n // 2) for n in axis) for axis in lazy.chunks[-2:])),
                meta=np.empty((0,) * lazy.ndim, lazy.dtype),
                reduction=reduction_of(variable),
                nodata=packing(variable)["nodata"],
            )
            variables[str(name)] = xr.Variable(variable.dims, halved, variable.attrs)
    level = with_georeference(variables, geobox, lattice_origin=(geobox.affine.c, geobox.affine.f))
    coords = {
        name: coord for name, coord in cube.coords.items() if not {"y", "x"} & set(coord.dims) and name != "spatial_ref"
    }
    return level.assign_coords(coords).drop_attrs(deep=False).assign_attrs(spatial_attrs(geobox))
