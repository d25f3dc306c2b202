"""The radiometric offset of Sentinel-2, which catalogs state, omit, or have removed already."""

import re
from dataclasses import dataclass

from rtsx.cube.stac.bands import Band
from rtsx.cube.stac.choice import is_picture
from rtsx.cube.stac.item import ItemDict

__all__ = ["Packing", "packing_of"]

_SCALE = 1e-4
"""Reflectance per stored unit of every Sentinel-2 product."""

_OFFSET = -1000
"""Stored units that were added to every reflectance from processing baseline 04.00 on."""

_FIRST_WITH_OFFSET = 4.0

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


def _baseline(item: ItemDict) -> float | None:
    """Processing baseline of a Sentinel-2 item: its property, else ``_N0509_`` in the product's name; None for others."""
    properties = item.get("properties") or {}
    stated = str(properties.get("s2:processing_baseline", properties.get("sentinel:processing_baseline", "")))
    if re.fullmatch(r"\d+\.\d+", stated):
        return float(stated)
    named = re.match(r"S2[A-D]_MSIL[12][AC]_.*_N(\d{2})(\d{2})_", str(properties.get("s2:product_uri", item.get("id"))))
    return float(f"{named[1]}.{named[2]}") if named else None


def _is_reflectance(item: ItemDict, key: str, band: Band) -> bool:
    """Whether a band holds reflectance: ``B01`` to ``B12`` by its own name or its asset's, and no picture of them."""
    if is_picture(item, key) or band.dtype == "uint8":
        return False
    return bool(_REFLECTANCE.fullmatch(band.name or "") or _REFLECTANCE.fullmatch(key.split("_")[0]))
