"""Where networks run: one trip to the device and back, how many blocks may be on it at once, and what is done when its memory ends.

The only file of this room that knows CUDA. On a CPU, one thread runs all networks, with torch's own threads on top:
while one block computes, the others read. On a GPU two threads, each with its own stream and pinned buffers, hide the
transfers of one block behind the work of another.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rtsx.errors import MemoryPlanError
from rtsx.model.network import is_out_of_memory, run_in_torch_thread
from rtsx.threads import ReadWriteLock

_T = TypeVar("_T")

_TURNS: dict[torch.device, ReadWriteLock] = {}
_WINDOWS: dict[torch.device, threading.BoundedSemaphore] = {}

# About what keeps a large GPU busy with an ordinary encoder-decoder; running out of memory halves it.
_GPU_BATCH_PIXELS = 2**24


def default_batch_size(device: torch.device, *, tile: int) -> int:
    """Return tiles per forward pass: one on a CPU, where a larger batch only falls out of the caches."""
    return 1 if device.type == "cpu" else max(1, min(64, _GPU_BATCH_PIXELS // tile**2))


def on_device(device: torch.device, work: Callable[[], _T], *, shrink: Callable[[torch.OutOfMemoryError], None]) -> _T:
    """Run the work of one block in a thread of its device.

    Where memory ends, once more when no other block is on the device, as that may hold what is missing; and then after each
    `shrink`, which is given the error and makes the work smaller or raises.
    """
    turns = _TURNS.setdefault(device, ReadWriteLock())
    for alone in (False, True):
        with turns.taken(alone=alone):
            while True:
                try:
                    return run_in_torch_thread(work, device)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    # Its words alone, because the frames of the error and of those behind it hold what the block has used.
                    reason = torch.OutOfMemoryError(str(error))
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                if not alone:
                    break
                shrink(reason)
    raise AssertionError("a block that is alone is run until it is done or an error comes")


@contextmanager
def window_slot(device: torch.device) -> Iterator[None]:
    """Hold one of a device's slots for a window in memory: one for each that is computed, and one for what comes next.

    Without it every thread of dask would put its window together and then wait for the device.
    """
    with _WINDOWS.setdefault(device, threading.BoundedSemaphore(windows_in_memory(device))):
        yield


def windows_in_memory(device: torch.device) -> int:
    """How many windows there are at most: a CPU computes one at a time, a GPU two."""
    return 2 if device.type == "cpu" else 3


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to the device in its own dtype; not blocking where the device allows it."""
    if not array.flags.writeable or not array.dtype.isnative or min(array.strides, default=0) < 0:
        # torch cannot mark a tensor as read-only, and refuses foreign byte order and arrays that run backwards.
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    if device.type == "cpu":
        return torch.from_numpy(array)
    # A view would be pinned with all that lies between its rows, and copied once more to be sent.
    return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(device, non_blocking=True)


def from_device(tensor: torch.Tensor) -> NDArray[Any]:
    """Copy a tensor to the host as an array, when everything before it on this stream is done."""
    if tensor.device.type == "cpu":
        return np.asarray(tensor.numpy())
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return np.asarray(host.numpy())


class BatchSize:
    """How many tiles go through the network at once; shrinks for good when the device runs out of memory.

    One per process, device and plan; safe to share between threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Tiles per forward pass, at least 1."""
        return self._size

    def halve(self, failed: int, *, tile: int, cause: BaseException) -> None:
        """Go down to half of the size that failed, with one warning per size.

        Raises
        ------
        MemoryPlanError
            The size was 1 already.
        """
        if failed <= 1:
            raise MemoryPlanError(
                f"The device has no memory for a single tile of {tile} px. Take a smaller tile, or another device."
            ) from cause
        with self._lock:
            if self._size < failed:
                return  # another thread met the same wall and has said so
            self._size = failed // 2
        warnings.warn(
            f"The device ran out of memory at {failed} tiles of {tile} px; going on with {failed // 2}. "
            f"Pass batch_size={failed // 2} to start there.",
            RuntimeWarning,
            stacklevel=2,
        )
