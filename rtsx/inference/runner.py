"""What a worker needs to run blocks: the plan, the bundles and how to read the layers. Travels once per worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from rtsx.inference.device import BatchSize, default_batch_size, on_device
from rtsx.inference.kernel import Answer, Member, Window, answer_tiles, tiles_to_run
from rtsx.inference.plan import PredictionPlan
from rtsx.inference.values import check_values
from rtsx.model import ModelBundle
from rtsx.model.agreement import require_agreement
from rtsx.model.inputs import Packing, trusted_pixels
from rtsx.model.network import resolve_device
from rtsx.model.probing import chosen_backend
from rtsx.tiling import TileRange

__all__ = ["Runner"]

# One size per device and tile, so that every block profits from what one has learnt about the memory.
_BATCH_SIZES: dict[tuple[str, int, int | None, tuple[str, ...]], BatchSize] = {}
_LOCK = Lock()


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs tiles of one plan with its bundles; networks are opened on first use and shared within a process."""

    plan: PredictionPlan
    """What is run."""
    bundles: tuple[ModelBundle, ...]
    """The members, in the plan's order."""
    packings: Mapping[str, Packing]
    """How each layer of the cube is stored."""
    device: str
    """Device by name, `"auto"` for the first GPU or else the CPU of whoever runs the block."""
    precision: str
    """Precision of the network's arithmetic."""
    backend: str
    """What runs the network."""
    batch_size: int | None
    """Tiles per forward pass; None is the device's own choice."""

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """What dask names tasks by: digests instead of the weights, which it would hash anew for every prediction."""
        packings = tuple(sorted((name, repr(packing)) for name, packing in self.packings.items()))
        return self.plan.to_json(), packings, self.device, self.precision, self.backend, self.batch_size

    def valid(self, stored: Mapping[str, NDArray[np.generic]], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Pixels (y, x) that every required layer and the mask declare valid."""
        inputs = [layer for bundle in self.bundles for layer in bundle.inputs]
        return trusted_pixels(stored, inputs=inputs, packings=self.packings, mask=mask)

    def answer(self, window: Window, tiles: TileRange) -> Answer:
        """Blended answers of the tiles; waits for its turn on the device, unless none has a valid pixel."""
        tiling = self.plan.tiling
        if next(tiles_to_run(window, tiles, tiling=tiling), None) is None:  # looks no further than the first
            return Answer(region=tiling.answered_region(tiles), values=None)
        inputs = [layer for bundle in self.bundles for layer in bundle.inputs]
        check_values(window.stored, window.valid, inputs=inputs, packings=window.packings)
        device = resolve_device(self.device)
        return on_device(device, lambda: self._answer(window, tiles, device))

    def _answer(self, window: Window, tiles: TileRange, device: torch.device) -> Answer:
        tile = self.plan.tiling.tile
        members = tuple(
            Member(
                network=bundle.network(
                    device=str(device), precision=self.precision, backend=self._backend(bundle, device)
                ),
                inputs=bundle.inputs,
                fill=bundle.fill,
            )
            for bundle in self.bundles
        )
        with _LOCK:
            key = (str(device), tile, self.batch_size, self.plan.members)
            size = _BATCH_SIZES.setdefault(key, BatchSize(self.batch_size or default_batch_size(device, tile=tile)))
        return answer_tiles(window, tiles, plan=self.plan, members=members, batch_size=size)

    def _backend(self, bundle: ModelBundle, device: torch.device) -> str:
        """On a CPU in float32 the fastest one is found out; elsewhere `"auto"` is plain eager torch."""
        tile = self.plan.tiling.tile
        require_agreement(bundle, backend=self.backend, device=str(device), precision=self.precision, tile=tile)
        if self.backend != "auto" or device.type != "cpu" or self.precision not in ("auto", "float32"):
            return self.backend
        passes = len(self.plan.tiling) * self.plan.passes_per_tile // len(self.bundles)
        return chosen_backend(bundle, tile=tile, passes=passes)
