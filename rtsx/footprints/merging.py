"""Putting the pieces of many blocks together, from their borders alone."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from rtsx.footprints.kernel import BlockOutlines
from rtsx.footprints.pieces import Outlines, Pieces
from rtsx.footprints.plan import BlockPlan, OutlineRule
from rtsx.footprints.shapely import unite

__all__ = ["merge_blocks"]

Numbers = NDArray[np.int64]


def merge_blocks(found: Sequence[BlockOutlines], plan: BlockPlan, *, rule: OutlineRule) -> Outlines:
    """Merge the outlines of all blocks into those of the undivided raster.

    Parameters
    ----------
    found : sequence of BlockOutlines
        One for each block, in the order of `plan.blocks`.
    plan : BlockPlan
        Where the blocks lie.
    rule : OutlineRule
        The rule by which they were outlined.

    Returns
    -------
    Outlines
        Complete objects in the order of their first pixels; small ones may be among them where they lay on a seam.
    """
    group = _objects(found, plan)
    pieces = _group([block.open for block in found], group, rule=rule)
    return Outlines.concatenate([pieces.finish(rule.levels), *(block.closed for block in found)])


def _objects(found: Sequence[BlockOutlines], plan: BlockPlan) -> Numbers:
    """Return the number of the object that each open piece belongs to."""
    counts = np.array([len(block.open) for block in found], np.int64)
    before = np.cumsum(counts) - counts
    borders = np.empty((4, len(plan.rows), len(plan.columns)), np.object_)
    for index, (block, offset) in enumerate(zip(found, before, strict=True)):
        for side, border in enumerate(block.borders):
            borders[(side, *divmod(index, len(plan.columns)))] = np.where(border > 0, border + offset, 0)
    top, bottom, left, right = borders
    # A seam is compared along its whole length, so that the diagonals through the corners of four blocks are in it.
    pairs = [_neighbours(np.concatenate(bottom[i]), np.concatenate(top[i + 1])) for i in range(len(plan.rows) - 1)]
    pairs += [
        _neighbours(np.concatenate(right[:, j]), np.concatenate(left[:, j + 1])) for j in range(len(plan.columns) - 1)
    ]
    total = int(counts.sum())
    one, other = np.concatenate([np.empty((2, 0), np.int64), *pairs], axis=1)
    links = scipy.sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(total, total))
    _, group = scipy.sparse.csgraph.connected_components(links, directed=False)
    return np.asarray(group, np.int64)


def _neighbours(one: Numbers, other: Numbers) -> Numbers:
    """Return the pairs of pieces, numbered from 0, that face each other straight or diagonally."""
    facing = np.concatenate(
        [np.stack((one, other)), np.stack((one[:-1], other[1:])), np.stack((one[1:], other[:-1]))], axis=1
    )
    return np.unique(facing[:, (facing > 0).all(axis=0)] - 1, axis=1)


def _group(parts: Sequence[Pieces], group: Numbers, *, rule: OutlineRule) -> Pieces:
    """Return one piece per group: united outlines, added histograms; those that are too small left out."""
    offsets = np.cumsum([0, *(len(part) for part in parts)])
    objects = int(group.max(initial=-1)) + 1
    steps = rule.levels + 1
    owner = np.concatenate([part.owner + offset for part, offset in zip(parts, offsets, strict=False)])
    count = np.concatenate([part.count for part in parts])
    is_cut = _any(np.concatenate([part.cut for part in parts]), group, count=objects)
    kept = is_cut | (np.bincount(group[owner], weights=count, minlength=objects) >= rule.min_pixels)
    chosen = kept[group]
    number = np.cumsum(kept) - 1
    group_of_bin, in_use = number[group[owner]], chosen[owner]
    key = (group_of_bin * steps + np.concatenate([part.level for part in parts]))[in_use]
    bins, inverse = np.unique(key, return_inverse=True)
    tally = np.zeros(len(bins), np.int64)
    np.add.at(tally, inverse, count[in_use])
    n_water = np.zeros(objects, np.int64)
    np.add.at(n_water, group, np.concatenate([part.n_water for part in parts]))
    first = np.full(int(kept.sum()), np.iinfo(np.int64).max)
    np.minimum.at(first, number[group[chosen]], np.concatenate([part.first for part in parts])[chosen])
    return Pieces(
        geometry=unite(np.concatenate([part.geometry for part in parts])[chosen], number[group[chosen]]),
        first=first,
        touches_edge=_any(np.concatenate([part.touches_edge for part in parts]), group, count=objects)[kept],
        cut=is_cut[kept],
        n_water=n_water[kept],
        owner=bins // steps,
        level=bins % steps,
        count=tally,
    )


def _any(flags: NDArray[np.bool_], group: Numbers, *, count: int) -> NDArray[np.bool_]:
    some = np.zeros(count, bool)
    np.logical_or.at(some, group, flags)
    return some
