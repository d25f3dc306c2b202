"""Downloading the quads of a basemap: fetching them once, and stopping where going on is of no use."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from threading import Lock
from typing import Any

from rtsx.errors import OrderError
from rtsx.ordering.basemap import BasemapApi, Mosaic, cure_of
from rtsx.ordering.catalog import described_asset, with_band_names, write_items
from rtsx.ordering.download import HttpError, download_threads, fetch_file
from rtsx.ordering.order import locked
from rtsx.ordering.provider import RemoteFile
from rtsx.ordering.quads import MOSAIC_FILE, QuadCounts, QuadLedger, QuadResult, WantedQuad
from rtsx.redaction import redacted

_SETTLED_TOGETHER = 50
"""Quads after which the ledger is written; what a crash leaves out is found in the folder."""
_FAILURES_IN_A_ROW = 20
"""Files that cannot be had for reasons that pass, after which the server is taken to be down."""


def fetch_quads(
    api: BasemapApi,
    ledger: QuadLedger,
    folder: Path,
    *,
    mosaic: Mosaic,
    table: Path,
    parallel: int = 4,
    advance: Callable[[int, int], None] = lambda there, asked: None,
    pause: Callable[[float], None] | None = None,
) -> QuadCounts:
    """Fetch the quads of a ledger that are not in the folder, and write the table of those that are.

    A quad has its name when it is complete, and is asked for once; five times if it comes damaged, and once in each later call. Where the quota is used up or the key refused, nothing more is
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

    def fetched(wanted: WantedQuad, headers: Mapping[str, str], gate: _Gate) -> tuple[int, str]:
        """Return bytes of one quad, once it is there, and its asset as JSON."""
        file = RemoteFile(
            scene_id=wanted.name, asset="data", name=f"{wanted.name}.tif", href=wanted.href, headers=headers
        )
        path = folder / file.name
        gate.pass_through()
        fetch_file(file, path, once=wanted.was_lost, pause=gate.pause)
        asset = described_asset(path, file, {})
        try:
            _require_ground(asset, wanted, mosaic)
        except OrderError:
            path.unlink()
            raise
        return asset["file:size"], json.dumps(with_band_names(asset))

    with locked(folder / MOSAIC_FILE):
        ledger.recheck(folder)
        with download_threads(parallel, pause) as (pool, pause):
            gate = _Gate(pause)
            ended = _fetch_all(
                ledger,
                lambda one: pool.submit(fetched, one, api.headers_for(one.href), gate),
                most=2 * parallel,
                advance=advance,
            )
        write_items(ledger, table, mosaic)
    if ended is not None:
        raise ended
    return ledger.counts()


def _fetch_all(
    ledger: QuadLedger,
    fetch: Callable[[WantedQuad], Future[tuple[int, str]]],
    *,
    most: int,
    advance: Callable[[int, int], None],
) -> OrderError | None:
    """Fetch what is not in the folder, so many at a time; returns what ended it early."""
    known = ledger.counts()
    there, asked = known.there, known.asked
    ended: OrderError | None = None
    results: list[QuadResult] = []
    in_a_row = 0
    wanted = ledger.wanted()
    running: dict[Future[tuple[int, str]], tuple[int, int]] = {}
    try:
        while True:
            while ended is None and len(running) < most and (one := next(wanted, None)) is not None:
                running[fetch(one)] = one.y, one.x
            if not running:
                return ended
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
                    reason = str(cause or f"{error} The next run asks for it once.")
                    results.append(("missing", None, None, redacted(reason), *place))
                    ledger.settle(results)  # at once, because a kill would have it asked for five times again
                    results.clear()
                    # Of one quad, or of all that an account may not have.
                    in_a_row = in_a_row + 1 if isinstance(cause, HttpError) and cause.status == 403 else 0
                    if in_a_row < _FAILURES_IN_A_ROW:
                        continue
                else:
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
    finally:
        ledger.settle(results)


def _is_lost(cause: BaseException | None) -> bool:
    """Test whether a quad cannot be had, and asking for others may help: it is refused or damaged."""
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


def _require_ground(asset: Mapping[str, Any], wanted: WantedQuad, mosaic: Mosaic) -> None:
    """Refuse a quad of other ground than its place."""
    if "proj:transform" not in asset:
        raise OrderError(f"Quad {wanted.name} has no georeference. Report it to Planet.")
    (a, b, c, d, e, f), (height, width) = asset["proj:transform"], asset["proj:shape"]
    middle = (a * width / 2 + b * height / 2 + c, d * width / 2 + e * height / 2 + f)
    if asset.get("proj:epsg") != 3857 or mosaic.quad_at(*middle) != (wanted.x, wanted.y):
        raise OrderError(
            f"Quad {wanted.name} shows other ground: its middle is at {middle} in EPSG:{asset.get('proj:epsg')}. Report it to Planet."
        )
