"""Where networks run: batches of one shape, filled across blocks; one trip to the device and back; what is done when its memory ends.

The only file of this room that knows CUDA. On a CPU, one thread runs all networks, with torch's own threads on top:
while one block computes, the others read. On a GPU two threads, each with its own stream and pinned buffers, hide the
transfers of one block behind the work of another.
"""

import os
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import ceil, prod
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rtsx.errors import MemoryPlanError
from rtsx.model.network import is_out_of_memory, is_torch_thread, start_in_torch_thread, torch_threads
from rtsx.threads import ReadWriteLock

# Of one batch. Some milliseconds of a large GPU with an ordinary encoder-decoder, several times what starting its kernels
# takes; more is no faster, takes more memory, and makes more of what is left at the end of a small cube.
_GPU_BATCH_PIXELS = 2**22


# Of a card, for the tensors of forward passes; the rest is for weights, for what blocks hold, and for what libraries take.
_CARD_SHARE = 0.8


@dataclass(frozen=True)
class Hardware:
    """What computes, as far as its kind decides values and memory."""

    name: str
    """"CPU", or the name of the card; "GPU" where only that is known."""
    memory_bytes: int = 0
    """Of the card, all of it; 0 where it is not known, or none."""

    @classmethod
    def of(cls, device: torch.device) -> "Hardware":
        """Look at a device of this process."""
        return CPU if device.type == "cpu" else _card(device)

    @classmethod
    def named(cls, device: str) -> "Hardware":
        """Return what a device's name says, which need not be here."""
        return CPU if device in ("cpu", "auto") else cls("GPU")

    @property
    def n_threads(self) -> int:
        """How many threads run networks on it."""
        return torch_threads(torch.device("cpu" if self.name == "CPU" else "cuda"))

    def batch_pixels(self, bytes_per_pixel: int) -> int | None:
        """Return how many pixels a forward pass may have where all threads run one; None where nobody knows."""
        return int(_CARD_SHARE * self.memory_bytes / (self.n_threads * bytes_per_pixel)) if self.memory_bytes else None


CPU = Hardware("CPU")
"""Any, because its memory is that of the machine."""


@cache
def _card(device: torch.device) -> Hardware:
    properties = torch.cuda.get_device_properties(device)
    return Hardware(properties.name, properties.total_memory)


