"""Quads of a basemap that Planet delivers to a bucket: ordering them, asking for the orders, and the table of what has arrived."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtsx.cube.rasterio import read_header
from rtsx.errors import OrderError
from rtsx.ordering.basemap import Mosaic
from rtsx.ordering.catalog import raster_fields
from rtsx.ordering.provider import Batch, Checksum, Provider, State
from rtsx.ordering.quads import QuadBatch, QuadLedger, QuadResult, with_band_names
from rtsx.parsing import STRICT, json_value, wrap_damage
from rtsx.storage import file_system

_OVER: tuple[State, ...] = ("success", "partial", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class BucketDelivery:
    """A bucket that Planet writes to; its keys are with Planet's Destinations API, and rtsx never sees them.

    Raises
    ------
    OrderError
        The bucket is no address.
    """

    __pydantic_config__ = STRICT

    destination: str
    """Reference of a destination, such as pl:destinations/my-bucket-qIjRfLd; `planet destinations list` shows them."""
    bucket: str
    """Address that rtsx reads the bucket by, such as gs://my-bucket."""
    path_prefix: str = ""
    """Folder in the bucket."""
    base_url: str | None = None
    """Address of Planet's APIs; Planet's own if left out."""

    def __post_init__(self) -> None:
        """Check the address, which means the same in every working folder."""
        if "://" not in self.bucket and not self.bucket.startswith("/"):
            raise OrderError(
                f"An address such as gs://my-bucket was expected, got {self.bucket!r}. Add its scheme, or name the folder that it is "
                "mounted at by its absolute path."
            )

    def folder_of(self, order_id: str) -> str:
        """Address of the folder of an order."""
        return "/".join(filter(None, (self.bucket.rstrip("/"), self.path_prefix.strip("/"), order_id)))


def order_quads(provider: Provider, ledger: QuadLedger, *, name: str, retry: bool = False) -> None:
    """Order the quads of a ledger that wait; call it as often as you like, because nothing is ordered twice.

    Parameters
    ----------
    provider
        Planet, for quads of this mosaic.
    ledger
        The ledger; `list_quads` has filled it. It has a batch before the provider is called, and its state afterwards.
    name
        Names of the orders begin with it.
    retry
        Also order again what was not delivered.

    Raises
    ------
    OrderError
        The provider refuses, as where the quota is used up; what was ordered is kept.
    """
    ledger.gather(name, size=provider.batch_size, retry=retry)
    for batch in ledger.batches("submitting"):
        ledger.answer(batch.name, provider.submit(Batch(name=batch.name, scene_ids=tuple(batch.places))))


def collect_quads(
    provider: Provider, ledger: QuadLedger, *, mosaic: Mosaic, delivery: BucketDelivery, table: Path
) -> None:
    """Ask for the orders that are not over, compare what was ordered with what is in the bucket, and write the table of that.

    Each order has a manifest there, and its folder is listed once: a quad is there if the bucket has it with the size that the manifest
    states.

    Raises
    ------
    OrderError
        The provider cannot be asked, or the bucket cannot be read or has nothing of an order that was delivered.
    """
    for batch in ledger.batches("queued", "running"):
        named = Batch(name=batch.name, scene_ids=tuple(batch.places))
        ledger.answer(batch.name, provider.status(named, str(batch.order_id)))
    for batch in ledger.batches(*_OVER):
        ledger.settle(list(_results(batch, mosaic, delivery)))
    ledger.write_items(table, mosaic)


def _results(batch: QuadBatch, mosaic: Mosaic, delivery: BucketDelivery) -> Iterator[QuadResult]:
    """States of the quads of an order that is over."""
    if batch.state in ("failed", "cancelled"):
        for place in batch.places.values():
            yield "missing", None, None, f"its order has {batch.state}: {batch.message}", *place
        return
    folder = delivery.folder_of(str(batch.order_id))
    stated, sizes = _manifest(folder, str(batch.order_id))
    fields: dict[str, Any] = {}
    for name, place in batch.places.items():
        path, entry = stated.get(f"{name}_quad.tif", ("", {}))
        size = sizes.get(path)
        if not entry:
            yield "missing", None, None, f"it was not delivered: {batch.message}", *place
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
