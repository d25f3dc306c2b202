"""Quads of a basemap on disk: a ledger of every one that was asked for, fetching them, and the table that cubes search."""

import csv
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from shapely import box, to_wkb
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError
from rtsx.ordering.basemap import BasemapApi, Mosaic, QuadRange, cure_of
from rtsx.ordering.catalog import described_asset
from rtsx.ordering.download import Advance, HttpError, fetch_file
from rtsx.ordering.ledger import locked
from rtsx.ordering.order import batch_name
from rtsx.ordering.provider import OrderStatus, RemoteFile, State
from rtsx.parsing import json_value, wrap_damage
from rtsx.redaction import redacted
from rtsx.storage import staged, write_whole

MOSAIC_FILE = "mosaic.json"
"""Name of the document that says which mosaic the quads of a folder are of."""
QuadState = Literal["waiting", "there", "missing", "absent"]
"""Not tried to the end yet; complete in the folder; asked for and not to be had; on the grid and not in the mosaic."""
QuadResult = tuple[QuadState, int | None, str | None, str, int, int]
"""State, bytes, asset as JSON, message, row and column of a quad."""

_TABLES = """
CREATE TABLE IF NOT EXISTS purpose (digest TEXT);
CREATE TABLE IF NOT EXISTS ranges (y0, x0, y1, x1, listed INTEGER DEFAULT 0, PRIMARY KEY (y0, x0));
CREATE TABLE IF NOT EXISTS quads (
    y INTEGER, x INTEGER, id TEXT, state TEXT, href TEXT, times INTEGER DEFAULT 0, percent REAL, size INTEGER, asset TEXT,
    message TEXT DEFAULT '', batch TEXT, PRIMARY KEY (y, x)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, order_id TEXT, state TEXT DEFAULT 'submitting', message TEXT DEFAULT '');
CREATE INDEX IF NOT EXISTS states ON quads (state, y, x);
CREATE INDEX IF NOT EXISTS ordered ON quads (batch, id);
"""
_IN_ORDER = "ORDER BY y / 64, x / 64, y, x"
"""Of the table: neighbours stand together, so that a search reads few groups of rows."""
_GROUP_ROWS = 4096
_AT_ONCE = 500
"""Rows of the ledger that are read together."""
_SETTLED_TOGETHER = 50
"""Quads after which the ledger is written; what a crash leaves out is found in the folder."""
_FAILURES_IN_A_ROW = 20
"""Files that cannot be had for reasons that pass, after which the server is taken to be down."""
_BANDS = {
    ("uint8", 3): ("red", "green", "blue"),
    ("uint8", 4): ("red", "green", "blue", "alpha"),
    ("uint16", 4): ("blue", "green", "red", "nir"),
    ("uint16", 5): ("blue", "green", "red", "nir", "alpha"),
}
"""Bands of Planet's visual and analytic mosaics, by dtype and number."""


@dataclass(frozen=True, kw_only=True)
class QuadCounts:
    """Where the quads of a region stand; the counts add up exactly.

    ``grid = asked + absent`` and ``asked = there + missing + waiting``.
    """

    grid: int
    """Quads of the grid that show ground of the region."""
    absent: int
    """Of these, quads that the mosaic does not have, such as open sea."""
    asked: int
    """Quads that the mosaic has."""
    there: int
    """Quads that are complete in the folder."""
    missing: int
    """Quads that were asked for and cannot be had: refused, or damaged however often they came."""
    waiting: int
    """Quads that have not been tried to the end."""
    twice: int
    """Quads that the API listed more than once; each is fetched once."""


class QuadBatch(NamedTuple):
    """Quads that are ordered together."""

    name: str
    """Name of the order, which no other order has."""
    order_id: str | None
    """Id that the provider gave; None while it is *submitting*."""
    state: State
    """Where it stands."""
    message: str
    """What the provider said last."""
    places: Mapping[str, tuple[int, int]]
    """Row and column of each quad, by its id."""


