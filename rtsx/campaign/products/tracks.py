"""Tracks of a year and of all earlier ones that were collected, partition by partition.

Only outlines that meet are linked, so all that says something about a track hangs together with it. A partition is made of
its own outlines of all years, and of those in other partitions that meet one of these, directly or by way of others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.products.footprints import FOOTPRINTS
from rtsx.campaign.products.tables import PartTable, Record, Refreshed
from rtsx.footprints import track_footprints
from rtsx.storage.object_store import ObjectStore

TRACKS = "tracks"
"""Folder of the tracks below the products of a year."""

YearRecords = Mapping[int, Mapping[str, Record]]
"""Records of the footprints of each year by the names of partitions."""
PartitionKey = tuple[int, str]
"""Year and name of a partition of footprints."""
Bounds = tuple[float, float, float, float]
Geometries = NDArray[np.object_]

_KEPT = 32
"""Tables of partitions that stay in memory, because each is read for itself and for every neighbour."""


def collected_years(objects: ObjectStore, years: Iterable[int]) -> dict[int, dict[str, Record]]:
    """Records of the footprints of those years that were collected, by rising year."""
    found = {year: PartTable.of(objects, YearLayout(year), FOOTPRINTS).records.read() for year in sorted(years)}
    return {year: records for year, records in found.items() if records}


def collect_tracks(objects: ObjectStore, records: YearRecords, *, layout: YearLayout) -> Refreshed:
    """Bring the tracks up to the last of these years up to date, each row in the partition of its footprint.

    Together they are what `track_footprints` makes of the footprints of all these years.
    """

    @lru_cache(_KEPT)
    def read(part: PartitionKey) -> geopandas.GeoDataFrame:
        year, name = part
        return PartTable.of(objects, YearLayout(year), FOOTPRINTS).read(name)

    parts = _Parts(read=read, records=records)
    wanted = sorted({name for of_year in records.values() for name in of_year})
    return PartTable.of(objects, layout, TRACKS).refresh(wanted, is_current=parts.is_current, make=parts.make)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What the tracks of each partition are made of."""

    read: Callable[[PartitionKey], geopandas.GeoDataFrame]
    """Footprints of a partition of a year; they are shared, and must not be changed."""
    records: YearRecords

    def is_current(self, name: str, record: Record) -> bool:
        """Test whether all footprints near the outlines are still those that the tracks were made of."""
        parts = self._digests(name, record["reach"])
        return bool(record["years"] == list(self.records) and record["parts"] == parts)

    def make(self, name: str) -> tuple[geopandas.GeoDataFrame, Record]:
        """Rows of tracks whose footprint is in the partition."""
        own = {year: self.read((year, name)) for year, of_year in self.records.items() if name in of_year}
        taken = self._gathered(name, own)
        yearly = {}
        for year in self.records:
            tables = [own[year]] if year in own else []
            tables += [table for (of, _), table in taken.items() if of == year]
            rows = [table for table in tables if len(table)] or [next(iter(own.values())).iloc[:0]]
            yearly[year] = pd.concat(rows, ignore_index=True).assign(year=year)
        tracks = track_footprints(yearly)
        tracks.attrs.clear()  # they would be written into the file of every partition
        names = pd.MultiIndex.from_frame(tracks[["year", "footprint_id"]])
        is_own = names.isin([(year, footprint) for year, table in own.items() for footprint in table["footprint_id"]])
        reach = _reach([*own.values(), *taken.values()])
        record = {"years": list(self.records), "reach": reach, "parts": self._digests(name, reach)}
        return tracks[is_own].reset_index(drop=True), record

    def _gathered(
        self, name: str, own: Mapping[int, geopandas.GeoDataFrame]
    ) -> dict[PartitionKey, geopandas.GeoDataFrame]:
        """Outlines of other partitions that hang together with those of this one."""
        others: dict[PartitionKey, geopandas.GeoDataFrame] = {}
        taken: dict[PartitionKey, NDArray[np.bool_]] = {}
        going_on = [_outlines(table) for table in own.values()]
        while going_on:
            rows = going_on.pop()
            for part in self._near(rows):
                if part[1] == name:
                    continue
                if part not in others:
                    others[part] = self.read(part)
                    taken[part] = np.zeros(len(others[part]), bool)
                candidates = _outlines(others[part])
                fresh = np.zeros(len(candidates), bool)
                fresh[shapely.STRtree(candidates).query(rows, predicate="intersects")[1]] = True
                fresh &= ~taken[part]
                if fresh.any():
                    taken[part] |= fresh
                    going_on.append(candidates[fresh])
        return {part: table[taken[part]] for part, table in others.items() if taken[part].any()}

    def _near(self, rows: Geometries) -> list[PartitionKey]:
        """Partitions of all years whose outlines' box meets that of one of the rows."""
        if not len(rows):
            return []
        left, bottom, right, top = shapely.bounds(rows).T
        found = []
        for part, bounds in self._bounds():
            west, south, east, north = bounds
            if ((left <= east) & (right >= west) & (bottom <= north) & (top >= south)).any():
                found.append(part)
        return found

    def _digests(self, name: str, reach: Sequence[float] | None) -> dict[str, str]:
        """Digests of the partition and of all that its outlines could hang together with, by year and name."""
        parts = {(year, name) for year, of_year in self.records.items() if name in of_year}
        if reach is not None:
            parts |= set(self._near(np.array([shapely.box(*reach)], np.object_)))
        return {f"{year}/{of}": self.records[year][of]["sha256"] for year, of in sorted(parts)}

    def _bounds(self) -> list[tuple[PartitionKey, Bounds]]:
        return [
            ((year, name), tuple(record["bounds"]))
            for year, of_year in self.records.items()
            for name, record in of_year.items()
            if record["bounds"] is not None
        ]


def _outlines(table: geopandas.GeoDataFrame) -> Geometries:
    return np.asarray(table.geometry.array, np.object_)


def _reach(tables: Iterable[geopandas.GeoDataFrame]) -> list[float] | None:
    """Box around all rows; None where there are none."""
    outlines = np.concatenate([_outlines(table) for table in tables])
    return [float(edge) for edge in shapely.total_bounds(outlines)] if len(outlines) else None
