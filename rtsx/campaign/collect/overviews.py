"""Overviews of the map: the groups ``2x``, ``4x``, ... that `write_cube` makes too, kept up to date shard by shard."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import zarr
from dask.base import compute
from dask.delayed import delayed
from zarr.abc.store import Store

from rtsx.campaign.cell_table import Address
from rtsx.campaign.collect.levels_of_map import array_of, prepare_levels
from rtsx.campaign.collect.overview_plan import OverviewPlan, Shard
from rtsx.campaign.collect.partitions import by_partition, partition_name
from rtsx.campaign.collect.records import Records
from rtsx.campaign.collect.states import CellStates
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.map import ANSWERS, map_store, map_year, open_map
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.plan import CampaignPlan, Region
from rtsx.cube.levels import levels_of
from rtsx.cube.overviews import Reduction, halve, reduction_of
from rtsx.cube.packing import packing
from rtsx.grid.cell import cell_id, parse_cell_id

__all__ = ["collect_overviews"]

_AT_ONCE = 1000
"""Tasks that dask is given at a time, so that its graph does not grow with the map."""
_UNKNOWN = "?"
"""Recorded of a cell whose overviews are being written: no digest, so that they are written again after a stop."""

Rule = tuple[Reduction, float | None]
"""How four pixels of a variable become one, and its stored value of nodata."""


def collect_overviews(
    output: str, plan: CampaignPlan, states: CellStates, *, objects: ObjectStore, options: Mapping[str, Any]
) -> int:
    """Bring the overviews of a year up to date; how many shards were made again, of each variable.

    Every shard is a dask task of its own, on the scheduler that is in force; a level is done before the next is begun.
    Ground of cells without a mark is left out, whatever has been written there. All levels are those that `write_cube`
    makes of the map.
    """
    levels = levels_of(plan.geobox, overviews=True)
    if len(levels) == 1:
        return 0
    store = map_store(output, options)
    group = prepare_levels(store, levels, plan=plan)
    records = Records(objects, f"{YearLayout(plan.year).products}/collected/overviews")
    now = {cell: state.map for cell, state in states.items() if state.map}
    changed = _changes(records, now)
    overviews = OverviewPlan(shape=plan.shape, side=plan.shard, count=len(levels) - 1)
    touched = overviews.touched(plan.region(cell) for cell in sorted(changed))
    variables = open_map(output, storage_options=options)
    rules: dict[str, Rule] = {
        name: (reduction_of(variables[name]), packing(variables[name])["nodata"]) for name in ANSWERS
    }
    time = map_year(group, plan.year)
    for number, ((above, _), (name, _)) in enumerate(pairwise(levels), start=1):
        step = _Step(store=store, above=above, level=name, time=time, rules=rules)
        _run(step, _jobs(overviews, number, touched[number - 1], plan=plan, mapped=now))
    _write(records, now, changed)
    return sum(map(len, touched))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """From one level to the next; a value that pickles."""

    store: Store
    above: str
    level: str
    time: int
    rules: Mapping[str, Rule]

    def __call__(self, source: Region, target: Region, blank: Sequence[Region]) -> None:
        """Make one shard of every variable: `source` and `target` in pixels of their levels, `blank` in those of `source`."""
        group = zarr.open_group(self.store, mode="r+", use_consolidated=False)
        for name, (reduction, nodata) in self.rules.items():
            finer = array_of(group, name, level=self.above)
            block = np.array(finer[(self.time, ..., *source)])
            for window in blank:
                block[(..., *window)] = finer.fill_value
            coarser = array_of(group, name, level=self.level)
            # A shard of nothing but nodata is not stored, and removed where there was one.
            coarser[(self.time, ..., *target)] = halve(block, reduction=reduction, nodata=nodata)


Job = tuple[Region, Region, tuple[Region, ...]]


def _jobs(
    overviews: OverviewPlan, level: int, shards: Sequence[Shard], *, plan: CampaignPlan, mapped: Mapping[Address, str]
) -> Iterator[Job]:
    for shard in shards:
        source = overviews.source(level, shard)
        # Below the first level there is nothing left of cells without a mark.
        blank = _blank(source, plan=plan, mapped=mapped) if level == 1 else ()
        yield source, overviews.target(level, shard), blank


def _blank(source: Region, *, plan: CampaignPlan, mapped: Mapping[Address, str]) -> tuple[Region, ...]:
    """Parts of a region that no finished cell has written, counted from its corner."""
    side, found = plan.grid.cell_size, []
    rows, columns = (range(part.start // side, -(-part.stop // side)) for part in source)
    for i in rows:
        for j in columns:
            if (plan.rows[0] + i, plan.columns[0] + j) not in mapped:
                y, x = (
                    slice(max(index * side - part.start, 0), min((index + 1) * side, part.stop) - part.start)
                    for index, part in zip((i, j), source, strict=True)
                )
                found.append((y, x))
    return tuple(found)


def _run(step: _Step, jobs: Iterator[Job]) -> None:
    make = delayed(step, pure=False, traverse=False)
    while batch := list(islice(jobs, _AT_ONCE)):
        compute([make(*job) for job in batch], optimize_graph=False)


def _changes(records: Records, now: Mapping[Address, str]) -> set[Address]:
    """Cells whose pixels are not those that the overviews were made of; written down as unknown before any is touched."""
    before: dict[Address, str] = {}
    for record in records.read().values():
        before |= {parse_cell_id(name): digest for name, digest in record["cells"].items()}
    changed = {cell for cell in before.keys() | now.keys() if before.get(cell) != now.get(cell)}
    doubtful = {cell: _UNKNOWN if cell in changed else digest for cell, digest in (before | dict(now)).items()}
    _write(records, doubtful, changed)
    return changed


def _write(records: Records, digests: Mapping[Address, str], changed: set[Address]) -> None:
    """Write down the partitions that changed cells are in."""
    parts = by_partition(digests)
    for partition in by_partition(changed):
        cells = {cell_id(*cell): digests[cell] for cell in parts.get(partition, ())}
        if cells:
            records.put(partition_name(partition), {"cells": cells})
        else:
            records.take_back(partition_name(partition))
