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
from rtsx.model.inputs import Packing
from rtsx.model.network import resolve_device
from rtsx.tiling import TileRange

__all__ = ["seconds_per_tile"]

_LEAST_S = 2.0
"""Seconds after which enough was seen."""
_MOST_PASSES = 20


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
    networks, does not count.

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
    pixels = plan.prediction.tiling
    many = batch_size or default_batch_size(resolve_device(device), tile=pixels.tile)
    tiling = replace(pixels, shape=(pixels.step, many * pixels.step), offset=(0, 0))  # as many tiles as go together
    tiles = TileRange(tiling.y.indices[:1], tiling.x.indices[:many])
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
    return (time.perf_counter() - begin) / passes / len(tiles)


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
