"""Predictions of NumPy arrays without a scheduler, and time steps of a cube as planes (y, x)."""

from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import NDArray

from rtsx.cube.zarr_cube import stored_pixels
from rtsx.inference.blocks import BlockPlan
from rtsx.inference.dask import predict_lazily
from rtsx.inference.device import Hardware, Pending
from rtsx.inference.kernel import BlockInput, TileSums, crop, finished
from rtsx.inference.runner import Runner

# Pixels along each side of a block: bounds what is prepared at once; larger blocks are no faster.
_BLOCK = 2048


def predict_arrays(
    layers: Mapping[str, NDArray[Any]], mask: NDArray[np.bool_] | None, *, runner: Runner
) -> dict[str, NDArray[Any]]:
    """Predict arrays in memory: outputs by name (see `quantise`) and `valid`, each over the whole plane (y, x) of the layers."""
    valid = runner.valid(layers, mask)
    blocks = runner.blocks(direct_chunks(runner.plan.tiling.shape))
    ahead = runner.tiles_ahead(Hardware.of(runner.where))
    running: deque[tuple[slice, int, list[Pending[TileSums]]]] = deque()
    waiting: list[TileSums] = []
    rows: list[dict[str, NDArray[Any]]] = []
    for number, row in enumerate(blocks.rows(), start=1):
        outputs = []
        for block in row:
            if block.read is None:
                continue
            window = BlockInput(
                region=block.read,
                stored={name: layer[block.read] for name, layer in layers.items()},
                packings=runner.packings,
                valid=valid[block.read],
            )
            outputs.append(runner.submit(window, block.tiles))
        running.append((row[0].region[0], sum(len(block.tiles) for block in row), outputs))
        # A row is waited for when those below it have enough tiles to fill the last batch.
        while running and (
            number == len(blocks.chunks[0]) or sum(each[1] for each in running) - running[0][1] >= ahead
        ):
            here, _, outputs = running.popleft()
            waiting += [output.result() for output in outputs]
            band = (here, slice(0, valid.shape[1]))
            rows.append(finished(waiting, band, valid[band], plan=runner.plan))
            # What lies wholly above the next band is done with.
            below = (slice(here.stop, valid.shape[0]), band[1])
            waiting = [crop(output, below) for output in waiting if output.region[0].stop > here.stop]
    names = rows[0]
    return {name: np.concatenate([row[name] for row in rows], axis=-2) for name in names} | {"valid": valid}


def direct_chunks(shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose the chunks in which a plane of this shape is run."""
    y, x = ((_BLOCK,) * (length // _BLOCK) + ((rest,) if (rest := length % _BLOCK) else ()) for length in shape)
    return y, x


def waiting_sums(blocks: BlockPlan, *, ahead: int) -> int:
    """Return pixels of the sums that at most wait while a plane in memory is predicted: of a row, and of those that fill its last batch."""
    rows = [[block for block in row if block.output is not None] for row in blocks.rows()]
    pixels: list[int] = [
        sum(prod(part.stop - part.start for part in block.output or ()) for block in row) for row in rows
    ]
    tiles = min((n for row in rows if (n := sum(len(block.tiles) for block in row))), default=1)
    return min(sum(pixels), max(pixels) * (1 + ceil(ahead / tiles)))


_Array = NDArray[Any] | da.Array
_Chunks = tuple[tuple[int, ...], tuple[int, ...]]


def plane_chunks(cube: xr.Dataset, layers: Sequence[str]) -> _Chunks | None:
    """Choose the chunks (y, x) of a prediction of these layers: the first lazy layer's; None where none is lazy."""
    for name in (*layers, "valid"):
        if name in cube and is_dask_collection(cube[name].data):
            y, x = cube[name].data.chunks[-2:]
            return y, x
    return None


def predict_planes(cube: xr.Dataset, *, runner: Runner) -> dict[str, Any]:
    """Predict every time step: outputs by name, `valid` among them, with a leading time axis where the cube has one.

    Each time is predicted on its own; a layer without time serves them all.
    """
    names = [*runner.plan.layers, *(["valid"] if "valid" in cube else [])]
    chunks = plane_chunks(cube, runner.plan.layers)
    arrays = {name: _in_chunks(cube[name].data, chunks) for name in names}
    if "time" not in cube.dims:
        return _plane(arrays, runner)
    shared = frozenset(name for name, array in arrays.items() if array.ndim == 2)
    planes = [
        _plane({name: array if name in shared else _at(array, step) for name, array in arrays.items()}, runner, shared)
        for step in range(cube.sizes["time"])
    ]
    stack = np.stack if chunks is None else da.stack
    return {name: stack([plane[name] for plane in planes]) for name in planes[0]}


def _at(array: _Array, step: int) -> _Array:
    """Return a plane of a stack; of one in a store another that is in it, which dask would not say of a part."""
    plane: _Array = array[step]
    if isinstance(array, da.Array) and (pixels := stored_pixels(array)) is not None:
        like = np.empty((0, 0), array.dtype)
        plane = da.from_array(pixels.at(step), chunks=array.chunks[1:], name=f"{array.name}-{step}", meta=like)
    return plane


def _in_chunks(array: _Array, chunks: _Chunks | None) -> _Array:
    if chunks is None:
        return np.asarray(array)
    leading = (1,) if array.ndim == 3 else ()
    lazy = array if isinstance(array, da.Array) else da.from_array(array)
    rechunked: da.Array = lazy.rechunk((*leading, *chunks))
    return rechunked


def _plane(arrays: dict[str, Any], runner: Runner, shared: frozenset[str] = frozenset()) -> dict[str, Any]:
    layers = {name: array for name, array in arrays.items() if name != "valid"}
    mask = arrays.get("valid")
    if isinstance(next(iter(layers.values())), da.Array):
        return dict(predict_lazily(layers, mask, runner=runner, shared=shared))
    return dict(predict_arrays(layers, mask, runner=runner))
