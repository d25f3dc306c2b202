"""What the commands on cubes tell: rows of tables, from a YAML file or a store."""

import math
from collections.abc import Sequence
from typing import Any

import xarray as xr
import zarr

from rtsx.cli.info import Rows, cube_rows
from rtsx.config import CubeConfig, load_cube_config, open_cube
from rtsx.config.cube import config_of_built_cube, is_config
from rtsx.cube.check import BuildState, CubeCheck, build_state
from rtsx.cube.load import recipe_geobox
from rtsx.cube.native import with_native_images
from rtsx.cube.open import coarse_recipe, open_source, small_store
from rtsx.errors import CubeError
from rtsx.grid import Cell
from rtsx.storage import file_system

_SHOWN = 5
"""Images of a source that are named."""


def opened(cube: str, *, cell: str | None) -> xr.Dataset:
    """Return the lazy cube of a YAML file or a store."""
    return open_cube(cube, None if cell is None else _cell(cube, cell))


def small(cube: str, *, side: int, cell: str | None) -> xr.Dataset:
    """Return a cube thinned to about `side` pixels: a store's overviews, or a YAML file on a coarser pixel grid."""
    ground = None if cell is None else _cell(cube, cell)
    config = _config(cube)
    if config is None:
        return small_store(cube, side=side)
    recipe = config.recipe() if is_config(cube) else with_native_images(config.recipe(), cube)
    coarse, raster = coarse_recipe(recipe, recipe_geobox(recipe, ground or config.cell), side=side)
    return open_source(coarse, raster)


def info_rows(cube: str, *, cell: str | None) -> Rows:
    """Return grid, layers, chunks, images and size."""
    state = None if is_config(cube) else build_state(cube)
    if state is not None and not state.is_complete:
        return _state_rows(state)
    lazy = opened(cube, cell=cell)
    rows: Rows = [*cube_rows(lazy), ("chunks", _chunks(lazy)), ("size", f"{lazy.nbytes / 1e6:,.1f} MB in memory")]
    if not is_config(cube):
        rows.append(("stored", _stored(cube)))
    rows += [
        (f"images of {str(name).removeprefix('images_')}", _some(str(ids).split(",")))
        for name, ids in lazy.attrs.items()
        if str(name).startswith("images_")
    ]
    return rows if state is None else [*rows, *_state_rows(state)]


def check_rows(found: CubeCheck) -> Rows:
    """Return coverage and values of every layer, and how far the store is built."""
    rows: Rows = []
    for name, layer in found.layers.items():
        if name == "valid":
            rows.append((name, f"{layer.mean:.2%} of the pixels"))
        elif layer.count:
            values = f"min {layer.minimum:.6g}, mean {layer.mean:.6g}, max {layer.maximum:.6g}, std {layer.std:.6g}"
            rows.append((name, f"{layer.coverage:7.2%} covered; {values}"))
        else:
            rows.append((name, "no data"))
    if found.build is not None:
        rows += _state_rows(found.build)
        files = "all as written" if not found.damaged else f"{len(found.damaged)} missing or damaged"
        rows.append(("bytes", files))
    rows.append(("problems", len(found.problems) or "none"))
    return rows


def _state_rows(state: BuildState) -> Rows:
    left = state.parts - state.done
    rows: Rows = [
        ("layout", "aligned" if state.layout == "aligned" else "native, aligned on opening"),
        ("parts", f"{state.parts}, all built" if state.is_complete else f"{state.done} of {state.parts} built"),
        ("left out", "\n".join(state.gaps)),
    ]
    if not state.is_complete:
        rows += [(f"images of {name}", _some(ids)) for name, ids in state.images.items()]
        rows.append(("next", f"run the same rtsx cube build again: {left} parts are left"))
    return rows


def _config(cube: str) -> CubeConfig | None:
    """Return what a YAML file says, or a store that is aligned on opening; None for other stores."""
    return load_cube_config(cube) if is_config(cube) else config_of_built_cube(cube, {})


def _cell(cube: str, name: str) -> Cell:
    config = _config(cube)
    if config is None:
        raise CubeError(f"Cells are of the grid of a YAML file; {cube} is a store. Leave --cell out.")
    return config.grid.grid().cell(name)


def _chunks(cube: xr.Dataset) -> str:
    sizes = {dim: lengths[0] for dim, lengths in cube.chunksizes.items()}
    count = math.prod(map(len, cube.chunksizes.values()))
    return f"{sizes.get('y')} x {sizes.get('x')} px, {count} of them"


def _stored(cube: str) -> str:
    system, root = file_system(cube, {})
    files = system.find(root, detail=True)
    total = sum(int(one["size"]) for one in files.values())
    return f"{total / 1e6:,.1f} MB in {len(files):,} files{_shards(cube)}"


def _shards(cube: str) -> str:
    group = zarr.open_group(cube, mode="r")
    arrays: list[Any] = [array for _, array in group.arrays() if array.ndim >= 2]
    if not arrays:
        return ""
    array = max(arrays, key=lambda one: int(one.size))
    shard = array.shards or array.chunks
    return f", chunks {array.chunks[-2]} x {array.chunks[-1]} px in shards {shard[-2]} x {shard[-1]} px"


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{len(ids)}: {', '.join(ids[:_SHOWN])}{more}"
