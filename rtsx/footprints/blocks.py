"""Outlines of one block of a prediction: its window and halo, labelled pixels, and their polygons. Arrays in, arrays out."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from threading import Lock
from typing import Any

import numpy as np
import rasterio.features
import scipy.ndimage
import shapely
from numpy.typing import NDArray

from rtsx.errors import FootprintError
from rtsx.footprints.class_maps import FAR_FROM_ONE, OF_NO_LEVEL, is_found
from rtsx.footprints.pieces import Outlines, Pieces, least_level
from rtsx.scores.counts import near_any

Margins = tuple[int, int, int, int]
NO_MARGINS: Margins = (0, 0, 0, 0)
"""A raster that has no neighbours: all its borders are ends of the data."""

BlockWindow = tuple[tuple[int, int], tuple[slice, slice]]
"""A block by its row and column among the blocks, and a window inside it."""


@dataclass(frozen=True, kw_only=True)
class ExtractionRule:
    """What counts as an object, in units that need no geography."""

    threshold: float | None
    """Smallest probability (0-1) of an object pixel; None: the binary map decides."""
    levels: int
    """Steps between probability 0 and 1 in which statistics are kept: 100 for uint8, 10000 for float."""
    edge_distance: int
    """Pixels, counted in king's moves: an object this near to invalid ground touches the edge."""
    min_pixels: int
    """An object of fewer pixels is below the smallest area wherever it lies; it is dropped before it is outlined."""
    area_thresholds: tuple[float, ...] = ()
    """Probabilities (0-1) at which the pixels of an object are counted."""
    nodata_fraction: bool = False
    """Whether blocks keep which pixels are invalid, for the boxes around objects."""


