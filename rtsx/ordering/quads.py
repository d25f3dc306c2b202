"""The quads of a basemap: those of a region, and a ledger of every one that was asked for."""

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError, OutputExistsError
from rtsx.ordering.basemap import QUAD_ID, BasemapApi, Mosaic, QuadRange
from rtsx.ordering.order import batch_name, locked
from rtsx.ordering.provider import BRINGS_NOTHING, OVER, Batch, BucketDelivery, OrderStatus
from rtsx.parsing import json_value, wrap_damage
from rtsx.redaction import redacted
from rtsx.storage import staged

QuadState = Literal["waiting", "there", "missing", "absent"]
"""Not tried to the end yet; complete in the folder; asked for and not to be had; on the grid and not in the mosaic."""
QuadResult = tuple[QuadState, int | None, str | None, str, int, int]
"""State, bytes, asset as JSON, message, row and column of a quad."""

_VERSION = 1
_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS purpose (target TEXT, digest TEXT);
CREATE TABLE IF NOT EXISTS ranges (y0, x0, y1, x1, listed INTEGER DEFAULT 0, PRIMARY KEY (y0, x0));
CREATE TABLE IF NOT EXISTS quads (
    y INTEGER, x INTEGER, id TEXT, state TEXT, href TEXT, times INTEGER DEFAULT 0, percent REAL, size INTEGER, asset TEXT,
    message TEXT DEFAULT '', PRIMARY KEY (y, x)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS states ON quads (state, y, x);
CREATE TABLE IF NOT EXISTS orders (target TEXT, id TEXT, state TEXT, message TEXT, PRIMARY KEY (target, id));
CREATE TABLE IF NOT EXISTS ordered (
    target TEXT, y INTEGER, x INTEGER, order_id TEXT, PRIMARY KEY (target, y, x, order_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members ON ordered (target, order_id);
CREATE VIEW IF NOT EXISTS taken AS SELECT y, x, order_id, state AS order_state, message AS order_message
    FROM ordered JOIN orders ON orders.target = ordered.target AND orders.id = ordered.order_id
    WHERE ordered.target = (SELECT target FROM purpose);
CREATE TABLE IF NOT EXISTS lost (target TEXT, y INTEGER, x INTEGER, PRIMARY KEY (target, y, x)) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
COMMIT;
"""
"""A target is a mosaic and where it is delivered to."""
_OPENED = """
CREATE TABLE IF NOT EXISTS opened (order_id TEXT, y INTEGER, x INTEGER, mark TEXT, PRIMARY KEY (order_id, y, x)) WITHOUT ROWID
"""
"""Beside the others, because ledgers of this version exist without it."""
_CURES = {
    sqlite3.SQLITE_FULL: "Free space, then run the same command again.",
    sqlite3.SQLITE_BUSY: "Another process writes it; run the same command again later.",
}
_IN_ORDER = "ORDER BY y / 64, x / 64, y, x"
"""Of the table: neighbours stand together, so that a search reads few groups of rows."""
MOSAIC_FILE = "mosaic.json"
"""Name of the document that says which mosaic the quads of a folder are of."""
_AT_ONCE = 500
"""Rows of the ledger that are read together."""


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


class QuadOrder(NamedTuple):
    """An order and its quads that are of the region."""

    order_id: str
    """Id that the provider gave."""
    message: str
    """What the provider said last."""
    places: Mapping[str, tuple[int, int]]
    """Row and column of each quad, by its id."""


class WantedQuad(NamedTuple):
    """A quad that is not there."""

    y: int
    """Row."""
    x: int
    """Column."""
    name: str
    """Id."""
    href: str
    """Where it is downloaded from."""
    was_lost: bool
    """Whether it could not be had before."""


class QuadLedger:
    """A file with one row for each quad, which is right whenever a process ends; one thread uses it.

    Parameters
    ----------
    path
        The file; made if it is not there.

    Raises
    ------
    OrderError
        It is no such file, or one of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = sqlite3.connect(path, isolation_level=None)
        try:
            with self._as_ours():
                (version,) = self._rows.execute("PRAGMA user_version").fetchone()
                if not self._rows.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    self._rows.executescript(_TABLES)
                elif version != _VERSION:
                    raise OrderError(
                        f"The ledger of quads {path} is of {'an earlier' if version < _VERSION else 'a later'} rtsx (version {version}; "
                        f"this one reads {_VERSION}). Delete it and run the same command again: quads that are there are not downloaded "
                        "again, and Planet is asked for what was ordered."
                    )
                self._rows.execute(_OPENED)
        except OrderError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._rows.close()

    def begin(self, target: str, digest: str, ranges: tuple[QuadRange, ...]) -> None:
        """Set up for some ranges of a target; other lists are forgotten, as files are found again by their names; orders and lost quads are not."""
        with self._transaction():
            if self._rows.execute("SELECT target, digest FROM purpose").fetchall() == [(target, digest)]:
                return
            for table in ("purpose", "ranges", "quads"):
                self._rows.execute(f"DELETE FROM {table}")
            self._rows.execute("INSERT INTO purpose VALUES (?, ?)", (target, digest))
            self._rows.executemany(
                "INSERT INTO ranges (y0, x0, y1, x1) VALUES (?, ?, ?, ?)", [(r.y0, r.x0, r.y1, r.x1) for r in ranges]
            )

    def unlisted(self) -> list[QuadRange]:
        """Return ranges that the API has not listed to their end."""
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

    def wanted(self) -> Iterator[WantedQuad]:
        """Yield what is not there."""
        # The sign keeps SQLite from the index of states, which would sort all that is left for each piece.
        for rows in self._chunks(
            "SELECT y, x, id, href, (y, x) IN (SELECT y, x FROM lost WHERE target = (SELECT target FROM purpose)) FROM quads "
            "WHERE +state IN ('waiting', 'missing') {}"
        ):
            yield from map(WantedQuad._make, rows)

    def settle(self, results: list[QuadResult]) -> None:
        """Write states, sizes, assets and messages of quads, by row and column; what is lost stays known when the region changes."""
        with self._transaction():
            self._rows.executemany(
                "UPDATE quads SET state = ?, size = ?, asset = ?, message = ? WHERE y = ? AND x = ?", results
            )
            target = self._target()
            for state, change in (
                ("missing", "INSERT OR IGNORE INTO lost VALUES (?, ?, ?)"),
                ("there", "DELETE FROM lost WHERE target = ? AND y = ? AND x = ?"),
            ):
                self._rows.executemany(change, [(target, *place) for one, _, _, _, *place in results if one == state])

    def compare(self, results: Iterator[QuadResult]) -> None:
        """Write what the delivered orders of a target give: of a quad in several, *there* goes first, then *waiting*, then *missing*.

        Nothing is written if `results` raises.
        """
        with self._as_ours():
            # Beside the ledger, which others can read while the bucket is.
            self._rows.execute("DROP TABLE IF EXISTS temp.found")
            self._rows.execute("CREATE TEMP TABLE found (state, size, asset, message, y, x, PRIMARY KEY (y, x))")
            self._rows.executemany(
                "INSERT INTO found VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (y, x) DO UPDATE SET state = excluded.state, size = excluded.size, "
                "asset = excluded.asset, message = excluded.message WHERE excluded.state = 'there' OR excluded.state = 'waiting' AND "
                "found.state = 'missing'",
                results,
            )
        with self._transaction():
            self._rows.execute(
                "UPDATE quads SET state = found.state, size = found.size, asset = found.asset, message = found.message "
                "FROM found WHERE quads.y = found.y AND quads.x = found.x"
            )
            self._rows.execute(
                "UPDATE quads SET state = 'waiting', message = '' WHERE state = 'missing' AND (y, x) IN "
                f"(SELECT y, x FROM taken WHERE order_state NOT IN {OVER})"
            )

    def opened(self, order_id: str) -> dict[tuple[int, int], str]:
        """Return marks of the files of an order that could be opened, by row and column."""
        rows = self._rows.execute("SELECT y, x, mark FROM opened WHERE order_id = ?", (order_id,))
        return {(y, x): mark for y, x, mark in rows}

    def note_opened(self, order_id: str, marks: Mapping[tuple[int, int], str]) -> None:
        """Write that files of an order could be opened; a mark changes with the content."""
        with self._transaction():
            self._rows.executemany(
                "INSERT OR REPLACE INTO opened VALUES (?, ?, ?, ?)",
                ((order_id, *place, mark) for place, mark in marks.items()),
            )

    def unordered(self, *, retry: bool) -> int:
        """Return the number of quads that no order has; with `retry` those count that were not delivered."""
        return int(self._rows.execute(f"SELECT count(*) FROM quads WHERE {_unordered(retry)}").fetchone()[0])

    def gather(self, name: str, *, size: int, retry: bool) -> Iterator[Batch]:
        """Gather quads that no order has into batches of `size`, each of which may be entered before the next one; see `unordered`."""
        target = self._target()
        # Grows before anything is ordered again, so that no two orders have one name.
        attempt = sum(count for state, count in self.orders().items() if state in OVER)
        # Sorted before the first row is given, so that what is written meanwhile changes nothing of it.
        rows = self._rows.execute(f"SELECT id FROM quads WHERE {_unordered(retry)} {_IN_ORDER}")
        while some := tuple(sorted(one for (one,) in rows.fetchmany(size))):
            # With the target, because quads of all mosaics have the same ids.
            yield Batch(name=batch_name(name, (target, *some), clip=None, attempt=attempt), scene_ids=some)

    def enter(self, batch: Batch, status: OrderStatus) -> None:
        """Write what the provider says of an order of this target, and the first time that its quads are ordered.

        Raises
        ------
        OrderError
            An id of a quad is no text.
        """
        target, order = self._target(), status.order_id
        with self._transaction():
            known = self._rows.execute("SELECT 1 FROM orders WHERE target = ? AND id = ?", (target, order)).fetchone()
            self._rows.execute(
                "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)",
                (target, order, status.state, redacted(status.message)),
            )
            if known:
                return
            with wrap_damage(f"What the provider says of order {order}", OrderError):
                places = [(int(match[2]), int(match[1])) for match in map(QUAD_ID.fullmatch, batch.scene_ids) if match]
            self._rows.executemany(
                "INSERT OR IGNORE INTO ordered VALUES (?, ?, ?, ?)", [(target, *at, order) for at in places]
            )
            if status.state not in BRINGS_NOTHING:
                self._rows.executemany(
                    "UPDATE quads SET state = 'waiting' WHERE y = ? AND x = ? AND state = 'missing'", places
                )

    def settle_failed(self) -> None:
        """Let quads be missing all of whose orders have failed or were cancelled."""
        with self._transaction():
            self._rows.execute(
                "UPDATE quads SET state = 'missing', message = failed.message FROM (SELECT y, x, "
                "max('its order has ' || order_state || ': ' || order_message) AS message FROM taken GROUP BY y, x "
                f"HAVING min(order_state IN {BRINGS_NOTHING})) AS failed "
                "WHERE state = 'waiting' AND quads.y = failed.y AND quads.x = failed.x"
            )

    def orders_open(self) -> set[str]:
        """Return ids of the orders of this target that the provider still works on, when it was last asked."""
        return {order for order, state, _ in self._orders() if state not in OVER}

    def orders_delivered(self) -> Iterator[QuadOrder]:
        """Yield orders of this target that the provider has delivered, with their quads that are of the region."""
        for order, state, message in self._orders():
            if state in OVER and state not in BRINGS_NOTHING:
                quads = self._rows.execute(
                    "SELECT id, y, x FROM taken JOIN quads USING (y, x) WHERE order_id = ? ORDER BY id", (order,)
                )
                if places := {name: (y, x) for name, y, x in quads}:
                    yield QuadOrder(order, message, places)

    def orders(self) -> dict[str, int]:
        """Return the number of orders of this target by state."""
        return dict(sorted(Counter(state for _, state, _ in self._orders()).items()))

    def _orders(self) -> list[tuple[str, str, str]]:
        """Return id, state and message of each order of this target; none where the provider has never answered."""
        of_target = "target = (SELECT target FROM purpose)"
        return self._rows.execute(f"SELECT id, state, message FROM orders WHERE {of_target} ORDER BY id").fetchall()

    def counts(self) -> QuadCounts:
        """Return where the quads stand."""
        count = Counter(dict(self._rows.execute("SELECT state, count(*) FROM quads GROUP BY state")))
        (twice,) = self._rows.execute("SELECT count(*) FROM quads WHERE times > 1").fetchone()
        asked = count["there"] + count["missing"] + count["waiting"]
        states = {state: count[state] for state in get_args(QuadState)}
        return QuadCounts(grid=asked + count["absent"], asked=asked, twice=twice, **states)

    def named(self, state: QuadState, limit: int) -> dict[str, str]:
        """Return messages of the first quads of a state, by id."""
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

    def there(self) -> Iterator[tuple[int, int, str, str]]:
        """Yield row, column, id and asset of what is there, neighbours together."""
        yield from self._rows.execute(f"SELECT y, x, id, asset FROM quads WHERE state = 'there' {_IN_ORDER}")

    def _target(self) -> str:
        return str(self._rows.execute("SELECT target FROM purpose").fetchone()[0])

    def _chunks(self, query: str) -> Iterator[list[Any]]:
        """Yield rows of a query on quads, some at a time, so that others may be written between."""
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
                if self._rows.in_transaction:  # SQLite itself has ended it where the disk is full
                    self._rows.execute("ROLLBACK")
                raise
            self._rows.execute("COMMIT")

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            cure = _CURES.get(
                code, "If it is damaged, delete it and plan again; quads that are there are not downloaded again."
            )
            raise OrderError(f"The ledger of quads {self._path} cannot be used: {error}. {cure}") from error


def _unordered(retry: bool) -> str:
    new = "state = 'waiting' AND (y, x) NOT IN (SELECT y, x FROM taken)"
    return f"({new}) OR state = 'missing'" if retry else new


@contextmanager
def quad_ledger(path: Path) -> Iterator[QuadLedger]:
    """Open a ledger for the block, which no other process of this machine then does."""
    with locked(path), closing(QuadLedger(path)) as ledger:
        yield ledger


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def list_quads(
    api: BasemapApi,
    ledger: QuadLedger,
    folder: Path,
    *,
    mosaic: str,
    region: BaseGeometry,
    digest: str,
    delivery: BucketDelivery | None = None,
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
    delivery
        Bucket that the quads are ordered for; None where they are downloaded.
    advance
        Told of the number of ranges that are listed, and of all.

    Raises
    ------
    OrderError
        There is no such mosaic, the region has none of its quads, the folder is another's, or the API cannot be asked.
    """
    found = api.mosaic(mosaic)
    _claim(folder, found)
    target = found.id if delivery is None else f"{found.id} {delivery.place}"
    ledger.begin(target, digest, ranges := found.ranges(region))
    open_ = ledger.unlisted()
    for number, area in enumerate(open_, start=len(ranges) - len(open_) + 1):
        ledger.list_range(area, api, found)
        advance(number, len(ranges))
    return found


def _claim(folder: Path, mosaic: Mosaic) -> None:
    """Make a folder that of a mosaic, or refuse one that is another's, because quads of all mosaics are called alike."""
    path = folder / MOSAIC_FILE
    facts = {"id": mosaic.id, "name": mosaic.name, "quad_size": mosaic.quad_size, "resolution": mosaic.resolution}
    dates = {"start": mosaic.start.astimezone(UTC).isoformat(), "end": mosaic.end.astimezone(UTC).isoformat()}
    # Whoever is first, of several that may begin at once, says whose it is.
    with suppress(OutputExistsError), staged(path, overwrite=False) as draft:
        draft.write_text(json.dumps(facts | dates, indent=1) + "\n")
    content = json_value(path.read_bytes(), what=str(path), error=OrderError)
    with wrap_damage(str(path), OrderError):
        other, name = content["id"], content["name"]
    if other != mosaic.id:
        raise OrderError(
            f"{folder} holds quads of {name} ({other}); this order is for {mosaic.name} ({mosaic.id}). Choose another folder in out."
        )
