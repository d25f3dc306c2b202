"""The radiometric offset of Sentinel-2, which catalogs state, omit, or have removed already."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from shapely import union_all

from rtsx.cube.stac.bands import Band
from rtsx.cube.stac.choice import is_picture
from rtsx.cube.stac.footprint import item_footprint
from rtsx.cube.stac.item import ItemDict, time_of

__all__ = ["Packing", "newest_processing", "packing_of"]

_SCALE = 1e-4
"""Reflectance per stored unit of every Sentinel-2 product."""

_OFFSET = -1000
"""Stored units that were added to every reflectance from processing baseline 04.00 on."""

_FIRST_WITH_OFFSET = 4.0

_PRODUCT = re.compile(
    r"S2[A-D]_(?:OPER_)?(?:MSI_?L(?P<level>1C|2A)_)(?P<sensed>\d{8}T\d{6})_(?:N(?P<baseline>\d{4})_)?R\d{3}_T(?P<tile>\w{5})"
    r"(?:_(?P<made>\d{8}T\d{6}))?"
)
"""Name of a product as ESA, Planetary Computer (without a baseline) and CDSE write it."""

_ELEMENT84 = re.compile(
    r"S2[A-D]_T?(?P<tile>\d{1,2}[C-X][A-Z]{2})_\d{8}(?:T\d{6})?_(?:(?P<made>\d+)_)?L(?P<level>1C|2A)"
)
"""Id as Earth Search writes it; its number counts the products of a tile and day."""

_COVERED = 0.9
"""Part of an image that newer ones have to show to stand for it. Two strips of one pass share a tile, and both count."""

_SAME_PASS_S = 600
"""Seconds between two products of one pass, at most: other passes over a tile are 100 minutes apart."""

_REFLECTANCE = re.compile(r"B(0?[1-9]|1[0-2]|8A)", re.IGNORECASE)
_HARMONISED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How stored values become physical ones; None where nothing is known about it."""

    scale: float | None
    """Physical units per stored unit."""
    offset: float | None
    """Physical value of stored 0."""


def packing_of(item: ItemDict, key: str, *, band: Band) -> Packing:
    """Scale and offset of a band as its item has them, with Sentinel-2's offset settled by one rule.

    For reflectance bands of items with a Sentinel-2 processing baseline, the first that holds:

    1. the provider says that the values were harmonised (``earthsearch:boa_offset_applied`` is true): offset 0, although
       the same items still state -0.1 for each band;
    2. the item states an offset for the band: that one;
    3. the baseline is 04.00 or later: -1000 stored units, which is -0.1;
    4. otherwise 0.

    Their scale is 0.0001 unless the item states one. All other bands have what the item states.

    Examples
    --------
    >>> asset = {"eo:bands": [{"name": "B04", "common_name": "red"}]}
    >>> item = {"properties": {"s2:processing_baseline": "04.00"}, "assets": {"B04": asset}}
    >>> packing_of(item, "B04", band=Band(number=1, name="B04"))
    Packing(scale=0.0001, offset=-0.1)
    """
    baseline = _baseline(item)
    if baseline is None or not _is_reflectance(item, key, band):
        return Packing(scale=band.scale, offset=band.offset)
    scale = _SCALE if band.scale is None else band.scale
    properties = item.get("properties") or {}
    if any(properties.get(name) is True for name in _HARMONISED):
        return Packing(scale=scale, offset=0.0)
    if band.offset is not None:
        return Packing(scale=scale, offset=band.offset)
    return Packing(scale=scale, offset=_OFFSET * scale if baseline >= _FIRST_WITH_OFFSET else 0.0)