@dataclass(frozen=True, kw_only=True)
class ExtractionBlock:
    """A rectangle of the raster, read and outlined at once; half-open intervals of pixels."""

    y: tuple[int, int]
    """First row, and the row after the last."""
    x: tuple[int, int]
    """First column, and the column after the last."""
    shape: tuple[int, int]
    """Rows and columns of the whole raster."""
    margins: Margins = NO_MARGINS
    """Pixels at the top, bottom, left and right of the raster that belong to neighbouring rasters."""

    @property
    def window(self) -> tuple[slice, slice]:
        """The block as an index `(y, x)` into the raster."""
        return slice(*self.y), slice(*self.x)

    def halo(self, reach: int) -> tuple[slice, slice]:
        """Return the window widened by `reach` pixels and cut to the raster."""
        y, x = (
            slice(max(0, start - reach), min(length, stop + reach))
            for (start, stop), length in zip((self.y, self.x), self.shape, strict=True)
        )
        return y, x

    def beyond(self, reach: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return how many pixels of the halo were cut off before and after, along y and along x."""
        y, x = (
            (max(0, reach - start), max(0, stop + reach - length))
            for (start, stop), length in zip((self.y, self.x), self.shape, strict=True)
        )
        return y, x

    @property
    def core(self) -> tuple[slice, slice]:
        """The part of the block outside the margins, as an index `(y, x)` into the block; may be empty."""
        y, x = (
            slice(*(min(max(limit - start, 0), stop - start) for limit in (before, length - after)))
            for (start, stop), length, before, after in zip(
                (self.y, self.x), self.shape, self.margins[::2], self.margins[1::2], strict=True
            )
        )
        return y, x

    @property
    def cuts(self) -> tuple[tuple[slice, slice], ...]:
        """The lines of pixels along which a neighbouring raster goes on, as indices `(y, x)` into the block."""
        y, x = self.core
        lines = []
        for side, margin in enumerate(self.margins):
            (start, stop), length = ((self.y, self.x)[side // 2], self.shape[side // 2])
            line = (margin if side % 2 == 0 else length - margin - 1) - start
            if margin and 0 <= line < stop - start:
                lines.append((slice(line, line + 1), x) if side < 2 else (y, slice(line, line + 1)))
        return tuple(lines)

    @property
    def seams(self) -> tuple[bool, bool, bool, bool]:
        """Whether another block lies above, below, to the left and to the right."""
        return self.y[0] > 0, self.y[1] < self.shape[0], self.x[0] > 0, self.x[1] < self.shape[1]


@dataclass(frozen=True, kw_only=True)
class ExtractionPlan:
    """The division of one raster into blocks, which together cover each pixel once.

    Examples
    --------
    >>> plan = ExtractionPlan(rows=(2, 1), columns=(3,))
    >>> plan.shape
    (3, 3)
    >>> [block.window for block in plan.blocks]
    [(slice(0, 2, None), slice(0, 3, None)), (slice(2, 3, None), slice(0, 3, None))]
    """

    rows: tuple[int, ...]
    """Height of each row of blocks, in pixels."""
    columns: tuple[int, ...]
    """Width of each column of blocks, in pixels."""
    margins: Margins = NO_MARGINS
    """Pixels at the top, bottom, left and right of the raster that belong to neighbouring rasters."""

    @classmethod
    def regular(cls, shape: tuple[int, int], *, size: int, margins: Margins = NO_MARGINS) -> "ExtractionPlan":
        """Return square blocks of `size` pixels, smaller at the lower and right border."""
        rows, columns = (
            tuple(min(size, length - start) for start in range(0, max(length, 1), size)) for length in shape
        )
        return cls(rows=rows, columns=columns, margins=margins)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the raster, in pixels."""
        return sum(self.rows), sum(self.columns)

    @property
    def blocks(self) -> tuple[ExtractionBlock, ...]:
        """All blocks, row by row."""
        return tuple(
            ExtractionBlock(y=y, x=x, shape=self.shape, margins=self.margins)
            for y in _intervals(self.rows)
            for x in _intervals(self.columns)
        )

    def parts(self, window: tuple[slice, slice]) -> list[list[BlockWindow]]:
        """Return the rows of parts of blocks that together make up a window `(y, x)` of the raster.

        Examples
        --------
        >>> ExtractionPlan(rows=(2, 1), columns=(3,)).parts((slice(1, 3), slice(0, 2)))
        [[((0, 0), (slice(1, 2, None), slice(0, 2, None)))], [((1, 0), (slice(0, 1, None), slice(0, 2, None)))]]
        """
        rows, columns = (
            [
                (number, slice(max(wanted.start, start) - start, min(wanted.stop, stop) - start))
                for number, (start, stop) in enumerate(_intervals(lengths))
                if start < wanted.stop and stop > wanted.start
            ]
            for lengths, wanted in zip((self.rows, self.columns), window, strict=True)
        )
        return [[((i, j), (y, x)) for j, x in columns] for i, y in rows]


def _intervals(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(pairwise(accumulate(lengths, initial=0)))


# Until rasterio stops filtering warnings while it makes an array a dataset, which is not safe between threads and lets
# a NotGeoreferencedWarning out. It holds the interpreter's lock throughout, so that waiting costs nothing.
_ONE_AT_A_TIME = Lock()


def polygonize(labels: NDArray[np.int32], count: int, *, origin: tuple[int, int]) -> NDArray[np.object_]:
    """Outline labelled objects along their pixel borders.

    Parameters
    ----------
    labels : numpy.ndarray
        `(y, x)` int32; 0 is background, objects are 1 to `count`, each with at least one pixel.
    count : int
        Number of objects.
    origin : tuple of int
        Row and column of the first pixel; added to the coordinates.

    Returns
    -------
    numpy.ndarray
        `(count,)` of valid Polygons or MultiPolygons in pixel coordinates: x is the column, y the row, whole numbers,
        vertices at corners only, holes kept. The parts of a MultiPolygon meet in corners.

    Examples
    --------
    >>> polygonize(np.array([[1, 0], [0, 1]], np.int32), 1, origin=(0, 0))[0].wkt
    'MULTIPOLYGON (((0 0, 0 1, 1 1, 1 0, 0 0)), ((1 1, 1 2, 2 2, 2 1, 1 1)))'
    """
    if count == 0:
        return np.empty(0, np.object_)
    # Four-connected parts, put together by their label, because GDAL's eight-connected outlines cross
    # themselves where pixels meet in a corner, which no geometry library accepts as a polygon.
    polygons: list[list[list[tuple[float, float]]]] = []
    owners: list[int] = []
    with _ONE_AT_A_TIME:
        for geometry, label in rasterio.features.shapes(labels, mask=labels > 0, connectivity=4):
            polygons.append(geometry["coordinates"])
            owners.append(int(label) - 1)
    rings = list(chain.from_iterable(polygons))
    coordinates = np.array(list(chain.from_iterable(rings)), np.float64)
    coordinates += np.array(origin[::-1])
    ring_offsets = np.cumsum([0, *map(len, rings)])
    polygon_offsets = np.cumsum([0, *map(len, polygons)])
    parts = shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, (ring_offsets, polygon_offsets))
    return _gather(parts, np.array(owners), count)


def _gather(parts: NDArray[np.object_], owners: NDArray[np.int64], count: int) -> NDArray[np.object_]:
    order = np.argsort(owners, kind="stable")
    parts, owners = parts[order], owners[order]
    several = np.bincount(owners, minlength=count) > 1
    outlines = np.empty(count, np.object_)
    single = ~several[owners]
    outlines[owners[single]] = parts[single]
    if several.any():
        rank = np.cumsum(several) - 1
        outlines[several] = shapely.multipolygons(parts[~single], indices=rank[owners[~single]])
    return outlines


CONNECTIVITY = np.ones((3, 3), bool)
"""Eight neighbours, for labelling, size filter and outlines alike."""

LabelArray = NDArray[np.int32]
StoredArray = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class BlockFootprints:
    """What remains of a block when its pixels are forgotten."""

    closed: Outlines
    """Objects that reach no seam and are complete."""
    open: Pieces
    """Pieces that reach a seam and may go on behind it."""
    borders: tuple[LabelArray, LabelArray, LabelArray, LabelArray]
    """First row, last row, first column and last column: 1 + the open piece at each pixel, 0 for none."""
    invalid: bytes
    """Which pixels are invalid, as `_packed` writes it; empty where none is, or nobody asks."""


def polygonize_block(
    arrays: tuple[StoredArray, StoredArray | None, NDArray[np.bool_], StoredArray | None],
    *,
    block: ExtractionBlock,
    rule: ExtractionRule,
) -> BlockFootprints:
    """Outline the objects of one block.

    Parameters
    ----------
    arrays : tuple of numpy.ndarray
        Probability `(y, x)` of the block, uint8 in `rule.levels` steps or float 0-1; binary `(y, x)` of the block, 1
        where there is an object, or None where `rule.threshold` decides; invalid bool `(y, x)` of the block with a
        halo of `rule.edge_distance` pixels, cut to the raster; water `(y, x)` of the block, 1 where there is water, or
        None. Values at invalid pixels do not matter.
    block : Block
        Where the block lies.
    rule : ExtractionRule
        What counts as an object.

    Returns
    -------
    BlockFootprints
        Complete objects of at least `rule.min_pixels`, those that may go on in a neighbouring raster, and all pieces
        that reach a seam; invalid pixels and margins are in none.
    """
    probability, binary, invalid, water = arrays
    mask = np.zeros(probability.shape, bool)
    mask[block.core] = _is_object(probability, binary, rule=rule)[block.core]
    (tall, wide), (y, x) = block.halo(rule.edge_distance), block.window
    own = invalid[y.start - tall.start : y.stop - tall.start, x.start - wide.start : x.stop - wide.start]
    if rule.threshold is None and binary is not None:
        check_binary(binary[~own])
    mask &= ~own
    labels, found = scipy.ndimage.label(mask, CONNECTIVITY)
    flat = np.flatnonzero(labels)
    owner = labels.ravel()[flat] - 1
    seams = [border for border, is_seam in zip(_BORDERS, block.seams, strict=True) if is_seam]
    is_open, is_cut = (_on_lines(labels, lines, count=found) for lines in (seams, block.cuts))
    kept = is_open | is_cut | (np.bincount(owner, minlength=found) >= rule.min_pixels)
    if not kept.all():
        number = np.concatenate(([0], np.where(kept, np.cumsum(kept), 0))).astype(np.int32)
        labels = number[labels]
        chosen = kept[owner]
        flat, owner, is_open, is_cut = flat[chosen], labels.ravel()[flat[chosen]] - 1, is_open[kept], is_cut[kept]
    pieces = _describe((probability.ravel()[flat], flat, owner), count=len(is_open), block=block, rule=rule)
    pieces.cut[:] = is_cut
    if water is not None:
        pieces.n_water[:] = np.bincount(owner[water.ravel()[flat] == 1], minlength=len(is_open))
    if len(flat):
        near = touches_nodata(invalid, block=block, reach=rule.edge_distance).ravel()[flat]
        pieces.touches_edge[owner[near]] = True
        pieces.geometry[:] = polygonize(labels, len(is_open), origin=(block.y[0], block.x[0]))
    renumbered = np.concatenate(([0], np.where(is_open, np.cumsum(is_open), 0))).astype(np.int32)
    top, bottom, left, right = (renumbered[labels[border]] for border in _BORDERS)
    return BlockFootprints(
        closed=pieces.take(~is_open).finish(rule.levels, thresholds=rule.area_thresholds),
        open=pieces.take(is_open),
        borders=(top, bottom, left, right),
        invalid=_packed(own) if rule.nodata_fraction else b"",
    )


def _packed(mask: NDArray[np.bool_]) -> bytes:
    """Compress a mask: a bit a pixel or far less, because missing data hang together."""
    return zlib.compress(np.packbits(mask).tobytes(), 1) if mask.any() else b""


def _unpacked(packed: bytes, shape: tuple[int, int]) -> NDArray[np.bool_]:
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=shape[0] * shape[1]).view(bool).reshape(shape)


