"""Lazy layers, chunk by chunk: the only place where training computes a cube."""

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

import dask.array as da
import numpy as np
from dask.base import compute, is_dask_collection
from numpy.typing import NDArray

__all__ = ["Layer", "chunk_edges", "computed_chunk", "rechunked"]

Layer = NDArray[Any] | da.Array
"""A layer (y, x), lazy or not."""


def chunk_edges(layers: Iterable[Layer]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Where chunks begin along y and x, and where the last one ends, of the first lazy layer; None where none is lazy."""
    for layer in layers:
        if is_dask_collection(layer):
            assert isinstance(layer, da.Array)
            y, x = ((0, *accumulate(sizes)) for sizes in layer.chunks)
            return y, x
    return None


def rechunked(layer: Layer, edges: tuple[tuple[int, ...], tuple[int, ...]]) -> Layer:
    """A lazy layer in the chunks that all share; one in memory as it is."""
    if not isinstance(layer, da.Array):
        return layer
    chunks = tuple(tuple(int(size) for size in np.diff(along)) for along in edges)
    shared: da.Array = layer.rechunk(chunks)
    return shared


def computed_chunk(
    layers: Mapping[str, Layer], index: tuple[int, int], *, region: tuple[slice, slice]
) -> dict[str, NDArray[Any]]:
    """One chunk of all layers, by its place and by its pixels; read together, because a task may give several layers.

    In this very thread: worker processes of a training would otherwise start a pool of threads each.
    """
    chunks = [layer.blocks[index] if isinstance(layer, da.Array) else layer[region] for layer in layers.values()]
    computed = compute(*chunks, scheduler="synchronous")
    return {name: np.asarray(chunk) for name, chunk in zip(layers, computed, strict=True)}
