"""Truth on a raster: which class each pixel is, read window by window or as a lazy array."""

from typing import Protocol

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from rtsx.cube import GRID_MAPPING
from rtsx.errors import LabelError

IGNORED = 255
"""Value of a pixel that counts neither way: it is left out of losses and scores."""

TruthWindow = tuple[slice, slice]
"""Rows and columns of a raster, with start and stop given, within the raster."""


class LabelRaster(Protocol):
    """The truth of one raster.

    Values are 0 where no label lies, k for the k-th of `classes`, counted from 1, and `IGNORED`. A pixel is the class of
    the last label that its centre lies in. Threads: any; a truth is frozen, can be pickled, and `read` depends on its
    window alone, so windows fit together without seams.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that labels have; 0 is none of them."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the raster, px."""
        ...

    @property
    def digest(self) -> str:
        """sha256, as hex, over everything that the values depend on."""
        ...

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Return values (y, x) of a window."""
        ...


class StubLabelRaster:
    """A truth of an array in memory; for tests of whatever reads truths.

    Examples
    --------
    >>> truth = StubLabelRaster(np.eye(3, dtype=np.uint8))
    >>> truth.read((slice(0, 2), slice(1, 3)))
    array([[0, 0],
           [1, 0]], dtype=uint8)
    """

    def __init__(self, values: NDArray[np.uint8], *, classes: tuple[str, ...] = ("target",)) -> None:
        self.classes = classes
        self._values = values

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width = self._values.shape
        return height, width

    @property
    def digest(self) -> str:
        """The values themselves, as hex."""
        return self._values.tobytes().hex()

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Return values (y, x) of a window."""
        return self._values[window].copy()


_conforms: type[LabelRaster] = StubLabelRaster


def truth_array(truth: LabelRaster, like: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Return the lazy array of a truth, on the grid of a cube and in its chunks.

    Parameters
    ----------
    truth : LabelRaster
        What is where.
    like : xarray.Dataset or xarray.DataArray
        The cube: its (y, x), coordinates and chunks are taken over. One that is not chunked gives a single chunk.

    Returns
    -------
    xarray.DataArray
        (y, x) uint8, coded as in `LabelRaster`, computed when it is asked for; attributes name the classes.

    Raises
    ------
    LabelError
        The two differ in size.
    """
    size = (like.sizes.get("y"), like.sizes.get("x"))
    if truth.shape != size:
        raise LabelError(
            f"A truth of {truth.shape} px does not fit a cube of {size} px. Make it with the cube's own grid; in Python, "
            "rasterize_labels(labels, rtsx.cube.geobox_of(cube), ...) does so."
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
    truth: LabelRaster, starts: tuple[tuple[int, ...], tuple[int, ...]], block_id: tuple[int, int]
) -> NDArray[np.uint8]:
    rows, columns = (slice(axis[index], axis[index + 1]) for axis, index in zip(starts, block_id, strict=True))
    return truth.read((rows, columns))
