"""From the items that a catalog gave to the images that were asked for; the same for every kind of catalog."""

from collections.abc import Iterable, Sequence
from datetime import date

from shapely import box
from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import Image, Wanted
from rtsx.cube.source import Period
from rtsx.cube.stac.footprint import extent_of, item_footprint, raster_footprint
from rtsx.cube.stac.hrefs import Signer
from rtsx.cube.stac.images import images_of
from rtsx.cube.stac.item import ItemDict, cloud_cover_of, time_of
from rtsx.cube.stac.sentinel2 import newest_processing

__all__ = ["search_area", "selected_images"]

_MARGIN = 0.02
"""Degrees by which a catalog is asked for more than the area: about 2 km, since an item's outline is straight in degrees
where the edge of its raster is bent, by some 600 m for a tile of Sentinel-2 at 66° N. What is too much is dropped again."""


def search_area(area: BaseGeometry) -> BaseGeometry:
    """The area that a catalog is asked for: a little more than the one that images have to meet."""
    return area.buffer(_MARGIN, join_style="mitre") & box(-180, -90, 180, 90)


def selected_images(
    items: Iterable[ItemDict],
    wanted: Sequence[Wanted],
    *,
    area: BaseGeometry,
    period: Period | None,
    max_cloud_cover: float | None,
    sign: str | Signer | None,
) -> tuple[Image, ...]:
    """Images of the items that meet area, period and cloud cover, by time and then by id.

    An item that comes twice counts once, and an image of Sentinel-2 that was processed anew by its highest baseline. One
    without a date meets every period. One that does not state its cloud cover meets no `max_cloud_cover`, because a
    server that is asked leaves it out, too, and answers must not depend on the catalog. An image whose item gives no
    outline is judged by its rasters.
    """
    kept: dict[tuple[str, str], ItemDict] = {}
    for item in items:
        if _is_in_time(item, period) and _may_meet(item, area):
            kept.setdefault((str(item.get("collection")), str(item.get("id"))), item)
    # Before clouds count, because what a newer processing calls cloudy must not come back by an older one.
    clear = [item for item in newest_processing(kept.values()) if _is_clear(item, max_cloud_cover)]
    images = images_of(clear, wanted, sign=sign)
    return tuple(sorted((image for image in images if _meets(image, area)), key=_order))


def _is_in_time(item: ItemDict, period: Period | None) -> bool:
    moment = time_of(item)
    return period is None or moment is None or moment in period


def _is_clear(item: ItemDict, max_cloud_cover: float | None) -> bool:
    if max_cloud_cover is None:
        return True
    percent = cloud_cover_of(item)
    return percent is not None and percent <= max_cloud_cover


def _may_meet(item: ItemDict, area: BaseGeometry) -> bool:
    """Whether an item's outline comes near an area: its bbox, because edges are bent in between the corners."""
    outline = item_footprint(item)
    if outline is None:
        return True
    return any(_widened(part.bounds).intersects(area) for part in getattr(outline, "geoms", [outline]))


def _widened(bounds: tuple[float, float, float, float]) -> BaseGeometry:
    """A box that also holds edges that are straight on a projected grid, which lie outside the box of their corners."""
    west, south, east, north = bounds
    margin = max(east - west, north - south) / 8
    return extent_of((west - margin, max(south - margin, -90), east + margin, min(north + margin, 90)))


def _meets(image: Image, area: BaseGeometry) -> bool:
    if image.footprint is not None:
        return bool(image.footprint.intersects(area))
    return any(raster_footprint(bands.geobox).intersects(area) for bands in image.bands.values())


def _order(image: Image) -> tuple[bool, date | float, str]:
    return image.time is None, 0.0 if image.time is None else image.time.timestamp(), image.id