def newest_processing(items: Iterable[ItemDict]) -> list[ItemDict]:
    """Items without those of Sentinel-2 that were processed anew: of one tile and pass the highest baseline counts, once.

    The same baseline twice counts as processed anew where the newer shows the ground of the older, too. Items of other
    sensors, and strips that show other ground of the tile, are all kept, in their order.

    Examples
    --------
    >>> names = ["S2B_MSIL2A_20210721T212529_N0301_R043_T07WFT_20210722T003344",
    ...          "S2B_MSIL2A_20210721T212529_N0500_R043_T07WFT_20230215T112233"]
    >>> [item["id"][27:32] for item in newest_processing([{"id": name} for name in names])]
    ['N0500']
    """
    every = list(items)
    passes: dict[tuple[str, ...], list[_Processed]] = {}
    for place, item in enumerate(every):
        if (found := _processed(item, place)) is not None:
            passes.setdefault(found.tile, []).append(found)
    dropped = set()
    for of_tile in passes.values():
        kept: list[_Processed] = []
        for one in sorted(of_tile, key=lambda one: one.rank, reverse=True):
            newer = [other for other in kept if abs((other.time - one.time).total_seconds()) <= _SAME_PASS_S]
            if newer and _shows(newer, one):
                dropped.add(one.place)
            else:
                kept.append(one)
    return [item for place, item in enumerate(every) if place not in dropped]


@dataclass(frozen=True, kw_only=True)
class _Processed:
    """One product of Sentinel-2 among others of its tile."""

    place: int
    item: ItemDict
    tile: tuple[str, ...]
    """Satellite, level and tile."""
    time: datetime
    """When the pass began where the product's name says so, else the item's time."""
    rank: tuple[float, str, str]
    """Baseline, when or as how many it was made, id: the greatest counts."""


def _processed(item: ItemDict, place: int) -> _Processed | None:
    properties = item.get("properties") or {}
    names = [str(properties.get("s2:product_uri") or ""), str(item.get("id"))]
    found = next((match for name in names for rule in (_PRODUCT, _ELEMENT84) if (match := rule.match(name))), None)
    if found is None:
        return None
    parts = found.groupdict()
    sensed = parts.get("sensed")
    time = datetime.strptime(sensed, "%Y%m%dT%H%M%S").replace(tzinfo=UTC) if sensed else time_of(item)
    if time is None:
        return None
    made = str(properties.get("s2:generation_time") or parts.get("made") or "").zfill(8)
    return _Processed(
        place=place,
        item=item,
        tile=(found[0][:3], str(parts["level"]), str(parts["tile"]).zfill(5)),
        time=time,
        rank=(_baseline(item) or 0.0, made, str(item.get("id"))),
    )


def _shows(newer: list[_Processed], one: _Processed) -> bool:
    """Whether newer products show the ground of one; without outlines, if their baseline is higher or they are the same product."""
    outline = item_footprint(one.item)
    outlines = [item_footprint(other.item) for other in newer]
    if outline is None or not outline.area or None in outlines:
        return any(other.rank[0] > one.rank[0] for other in newer)
    return bool(outline.intersection(union_all(outlines)).area >= _COVERED * outline.area)


def _baseline(item: ItemDict) -> float | None:
    """Processing baseline of a Sentinel-2 item: its property, else ``_N0509_`` in the product's name; None for others."""
    properties = item.get("properties") or {}
    stated = str(properties.get("s2:processing_baseline", properties.get("sentinel:processing_baseline", "")))
    if re.fullmatch(r"\d+\.\d+", stated):
        return float(stated)
    name = str(properties.get("s2:product_uri", item.get("id")))
    named = re.match(r"S2[A-D]_MSIL[12][AC]_.*_N(\d{2})(\d{2})_", name)
    if named:
        return float(f"{named[1]}.{named[2]}")
    version = str(properties.get("processing:version", ""))
    return float(version) if re.match(r"S2[A-D]_", name) and re.fullmatch(r"\d+\.\d+", version) else None


def _is_reflectance(item: ItemDict, key: str, band: Band) -> bool:
    """Whether a band holds reflectance: ``B01`` to ``B12`` by its own name or its asset's, and no picture of them."""
    if is_picture(item, key) or band.dtype == "uint8":
        return False
    return bool(_REFLECTANCE.fullmatch(band.name or "") or _REFLECTANCE.fullmatch(key.split("_")[0]))
