"""Build a Zarr store from a recipe, part by part; stopped anywhere, the same call continues."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from operator import call
from os import PathLike
from os.path import realpath
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import compute
from dask.delayed import delayed
from odc.geo.geobox import GeoBox
from zarr.abc.store import Store
from zarr.core.sync import sync

from rtsx.cube import build_state
from rtsx.cube.build_state import DigestStore, PartPlan, PartRecord, PartSource, RegionWrite
from rtsx.cube.chunk_loader import collected_missing
from rtsx.cube.encoding import stores_all_chunks
from rtsx.cube.georeference import with_georeference
from rtsx.cube.load import load_recipe, recipe_geobox
from rtsx.cube.native import NativeParts
from rtsx.cube.pinning import image_ids, image_stamps, require_unchanged, resolve_images
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.write import coords_beside, next_overview, overviews_of, prepare_level, root_attrs, write_level
from rtsx.errors import CubeError
from rtsx.grid import Cell
from rtsx.storage import is_url, local_path, refuse_other_format
from rtsx.storage.lock import exclusive_lock
from rtsx.storage.zarr import LAYERS, WholeStore, finish_store, store_of

_STEP_BYTES = 256 * 2**20
"""Memory that the variables of some time steps may take together."""


@dataclass(frozen=True, kw_only=True)
class CubeBuilder(PartSource):
    """The parts of one group with all variables of a recipe."""

    recipe: CubeRecipe
    """Pinned."""
    geobox: GeoBox
    """Raster of the whole cube."""
    shard: int | None
    """Side of a shard, px; None for one shard per chunk of the recipe."""
    overviews: bool
    """Whether coarser levels are written, too."""

    @cached_property
    def plan(self) -> PartPlan:
        """The parts: a shard is what a reader gets as its chunk."""
        return PartPlan.of(self.geobox.shape.yx, side=self.shard or self.recipe.chunk)

    @property
    def count(self) -> int:
        """Number of parts."""
        return self.plan.count

    def open(self, number: int) -> xr.Dataset:
        """Return the lazy cube of a part."""
        part = self.plan.part(number)
        return load_recipe(self.recipe, self.geobox[part.window], anchor=self.recipe.grid.origin)

    def prepare(self, root: zarr.Group) -> None:
        """Create all arrays and coordinates."""
        first = self.open(0)
        variables = {}
        for name, variable in first.data_vars.items():
            shape = (*variable.shape[:-2], *self.geobox.shape.yx)
            # One chunk that is never computed, because only shape and dtype count here.
            lazy = da.zeros(shape, dtype=variable.dtype, chunks=-1)
            variables[str(name)] = xr.Variable(variable.dims, lazy, variable.attrs)
        template = with_georeference(variables, self.geobox, lattice_origin=self.recipe.grid.origin)
        template = template.assign_coords(coords_beside(first)).assign_attrs(first.attrs)
        prepare_level(template, root.store, group=None, plan=self.plan.storage)

    def pieces(self, number: int) -> Iterator[RegionWrite]:
        """Yield pixels of a part, variable by variable; computed in this thread."""
        window = self.plan.part(number).window
        cube = self.open(number)
        timed = [str(name) for name, variable in cube.data_vars.items() if "time" in variable.dims]
        still = [str(name) for name in cube.data_vars if name not in timed]
        yield from _computed(cube[still], (), window)
        count = cube.sizes.get("time", 0)
        at_once = max(1, _STEP_BYTES * count // max(1, cube[timed].nbytes))
        for start in range(0, count, at_once):
            steps = slice(start, start + at_once)
            yield from _computed(cube[timed].isel(time=steps), (steps,), window)

    def finish(self, root: zarr.Group, gaps: Sequence[str]) -> None:
        """Write the overviews, again where a run was stopped among them."""
        levels = overviews_of(self.geobox, overviews=self.overviews)
        root.attrs.update(root_attrs(levels))
        store = root.store
        stored = xr.open_zarr(store, consolidated=False, chunks=None, mask_and_scale=False, decode_coords="all")
        cube = stored[list(stored.attrs[LAYERS])]  # in order, because a folder is listed in any
        for (above, _), (name, geobox) in pairwise(levels):
            sync(store.delete_dir(name))
            level = next_overview(cube, store, above=above, geobox=geobox, plan=self.plan.storage)
            write_level(level, store, group=name, plan=self.plan.storage)


def _computed(cube: xr.Dataset, leading: tuple[slice, ...], window: tuple[slice, slice]) -> Iterator[RegionWrite]:
    """Compute variables together, because they share what is read; in this thread, because parts run in parallel."""
    (arrays,) = compute({str(name): one.data for name, one in cube.data_vars.items()}, scheduler="synchronous")
    for name, pixels in arrays.items():
        yield RegionWrite(name, (*leading, *window), np.asarray(pixels))


Layout = Literal["aligned", "native"]


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a call of `build_cube` did."""

    path: str
    parts: int
    """Parts of the whole store."""
    built: int
    """Parts that this call built; the others had their mark already."""
    gaps: tuple[str, ...]
    """Images that were left out in some part, as ``source/id``."""