def padded_boxes(outlines: NDArray[np.object_], *, reach: int) -> NDArray[np.int64]:
    """Return the bounding boxes of outlines in pixel coordinates, widened by `reach`.

    Returns
    -------
    numpy.ndarray
        `(outline, 4)`: first row, row after the last, first column, column after the last; perhaps beyond the raster.
    """
    left, top, right, bottom = np.rint(shapely.bounds(outlines).reshape(-1, 4)).astype(np.int64).T
    return np.column_stack([top - reach, bottom + reach, left - reach, right + reach])


def nodata_fractions(
    outlines: NDArray[np.object_], found: Sequence[BlockFootprints], plan: ExtractionPlan, *, reach: int
) -> NDArray[np.float64]:
    """Return the part of the bounding box of each outline, widened by `reach` pixels, that is invalid or beyond the raster.

    Parameters
    ----------
    outlines
        `(n,)` in pixel coordinates of the raster.
    found
        The blocks, in the order of `plan.blocks`, with their invalid pixels.
    plan
        Where they lie.
    reach
        Pixels.
    """
    boxes = padded_boxes(outlines, reach=reach)
    blocks = np.array([(*block.y, *block.x) for block in plan.blocks], np.int64).reshape(-1, 4)
    tree = shapely.STRtree(shapely.box(boxes[:, 2], boxes[:, 0], boxes[:, 3], boxes[:, 1]))
    pairs = tree.query(shapely.box(blocks[:, 2], blocks[:, 0], blocks[:, 3], blocks[:, 1]))
    places, rows = pairs[:, np.argsort(pairs[0], kind="stable")]
    start, stop = np.maximum(boxes[rows, ::2], blocks[places, ::2]), np.minimum(boxes[rows, 1::2], blocks[places, 1::2])
    valid = np.maximum(stop - start, 0).prod(axis=1)
    met, first = np.unique(places, return_index=True)
    for place, begin, end in zip(met, first, np.append(first, len(places))[1:], strict=True):
        if not found[place].invalid:
            continue
        top, bottom, left, right = blocks[place]
        invalid = _unpacked(found[place].invalid, (bottom - top, right - left))
        for pair in begin + np.flatnonzero(valid[begin:end]):
            (y, x), (y_stop, x_stop) = start[pair] - (top, left), stop[pair] - (top, left)
            valid[pair] -= np.count_nonzero(invalid[y:y_stop, x:x_stop])
    size = (boxes[:, 1::2] - boxes[:, ::2]).prod(axis=1)
    n_valid = np.bincount(rows, weights=valid, minlength=len(boxes))
    return np.asarray((size - n_valid) / size, np.float64)