def default_batch_size(hardware: Hardware, *, tile: int, bytes_per_pixel: int) -> int:
    """Return tiles per forward pass: one on a CPU, where a larger batch only falls out of the caches.

    By the whole memory of a card, not by what is free, so that one kind of card has one arithmetic.
    """
    if hardware.name == "CPU":
        return 1
    pixels = min(_GPU_BATCH_PIXELS, hardware.batch_pixels(bytes_per_pixel) or _GPU_BATCH_PIXELS)
    return max(1, min(64, pixels // tile**2))


def tiles_ahead(hardware: Hardware, *, batch_size: int) -> int:
    """Return how many tiles should be there beside those of a block before it is waited for, so that its batches are full."""
    return 0 if batch_size == 1 else hardware.n_threads * batch_size


def windows_in_flight(hardware: Hardware, *, batch_size: int, tiles_per_block: float) -> int:
    """Return how many windows there are at most: those whose tiles run or wait for a full batch, and one that comes next."""
    if batch_size == 1:
        return hardware.n_threads + 1
    return 2 + ceil(2 * tiles_ahead(hardware, batch_size=batch_size) / tiles_per_block)


_T_co = TypeVar("_T_co", covariant=True)
_Piece_co = TypeVar("_Piece_co", covariant=True)


class Work(Protocol[_Piece_co, _T_co]):
    """A block, as `Batches` runs it: in one thread, and in the stream of that thread."""

    @property
    def tiles(self) -> Sequence[_Piece_co]:
        """What has to run."""
        ...

    def restart(self) -> None:
        """Let go of everything on the device, and begin with the first tile again."""
        ...

    def sums(self) -> _T_co:
        """Return what came out, when all tiles have run."""
        ...


class BatchSize:
    """How many tiles go through the network at once; shrinks for good when the device runs out of memory.

    One per process, device and plan; safe to share between threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.has_shrunk = False
        """The device ran out of memory at the size it began with."""
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
                return  # another thread ran out of memory at the same size and has said so
            self._size = failed // 2
            self.has_shrunk = True
        warnings.warn(
            f"The device ran out of memory at {failed} tiles of {tile} px; going on with {failed // 2}, which may change the last "
            f"bits of probabilities. Pass batch_size={failed // 2} to have one arithmetic for the whole map.",
            RuntimeWarning,
            stacklevel=2,
        )


_W = TypeVar("_W", bound=Work[Any, Any])


class Batches(Generic[_W]):
    """Tiles of the blocks in flight of one prediction on one device, run in batches of one shape.

    A batch runs when it is full, or when somebody waits for one of its tiles or for room. So it never waits for what does
    not come, and is full wherever enough blocks are handed in before the first is waited for.

    Parameters
    ----------
    device
        Where they run.
    size
        Tiles of a batch.
    tile
        Side of a tile in px, for messages.
    run
        Runs the given tiles of blocks as one batch of a size.
    """

    def __init__(
        self,
        device: torch.device,
        size: BatchSize,
        *,
        tile: int,
        run: Callable[[Sequence[tuple[_W, Sequence[Any]]], int], None],
    ) -> None:
        self._size = size
        self._hub = _hub(device)
        self._lanes = [_Lane(self._hub, number, size, tile=tile, run=run) for number in range(torch_threads(device))]

    @classmethod
    def shared(cls, device: torch.device, key: Hashable, make: Callable[[], "Batches[_W]"]) -> "Batches[_W]":
        """Return this process's under a key, made where there is none yet; those that have nothing to do give way to it."""
        hub = _hub(device)
        with hub.lock:
            if key not in hub.shared:
                hub.shared = {other: batches for other, batches in hub.shared.items() if batches.is_needed}
                hub.shared[key] = make()
            return hub.shared[key]

    @property
    def is_needed(self) -> bool:
        """Tiles wait in them, or a new one would begin with a batch that the device has no memory for."""
        return self._size.has_shrunk or any(lane.jobs for lane in self._lanes)

    def submit(self, work: _W, *, room: "Room | None" = None) -> "Pending[Any]":
        """Hand in a block; its room is given back when it is done."""
        job = _Job(work, room)
        with self._hub.lock:
            size = self._size.size
            # One batch is filled before the next is begun.
            lane = min(self._lanes, key=lambda one: (not 0 < one.left < size, one.left))
            lane.jobs.append(job)
            self._hub.lanes.add(lane)
        lane.start()
        return Pending(job, lane)


class Pending(Generic[_T_co]):
    """What comes of a block that was handed in. Pickles as what came of it."""

    def __init__(self, job: "_Job", lane: "_Lane | None") -> None:
        self._job, self._lane = job, lane
        weakref.finalize(self, job.drop).atexit = False

    @classmethod
    def done(cls, value: Any) -> "Pending[Any]":
        """Return one that need not be waited for."""
        job = _Job(None, None)
        job.end(value)
        return cls(job, None)

    def result(self) -> _T_co:
        """Wait for it, and let its batch run even if it is not full."""
        if self._lane is not None and not self._job.result.done():
            self._job.is_wanted = True
            self._lane.start()
        value: _T_co = self._job.result.result()
        return value

    def __sizeof__(self) -> int:
        """Return the bytes of what comes of it, by which a cluster spills and moves it."""
        work, result = self._job.work, self._job.result
        value = result.result() if result.done() and result.exception() is None else None
        return object.__sizeof__(self) + sys.getsizeof(value if work is None else work)

    def __reduce__(self) -> tuple[Any, ...]:
        """Wait for it, because what is pending does not travel."""
        return Pending.done, (self.result(),)


class _Job:
    """A block that was handed in."""

    def __init__(self, work: "Work[Any, Any] | None", room: "Room | None") -> None:
        self.work = work
        self.tiles: Sequence[Any] = () if work is None else work.tiles
        self.taken = 0
        """Tiles that are in a batch that runs or has run."""
        self.is_wanted = False
        """Somebody waits for it."""
        self.is_suspect = False
        """It was in a batch that failed, so it runs apart from others."""
        self.result: Future[Any] = Future()
        self._room = room

    @property
    def left(self) -> int:
        """Tiles that are in no batch yet."""
        return len(self.tiles) - self.taken

    def restart(self) -> None:
        """Forget what has run."""
        if self.work is not None:
            self.work.restart()
        self.taken = 0

    def end(self, value: Any = None, *, error: BaseException | None = None) -> None:
        """Let go of the block and its room, and say what came of it; once more is no error."""
        self.work = None
        if self._room is not None:
            self._room.release()
        if self.result.done():
            return
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)

    def drop(self) -> None:
        """Let go of the block, as nobody waits for it; from wherever the garbage collector runs, so no lock is taken."""
        self.work = None


class _Lane:
    """One thread of a device, and the blocks of one prediction that it runs."""

    def __init__(
        self, hub: "_Hub", number: int, size: BatchSize, *, tile: int, run: Callable[[Sequence[Any], int], None]
    ) -> None:
        self.jobs: deque[_Job] = deque()
        """With tiles left, in the order in which they came."""
        self._hub, self._number, self._size, self._tile, self._run = hub, number, size, tile, run
        self._is_running = False

    @property
    def left(self) -> int:
        """Tiles that are in no batch yet."""
        return sum(job.left for job in self.jobs)

    def start(self) -> None:
        """Run what can run, in the lane's thread."""
        with self._hub.lock:
            if self._is_running or not self._is_ready():
                return
            self._is_running = True
        try:
            if is_torch_thread(self._hub.device, self._number):
                self._run_all()
            else:
                running = start_in_torch_thread(self._run_all, self._hub.device, self._number)
                running.add_done_callback(lambda future: self._stop(future.exception()))
        except BaseException as error:
            self._stop(error)
            raise

    def _stop(self, error: BaseException | None) -> None:
        """End what waits where running itself has failed, because nobody else would; the next block tries again."""
        if error is not None:
            with self._hub.lock:
                self._is_running = False
                self._fail(list(self.jobs), error)

    def _is_ready(self) -> bool:
        """Return whether a batch can run, when none does; blocks that were dropped leave."""
        for job in [job for job in self.jobs if job.work is None]:
            self._fail([job], CancelledError())
        if not self.jobs:
            self._hub.lanes.discard(self)
        is_urgent = self._hub.is_short or any(job.is_wanted for job in self.jobs)
        return self.left >= (1 if is_urgent else self._size.size)

    def _run_all(self) -> None:
        """Run batches as long as there are any.

        Where memory ends, once more when no other block is on the device, as that may hold what is missing; and then after
        each halving.
        """
        alone = False
        while True:
            with self._hub.turns.taken(alone=alone):
                if alone:
                    self._hub.clear_device()
                size, parts = self._next_batch()
                if not parts:
                    return
                reason = self._run_batch(parts, size)
            if reason is not None and alone:
                try:
                    self._size.halve(size, tile=self._tile, cause=reason)
                except (MemoryPlanError, Warning) as error:  # where warnings are errors
                    self._fail([job for job, _ in parts], error)
            alone = reason is not None

    def _next_batch(self) -> tuple[int, list[tuple[_Job, Sequence[Any]]]]:
        """Take the tiles of the next batch, and how many it has when full; none ends the run."""
        with self._hub.lock:
            parts: list[tuple[_Job, Sequence[Any]]] = []
            size = missing = self._size.size
            self._is_running = self._is_ready()
            while self._is_running and self.jobs and missing:
                job = self.jobs[0]
                if parts and (job.is_suspect or parts[0][0].is_suspect):
                    break
                tiles = job.tiles[job.taken : job.taken + missing]
                job.taken += len(tiles)
                missing -= len(tiles)
                parts.append((job, tiles))
                if not job.left:
                    self.jobs.popleft()
            return size, parts

    def _run_batch(self, parts: Sequence[tuple[_Job, Sequence[Any]]], size: int) -> torch.OutOfMemoryError | None:
        """Run a batch and hand out what is done; where memory ends, put its blocks back and return why.

        Where it fails otherwise, its blocks begin again, each apart from the others, because the error is that of one.
        """
        works = [(work, tiles) for job, tiles in parts if (work := job.work) is not None]
        jobs = [job for job, _ in parts]
        reason = None
        try:
            if works:
                self._run(works, size)
        except BaseException as error:
            reason = _out_of_memory(error)
            if reason is None and len(jobs) == 1:
                self._fail(jobs, error)
                del parts, works, jobs  # whose results hold the error, which holds this frame
                return None
            for job in jobs:
                job.is_suspect |= reason is None
        else:
            del works
            done = [job for job in jobs if not job.left]
            jobs = []
            for job in done:
                if (failed := self._finish(job)) is not None:
                    reason = failed
                    jobs.append(job)
        with self._hub.lock:
            for job in reversed(jobs):
                if job not in self.jobs:
                    self.jobs.appendleft(job)
                job.restart()
        return reason

    @staticmethod
    def _finish(job: _Job) -> torch.OutOfMemoryError | None:
        """Hand out what came of a block; where memory ends, return why."""
        try:
            value = None if (work := job.work) is None else work.sums()
        except BaseException as error:
            if (reason := _out_of_memory(error)) is not None:
                return reason
            job.end(error=error)
            del job, work  # whose result holds the error, which holds this frame
        else:
            job.end(value)
        return None

    def _fail(self, jobs: Sequence[_Job], error: BaseException) -> None:
        with self._hub.lock:
            for job in jobs:
                if job in self.jobs:
                    self.jobs.remove(job)
        for job in jobs:
            job.end(error=error)


def _out_of_memory(error: BaseException) -> torch.OutOfMemoryError | None:
    """Return an error that says the same, where one says that memory ended; without the frames of it, which hold what the block has used."""
    is_one = isinstance(error, (RuntimeError, MemoryError)) and is_out_of_memory(error)
    return torch.OutOfMemoryError(str(error)) if is_one else None


class Room:
    """Bytes that the windows of one block may take."""

    def __init__(self, hub: "_Hub", n_bytes: int, limit: int) -> None:
        self.n_bytes, self.limit = n_bytes, limit
        self.is_given = False
        self._hub = hub

    def release(self) -> None:
        """Give it back; once more is no error."""
        self._hub.give_back(self)


def room_for(device: torch.device, n_bytes: int, *, limit: int) -> Room:
    """Wait until the windows in memory leave room for another of `n_bytes` below `limit`, or there is none.

    Without it every thread of dask would put its window together and then wait for the device.
    """
    hub = _hub(device)
    return hub.give(Room(hub, n_bytes, limit))


class _Hub:
    """What all predictions on one device of this process share."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lock = threading.RLock()
        self.turns = ReadWriteLock()
        self.lanes: set[_Lane] = set()
        """Those in which blocks wait."""
        self.shared: dict[Hashable, Batches[Any]] = {}
        self._changed = threading.Condition(self.lock)
        self._used = 0
        self._asking: deque[Room] = deque()

    @property
    def is_short(self) -> bool:
        """Somebody waits for room."""
        return bool(self._asking)

    def give(self, room: Room) -> Room:
        """Wait until there is room."""
        with self.lock:
            self._asking.append(room)
            self._give_in_turn()
            lanes = [] if room.is_given else list(self.lanes)
        try:
            for lane in lanes:
                lane.start()
            with self._changed:
                self._changed.wait_for(lambda: room.is_given)
        except BaseException:
            room.release()
            raise
        return room

    def give_back(self, room: Room) -> None:
        """Take room back from who has it or asks for it."""
        with self._changed:
            if room in self._asking:
                self._asking.remove(room)
            self._used -= room.n_bytes if room.is_given else 0
            room.is_given = False
            self._give_in_turn()

    def _give_in_turn(self) -> None:
        while self._asking and (not self._used or self._used + self._asking[0].n_bytes <= self._asking[0].limit):
            room = self._asking.popleft()
            self._used += room.n_bytes
            room.is_given = True
            self._changed.notify_all()

    def clear_device(self) -> None:
        """Let go of what blocks that wait hold on the device; only whoever is alone there may ask for it."""
        with self.lock:
            for job in [job for lane in self.lanes for job in lane.jobs if job.taken]:
                job.restart()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


_HUBS: dict[torch.device, _Hub] = {}


def _hub(device: torch.device) -> _Hub:
    return _HUBS.get(device) or _HUBS.setdefault(device, _Hub(device))


def current_stream(device: torch.device) -> int:
    """Return the number of this thread's stream; 0 on a CPU."""
    return 0 if device.type == "cpu" else int(torch.cuda.current_stream(device).cuda_stream)


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to the device in its own dtype; not blocking where the device allows it."""
    if not array.flags.writeable or not array.dtype.isnative or min(array.strides, default=0) < 0:
        # torch cannot mark a tensor as read-only, and refuses foreign byte order and arrays that run backwards.
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    if tensor.is_pinned():
        # With what lies between its rows, because torch would gather these in other memory first, and wait.
        span = 1 + sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
        sent = tensor.as_strided((span,), (1,)).to(device, non_blocking=True)
        return sent.as_strided(tensor.shape, tensor.stride())
    # A view would be pinned with all that lies between its rows, and copied once more to be sent.
    return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(device, non_blocking=True)


Memory = Callable[[int], NDArray[np.uint8]]
"""Gives so many bytes of host memory."""


def plain_memory(n_bytes: int) -> NDArray[np.uint8]:
    """Return memory of this process, which is used again when nothing holds it: the system clears what is new, which takes longer than to copy pixels into it."""
    return np.asarray(_Lent(n_bytes))


def planes(shape: tuple[int, ...], dtypes: Mapping[str, np.dtype[Any]], *, memory: Memory) -> dict[str, NDArray[Any]]:
    """Return arrays of one shape by name in one piece of memory, which hold anything; each begins where a line of the cache does."""
    sizes = [prod(shape) * dtype.itemsize for dtype in dtypes.values()]
    *starts, end = accumulate((-(-size // 64) * 64 for size in sizes), initial=0)
    whole = memory(end)
    return {
        name: whole[start : start + size].view(dtype).reshape(shape)
        for (name, dtype), start, size in zip(dtypes.items(), starts, sizes, strict=True)
    }


class _Lent:
    """Memory as an array holds it; given back by whichever thread lets go of it last, so that no lock is taken."""

    _free: ClassVar[deque[NDArray[np.uint8]]] = deque(maxlen=8)
    _lent: ClassVar[set[int]] = set()

    def __init__(self, n_bytes: int) -> None:
        self._memory = self._found(n_bytes)
        self._lent.add(id(self))
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (n_bytes,),
            "data": self._memory.__array_interface__["data"],
        }

    def __del__(self) -> None:
        self._free.append(self._memory)
        self._lent.discard(id(self))
        if not self._lent:
            self._free.clear()

    def _found(self, n_bytes: int) -> NDArray[np.uint8]:
        for _ in range(len(self._free)):
            try:
                memory = self._free.pop()
            except IndexError:  # another thread has it
                break
            if n_bytes <= memory.nbytes <= 3 * n_bytes:
                return memory
            self._free.appendleft(memory)
        return np.empty(n_bytes, np.uint8)


def memory_for(device: torch.device) -> Memory:
    """Return what gives host memory that a device takes pixels from: for a GPU what it reads by itself."""
    return plain_memory if device.type == "cpu" else _pinned


def _pinned(n_bytes: int) -> NDArray[np.uint8]:
    try:
        return np.asarray(torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True).numpy())
    except RuntimeError:  # no more may be locked, as below `ulimit -l`; the device takes other memory as well
        return plain_memory(n_bytes)


def host_bytes(n_bytes: int, hardware: Hardware) -> int:
    """Return what `memory_for` takes of the machine for so many bytes: torch pins powers of two, and keeps them for those that come.

    Examples
    --------
    >>> host_bytes(1000, CPU), host_bytes(1000, Hardware("GPU"))
    (1000, 1024)
    """
    return n_bytes if hardware.name == "CPU" else 1 << max(0, n_bytes - 1).bit_length()


def from_device(tensors: Sequence[torch.Tensor]) -> list[NDArray[Any]]:
    """Copy tensors of one device to the host as arrays, when everything before them on this stream is done; waits once."""
    device = tensors[0].device
    if device.type == "cpu":
        return [np.asarray(tensor.numpy()) for tensor in tensors]
    hosts = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    for host, tensor in zip(hosts, tensors, strict=True):
        host.copy_(tensor.contiguous(), non_blocking=True)
    torch.cuda.current_stream(device).synchronize()
    return [np.asarray(host.numpy()) for host in hosts]


os.register_at_fork(after_in_child=_HUBS.clear)  # a child has none of the threads that would run what waits
