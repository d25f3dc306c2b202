"""Quads of a basemap that Planet delivers to a bucket: ordering them, asking for the orders, and the table of what has arrived."""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from operator import index
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from rtsx.cube.rasterio import read_header
from rtsx.errors import CubeError, OrderError, OrderNotFoundError
from rtsx.ordering.basemap import Mosaic
from rtsx.ordering.catalog import raster_fields
from rtsx.ordering.provider import Batch, BucketDelivery, Checksum, QuadProvider
from rtsx.ordering.quad_items import with_band_names, write_items
from rtsx.ordering.quads import QuadLedger, QuadResult, QuadState
from rtsx.parsing import json_value, wrap_damage
from rtsx.storage import file_system

_LOOK_AGAIN_S = 60.0
"""Time after which the provider is asked again what it has been ordered, before more is."""
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
        What is ordered, and for where; as `list_quads` has been told.
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
    states, by whichever of its orders. Where an order's folder is empty, its quads are *missing*. Where it cannot be read, or holds archives,
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
    """States of the quads of all orders that were delivered; an order or quad that cannot be read stops no other."""
    fields: dict[str, Any] = {}
    unread: list[OrderError] = []
    unopened: list[str] = []
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
        for name, place in order.places.items():
            file = files.get(f"{name}_quad.tif")
            if file is None:
                yield "missing", None, None, f"it was not delivered: {order.message}", *place
                continue
            if file.size is None or file.size != (file.stated_size or file.size):
                told = f"the bucket has {file.size or 0} of its {file.stated_size} bytes"
                yield "missing", None, None, told, *place
                continue
            href = f"{folder}/{file.path}"
            try:
                fields = fields or _fields(href, mosaic, place)
            except (CubeError, OrderError) as error:
                unopened.append(str(error))
                if len(unopened) == _MOST_UNOPENED:
                    raise _unopened(delivery, unopened) from error
                yield "missing", None, None, str(error), *place
                continue
            asset = fields | {"href": href, "file:size": file.size, "proj:transform": mosaic.transform(*place)}
            if file.checksum is not None:
                asset["file:checksum"] = file.checksum.multihash
            yield "there", file.size, json.dumps(asset), "", *place
    if unopened and not fields:
        raise _unopened(delivery, unopened)
    if unread and not is_one_read:
        raise unread[0]
    for fault in unread:
        warnings.warn(str(fault), RuntimeWarning, stacklevel=2)


def _unopened(delivery: BucketDelivery, told: list[str]) -> OrderError:
    return OrderError(
        f"{len(told)} quads in {delivery.bucket} cannot be opened, and none can: {told[0]} Check that this machine may read it."
    )


class _File(NamedTuple):
    """A file of an order."""

    path: str
    """Path in the folder."""
    size: int | None
    """Bytes in the bucket; None where it is not there."""
    stated_size: int | None
    """Bytes that the manifest states."""
    checksum: Checksum | None
    """Checksum that the manifest states."""


def _manifest(folder: str, order_id: str, mosaic: Mosaic) -> dict[str, _File]:
    """Files of an order that are of the mosaic, by name."""
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
    sizes = {path.removeprefix(f"{root}/"): int(info["size"]) for path, info in found.items()}
    stated: dict[str, _File] = {}
    archives = []
    with wrap_damage(manifest, OrderError):
        for entry in content["files"]:
            path = entry["path"].split(f"{order_id}/")[-1]  # with the folder or without it
            place = PurePosixPath(path)
            if place.parent.name == mosaic.name:
                stated[place.name] = _file(entry, what=f"{manifest}, {path}", path=path, size=sizes.get(path))
            elif place.suffix == ".zip":
                archives.append(path)
    if archives and not stated:
        raise OrderError(
            f"{folder} was delivered as an archive, {archives[0]}. Unpack it there with the manifest.json that it holds, or name another "
            "path_prefix to order its quads anew."
        )
    return stated


def _file(entry: Mapping[str, Any], *, what: str, path: str, size: int | None) -> _File:
    with wrap_damage(what, OrderError):
        stated_size, digests = entry.get("size"), entry.get("digests") or {}
        algorithm = next((one for one in ("sha256", "md5") if digests.get(one)), None)
        try:
            checksum = None if algorithm is None else Checksum(algorithm, digests[algorithm].lower())
        except OrderError as error:
            raise OrderError(f"{what}: {error} Restore the file from a copy.") from error
        return _File(path, size, None if stated_size is None else index(stated_size), checksum)


def _fields(href: str, mosaic: Mosaic, place: tuple[int, int]) -> dict[str, Any]:
    """Fields of the asset that all quads of a mosaic have, read from one of them."""
    header = read_header(href)
    fields = raster_fields(header, {})
    apart = max(abs(one - other) for one, other in zip(fields["proj:transform"], mosaic.transform(*place), strict=True))
    if header.geobox.shape != (mosaic.quad_size, mosaic.quad_size) or apart > 0.01 * mosaic.resolution:
        raise OrderError(f"{href} shows other ground than its quad. Report it to Planet.")
    return with_band_names(fields)
