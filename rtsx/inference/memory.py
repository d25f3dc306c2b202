"""Estimate the memory of a prediction before anything runs. Pure, but for asking the machine what it has."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import psutil
import torch
import xarray as xr

from rtsx.errors import MemoryPlanError
from rtsx.inference.blocks import BlockPlan
from rtsx.inference.in_memory import direct_chunks, plane_chunks
from rtsx.inference.plan import PredictionPlan
from rtsx.inference.runner import Runner
from rtsx.model import ModelBundle
from rtsx.model.activations import network_bytes_per_pixel

# Scratch of the convolution library on top of the tensors themselves; 1.4 measured on a U-Net with oneDNN.
_SCRATCH = 2.0
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
    """Layers of the blocks in flight, halo included: as stored, and as network input in float32."""
    output_bytes: int
    """Sums of these blocks and of the strips that wait for neighbours."""
    network_bytes: int
    """Tensors of one forward pass, with the scratch of its convolutions."""

    @property
    def total_bytes(self) -> int:
        """Sum of all, and a slack of 128 MiB for allocators."""
        return self.window_bytes + self.output_bytes + self.network_bytes + _SLACK_BYTES

    @classmethod
    def estimate(
        cls,
        plan: PredictionPlan,
        blocks: BlockPlan,
        *,
        stored_bytes_per_pixel: int,
        channels: int,
        activation_bytes: int,
        in_flight: int = 2,
    ) -> "MemoryPlan":
        """Estimate the bound for the largest block.

        Parameters
        ----------
        plan, blocks
            What is run, and in which blocks.
        stored_bytes_per_pixel
            Of all layers that are read, and of the validity.
        channels
            Input channels of all members that want different ones.
        activation_bytes
            Of one forward pass over a full batch; the most of any member.
        in_flight
            Blocks at once in one process: those that are computed, and one that is read or handed over meanwhile.
        """
        read = blocks.largest_read
        chunk = max(blocks.chunks[0]) * max(blocks.chunks[1])
        output = 4 * plan.kept * len(plan.classes)
        return cls(
            window_bytes=in_flight * read * (stored_bytes_per_pixel + 4 * channels),
            output_bytes=in_flight * output * (read + 2 * chunk),
            network_bytes=int(_SCRATCH * activation_bytes),
        )

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
                f"(windows {self.window_bytes / _GIB:.1f}, answers {self.output_bytes / _GIB:.1f}, network "
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
    distributed = sys.modules.get("distributed")  # without a client nobody has imported it
    if distributed is None:
        return None
    try:
        client = distributed.get_client()
    except ValueError:
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return int(min(limits)) if limits else None


def largest_tile(bundles: Sequence[ModelBundle], *, device: str, available: int) -> int:
    """Find the largest tile in pixels whose forward pass takes two fifths of the memory at most; never below the bundle's own."""
    if device != "cpu" and torch.cuda.is_available():
        available = min(available, torch.cuda.mem_get_info()[1])  # of the device, not what is free on it
    per_pixel = max(network_bytes_per_pixel(bundle) for bundle in bundles)
    fitting = isqrt(int(_NETWORK_SHARE * available / (_SCRATCH * per_pixel)))
    return max(min(fitting, _LARGEST_TILE), bundles[0].tile)


def require_memory(runner: Runner, cube: xr.Dataset, *, available: int) -> MemoryPlan:
    """Estimate what a prediction of a cube needs, and refuse it where a worker has less than `available` bytes.

    Without a cluster, it is also refused where less than it needs is free on this machine.
    """
    plan = runner.plan
    chunks = plane_chunks(cube, plan.layers) or direct_chunks(plan.tiling.shape)
    batch = runner.batch_size or 1
    inputs = {(bundle.inputs, bundle.fill) for bundle in runner.bundles}
    blocks = BlockPlan(tiling=plan.tiling, chunks=chunks)
    reckoned = MemoryPlan.estimate(
        plan,
        blocks,
        stored_bytes_per_pixel=1 + sum(cube[name].dtype.itemsize for name in plan.layers),
        channels=sum(len(layers) for layers, _ in inputs),
        activation_bytes=max(map(network_bytes_per_pixel, runner.bundles)) * batch * plan.tiling.tile**2,
        in_flight=runner.windows_in_flight(runner.planned_device, blocks),
    )
    free = available if _worker_limit() is not None else psutil.virtual_memory().available
    reckoned.require(min(available, free))
    return reckoned
