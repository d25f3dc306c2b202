"""A truth as a lazy array."""

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from rtsx.cube import GRID_MAPPING
from rtsx.errors import LabelError
from rtsx.labels.truth import IGNORED, Truth

__all__ = ["truth_array"]


def truth_array(truth: Truth, like: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Lazy array of a truth, on the grid of a cube and in its chunks.

    Parameters
    ----------
    truth : Truth
        What is where.
    like : xarray.Dataset or xarray.DataArray
        The cube: its (y, x), coordinates and chunks are taken over. One that is not chunked gives a single chunk.

    Returns
    -------
    xarray.DataArray
        (y, x) uint8, coded as in `Truth`, computed when it is asked for; attributes name the classes.

    Raises
    ------
    LabelError
        The two differ in size.
    """
    size = (like.sizes.get("y"), like.sizes.get("x"))
    if truth.shape != size:
        raise LabelError(
            f"A truth of {truth.shape} px does not fit a cube of {size} px. Make it with the cube's own grid: "
            "label_truth(labels, rtsx.cube.geobox_of(cube), ...)."
        )
    chunks = tuple(like.chunksizes.get(name, (length,)) for name, length in zip(("y", "x"), truth.shape, strict=True))
    values = da.map_blocks(
        _block,
        truth,
        chunks=chunks,
        dtype=np.uint8,
        meta=np.empty((0, 0), np.uint8),
        name=f"truth-{tokenize(truth.digest, chunks)}",
        starts=tuple(tuple(int(start) for start in np.cumsum((0, *lengths))) for lengths in chunks),
    )
    coords = {name: one for name, one in like.coords.items() if set(one.dims) <= {"y", "x"}}
    numbers = np.arange(len(truth.classes) + 1, dtype=np.uint8)
    attrs = {
        "long_name": "truth",
        "flag_values": numbers,
        "flag_meanings": " ".join(("none", *(name.replace(" ", "_") for name in truth.classes))),
        "_FillValue": np.uint8(IGNORED),
    }
    array = xr.DataArray(values, dims=("y", "x"), coords=coords, name="truth", attrs=attrs)
    if "spatial_ref" in coords:
        array.encoding |= GRID_MAPPING
    return array


def _block(
    truth: Truth, starts: tuple[tuple[int, ...], tuple[int, ...]], block_id: tuple[int, int]
) -> NDArray[np.uint8]:
    rows, columns = (slice(axis[index], axis[index + 1]) for axis, index in zip(starts, block_id, strict=True))
    return truth.read((rows, columns))
