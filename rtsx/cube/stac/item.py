"""What an item of any STAC version says about its image as a whole: when, how cloudy, and where the sun stood."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rtsx.errors import CubeError

__all__ = ["ItemDict", "cloud_cover_of", "item_name", "stamp_of", "sun_of", "time_of"]

ItemDict = Mapping[str, Any]
"""A STAC item as JSON has it. Plain mappings instead of pystac's items, because those are migrated when they are read,
cost ten times the time, and refuse documents that are odd in places nobody asks about."""

_SUN_AZIMUTH = ("view:sun_azimuth", "eo:sun_azimuth", "s2:mean_solar_azimuth", "sun_azimuth")
_SUN_ELEVATION = ("view:sun_elevation", "eo:sun_elevation", "sun_elevation")
_SUN_ZENITH = ("s2:mean_solar_zenith",)
_CLOUD_COVER = ("eo:cloud_cover",)
_CHECKSUMS = ("file:checksum", "checksum:multihash", "e-tag", "etag")


def item_name(item: ItemDict) -> str:
    """Id of an item for messages, with its collection where it says so.

    Examples
    --------
    >>> item_name({"id": "S2A_T01WCP", "collection": "sentinel-2-l2a"})
    'S2A_T01WCP of sentinel-2-l2a'
    """
    name = str(item.get("id", "without an id"))
    return f"{name} of {item['collection']}" if item.get("collection") else name


def time_of(item: ItemDict) -> datetime | None:
    """When the image was taken, in UTC: ``datetime``, or the middle of start and end; None for what has no date.

    Raises
    ------
    CubeError
        A date is there that is none.

    Examples
    --------
    >>> time_of({"id": "old", "properties": {"datetime": "2015-07-10"}})
    datetime.datetime(2015, 7, 10, 0, 0, tzinfo=datetime.timezone.utc)
    """
    properties = item.get("properties") or {}
    moment = _moment(item, "datetime")
    if moment is not None:
        return moment
    start, end = (_moment(item, key) for key in ("start_datetime", "end_datetime"))
    if start is not None and end is not None:
        return start + (end - start) / 2
    if (start or end) is not None and properties.get("datetime") is None:
        return start or end
    return None


def stamp_of(item: ItemDict, asset: str) -> str:
    """What an item says of the content of an asset's file: its checksum or ETag, else when asset or item were changed.

    Examples
    --------
    >>> item = {"assets": {"data": {"file:checksum": "1220abcd"}, "udm2": {}}, "properties": {"updated": "2024-08-01"}}
    >>> stamp_of(item, "data"), stamp_of(item, "udm2"), stamp_of({"assets": {"data": {}}}, "data")
    ('file:checksum=1220abcd', 'updated=2024-08-01', '')
    """
    stated = item["assets"][asset]
    for key in _CHECKSUMS:
        if stated.get(key):
            return f"{key}={stated[key]}"
    updated = stated.get("updated") or (item.get("properties") or {}).get("updated")
    return f"updated={updated}" if updated else ""


def cloud_cover_of(item: ItemDict) -> float | None:
    """Percent under cloud; None where the item does not say, or says what no percentage is, such as Landsat's -1."""
    percent = _number(item, _CLOUD_COVER)
    return percent if percent is not None and 0 <= percent <= 100 else None


def sun_of(item: ItemDict) -> tuple[float | None, float | None]:
    """Azimuth (degrees clockwise from true north) and elevation (degrees) of the sun; None where the item is silent.

    Examples
    --------
    >>> sun_of({"id": "a", "properties": {"s2:mean_solar_azimuth": 170.0, "s2:mean_solar_zenith": 38.0}})
    (170.0, 52.0)
    """
    elevation = _number(item, _SUN_ELEVATION)
    zenith = _number(item, _SUN_ZENITH)
    if elevation is None and zenith is not None:
        elevation = 90.0 - zenith
    return _number(item, _SUN_AZIMUTH), elevation


def _moment(item: ItemDict, key: str) -> datetime | None:
    text = (item.get("properties") or {}).get(key)
    if text is None:
        return None
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise CubeError(
            f"Item {item_name(item)} has {key} {text!r}, which is no date; write it like 2023-07-14T20:15:00Z."
        ) from error


def _number(item: ItemDict, keys: tuple[str, ...]) -> float | None:
    """The first of several properties that is a finite number."""
    for key in keys:
        value = (item.get("properties") or {}).get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None
