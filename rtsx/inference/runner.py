"""What a prediction does, settled before anything runs, and what a worker needs to run its blocks. Travels once per worker."""

import sys
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from rtsx.cube import layer_names, packing
from rtsx.errors import BundleError, ClusterError, LayerValuesWarning, PlanError
from rtsx.inference.device import (
    CPU,
    Batches,
    BatchSize,
    Hardware,
    Pending,
    Room,
    default_batch_size,
    tiles_ahead,
    windows_in_flight,
)
from rtsx.inference.ensemble import check_test_time_augmentations
from rtsx.inference.kernel import BlockInput, BlockRun, EnsembleMember, TileSums, run_batch, tiles_to_run
from rtsx.inference.plan import BlockPlan, Merge, PredictionDtype, PredictionPlan, Region, TestTimeAugmentation
from rtsx.model import ModelBundle
from rtsx.model.backend_choice import check_fixed_tile, choose_backend, reference_backend, require_backends_equal
from rtsx.model.inputs import Packing, required_layers, trusted_pixels
from rtsx.model.network import resolve_device, run_in_torch_thread
from rtsx.model.values import check_units, check_values
from rtsx.tiling import TilePlan, TileRange

_LOCK = Lock()
_WARNED_BY_WORKER: set[tuple[PredictionPlan, str]] = set()
"""What this process has warned of as a worker of a cluster, where every cell of a campaign has a runner of its own."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs tiles of one plan with its bundles; networks are opened on first use and shared within a process."""

    plan: PredictionPlan
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
    planned: Hardware = CPU
    """What blocks are planned for; another kind changes what waits in memory, and no value."""
    region: Region | None = None
    """Pixels of the raster whose outputs count, those of other pixels being nothing; None for all."""
    _warned: set[tuple[PredictionPlan, str]] = field(default_factory=set, repr=False, compare=False)
    """What has been warned of."""

    def __post_init__(self) -> None:
        """Refuse bundles that are others than those of the plan."""
        digests = tuple(bundle.digest for bundle in self.bundles)
        if digests != self.plan.members:
            raise PlanError(
                f"The plan was made of bundles {[one[:12] for one in self.plan.members]}, but {[one[:12] for one in digests]} "
                "came. Run it with its own bundles, or plan again."
            )

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """What dask names tasks by: digests instead of the weights, which it would hash anew for every prediction."""
        packings = tuple(sorted((name, repr(packing)) for name, packing in self.packings.items()))
        how = self.device, self.precision, self.backend, self.batch_size, str(self.region)
        return self.plan.to_json(), packings, *how

    @property
    def where(self) -> torch.device:
        """The device on which this process runs blocks."""
        backends = {reference_backend(each) if self.backend == "auto" else self.backend for each in self.bundles}
        return resolve_device(self.device, backends=backends)

    def require_hardware(self, begun_on: str) -> None:
        """Refuse to go on with a prediction that was begun on another kind of device than this process has.

        Raises
        ------
        ClusterError
            It is another.
        """
        here = Hardware.of(self.where).name
        if here != begun_on:
            raise ClusterError(mixed_hardware({begun_on: "where this prediction began", here: "here"}))

    def valid(self, stored: Mapping[str, NDArray[np.generic]], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Return pixels (y, x) that every required layer and the mask declare valid.

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

    def run(self, window: BlockInput, tiles: TileRange) -> TileSums:
        """Run tiles and return their weighted sums."""
        return self.submit(window, tiles).result()

    def submit(self, window: BlockInput, tiles: TileRange, *, room: Room | None = None) -> Pending[TileSums]:
        """Hand tiles to the device, which runs them together with those of other blocks; gives their weighted sums.

        Parameters
        ----------
        window
            Pixels that the tiles see.
        tiles
            Which; those without a valid pixel are not run.
        room
            What the window's bytes were given; returned when it is not needed any more.
        """
        tiling = self.plan.tiling
        if next(tiles_to_run(window, tiles, tiling=tiling), None) is None:  # looks no further than the first
            if room is not None:
                room.release()
            return Pending.done(TileSums(region=tiling.output_region(tiles), values=None))
        device = self.where
        block = BlockRun(window, tiles, plan=self.plan, open_members=lambda: self._members(device))
        return self._batches(device).submit(block, room=room)

    def tiles_ahead(self, hardware: Hardware) -> int:
        """Return how many tiles should be handed in beside those of a block before that is waited for."""
        return tiles_ahead(hardware, batch_size=self.batch_size_on(hardware))

    def windows_in_flight(self, blocks: BlockPlan) -> int:
        """Return how many windows of blocks may be in memory at once."""
        batch_size = self.batch_size_on(self.planned)
        return windows_in_flight(self.planned, batch_size=batch_size, tiles_per_block=blocks.tiles_per_block)

    def blocks(self, chunks: tuple[tuple[int, ...], tuple[int, ...]]) -> BlockPlan:
        """Return the blocks in which a raster of these chunks is run."""
        return BlockPlan(tiling=self.plan.tiling, chunks=chunks, wanted=self._wanted)

    def batch_size_on(self, hardware: Hardware) -> int:
        """Return tiles per forward pass, as long as memory lasts."""
        if self.batch_size is not None or hardware.name == "CPU":
            return self.batch_size or 1
        return default_batch_size(hardware, tile=self.plan.tiling.tile, bytes_per_pixel=self.bytes_per_pixel(hardware))

    def bytes_per_pixel(self, hardware: Hardware) -> int:
        """Return what one forward pass of the largest member takes for each pixel, with the scratch of its convolutions."""
        return max(forward_bytes_per_pixel(each, hardware, precision=self.precision) for each in self.bundles)

    def _batches(self, device: torch.device) -> Batches[BlockRun]:
        """Return those of all predictions in this process that may share a batch: cells of a campaign have a plan each."""
        plan, tiling = self.plan, self.plan.tiling
        passes = self._passes if self.backend == "auto" and device.type == "cpu" else 0  # see `_backend`
        how = (self.precision, self.backend, self.batch_size, passes)
        key = (tiling.tile, plan.members, plan.augment, plan.scales, plan.merge, plan.keep_members, *how)
        return Batches.shared(
            device,
            key,
            lambda: Batches(
                device, BatchSize(self.batch_size_on(Hardware.of(device))), tile=tiling.tile, run=run_batch
            ),
        )

    def _members(self, device: torch.device) -> tuple[EnsembleMember, ...]:
        return tuple(
            EnsembleMember(
                network=bundle.network(
                    device=str(device), precision=self.precision, backend=self._backend(bundle, device)
                ),
                inputs=bundle.inputs,
                fill=bundle.fill,
            )
            for bundle in self.bundles
        )

    @property
    def _passes(self) -> int:
        """Forward passes of one bundle over all that is run."""
        tiles = self.plan.tiling.all if self._wanted is None else self._wanted
        return len(tiles) * self.plan.passes_per_tile // len(self.bundles)

    @property
    def _wanted(self) -> TileRange | None:
        """Tiles that are run; None for all."""
        return None if self.region is None else self.plan.tiling.tiles_covering(self.region)

    def _backend(self, bundle: ModelBundle, device: torch.device) -> str:
        """Choose the backend: on a CPU in float32 the fastest by measurement; elsewhere `"auto"` is plain eager torch."""
        tile = self.plan.tiling.tile
        require_backends_equal(
            bundle,
            backend=self.backend,
            device=str(device),
            precision=self.precision,
            tile=tile,
            batch_size=self.batch_size_on(Hardware.of(device)),
        )
        if self.backend != "auto" or device.type != "cpu" or self.precision not in ("auto", "float32"):
            return self.backend
        return choose_backend(bundle, tile=tile, passes=self._passes)


# Scratch of the convolution library on top of the tensors themselves; 1.4 measured on a U-Net with oneDNN.
_SCRATCH = 2.0


def forward_bytes_per_pixel(bundle: ModelBundle, hardware: Hardware, *, precision: str) -> int:
    """Return what a forward pass takes for each pixel of its tiles at most, with the scratch of its convolutions.

    In half precision tensors have half the size; on a CPU scratch makes up for it.
    """
    is_half = hardware.name != "CPU" and precision in ("bfloat16", "float16")
    return int((0.5 if is_half else 1) * _SCRATCH * network_bytes_per_pixel(bundle))


def network_bytes_per_pixel(bundle: ModelBundle) -> int:
    """Return the bytes per pixel of a tile that one forward pass of a bundle takes; walked once per process and digest.

    Exact for what torch allocates as tensors; what a convolution library needs as scratch comes on top.
    """
    if bundle.digest not in _BY_DIGEST:
        _BY_DIGEST[bundle.digest] = run_in_torch_thread(lambda: _walked(bundle)) + 1
    return _BY_DIGEST[bundle.digest]


def _walked(bundle: ModelBundle) -> int:
    if bundle.source.framework != "torch":
        return _UNKNOWN_BYTES_PER_PIXEL
    module, counter = bundle.source.load_module(), _LiveBytes()
    try:
        walked = module.to("meta")
        with torch.inference_mode(), counter:
            walked(torch.empty((1, len(bundle.inputs), bundle.tile, bundle.tile), device="meta"))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        # It makes tensors of its own on the CPU, which do not mix with those of the meta device.
        return _UNKNOWN_BYTES_PER_PIXEL
    return counter.peak // bundle.tile**2


# Where a network cannot be walked (ONNX, scripted): twice what a U-Net with 16 channels at full size takes.
_UNKNOWN_BYTES_PER_PIXEL = 1024

_BY_DIGEST: dict[str, int] = {}


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage from its first tensor to its last; on torch's meta device tensors have no storage, but sizes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: PLR0917 - torch's
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def mixed_hardware(where: Mapping[str, str]) -> str:
    """Say that kinds of devices are mixed, and what to do; where each is, by its name."""
    found = "; ".join(f"{name} {place}" for name, place in sorted(where.items()))
    return (
        f"One map is computed by one kind of device, because another has another arithmetic, and seams would show; found {found}. "
        "Use workers that all have the same card, or device='cpu', which all have."
    )


def needed_layers(bundles: Sequence[ModelBundle], available: Sequence[str]) -> tuple[str, ...]:
    """Return names of the layers that the members read, each once, in the order of the first that wants it.

    Raises
    ------
    BundleError
        A layer is missing and cannot be derived.
    """
    return tuple(dict.fromkeys(n for bundle in bundles for n in required_layers(bundle.inputs, available)))


def packings_of(bundles: Sequence[ModelBundle], cube: xr.Dataset, *, layers: Sequence[str]) -> Mapping[str, Packing]:
    """Read how the layers of a cube are stored, checked to be what the members rely on; reads attributes only.

    Raises
    ------
    BundleError
        A layer is missing, lacks the scale that a bundle relies on, or is in another unit.
    """
    at_hand = layer_names(cube)
    missing = [name for name in layers if name not in at_hand]
    if missing:
        raise BundleError(
            f"The prediction reads layers {list(layers)}, but the cube has {list(at_hand)}: missing {missing}."
        )
    packings = {name: Packing(**packing(cube[name])) for name in layers}
    check_units(
        [layer for bundle in bundles for layer in bundle.inputs],
        packings,
        dtypes={name: cube[name].dtype for name in layers},
        units={name: cube[name].attrs.get("units", "") for name in layers},
    )
    return packings


def prediction_plan(
    bundles: Sequence[ModelBundle],
    *,
    layers: Sequence[str],
    tiling: TilePlan,
    augment: Sequence[TestTimeAugmentation],
    scales: Sequence[float],
    merge: Merge,
    keep_members: bool,
    dtype: PredictionDtype,
) -> PredictionPlan:
    """Plan bundles over a tiling; pure.

    Parameters
    ----------
    bundles
        The members, which share classes and activation; see `ensemble`.
    layers
        Names of the layers that are at hand; those that no member needs are left out.
    tiling
        Tiles of the raster.
    augment, scales, merge, keep_members, dtype
        As in `predict_cube`.

    Raises
    ------
    BundleError
        A layer is missing.
    PlanError
        A network takes tiles of another size only, or turns would turn layers that have a direction.
    """
    check_test_time_augmentations(bundles, augment)
    for each in bundles:
        check_fixed_tile(each, sizes=tuple(round(tiling.tile * scale) for scale in scales))
    first = bundles[0]
    return PredictionPlan(
        tiling=tiling,
        layers=needed_layers(bundles, layers),
        classes=first.classes,
        threshold=first.threshold,
        outlines=first.outlines,
        exclusive=first.activation == "softmax" and len(first.classes) > 1,
        members=tuple(b.digest for b in bundles),
        augment=tuple(dict.fromkeys(("identity", *augment))),
        scales=tuple(float(scale) for scale in scales),
        merge=merge,
        keep_members=keep_members,
        dtype=dtype,
    )
