"""The kernel: the objects of one block of a prediction, as arrays in and arrays out."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from rtsx.errors import FootprintError
from rtsx.footprints.pieces import Outlines, Pieces
from rtsx.footprints.plan import Block, OutlineRule
from rtsx.footprints.rasterio import trace

__all__ = ["CONNECTIVITY", "BlockOutlines", "outline_block"]

CONNECTIVITY = np.ones((3, 3), bool)
"""Eight neighbours, for labelling, size filter and outlines alike."""

Labels = NDArray[np.int32]
Answers = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class BlockOutlines:
    """What remains of a block when its pixels are forgotten."""

    closed: Outlines
    """Objects that reach no seam and are complete."""
    open: Pieces
    """Pieces that reach a seam and may go on behind it."""
    borders: tuple[Labels, Labels, Labels, Labels]
    """First row, last row, first column and last column: 1 + the open piece at each pixel, 0 for none."""


def outline_block(
    answers: tuple[Answers, Answers | None, NDArray[np.bool_], Answers | None], *, block: Block, rule: OutlineRule
) -> BlockOutlines:
    """Outline the objects of one block.

    Parameters
    ----------
    answers : tuple of numpy.ndarray
        Probability `(y, x)` of the block, uint8 in `rule.levels` steps or float 0-1; binary `(y, x)` of the block, 1
        where there is an object, or None where `rule.threshold` decides; invalid bool `(y, x)` of the block with a
        halo of `rule.edge_distance` pixels, cut to the raster; water `(y, x)` of the block, 1 where there is water, or
        None. Values at invalid pixels do not matter.
    block : Block
        Where the block lies.
    rule : OutlineRule
        What counts as an object.

    Returns
    -------
    BlockOutlines
        Complete objects of at least `rule.min_pixels`, those that may go on in a neighbouring raster, and all pieces
        that reach a seam; invalid pixels and margins are in none.
    """
    probability, binary, invalid, water = answers
    mask = np.zeros(probability.shape, bool)
    mask[block.core] = _is_object(probability, binary, rule=rule)[block.core]
    mask &= ~_inner(invalid, block=block, reach=rule.edge_distance)
    labels, found = scipy.ndimage.label(mask, CONNECTIVITY)
    flat = np.flatnonzero(labels)
    owner = labels.ravel()[flat] - 1
    is_open = _reaches_seam(labels, block=block, count=found)
    is_cut = _is_cut(labels, block=block, count=found)
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
        near = near_invalid(invalid, block=block, reach=rule.edge_distance).ravel()[flat]
        pieces.touches_edge[owner[near]] = True
        pieces.geometry[:] = trace(labels, len(is_open), origin=(block.y[0], block.x[0]))
    renumbered = np.concatenate(([0], np.where(is_open, np.cumsum(is_open), 0))).astype(np.int32)
    top, bottom, left, right = (renumbered[border] for border in _borders(labels))
    return BlockOutlines(
        closed=pieces.take(~is_open).finish(rule.levels),
        open=pieces.take(is_open),
        borders=(top, bottom, left, right),
    )


def near_invalid(invalid: NDArray[np.bool_], *, block: Block, reach: int) -> NDArray[np.bool_]:
    """Return, for each pixel of the block, whether an invalid one is at most `reach` king's moves away.

    `invalid` has a halo of `reach` pixels, cut to the raster; what lies beyond the raster counts as invalid.
    """
    near = np.pad(invalid, block.beyond(reach), constant_values=True)
    for axis in (0, 1):
        # Runs of doubling length, instead of a rank filter, because a few whole-array ORs are twenty times faster.
        run, rows = 1, near if axis == 0 else near.T
        while run < 2 * reach + 1:
            more = min(run, 2 * reach + 1 - run)
            rows = rows[:-more] | rows[more:]
            run += more
        near = rows if axis == 0 else rows.T
    return near


def _is_object(probability: Answers, binary: Answers | None, *, rule: OutlineRule) -> NDArray[np.bool_]:
    if rule.threshold is None:
        assert binary is not None, "without a threshold the binary map decides"
        return np.asarray(binary == 1)
    if probability.dtype.kind == "f":
        return np.asarray(probability >= np.asarray(rule.threshold, probability.dtype))
    # A whole level, because 0.29 * 100 is a little more than 29 and would lose the pixels at 29.
    return np.asarray(probability >= np.ceil(rule.threshold * rule.levels - 1e-6))


def _inner(haloed: NDArray[np.bool_], *, block: Block, reach: int) -> NDArray[np.bool_]:
    (y, x), (rows, columns) = block.halo(reach), block.window
    return haloed[rows.start - y.start : rows.stop - y.start, columns.start - x.start : columns.stop - x.start]


def _borders(labels: Labels) -> tuple[Labels, Labels, Labels, Labels]:
    return labels[0], labels[-1], labels[:, 0], labels[:, -1]


def _reaches_seam(labels: Labels, *, block: Block, count: int) -> NDArray[np.bool_]:
    reaches = np.zeros(count + 1, bool)
    for border, is_seam in zip(_borders(labels), block.seams, strict=True):
        if is_seam:
            reaches[border] = True
    return reaches[1:]


def _is_cut(labels: Labels, *, block: Block, count: int) -> NDArray[np.bool_]:
    is_cut = np.zeros(count + 1, bool)
    for line in block.cuts:
        is_cut[labels[line]] = True
    return is_cut[1:]


def _describe(
    pixels: tuple[Answers, NDArray[np.intp], NDArray[np.int32]], *, count: int, block: Block, rule: OutlineRule
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
            f"{probability.min()}: mark such pixels in `valid`, or correct the scale_factor of `probability`"
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
