"""`write_cube`: a Dataset to sharded Zarr v3 with overviews, in one pass over the data."""

import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from os import PathLike
from typing import Any, Literal

import xarray as xr

from rtsx.arguments import typed
from rtsx.cube.conventions import as_cube
from rtsx.cube.destination import staged_store
from rtsx.cube.georeference import geobox_of, with_pixel_centres
from rtsx.cube.levels import level_below, levels_of, root_attrs, write_level
from rtsx.cube.storage import StoragePlan, plan_storage
from rtsx.cube.validation import layer_names, require_numbers, validate_georeference
from rtsx.errors import CubeError
from rtsx.progress import show_progress

__all__ = ["write_cube"]


@typed(CubeError, but=("cube",))
def write_cube(
    cube: xr.Dataset | xr.DataArray,
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
        Any georeferenced Dataset: layers, predictions, with or without `time` and `class`; or what `as_cube` makes one.
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
        Show how far it is, as `rtsx.show_progress` does.
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
    cube = as_cube(cube)
    validate_georeference(cube)
    for name in layer_names(cube):
        require_numbers(cube[name])
    if not layer_names(cube) and "valid" not in cube:
        raise CubeError(f"There is nothing on (y, x) to write in {list(cube.data_vars)}.")
    target = str(path)
    cube = with_pixel_centres(cube)
    geobox = geobox_of(cube)
    plan = plan_storage(geobox.shape.yx, _chunk_lengths(cube), chunk=chunks, shard=shards)
    levels = levels_of(geobox, overviews=overviews)
    with (
        staged_store(target, overwrite=overwrite, options=storage_options or {}) as store,
        show_progress("writing") if progress else nullcontext(),
    ):
        root = cube.assign_attrs(cube.attrs | root_attrs(levels))
        write_level(_planned(root, plan), store, group=None, plan=plan)
        for (above, _), (name, level_geobox) in itertools.pairwise(levels):
            level = level_below(cube, store, above=above, geobox=level_geobox, plan=plan)
            write_level(level, store, group=name, plan=plan)
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
