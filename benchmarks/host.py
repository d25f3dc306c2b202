"""What rtsx costs the processors around a network on a device that takes no time: reading, assembling, quantising, writing.

The device is faked: what it cannot take from where it lies is copied as it would be, and the answer is there. Floor is the same arrays through zarr-python
alone, with the codecs that rtsx writes. Seconds of user and system together, contenders in turns, medians of the rounds. The busiest thread bounds what
one process can deliver, however many processors it has: its seconds per megapixel are taken from Linux's own count of each thread.
"""

import gc
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import torch
import zarr
from numpy.typing import NDArray

import rtsx
from benchmarks.contenders import Contender
from benchmarks.scene import make_cube
from rtsx.cube.write import compressor_for
from rtsx.inference.device import Pending, Room
from rtsx.inference.kernel import ONE, BlockInput, TileSums, tiles_to_run
from rtsx.inference.runner import Runner
from rtsx.model.metadata import Reach
from rtsx.tiling import TileRange

LAYERS = tuple(f"layer{number}" for number in range(10))
OUTPUTS = ("probability", "binary", "valid")
REACH = 64
"""Pixels, so that tiles of rtsx's own choice are what a network with a finite reach gets."""
TILES = ((512, 128), (1024, 256))


@dataclass
class FakeDevice:
    """Answers at once, from a field that is there."""

    values: NDArray[np.int32]
    """Sums (member, class, y, x) of the whole raster."""

    def submit(
        self, runner: Runner, window: BlockInput, tiles: TileRange, *, room: Room | None = None
    ) -> Pending[TileSums]:
        """Stand in for `Runner.submit`."""
        tiling = runner.plan.tiling
        region = tiling.output_region(tiles)
        values = None
        if list(tiles_to_run(window, tiles, tiling=tiling)):
            np.array(window.valid)  # into pinned memory, in which the layers are since they were read
            values = self.values[..., region[0], region[1]]
        if room is not None:
            room.release()
        return Pending.done(TileSums(region=region, values=values))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let every runner of this process use it."""

        def submit(*given: Any, **how: Any) -> Pending[TileSums]:
            return self.submit(*given, **how)

        with mock.patch.object(Runner, "submit", submit):
            yield


@dataclass(frozen=True)
class Work:
    """What every contender is given."""

    store: Path
    """Ten layers of uint16 as rtsx writes them."""
    out: Path
    """Where outputs may be written."""
    bundle: rtsx.ModelBundle
    """A network of one operator."""
    device: FakeDevice
    """Answers for it."""
    size: int
    """Side of the raster, px."""
    pool: ThreadPoolExecutor
    """Threads that stay, so that their time can be read afterwards."""

    @property
    def pixels(self) -> int:
        """Pixels of the raster."""
        return self.size**2

    @classmethod
    def make(cls, folder: Path, *, size: int, threads: int) -> "Work":
        """Write the cube."""
        store = folder / "cube.zarr"
        rtsx.write_cube(make_cube(size, layers=LAYERS, wide=len(LAYERS)), store, overviews=False)
        network = torch.nn.Conv2d(len(LAYERS), 1, 1)
        bundle = rtsx.ModelBundle.from_module(
            network, layers=LAYERS, classes=("target",), tile=256, overlap=64, stride=32, id="null"
        ).with_reach(Reach(stride=32, radius=REACH, depends_on_tile=False))
        smooth = make_cube(size, layers=("field",))["field"].values.astype(np.float32) / 3001
        device = FakeDevice((smooth * ONE).astype(np.int32)[None, None])
        return cls(store, folder, bundle, device, size, ThreadPoolExecutor(threads))


def zarr_alone(work: Work) -> None:
    """The floor: what is read and written by zarr-python in blocks of a shard, with nothing between."""
    layers = [zarr.open_group(work.store, mode="r")[name] for name in LAYERS]
    target = work.out / "floor.zarr"
    shutil.rmtree(target, ignore_errors=True)
    group = zarr.open_group(target, mode="w")
    shard = layers[0].shards or layers[0].chunks
    some = work.device.values[0, 0]
    outputs = {
        "probability": np.rint(some * np.float32(100 / ONE)).astype(np.uint8),
        "binary": (some > ONE // 2).astype(np.uint8),
        "valid": np.ones(some.shape, bool),
    }
    arrays = {
        name: group.create_array(
            name, shape=values.shape, chunks=layers[0].chunks, shards=layers[0].shards, dtype=values.dtype,
            compressors=compressor_for(name, values.dtype), fill_value=0,
        )
        for name, values in outputs.items()
    }  # fmt: skip

    def one(place: tuple[slice, slice]) -> None:
        for layer in layers:
            layer[place]
        for name, array in arrays.items():
            array[place] = outputs[name][place]

    places = [
        (slice(y, y + shard[0]), slice(x, x + shard[1]))
        for y in range(0, work.size, shard[0])
        for x in range(0, work.size, shard[1])
    ]
    list(work.pool.map(one, places))


def rtsx_on_nothing(work: Work, **options: Any) -> None:
    """The whole of rtsx from Zarr to Zarr but for the device."""
    with work.device.in_place(), dask.config.set(pool=work.pool):
        prediction = rtsx.predict_cube(
            rtsx.open_cube(work.store), work.bundle, device="cpu", backend="eager", **options
        )
        rtsx.write_cube(prediction, work.out / "rtsx.zarr", overviews=False, overwrite=True)


def monai_in_memory(work: Work, *, tile: int, overlap: int) -> None:
    """MONAI's sliding window over float32 in memory; neither reads nor writes nor quantises, and its network runs on the CPU."""
    from monai.inferers import sliding_window_inference

    prepared = torch.ones((1, len(LAYERS), work.size, work.size))
    with torch.inference_mode():
        sliding_window_inference(prepared, (tile, tile), 1, lambda batch: batch[:, :1], overlap=overlap / tile)


