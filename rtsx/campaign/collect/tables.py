"""A table in one file per partition: which of them are made again, and which are left as they are."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256

import geopandas
import numpy as np

from rtsx.campaign.collect.geoparquet import parquet_bytes, read_outlines
from rtsx.campaign.collect.records import Record, Records
from rtsx.campaign.collect.threads import in_threads
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.objects import ObjectStore
from rtsx.errors import CampaignError

__all__ = ["PartTable", "Refreshed"]

IsCurrent = Callable[[str, Record], bool]
"""Whether a partition is still made of what its record says."""
Make = Callable[[str], tuple[geopandas.GeoDataFrame, Record]]
"""The rows of a partition, and what its record says they are made of; called from several threads."""


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What became of a table."""

    records: dict[str, Record]
    """Record of each partition by its name, sorted."""
    rewritten: tuple[str, ...]
    """Keys of the files that were written, sorted."""
    removed: tuple[str, ...]
    """Keys of the files that were removed, sorted."""

    @property
    def rows(self) -> int:
        """Rows of all partitions."""
        return sum(record["rows"] for record in self.records.values())

    @property
    def digest(self) -> dict[str, str]:
        """SHA-256 of each file by the name of its partition."""
        return {name: record["sha256"] for name, record in self.records.items()}


@dataclass(frozen=True, kw_only=True)
class PartTable:
    """A GeoParquet dataset: a folder with a file for each partition."""

    objects: ObjectStore
    """The objects of the output."""
    folder: str
    """Key of the folder."""
    records: Records
    """From what the files were made."""

    @classmethod
    def of(cls, objects: ObjectStore, layout: YearLayout, name: str) -> "PartTable":
        """The table of that name among the products of a year."""
        records = Records(objects, f"{layout.products}/collected/{name}")
        return cls(objects=objects, folder=f"{layout.products}/{name}", records=records)

    def key(self, name: str) -> str:
        """Key of the file of a partition."""
        return f"{self.folder}/{name}.parquet"

    def read(self, name: str) -> geopandas.GeoDataFrame:
        """Rows of a partition.

        Raises
        ------
        CampaignError
            The file is missing or damaged.
        """
        content = self.objects.get(self.key(name))
        if content is None:
            raise CampaignError(f"{self.key(name)} is missing, though it was collected. Collect again.")
        return read_outlines(content, name=self.key(name))

    def walk(self, names: Collection[str]) -> Iterator[geopandas.GeoDataFrame]:
        """Rows of partitions, one after the other."""
        return (self.read(name) for name in sorted(names))

    def refresh(self, wanted: Collection[str], *, is_current: IsCurrent, make: Make) -> Refreshed:
        """Make what is not current, write what differs, and remove what is not wanted.

        A file is written whole, so that a reader sees the old or the new one; its record is taken back before.
        """
        before = self.records.read()
        files = {found.key for found in self.objects.list(self.folder)}
        removed = sorted(files - {self.key(name) for name in wanted})
        for name in set(before) - set(wanted):
            self.records.take_back(name)
        for key in removed:
            self.objects.delete(key)

        def refreshed(name: str) -> tuple[Record, bool]:
            record = before.get(name) if self.key(name) in files else None
            if record is not None and is_current(name, record):
                return record, False
            return self._made(name, make=make, before=record)

        names = sorted(wanted)
        results = in_threads(refreshed, names)
        return Refreshed(
            records={name: record for name, (record, _) in zip(names, results, strict=True)},
            rewritten=tuple(self.key(name) for name, (_, is_new) in zip(names, results, strict=True) if is_new),
            removed=tuple(removed),
        )

    def remove(self) -> tuple[str, ...]:
        """Remove all files and records; their keys."""
        return self.refresh((), is_current=lambda name, record: True, make=_nothing).removed

    def _made(self, name: str, *, make: Make, before: Record | None) -> tuple[Record, bool]:
        """The new record of a partition, and whether its file had to be written."""
        table, sources = make(name)
        content = parquet_bytes(table)
        record = {**sources, "sha256": sha256(content).hexdigest(), "rows": len(table), "bounds": _bounds(table)}
        is_new = before is None or before["sha256"] != record["sha256"]
        if is_new:
            self.records.take_back(name)
            self.objects.put(self.key(name), content)
        self.records.put(name, record)
        return record, is_new


def _bounds(table: geopandas.GeoDataFrame) -> list[float] | None:
    """(xmin, ymin, xmax, ymax) of all rows in the CRS of the grid; None for no rows."""
    return [float(edge) for edge in np.asarray(table.total_bounds)] if len(table) else None


def _nothing(name: str) -> tuple[geopandas.GeoDataFrame, Record]:
    raise AssertionError(f"nothing is wanted, but {name} was")
