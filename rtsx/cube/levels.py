"""Levels of a stored Dataset: full resolution and overviews, each a group of sharded arrays."""

import uuid
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, ZstdCodec

from rtsx.cube.georeference import GRID_MAPPING, with_georeference
from rtsx.cube.geozarr import multiscale_attrs, spatial_attrs
from rtsx.cube.overviews import halve, halved_geobox, level_count, reduction_of
from rtsx.cube.packing import packing
from rtsx.cube.storage import StoragePlan
from rtsx.cube.zarr import LAYERS

__all__ = ["Levels", "codec_for", "level_below", "levels_of", "prepare_level", "root_attrs", "write_level"]

_WRITING: dict[str, Any] = {"mode": "a", "zarr_format": 3, "consolidated": False}

Levels = list[tuple[str, GeoBox]]
"""Group (``"."`` for the root) and geobox of each level, full resolution first."""


def levels_of(geobox: GeoBox, *, overviews: bool) -> Levels:
    """Full resolution, and with `overviews` what lies below it: groups ``2x``, ``4x``, ... until one fits a screen."""
    levels = [(".", geobox)]
    for number in range(level_count(geobox.shape.yx) if overviews else 0):
        levels.append((f"{2 ** (number + 1)}x", halved_geobox(levels[-1][1])))
    return levels


def root_attrs(levels: Levels) -> dict[str, Any]:
    """GeoZarr attributes of the group that holds all levels."""
    return multiscale_attrs(levels) if len(levels) > 1 else spatial_attrs(levels[0][1])


def write_level(cube: xr.Dataset, store: Store, *, group: str | None, plan: StoragePlan) -> None:
    """Write one level: metadata and coordinates at once, then all variables in one computation."""
    # At once, rather than lazily and then `compute`: that puts one task on top of all, below which dask takes chunks in no
    # order, and a third of a prediction waits in memory for its neighbours.
    _described(cube, store, group=group, plan=plan).to_zarr(store, group=group, **_WRITING)


def prepare_level(cube: xr.Dataset, store: Store, *, group: str | None, plan: StoragePlan) -> None:
    """Write metadata and coordinates of one level, and none of its variables."""
    _described(cube, store, group=group, plan=plan).to_zarr(store, group=group, compute=False, **_WRITING)


def _described(cube: xr.Dataset, store: Store, *, group: str | None, plan: StoragePlan) -> xr.Dataset:
    """The cube with everything that says how it is stored; its group is there."""
    # By name, because listing a group gives them sorted, and some models tell their layers by place.
    attrs: dict[str, Any] = {LAYERS: [str(name) for name in cube.data_vars]}
    if group is None:
        # Among them the word that the store is not complete; xarray would put its own in their place.
        attrs |= zarr.open_group(store, mode="r", use_consolidated=False).attrs.asdict()
    prepared = cube.drop_encoding().assign_attrs(attrs)
    for name, variable in prepared.variables.items():
        variable.attrs.pop("grid_mapping", None)  # as other writers keep it; ours goes through `encoding`
        # None, instead of xarray's own NaN for floats, so that what had no nodata value gets none by being stored.
        if variable.dtype.kind == "f" and "_FillValue" not in variable.attrs:
            variable.encoding["_FillValue"] = None
        if name in prepared.data_vars and {"y", "x"} <= set(variable.dims):
            variable.encoding |= GRID_MAPPING | _encoding(prepared[name], plan)
        elif variable.dtype.kind == "U":
            # Fixed-width strings have no stable Zarr v3 type yet; variable-length ones do.
            prepared[name] = prepared[name].astype(object)
    if group is not None:
        zarr.create_group(store, path=group, zarr_format=3)
    return prepared


def _encoding(variable: xr.DataArray, plan: StoragePlan) -> dict[str, Any]:
    """Zarr encoding of one variable; the leading dimensions are stored one by one."""
    leading = (1,) * (variable.ndim - 2)
    encoding: dict[str, Any] = {
        "chunks": (*leading, *plan.chunk),
        "compressors": (codec_for(str(variable.name), variable.dtype),),
    }
    if plan.has_shards:
        encoding["shards"] = (*leading, *plan.shard)
    nodata = packing(variable)["nodata"]
    if nodata is not None:
        # Chunks without a valid pixel are not stored at all: they are what an absent chunk reads as.
        encoding["fill_value"] = variable.dtype.type(nodata)
    return encoding


def codec_for(name: str, dtype: np.dtype[Any]) -> BloscCodec | ZstdCodec:
    """What compresses a variable: Zstandard at level 1, on the bits of masks (1.4 times smaller), the bytes of wider numbers."""
    if dtype.kind == "b" or name == "binary":
        return BloscCodec(typesize=1, cname="zstd", clevel=1, shuffle="bitshuffle")
    if dtype.itemsize > 1:
        return BloscCodec(typesize=dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")
    return ZstdCodec(level=1)


def level_below(cube: xr.Dataset, store: Store, *, above: str, geobox: GeoBox, plan: StoragePlan) -> xr.Dataset:
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
