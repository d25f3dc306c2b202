"""The layers of a cube as planes (y, x): one per time, all in the same chunks, each handed to a driver."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import NDArray

from rtsx.inference.dask import predict_lazily
from rtsx.inference.direct import predict_arrays
from rtsx.inference.runner import Runner

__all__ = ["plane_chunks", "predict_planes"]

_Array = NDArray[Any] | da.Array
_Chunks = tuple[tuple[int, ...], tuple[int, ...]]


def plane_chunks(cube: xr.Dataset, layers: Sequence[str]) -> _Chunks | None:
    """Chunks (y, x) that a prediction of these layers gets: the first lazy layer's; None where none is lazy."""
    for name in (*layers, "valid"):
        if name in cube and is_dask_collection(cube[name].data):
            y, x = cube[name].data.chunks[-2:]
            return y, x
    return None


def predict_planes(cube: xr.Dataset, *, runner: Runner) -> dict[str, Any]:
    """Answers by name, `valid` among them, with a leading time axis where the cube has one.

    Each time is predicted on its own; a layer without time serves them all.
    """
    names = [*runner.plan.layers, *(["valid"] if "valid" in cube else [])]
    chunks = plane_chunks(cube, runner.plan.layers)
    arrays = {name: _in_chunks(cube[name].data, chunks) for name in names}
    if "time" not in cube.dims:
        return _plane(arrays, runner)
    planes = [
        _plane({name: array[step] if array.ndim == 3 else array for name, array in arrays.items()}, runner)
        for step in range(cube.sizes["time"])
    ]
    stack = np.stack if chunks is None else da.stack
    return {name: stack([plane[name] for plane in planes]) for name in planes[0]}


def _in_chunks(array: _Array, chunks: _Chunks | None) -> _Array:
    if chunks is None:
        return np.asarray(array)
    leading = (1,) if array.ndim == 3 else ()
    lazy = array if isinstance(array, da.Array) else da.from_array(array)
    rechunked: da.Array = lazy.rechunk((*leading, *chunks))
    return rechunked


def _plane(arrays: dict[str, Any], runner: Runner) -> dict[str, Any]:
    layers = {name: array for name, array in arrays.items() if name != "valid"}
    mask = arrays.get("valid")
    if isinstance(next(iter(layers.values())), da.Array):
        return dict(predict_lazily(layers, mask, runner=runner))
    return dict(predict_arrays(layers, mask, runner=runner))
