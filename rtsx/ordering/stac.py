"""Scenes and files from a STAC API or a static catalog, where ordering is downloading."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from shapely import box
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import Period
from rtsx.cube.stac.assets import Signer, absolute_href, address_of, asset_href, get_signer, located, newest_processing
from rtsx.cube.stac.client import HttpAccess, is_same_host, oddity_of, read_document, searched_items, sound_items
from rtsx.cube.stac.item import ItemDict, cloud_cover_of, item_footprint, item_name, time_of
from rtsx.cube.stac.sources import StacSearch
from rtsx.errors import CubeError, OrderError
from rtsx.ordering.criteria import Scene
from rtsx.ordering.provider import OF_ONE_ITEM, Batch, Checksum, OrderStatus, Provider, RemoteFile
from rtsx.parsing import wrap_damage
from rtsx.storage import absolute

_STRIPS = ("pl:strip_id", "landsat:wrs_path", "s2:datatake_id", "sat:absolute_orbit")
"""Properties that the images of one pass share."""
_IDS_AT_ONCE = 100


class StacDocuments(Protocol):
    """Where items come from; their hrefs count from their ``self`` link. Errors are `CubeError`."""

    def search(self, region: BaseGeometry, period: Period) -> Iterable[ItemDict]:
        """Return items that meet a region (longitude and latitude) within a period."""

    def items(self, ids: Sequence[str]) -> Iterable[ItemDict]:
        """Return items by id; those that are not there are left out."""

    def headers_for(self, href: str) -> dict[str, str]:
        """Return headers that the request of an asset needs; none for another host, because they may hold a key."""


class StacApi:
    """A STAC API.

    Parameters
    ----------
    url
        Its landing page.
    collections
        Collections that are searched; empty for all.
    access
        Headers, time-outs and retries.
    """

    def __init__(self, url: str, collections: Sequence[str], *, access: HttpAccess | None = None) -> None:
        self._url = url
        self._collections = tuple(collections)
        self._access = access or HttpAccess()

    def search(self, region: BaseGeometry, period: Period) -> Iterator[ItemDict]:
        """Return items of the collections that the server finds."""
        found = sound_items(self._searched((), area=region, period=period), self._url)
        return (item for item in found if _within(item, region, period))

    def items(self, ids: Sequence[str]) -> Iterator[ItemDict]:
        """Yield items of the collections with these ids, a hundred at a time."""
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = tuple(ids[start : start + _IDS_AT_ONCE])
            found = self._searched(some, area=box(-180, -90, 180, 90), period=None)
            yield from _asked(found, some)  # servers exist that ignore ids

    def headers_for(self, href: str) -> dict[str, str]:
        """Return the headers of each request, for its own host."""
        return dict(self._access.headers) if is_same_host(self._url, href) else {}

    def _searched(self, ids: tuple[str, ...], *, area: BaseGeometry, period: Period | None) -> Iterator[object]:
        search = StacSearch(self._url, self._collections, ids=ids, page=_IDS_AT_ONCE, access=self._access)
        return searched_items(search, area=area, period=period)


class StaticCatalog:
    """A catalog or collection of files; every one of its items is read for every question.

    Parameters
    ----------
    href
        Path or URL of its root document.
    access
        Headers, time-outs and retries.
    """

    def __init__(self, href: str, *, access: HttpAccess | None = None) -> None:
        self._href = absolute(href)
        self._access = access or HttpAccess()

    def search(self, region: BaseGeometry, period: Period) -> Iterator[ItemDict]:
        """Return items whose outline meets the region."""
        return (item for item in sound_items(self._walk(), self._href) if _within(item, region, period))

    def items(self, ids: Sequence[str]) -> Iterator[ItemDict]:
        """Return items with these ids."""
        return _asked(self._walk(), ids)

    def headers_for(self, href: str) -> dict[str, str]:
        """Return the headers of each request, for its own host."""
        return dict(self._access.headers) if is_same_host(self._href, href) else {}

    def _walk(self) -> Iterator[object]:
        # What was seen is left out, because links of catalogs can go round.
        waiting, seen = [self._href], set[str]()
        while waiting:
            href = waiting.pop()
            if href in seen:
                continue
            seen.add(href)
            document = read_document(href, self._access, home=self._href)
            if document.get("type") == "Feature":
                yield located(document, href) if oddity_of(document) is None else document
                continue
            with wrap_damage(href, CubeError):
                links = [link for link in document.get("links") or () if link.get("rel") in ("child", "item")]
                waiting += [absolute_href(link["href"], href) for link in reversed(links)]


def _asked(items: Iterable[object], ids: Sequence[str]) -> Iterator[ItemDict]:
    """Return items with these ids; what is odd about one is found when its files are asked for."""
    return (item for item in items if isinstance(item, Mapping) and item.get("id") in ids)


def _within(item: ItemDict, region: BaseGeometry, period: Period) -> bool:
    time, footprint = time_of(item), item_footprint(item)
    return time is not None and time in period and footprint is not None and bool(footprint.intersects(region))


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
        """Return scenes of the catalog, what Sentinel-2 processed anew once; see `Provider`."""
        return tuple(scene_of(item) for item in newest_processing(self._documents.search(region, period)))

    def submit(self, batch: Batch) -> OrderStatus:
        """Nothing is bought: the answer is at once that of `status`."""
        return self.status(batch, batch.name)

    def status(self, batch: Batch, order_id: str) -> OrderStatus:
        """Return the files of the batch's items, with links as fresh as the catalog gives them."""
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
        """Return the item as `status` has found it; see `Provider`."""
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
    """Return the candidate that an item describes.

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
        clear_percent=None if (clear := properties.get("pl:clear_percent")) is None else float(clear),
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
    """Return bytes that an item states, also as text.

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