def touches_nodata(invalid: NDArray[np.bool_], *, block: ExtractionBlock, reach: int) -> NDArray[np.bool_]:
    """Return, for each pixel of the block, whether an invalid one is at most `reach` king's moves away.

    `invalid` has a halo of `reach` pixels, cut to the raster; what lies beyond the raster counts as invalid.
    """
    return near_any(np.pad(invalid, block.beyond(reach), constant_values=True), reach=reach)


def check_binary(values: StoredArray) -> None:
    """Refuse valid values of a binary map that say neither yes nor no, such as the 255 of a mask of bytes.

    Raises
    ------
    FootprintError
        Names one.
    """
    strange = values[(values != 0) & (values != 1)]
    if strange.size:
        raise FootprintError(
            f"binary is 1 where an object is, 0 elsewhere, and its _FillValue where nothing is known; a valid pixel has {strange[0]}: recode "
            "it, or declare the _FillValue, or mark such pixels in `valid`"
        )


def _is_object(probability: StoredArray, binary: StoredArray | None, *, rule: ExtractionRule) -> NDArray[np.bool_]:
    if rule.threshold is None:
        assert binary is not None, "without a threshold the binary map decides"
        return is_found(binary)
    least = rule.threshold if probability.dtype.kind == "f" else least_level(rule.threshold, rule.levels)
    return np.asarray(probability >= np.asarray(least, probability.dtype))


