"""Quads of a basemap that Planet delivers to a bucket: ordering them, asking for the orders, and the table of what has arrived."""

import json
import time
import warnings
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from operator import index
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from rtsx.errors import CubeError, OrderError, OrderNotFoundError
from rtsx.ordering.basemap import Mosaic
from rtsx.ordering.catalog import raster_fields, with_band_names, write_items
from rtsx.ordering.provider import Batch, BucketDelivery, Checksum, QuadProvider
from rtsx.ordering.quads import QuadLedger, QuadResult, QuadState
from rtsx.parsing import json_value, wrap_damage
from rtsx.storage import file_system
from rtsx.storage.retry import classify_error

_LOOK_AGAIN_S = 60.0
"""Time after which the provider is asked again what it has been ordered, before more is."""
_OPENED_TOGETHER = 32
"""Quads of a bucket that are opened at a time, each once."""
_CHANGES = ("md5Hash", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated")
"""What file systems of fsspec call what changes with the content of a file."""
_MOST_UNOPENED = 20
"""Quads that cannot be opened, before one can be, after which the bucket is taken to be at fault."""


def order_quads(
    provider: QuadProvider,
    ledger: QuadLedger,
    *,
    name: str,
    mosaic: Mosaic,
    delivery: BucketDelivery,
    retry: bool = False,
    confirm: Callable[[int], None] = lambda count: None,
) -> None:
    """Order the quads of a ledger that no order has; call it as often as you like, because nothing is ordered twice.

    What the provider has been ordered to deliver there before counts, whether the ledger knows it or not. It is asked before `confirm`, after
    it, and once a minute while orders are placed. Quads whose orders have failed or were cancelled are *missing* then.

    Parameters
    ----------
    provider
        Planet, for quads of this mosaic.
    ledger
        The ledger; `list_quads` has filled it.
    name
        Names of the orders begin with it.
    mosaic, delivery
        What is ordered, and for where; as `list_quads` was given.
    retry
        Also order again what was not delivered, for which the bucket is looked at.
    confirm
        Told of the number of quads before the first is ordered; nothing is ordered if it raises.

    Raises
    ------
    OrderError
        The provider refuses, as where the quota is used up, more is left to order than was confirmed, or with `retry` the bucket cannot be
        read; or, after all is ordered, an order of the ledger is not known to the provider. What was ordered is kept.
    """
    unknown = _update(provider, ledger)
    if retry:
        _compare(ledger, mosaic, delivery)
    if left := ledger.unordered(retry=retry):
        confirm(left)
    while left:
        _update(provider, ledger)
        if (count := ledger.unordered(retry=retry)) > left:
            raise OrderError(
                f"{count} quads are to be ordered now, and {left} of those that were confirmed are left: orders have failed meanwhile. Run the "
                "same command again."
            )
        left, looked = count, time.monotonic()
        for batch in ledger.gather(name, size=provider.batch_size, retry=retry):
            ledger.enter(batch, provider.submit(batch))
            left -= len(batch.scene_ids)
            if time.monotonic() - looked >= _LOOK_AGAIN_S:
                break  # and gather anew
    if unknown:
        raise OrderError("\n".join(unknown))


def collect_quads(
    provider: QuadProvider, ledger: QuadLedger, *, mosaic: Mosaic, delivery: BucketDelivery, table: Path
) -> None:
    """Ask for the orders, compare what was ordered with what is in the bucket, and write the table of that.

    Each order has a manifest there, and its folder is listed once: a quad is there if the bucket has it with the size that the manifest
    states, by whichever of its orders, and it is whole: the bucket states the MD5 of the manifest, or it opens as a raster of its ground, which the
    ledger remembers until it changes. Where an order's folder is empty, its quads are *missing*. Where it cannot be read, or holds archives,
    they stay *waiting*, and a warning says what to do, as of orders that the provider does not know.

    Raises
    ------
    OrderError
        The provider cannot be asked, or the bucket has no order that can be read, of those that were delivered.
    """
    for fault in _update(provider, ledger):
        warnings.warn(fault, RuntimeWarning, stacklevel=2)
    _compare(ledger, mosaic, delivery)
    write_items(ledger, table, mosaic)


def _update(provider: QuadProvider, ledger: QuadLedger) -> list[str]:
    """Enter every order that the provider lists, and ask for those of the ledger that it does not; returns what it says of those it does not know."""
    listed, unknown = set(), []
    for batch, status in provider.placed():
        ledger.enter(batch, status)
        listed.add(status.order_id)
    for order_id in ledger.orders_open() - listed:
        batch = Batch(name=order_id, scene_ids=())  # whose quads the ledger knows
        try:
            ledger.enter(batch, provider.status(batch, order_id))
        except OrderNotFoundError as error:
            unknown.append(f"Order {order_id}, whose quads are not ordered again: {error}")
    ledger.settle_failed()
    return unknown


def _compare(ledger: QuadLedger, mosaic: Mosaic, delivery: BucketDelivery) -> None:
    """Settle the quads of all orders that were delivered by what is in the bucket."""
    ledger.compare(_results(ledger, mosaic, delivery))


class _EmptyFolderError(OrderError):
    """The bucket has nothing of an order."""


def _results(ledger: QuadLedger, mosaic: Mosaic, delivery: BucketDelivery) -> Iterator[QuadResult]:
    """Yield states of the quads of all orders that were delivered; an order or quad that cannot be read stops no other."""
    looks = _Looks(mosaic, delivery)
    unread: list[OrderError] = []
    is_one_read = False
    for order in ledger.orders_delivered():
        folder = delivery.folder_of(order.order_id)
        try:
            files = _manifest(folder, order.order_id, mosaic)
        except OrderError as error:
            unread.append(error)
            # What may lie there is never ordered again.
            state: QuadState = "missing" if isinstance(error, _EmptyFolderError) else "waiting"
            yield from ((state, None, None, str(error), *place) for place in order.places.values())
            continue
        is_one_read = True
        there: dict[tuple[int, int], _File] = {}
        for name, place in order.places.items():
            file = files.get(f"{name}_quad.tif")
            if file is None or file.fault:
                reason = f"it was not delivered: {order.message}" if file is None else file.fault
                yield "missing", None, None, reason, *place
            else:
                there[place] = file
        known = ledger.opened(order.order_id)
        new = {place: file for place, file in there.items() if not file.is_whole and known.get(place) != file.mark}
        faults = looks.faults(folder, new)
        if not looks.fields:
            faults |= looks.faults(folder, {place: there[place] for place in there.keys() - faults}, until_open=True)
        ledger.note_opened(order.order_id, {place: file.mark for place, file in new.items() if place not in faults})
        for place, file in there.items():
            if place in faults:
                state, reason = faults[place]
                yield state, None, None, reason, *place
                continue
            asset = {
                "href": f"{folder}/{file.path}",
                "file:size": file.size,
                "proj:transform": mosaic.transform(*place),
            }
            if file.checksum is not None:
                asset["file:checksum"] = file.checksum.multihash
            yield "there", file.size, json.dumps(looks.fields | asset), "", *place
    looks.require_one()
    if unread and not is_one_read:
        raise unread[0]
    for fault in unread:
        warnings.warn(str(fault), RuntimeWarning, stacklevel=2)


class _Looks:
    """Opens files of a bucket, and finds whether they or the bucket are at fault."""

    def __init__(self, mosaic: Mosaic, delivery: BucketDelivery) -> None:
        self._mosaic, self._delivery = mosaic, delivery
        self.fields: dict[str, Any] = {}
        """Fields of the asset that all quads have; empty until one can be opened."""
        self._unopened: list[str] = []

    def faults(
        self, folder: str, files: Mapping[tuple[int, int], "_File"], *, until_open: bool = False
    ) -> dict[tuple[int, int], tuple[QuadState, str]]:
        """Return states and messages of files that cannot be opened: of a damaged one *missing*, of one that cannot be reached *waiting*.

        All are looked at, or so many `until_open` one is.
        """
        found: dict[tuple[int, int], tuple[QuadState, str]] = {}
        waiting = iter(files.items())
        with ThreadPoolExecutor(_OPENED_TOGETHER) as pool:
            # One by one until the first is open, because the bucket may be at fault.
            while some := dict(islice(waiting, _OPENED_TOGETHER if self.fields else 1)):
                opened = pool.map(lambda one: self._opened(f"{folder}/{one[1].path}", one[0]), some.items())
                for place, outcome in zip(some, opened, strict=True):
                    if isinstance(outcome, dict):
                        self.fields = self.fields or outcome
                        continue
                    found[place] = outcome
                    self._unopened.append(outcome[1])
                    if len(self._unopened) >= _MOST_UNOPENED:
                        self.require_one()
                if until_open and self.fields:
                    break
        return found

    def require_one(self) -> None:
        """Raise where files were looked at, and none can be opened."""
        if self._unopened and not self.fields:
            raise OrderError(
                f"{len(self._unopened)} quads in {self._delivery.bucket} cannot be opened, and none can: {self._unopened[0]} Check that this "
                "machine may read it."
            )

    def _opened(self, href: str, place: tuple[int, int]) -> dict[str, Any] | tuple[QuadState, str]:
        """Return fields of the asset, or why there are none."""
        from rtsx.cube.rasterio import read_header, require_raster  # here, because what orders needs none

        try:
            fields = raster_fields(header := read_header(href), {})
            require_raster(href)
        except CubeError as error:
            return "missing" if classify_error(error) != "passing" and _has_bytes(href) else "waiting", str(error)
        expected = self._mosaic.transform(*place)
        apart = max(abs(one - other) for one, other in zip(fields["proj:transform"], expected, strict=True))
        if header.geobox.shape != (self._mosaic.quad_size,) * 2 or apart > 0.01 * self._mosaic.resolution:
            return "missing", f"{href} shows other ground than its quad. Report it to Planet."
        return with_band_names(fields)


def _has_bytes(href: str) -> bool:
    """Test whether a file can be read at all, so that what cannot be opened is damaged."""
    files, path = file_system(href, {})
    try:
        return bool(files.cat_file(path, end=1))
    except Exception:  # of the libraries of clouds, each of another kind
        return False


class _File(NamedTuple):
    """A file of an order."""

    path: str
    """Path in the folder."""
    size: int | None
    """Bytes in the bucket; None where it is not there."""
    checksum: Checksum | None
    """Checksum that the manifest states."""
    mark: str
    """Changes with the content, as far as the listing tells."""
    is_whole: bool
    """Whether the bucket states the MD5 that the manifest does."""
    fault: str
    """How the bucket's differs from the manifest's; empty where it does not, as far as the listing tells."""


def _manifest(folder: str, order_id: str, mosaic: Mosaic) -> dict[str, _File]:
    """Return files of an order that are of the mosaic, by name."""
    files, root = file_system(folder, {})
    manifest = f"{folder}/manifest.json"
    try:
        found = files.find(root, detail=True)
        text = files.cat_file(f"{root}/manifest.json") if found else b""
    except OSError as error:
        raise OrderError(
            f"{manifest} cannot be read: {error!r}. Planet has delivered the order; check bucket and path_prefix, and that you may read "
            "there."
        ) from error
    if not found:
        raise _EmptyFolderError(
            f"{folder} is empty or has gone, and {manifest} cannot be read. Planet has delivered the order; check bucket and path_prefix, or "
            "restore the folder."
        )
    content = json_value(text, what=manifest, error=OrderError)
    listed = {path.removeprefix(f"{root}/"): info for path, info in found.items()}
    stated: dict[str, _File] = {}
    archives = []
    with wrap_damage(manifest, OrderError):
        for entry in content["files"]:
            path = entry["path"].split(f"{order_id}/")[-1]  # with the folder or without it
            place = PurePosixPath(path)
            if place.parent.name == mosaic.name:
                stated[place.name] = _file(entry, what=f"{manifest}, {path}", path=path, listed=listed.get(path, {}))
            elif place.suffix == ".zip":
                archives.append(path)
    if archives and not stated:
        raise OrderError(
            f"{folder} was delivered as an archive, {archives[0]}. Unpack it there with the manifest.json that it holds, or name another "
            "path_prefix to order its quads anew."
        )
    return stated


def _file(entry: Mapping[str, Any], *, what: str, path: str, listed: Mapping[str, Any]) -> _File:
    with wrap_damage(what, OrderError):
        digests = entry.get("digests") or {}
        algorithm = next((one for one in ("sha256", "md5") if digests.get(one)), None)
        try:
            checksum = None if algorithm is None else Checksum(algorithm, digests[algorithm].lower())
        except OrderError as error:
            raise OrderError(f"{what}: {error} Restore the file from a copy.") from error
        size, stated = (None if one is None else index(one) for one in (listed.get("size"), entry.get("size")))
        fault = (
            "" if size is not None and size == (stated or size) else f"the bucket has {size or 0} of its {stated} bytes"
        )
        # Google's, or S3's, which is one where the file was written in one piece.
        google, s3, md5 = listed.get("md5Hash"), str(listed.get("ETag")).strip('"'), str(digests.get("md5")).lower()
        is_whole = bool(md5) and md5 in (s3, b64decode(google or "").hex())
        if google and not is_whole:
            fault = fault or "its MD5 in the bucket is another than Planet states"
        changed = next((listed[name] for name in _CHANGES if listed.get(name)), "")
        return _File(path, size, checksum, f"{size} {changed}", is_whole, fault)
