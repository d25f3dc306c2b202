"""Reads the layers of one cell, window by window, and remembers which of its pixels can be trusted."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from rtsx.campaign.cell_ground import CellGround
from rtsx.campaign.kinds import kind_of
from rtsx.campaign.plan import Region
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.cube import CubeRecipe
from rtsx.cube.assembly import open_recipe
from rtsx.cube.gaps import Gap, note_gaps
from rtsx.errors import CubeError
from rtsx.inference.planning import runner_of
from rtsx.inference.runner import Runner

__all__ = ["CellReader"]

_READERS = 4
"""Chunks that are read at a time: servers answer several requests as fast as one."""


class CellReader:
    """The pixels of one cell's ground; what `predict_region` reads by. Used by one thread at a time."""

    def __init__(self, ground: CellGround, cube: CubeRecipe, *, runner: Runner, pool: ThreadPoolExecutor) -> None:
        self._ground = ground
        self._cube = cube
        self._pool = pool
        self.runner = runner
        """What runs on these layers."""
        height, width = (part.stop - part.start for part in ground.haloed)
        self._valid = np.zeros((height, width), bool)

    @classmethod
    @contextmanager
    def opened(
        cls, ground: CellGround, cube: CubeRecipe, *, recipe: CampaignRecipe, gaps: list[Gap]
    ) -> Iterator["CellReader"]:
        """A reader that reads during the block.

        Parameters
        ----------
        ground
            What is looked at.
        cube
            The recipe of the layers, pinned on this ground.
        recipe
            Bundles, and how they are run.
        gaps
            Receives the images that were left out, where their source says so; errors that can pass stay errors.

        Raises
        ------
        NoImageError
            A required source has no image of this ground.
        CubeError
            Images do not fit together.
        BundleError, PlanError
            The layers are not stored as the bundles need them, or the bundles are not those of the plan.
        """
        spec = recipe.prediction
        runner = runner_of(
            ground.plan.prediction,
            recipe.bundles,
            _opened(cube, ground, None),
            device=spec.device,
            precision=spec.precision,
            backend=spec.backend,
            batch_size=spec.batch_size,
        )
        with ThreadPoolExecutor(_READERS, "rtsx-source", initializer=note_gaps, initargs=(gaps, _is_gap)) as pool:
            yield cls(ground, cube, runner=runner, pool=pool)

    def __call__(self, window: Region) -> Mapping[str, NDArray[Any]]:
        """Layers (y, x) of some pixels of the map by name, as stored, and as `valid` those that the plan can trust."""
        names = self.runner.plan.layers
        cube = _opened(self._cube, self._ground, window)
        lazy = {name: cube[name].data for name in (*names, "valid")}
        # In threads of our own, instead of dask's scheduler in force, which on a worker is the whole cluster.
        (pixels,) = compute(lazy, scheduler="threads", pool=self._pool)
        stored = {name: np.asarray(pixels[name]) for name in names}
        valid = self.runner.valid(stored, np.asarray(pixels["valid"]))
        self._remember(window, valid)
        return {**stored, "valid": valid}

    def halo_valid(self, planned: Sequence[Region]) -> NDArray[np.bool_]:
        """Which pixels (y, x) of the cell and its halo can be trusted, after the cell was read; reads what no tile has seen.

        Parameters
        ----------
        planned
            Parts of the halo in cells of the campaign; elsewhere nothing is mapped, and nothing is trusted.

        Returns
        -------
        numpy.ndarray
            With the whole halo on all sides; beyond the map's end nothing is trusted.
        """
        for window in self._ground.unread:
            self(window)
        y, x = self._ground.haloed
        side, halo = self._ground.plan.grid.cell_size, self._ground.halo
        out = np.zeros((side + 2 * halo, side + 2 * halo), bool)
        for part in (self._ground.region, *planned):
            rows, columns = (
                slice(one.start - own.start + halo, one.stop - own.start + halo)
                for one, own in zip(part, self._ground.region, strict=True)
            )
            out[rows, columns] = self._valid[
                part[0].start - y.start : part[0].stop - y.start, part[1].start - x.start : part[1].stop - x.start
            ]
        return out

    def _remember(self, window: Region, valid: NDArray[np.bool_]) -> None:
        both = [
            slice(max(one.start, other.start), min(one.stop, other.stop))
            for one, other in zip(window, self._ground.haloed, strict=True)
        ]
        if all(part.start < part.stop for part in both):
            to, source = (
                tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(both, origin, strict=True))
                for origin in (self._ground.haloed, window)
            )
            self._valid[to] = valid[source]


def _is_gap(error: CubeError) -> bool:
    """Whether an image will never do; a gap in a marked cell would stay, although the image may be there in a minute."""
    return kind_of(error) == "lasting"


def _opened(cube: CubeRecipe, ground: CellGround, window: Region | None) -> xr.Dataset:
    """The lazy cube of a window; pixels are the grid's own wherever it is cut."""
    geobox = ground.geobox if window is None else ground.window(window)
    return open_recipe(cube, geobox, anchor=cube.grid.origin)
