"""How long a tile takes on this device: a short real run of the bundles by the very kernel that campaigns use."""

import time
from collections.abc import Sequence
from dataclasses import replace

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
_LARGEST = 1024
"""Side of the largest tile that is run on a CPU, px; beyond it time grows with the pixels alone."""


def seconds_per_tile(
    bundles: Sequence[ModelBundle],
    plan: CampaignPlan,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    least_s: float = _LEAST_S,
) -> float:
    """Seconds that one tile of a plan takes on a device of this machine, all bundles, turns and scales together.

    Pixels are made up and lie in memory, so reading them and writing maps comes on top. The first pass, which loads the
    networks, does not count. On a CPU tiles of 1024 px at most are run, and larger ones reckoned from them by their pixels.

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
    where, whole = resolve_device(device), plan.prediction.tiling
    size = _timed_size(plan, bundles) if where.type == "cpu" else whole.tile
    many = batch_size or default_batch_size(where, tile=size)
    tiling = replace(
        whole, shape=(size, many * size), offset=(0, 0), tile=size, overlap=0, trim=0
    )  # what goes together
    tiles = tiling.all
    runner = Runner(
        plan=replace(plan.prediction, tiling=tiling),
        bundles=tuple(bundles),
        packings={name: Packing() for name in plan.prediction.layers},
        device=device,
        precision=plan.runtime["precision"],
        backend=plan.runtime["backend"],
        batch_size=batch_size,
    )
    window = _made_up(runner, tiles)
    runner.answer(window, tiles)
    passes, begin = 0, time.perf_counter()
    while passes < _MOST_PASSES and (passes == 0 or time.perf_counter() - begin < least_s):
        runner.answer(window, tiles)
        passes += 1
    return (time.perf_counter() - begin) / passes / len(tiles) * (whole.tile / size) ** 2


def _timed_size(plan: CampaignPlan, bundles: Sequence[ModelBundle]) -> int:
    """Side of the tiles that are run, px: smaller than the plan's where nothing but their number of pixels counts."""
    tiling = plan.prediction.tiling
    if any(any(fixed_sides(bundle.source)) for bundle in bundles):
        return tiling.tile
    sizes = range(min(tiling.tile, _LARGEST) // tiling.stride * tiling.stride, 0, -tiling.stride)
    fitting = (size for size in sizes if not any(size * scale % tiling.stride for scale in plan.prediction.scales))
    return next(fitting, tiling.tile)


def _made_up(runner: Runner, tiles: TileRange) -> Window:
    """Random pixels between 0 and 1, all of them valid, under the windows of some tiles."""
    region = runner.plan.tiling.read_region(tiles)
    y, x = (part.stop - part.start for part in region)
    random = np.random.default_rng(0)
    return Window(
        region=region,
        stored={name: random.random((y, x), np.float32) for name in runner.plan.layers},
        packings=runner.packings,
        valid=np.ones((y, x), np.bool_),
    )
