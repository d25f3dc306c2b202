"""Megapixels per second of every contender, interleaved in one process, medians of several rounds."""

import gc
import statistics
import tempfile
import time
from dataclasses import replace
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
from rtsx.model.allocator import keep_freed_memory
from rtsx.model.probing import reach_of

NARROW = 64
"""Pixels: an assumed reach, shown beside the measured one of these random weights, in which every stage counts alike."""

TILES = ((256, 64), (512, 128), (1024, 256))


def contenders(work: Work, *, tiles: tuple[tuple[int, int], ...], backends: tuple[str, ...]) -> dict[str, Contender]:
    """Every contender by the name under which it is printed."""
    found: dict[str, Contender] = {}
    for tile, overlap in tiles:
        shape = f"{tile}/{overlap}"
        found[f"a0 bare, no overlap   {tile}/0"] = partial(bare_tiles, work, tile=tile, overlap=0)
        found[f"a1 bare, overlapping  {shape}"] = partial(bare_tiles, work, tile=tile, overlap=overlap)
        # trim=0 gives everyone the same tiles: MONAI does not trim.
        found[f"b  rtsx Zarr to Zarr  {shape}"] = partial(
            rtsx_zarr_to_zarr, work, tile=tile, overlap=overlap, trim=0, backend="eager"
        )
        found[f"c  MONAI in memory    {shape}"] = partial(monai_in_memory, work, tile=tile, overlap=overlap)
    measured = reach_of(work.bundle)
    narrow = replace(work, bundle=work.bundle.with_reach(replace(measured, radius=NARROW)))
    for backend in backends:
        found[f"b  rtsx auto, {backend}, reach {NARROW}"] = partial(rtsx_zarr_to_zarr, narrow, backend=backend)
    found[f"b  rtsx auto, eager, reach {measured.radius}"] = partial(rtsx_zarr_to_zarr, work, backend="eager")
    for chunk in (1024, 2048):
        if chunk <= work.prepared.shape[2]:
            for halo in (NARROW, measured.radius):
                found[f"d  map_overlap, reach {halo} {chunk}"] = partial(map_overlap, work, chunk=chunk, halo=halo)
    return found


def measure(contenders: dict[str, Contender], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each contender; a round runs them all in turn, so that noise meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            gc.collect()
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
            print(f"  round {number + 1} of {rounds}: {name} {seconds[name][-1]:8.2f} s", flush=True)
    return seconds


def run(
    *, size: int, rounds: int, tiles: tuple[tuple[int, int], ...] = TILES, backends: tuple[str, ...] = ("eager",)
) -> None:
    """Measure and print the table."""
    keep_freed_memory()  # for everyone alike
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = make_unet()
        bundle = make_bundle(module)
        work = prepare_work(write_scene(folder, size), bundle, module=module, out=folder)
        print(
            f"Unet/resnet18, 10 layers, {size} x {size} px, torch {torch.__version__}, {torch.get_num_threads()} threads; "
            f"{reach_of(bundle)}"
        )
        found = contenders(work, tiles=tiles, backends=backends)
        bare_tiles(work, tile=tiles[0][0], overlap=0)  # the first pass pays for setting up
        seconds = measure(found, rounds=rounds)
    floors = {name: statistics.median(times) for name, times in seconds.items() if name.startswith("a0")}
    floor = min(floors.values())
    print(f"\n{'contender':34}{'median s':>10}{'Mpx/s':>8}{'/ best a0':>11}{'/ a1':>8}")
    for name, times in seconds.items():
        median = statistics.median(times)
        same = [t for other, t in seconds.items() if other.startswith("a1") and other.split()[-1] == name.split()[-1]]
        paired = statistics.median(a / b for a, b in zip(times, same[0], strict=True)) if same else None
        print(
            f"{name:34}{median:10.2f}{size**2 / median / 1e6:8.2f}{median / floor:11.2f}{'' if paired is None else f'{paired:8.2f}':>8}"
        )
