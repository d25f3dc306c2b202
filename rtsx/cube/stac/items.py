"""Items that are at hand: from a search of the caller's own, or written by hand."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pystac
from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import Image, Wanted
from rtsx.cube.source import ImageSource, Period
from rtsx.cube.stac.checking import sound_items
from rtsx.cube.stac.hrefs import Signer, base_of, located
from rtsx.cube.stac.item import ItemDict
from rtsx.cube.stac.selection import selected_images
from rtsx.errors import CubeError
from rtsx.storage import absolute

__all__ = ["StacItems"]


@dataclass(frozen=True)
class StacItems:
    """STAC items, given one by one, as an image source.

    Parameters
    ----------
    items
        pystac items, or items as JSON has them.

    Raises
    ------
    CubeError
        There is something else among them.

    Examples
    --------
    >>> StacItems([{"type": "Feature", "id": "a", "assets": {}}]).items[0]["id"]
    'a'
    """

    items: tuple[ItemDict, ...]
    """All of them, as JSON has them."""
    max_cloud_cover: float | None = None
    """Percent under cloud, at most; None for any."""
    sign: str | Signer | None = None
    """Signing hook for the hrefs: its name, see `check_signer`, or a function."""

    def __init__(
        self,
        items: "Iterable[pystac.Item | dict[str, Any]]",
        *,
        max_cloud_cover: float | None = None,
        sign: str | Signer | None = None,
    ) -> None:
        object.__setattr__(self, "items", tuple(_plain(item) for item in items))
        object.__setattr__(self, "max_cloud_cover", max_cloud_cover)
        object.__setattr__(self, "sign", sign)

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[Wanted]) -> tuple[Image, ...]:
        """Images by time, then id; see `ImageSource`."""
        return selected_images(
            sound_items(self.items, "The list of items"),
            wanted,
            area=area,
            period=period,
            max_cloud_cover=self.max_cloud_cover,
            sign=self.sign,
        )


def _plain(item: object) -> ItemDict:
    if isinstance(item, pystac.Item):
        # As they are, because pystac would rewrite hrefs to be relative to the item.
        item = item.to_dict(include_self_link=True, transform_hrefs=False)
    if isinstance(item, dict) and "assets" in item:
        with suppress(AttributeError, TypeError):  # one that is odd is told of with the others
            # Made absolute here, because it may be read from another working folder, and by somebody with another home.
            assets = {
                key: {**asset, "href": absolute(asset["href"])} if str(asset.get("href")).startswith("~") else asset
                for key, asset in item["assets"].items()
            }
            return located({**item, "assets": assets}, absolute(base_of(item) or "item.json"))
        return item
    raise CubeError(
        f"Items are pystac items or their JSON with 'assets'; got {type(item).__name__} {str(item)[:80]!r}."
    )


_conforms: type[ImageSource] = StacItems
