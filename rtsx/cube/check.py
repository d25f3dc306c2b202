"""Check a cube: its bytes, its gaps, and statistics of its layers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from rtsx.cube.build_state import corrupt_keys, gaps_of, read_marks
from rtsx.cube.conventions import layer_names
from rtsx.cube.encoding import is_representable, packing
from rtsx.errors import CubeError
from rtsx.storage.zarr import BUILD, COMPLETE, WholeStore, store_of


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
    count: int
    """Those that hold data."""
    minimum: float
    mean: float
    """Mean of those that hold data."""
    maximum: float
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
    """Return statistics of one block of stored pixels."""
    values = stored[is_representable(stored, nodata)].astype(np.float64) * scale + offset
    if not values.size:
        return LayerStatistics(stored.size, 0, math.nan, math.nan, math.nan, 0.0)
    mean = float(values.mean())
    squares = float(((values - mean) ** 2).sum())
    return LayerStatistics(stored.size, values.size, float(values.min()), mean, float(values.max()), squares)


def merged(parts: Iterable[LayerStatistics]) -> LayerStatistics:
    """Return statistics of several blocks together, without the loss that sums of squares have."""
    every = list(parts)
    pixels, full = sum(part.pixels for part in every), [part for part in every if part.count]
    if not full:
        return LayerStatistics(pixels, 0, math.nan, math.nan, math.nan, 0.0)
    count = sum(part.count for part in full)
    mean = math.fsum(part.mean * part.count for part in full) / count
    least, most = min(part.minimum for part in full), max(part.maximum for part in full)
    squares = math.fsum(part.squares + part.count * (part.mean - mean) ** 2 for part in full)
    return LayerStatistics(pixels, count, least, mean, most, squares)


def cube_statistics(cube: xr.Dataset) -> Mapping[str, LayerStatistics]:
    """Return statistics of every layer, and of `valid`, whose mean is the part of valid pixels; reads every chunk once.

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


@dataclass(frozen=True, kw_only=True)
class BuildState:
    """How far a store is that was built part by part."""

    parts: int
    done: int
    """Those that have their mark."""
    is_complete: bool
    """Whether the store says that it is."""
    gaps: tuple[str, ...]
    """Images that were left out, as ``source/id``."""
    images: Mapping[str, Sequence[str]]
    """Ids of its images, by source."""
    config: str
    """Text that was stored beside the data."""
    layout: str
    """``aligned`` or ``native``."""


@dataclass(frozen=True, kw_only=True)
class CubeCheck:
    """What a check has found."""

    layers: Mapping[str, LayerStatistics]
    """Statistics of every layer, and of `valid`."""
    build: BuildState | None
    """How far it is built; None for what was not built part by part."""
    damaged: tuple[str, ...]
    """Files or objects that are not what was written."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, in words; empty where nothing is."""
        found = []
        if self.build is not None:
            if self.build.done < self.build.parts:
                found.append(f"{self.build.parts - self.build.done} of {self.build.parts} parts are not built")
            elif not self.build.is_complete:
                found.append("the build has not ended: run it again")
            found += [f"image {gap} was left out" for gap in self.build.gaps]
        found += [f"{key} is missing or damaged" for key in self.damaged]
        for name, layer in self.layers.items():
            if name == "valid" and not layer.mean > 0:
                found.append("no pixel is valid")
            elif not layer.count:
                found.append(f"layer {name} holds no data")
        return tuple(found)


def build_state(path: str) -> BuildState | None:
    """Return how far a store is built; None for a store that was not built part by part.

    Raises
    ------
    CubeError
        Building has hardly begun.
    """
    try:
        group = zarr.open_group(WholeStore(store_of(path, {}, read_only=True), path), mode="r", use_consolidated=False)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if BUILD not in group.attrs:
        return None
    state: Any = group.attrs[BUILD]
    if state["state"] == "preparing":
        raise CubeError(f"{path} was stopped before anything was in it. Run its build again.")
    details: Any = group["build"].attrs.asdict()
    marks = read_marks(group)
    return BuildState(
        parts=int(details["parts"]),
        done=len(marks),
        is_complete=group.attrs.get(COMPLETE) is True,
        gaps=gaps_of(marks),
        images=details["images"],
        config=str(details["config"]),
        layout=str(details["recipe"]["layout"]),
    )


def check_cube(cube: xr.Dataset, *, path: str | None = None) -> CubeCheck:
    """Check a cube; computes every chunk once, and reads every stored byte.

    Parameters
    ----------
    cube
        What to look at.
    path
        The store that it comes from; None for a cube that is nowhere yet.
    """
    build: BuildState | None = None
    damaged: tuple[str, ...] = ()
    if path is not None:
        build = build_state(path)
        if build is not None:
            store = store_of(path, {}, read_only=True)
            damaged = tuple(corrupt_keys(store, read_marks(zarr.open_group(store, mode="r")).values()))
    return CubeCheck(layers=cube_statistics(cube), build=build, damaged=damaged)
