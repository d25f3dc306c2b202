"""How long a tile takes on this device: a short real run of the bundles by the very kernel that campaigns use."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rtsx.campaign.plan import CampaignPlan
from rtsx.inference.device import default_batch_size
from rtsx.inference.kernel import Window
from rtsx.inference.runner import Runner
from rtsx.model import ModelBundle
from rtsx.model.fixed_tile import fixed_sides
from rtsx.model.inputs import Packing
from rtsx.model.network import resolve_device
from rtsx.tiling import TileRange

__all__ = ["seconds_per_tile"]

_LEAST_S = 2.0
"""Seconds after which enough was seen."""
_MOST_PASSES = 20
_SMALL = 256
"""Side of the tile that loads the networks on a CPU, px, where one of the plan's takes many seconds."""


def seconds_per_tile(
    bundles: Sequence[ModelBundle],
    plan: CampaignPlan,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    least_s: float = _LEAST_S,
) -> float:
    """Seconds that one tile of a plan takes on a device of this machine, all bundles, turns and scales together.

    Pixels are made up and lie in memory, so reading them and writing maps comes on top. A first pass, which loads the
    networks, does not count; then tiles of the plan's own size are run, because larger ones take longer for each pixel.

    Parameters
    ----------
    bundles
        Those of the plan.
    plan
        What will be run.
    device
        As in `predict_cube`.
    batch_size
        Tiles per forward pass; None leaves it to the device.
    least_s
        Seconds that are measured at least, unless twenty passes take less.

    Raises
    ------
    BundleError, MissingExtraError
        The device or the backend of the plan is not there, or cannot run a bundle.
    MemoryPlanError
        The device has no memory for a single tile.
    """
    where, tile = resolve_device(device), plan.prediction.tiling.tile
    many = batch_size or default_batch_size(where, tile=tile)
    timed = _Strip.of(plan, bundles, tile=tile, many=many, device=device, batch_size=batch_size)
    # Other backends and GPUs prepare for tiles of one size, so these have to be the plan's own.
    is_small = where.type == "cpu" and plan.runtime["backend"] == "eager"
    first = _Strip.of(plan, bundles, tile=_small(plan, bundles), many=1, device=device, batch_size=batch_size)
    (first if is_small else timed).run()
    passes, begin = 0, time.perf_counter()
    while passes < _MOST_PASSES and (passes == 0 or time.perf_counter() - begin < least_s):
        timed.run()
        passes += 1
    return (time.perf_counter() - begin) / passes / many


@dataclass(frozen=True)
class _Strip:
    """A row of tiles over made-up pixels."""

    runner: Runner
    """What runs them."""
    window: Window
    """Their pixels."""
    tiles: TileRange
    """All of them."""

    @classmethod
    def of(
        cls,
        plan: CampaignPlan,
        bundles: Sequence[ModelBundle],
        *,
        tile: int,
        many: int,
        device: str,
        batch_size: int | None,
    ) -> "_Strip":
        """As many tiles as go together, side by side."""
        shape = (tile, many * tile)
        tiling = replace(plan.prediction.tiling, shape=shape, offset=(0, 0), tile=tile, overlap=0, trim=0)
        random = np.random.default_rng(0)
        packings = {name: Packing() for name in plan.prediction.layers}
        runner = Runner(
            plan=replace(plan.prediction, tiling=tiling),
            bundles=tuple(bundles),
            packings=packings,
            device=device,
            precision=plan.runtime["precision"],
            backend=plan.runtime["backend"],
            batch_size=batch_size,
        )
        window = Window(
            region=(slice(0, shape[0]), slice(0, shape[1])),
            stored={name: random.random(shape, np.float32) for name in packings},
            packings=packings,
            valid=np.ones(shape, np.bool_),
        )
        return cls(runner, window, tiling.all)

    def run(self) -> None:
        """Run all of them."""
        self.runner.answer(self.window, self.tiles)


def _small(plan: CampaignPlan, bundles: Sequence[ModelBundle]) -> int:
    """Side of the smallest tile that is of use, px; the plan's where a network takes no other."""
    tiling = plan.prediction.tiling
    if any(any(fixed_sides(bundle.source)) for bundle in bundles):
        return tiling.tile
    sizes = range(min(tiling.tile, _SMALL) // tiling.stride * tiling.stride, 0, -tiling.stride)
    fitting = (size for size in sizes if not any(size * scale % tiling.stride for scale in plan.prediction.scales))
    return next(fitting, tiling.tile)
