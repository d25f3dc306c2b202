"""Footprints of all finished cells, merged across their borders, at levels 1 and 2, and tracks over years, partition by partition.

Only what is cut at the border of a cell can go on in the next one, and objects are small beside cells; so the walk ends
after a few neighbours, and memory holds one partition, whatever the number of cells.

Level 1, one set per image, are the footprints themselves: the one image that a campaign outlines is the map of its year.

Only outlines that meet are linked, so all that says something about a track hangs together with it. A partition of tracks is
made of its own outlines of all years, and of those in other partitions that meet one of these, directly or by way of others.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import geopandas
import numpy as np
import pandas as pd
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.tables import (
    CellStates,
    PartTable,
    Record,
    Refreshed,
    digest_of,
    empty_outlines,
    group_by_partition,
    joined_outlines,
    partition_of,
    sha256_of,
)
from rtsx.campaign.recipe import OutlineSpec
from rtsx.errors import CampaignError
from rtsx.footprints import ConfidenceRule, clean_footprints, level2_footprints, merge_footprints, track_footprints
from rtsx.footprints.blocks import padded_boxes
from rtsx.footprints.clean import WATER_PART, overlap_fraction
from rtsx.footprints.geometry import to_pixel_coordinates
from rtsx.footprints.merge import counted_nodata
from rtsx.grid import Grid
from rtsx.grid.grid import cell_id, parse_cell_id
from rtsx.labels.io import read_table
from rtsx.storage.object_store import ObjectStore

Geometries = NDArray[np.object_]


ReadCells = Callable[[Sequence[Address]], geopandas.GeoDataFrame]
"""Outlines of cells, with `cut`, `prob_counts`, and `iy` and `ix` of the cell that each was found in; none of those that are not finished."""


def collect_tables(
    cells: Sequence[Address], read: ReadCells, *, grid: Grid
) -> tuple[geopandas.GeoDataFrame, tuple[Address, ...]]:
    """Walk from some cells to all that their objects reach into.

    Parameters
    ----------
    cells
        Where to begin.
    read
        Reads cells; asked once for each.
    grid
        Whose cells they are.

    Returns
    -------
    rows
        Of those cells all outlines, of others those that hang together with them: every object that has an outline in one of
        those cells is complete.
    visited
        Other cells that were looked at, sorted; they may turn out to have nothing.
    """
    inside = set(cells)
    own = read(sorted(inside))
    visited: set[Address] = set()
    parts, front = [own], _cut(own)
    waiting: list[geopandas.GeoDataFrame] = []  # of visited cells, what is cut and belongs to no object so far
    while len(front):
        fresh = sorted(_reached(front, grid=grid) - inside - visited)
        if fresh:
            visited.update(fresh)
            waiting.append(_cut(read(fresh)))
        if not waiting:
            break
        candidates = _joined(waiting)
        meets = np.zeros(len(candidates), bool)
        # Half a pixel is between touching and being apart.
        tree = shapely.STRtree(_outlines(candidates))
        meets[tree.query(_outlines(front), predicate="dwithin", distance=grid.resolution / 2)[1]] = True
        front, waiting = candidates[meets], [candidates[~meets]]
        parts.append(front)
    return _joined(parts), tuple(sorted(visited))


def _cut(rows: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return rows that may go on in a neighbouring cell."""
    return rows[rows["cut"].to_numpy(bool)]


def _reached(rows: geopandas.GeoDataFrame, *, grid: Grid) -> set[Address]:
    """List the cells that the rows come near to, by their boxes: some more may be among them."""
    left, bottom, right, top = shapely.bounds(_outlines(rows)).T
    near, side = grid.resolution / 2, grid.cell_size * grid.resolution
    x, y = grid.origin
    # An outline lies within a cell, so that its widened box ends in it or in the next one.
    across = np.stack([top + near, bottom - near])
    along = np.stack([left - near, right + near])
    rows_of = np.vstack([np.floor((y - across) / side).astype(np.int64), rows["iy"]])
    columns_of = np.vstack([np.floor((along - x) / side).astype(np.int64), rows["ix"]])
    corners = np.stack(np.broadcast_arrays(rows_of[:, None], columns_of[None]), axis=-1).reshape(-1, 2)
    return {(int(iy), int(ix)) for iy, ix in np.unique(corners, axis=0)}


