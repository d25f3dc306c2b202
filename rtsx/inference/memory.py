"""Estimate the memory of a prediction before anything runs. Pure, but for asking the machine what it has."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isqrt
from typing import TYPE_CHECKING, Any, cast

import psutil
import xarray as xr
from dask.base import is_dask_collection

from rtsx.cube.graph import images_behind
from rtsx.errors import BundleError, ClusterError, MemoryPlanError
from rtsx.inference.dask import waiting_bytes
from rtsx.inference.device import CPU, Hardware, host_bytes
from rtsx.inference.plan import direct_chunks, waiting_sums
from rtsx.inference.runner import Runner, forward_bytes_per_pixel, mixed_hardware
from rtsx.model import ModelBundle
from rtsx.model.backend_choice import reference_backend
from rtsx.model.network import resolve_device

if TYPE_CHECKING:
    from distributed import Client

# What allocators hold back between passes, and schedulers and libraries load on first use.
_SLACK_BYTES = 2**27
_GIB = 2**30
# The share of a machine without a cluster that one prediction may take; the rest is for what else runs there.
_MACHINE_SHARE = 0.6
# The share of a worker's memory that the network's own tensors may take when the tile is ours to choose.
_NETWORK_SHARE = 0.4
# Beyond this the over-compute hardly falls any more, and a failed block costs more to repeat.
_LARGEST_TILE = 4096


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Upper bound of what one worker process needs, in bytes, besides libraries and weights."""

    window_bytes: int
    """Layers of the blocks in flight, halo included: as stored, and as network input in float32; and as stored of those that wait."""
    output_bytes: int
    """Sums of these blocks and of the strips that wait for neighbours, of a whole row."""
    network_bytes: int
    """Tensors of one forward pass on the CPU, with the scratch of its convolutions: of the largest network, those of cloud masks included."""

    @property
    def total_bytes(self) -> int:
        """Sum of all, and a slack of 128 MiB for allocators."""
        return self.window_bytes + self.output_bytes + self.network_bytes + _SLACK_BYTES

    def require(self, available: int) -> None:
        """Refuse a plan that does not fit.

        Raises
        ------
        MemoryPlanError
            `available` bytes are fewer than the plan needs.
        """
        if self.total_bytes > available:
            raise MemoryPlanError(
                f"This prediction needs about {self.total_bytes / _GIB:.1f} GiB in one process "
                f"(windows {self.window_bytes / _GIB:.1f}, outputs {self.output_bytes / _GIB:.1f}, network "
                f"{self.network_bytes / _GIB:.1f}), but a worker has {available / _GIB:.1f} GiB. "
                f"Take a smaller tile, a smaller batch_size or smaller chunks, or give workers more memory."
            )


def available_bytes() -> int:
    """Return the memory that one worker process may plan with: of the smallest worker of the current client, else a share of this machine's.

    Never what is free at the moment, because the same machine takes the same tiles whenever it is asked.
    """
    limit = _worker_limit()
    if limit is not None:
        return limit
    # The machine's, or the limit of a container, which the machine's own figures do not know.
    from distributed.system import MEMORY_LIMIT  # here, because it loads the whole of distributed

    return int(_MACHINE_SHARE * MEMORY_LIMIT)


def _worker_limit() -> int | None:
    """Return the memory limit of the smallest worker of the current client; None without a client or a limit."""
    return min((int(worker["memory_limit"]) for worker in _workers() if worker["memory_limit"]), default=None)


def _workers() -> Collection[Mapping[str, Any]]:
    """Return what the scheduler of the current client says of its workers; nothing without a client."""
    client = current_client()
    return () if client is None else client.scheduler_info(n_workers=-1)["workers"].values()


def current_client() -> "Client | None":
    """Return the client in force; None without one."""
    distributed = sys.modules.get("distributed")  # without a client nobody has imported it
    if distributed is None:
        return None
    try:
        return cast("Client", distributed.get_client())
    except ValueError:
        return None


def planned_hardware(bundles: Sequence[ModelBundle], *, device: str, backend: str) -> Hardware:
    """Return what will compute a prediction: what the workers of the current client have, or this machine where there is none.

    No worker is asked where the CPU is named, and the client opens no GPU where there are workers.

    Raises
    ------
    BundleError
        There is no client, and this machine lacks the GPU that is asked for.
    ClusterError
        A worker lacks the GPU that is asked for, or workers have several kinds of devices.
    """
    if device == "cpu":
        return CPU
    backends = [reference_backend(each) if backend == "auto" else backend for each in bundles]
    client = current_client()
    if client is None or _is_worker():
        return Hardware.of(resolve_device(device, backends=backends))
    if client.asynchronous:
        return Hardware.named(device)
    found = client.run(hardware_here, device, backends)
    lacking = {address: one for address, one in found.items() if isinstance(one, str)}
    if lacking:
        address, reason = min(lacking.items())
        raise ClusterError(
            f"{len(lacking)} of {len(found)} workers have no device={device!r}, such as {address}: {reason} Use workers that all "
            "have a GPU, or device='cpu'."
        )
    kinds = {one.name: f"at {address}" for address, one in sorted(found.items(), reverse=True)}
    if len(kinds) > 1:
        raise ClusterError(mixed_hardware(kinds))
    return min(found.values(), key=lambda one: one.memory_bytes, default=Hardware.named(device))


def _is_worker() -> bool:
    from distributed import get_worker  # loaded, where there is a client

    try:
        get_worker()
    except ValueError:
        return False
    return True


