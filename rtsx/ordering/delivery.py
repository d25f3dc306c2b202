"""Quads of a basemap that Planet delivers to a bucket: ordering them, asking for the orders, and the table of what has arrived."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rtsx.cube.rasterio import read_header
from rtsx.errors import OrderError
from rtsx.ordering.basemap import Mosaic
from rtsx.ordering.catalog import raster_fields
from rtsx.ordering.provider import Batch, BucketDelivery, Checksum, QuadProvider
from rtsx.ordering.quad_items import with_band_names, write_items
from rtsx.ordering.quads import QuadLedger, QuadOrder, QuadResult
from rtsx.parsing import json_value, wrap_damage
from rtsx.storage import file_system


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

    What the provider has been ordered to deliver there before counts, whether the ledger knows it or not.

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
        The provider refuses, as where the quota is used up, or with `retry` the bucket cannot be read; what was ordered is kept.
    """
    _update(provider, ledger)
    if retry:
        _compare(ledger, mosaic, delivery)
    if count := ledger.unordered(retry=retry):
        confirm(count)
    for batch in ledger.gather(name, size=provider.batch_size, retry=retry):
        ledger.enter(batch, provider.submit(batch))


def collect_quads(
    provider: QuadProvider, ledger: QuadLedger, *, mosaic: Mosaic, delivery: BucketDelivery, table: Path
) -> None:
    """Ask for the orders, compare what was ordered with what is in the bucket, and write the table of that.

    Each order has a manifest there, and its folder is listed once: a quad is there if the bucket has it with the size that the manifest
    states.

    Raises
    ------
    OrderError
        The provider cannot be asked, or the bucket cannot be read or has nothing of an order that was delivered.
    """
    _update(provider, ledger)
    _compare(ledger, mosaic, delivery)
    write_items(ledger, table, mosaic)


def _update(provider: QuadProvider, ledger: QuadLedger) -> None:
    """Enter every order that the provider lists, and ask for those of the ledger that it does not."""
    listed = set()
    for batch, status in provider.placed():
        ledger.enter(batch, status)
        listed.add(status.order_id)
    for order_id in ledger.orders_open() - listed:
        batch = Batch(name=order_id, scene_ids=())  # whose quads the ledger knows
        ledger.enter(batch, provider.status(batch, order_id))


def _compare(ledger: QuadLedger, mosaic: Mosaic, delivery: BucketDelivery) -> None:
    """Settle the quads of all orders that are over by what is in the bucket."""
    for order in ledger.orders_over():
        ledger.settle(list(_results(order, mosaic, delivery)))


def _results(order: QuadOrder, mosaic: Mosaic, delivery: BucketDelivery) -> Iterator[QuadResult]:
    """States of the quads of an order that is over."""
    if order.state in ("failed", "cancelled"):
        for place in order.places.values():
            yield "missing", None, None, f"its order has {order.state}: {order.message}", *place
        return
    folder = delivery.folder_of(order.order_id)
    stated, sizes = _manifest(folder, order.order_id)
    fields: dict[str, Any] = {}
    for name, place in order.places.items():
        path, entry = stated.get(f"{name}_quad.tif", ("", {}))
        size = sizes.get(path)
        if not entry:
            yield "missing", None, None, f"it was not delivered: {order.message}", *place
        elif size is None or size != entry.get("size", size):
            yield "missing", None, None, f"the bucket has {size or 0} of its {entry.get('size')} bytes", *place
        else:
            href = f"{folder}/{path}"
            fields = fields or _fields(href, mosaic, place)
            asset = fields | {"href": href, "file:size": size, "proj:transform": mosaic.transform(*place)}
            digests = entry.get("digests") or {}
            for algorithm in ("sha256", "md5"):
                if digests.get(algorithm):
                    asset["file:checksum"] = Checksum(algorithm, digests[algorithm].lower()).multihash
                    break
            yield "there", size, json.dumps(asset), "", *place


def _manifest(folder: str, order_id: str) -> tuple[dict[str, tuple[str, dict[str, Any]]], dict[str, int]]:
    """Path and entry of each file of an order's manifest, by its name, and the size of what is in the bucket, by its path."""
    files, root = file_system(folder, {})
    try:
        text = files.cat_file(f"{root}/manifest.json")
        found = files.find(root, detail=True)
    except OSError as error:
        raise OrderError(
            f"{folder}/manifest.json cannot be read: {error!r}. Planet has delivered the order; check bucket and path_prefix, and "
            "that you may read there."
        ) from error
    content = json_value(text, what=f"{folder}/manifest.json", error=OrderError)
    with wrap_damage(f"{folder}/manifest.json", OrderError):
        # With the folder or without it.
        paths = {entry["path"].split(f"{order_id}/")[-1]: entry for entry in content["files"]}
    sizes = {path.removeprefix(f"{root}/"): int(info["size"]) for path, info in found.items()}
    return {path.rsplit("/", 1)[-1]: (path, entry) for path, entry in paths.items()}, sizes


def _fields(href: str, mosaic: Mosaic, place: tuple[int, int]) -> dict[str, Any]:
    """Fields of the asset that all quads of a mosaic have, read from one of them."""
    header = read_header(href)
    fields = raster_fields(header, {})
    apart = max(abs(one - other) for one, other in zip(fields["proj:transform"], mosaic.transform(*place), strict=True))
    if header.geobox.shape != (mosaic.quad_size, mosaic.quad_size) or apart > 0.01 * mosaic.resolution:
        raise OrderError(f"{href} shows other ground than its quad. Report it to Planet.")
    return with_band_names(fields)
