"""The ways of running one network over one cube that are compared; each returns nothing and leaves its answer behind."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import torch
from dask.system import CPU_COUNT
from numpy.typing import NDArray

import rtsx
from rtsx.model.inputs import Packing, prepare
from rtsx.tiling import TilePlan, reflect_pad

Answer = NDArray[np.float32] | None


@dataclass(frozen=True)
class Work:
    """What every contender is given."""

    store: Path
    """The cube as Zarr."""
    prepared: torch.Tensor
    """The same in memory as network input (1, layer, y, x): a head start for whoever does not read."""
    bundle: rtsx.ModelBundle
    """The network."""
    module: torch.nn.Module
    """The network alone, in the form that is fastest for plain calls: eager, channels_last."""
    out: Path
    """Where answers may be written."""


def prepare_work(store: Path, bundle: rtsx.ModelBundle, *, module: torch.nn.Module, out: Path) -> Work:
    """Read the cube into memory once, for those who start from there."""
    cube = rtsx.open_cube(store)
    packings = {name: Packing(scale_factor=cube[name].attrs["scale_factor"]) for name in bundle.layers}
    stored = {name: torch.from_numpy(cube[name].values) for name in bundle.layers}
    valid = torch.ones(tuple(cube.sizes[axis] for axis in ("y", "x")), dtype=torch.bool)
    prepared = prepare(stored, valid, inputs=bundle.inputs, packings=packings, fill=0.0)[None]
    return Work(store, prepared, bundle, module.eval().to(memory_format=torch.channels_last), out)


def bare_tiles(work: Work, *, tile: int, overlap: int) -> None:
    """The network over tiles of the plan, once each, from memory; answers are dropped. Overlap 0 is the floor."""
    plan = TilePlan(shape=tuple(work.prepared.shape[2:]), tile=tile, overlap=overlap, trim=0, stride=32)
    with torch.inference_mode():
        for one in plan:
            batch = work.prepared
            for axis, first in enumerate(one.start, start=2):
                length = batch.shape[axis]
                if 0 <= first <= length - tile:
                    batch = batch.narrow(axis, first, tile)
                else:
                    batch = batch.index_select(axis, torch.from_numpy(reflect_pad(first, first + tile, length=length)))
            torch.sigmoid(work.module(batch.contiguous(memory_format=torch.channels_last)))


def rtsx_zarr_to_zarr(work: Work, **options: object) -> None:
    """The whole of rtsx: open, predict, write."""
    target = work.out / "rtsx.zarr"
    prediction = rtsx.predict_cube(rtsx.open_cube(work.store), work.bundle, **options)
    rtsx.write_cube(prediction, target, overviews=False, overwrite=True)


def monai_in_memory(work: Work, *, tile: int, overlap: int) -> None:
    """MONAI's sliding window from memory to memory, constant weights (its fastest)."""
    from monai.inferers import sliding_window_inference

    with torch.inference_mode():
        sliding_window_inference(
            work.prepared,
            roi_size=(tile, tile),
            sw_batch_size=1,
            overlap=overlap / tile,
            predictor=lambda batch: torch.sigmoid(work.module(batch.contiguous(memory_format=torch.channels_last))),
        )


def map_overlap(work: Work, *, chunk: int, halo: int) -> None:
    """Plain dask: the network once per chunk with its halo, from Zarr to Zarr; torch keeps all its threads."""
    cube = rtsx.open_cube(work.store)
    layers = da.stack([cube[name].data * np.float32(cube[name].attrs["scale_factor"]) for name in work.bundle.layers])
    layers = layers.astype(np.float32).rechunk((-1, chunk, chunk))

    # One network at a time, as whoever writes this soon finds out: two at once fight over the cores. Reading and writing
    # go on meanwhile in other threads.
    one_at_a_time = threading.Lock()

    def predict(block: NDArray[np.float32]) -> NDArray[np.uint8]:
        batch = torch.from_numpy(np.ascontiguousarray(block))[None].contiguous(memory_format=torch.channels_last)
        with one_at_a_time, torch.inference_mode():
            return (torch.sigmoid(work.module(batch))[0] * 100).round().to(torch.uint8).numpy()

    answer = da.map_overlap(
        predict, layers, depth={0: 0, 1: halo, 2: halo}, boundary={0: "none", 1: "reflect", 2: "reflect"}, dtype=np.uint8,
        chunks=((1,), *layers.chunks[1:]), trim=False, meta=np.empty((0, 0, 0), np.uint8),
    )  # fmt: skip
    inner = da.map_blocks(
        lambda block: block[:, halo:-halo, halo:-halo], answer, dtype=np.uint8, chunks=((1,), *layers.chunks[1:])
    )
    target = work.out / "map_overlap.zarr"
    shutil.rmtree(target, ignore_errors=True)
    # Threads of its own, which end with it: they have called torch, and what comes next in this process would pay for it.
    with ThreadPoolExecutor(CPU_COUNT) as pool, dask.config.set(pool=pool):
        inner[0].to_zarr(str(target), zarr_format=3)


Contender = Callable[[], None]