def hardware_here(device: str, backends: Sequence[str]) -> Hardware | str:
    """Return what this worker has, or in words why not what was asked for."""
    try:
        return Hardware.of(resolve_device(device, backends=backends))
    except BundleError as error:
        return str(error)


def largest_tile(bundles: Sequence[ModelBundle], *, hardware: Hardware, precision: str, available: int) -> int:
    """Find the largest tile in pixels whose forward pass takes a fixed share of the memory at most; never below the bundle's own.

    Of the card where a GPU computes, of the worker's or machine's `available` bytes otherwise.
    """
    per_pixel = max(forward_bytes_per_pixel(bundle, hardware, precision=precision) for bundle in bundles)
    fitting = isqrt(hardware.batch_pixels(per_pixel) or int(_NETWORK_SHARE * available / per_pixel))
    return max(min(fitting, _LARGEST_TILE), bundles[0].tile)


def mask_bytes(cube: xr.Dataset, layers: Sequence[str]) -> int:
    """Return what a forward pass takes of the networks that mask the images of some layers, bytes; 0 where there are none.

    Of the largest alone, because one thread runs all networks of a process on the CPU.
    """
    arrays = [cube[name].data for name in (*layers, "valid") if name in cube and cube[name].chunks is not None]
    readers = (bands.reader for array in arrays for image in images_behind(array) for bands in image.bands.values())
    return max((getattr(reader, "network_bytes", 0) for reader in readers), default=0)


def require_memory(runner: Runner, cube: xr.Dataset, *, available: int) -> MemoryPlan:
    """Estimate what a prediction of a cube needs, and refuse it where a worker has less than `available` bytes.

    Without a cluster, it is also refused where less than it needs is free on this machine. Where a GPU computes, its memory
    holds the network, and has to.
    """
    plan, hardware = runner.plan, runner.planned
    chunks = plane_chunks(cube, plan.layers)
    inputs = {(bundle.inputs, bundle.fill) for bundle in runner.bundles}
    blocks = runner.blocks(chunks or direct_chunks(plan.tiling.shape))
    stored = 1 + sum(cube[name].dtype.itemsize for name in plan.layers)
    channels = sum(len(layers) for layers, _ in inputs)
    batch = runner.batch_size_on(hardware)
    network_bytes = runner.bytes_per_pixel(hardware) * batch * plan.tiling.tile**2
    require_card(
        hardware,
        network_bytes=network_bytes,
        block_bytes=blocks.largest_read * (stored + 4 * channels + 4 * plan.kept * len(plan.classes)),
        tiles_per_block=blocks.tiles_per_block,
        batch_size=batch,
        tile=plan.tiling.tile,
    )
    output = 4 * plan.kept * len(plan.classes)
    if chunks is None:
        ahead = runner.tiles_ahead(hardware)
        waiting = 0, waiting_sums(blocks, ahead=ahead) * output
    else:  # the workers of a cluster have a part of each row
        lazy = waiting_bytes(blocks, pixel_bytes=stored, output_bytes=output, hardware=hardware)
        # In a task of a worker, whatever it computes is computed there.
        workers = 1 if current_client() is None or _is_worker() else max(1, len(_workers()))
        waiting = ceil(lazy[0] / workers), ceil(lazy[1] / workers)
    on_cpu = hardware.name == "CPU"
    in_flight, read = runner.windows_in_flight(blocks), blocks.largest_read
    chunk = max(blocks.chunks[0]) * max(blocks.chunks[1])
    window = host_bytes(read * stored, hardware) + (read * 4 * channels if on_cpu else 0)
    estimated = MemoryPlan(
        window_bytes=in_flight * window + waiting[0],
        output_bytes=in_flight * (host_bytes(read * output, hardware) + 2 * chunk * output) + waiting[1],
        network_bytes=max(network_bytes if on_cpu else 0, mask_bytes(cube, plan.layers)),
    )
    free = available if _worker_limit() is not None else psutil.virtual_memory().available
    estimated.require(min(available, free))
    return estimated


def require_card(
    hardware: Hardware, *, network_bytes: int, block_bytes: int, tiles_per_block: float, batch_size: int, tile: int
) -> None:
    """Refuse a batch that its GPU cannot hold even when nothing else is there; passes where its memory is not known.

    Parameters
    ----------
    hardware
        The GPU.
    network_bytes
        Of one forward pass.
    block_bytes
        Of the pixels and sums of one block on the device; there are those of a batch, and one that is begun with it, for each thread.
    tiles_per_block
        Tiles of a block.
    batch_size, tile
        Tiles of a batch, and their side in px.

    Raises
    ------
    MemoryPlanError
        The card has fewer bytes.
    """
    n_blocks = hardware.n_threads * (ceil(batch_size / tiles_per_block) + 1)
    n_bytes = network_bytes + n_blocks * block_bytes
    if 0 < hardware.memory_bytes < n_bytes:
        what = f"{batch_size} tiles" if batch_size > 1 else "one tile"
        cure = "Take a smaller batch_size" if batch_size > 1 else "Take a smaller tile"
        raise MemoryPlanError(
            f"A forward pass over {what} of {tile} px needs about {n_bytes / _GIB:.1f} GiB of {hardware.name}, which has "
            f"{hardware.memory_bytes / _GIB:.1f} GiB. {cure}, or device='cpu'."
        )


def plane_chunks(cube: xr.Dataset, layers: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Choose the chunks (y, x) of a prediction of these layers: the first lazy layer's; None where none is lazy."""
    for name in (*layers, "valid"):
        if name in cube and is_dask_collection(cube[name].data):
            y, x = cube[name].data.chunks[-2:]
            return y, x
    return None
