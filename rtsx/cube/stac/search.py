"""Searches of a STAC API as an image source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import Image, Wanted
from rtsx.cube.source import ImageSource, Period
from rtsx.cube.stac.checking import sound_items
from rtsx.cube.stac.documents import Access
from rtsx.cube.stac.hrefs import Signer
from rtsx.cube.stac.pystac_client import SearchRequest, searched_items
from rtsx.cube.stac.query import check_query, meets_query
from rtsx.cube.stac.selection import selected_images
from rtsx.errors import CubeError

__all__ = ["StacSearch"]


@dataclass(frozen=True)
class StacSearch:
    """A search of a STAC API: what it finds in an area and a period are the images.

    `max_cloud_cover` and `query` are sent where the server says that it understands them, and always applied again to
    what comes back, because servers exist that ignore them without a word. `filter` cannot be checked that way: a server
    that does not say that it understands it is refused.

    Raises
    ------
    CubeError
        A filter or query that no server could understand, or numbers out of range.

    Examples
    --------
    >>> search = StacSearch("https://stac.example.org", ("sentinel-2-l2a",), max_cloud_cover=20)
    >>> search.max_cloud_cover
    20
    """

    url: str
    """Address of the API's landing page."""
    collections: tuple[str, ...]
    """Ids of the collections to search; empty for all."""
    query: Mapping[str, Any] | None = field(default=None, kw_only=True)
    """Conditions on properties, such as ``{"platform": {"eq": "sentinel-2a"}}``."""
    filter: Mapping[str, Any] | str | None = field(default=None, kw_only=True)
    """Condition in CQL2, as JSON or as text; text needs the package ``cql2``."""
    max_cloud_cover: float | None = field(default=None, kw_only=True)
    """Percent under cloud, at most; None for any."""
    ids: tuple[str, ...] = field(default=(), kw_only=True)
    """Ids of the items that count; empty for all."""
    sign: str | Signer | None = field(default=None, kw_only=True)
    """Signing hook for the hrefs: its name, see `check_signer`, or a function; called when images are found."""
    access: Access = field(default=Access(), kw_only=True)
    """Headers, time-outs and retries."""
    page: int = field(default=100, kw_only=True)
    """Items that one answer of the server holds at most."""

    def __post_init__(self) -> None:
        """Check what can be checked without the server."""
        object.__setattr__(self, "collections", _names(self.collections, "collections"))
        object.__setattr__(self, "ids", _names(self.ids, "ids"))
        if not self.url.startswith(("http://", "https://")):
            raise CubeError(f"StacSearch asks a server at http:// or https://; got {self.url!r}. Files: StacCatalog.")
        if self.max_cloud_cover is not None and not 0 <= self.max_cloud_cover <= 100:
            raise CubeError(f"max_cloud_cover is in percent, 0 to 100; got {self.max_cloud_cover}.")
        if self.page < 1:
            raise CubeError(f"page is a number of items, at least 1; got {self.page}.")
        if self.query is not None:
            check_query(self.query)

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[Wanted]) -> tuple[Image, ...]:
        """Images by time, then id; see `ImageSource`."""
        request = SearchRequest(
            url=self.url,
            collections=self.collections,
            ids=self.ids,
            query=self.query,
            filter=self.filter,
            max_cloud_cover=self.max_cloud_cover,
            page=self.page,
        )
        items = [
            item
            for item in sound_items(searched_items(request, self.access, area=area, period=period), self.url)
            if (not self.collections or item.get("collection") in self.collections)
            and (not self.ids or item.get("id") in self.ids)
            and meets_query(item, self.query or {})
        ]
        return selected_images(
            items, wanted, area=area, period=period, max_cloud_cover=self.max_cloud_cover, sign=self.sign
        )


def _names(names: Sequence[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise CubeError(f"{what} is a list of ids; got the text {names!r}. Write [{names!r}].")
    return tuple(names)


_conforms: type[ImageSource] = StacSearch
