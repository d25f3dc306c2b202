"""Memory of one task of a campaign, reckoned before anything runs. Pure, but for walking the networks' tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.tiling import widest_read
from rtsx.inference.memory import MemoryPlan
from rtsx.model import ModelBundle
from rtsx.model.activations import network_bytes_per_pixel
from rtsx.tiling import TilePlan

__all__ = ["TaskMemory"]

# Bands of stored pixels at a time: the one at work, the one that is read meanwhile, and both once more while they are joined.
_BANDS = 4
# Blocks of network input, and bands of answers, at a time: what is at work, and what waits for the tiles below.
_BLOCKS = 2
# What the windows of one block or band span where a tile is smaller, px.
_SPAN = 2048
# What the scratch of convolutions takes on top of the tensors themselves.
_SCRATCH = 2.0
# Of a pixel of a cell whose objects are outlined: a label beside each map.
_LABEL_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class TaskMemory:
    """What decides the memory of a task but for its tiles."""

    bundles: Sequence[ModelBundle]
    """What is run."""
    stored_bytes: int
    """Of one pixel of all layers that are read, and of its validity."""
    side: int
    """Side of a cell, px."""
    is_outlined: bool
    """Whether objects are outlined."""
    batch_size: int | None
    """Tiles per forward pass; None for the one of a CPU."""

    @classmethod
    def of(cls, recipe: CampaignRecipe, sample: xr.Dataset, *, layers: Sequence[str]) -> "TaskMemory":
        """Of a recipe, whose layers are stored as those of the cube of a cell are; reads no pixel."""
        return cls(
            bundles=recipe.bundles,
            stored_bytes=1 + sum(sample[name].dtype.itemsize for name in layers),
            side=recipe.cube.grid.cell_size,
            is_outlined=recipe.outlines is not None,
            batch_size=recipe.prediction.batch_size,
        )

    def reckoned(self, tiling: TilePlan) -> MemoryPlan:
        """What a worker process needs for one cell at most, besides libraries and weights.

        Parameters
        ----------
        tiling
            Of the whole map.
        """
        across = widest_read(tiling, side=self.side)
        span = max(tiling.tile, _SPAN)
        height = min(span, self.side + 2 * tiling.tile)
        inputs = {(bundle.inputs, bundle.fill) for bundle in self.bundles}
        classes = len(self.bundles[0].classes)
        kept = 2 * classes + 1 + (_LABEL_BYTES if self.is_outlined else 0)
        return MemoryPlan(
            window_bytes=_BANDS * height * across * self.stored_bytes
            + _BLOCKS * height * min(span, across) * 4 * sum(len(layers) for layers, _ in inputs),
            answer_bytes=_BLOCKS * 4 * classes * height * across + kept * self.side**2,
            network_bytes=int(
                _SCRATCH * max(map(network_bytes_per_pixel, self.bundles)) * (self.batch_size or 1) * tiling.tile**2
            ),
        )
