"""Parts of an aligned cube: all variables of a window, read and warped in one task, a few time steps at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.assembly import open_recipe
from rtsx.cube.parts import PartPlan
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.storage import StoragePlan, plan_storage

__all__ = ["AlignedParts", "Written"]

_STEP_BYTES = 256 * 2**20
"""Memory that the variables of some time steps may take together."""
_CHUNK = 512
"""Side of a stored chunk, px: what a reader decodes at least, and what `write_cube` takes."""


@dataclass(frozen=True)
class Written:
    """Pixels for one place of a store."""

    array: str
    """Path of the array."""
    window: tuple[slice, ...]
    """Where in it, whole shards."""
    pixels: NDArray[Any]
    """As stored."""


@dataclass(frozen=True, kw_only=True)
class AlignedParts:
    """The parts of one group with all variables of a recipe."""

    recipe: CubeRecipe
    """Pinned."""
    geobox: GeoBox
    """Raster of the whole cube."""
    shard: int | None
    """Side of a shard, px; None for one shard per chunk of the recipe."""

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

    @staticmethod
    def _steps_at_once(cube: xr.Dataset) -> int:
        return max(1, int(_STEP_BYTES // max(1, cube.nbytes // cube.sizes["time"])))


def _computed(cube: xr.Dataset, leading: tuple[slice, ...], window: tuple[slice, slice]) -> Iterator[Written]:
    """Compute variables together, because they share what is read; in this thread, because parts run in parallel."""
    (arrays,) = compute({str(name): one.data for name, one in cube.data_vars.items()}, scheduler="synchronous")
    for name, pixels in arrays.items():
        yield Written(name, (*leading, *window), np.asarray(pixels))