def build_store(
    recipe: CubeRecipe,
    path: str | PathLike[str],
    *,
    cell: Cell | None = None,
    layout: Layout = "aligned",
    shard: int | None = None,
    overviews: bool = True,
    overwrite: bool = False,
    config: str = "",
    storage_options: Mapping[str, Any] | None = None,
) -> BuildResult:
    """Build a store from a recipe, part by part, on the dask scheduler of the caller.

    A part is one shard of every variable. It is read, warped and written by one task, which last of all writes the part's
    commit mark with digests of its bytes. Memory is bounded by the parts that run at a time. A call on a store that was not
    finished builds the parts without a mark, from the images that were found when it began, and ends with the same bytes
    as a call that was never stopped.

    Parameters
    ----------
    recipe
        What to build.
    path
        Local path, or a URL that fsspec knows. Workers on other machines have to reach it under the same name.
    cell
        Ground; None for the recipe's region.
    layout
        ``"aligned"``: one group on the recipe's grid. ``"native"``: a copy of every image's pixels on its own grid, which
        `open_native` aligns when it is opened, with the same result as the images themselves.
    shard
        Side of a shard, px; None for the recipe's chunk.
    overviews
        Also write levels at half the resolution each; for the aligned layout.
    overwrite
        Remove a store that is there, and start again. Without it, an unfinished one is continued.
    config
        Text that is stored beside the data, such as the YAML that the recipe comes from.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Returns
    -------
    BuildResult
        What was done.

    Raises
    ------
    CubeError
        The store was begun from another recipe, a source finds nothing, an image cannot be read, or was rewritten since
        the build began.
    OutputExistsError
        Something else is there.
    OutputNotWritableError
        Nothing can be written there, or the disk is full; what is done stays done.
    """
    if layout not in ("aligned", "native"):
        raise CubeError(f"A layout is 'aligned' or 'native'; got {layout!r}.")
    refuse_other_format(path, what="a Zarr store", suffixes=(".zarr",))
    target, options = str(path), storage_options or {}
    if not is_url(target):
        target = realpath(local_path(path))  # a link to a store on another disk is followed, also where nothing is yet
    geobox = recipe_geobox(recipe, cell)
    described = {
        **build_state.describe_recipe(recipe),
        "layout": layout,
        "shard": shard,
        "overviews": overviews,
        "raster": [list(geobox.shape.yx), [float(value) for value in tuple(geobox.affine)[:6]]],
    }
    with exclusive_lock(target, options):
        if overwrite:
            build_state.remove_store(target, options)
        stored = build_state.read_status(target, options, described)
        if stored is not None and stored.is_complete:
            marks = build_state.read_marks(stored.group)
            return BuildResult(path=str(path), parts=len(marks), built=0, gaps=build_state.gaps_of(marks))
        ready = resolve_images(recipe, geobox, ids=None if stored is None else stored.images)
        parts: PartSource
        if layout == "aligned":
            parts = CubeBuilder(recipe=ready, geobox=geobox, shard=shard, overviews=overviews)
        else:
            parts = NativeParts(recipe=ready, geobox=geobox, shard=shard)
        if stored is None:
            stamps = image_stamps(ready)
            record = {"recipe": described, "images": image_ids(ready), "stamps": stamps, "parts": parts.count}
            build_state.remove_store(target, options)  # one that was being prepared when its process ended
            build_state.init_store(target, options, parts, record=record, config=config)
        else:
            stamps = stored.stamps
            require_unchanged(ready, stamps, target=target)
            build_state.remove_partial_files(target)
        store = WholeStore(store_of(target, options, read_only=False), target)
        left = sorted(set(range(parts.count)) - build_state.done_parts(store))
        _build_parts(parts, store, left, target=target)
        require_unchanged(ready, stamps, target=target)  # once more, because building may have taken days
        _finish(parts, store, target=target)
    marks = build_state.read_marks(zarr.open_group(store, mode="r"))
    return BuildResult(path=str(path), parts=parts.count, built=len(left), gaps=build_state.gaps_of(marks))


def _build_parts(parts: PartSource, store: Store, left: list[int], *, target: str) -> None:
    """Build the parts that are left, each by a task that depends on no other."""
    shared = delayed(partial(_build_part, parts, store, target=target), traverse=False, pure=False)
    name = f"part-{uuid.uuid4().hex}"
    tasks = [delayed(call)(shared, number, dask_key_name=(name, number)) for number in left]
    with build_state.wrap_os_errors(target):
        compute(*tasks)


def _build_part(parts: PartSource, store: Store, number: int, *, target: str) -> None:
    """Build one part, and mark it last of all."""
    digesting = DigestStore(store)
    root = zarr.open_group(digesting, mode="r+", use_consolidated=False)
    with collected_missing() as gaps:
        try:
            for piece in parts.pieces(number):
                _write(root, piece)
        except CubeError as error:
            raise CubeError(
                f"Part {number} of {target} was not built: {error} What is done stays done: cure it and run again."
            ) from error
    build_state.write_mark(root, number, PartRecord(digesting.digests, tuple(sorted(set(gaps)))))


def _write(root: zarr.Group, piece: RegionWrite) -> None:
    array = root[piece.array]
    assert isinstance(array, zarr.Array)
    stores_all = stores_all_chunks(array.basename, array.dtype, array.attrs)
    array.with_config({"write_empty_chunks": stores_all})[piece.window] = piece.pixels


def _finish(parts: PartSource, store: Store, *, target: str) -> None:
    """Write what follows from all parts, the gaps, and the word that all of it is there."""
    root = zarr.open_group(store, mode="r+", use_consolidated=False)
    gaps = build_state.gaps_of(build_state.read_marks(root))
    with build_state.wrap_os_errors(target):
        parts.finish(root, gaps)
        build_state.set_state(store, {"state": "built", "gaps": list(gaps)})
        finish_store(store)
