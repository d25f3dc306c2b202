"""Whether one process keeps a device busy: a device that sleeps for as long as its tiles would take, and what it waits.

The whole of rtsx from Zarr to Zarr, with batches across blocks as on a GPU; the network alone is replaced by sleep. Beside it, how fast
windows are read by threads of one process and by as many processes, which is what processes could gain at most: they hand nothing over.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from unittest import mock

import dask
import numpy as np
import torch
import zarr

import rtsx
from benchmarks.host import LAYERS, FakeDevice, Work
from rtsx.cube.zarr_cube import StoredPixels, stored_pixels
from rtsx.inference.device import Hardware, plain_memory
from rtsx.inference.kernel import BlockRun, TileSums
from rtsx.tiling import Tile

_BLOCK = 1024
_SLICES = 60
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass
class SleepingDevice:
    """Takes a fixed time for every tile, and none of any processor."""

    answers: FakeDevice
    """What comes of it."""
    rate: float
    """Megapixels of map that it would do in a second."""
    busy: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of every batch."""

    def run_batch(self, parts: Sequence[tuple[BlockRun, Sequence[Tile]]], size: int) -> None:
        """Stand in for that of the kernel."""
        begin = time.perf_counter()
        tiling = parts[0][0].plan.tiling
        step = tiling.y.step * tiling.x.step
        time.sleep(sum(len(tiles) for _, tiles in parts) * step / (1e6 * self.rate))
        self.busy.append((begin, time.perf_counter()))

    def sums(self, block: BlockRun) -> TileSums:
        """Stand in for that of a block."""
        return TileSums(region=block.region, values=self.answers.values[..., block.region[0], block.region[1]])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let everything in this process run on it."""
        with (
            mock.patch.dict("rtsx.inference.device._HUBS", clear=True),  # in which batches of another may be
            mock.patch("rtsx.inference.runner.run_batch", self.run_batch),
            mock.patch.object(BlockRun, "sums", lambda block: self.sums(block)),
            mock.patch.object(Hardware, "of", return_value=Hardware("sleeping")),
        ):
            yield

    @property
    def waits(self) -> float:
        """Share of the time from its first batch to its last in which it had nothing to do."""
        return 1 - sum(end - begin for begin, end in self.busy) / (self.busy[-1][1] - self.busy[0][0])

    def timeline(self) -> str:
        """Draw how busy it was, from its first batch to its last."""
        first, last = self.busy[0][0], self.busy[-1][1]
        step = (last - first) / _SLICES
        shares = []
        for number in range(_SLICES):
            low, high = first + number * step, first + (number + 1) * step
            shares.append(sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in self.busy) / step)
        return "".join(_BARS[min(len(_BARS) - 1, round(share * (len(_BARS) - 1)))] for share in shares)


def keep_busy(work: Work, *, rate: float, tile: int = 512) -> SleepingDevice:
    """Predict on a device of this rate."""
    device = SleepingDevice(work.device, rate)
    with device.in_place(), dask.config.set(pool=work.pool):
        cube = rtsx.open_cube(work.store)
        found = rtsx.predict_cube(cube, work.bundle, tile=tile, overlap=tile // 4, trim=0, backend="eager")
        rtsx.write_cube(found, work.out / "feed.zarr", overviews=False, overwrite=True)
    return device


def _opened(store: Path) -> dict[str, StoredPixels]:
    """The layers of a store, opened once in every process."""
    if store not in _OPEN:
        cube = rtsx.open_cube(store)
        _OPEN[store] = {name: pixels for name in LAYERS if (pixels := stored_pixels(cube[name].data)) is not None}
    return _OPEN[store]


_OPEN: dict[Path, dict[str, StoredPixels]] = {}


def read_window(store: Path, place: tuple[int, int]) -> None:
    """Read one block of all layers, as a prediction does."""
    layers = _opened(store)
    memory = plain_memory(2 * len(layers) * _BLOCK**2).view(np.uint16).reshape(len(layers), _BLOCK, _BLOCK)
    for pixels, plane in zip(layers.values(), memory, strict=True):
        pixels.read_into(plane, (slice(place[0], place[0] + _BLOCK), slice(place[1], place[1] + _BLOCK)))


def reading_rate(store: Path, readers: Executor, *, size: int) -> float:
    """Megapixels a second of reading a store once."""
    places = list(product(range(0, size, _BLOCK), repeat=2))
    begin = time.perf_counter()
    list(readers.map(read_window, [store] * len(places), places))
    return len(places) * _BLOCK**2 / 1e6 / (time.perf_counter() - begin)


def _plain_copy(store: Path, target: Path) -> Path:
    """The same cube, not compressed."""
    source, group = zarr.open_group(store, mode="r"), zarr.open_group(target, mode="w")
    for name, array in source.arrays():
        group.create_array(
            name, data=array[...], attributes=array.attrs.asdict(), dimension_names=array.metadata.dimension_names,
            chunks=(_BLOCK, _BLOCK) if array.ndim == 2 else "auto", compressors=None,
        )  # fmt: skip
    group.attrs.update(source.attrs.asdict())
    return target


def run(*, size: int, rounds: int, rates: Sequence[float], readers: Sequence[int] = (1, 2, 4)) -> dict[float, float]:
    """Measure and print both tables; returns what the device waits by its rate, of the cube that is not compressed last."""
    torch.set_num_threads(1)
    waits: dict[float, float] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Work.make(Path(name), size=size, threads=max(readers))
        print(
            f"{size} x {size} px, {len(LAYERS)} layers of uint16: megapixels a second that are read, medians of {rounds} rounds"
        )
        print(f"{'':10}{'threads':>10}{'processes':>11}")
        for count in readers:
            with (
                ThreadPoolExecutor(count) as threads,
                ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as processes,
            ):
                kinds: tuple[Executor, ...] = (threads, processes)
                found: list[list[float]] = [[], []]
                for number in range(rounds + 1):
                    for kind, rates_of in zip(kinds, found, strict=True):
                        rate = reading_rate(work.store, kind, size=size)
                        if number:  # the first starts processes and loads libraries
                            rates_of.append(rate)
            print(f"{count:10}" + "".join(f"{statistics.median(one):10.1f}" for one in found), flush=True)
        print(f"a device that sleeps, {max(readers)} threads that read: share of its time that it waits, medians")
        plain = replace(work, store=_plain_copy(work.store, Path(name) / "plain.zarr"))
        keep_busy(work, rate=max(rates))
        for label, cube in (("compressed", work), ("not compressed", plain)):
            for rate in rates:
                times = sorted((keep_busy(cube, rate=rate) for _ in range(rounds)), key=lambda one: one.waits)
                device = times[rounds // 2]
                waits[rate] = device.waits
                print(f"{label:15}{rate:6.1f} Mpx/s{100 * device.waits:7.1f} %  |{device.timeline()}|", flush=True)
        work.pool.shutdown()
    return waits
