"""Scenes and files from a STAC API or a static catalog, where ordering is downloading."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import Period
from rtsx.cube.pinning import address_of
from rtsx.cube.stac.assets import Signer, asset_href, get_signer, newest_processing
from rtsx.cube.stac.item import ItemDict, cloud_cover_of, item_footprint, item_name, time_of
from rtsx.errors import OrderError
from rtsx.ordering.catalog import StacDocuments
from rtsx.ordering.criteria import Scene
from rtsx.ordering.provider import OF_ONE_ITEM, Batch, Checksum, OrderStatus, Provider, RemoteFile

_STRIPS = ("pl:strip_id", "landsat:wrs_path", "s2:datatake_id", "sat:absolute_orbit")
"""Properties that the images of one pass share."""
_CLEAR = ("pl:clear_percent",)


class StacProvider:
    """A STAC API or a static catalog; what is ordered is there at once.

    Parameters
    ----------
    documents
        Where its items come from.
    assets
        Keys of the assets to fetch; empty for all.
    sign
        Signing hook for the hrefs, by name or a function, see `rtsx.cube.stac.assets.check_signer`; None for hrefs that need none.
    """

    batch_size = 500
    can_clip = False

    def __init__(
        self, documents: StacDocuments, *, assets: Sequence[str] = (), sign: str | Signer | None = None
    ) -> None:
        self._documents = documents
        self._signed = (lambda href: href) if sign is None else get_signer(sign)
        self._assets = tuple(assets)
        self._items: dict[str, ItemDict] = {}

    def search(self, region: BaseGeometry, period: Period) -> tuple[Scene, ...]:
        """Scenes of the catalog, what Sentinel-2 processed anew once; see `Provider`."""
        return tuple(scene_of(item) for item in newest_processing(self._documents.search(region, period)))

    def submit(self, batch: Batch) -> OrderStatus:
        """Nothing is bought: the answer is at once that of `status`."""
        return self.status(batch, batch.name)

    def status(self, batch: Batch, order_id: str) -> OrderStatus:
        """The files of the batch's items, with links as fresh as the catalog gives them."""
        items = {str(item["id"]): item for item in self._documents.items(batch.scene_ids)}
        self._items |= items
        unknown = [key for key in self._assets if items and all(key not in item["assets"] for item in items.values())]
        if unknown:
            raise OrderError(
                f"No item has assets {unknown}; {item_name(next(iter(items.values())))} has "
                f"{sorted(next(iter(items.values()))['assets'])}. Name others in assets."
            )
        files: list[RemoteFile] = []
        faults: dict[str, OrderError] = {}
        for scene, item in items.items():
            try:
                files += self._files(item)
            except OF_ONE_ITEM as error:
                faults[scene] = OrderError(f"Scene {scene!r} cannot be fetched: {error}")
                faults[scene].__cause__ = error
        gone = [scene for scene in batch.scene_ids if scene not in items]
        message = f"no longer in the catalog: {', '.join(gone[:5])}" if gone else ""
        return OrderStatus(
            order_id=order_id,
            state="partial" if gone else "success",
            message=message,
            files=tuple(files),
            faults=faults,
        )

    def describe(self, scene_id: str, files: Sequence[Path]) -> Mapping[str, Any]:
        """The item as `status` has found it; see `Provider`."""
        return self._items[scene_id]

    def _files(self, item: Mapping[str, Any]) -> list[RemoteFile]:
        missing = [key for key in self._assets if key not in item["assets"]]
        if missing:
            raise OrderError(
                f"Item {item_name(item)} has assets {sorted(item['assets'])}; {missing} are wanted too. Name others in assets."
            )
        files = [
            _file(item, key, href=href, headers=self._documents.headers_for(href))
            for key in item["assets"]
            if not self._assets or key in self._assets
            for href in [self._signed(address_of(asset_href(item, key)))]
        ]
        taken: set[str] = set()
        for index, file in enumerate(files):
            if file.name in taken:  # several assets called index.json, for example
                files[index] = replace(file, name=f"{file.asset}_{file.name}")
            taken.add(files[index].name)
        return files


def scene_of(item: Mapping[str, Any]) -> Scene:
    """The candidate that an item describes.

    Raises
    ------
    OrderError
        It has no date, or no outline.
    """
    properties = item.get("properties") or {}
    time, footprint = time_of(item), item_footprint(item)
    if time is None or footprint is None:
        raise OrderError(
            f"Item {item_name(item)} has no date or no geometry, so it cannot be planned with. Leave it out."
        )
    return Scene(
        id=str(item["id"]),
        footprint=footprint,
        time=time,
        cloud_cover=cloud_cover_of(item),
        clear_percent=next((float(properties[key]) for key in _CLEAR if key in properties), None),
        strip=next((str(properties[key]) for key in _STRIPS if key in properties), ""),
        collection=str(item.get("collection") or ""),
    )


def _file(item: Mapping[str, Any], key: str, *, href: str, headers: Mapping[str, str]) -> RemoteFile:
    asset = item["assets"][key]
    try:
        size, checksum = _size(asset.get("file:size")), asset.get("file:checksum")
        known = None if checksum is None else Checksum.from_multihash(checksum)
    except OrderError as error:
        raise OrderError(f"Asset {key!r}: {error} Correct the item, or name other assets in assets.") from error
    return RemoteFile(
        scene_id=str(item["id"]),
        asset=key,
        name=PurePosixPath(urlsplit(asset["href"]).path).name or key,
        href=href,
        size=size,
        checksum=known,
        media_type=asset.get("type"),
        headers=headers,
    )


def _size(stated: object) -> int | None:
    """Bytes that an item states, also as text.

    Raises
    ------
    OrderError
        They are no number of bytes.
    """
    if stated is None:
        return None
    if isinstance(stated, bool) or not re.fullmatch(r"\d+", str(stated)):
        raise OrderError(f"file:size is a number of bytes; got {stated!r}.")
    return int(str(stated))


_conforms: type[Provider] = StacProvider
