"""Several images of one place as one: the kernels of composites. Pure arrays, one image after the other."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.erosion import compiled
from rtsx.cube.mask_rules import GOOD


@dataclass(frozen=True)
class Observation:
    """One image, or what became of several, on the pixels of a block."""

    layers: tuple[NDArray[Any], ...]
    """Stored pixels (y, x), one array per layer."""
    quality: NDArray[np.uint8]
    """Level of each pixel (y, x): 0 invalid, 1 low quality, 2 good; 0 where a layer has no data."""

    def copy(self) -> "Observation":
        """Return the same in arrays of its own."""
        return Observation(tuple(layer.copy() for layer in self.layers), self.quality.copy())

    def take(self, piece: "Observation", where: NDArray[np.bool_]) -> None:
        """Overwrite pixels with those of another image."""
        for out, layer in zip((*self.layers, self.quality), (*piece.layers, piece.quality), strict=True):
            np.copyto(out, layer, where=where)


ImageStack = Callable[[slice], Iterator[Observation]]
"""Reads the images of one time step one by one and in order, for some rows of the block; can be called again."""


def first_valid(pieces: Iterable[Observation], *, empty: Observation, least: int) -> Observation:
    """Return per pixel the first image whose level is at least `least`; where none is, the first of any level above 0.

    Stops reading as soon as every pixel has found an image to trust.
    """
    made, open_pixels = empty.copy(), np.ones(empty.quality.shape, bool)
    for number, piece in enumerate(pieces):
        trusted = open_pixels & (piece.quality >= least)
        if number == 0 and trusted.all():
            return piece.copy()  # of a view that would hold all bands
        # What is not to be trusted is kept as long as nothing better comes, so that `quality` tells low from missing.
        low = open_pixels & (made.quality == 0) & (piece.quality > 0)
        made.take(piece, trusted | low)
        open_pixels &= ~trusted
        if not open_pixels.any():
            break
    return made


def best_quality(pieces: Iterable[Observation], *, empty: Observation) -> Observation:
    """Return per pixel the image of the highest level; of equals the first that came. Level 0 gives nothing."""
    made = empty.copy()
    for piece in pieces:
        made.take(piece, piece.quality > made.quality)
        if (made.quality == GOOD).all():
            break
    return made


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


def percentile_composite(
    stack: ImageStack, *, empty: Observation, least: int, percent: float, count: int, rows_at_once: int
) -> Observation:
    """Return per pixel and layer a percentile of all images whose level is at least `least`; the level is the lowest among them.

    Between two values it is interpolated linearly, as NumPy does: the median of an even number is the mean of the two in
    the middle. It needs all images of a pixel side by side, so the block is worked through `rows_at_once` rows at a time,
    instead of holding hundreds of images of a whole block.

    Parameters
    ----------
    stack
        The images.
    empty
        What a pixel has that no image shows.
    least
        Lowest level that counts.
    percent
        0 to 100; 50 is the median.
    count
        Images of the stack, at most.
    rows_at_once
        Rows whose images are in memory at a time.
    """

    def of_rows(side: _SideBySide, rows: Observation) -> Observation:
        layers = []
        for values, template in zip(side.values, rows.layers, strict=True):
            found = _percentile(values, side.quality, (least, percent / 100))
            layers.append(_stored(found, template, side.seen))
        return Observation(tuple(layers), np.where(side.seen, side.lowest, rows.quality))

    return _by_rows(stack, of_rows, empty=empty, least=least, count=count, rows_at_once=rows_at_once)


def medoid_composite(
    stack: ImageStack, *, empty: Observation, least: int, scales: tuple[float, ...], count: int, rows_at_once: int
) -> Observation:
    """Return per pixel the image whose layers are nearest to those of all others, of the images whose level is at least `least`.

    The sum of Euclidean distances counts, each layer times its entry of `scales`; of equals the first. Unlike a median of
    each layer, what comes out was seen as it is. See `percentile_composite` for the rest.
    """

    def of_rows(side: _SideBySide, rows: Observation) -> Observation:
        place = _medoid(side.values, side.quality, (least, np.array(scales, np.float64)))[None]
        layers = tuple(
            np.where(side.seen, np.take_along_axis(values, place, axis=0)[0].astype(template.dtype), template)
            for values, template in zip(side.values, rows.layers, strict=True)
        )
        level = np.take_along_axis(side.quality, place, axis=0)[0]
        return Observation(layers, np.where(side.seen, level, rows.quality))

    return _by_rows(stack, of_rows, empty=empty, least=least, count=count, rows_at_once=rows_at_once)


@dataclass(frozen=True)
class _SideBySide:
    """All images of some rows that count anywhere."""

    values: NDArray[Any]
    """Stored pixels (layer, image, y, x), of a dtype that holds those of all layers."""
    quality: NDArray[np.uint8]
    """Level of each pixel (image, y, x)."""
    lowest: NDArray[np.uint8]
    """Lowest level that counts (y, x)."""
    seen: NDArray[np.bool_]
    """Where any image counts (y, x)."""


RowKernel = Callable[[_SideBySide, Observation], Observation]
"""From all images of some rows, and what a pixel has that no image shows, to one."""


def _by_rows(
    stack: ImageStack, of_rows: RowKernel, *, empty: Observation, least: int, count: int, rows_at_once: int
) -> Observation:
    """Return what a kernel makes of all images side by side, some rows at a time."""
    height, width = empty.quality.shape
    dtype = np.result_type(*empty.layers)
    parts = []
    for start in range(0, height, rows_at_once):
        rows = slice(start, min(start + rows_at_once, height))
        part = Observation(tuple(layer[rows] for layer in empty.layers), empty.quality[rows])
        shape = (rows.stop - rows.start, width)
        # Written once per image into place, because a list that is stacked takes the memory twice.
        values, quality = np.empty((len(empty.layers), count, *shape), dtype), np.empty((count, *shape), np.uint8)
        lowest, seen, filled = np.full(shape, GOOD, np.uint8), np.zeros(shape, bool), 0
        for piece in stack(rows):
            use = piece.quality >= least
            if not use.any():
                continue
            for place, layer in enumerate(piece.layers):
                values[place, filled] = layer
            quality[filled] = piece.quality
            np.minimum(lowest, piece.quality, out=lowest, where=use)
            seen |= use
            filled += 1
        parts.append(of_rows(_SideBySide(values[:, :filled], quality[:filled], lowest, seen), part) if filled else part)
    layers = tuple(np.concatenate(arrays) for arrays in zip(*(part.layers for part in parts), strict=True))
    return Observation(layers, np.concatenate([part.quality for part in parts]))


def _percentile_kernel(values, quality, rule):  # type: ignore[no-untyped-def]
    """Return the percentile of each pixel (y, x) of one layer (image, y, x), by selection; 0 where nothing counts."""
    least, fraction = rule
    count, height, width = values.shape
    found = np.zeros((height, width))
    kept = np.empty(count, values.dtype)
    for y in range(height):
        for x in range(width):
            many = 0
            for image in range(count):
                if quality[image, y, x] >= least:
                    kept[many] = values[image, y, x]
                    many += 1
            if many == 0:
                continue
            place = (many - 1) * fraction
            low = min(int(place), many - 1)
            first, last = 0, many - 1
            while first < last:  # Hoare's selection: what is left of `low` ends up no greater, what is right no less
                pivot, left, right = kept[low], first, last
                while left <= right:
                    while kept[left] < pivot:
                        left += 1
                    while pivot < kept[right]:
                        right -= 1
                    if left <= right:
                        kept[left], kept[right] = kept[right], kept[left]
                        left += 1
                        right -= 1
                if right < low:
                    first = left
                if low < left:
                    last = right
            value = np.float64(kept[low])
            rest = place - low
            if rest > 0:
                above = kept[low + 1]
                for image in range(low + 2, many):
                    above = min(above, kept[image])
                value += rest * (np.float64(above) - value)
            found[y, x] = value
    return found


def _medoid_kernel(values, quality, rule):  # type: ignore[no-untyped-def]
    """Return the image of each pixel (layer, image, y, x) whose distances to all others sum up to the least; 0 where nothing counts."""
    least, scales = rule
    layers, count, height, width = values.shape
    chosen = np.zeros((height, width), np.int64)
    points, images, sums = np.empty((count, layers)), np.empty(count, np.int64), np.empty(count)
    for y in range(height):
        for x in range(width):
            many = 0
            for image in range(count):
                if quality[image, y, x] >= least:
                    for layer in range(layers):
                        points[many, layer] = values[layer, image, y, x] * scales[layer]
                    images[many], sums[many] = image, 0.0
                    many += 1
            for one in range(many):
                for other in range(one + 1, many):
                    square = 0.0
                    for layer in range(layers):
                        apart = points[one, layer] - points[other, layer]
                        square += apart * apart
                    distance = math.sqrt(square)
                    sums[one] += distance
                    sums[other] += distance
            best = 0
            for one in range(1, many):
                if sums[one] < sums[best]:
                    best = one
            if many:
                chosen[y, x] = images[best]
    return chosen


_percentile: Callable[..., NDArray[np.float64]] = compiled(_percentile_kernel)
_medoid: Callable[..., NDArray[np.int64]] = compiled(_medoid_kernel)


def _stored(values: NDArray[np.float64], template: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[Any]:
    """Return values in the dtype of `template`, whole numbers rounded half up; `template` where nothing was seen."""
    if template.dtype.kind in "iu":
        values = np.floor(values + 0.5)
    return np.asarray(np.where(seen, values.astype(template.dtype), template))
