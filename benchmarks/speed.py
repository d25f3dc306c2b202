"""Megapixels per second of every contender, interleaved in one process, medians of several rounds.

Seconds on the clock, and seconds that the processors were busy: on a machine that others use too, the clock says little
about a difference of some per cent, and the processors' time still does. Threads that wait actively for the next operator
are busy too.

All but map_overlap call the network in rtsx's torch thread. Elsewhere each of them would leave a team of OpenMP threads
behind, which slows whoever comes next (`benchmarks.teams`).
"""

import gc
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.contenders import (
    Contender,
    Work,
    bare_tiles,
    map_overlap,
    monai_in_memory,
    prepare_work,
    rtsx_zarr_to_zarr,
)
from benchmarks.scene import make_bundle, make_unet, write_scene
from rtsx.model.allocator import configure_malloc
from rtsx.model.backend_choice import receptive_field_of
from rtsx.model.network import run_in_torch_thread

NARROW = 64
"""Pixels: an assumed reach, shown beside the measured one of these random weights, in which every stage counts alike."""

TILES = ((256, 64), (512, 128), (1024, 256))


def contenders(work: Work, *, tiles: tuple[tuple[int, int], ...], backends: tuple[str, ...]) -> dict[str, Contender]:
    """Every contender by the name under which it is printed."""
    found: dict[str, Contender] = {}
    for tile, overlap in tiles:
        shape = f"{tile}/{overlap}"
        found[f"a0 bare, no overlap   {tile}/0"] = _in_torch_thread(partial(bare_tiles, work, tile=tile, overlap=0))
        found[f"a1 bare, overlapping  {shape}"] = _in_torch_thread(
            partial(bare_tiles, work, tile=tile, overlap=overlap)
        )
        # trim=0 gives everyone the same tiles: MONAI does not trim.
        found[f"b  rtsx Zarr to Zarr  {shape}"] = partial(
            rtsx_zarr_to_zarr, work, tile=tile, overlap=overlap, trim=0, backend="eager"
        )
        found[f"c  MONAI in memory    {shape}"] = _in_torch_thread(
            partial(monai_in_memory, work, tile=tile, overlap=overlap)
        )
    measured = receptive_field_of(work.bundle)
    narrow = replace(work, bundle=work.bundle.with_reach(replace(measured, radius=NARROW)))
    for backend in backends:
        found[f"b  rtsx auto, {backend}, reach {NARROW}"] = partial(rtsx_zarr_to_zarr, narrow, backend=backend)
    found[f"b  rtsx auto, eager, reach {measured.radius}"] = partial(rtsx_zarr_to_zarr, work, backend="eager")
    for chunk in (1024, 2048):
        if chunk <= work.prepared.shape[2]:
            for halo in (NARROW, measured.radius):
                found[f"d  map_overlap, reach {halo} {chunk}"] = partial(map_overlap, work, chunk=chunk, halo=halo)
    return found


def _in_torch_thread(run: Contender) -> Contender:
    return partial(run_in_torch_thread, run)


@dataclass(frozen=True)
class Seconds:
    """What one run took."""

    clock: float
    """Seconds on the clock."""
    busy: float
    """Seconds of all processors together."""


def measure(contenders: dict[str, Contender], *, rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of each round of each contender; a round runs them all in turn, so that noise meets all alike."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            gc.collect()
            begin, busy = time.perf_counter(), time.process_time()
            run()
            took = Seconds(time.perf_counter() - begin, time.process_time() - busy)
            seconds[name].append(took)
            print(f"  round {number + 1} of {rounds}: {name} {took.clock:8.2f} s, busy {took.busy:8.2f} s", flush=True)
    return seconds


def run(
    *, size: int, rounds: int, tiles: tuple[tuple[int, int], ...] = TILES, backends: tuple[str, ...] = ("eager",)
) -> None:
    """Measure and print the table."""
    configure_malloc()  # for everyone alike
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = run_in_torch_thread(make_unet)
        bundle = make_bundle(module)
        store = write_scene(folder, size)
        work = run_in_torch_thread(lambda: prepare_work(store, bundle, module=module, out=folder))
        print(
            f"Unet/resnet18, 10 layers, {size} x {size} px, torch {torch.__version__}, {torch.get_num_threads()} threads; "
            f"{receptive_field_of(bundle)}"
        )
        found = contenders(work, tiles=tiles, backends=backends)
        found[next(iter(found))]()  # the first pass pays for setting up
        seconds = measure(found, rounds=rounds)
    print_table(seconds, size=size)


def print_table(seconds: dict[str, list[Seconds]], *, size: int) -> None:
    """One line per contender; ratios are medians of the rounds' own, `a0` being that of the first tile size."""
    floor = next(times for name, times in seconds.items() if name.startswith("a0"))
    print(f"\n{'':34}{'clock s':>9}{'Mpx/s':>7}{'/ a0':>7}{'/ a1':>7}{'busy s':>10}{'/ a0':>7}{'/ a1':>7}")
    for name, times in seconds.items():
        same = [t for other, t in seconds.items() if other.startswith("a1") and other.split()[-1] == name.split()[-1]]
        cells = ""
        for kind in ("clock", "busy"):
            median = statistics.median(getattr(took, kind) for took in times)
            cells += f"{median:9.2f}{size**2 / median / 1e6:7.2f}" if kind == "clock" else f"{median:10.2f}"
            for others in (floor, same[0] if same else None):
                ratios = zip(times, others or times, strict=True)
                ratio = statistics.median(getattr(one, kind) / getattr(other, kind) for one, other in ratios)
                cells += f"{ratio:7.2f}" if others else " " * 7
        print(f"{name:34}{cells}")
