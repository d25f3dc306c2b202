"""Sources that stackstac reads: one array per image from it, judged and fused by the same kernels as ours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from rtsx.cube.align.storing import is_stored
from rtsx.cube.block import BlockReader
from rtsx.cube.composite import Piece
from rtsx.cube.dask import picked
from rtsx.cube.image import Image
from rtsx.cube.stackstac import read_stackstac
from rtsx.cube.steps import Step
from rtsx.cube.stored import StoredLayer

__all__ = ["lazy_stacks"]


def lazy_stacks(
    blocks: BlockReader,
    steps: Sequence[Step],
    *,
    chunks: tuple[tuple[int, ...], tuple[int, ...]],
    has_time: bool,
) -> dict[str, da.Array]:
    """What `lazy_blocks` gives, from arrays that stackstac makes.

    The graph has what stackstac's has, for every image and chunk, and one task per step and chunk that fuses.

    Parameters
    ----------
    blocks
        How images are judged and fused.
    steps
        Their time steps.
    chunks
        Lengths of the chunks along y and x.
    has_time
        Whether the arrays have a time dimension.
    """
    size = (chunks[0][0], chunks[1][0])
    token = tokenize(blocks, steps, chunks, has_time)
    graph: dict[Any, Any] = {f"fuses-{token}": blocks}
    sources: list[da.Array] = []
    indices = list(product(*(range(len(lengths)) for lengths in chunks)))
    for place, step in enumerate(steps):
        groups = _groups(blocks)
        arrays = [
            read_stackstac(
                step.images,
                [layer.recipe.name for layer in group],
                blocks.geobox,
                resampling=resampling,
                chunk=size,
                any_value=False,
            )
            for resampling, group in groups
        ]
        if blocks.quality is not None:
            name = blocks.quality.wanted.name
            arrays.append(
                read_stackstac(step.images, [name], blocks.geobox, resampling="nearest", chunk=size, any_value=True)
            )
        arrays = [array.rechunk({0: -1, 1: -1, 2: chunks[0], 3: chunks[1]}) for array in arrays]
        sources += arrays
        task = _FuseTask(step.images, tuple(tuple(group) for _, group in groups), has_time)
        for iy, ix in indices:
            key = (f"block-{token}", *((place,) if has_time else ()), iy, ix)
            graph[key] = (task, f"fuses-{token}", [(array.name, 0, 0, iy, ix) for array in arrays])
    fused = HighLevelGraph.from_collections(f"blocks-{token}", graph, dependencies=sources)  # type: ignore[arg-type]  # dask.array is one
    return picked(fused, blocks, token=token, chunks=chunks, steps=len(steps) if has_time else None)


def _groups(blocks: BlockReader) -> list[tuple[Any, list[StoredLayer]]]:
    """Layers that one call reads: one resampling each, and one dtype."""
    groups: dict[object, list[StoredLayer]] = {}
    for layer in blocks.layers:
        bands = blocks.images[0].bands[layer.recipe.name]
        groups.setdefault((layer.recipe.resampling, bands.dtype, str(bands.nodata)), []).append(layer)
    return [(group[0].recipe.resampling, group) for group in groups.values()]


@dataclass(frozen=True)
class _FuseTask:
    """Fuses the images of one step; carries its constants, because dask would take a tuple for a task or a key."""

    images: tuple[Image, ...]
    """Images, best first."""
    groups: tuple[tuple[StoredLayer, ...], ...]
    """Layers of each array but the last, which is quality data if there are any."""
    has_time: bool
    """Whether the arrays have a time dimension."""

    def __call__(self, blocks: BlockReader, arrays: list[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Fuse arrays (image, band, y, x) of one chunk."""
        made = blocks.fused(_Arrays(self, blocks, arrays), count=len(self.images), shape=arrays[0].shape[2:])
        return tuple(array[None] for array in made) if self.has_time else made


@dataclass(frozen=True)
class _Arrays:
    """The images of one chunk, which are in memory already."""

    task: _FuseTask
    """What they are."""
    blocks: BlockReader
    """How they are judged."""
    arrays: list[NDArray[Any]]
    """Stored pixels (image, band, y, x)."""

    def pieces(self, rows: slice) -> Iterator[Piece]:
        """Images one by one, for some rows of the chunk."""
        for place, image in enumerate(self.task.images):
            layers: dict[str, NDArray[Any]] = {}
            valid = np.ones(self.arrays[0][place, 0, rows].shape, bool)
            for group, array in zip(self.task.groups, self.arrays, strict=False):
                for layer, pixels in zip(group, array[place, :, rows], strict=True):
                    bands = image.bands[layer.recipe.name]
                    seen = is_stored(pixels, bands.nodata)
                    layers[layer.recipe.name] = layer.repacked(pixels, seen, bands)
                    valid &= seen
            data = self.arrays[-1][place, :, rows] if self.blocks.quality is not None else None
            yield self.blocks.judged([layers[layer.recipe.name] for layer in self.blocks.layers], valid, data)
