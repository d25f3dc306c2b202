"""The STAC catalog of an output: a collection per year, a catalog per partition, an item per cell that has a map."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rtsx.campaign.cell_table import Address
from rtsx.campaign.collect.partitions import by_partition, partition_name
from rtsx.campaign.collect.records import Record, Records
from rtsx.campaign.collect.stac_documents import (
    bounding_box,
    branch_document,
    collection_document,
    item_document,
    root_document,
)
from rtsx.campaign.collect.states import CellStates, digest_of
from rtsx.campaign.collect.threads import in_threads
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.plan import CampaignPlan
from rtsx.grid.cell import cell_id

__all__ = ["CATALOG", "CollectedStac", "collect_stac", "collection_key"]

CATALOG = "catalog.json"
"""The catalog of all years, in the root of the output."""


def collection_key(layout: YearLayout) -> str:
    """Key of the collection of a year."""
    return f"{layout.products}/stac/collection.json"


_UNKNOWN = "?"
"""Recorded of an item that is being written: no digest, so that it is written again after a stop."""


@dataclass(frozen=True, kw_only=True)
class CollectedStac:
    """What became of the documents of a year."""

    n_items: int
    """Items there are."""
    rewritten: tuple[str, ...]
    """Keys that were written."""
    removed: tuple[str, ...]
    """Keys that were removed."""


def collect_stac(
    objects: ObjectStore, plan: CampaignPlan, states: CellStates, *, assets: Mapping[str, Any], years: list[int]
) -> CollectedStac:
    """Bring the STAC documents up to date: items of cells whose mark changed, and what lists them.

    Parameters
    ----------
    objects
        The objects of the output.
    plan
        Of the year.
    states
        Finished cells; those without any image have no item.
    assets
        Of the collection, as STAC has them.
    years
        Years that the map has; those with a collection are listed in the catalog.
    """
    writer = _Writer(objects=objects, plan=plan, states=states)
    before = writer.records.read()
    parts = {partition_name(partition): cells for partition, cells in by_partition(writer.mapped).items()}
    done = in_threads(lambda name: writer.refresh(name, parts[name], before.get(name)), sorted(parts))
    boxes = [record["bbox"] for record, _ in done]
    keys = [key for _, written in done for key in written]
    keys += writer.write_collection(sorted(parts), boxes, assets=assets)
    keys += writer.write_catalog(years)
    # After nothing leads there any more, and whatever a call that was stopped has left.
    removed = writer.remove_all_but(parts, set(before) - set(parts))
    return CollectedStac(n_items=len(writer.mapped), rewritten=tuple(sorted(keys)), removed=removed)


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Writes the documents of one year."""

    objects: ObjectStore
    plan: CampaignPlan
    states: CellStates

    @cached_property
    def mapped(self) -> list[Address]:
        """Cells that have an item."""
        return [cell for cell, state in self.states.items() if not state.is_empty]

    @cached_property
    def layout(self) -> YearLayout:
        """Keys of the year."""
        return YearLayout(self.plan.year)

    @cached_property
    def records(self) -> Records:
        """From which marks the items of a partition were made."""
        return Records(self.objects, f"{self.layout.products}/collected/stac")

    @cached_property
    def there(self) -> frozenset[str]:
        """Keys of the documents that were there before."""
        return frozenset(found.key for found in self.objects.list(f"{self.layout.products}/stac"))

    def refresh(self, name: str, cells: list[Address], before: Record | None) -> tuple[Record, list[str]]:
        """Bring a partition up to date; its record, and the keys that were written."""
        marks = {
            cell_id(*cell): digest_of([self.plan.digest, self.plan.name, self.states[cell].mark]) for cell in cells
        }
        recorded = {} if before is None else before["marks"]
        old = {cell: mark for cell, mark in recorded.items() if self._item(name, cell) in self.there}
        if before is not None and old == marks and self._branch(name) in self.there:
            return before, []
        changed = [cell for cell in cells if old.get(cell_id(*cell)) != marks[cell_id(*cell)]]
        box = list(bounding_box([self.plan.grid[cell].lonlat for cell in cells]))
        # Unknown until they are written.
        self.records.put(name, {"marks": old | {cell_id(*cell): _UNKNOWN for cell in changed}, "bbox": box})
        written = []
        for cell in changed:
            key = self._item(name, cell_id(*cell))
            written.append(self._put(key, item_document(self.plan, cell, self.states[cell], key=key)))
        west, south, east, north = box
        key = self._branch(name)
        written += self._put_if_new(
            key, branch_document(self.plan, name, cells, key=key, box=(west, south, east, north))
        )
        record: Record = {"marks": marks, "bbox": box}
        self.records.put(name, record)
        return record, written

    def remove_all_but(self, parts: Mapping[str, Sequence[Address]], gone: Iterable[str]) -> tuple[str, ...]:
        """Remove documents of other cells than these, and records of partitions that are gone; keys of the documents, sorted."""
        kept = {collection_key(self.layout), *(self._branch(name) for name in parts)}
        kept |= {self._item(name, cell_id(*cell)) for name, cells in parts.items() for cell in cells}
        removed = tuple(sorted(self.there - kept))
        for name in gone:
            self.records.take_back(name)
        for key in removed:
            self.objects.delete(key)
        return removed

    def write_collection(
        self, names: list[str], boxes: Sequence[Sequence[float]], *, assets: Mapping[str, Any]
    ) -> list[str]:
        """Write the collection if it differs; the keys that were written."""
        edges = list(zip(*boxes, strict=True)) or [(-180.0,), (-90.0,), (180.0,), (90.0,)]
        box = (min(edges[0]), min(edges[1]), max(edges[2]), max(edges[3]))
        key = collection_key(self.layout)
        return self._put_if_new(key, collection_document(self.plan, names, assets, key=key, box=box))

    def write_catalog(self, years: list[int]) -> list[str]:
        """Write the catalog of all years if it differs; the keys that were written."""
        keys = {year: collection_key(YearLayout(year)) for year in years}
        there = {year: key for year, key in keys.items() if self.objects.get(key) is not None}
        return self._put_if_new(CATALOG, root_document(self.plan.name, there))

    def _put_if_new(self, key: str, document: Mapping[str, Any]) -> list[str]:
        return [] if self.objects.get(key) == _content(document) else [self._put(key, document)]

    def _put(self, key: str, document: Mapping[str, Any]) -> str:
        self.objects.put(key, _content(document))
        return key

    def _item(self, name: str, cell: str) -> str:
        return f"{self.layout.products}/stac/{name}/{cell}.json"

    def _branch(self, name: str) -> str:
        return f"{self.layout.products}/stac/{name}/catalog.json"


def _content(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()
