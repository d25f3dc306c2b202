"""Several images of one place as one: the kernels of composites. Pure arrays, one image after the other."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.mask_rules import GOOD


@dataclass(frozen=True)
class Observation:
    """One image, or what became of several, on the pixels of a block."""

    layers: tuple[NDArray[Any], ...]
    """Stored pixels (y, x), one array per layer."""
    quality: NDArray[np.uint8]
    """Level of each pixel (y, x): 0 invalid, 1 low quality, 2 good; 0 where a layer has no data."""


ImageStack = Callable[[slice], Iterator[Observation]]
"""Reads the images of one time step one by one and in order, for some rows of the block; can be called again."""


def first_valid(pieces: Iterable[Observation], *, empty: Observation, least: int) -> Observation:
    """Return per pixel the first image whose level is at least `least`; where none is, the first of any level above 0.

    Stops reading as soon as every pixel has found an image to trust.
    """
    layers, quality = [layer.copy() for layer in empty.layers], empty.quality.copy()
    open_pixels = np.ones(quality.shape, bool)
    for piece in pieces:
        trusted = open_pixels & (piece.quality >= least)
        # What is not to be trusted is kept as long as nothing better comes, so that `quality` tells low from missing.
        low = open_pixels & (quality == 0) & (piece.quality > 0)
        _take(Observation(tuple(layers), quality), piece, trusted | low)
        open_pixels &= ~trusted
        if not open_pixels.any():
            break
    return Observation(tuple(layers), quality)


def best_quality(pieces: Iterable[Observation], *, empty: Observation) -> Observation:
    """Return per pixel the image of the highest level; of equals the first that came. Level 0 gives nothing."""
    layers, quality = [layer.copy() for layer in empty.layers], empty.quality.copy()
    for piece in pieces:
        _take(Observation(tuple(layers), quality), piece, piece.quality > quality)
        if (quality == GOOD).all():
            break
    return Observation(tuple(layers), quality)


def mean_composite(pieces: Iterable[Observation], *, empty: Observation, least: int) -> Observation:
    """Return per pixel the mean of all images whose level is at least `least`; the level is the lowest among them.

    Whole numbers are summed exactly and rounded half up once; others are summed in float64.
    """
    sums = [np.zeros(layer.shape, np.int64 if layer.dtype.kind in "iu" else np.float64) for layer in empty.layers]
    count = np.zeros(empty.quality.shape, np.int32)
    quality = np.full(empty.quality.shape, GOOD, np.uint8)
    for piece in pieces:
        use = piece.quality >= least
        count += use
        for total, layer in zip(sums, piece.layers, strict=True):
            np.add(total, layer, out=total, where=use, casting="unsafe")
        np.minimum(quality, piece.quality, out=quality, where=use)
    seen = count > 0
    divisor = np.maximum(count, 1)
    layers = tuple(
        _stored(np.where(seen, total / divisor, 0), template, seen)
        for total, template in zip(sums, empty.layers, strict=True)
    )
    return Observation(layers, np.where(seen, quality, empty.quality))


def median_composite(stack: ImageStack, *, empty: Observation, least: int, rows_at_once: int) -> Observation:
    """Return per pixel the median of all images whose level is at least `least`; the level is the lowest among them.

    Of an even number the mean of the two in the middle. A median needs all images of a pixel side by side, so the block
    is worked through `rows_at_once` rows at a time, instead of holding a hundred images of a whole block.
    """
    height = empty.quality.shape[0]
    parts = [
        _median_of(list(stack(rows)), _rows_of(empty, rows), least)
        for rows in (slice(start, min(start + rows_at_once, height)) for start in range(0, height, rows_at_once))
    ]
    layers = tuple(np.concatenate(arrays) for arrays in zip(*(part.layers for part in parts), strict=True))
    return Observation(layers, np.concatenate([part.quality for part in parts]))


def _median_of(pieces: list[Observation], empty: Observation, least: int) -> Observation:
    if not pieces:
        return empty
    use = np.stack([piece.quality >= least for piece in pieces])
    count = use.sum(axis=0)
    seen = count > 0
    lower, upper = np.maximum(count - 1, 0) // 2, count // 2
    upper = np.minimum(upper, len(pieces) - 1)
    layers = []
    for place, template in enumerate(empty.layers):
        values = np.stack([piece.layers[place] for piece in pieces])
        # What does not count goes to the end of the sorted column, where neither middle index can reach it.
        values[~use] = np.inf if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        values.sort(axis=0)
        low, high = (np.take_along_axis(values, index[None], axis=0)[0].astype(np.float64) for index in (lower, upper))
        low[~seen] = high[~seen] = 0
        layers.append(_stored((low + high) / 2, template, seen))
    quality = np.where(use, np.stack([piece.quality for piece in pieces]), GOOD).min(axis=0)
    return Observation(tuple(layers), np.where(seen, quality, empty.quality).astype(np.uint8))


def _stored(values: NDArray[np.float64], template: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[Any]:
    """Return values in the dtype of `template`, whole numbers rounded half up; `template` where nothing was seen."""
    if template.dtype.kind in "iu":
        values = np.floor(values + 0.5)
    out: NDArray[Any] = np.where(seen, values.astype(template.dtype), template)
    return out


def _take(into: Observation, piece: Observation, take: NDArray[np.bool_]) -> None:
    for out, layer in zip((*into.layers, into.quality), (*piece.layers, piece.quality), strict=True):
        np.copyto(out, layer, where=take)


def _rows_of(piece: Observation, rows: slice) -> Observation:
    return Observation(tuple(layer[rows] for layer in piece.layers), piece.quality[rows])