class QuadLedger:
    """A file with one row for each quad, which is right whenever a process ends; one thread uses it.

    Parameters
    ----------
    path
        The file; made if it is not there.

    Raises
    ------
    OrderError
        It is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = sqlite3.connect(path, isolation_level=None)
        try:
            with self._as_ours():
                self._rows.executescript(_TABLES)
        except OrderError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._rows.close()

    def begin(self, digest: str, ranges: tuple[QuadRange, ...]) -> None:
        """Set up for some ranges; what was listed for another purpose is forgotten, as its files are found again by their names."""
        with self._transaction():
            if self._rows.execute("SELECT digest FROM purpose").fetchall() == [(digest,)]:
                return
            for table in ("purpose", "ranges", "quads", "batches"):
                self._rows.execute(f"DELETE FROM {table}")
            self._rows.execute("INSERT INTO purpose VALUES (?)", (digest,))
            self._rows.executemany(
                "INSERT INTO ranges (y0, x0, y1, x1) VALUES (?, ?, ?, ?)", [(r.y0, r.x0, r.y1, r.x1) for r in ranges]
            )

    def unlisted(self) -> list[QuadRange]:
        """Ranges that the API has not listed to their end."""
        rows = self._rows.execute("SELECT y0, x0, y1, x1 FROM ranges WHERE NOT listed ORDER BY y0, x0")
        return [QuadRange(*row) for row in rows]

    def list_range(self, area: QuadRange, api: BasemapApi, mosaic: Mosaic) -> None:
        """Enter the quads of a range, all of them or none."""
        with self._transaction():
            self._rows.executemany(
                "INSERT INTO quads (y, x, id, state) VALUES (?, ?, ?, 'absent')",
                ((y, x, f"{x}-{y}") for y in range(area.y0, area.y1) for x in range(area.x0, area.x1)),
            )
            for quad in api.quads(mosaic, area):
                self._rows.execute(
                    "UPDATE quads SET id = ?, state = 'waiting', href = ?, percent = ?, times = times + 1 WHERE y = ? AND x = ?",
                    (quad.id, quad.href, quad.percent_covered, quad.y, quad.x),
                )
            self._rows.execute("UPDATE ranges SET listed = 1 WHERE y0 = ? AND x0 = ?", (area.y0, area.x0))

    def recheck(self, folder: Path) -> None:
        """Let quads wait again whose files have gone or changed their size."""
        gone = [
            (y, x)
            for rows in self._chunks("SELECT y, x, id, size FROM quads WHERE state = 'there' {}")
            for y, x, name, size in rows
            if _size(folder / f"{name}.tif") != size
        ]
        with self._transaction():
            self._rows.executemany(
                "UPDATE quads SET state = 'waiting', message = 'its file has gone or changed' WHERE y = ? AND x = ?",
                gone,
            )

    def wanted(self) -> Iterator[tuple[int, int, str, str]]:
        """Row, column, id and address of what is not there."""
        # The sign keeps SQLite from the index of states, which would sort all that is left for each piece.
        for rows in self._chunks("SELECT y, x, id, href FROM quads WHERE +state IN ('waiting', 'missing') {}"):
            yield from rows

    def settle(self, results: list[QuadResult]) -> None:
        """Write states, sizes, assets and messages of quads, by row and column."""
        with self._transaction():
            self._rows.executemany(
                "UPDATE quads SET state = ?, size = ?, asset = ?, message = ? WHERE y = ? AND x = ?", results
            )

    def unordered(self, *, retry: bool) -> int:
        """Number of quads that no batch has; with `retry` those count that were not delivered."""
        return int(self._rows.execute(f"SELECT count(*) FROM quads WHERE {_unordered(retry)}").fetchone()[0])

    def gather(self, name: str, *, size: int, retry: bool) -> None:
        """Gather quads that no batch has into batches of `size`; see `unordered`."""
        with self._transaction():
            (attempt,) = self._rows.execute(
                "SELECT count(*) FROM batches WHERE state NOT IN ('submitting', 'queued', 'running')"
            ).fetchone()
            places = self._rows.execute(f"SELECT id, y, x FROM quads WHERE {_unordered(retry)} {_IN_ORDER}").fetchall()
            for begin in range(0, len(places), size):
                some = places[begin : begin + size]
                batch = batch_name(name, tuple(sorted(one[0] for one in some)), clip=None, attempt=attempt)
                self._rows.execute("INSERT INTO batches (name) VALUES (?)", (batch,))
                self._rows.executemany(
                    "UPDATE quads SET batch = ?, state = 'waiting' WHERE y = ? AND x = ?",
                    [(batch, y, x) for _, y, x in some],
                )

    def batches(self, *states: State) -> Iterator[QuadBatch]:
        """Batches of quads that stand so."""
        rows = self._rows.execute("SELECT name, order_id, state, message FROM batches ORDER BY rowid").fetchall()
        for name, order_id, state, message in rows:
            if state in states:
                places = self._rows.execute("SELECT id, y, x FROM quads WHERE batch = ? ORDER BY id", (name,))
                yield QuadBatch(name, order_id, state, message, {id_: (y, x) for id_, y, x in places})

    def answer(self, name: str, status: OrderStatus) -> None:
        """Write what the provider says of a batch."""
        with self._transaction():
            self._rows.execute(
                "UPDATE batches SET order_id = ?, state = ?, message = ? WHERE name = ?",
                (status.order_id, status.state, redacted(status.message), name),
            )

    def orders(self) -> dict[str, int]:
        """Number of batches by state."""
        return dict(self._rows.execute("SELECT state, count(*) FROM batches GROUP BY state"))

    def counts(self) -> QuadCounts:
        """Where the quads stand."""
        by_state = dict(self._rows.execute("SELECT state, count(*) FROM quads GROUP BY state"))
        there, missing, waiting, absent = (
            by_state.get(state, 0) for state in ("there", "missing", "waiting", "absent")
        )
        (twice,) = self._rows.execute("SELECT count(*) FROM quads WHERE times > 1").fetchone()
        asked = there + missing + waiting
        return QuadCounts(
            grid=asked + absent,
            absent=absent,
            asked=asked,
            there=there,
            missing=missing,
            waiting=waiting,
            twice=twice,
        )

    def named(self, state: QuadState, limit: int) -> dict[str, str]:
        """Messages of the first quads of a state, by id."""
        rows = self._rows.execute("SELECT id, message FROM quads WHERE state = ? ORDER BY y, x LIMIT ?", (state, limit))
        return dict(rows.fetchall())

    def write_table(self, path: Path) -> None:
        """Write one line of CSV for each quad: id, state, times listed, percent covered, bytes, checksum and message."""
        with staged(path, overwrite=True) as stage, stage.open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(("quad", "state", "times_listed", "percent_covered", "bytes", "checksum", "message"))
            rows = self._rows.execute(
                "SELECT id, state, times, percent, size, json_extract(asset, '$.\"file:checksum\"'), message FROM quads "
                "ORDER BY y, x"
            )
            lines.writerows(rows)

    def write_items(self, path: Path, mosaic: Mosaic) -> None:
        """Write the quads that are there as a GeoParquet table of STAC items, neighbours together."""
        with staged(path, overwrite=True) as stage, pq.ParquetWriter(stage, _SCHEMA) as table:
            rows = self._rows.execute(f"SELECT y, x, id, asset FROM quads WHERE state = 'there' {_IN_ORDER}")
            while some := rows.fetchmany(_GROUP_ROWS):
                items = [_item(mosaic, QuadRange(y, x, y + 1, x + 1), name, asset=asset) for y, x, name, asset in some]
                table.write_table(pa.Table.from_pylist(items, _SCHEMA))

    def _chunks(self, query: str) -> Iterator[list[Any]]:
        """Rows of a query on quads, some at a time, so that others may be written between."""
        last = (-1, -1)
        while rows := self._rows.execute(
            query.format("AND (y, x) > (?, ?) ORDER BY y, x LIMIT ?"), (*last, _AT_ONCE)
        ).fetchall():
            yield rows
            last = rows[-1][:2]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._as_ours():
            self._rows.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._rows.execute("ROLLBACK")
                raise
            self._rows.execute("COMMIT")

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OrderError(
                f"The ledger of quads {self._path} cannot be used: {error}. If it is damaged, delete it and plan again; quads that "
                "are there are not downloaded again."
            ) from error


def _unordered(retry: bool) -> str:
    return "(state = 'waiting' AND batch IS NULL)" + (" OR state = 'missing'" if retry else "")


_SCHEMA = pa.schema(
    {
        "type": pa.string(),
        "stac_version": pa.string(),
        "id": pa.string(),
        "collection": pa.string(),
        "geometry": pa.binary(),
        "bbox": pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")]),
        "datetime": pa.timestamp("us", "UTC"),
        "start_datetime": pa.timestamp("us", "UTC"),
        "end_datetime": pa.timestamp("us", "UTC"),
        "assets": pa.string(),
    },
    metadata={
        "geo": json.dumps(
            {
                "version": "1.1.0",
                "primary_column": "geometry",
                "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
            }
        )
    },
)


def _item(mosaic: Mosaic, quad: QuadRange, name: str, *, asset: str) -> dict[str, Any]:
    bounds = mosaic.bounds(quad)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": mosaic.name,
        "geometry": to_wkb(box(*bounds)),
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
        "datetime": mosaic.start
        + (mosaic.end - mosaic.start) / 2,  # of a quarter its middle, because one day is asked for
        "start_datetime": mosaic.start,
        "end_datetime": mosaic.end,
        "assets": json.dumps({"data": json.loads(asset)}),
    }


@contextmanager
def quad_ledger(path: Path) -> Iterator[QuadLedger]:
    """Open a ledger for the block, which no other process of this machine then does."""
    with locked(path), closing(QuadLedger(path)) as ledger:
        yield ledger


def list_quads(
    api: BasemapApi,
    ledger: QuadLedger,
    folder: Path,
    *,
    mosaic: str,
    region: BaseGeometry,
    digest: str,
    advance: Callable[[int, int], None] = lambda done, count: None,
) -> Mosaic:
    """Enter the quads of a region into a ledger; goes on where an earlier call was stopped, and ends at once where none was.

    Parameters
    ----------
    api
        The API.
    ledger
        The ledger.
    folder
        Where quads go to; it is of one mosaic.
    mosaic
        Name of the mosaic.
    region
        Ground in longitude and latitude.
    digest
        Changes with whatever changes what is asked for.
    advance
        Told of the number of ranges that are listed, and of all.

    Raises
    ------
    OrderError
        There is no such mosaic, the region has none of its quads, the folder is another's, or the API cannot be asked.
    """
    found = api.mosaic(mosaic)
    _claim(folder, found)
    ledger.begin(f"{found.id} {digest}", ranges := found.ranges(region))
    open_ = ledger.unlisted()
    for number, area in enumerate(open_, start=len(ranges) - len(open_) + 1):
        ledger.list_range(area, api, found)
        advance(number, len(ranges))
    return found


def fetch_quads(
    api: BasemapApi,
    ledger: QuadLedger,
    folder: Path,
    *,
    mosaic: Mosaic,
    table: Path,
    parallel: int = 4,
    advance: Callable[[int, int], None] = lambda there, asked: None,
    pause: Callable[[float], None] = time.sleep,
) -> QuadCounts:
    """Fetch the quads of a ledger that are not in the folder, and write the table of those that are.

    A quad has its name when it is complete, and is asked for once. Where the quota is used up or the key refused, nothing more is
    asked for; what is there stays.

    Parameters
    ----------
    api
        The API.
    ledger
        The ledger; `list_quads` has filled it.
    folder
        Receives ``<quad>.tif``; several ledgers may share it, one after the other.
    mosaic
        What the quads are of.
    table
        GeoParquet file of STAC items to write into the folder, which cubes search.
    parallel
        Files at once.
    advance
        Told of the number of quads that are there, and of those asked for.
    pause
        Waits between attempts.

    Raises
    ------
    OrderError
        The quota is used up, the key is refused, the server is down, the disk is full, or another process fetches into the folder.
    """
    with locked(folder / MOSAIC_FILE):
        ended = _fetch_all(api, ledger, folder, mosaic=mosaic, parallel=parallel, advance=advance, pause=pause)
        ledger.write_items(table, mosaic)
    if ended is not None:
        raise ended
    return ledger.counts()


def _fetch_all(
    api: BasemapApi,
    ledger: QuadLedger,
    folder: Path,
    *,
    mosaic: Mosaic,
    parallel: int,
    advance: Callable[[int, int], None],
    pause: Callable[[float], None],
) -> OrderError | None:
    """Fetch what is not in the folder; returns what ended it early."""
    ledger.recheck(folder)
    known = ledger.counts()
    there, asked = known.there, known.asked
    gate = _Gate(pause)
    ended: OrderError | None = None
    results: list[QuadResult] = []
    in_a_row = 0
    wanted = ledger.wanted()
    running: dict[Future[tuple[int, str]], tuple[int, int]] = {}
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while True:
                while ended is None and len(running) < 2 * parallel and (one := next(wanted, None)) is not None:
                    y, x, name, href = one
                    file = RemoteFile(
                        scene_id=name, asset="data", name=f"{name}.tif", href=href, headers=api.headers_for(href)
                    )
                    running[pool.submit(_fetch, file, folder, mosaic=mosaic, place=(x, y), gate=gate)] = (y, x)
                if not running:
                    break
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    place, error = running.pop(done), done.exception()
                    if error is None:
                        size, asset = done.result()
                        results.append(("there", size, asset, "", *place))
                        there, in_a_row = there + 1, 0
                        advance(there, asked)
                        continue
                    if not isinstance(error, OrderError):
                        raise error
                    if _is_lost(cause := error.__cause__):
                        results.append(("missing", None, None, redacted(str(cause or error)), *place))
                        in_a_row = 0
                        continue
                    results.append(("waiting", None, None, redacted(str(cause)), *place))
                    in_a_row += 1
                    passing = isinstance(cause, HttpError) and cause.passing and cause.wait_s is None
                    if ended is None and (not passing or in_a_row >= _FAILURES_IN_A_ROW):
                        cure = cure_of(cause) if isinstance(cause, HttpError) else "Run the same command again then."
                        ended = OrderError(f"Fetching has stopped: {cause}. {cure} What is there is kept.")
                        ended.__cause__ = cause
                        running = {future: at for future, at in running.items() if not future.cancel()}
                if len(results) >= _SETTLED_TOGETHER:
                    ledger.settle(results)
                    results.clear()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            ledger.settle(results)
    return ended


def _is_lost(cause: BaseException | None) -> bool:
    """Whether a quad cannot be had, and asking for others may help: it is refused or damaged."""
    if isinstance(cause, HttpError):
        return not (cause.passing or cause.is_quota or cause.status == 401)
    return not isinstance(cause, OSError)  # such as a full disk


class _Gate:
    """Lets all threads wait where one of them was asked to."""

    def __init__(self, pause: Callable[[float], None]) -> None:
        self._pause, self._lock, self._waits = pause, Lock(), 0

    def pass_through(self) -> None:
        """Wait for whoever waits."""
        with self._lock:
            pass

    def pause(self, seconds: float) -> None:
        """Wait, unless another thread has meanwhile."""
        before = self._waits
        with self._lock:
            if self._waits == before:
                self._pause(seconds)
                self._waits += 1


def _fetch(file: RemoteFile, folder: Path, *, mosaic: Mosaic, place: tuple[int, int], gate: _Gate) -> tuple[int, str]:
    """Bytes of one quad, once it is there, and its asset as JSON."""
    path = folder / file.name
    gate.pass_through()
    advance: Advance = lambda file, count: None  # noqa: E731
    fetch_file(file, path, advance=advance, pause=gate.pause)
    asset = described_asset(path, file, {})
    if "proj:transform" not in asset:
        path.unlink()
        raise OrderError(f"Quad {file.scene_id} has no georeference. Report it to Planet.")
    (a, b, c, d, e, f), (height, width) = asset["proj:transform"], asset["proj:shape"]
    middle = (a * width / 2 + b * height / 2 + c, d * width / 2 + e * height / 2 + f)
    if asset.get("proj:epsg") != 3857 or mosaic.quad_at(*middle) != place:
        path.unlink()
        raise OrderError(
            f"Quad {file.scene_id} shows other ground: its middle is at {middle} in EPSG:{asset.get('proj:epsg')}. Report it to Planet."
        )
    return asset["file:size"], json.dumps(with_band_names(asset))


def with_band_names(asset: dict[str, Any]) -> dict[str, Any]:
    """The asset of a quad with the names of its bands, where the file does not tell them."""
    stored = asset["raster:bands"]
    names = _BANDS.get((stored[0]["data_type"], len(stored)))
    if "eo:bands" not in asset and names is not None:
        asset["eo:bands"] = [{"name": name} | ({"common_name": name} if name != "alpha" else {}) for name in names]
    asset["type"] = "image/tiff; application=geotiff; profile=cloud-optimized"
    return asset


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _claim(folder: Path, mosaic: Mosaic) -> None:
    """Make a folder that of a mosaic, or refuse one that is another's, because quads of all mosaics are called alike."""
    path = folder / MOSAIC_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        told = {"id": mosaic.id, "name": mosaic.name, "quad_size": mosaic.quad_size, "resolution": mosaic.resolution}
        dates = {"start": mosaic.start.astimezone(UTC).isoformat(), "end": mosaic.end.astimezone(UTC).isoformat()}
        write_whole(path, (json.dumps(told | dates, indent=1) + "\n").encode())
        return
    content = json_value(text, what=str(path), error=OrderError)
    with wrap_damage(str(path), OrderError):
        other, name = content["id"], content["name"]
    if other != mosaic.id:
        raise OrderError(
            f"{folder} holds quads of {name} ({other}); this order is for {mosaic.name} ({mosaic.id}). Choose another folder in out."
        )
