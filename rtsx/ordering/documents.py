"""STAC items as plain documents, from an API or from the files of a static catalog."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from shapely import box
from shapely.geometry.base import BaseGeometry

from rtsx.cube.source import Period
from rtsx.cube.stac.checking import oddity_of, sound_items
from rtsx.cube.stac.documents import Access, is_same_host, read_document
from rtsx.cube.stac.footprint import item_footprint
from rtsx.cube.stac.hrefs import absolute_href, located
from rtsx.cube.stac.item import ItemDict, time_of
from rtsx.cube.stac.pystac_client import SearchRequest, searched_items
from rtsx.errors import CubeError
from rtsx.parsing import damage_told
from rtsx.storage import absolute

__all__ = ["StacApi", "StacDocuments", "StaticCatalog"]

_IDS_AT_ONCE = 100


class StacDocuments(Protocol):
    """Where items come from; their hrefs count from their ``self`` link. Errors are `CubeError`."""

    def search(self, region: BaseGeometry, period: Period) -> Iterable[ItemDict]:
        """Items that meet a region (longitude and latitude) within a period."""

    def items(self, ids: Sequence[str]) -> Iterable[ItemDict]:
        """Items by id; those that are not there are left out."""

    def headers_for(self, href: str) -> dict[str, str]:
        """Headers that the request of an asset needs; none for another host, because they may hold a key."""


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

    def __init__(self, url: str, collections: Sequence[str], *, access: Access | None = None) -> None:
        self._url = url
        self._collections = tuple(collections)
        self._access = access or Access()

    def search(self, region: BaseGeometry, period: Period) -> Iterator[ItemDict]:
        """Items of the collections that the server finds."""
        found = sound_items(searched_items(self._request(()), self._access, area=region, period=period), self._url)
        return (item for item in found if _within(item, region, period))

    def items(self, ids: Sequence[str]) -> Iterator[ItemDict]:
        """Items of the collections with these ids, a hundred at a time."""
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = tuple(ids[start : start + _IDS_AT_ONCE])
            found = searched_items(self._request(some), self._access, area=box(-180, -90, 180, 90), period=None)
            yield from _asked(found, some)  # servers exist that ignore ids

    def headers_for(self, href: str) -> dict[str, str]:
        """The headers of each request, for its own host."""
        return dict(self._access.headers) if is_same_host(self._url, href) else {}

    def _request(self, ids: tuple[str, ...]) -> SearchRequest:
        return SearchRequest(
            url=self._url,
            collections=self._collections,
            ids=ids,
            query=None,
            filter=None,
            max_cloud_cover=None,
            page=_IDS_AT_ONCE,
        )


class StaticCatalog:
    """A catalog or collection of files; every one of its items is read for every question.

    Parameters
    ----------
    href
        Path or URL of its root document.
    access
        Headers, time-outs and retries.
    """

    def __init__(self, href: str, *, access: Access | None = None) -> None:
        self._href = absolute(href)
        self._access = access or Access()

    def search(self, region: BaseGeometry, period: Period) -> Iterator[ItemDict]:
        """Items whose outline meets the region."""
        return (item for item in sound_items(self._walk(), self._href) if _within(item, region, period))

    def items(self, ids: Sequence[str]) -> Iterator[ItemDict]:
        """Items with these ids."""
        return _asked(self._walk(), ids)

    def headers_for(self, href: str) -> dict[str, str]:
        """The headers of each request, for its own host."""
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
            with damage_told(href, CubeError):
                links = [link for link in document.get("links") or () if link.get("rel") in ("child", "item")]
                waiting += [absolute_href(link["href"], href) for link in reversed(links)]


def _asked(items: Iterable[object], ids: Sequence[str]) -> Iterator[ItemDict]:
    """Items with these ids; what is odd about one is found when its files are asked for."""
    return (item for item in items if isinstance(item, Mapping) and item.get("id") in ids)


def _within(item: ItemDict, region: BaseGeometry, period: Period) -> bool:
    time, footprint = time_of(item), item_footprint(item)
    return time is not None and time in period and footprint is not None and bool(footprint.intersects(region))
