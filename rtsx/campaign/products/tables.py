"""Tables of outlines in one GeoParquet file per partition, of which only those are written again whose cells changed.

A record is taken back before its file is written and put down after, so that a run which is stopped leaves work to be
done again rather than a file that is taken for another.
"""

import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.ledger import map_in_threads
from rtsx.campaign.records import CommitRecord
from rtsx.errors import CampaignError
from rtsx.footprints.io import to_serialisable
from rtsx.footprints.schema import COLUMNS, coerce, known_dtypes
from rtsx.grid.grid import cell_id
from rtsx.storage.object_store import ObjectStore

Record = dict[str, Any]
"""JSON values by name."""


@dataclass(frozen=True)
class Records:
    """Records of one kind of product, by the name of what they are about."""

    objects: ObjectStore
    """The objects of the output."""
    folder: str
    """Key of their folder."""

    def read(self) -> dict[str, Record]:
        """Read all records by name, sorted; what is damaged counts as not there, because it can be made again."""
        keys = sorted(found.key for found in self.objects.list(self.folder) if found.key.endswith(".json"))
        records = zip(keys, map(_parsed, map_in_threads(self.objects.get, keys)), strict=True)
        return {key.rsplit("/", 1)[1].removesuffix(".json"): one for key, one in records if one is not None}

    def put(self, name: str, record: Record) -> None:
        """Write a record."""
        self.objects.put(self._key(name), json.dumps(record, sort_keys=True).encode())

    def take_back(self, name: str) -> None:
        """Remove a record."""
        self.objects.delete(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.folder}/{name}.json"


