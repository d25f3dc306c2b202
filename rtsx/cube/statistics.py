"""Statistics of layers, chunk by chunk: how much of a cube holds data, and what the data are like."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from rtsx.cube.packing import packing
from rtsx.cube.validation import layer_names

__all__ = ["LayerStatistics", "block_statistics", "cube_statistics", "merged"]


@dataclass(frozen=True)
class LayerStatistics:
    """What a layer holds, in physical units; NaN where it holds nothing.

    Examples
    --------
    >>> part = block_statistics(np.array([[0, 5000], [7000, 0]], np.uint16), scale=1e-4, offset=0.0, nodata=0)
    >>> round(part.mean, 6), part.coverage, round(part.std, 6)
    (0.6, 0.5, 0.1)
    """

    pixels: int
    """All pixels."""
    count: int
    """Those that hold data."""
    minimum: float
    """Smallest."""
    mean: float
    """Mean of those that hold data."""
    maximum: float
    """Largest."""
    squares: float
    """Sum of squared distances from the mean."""

    @property
    def coverage(self) -> float:
        """Part of the pixels that hold data, 0-1."""
        return self.count / self.pixels if self.pixels else 0.0

    @property
    def std(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan


def block_statistics(stored: NDArray[Any], *, scale: float, offset: float, nodata: float | None) -> LayerStatistics:
    """Statistics of one block of stored pixels."""
    has_data = np.ones(stored.shape, bool)
    if stored.dtype.kind == "f":
        has_data &= np.isfinite(stored)
    if nodata is not None and not math.isnan(nodata):
        has_data &= stored != nodata
    values = stored[has_data].astype(np.float64) * scale + offset
    if not values.size:
        return LayerStatistics(stored.size, 0, math.nan, math.nan, math.nan, 0.0)
    mean = float(values.mean())
    return LayerStatistics(
        stored.size, values.size, float(values.min()), mean, float(values.max()), float(((values - mean) ** 2).sum())
    )


def merged(parts: Iterable[LayerStatistics]) -> LayerStatistics:
    """Statistics of several blocks together, without the loss that sums of squares have."""
    return reduce(_merged, parts, LayerStatistics(0, 0, math.nan, math.nan, math.nan, 0.0))


def _merged(one: LayerStatistics, other: LayerStatistics) -> LayerStatistics:
    pixels = one.pixels + other.pixels
    if not one.count or not other.count:
        full = one if one.count else other
        return LayerStatistics(pixels, full.count, full.minimum, full.mean, full.maximum, full.squares)
    count = one.count + other.count
    step = other.mean - one.mean
    return LayerStatistics(
        pixels,
        count,
        min(one.minimum, other.minimum),
        one.mean + step * other.count / count,
        max(one.maximum, other.maximum),
        one.squares + other.squares + step**2 * one.count * other.count / count,
    )


def cube_statistics(cube: xr.Dataset) -> Mapping[str, LayerStatistics]:
    """Statistics of every layer, and of `valid`, whose mean is the part of valid pixels; reads every chunk once.

    Parameters
    ----------
    cube
        NumPy or dask; computed on the scheduler of the caller, chunk by chunk, so that memory does not grow with it.
    """
    names = [*layer_names(cube), *(["valid"] if "valid" in cube else [])]
    chunked = cube[names].chunk() if not cube[names].chunks else cube[names]
    tasks: dict[str, list[Any]] = {}
    for name in names:
        packed = packing(chunked[name])
        options = {"scale": packed["scale_factor"], "offset": packed["add_offset"], "nodata": packed["nodata"]}
        # Not optimised one by one, so that what several variables share is read once.
        blocks = chunked[name].data.to_delayed(optimize_graph=False)
        tasks[name] = [delayed(block_statistics)(block, **options) for block in blocks.ravel().tolist()]
    (found,) = compute(tasks)
    return {name: merged(parts) for name, parts in found.items()}
