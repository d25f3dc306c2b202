"""Footprints of all finished cells, merged across their borders, partition by partition."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import geopandas
import numpy as np

from rtsx.campaign.cell_table import Address
from rtsx.campaign.collect.edges import cells_around, with_edges
from rtsx.campaign.collect.gathering import CellRows, gather
from rtsx.campaign.collect.geoparquet import joined_outlines
from rtsx.campaign.collect.partitions import by_partition, partition_name, partition_named, partition_of
from rtsx.campaign.collect.records import Record
from rtsx.campaign.collect.states import CellStates, digest_of
from rtsx.campaign.collect.tables import PartTable, Refreshed
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.outline_spec import OutlineSpec
from rtsx.campaign.plan import CampaignPlan
from rtsx.errors import CampaignError
from rtsx.footprints import merge_footprints
from rtsx.grid.cell import cell_id, parse_cell_id

__all__ = ["FOOTPRINTS", "collect_footprints"]

FOOTPRINTS = "footprints"
"""Folder of the footprints below the products of a year."""


def collect_footprints(
    objects: ObjectStore, plan: CampaignPlan, states: CellStates, *, spec: OutlineSpec
) -> tuple[PartTable, Refreshed]:
    """Bring the footprints up to date: those partitions are made again whose cells, or neighbours they reach into, changed.

    Together they are what `extract_footprints` finds on the whole map, on which cells that are not finished are invalid;
    an object is in the partition of its first pixel.

    Raises
    ------
    CampaignError
        The outlines of a cell are missing, damaged, or not those that its mark names.
    """
    table = PartTable.of(objects, YearLayout(plan.year), FOOTPRINTS)
    parts = _Parts(objects=objects, plan=plan, states=states, spec=spec)
    wanted = [partition_name(partition) for partition in parts.cells]
    return table, table.refresh(wanted, is_current=parts.is_current, make=parts.make)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What the footprints of each partition are made of."""

    objects: ObjectStore
    plan: CampaignPlan
    states: CellStates
    spec: OutlineSpec

    @cached_property
    def cells(self) -> dict[Address, list[Address]]:
        """Finished cells of each partition that has one."""
        return by_partition(self.states)

    def is_current(self, name: str, record: Record) -> bool:
        """Whether nothing that the partition was made of has changed."""
        visited = [parse_cell_id(cell) for cell in record["visited"]]
        return bool(record["cells"] == self._digest([*self.cells[partition_named(name)], *visited]))

    def make(self, name: str) -> tuple[geopandas.GeoDataFrame, Record]:
        """Footprints whose first pixel lies in the partition."""
        partition = partition_named(name)
        found = gather(self.cells[partition], self._read, grid=self.plan.grid)
        cells = [*self.cells[partition], *found.visited]
        record: Record = {"cells": self._digest(cells), "visited": [cell_id(*cell) for cell in found.visited]}
        merged = merge_footprints([found.rows.table], min_area_m2=self.spec.min_area_m2)
        owner = dict(zip(found.rows.table["footprint_id"], map(tuple, found.rows.cells.tolist()), strict=True))
        is_own = np.array([partition_of(owner[name]) == partition for name in merged["footprint_id"]], bool)
        footprints = with_edges(
            merged[is_own].reset_index(drop=True),
            self._missing(cells),
            grid=self.plan.grid,
            edge_distance=self.spec.edge_distance,
        )
        return footprints, record

    def _digest(self, cells: Iterable[Address]) -> str:
        """What changes the footprints made of these cells: their outlines, and which cells around them are missing."""
        of = sorted(cells)
        known = {cell: self.states.get(cell) for cell in of}
        outlines = [(cell, None if state is None else state.outlines) for cell, state in known.items()]
        return digest_of([self.plan.digest, outlines, sorted(self._missing(of))])

    def _missing(self, cells: Iterable[Address]) -> set[Address]:
        """Planned cells beside these that are not finished. Those that are not planned were flagged when cells ran."""
        given = list(cells)
        reach = -(-self.spec.edge_distance // self.plan.grid.cell_size)
        near = cells_around(given, reach=reach) | set(given)
        return {cell for cell in near if cell not in self.states and cell in self.plan.cells}

    def _read(self, cells: Sequence[Address]) -> CellRows:
        there = [cell for cell in cells if cell in self.states and self.states[cell].outlines]
        contents = {YearLayout(self.plan.year).outline(cell): self._content(cell) for cell in there}
        table, numbers = joined_outlines(contents, crs=self.plan.grid.crs)
        return CellRows(table=table, cells=np.array(there, np.int64).reshape(-1, 2)[numbers])

    def _content(self, cell: Address) -> bytes:
        key = YearLayout(self.plan.year).outline(cell)
        content = self.objects.get(key)
        if content is None or sha256(content).hexdigest() != self.states[cell].outlines:
            is_missing = "is missing" if content is None else "has changed"
            raise CampaignError(
                f"{key} {is_missing} since cell {cell_id(*cell)} was committed. If the cell is being run again, collect "
                "when it is done; else rtsx campaign verify names all that is damaged."
            )
        return content