def _joined(parts: Sequence[geopandas.GeoDataFrame]) -> geopandas.GeoDataFrame:
    """Concatenate all rows; without the empty tables, because their dtypes say nothing about the columns."""
    some = [part for part in parts if len(part)] or list(parts[:1])
    return some[0] if len(some) == 1 else pd.concat(some, ignore_index=True)


def neighbour_cells(cells: Iterable[Address], *, reach: int) -> set[Address]:
    """List the cells that lie at most `reach` rows and columns from one of those given, and are none of them.

    Examples
    --------
    >>> len(neighbour_cells([(0, 0), (0, 1)], reach=1))
    10
    """
    given = set(cells)
    steps = range(-reach, reach + 1)
    return {(iy + dy, ix + dx) for iy, ix in given for dy in steps for dx in steps} - given


def seam_outlines(
    footprints: geopandas.GeoDataFrame, missing: Collection[Address], *, grid: Grid, edge_distance: int
) -> geopandas.GeoDataFrame:
    """Flag outlines near missing cells, as `extract_footprints` does on a map on which these cells are invalid.

    Parameters
    ----------
    footprints
        Outlines along pixel borders, in the grid's CRS.
    missing
        Cells without an answer.
    grid
        Whose cells they are.
    edge_distance
        Pixels, in king's moves, within which they are flagged; 0 flags nothing.
    """
    if not missing or not edge_distance or not len(footprints):
        return footprints
    # Half a pixel less, because outlines run along pixel borders: a pixel just inside is then met, and one just outside is
    # half a pixel away, whatever the last bits of the coordinates.
    widen = (edge_distance - 0.5) * grid.resolution
    bounds = np.array([grid[cell].bounds for cell in sorted(missing)])
    boxes = shapely.box(*(bounds + np.array([-widen, -widen, widen, widen])).T)
    tree = shapely.STRtree(np.asarray(footprints.geometry.array, np.object_))
    _, near = tree.query(boxes, predicate="intersects")
    flags = footprints["touches_edge"].to_numpy(bool).copy()
    flags[near] = True
    return footprints.assign(touches_edge=flags)


ReadValid = Callable[[slice, slice], NDArray[np.bool_]]
"""Reads `valid` (y, x) of rows and columns of the map of the year; asked only where outlines have `nodata_fraction`."""

FOOTPRINTS = "footprints"
"""Folder of the footprints below the products of a year."""


def stored_footprints(objects: ObjectStore, plan: CampaignPlan) -> geopandas.GeoDataFrame:
    """Return footprints of a year as they are stored: those that were collected, else those of its cells."""
    layout = YearLayout(plan.year)
    for folder in (f"{layout.products}/{FOOTPRINTS}", layout.outlines):
        found = {one.key: objects.get(one.key) for one in objects.list(folder) if one.key.endswith(".parquet")}
        contents = {key: content for key, content in sorted(found.items()) if content is not None}
        if contents:
            break
    return joined_outlines(contents, crs=str(plan.geobox.crs))[0]


def water_polygons(path: str) -> geopandas.GeoSeries:
    """Read polygons of water.

    Raises
    ------
    CampaignError
        They have no CRS, there are none, or other geometries are among them.
    LabelError, InputNotFoundError
        The file cannot be read, or is not there.
    """
    table = read_table(path, what="polygons of water")
    if table.crs is None:
        raise CampaignError(
            f"Polygons of water have a CRS, but {path} says none. Write it with one, as ogr2ogr -a_srs does."
        )
    kinds = sorted(set(table.geometry.geom_type.dropna()))
    if not kinds or set(kinds) - {"Polygon", "MultiPolygon"}:
        raise CampaignError(
            f"Water of outlines is a file of polygons, but {path} has {', '.join(kinds) or 'no geometry'}. Write one of polygons alone."
        )
    return table.geometry