def contenders(work: Work) -> dict[str, Contender]:
    """Every contender by the name under which it is printed, with zarrs where it is installed."""
    found: dict[str, Contender] = {}
    for fast in (False, True) if find_spec("zarrs") else (False,):
        label = " + zarrs" if fast else ""
        found[f"floor{label}"] = partial(_with_codecs, fast, partial(zarr_alone, work), is_floor=True)
        for tile, overlap in TILES:
            options = {"tile": tile, "overlap": overlap, "trim": 0}
            found[f"rtsx {tile}/{overlap}{label}"] = partial(
                _with_codecs, fast, partial(rtsx_on_nothing, work, **options)
            )
        found[f"rtsx auto{label}"] = partial(_with_codecs, fast, partial(rtsx_on_nothing, work))
    if find_spec("monai"):
        for tile, overlap in TILES:
            found[f"MONAI {tile}/{overlap}"] = partial(monai_in_memory, work, tile=tile, overlap=overlap)
    return found


def _with_codecs(fast: bool, run: Callable[[], None], *, is_floor: bool = False) -> None:
    """Run with zarrs or without; rtsx takes it by itself, plain zarr is told."""
    how: Any = nullcontext()
    if fast and is_floor:
        how = zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    elif not fast:
        how = mock.patch("rtsx.storage.codecs._zarrs", return_value=None)
    with how:
        run()


@dataclass(frozen=True)
class Spent:
    """What one run took, seconds of processor time."""

    busy: float
    """Of all threads together, user and system."""
    busiest: float
    """Of the thread that was busiest."""


def measure(run: Contender) -> Spent:
    """Run once."""
    gc.collect()
    before, begin = _by_thread(), time.process_time()
    run()
    busy = time.process_time() - begin
    busiest = max(spent - before.get(thread, 0.0) for thread, spent in _by_thread().items())
    return Spent(busy, busiest)


def _by_thread() -> dict[str, float]:
    """Seconds that each living thread of this process has run for."""
    seconds = {}
    for thread in Path("/proc/self/task").iterdir():
        try:
            seconds[thread.name] = int((thread / "schedstat").read_text().split()[0]) / 1e9
        except OSError:  # it has ended meanwhile
            continue
    return seconds


def run(*, size: int, rounds: int, threads: int = 2) -> dict[str, float]:
    """Measure and print the table; returns milliseconds of processor time per megapixel by contender."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        work = Work.make(Path(name), size=size, threads=threads)
        found = contenders(work)
        for contender in found.values():
            contender()  # loads libraries, and brings files into the page cache
        spent: dict[str, list[Spent]] = {label: [] for label in found}
        for _ in range(rounds):
            for label, contender in found.items():
                spent[label].append(measure(contender))
        work.pool.shutdown()
    megapixels = size**2 / 1e6
    floor = spent["floor"]
    print(f"{size} x {size} px, {len(LAYERS)} layers of uint16, {threads} threads, {rounds} rounds, medians")
    print(f"{'':24}{'busy ms/Mpx':>12}{'/ floor':>9}{'busiest thread ms/Mpx':>23}{'Mpx/s at most':>15}")
    means = {}
    for label, times in spent.items():
        floor = spent[f"floor{label[label.find(' +') :] if ' +' in label else ''}"]
        means[label] = 1000 * statistics.median(one.busy for one in times) / megapixels
        thread = 1000 * statistics.median(one.busiest for one in times) / megapixels
        ratio = statistics.median(one.busy / other.busy for one, other in zip(times, floor, strict=True))
        print(f"{label:24}{means[label]:12.1f}{ratio:9.2f}{thread:23.1f}{1000 / thread:15.1f}", flush=True)
    return means
