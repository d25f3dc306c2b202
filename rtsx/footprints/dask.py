"""The driver: reads blocks, calls the kernel, merges. The only file of this room that knows dask."""

from collections.abc import Sequence
from typing import Any

import dask.base
import numpy as np
import xarray as xr
from dask.delayed import Delayed, delayed

from rtsx.footprints.kernel import BlockOutlines, outline_block
from rtsx.footprints.merging import merge_blocks
from rtsx.footprints.pieces import Outlines
from rtsx.footprints.plan import Block, BlockPlan, OutlineRule
from rtsx.footprints.prediction import ClassMap

__all__ = ["outline_maps", "plan_blocks"]

BLOCK_SIZE = 4096
"""Side of the blocks, in pixels, in which an array in memory is worked through."""


def plan_blocks(probability: xr.DataArray) -> BlockPlan:
    """Return the blocks of a map: its dask chunks, or squares of `BLOCK_SIZE` where it lies in memory."""
    if probability.chunks is None:
        rows, columns = probability.shape
        return BlockPlan.regular((rows, columns), size=BLOCK_SIZE)
    return BlockPlan(rows=probability.chunks[0], columns=probability.chunks[1])


def outline_maps(maps: Sequence[ClassMap], *, rule: OutlineRule) -> list[Outlines]:
    """Outline the objects of every map.

    All maps are computed in one go on the scheduler that is in force, because maps of several classes come from the
    same run of the network and would otherwise cost one run each. Each chunk is computed once and forgotten; outlines,
    border rows and border columns remain.
    """
    plans = [plan_blocks(one.probability) for one in maps]
    if all(one.probability.chunks is None and one.invalid.chunks is None for one in maps):
        found = [
            [_outline(one, block, rule=rule) for block in plan.blocks] for one, plan in zip(maps, plans, strict=True)
        ]
    else:
        tasks = [
            [_delay(one, block, rule=rule) for block in plan.blocks] for one, plan in zip(maps, plans, strict=True)
        ]
        (found,) = dask.base.compute(tasks)
    return [merge_blocks(blocks, plan, rule=rule) for blocks, plan in zip(found, plans, strict=True)]


def _outline(one: ClassMap, block: Block, *, rule: OutlineRule) -> BlockOutlines:
    probability, binary, invalid = _read(one, block, rule=rule)
    return outline_block(
        (np.asarray(probability), None if binary is None else np.asarray(binary), np.asarray(invalid)),
        block=block,
        rule=rule,
    )


def _delay(one: ClassMap, block: Block, *, rule: OutlineRule) -> Delayed:
    task: Delayed = delayed(outline_block)(_read(one, block, rule=rule), block=block, rule=rule)
    return task


def _read(one: ClassMap, block: Block, *, rule: OutlineRule) -> tuple[Any, Any, Any]:
    """Return probability, binary and invalid of a block: NumPy or lazy, as the prediction is."""
    return (
        one.probability.data[block.window],
        None if one.binary is None else one.binary.data[block.window],
        one.invalid.data[block.halo(rule.edge_distance)],
    )