def _parsed(content: bytes | None) -> Record | None:
    try:
        found = json.loads(content or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedCell:
    """A finished cell."""

    is_empty: bool
    """Whether there was no image of it, or no valid pixel, so that nothing was written."""
    outlines: str
    """SHA-256 of its outlines; empty where it has none."""
    map: str
    """Digest of all that it wrote into the map; empty where it wrote nothing there."""
    cogs: tuple[str, ...]
    """Variables that it wrote as GeoTIFFs, sorted."""
    n_valid: int
    """Pixels that could be classified."""
    n_outlines: int
    """Outlines before they are merged with those of neighbours."""
    finished: str
    """When, UTC, ISO 8601."""
    mark: str
    """Digest of the whole mark."""


CellStates = dict[Address, FinishedCell]
"""Finished cells by address."""


def cell_states(marks: Iterable[CommitRecord], layout: YearLayout) -> CellStates:
    """Return states of all cells that have a mark; the marks themselves are let go one by one."""
    return {mark.cell: _state(mark, layout) for mark in marks}


def mapped_cells(states: CellStates) -> list[Address]:
    """Return finished cells with a map."""
    return [cell for cell, state in states.items() if not state.is_empty]


def sha256_of(content: bytes) -> str:
    """Return SHA-256 of bytes, as hexadecimal digits."""
    return sha256(content).hexdigest()


def digest_of(content: object) -> str:
    """Return SHA-256 of JSON values; equal ones have equal digests."""
    return sha256_of(json.dumps(content, sort_keys=True).encode())


def _state(mark: CommitRecord, layout: YearLayout) -> FinishedCell:
    mapped = {key: digest for key, digest in mark.objects.items() if key.startswith(f"{MAP}/")}
    cogs = (key for key in mark.objects if key.startswith(f"{layout.cogs}/"))
    return FinishedCell(
        is_empty=mark.state == "empty",
        outlines=mark.objects.get(layout.outline(mark.cell), ""),
        map=digest_of(mapped) if mapped else "",
        # The name of a cell has no underscore, so all behind the first is the variable's.
        cogs=tuple(sorted(key.rsplit("/", 1)[1].split("_", 1)[1].removesuffix(".tif") for key in cogs)),
        n_valid=mark.n_valid,
        n_outlines=mark.n_outlines,
        finished=mark.finished,
        mark=sha256_of(mark.to_json().encode()),
    )


SIDE = 16
"""Cells along each side of a partition: with the default grid 590 km, so that twenty million square kilometres are some sixty
files, and a cell that is run again costs the reading of 255 others."""


def partition_of(cell: Address) -> str:
    """Return the name of the partition that a cell lies in, by which its files are called.

    Examples
    --------
    >>> partition_of((0, 15)), partition_of((-1, 16))
    ('r000c000', 'r-001c001')
    """
    return cell_id(cell[0] // SIDE, cell[1] // SIDE)


def group_by_partition(cells: Iterable[Address]) -> dict[str, list[Address]]:
    """Group cells by partition; partitions and cells in reading order.

    Examples
    --------
    >>> group_by_partition([(0, 17), (0, 1), (0, 0)])
    {'r000c000': [(0, 0), (0, 1)], 'r000c001': [(0, 17)]}
    """
    in_order = sorted(cells, key=lambda cell: (cell[0] // SIDE, cell[1] // SIDE, cell))
    return {name: [*of] for name, of in groupby(in_order, key=partition_of)}


def partition_sources(states: CellStates) -> dict[str, str]:
    """Return what the map of each partition is made of: digests by its name."""
    parts = group_by_partition(mapped_cells(states))
    return {name: digest_of([(cell_id(*cell), states[cell].map) for cell in cells]) for name, cells in parts.items()}


WORKERS = min(os.cpu_count() or 1, 8)
"""Partitions that are worked on at a time: each holds its tables."""


def parquet_bytes(table: geopandas.GeoDataFrame) -> bytes:
    """Return GeoParquet 1.1 with a column `bbox` for spatial filters; equal tables give equal bytes."""
    buffer = io.BytesIO()
    plainly_typed(table).to_parquet(
        buffer, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0"
    )
    return buffer.getvalue()


def parquet_of_parts(parts: Iterable[geopandas.GeoDataFrame], *, empty: geopandas.GeoDataFrame) -> bytes:
    """Return `parquet_bytes` of all parts together, a row group each, of which one is in memory at a time.

    Parameters
    ----------
    parts
        Tables with the same columns.
    empty
        One without a row.
    """
    schema = pq.read_schema(io.BytesIO(parquet_bytes(empty)))
    stated = dict(schema.metadata)
    geo = json.loads(stated.pop(b"geo"))
    (column,) = geo["columns"].values()
    schema = schema.with_metadata(stated)
    kinds: set[str] = set()
    boxes = []
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for part in parts:
            if len(part):
                rows = pq.read_table(io.BytesIO(parquet_bytes(part)))
                (found,) = json.loads(rows.schema.metadata[b"geo"])["columns"].values()
                kinds.update(found["geometry_types"])
                boxes.append(found["bbox"])
                writer.write_table(rows.select(schema.names).cast(schema))
        if boxes:
            west, south, east, north = np.transpose(boxes).tolist()
            column |= {"geometry_types": sorted(kinds), "bbox": [min(west), min(south), max(east), max(north)]}
        writer.add_key_value_metadata({"geo": json.dumps(geo)})
    return buffer.getvalue()


def read_outlines(content: bytes, *, name: str) -> geopandas.GeoDataFrame:
    """Return footprints of such bytes, with the columns and dtypes that they were made with.

    Raises
    ------
    CampaignError
        They are none; names where they come from.
    """
    try:
        return to_serialisable(geopandas.read_parquet(io.BytesIO(content)))
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(name, error) from error


def joined_outlines(
    contents: Mapping[str, bytes], *, crs: str, further: Iterable[str] = ()
) -> tuple[geopandas.GeoDataFrame, NDArray[np.int64]]:
    """Return footprints of many small files as one table, and for each row the number of its file.

    Joined before they become a table, because making one takes a hundred times as long as reading its bytes.

    Parameters
    ----------
    contents
        GeoParquet by the name that it is called by in errors.
    crs
        In which all of them are.
    further
        Optional columns that they have.

    Raises
    ------
    CampaignError
        One of them is no GeoParquet.
    """
    tables = []
    for name, content in contents.items():
        try:
            table = pq.read_table(io.BytesIO(content))
            tables.append(table.drop_columns([*({"bbox"} & set(table.column_names))]).replace_schema_metadata())
        except (OSError, ValueError, KeyError) as error:
            raise _unreadable(name, error) from error
    if not tables:
        return empty_outlines(crs, "cut", "prob_counts", *further), np.empty(0, np.int64)
    numbers = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    # Permissive, because a column of nothing but missing values has no type of its own.
    joined = pa.concat_tables(tables, promote_options="permissive")
    outlines = shapely.from_wkb(joined["geometry"].to_numpy())
    rows = joined.drop_columns(["geometry"]).to_pandas()
    return to_serialisable(geopandas.GeoDataFrame(rows, geometry=outlines, crs=crs)), numbers


def plainly_typed(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Convert columns of text or nothing to text.

    Because a column of nothing but missing values has no type of its own, and the files of one table would not fit
    together.
    """
    texts = table.columns[table.dtypes.map(pd.api.types.is_object_dtype)].difference([table.geometry.name])
    return table.astype(dict.fromkeys(texts, pd.StringDtype("pyarrow"))).reset_index(drop=True)


def empty_outlines(crs: str, *further: str) -> geopandas.GeoDataFrame:
    """Return footprints without a row, with some of the optional columns."""
    columns: dict[str, object] = {name: [] for name in known_dtypes(further) if name in (*COLUMNS, *further)}
    return coerce(columns, geopandas.GeoSeries([], crs=crs))


def _unreadable(name: str, error: Exception) -> CampaignError:
    return CampaignError(
        f"{name} cannot be read as outlines ({error}): verify the campaign, which tells the cells that are damaged."
    )


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
        """Return the table of that name among the products of a year."""
        records = Records(objects, f"{layout.products}/collected/{name}")
        return cls(objects=objects, folder=f"{layout.products}/{name}", records=records)

    def key(self, name: str) -> str:
        """Return the key of the file of a partition."""
        return f"{self.folder}/{name}.parquet"

    def read(self, name: str) -> geopandas.GeoDataFrame:
        """Return rows of a partition.

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
        """Return rows of partitions, one after the other."""
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
        results = list(map_in_threads(refreshed, names, threads=WORKERS))
        return Refreshed(
            records={name: record for name, (record, _) in zip(names, results, strict=True)},
            rewritten=tuple(self.key(name) for name, (_, is_new) in zip(names, results, strict=True) if is_new),
            removed=tuple(removed),
        )

    def _made(self, name: str, *, make: Make, before: Record | None) -> tuple[Record, bool]:
        """Update a partition; return its new record, and whether its file had to be written."""
        table, sources = make(name)
        content = parquet_bytes(table)
        record = {**sources, "sha256": sha256_of(content), "rows": len(table), "bounds": _bounds(table)}
        is_new = before is None or before["sha256"] != record["sha256"]
        if is_new:
            self.records.take_back(name)
            self.objects.put(self.key(name), content)
        self.records.put(name, record)
        return record, is_new


def _bounds(table: geopandas.GeoDataFrame) -> list[float] | None:
    """(xmin, ymin, xmax, ymax) of all rows in the CRS of the grid; None for no rows."""
    return [float(edge) for edge in np.asarray(table.total_bounds)] if len(table) else None
