"""The dask driver: reads blocks, calls the kernel, and joins the pieces of objects across block borders."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import getitem
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.typing import DaskCollection, Key
from numpy.typing import NDArray

from rtsx.footprints.blocks import (
    BlockFootprints,
    BlockWindow,
    ExtractionBlock,
    ExtractionPlan,
    ExtractionRule,
    Margins,
    nodata_fractions,
    polygonize_block,
)
from rtsx.footprints.class_maps import ClassMap
from rtsx.footprints.geometry import components, union
from rtsx.footprints.pieces import Outlines, Pieces

Numbers = NDArray[np.int64]


def merge_blocks(found: Sequence[BlockFootprints], plan: ExtractionPlan, *, rule: ExtractionRule) -> Outlines:
    """Merge the outlines of all blocks into those of the undivided raster.

    Parameters
    ----------
    found : sequence of BlockFootprints
        One for each block, in the order of `plan.blocks`.
    plan : BlockPlan
        Where the blocks lie.
    rule : ExtractionRule
        The rule by which they were outlined.

    Returns
    -------
    Outlines
        Complete objects in the order of their first pixels; small ones may be among them where they lay on a seam.
    """
    group = _objects(found, plan)
    pieces = _group([block.open for block in found], group, rule=rule)
    parts = [pieces.finish(rule.levels, thresholds=rule.area_thresholds), *(block.closed for block in found)]
    outlines = Outlines.concatenate(parts)
    if not rule.nodata_fraction:
        return outlines
    whole = ~outlines.cut  # of what is cut, nobody knows the box yet
    fractions = outlines.nodata_fraction.copy()
    fractions[whole] = nodata_fractions(outlines.geometry[whole], found, plan, reach=rule.edge_distance)
    return replace(outlines, nodata_fraction=fractions)


def _objects(found: Sequence[BlockFootprints], plan: ExtractionPlan) -> Numbers:
    """Return the number of the object that each open piece belongs to."""
    counts = np.array([len(block.open) for block in found], np.int64)
    before = np.cumsum(counts) - counts
    borders = np.empty((4, len(plan.rows), len(plan.columns)), np.object_)
    for index, (block, offset) in enumerate(zip(found, before, strict=True)):
        for side, border in enumerate(block.borders):
            borders[(side, *divmod(index, len(plan.columns)))] = np.where(border > 0, border + offset, 0)
    top, bottom, left, right = borders
    # A seam is compared along its whole length, so that the diagonals through the corners of four blocks are in it.
    sides = [*zip(bottom[:-1], top[1:], strict=True), *zip(right.T[:-1], left.T[1:], strict=True)]
    pairs = [_neighbours(np.concatenate(before), np.concatenate(after)) for before, after in sides]
    one, other = np.concatenate([np.empty((2, 0), np.int64), *pairs], axis=1)
    return components(one, other, count=int(counts.sum()))


def _neighbours(one: Numbers, other: Numbers) -> Numbers:
    """Return the pairs of pieces, numbered from 0, that face each other straight or diagonally."""
    facing = np.concatenate(
        [np.stack((one, other)), np.stack((one[:-1], other[1:])), np.stack((one[1:], other[:-1]))], axis=1
    )
    return np.unique(facing[:, (facing > 0).all(axis=0)] - 1, axis=1)


def _group(parts: Sequence[Pieces], group: Numbers, *, rule: ExtractionRule) -> Pieces:
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
        geometry=union(np.concatenate([part.geometry for part in parts])[chosen], number[group[chosen]]),
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


BLOCK_SIZE = 4096
"""Side of the blocks, in pixels, in which an array in memory is worked through."""


def plan_blocks(probability: xr.DataArray, *, margins: Margins) -> ExtractionPlan:
    """Return the blocks of a map: its dask chunks, or squares of `BLOCK_SIZE` where it lies in memory."""
    if probability.chunks is None:
        rows, columns = probability.shape
        return ExtractionPlan.regular((rows, columns), size=BLOCK_SIZE, margins=margins)
    return ExtractionPlan(rows=probability.chunks[0], columns=probability.chunks[1], margins=margins)


def outline_maps(maps: Sequence[ClassMap], *, rule: ExtractionRule, margins: Margins) -> list[Outlines]:
    """Outline the objects of every map inside its margins.

    All maps are computed in one go on the scheduler that is in force, because maps of several classes come from the
    same run of the network and would otherwise cost one run each. Each chunk is computed once and forgotten; outlines,
    border rows and border columns remain.
    """
    plans = [plan_blocks(one.probability, margins=margins) for one in maps]
    if any(array.chunks is not None for one in maps for array in _arrays(one)):
        found = _outline_lazy(maps, plans, rule=rule)
    else:
        found = [
            _outline(one, block, rule=rule) for one, plan in zip(maps, plans, strict=True) for block in plan.blocks
        ]
    remaining = iter(found)
    return [merge_blocks(list(islice(remaining, len(plan.blocks))), plan, rule=rule) for plan in plans]


def _arrays(one: ClassMap) -> list[xr.DataArray]:
    return [array for array in (one.probability, one.invalid, one.binary, one.water) if array is not None]


def _outline(one: ClassMap, block: ExtractionBlock, *, rule: ExtractionRule) -> BlockFootprints:
    answers = (
        one.probability.values[block.window],
        None if one.binary is None else one.binary.values[block.window],
        one.invalid.values[block.halo(rule.edge_distance)],
        None if one.water is None else one.water.values[block.window],
    )
    return polygonize_block(answers, block=block, rule=rule)


def _outline_lazy(
    maps: Sequence[ClassMap], plans: Sequence[ExtractionPlan], *, rule: ExtractionRule
) -> list[BlockFootprints]:
    """Compute all blocks of all maps as one array of results.

    A graph of our own, instead of `map_overlap`, because that cannot reach beyond the next chunk and gives every
    layer a halo, and instead of `delayed`, because that optimises each argument alone and so computes shared chunks
    more than once.
    """
    name = f"outline-{tokenize([[array.data for array in _arrays(one)] for one in maps], plans, rule)}"
    graph: dict[Key, Any] = {}
    blocks = 0
    dependencies: list[DaskCollection] = []
    for one, plan in zip(maps, plans, strict=True):
        chunks = (plan.rows, plan.columns)
        arrays = [da.asarray(array.data).rechunk(chunks) for array in _arrays(one)]
        probability, invalid, *others = arrays
        is_there = (one.binary is not None, one.water is not None)
        dependencies += arrays
        for number, block in enumerate(plan.blocks):
            at = divmod(number, len(plan.columns))
            halo = add_window(graph, invalid, plan.parts(block.halo(rule.edge_distance)), name=name)
            answers = [(array.name, *at) for array in (probability, *others)]
            outline = partial(_outline_chunk, is_there=is_there, block=block, rule=rule)
            graph[name, blocks] = (outline, answers, halo)
            blocks += 1
    layered = HighLevelGraph.from_collections(name, graph, dependencies=dependencies)
    return list(da.Array(layered, name, chunks=((1,) * blocks,), dtype=object).compute())


def add_window(
    graph: dict[Key, Any], array: da.Array, parts: Sequence[Sequence[BlockWindow]], *, name: str
) -> list[list[Key]]:
    """Add to a graph the parts of the chunks of an array (..., y, x) that make up a window; return their keys, row by row."""
    before = array.ndim - 2
    rows: list[list[Key]] = []
    for row in parts:
        rows.append([])
        for position, window in row:
            key = (f"{name}-halo", len(graph))
            graph[key] = (getitem, (array.name, *(0,) * before, *position), (*(slice(None),) * before, *window))
            rows[-1].append(key)
    return rows


def boxed(result: object) -> NDArray[np.object_]:
    """Return a result as an array of one object, because dask arrays are made of arrays."""
    box = np.empty(1, np.object_)
    box[0] = result
    return box


def _outline_chunk(
    answers: list[NDArray[np.generic]],
    halo: list[list[NDArray[np.bool_]]],
    *,
    is_there: tuple[bool, bool],
    block: ExtractionBlock,
    rule: ExtractionRule,
) -> NDArray[np.object_]:
    probability, *others = answers
    binary, water = (others.pop(0) if there else None for there in is_there)
    return boxed(polygonize_block((probability, binary, np.block(halo), water), block=block, rule=rule))