_BORDERS = (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])
"""First row, last row, first column and last column of an array."""


def _on_lines(labels: LabelArray, lines: Sequence[Any], *, count: int) -> NDArray[np.bool_]:
    """Test which objects have a pixel on one of some lines of pixels."""
    touched = np.zeros(count + 1, bool)
    for line in lines:
        touched[labels[line]] = True
    return touched[1:]


def _describe(
    pixels: tuple[StoredArray, NDArray[np.intp], NDArray[np.int32]],
    *,
    count: int,
    block: ExtractionBlock,
    rule: ExtractionRule,
) -> Pieces:
    """Return pieces with first pixel and histogram; geometry, edge, cut and water are still to be filled in."""
    probability, flat, owner = pixels
    width = block.x[1] - block.x[0]
    earliest = np.zeros(count, np.int64)
    earliest[owner[::-1]] = flat[::-1]  # the last assignment stays, and it is the first pixel
    row, column = np.divmod(earliest, max(width, 1))
    level = np.rint(probability * rule.levels) if probability.dtype.kind == "f" else probability
    if level.size and not 0 <= level.min() <= level.max() <= rule.levels:
        raise FootprintError(
            f"probability runs from 0 to {rule.levels if level is probability else 1}, but an object pixel in rows "
            f"{block.y[0]}-{block.y[1] - 1}, columns {block.x[0]}-{block.x[1] - 1} has {probability.max()} or "
            f"{probability.min()}: {FAR_FROM_ONE if probability.dtype.kind == 'f' else OF_NO_LEVEL}"
        )
    steps = rule.levels + 1
    key = owner.astype(np.int64) * steps + level.astype(np.int64)
    if count * steps <= max(key.size, 1 << 20):
        dense = np.bincount(key, minlength=count * steps)
        bins = np.flatnonzero(dense)
        tally = dense[bins]
    else:
        bins, tally = np.unique(key, return_counts=True)
    return Pieces(
        geometry=np.empty(count, np.object_),
        first=(row + block.y[0]) * block.shape[1] + column + block.x[0],
        touches_edge=np.zeros(count, bool),
        cut=np.zeros(count, bool),
        n_water=np.zeros(count, np.int64),
        owner=bins // steps,
        level=bins % steps,
        count=tally.astype(np.int64),
    )
