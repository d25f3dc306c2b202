"""Tables of items in GeoParquet, as large archives publish them and as a search is kept for later."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import Image, Wanted
from rtsx.cube.source import ImageSource, Period
from rtsx.cube.stac.checking import sound_items
from rtsx.cube.stac.hrefs import Signer
from rtsx.cube.stac.pyarrow import table_items
from rtsx.cube.stac.selection import selected_images
from rtsx.storage import absolute

__all__ = ["ItemTable"]


@dataclass(frozen=True)
class ItemTable:
    """A GeoParquet table of STAC items (the stac-geoparquet layout) as an image source.

    Box and dates are pushed down: row groups that cannot hold anything are not read.

    Examples
    --------
    >>> ItemTable("/data/items.parquet", max_cloud_cover=30).path
    '/data/items.parquet'
    """

    path: str
    """Path or URL of a Parquet file, or of a folder of them."""
    collections: tuple[str, ...] = field(default=(), kw_only=True)
    """Ids of the collections whose items count; empty for all."""
    max_cloud_cover: float | None = field(default=None, kw_only=True)
    """Percent under cloud, at most; None for any."""
    sign: str | Signer | None = field(default=None, kw_only=True)
    """Signing hook for the hrefs: its name, see `check_signer`, or a function."""

    def __post_init__(self) -> None:
        """Make the path mean the same in every working folder."""
        object.__setattr__(self, "path", absolute(self.path))

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[Wanted]) -> tuple[Image, ...]:
        """Images by time, then id; see `ImageSource`."""
        return selected_images(
            sound_items(table_items(self.path, collections=self.collections, area=area, period=period), self.path),
            wanted,
            area=area,
            period=period,
            max_cloud_cover=self.max_cloud_cover,
            sign=self.sign,
        )


_conforms: type[ImageSource] = ItemTable
