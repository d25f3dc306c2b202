"""What a worker needs to run blocks: the plan, the bundles and how to read the layers. Travels once per worker."""

import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from rtsx.errors import LayerValuesWarning
from rtsx.inference.device import BatchSize, default_batch_size, on_device
from rtsx.inference.kernel import Answer, Member, Window, answer_tiles, tiles_to_run
from rtsx.inference.plan import PredictionPlan
from rtsx.model import ModelBundle
from rtsx.model.agreement import require_agreement
from rtsx.model.inputs import Packing, trusted_pixels
from rtsx.model.network import resolve_device
from rtsx.model.probing import chosen_backend
from rtsx.model.values import check_values
from rtsx.tiling import TileRange

__all__ = ["Runner"]

# One size per device and tile, so that every block profits from what one has learnt about the memory.
_BATCH_SIZES: dict[tuple[str, int, int | None, tuple[str, ...]], BatchSize] = {}
_LOCK = Lock()
_WARNED_BY_WORKER: set[tuple[PredictionPlan, str]] = set()
"""What this process has warned of as a worker of a cluster, where every cell of a campaign has a runner of its own."""


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
    _warned: set[tuple[PredictionPlan, str]] = field(default_factory=set, repr=False, compare=False)
    """What has been warned of."""

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """What dask names tasks by: digests instead of the weights, which it would hash anew for every prediction."""
        packings = tuple(sorted((name, repr(packing)) for name, packing in self.packings.items()))
        return self.plan.to_json(), packings, self.device, self.precision, self.backend, self.batch_size

    def valid(self, stored: Mapping[str, NDArray[np.generic]], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Pixels (y, x) that every required layer and the mask declare valid.

        Every driver comes by here once with each of its blocks, before a network sees it, so here the values are checked too.

        Raises
        ------
        BundleError
            Layers hold what the bundles cannot have been trained with, see `check_values`.

        Warns
        -----
        LayerValuesWarning
            That is likely; once for each kind, and on a worker of a cluster also where its client is.
        """
        inputs = [layer for bundle in self.bundles for layer in bundle.inputs]
        valid = trusted_pixels(stored, inputs=inputs, packings=self.packings, mask=mask)
        for doubt, message in check_values(stored, valid, inputs=inputs, packings=self.packings).items():
            self._warn_once(doubt, message)
        return valid

    def _warn_once(self, doubt: str, message: str) -> None:
        warned, warn = self._warned, warnings.warn
        if (distributed := sys.modules.get("distributed")) is not None:  # nobody is a worker before it is imported
            with suppress(ValueError):  # not on a worker
                distributed.get_worker()
                warned, warn = _WARNED_BY_WORKER, distributed.warn
        with _LOCK:
            is_new = (self.plan, doubt) not in warned
            warned.add((self.plan, doubt))
        if is_new:
            warn(message, LayerValuesWarning, stacklevel=4)

    def answer(self, window: Window, tiles: TileRange) -> Answer:
        """Blended answers of the tiles; waits for its turn on the device, unless none has a valid pixel."""
        tiling = self.plan.tiling
        if next(tiles_to_run(window, tiles, tiling=tiling), None) is None:  # looks no further than the first
            return Answer(region=tiling.answered_region(tiles), values=None)
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