def flagged(rows: geopandas.GeoDataFrame, *, spec: OutlineSpec) -> geopandas.GeoDataFrame:
    """Flag footprints with `water_fraction`, as `clean_footprints` does."""
    return clean_footprints(
        rows,
        min_area_m2=spec.least_area_m2,
        max_water=WATER_PART if spec.max_water is None else spec.max_water,
    )


@dataclass(frozen=True, kw_only=True)
class YearFootprints:
    """Footprints of a year, and what those of each partition are made of.

    Together they are what `extract_footprints` finds on the whole map, on which cells that are not finished are invalid;
    an object is in the partition of its first pixel.
    """

    objects: ObjectStore
    """The objects of the output."""
    plan: CampaignPlan
    """Of the year."""
    states: CellStates
    """Finished cells."""
    rule: ConfidenceRule | None
    """Gives them a class of confidence; None for none."""
    water: geopandas.GeoSeries | None = None
    """Polygons by which they are flagged; None for no such flags, or where nothing is made."""
    valid: ReadValid | None = None
    """Reads the map; None where nothing is made."""

    @property
    def spec(self) -> OutlineSpec:
        """How objects were outlined."""
        assert self.plan.outlines is not None  # or there would be none
        return self.plan.outlines

    @cached_property
    def _water_digest(self) -> str | None:
        """Digest of what flags by water depend on."""
        if self.water is None:
            return None
        polygons = b"".join(one or b"" for one in shapely.to_wkb(np.asarray(self.water.array, np.object_)))
        return digest_of([sha256_of(polygons), self.water.crs.to_wkt(), self.spec.max_water])

    @cached_property
    def table(self) -> PartTable:
        """Where they are collected."""
        return PartTable.of(self.objects, YearLayout(self.plan.year), FOOTPRINTS)

    def collect(self) -> Refreshed:
        """Bring the table up to date: those partitions are made again whose cells, or neighbours they reach into, changed.

        Raises
        ------
        CampaignError
            The outlines of a cell are missing, damaged, or not those that its mark names.
        """
        return self.table.refresh(self.cells, is_current=self.is_current, make=self.make)

    @property
    def are_collected(self) -> bool:
        """Whether the table is that of the cells that are finished now."""
        records = self.table.records.read()
        return records.keys() == self.cells.keys() and all(
            self.is_current(name, record) for name, record in records.items()
        )

    @cached_property
    def cells(self) -> dict[str, list[Address]]:
        """Finished cells of each partition that has one."""
        return group_by_partition(self.states)

    def is_current(self, name: str, record: Record) -> bool:
        """Test whether nothing that the partition was made of has changed."""
        visited = [parse_cell_id(cell) for cell in record["visited"]]
        if record["cells"] != self._digest([*self.cells[name], *visited]):
            return False
        # Who only reads what was collected may lack the file.
        return self.valid is None or bool(record.get("water") == self._water_digest)

    def make(self, name: str) -> tuple[geopandas.GeoDataFrame, Record]:
        """Return footprints whose first pixel lies in the partition."""
        own = self.cells[name]
        rows, reached = collect_tables(own, self._read, grid=self.plan.grid)
        owner = dict(zip(rows["footprint_id"], zip(rows.pop("iy"), rows.pop("ix"), strict=True), strict=True))
        merged = merge_footprints([rows], min_area_m2=self.spec.least_area_m2)
        is_own = np.array([partition_of(owner[one]) == name for one in merged["footprint_id"]], bool)
        footprints = seam_outlines(
            merged[is_own].reset_index(drop=True),
            self._missing([*own, *reached]),
            grid=self.plan.grid,
            edge_distance=self.spec.edge_distance,
        )
        visited = set(reached)
        if self.spec.nodata_fraction:
            footprints, under = self._with_nodata(footprints)
            visited |= under - set(own)
        if self.water is not None:
            footprints = self._with_water(footprints, self.water)
        if self.rule is not None:
            footprints = self.rule.apply(footprints)
        record: Record = {
            "cells": self._digest([*own, *visited]),
            "visited": [cell_id(*cell) for cell in sorted(visited)],
        }
        if self._water_digest is not None:
            record["water"] = self._water_digest
        return footprints, record

    def _with_water(self, rows: geopandas.GeoDataFrame, water: geopandas.GeoSeries) -> geopandas.GeoDataFrame:
        """Measure the part of outlines in water, and flag them."""
        outlines = np.asarray(rows.geometry.array, np.object_)
        fraction = overlap_fraction(outlines, water, crs=CRS.from_user_input(rows.crs), is_part=True)
        return flagged(rows.assign(water_fraction=fraction), spec=self.spec)

    def _with_nodata(self, rows: geopandas.GeoDataFrame) -> tuple[geopandas.GeoDataFrame, set[Address]]:
        """Count the nodata around outlines whose boxes reach beyond their cell, and name all cells under these boxes.

        Cells that are not finished are nodata, whatever the map holds of them so far.
        """
        side, under, valid = self.plan.grid.cell_size, set[Address](), self.valid
        assert valid is not None  # who makes footprints gives it

        def count(y: slice, x: slice) -> int:
            parts = dict(self.plan.cells_under(y, x))
            under.update(parts)
            known = [part for cell, part in parts.items() if cell in self.states and not self.states[cell].is_empty]
            return sum(int(np.count_nonzero(valid(*part))) for part in known)

        transform = Affine(*self.plan.geobox.affine[:6])
        outlines = np.asarray(rows.geometry.array, np.object_)
        boxes = padded_boxes(to_pixel_coordinates(outlines, transform), reach=self.spec.edge_distance)
        fractions = rows["nodata_fraction"].to_numpy(np.float64).copy()
        crosses = (boxes[:, ::2] // side != (boxes[:, 1::2] - 1) // side).any(axis=1)
        anew = crosses | np.isnan(fractions)
        fractions[anew] = counted_nodata(
            outlines[anew], (transform, self.plan.shape), count_valid=count, reach=self.spec.edge_distance
        )
        return rows.assign(nodata_fraction=fractions), under

    def _digest(self, cells: Iterable[Address]) -> str:
        """Digest what the footprints of these cells depend on: their outlines, and which cells around them are missing."""
        of = sorted(cells)
        known = {cell: self.states.get(cell) for cell in of}
        outlines = [(cell, None if state is None else state.outlines) for cell, state in known.items()]
        content: list[object] = [self.plan.digest, outlines, sorted(self._missing(of))]
        if self.spec.nodata_fraction:
            content.append([None if state is None else state.map for state in known.values()])
        if self.rule is not None:
            content.append(self.rule.to_json())
        return digest_of(content)

    def _missing(self, cells: Iterable[Address]) -> set[Address]:
        """Return planned cells beside these that are not finished. Those that are not planned were flagged when cells ran."""
        given = list(cells)
        reach = -(-self.spec.edge_distance // self.plan.grid.cell_size)
        near = neighbour_cells(given, reach=reach) | set(given)
        return {cell for cell in near if cell not in self.states and cell in self.plan.cells}

    def _read(self, cells: Sequence[Address]) -> geopandas.GeoDataFrame:
        there = [cell for cell in cells if cell in self.states and self.states[cell].outlines]
        contents = {YearLayout(self.plan.year).outline(cell): self._content(cell) for cell in there}
        table, numbers = joined_outlines(contents, crs=self.plan.grid.crs, further=self.spec.columns)
        iy, ix = np.array(there, np.int64).reshape(-1, 2)[numbers].T
        return table.assign(iy=iy, ix=ix)

    def _content(self, cell: Address) -> bytes:
        key = YearLayout(self.plan.year).outline(cell)
        content = self.objects.get(key)
        if content is None or sha256_of(content) != self.states[cell].outlines:
            is_missing = "is missing" if content is None else "has changed"
            raise CampaignError(
                f"{key} {is_missing} since cell {cell_id(*cell)} was committed. If the cell is being run again, collect "
                "when it is done; else rtsx campaign verify names all that is damaged."
            )
        return content


LEVEL2 = "level2"
"""Folder of level 2 below the products of a year."""
_OWN = ("n_images", "n_images_possible", "first_date", "last_date")


def collect_level2(footprints: PartTable, refreshed: Refreshed, *, layout: YearLayout, spec: OutlineSpec) -> Refreshed:
    """Bring level 2 up to date with the footprints; an object stays in its partition."""

    def is_current(name: str, record: Record) -> bool:
        return bool(record["footprints"] == refreshed.records[name]["sha256"])

    def make(name: str) -> tuple[geopandas.GeoDataFrame, Record]:
        rows = footprints.read(name)
        # Maps that say no time are of the year of the campaign all the same.
        rows["year"] = rows["year"].fillna(layout.year)
        level2 = level2_footprints([rows]).get(layout.year)
        if level2 is None:
            level2 = empty_outlines(rows.crs, *_OWN, *rows.columns)
        elif spec.water is not None:  # because outlines that are united lose their flags
            level2 = flagged(level2, spec=spec)
        return level2, {FOOTPRINTS: refreshed.records[name]["sha256"]}

    return PartTable.of(footprints.objects, layout, LEVEL2).refresh(refreshed.records, is_current=is_current, make=make)


TRACKS = "tracks"
"""Folder of the tracks below the products of a year."""

YearRecords = Mapping[int, Mapping[str, Record]]
"""Records of the footprints of each year by the names of partitions."""
PartitionKey = tuple[int, str]
"""Year and name of a partition of footprints."""
Bounds = tuple[float, float, float, float]

_KEPT = 32
"""Tables of partitions that stay in memory, because each is read for itself and for every neighbour."""


def collected_years(objects: ObjectStore, years: Iterable[int]) -> dict[int, dict[str, Record]]:
    """Return records of the footprints of those years that were collected, by rising year."""
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

    parts = _TrackParts(read=read, records=records)
    wanted = sorted({name for of_year in records.values() for name in of_year})
    return PartTable.of(objects, layout, TRACKS).refresh(wanted, is_current=parts.is_current, make=parts.make)


@dataclass(frozen=True, kw_only=True)
class _TrackParts:
    """What the tracks of each partition are made of."""

    read: Callable[[PartitionKey], geopandas.GeoDataFrame]
    """Footprints of a partition of a year; they are shared, and must not be changed."""
    records: YearRecords

    def is_current(self, name: str, record: Record) -> bool:
        """Test whether all footprints near the outlines are still those that the tracks were made of."""
        parts = self._digests(name, record["reach"])
        return bool(record["years"] == list(self.records) and record["parts"] == parts)

    def make(self, name: str) -> tuple[geopandas.GeoDataFrame, Record]:
        """Return rows of tracks whose footprint is in the partition."""
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
        """Return outlines of other partitions that hang together with those of this one."""
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
        """Return partitions of all years whose outlines' box meets that of one of the rows."""
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
        """Return digests of the partition and of all that its outlines could hang together with, by year and name."""
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
    """Return the box around all rows; None where there are none."""
    outlines = np.concatenate([_outlines(table) for table in tables])
    return [float(edge) for edge in shapely.total_bounds(outlines)] if len(outlines) else None
