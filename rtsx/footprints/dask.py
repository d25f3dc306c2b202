"""The driver: reads blocks, calls the kernel, merges. The only file of this room that knows dask."""

from collections.abc import Sequence
from functools import partial
from operator import getitem
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.typing import DaskCollection, Key
from numpy.typing import NDArray

from rtsx.footprints.kernel import BlockOutlines, outline_block
from rtsx.footprints.merging import merge_blocks
from rtsx.footprints.pieces import Outlines
from rtsx.footprints.plan import Block, BlockPlan, Margins, OutlineRule
from rtsx.footprints.prediction import ClassMap

__all__ = ["outline_maps", "plan_blocks"]

BLOCK_SIZE = 4096
"""Side of the blocks, in pixels, in which an array in memory is worked through."""


def plan_blocks(probability: xr.DataArray, *, margins: Margins) -> BlockPlan:
    """Return the blocks of a map: its dask chunks, or squares of `BLOCK_SIZE` where it lies in memory."""
    if probability.chunks is None:
        rows, columns = probability.shape
        return BlockPlan.regular((rows, columns), size=BLOCK_SIZE, margins=margins)
    return BlockPlan(rows=probability.chunks[0], columns=probability.chunks[1], margins=margins)


def outline_maps(maps: Sequence[ClassMap], *, rule: OutlineRule, margins: Margins) -> list[Outlines]:
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
    merged, start = [], 0
    for plan in plans:
        stop = start + len(plan.blocks)
        merged.append(merge_blocks(found[start:stop], plan, rule=rule))
        start = stop
    return merged


def _arrays(one: ClassMap) -> list[xr.DataArray]:
    return [array for array in (one.probability, one.invalid, one.binary, one.water) if array is not None]


def _outline(one: ClassMap, block: Block, *, rule: OutlineRule) -> BlockOutlines:
    answers = (
        one.probability.values[block.window],
        None if one.binary is None else one.binary.values[block.window],
        one.invalid.values[block.halo(rule.edge_distance)],
        None if one.water is None else one.water.values[block.window],
    )
    return outline_block(answers, block=block, rule=rule)


def _outline_lazy(maps: Sequence[ClassMap], plans: Sequence[BlockPlan], *, rule: OutlineRule) -> list[BlockOutlines]:
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
            halo: list[list[tuple[str, int]]] = []
            for row in plan.parts(block.halo(rule.edge_distance)):
                halo.append([])
                for position, window in row:
                    halo[-1].append((f"{name}-halo", len(graph)))
                    graph[halo[-1][-1]] = (getitem, (invalid.name, *position), window)
            answers = [(array.name, *at) for array in (probability, *others)]
            outline = partial(_outline_chunk, is_there=is_there, block=block, rule=rule)
            graph[name, blocks] = (outline, answers, halo)
            blocks += 1
    layered = HighLevelGraph.from_collections(name, graph, dependencies=dependencies)
    return list(da.Array(layered, name, chunks=((1,) * blocks,), dtype=object).compute())


def _outline_chunk(
    answers: list[NDArray[np.generic]],
    halo: list[list[NDArray[np.bool_]]],
    *,
    is_there: tuple[bool, bool],
    block: Block,
    rule: OutlineRule,
) -> NDArray[np.object_]:
    """Return the outlines as an array of one object, because dask arrays are made of arrays."""
    probability, *others = answers
    binary, water = (others.pop(0) if there else None for there in is_there)
    outlines = np.empty(1, np.object_)
    outlines[0] = outline_block((probability, binary, np.block(halo), water), block=block, rule=rule)
    return outlines
