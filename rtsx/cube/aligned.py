"""Parts of an aligned cube: all variables of a window, read and warped in one task, a few time steps at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import compute
from odc.geo.geobox import GeoBox
from zarr.core.sync import sync

from rtsx.cube.assembly import open_recipe
from rtsx.cube.georeference import with_georeference
from rtsx.cube.levels import level_below, levels_of, prepare_level, root_attrs, write_level
from rtsx.cube.parts import PartPlan, PartSource, Written
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.storage import StoragePlan, plan_storage
from rtsx.cube.zarr import LAYERS

__all__ = ["AlignedParts"]

_STEP_BYTES = 256 * 2**20
"""Memory that the variables of some time steps may take together."""
_CHUNK = 512
"""Side of a stored chunk, px: what a reader decodes at least, and what `write_cube` takes."""


@dataclass(frozen=True, kw_only=True)
class AlignedParts:
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
        """The parts."""
        return PartPlan(self.geobox.shape.yx, self.storage)

    @cached_property
    def storage(self) -> StoragePlan:
        """Chunks and shards: a shard is what a reader gets as its chunk."""
        side = self.shard or self.recipe.chunk
        lengths = tuple((min(side, size),) * max(1, -(-size // side)) for size in self.geobox.shape)
        chunk = min(_CHUNK, side)
        return plan_storage(self.geobox.shape.yx, (lengths[0], lengths[1]), chunk=chunk, shard="auto")

    @property
    def count(self) -> int:
        """Number of parts."""
        return self.plan.count

    def open(self, number: int) -> xr.Dataset:
        """The lazy cube of a part."""
        part = self.plan.part(number)
        return open_recipe(self.recipe, self.geobox[part.window], anchor=self.recipe.grid.origin)

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
        others = {
            name: coord
            for name, coord in first.coords.items()
            if name != "spatial_ref" and not {"y", "x"} & set(coord.dims)
        }
        template = template.assign_coords(others).assign_attrs(first.attrs)
        prepare_level(template, root.store, group=None, plan=self.storage)

    def pieces(self, number: int) -> Iterator[Written]:
        """Pixels of a part, variable by variable; computed in this thread."""
        window = self.plan.part(number).window
        cube = self.open(number)
        timed = [str(name) for name, variable in cube.data_vars.items() if "time" in variable.dims]
        still = [str(name) for name in cube.data_vars if name not in timed]
        yield from _computed(cube[still], (), window)
        at_once = self._steps_at_once(cube[timed]) if timed else 1
        for start in range(0, cube.sizes.get("time", 0), at_once):
            steps = slice(start, start + at_once)
            yield from _computed(cube[timed].isel(time=steps), (steps,), window)

    def finish(self, root: zarr.Group, gaps: Sequence[str]) -> None:
        """Write the overviews, again where a run was stopped among them."""
        levels = levels_of(self.geobox, overviews=self.overviews)
        root.attrs.update(root_attrs(levels))
        store = root.store
        stored = xr.open_zarr(store, consolidated=False, chunks=None, mask_and_scale=False, decode_coords="all")
        cube = stored[list(stored.attrs[LAYERS])]  # in order, because a folder is listed in any
        for (above, _), (name, geobox) in pairwise(levels):
            sync(store.delete_dir(name))
            level = level_below(cube, store, above=above, geobox=geobox, plan=self.storage)
            write_level(level, store, group=name, plan=self.storage)

    @staticmethod
    def _steps_at_once(cube: xr.Dataset) -> int:
        return max(1, int(_STEP_BYTES // max(1, cube.nbytes // cube.sizes["time"])))


def _computed(cube: xr.Dataset, leading: tuple[slice, ...], window: tuple[slice, slice]) -> Iterator[Written]:
    """Compute variables together, because they share what is read; in this thread, because parts run in parallel."""
    (arrays,) = compute({str(name): one.data for name, one in cube.data_vars.items()}, scheduler="synchronous")
    for name, pixels in arrays.items():
        yield Written(name, (*leading, *window), np.asarray(pixels))


_conforms: type[PartSource] = AlignedParts
