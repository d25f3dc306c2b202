"""From one CRS to another, point by point."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from odc.geo.crs import CRS
from pyproj import Transformer

__all__ = ["same_crs", "transform", "turn_of"]

Floats = NDArray[np.float64]

_EPSG_CONFIDENCE = 70
"""Percent above which two CRS that PROJ takes for the same EPSG code count as one: files write the names of datums and
ellipsoids in many ways."""


def transform(x: Floats, y: Floats, *, source: CRS, target: CRS) -> tuple[Floats, Floats]:
    """Points of `source` in `target`, x (longitude) first in both; infinite where `target` has no such point."""
    if same_crs(source, target):
        return x, y
    moved = _transformer(str(source), str(target)).transform(x, y)
    return moved[0], moved[1]


def turn_of(crs: CRS) -> float:
    """Length of once around the earth along x, in CRS units: 360 for degrees; 0 for a projected CRS.

    Examples
    --------
    >>> turn_of(CRS("EPSG:4326")), turn_of(CRS("EPSG:3413"))
    (360.0, 0.0)
    """
    if not crs.geographic:
        return 0.0
    return round(2 * np.pi / crs.proj.axis_info[0].unit_conversion_factor, 9)


def same_crs(one: CRS, other: CRS) -> bool:
    """Whether two CRS put a pixel on the same ground, however their names are written.

    Examples
    --------
    >>> same_crs(CRS("EPSG:3413"), CRS(CRS("EPSG:3413").to_wkt(version="WKT1_ESRI")))
    True
    >>> same_crs(CRS("EPSG:32608"), CRS("EPSG:32609"))
    False
    """
    # By their texts, because the hash of a CRS writes its WKT anew each time, which costs more than a small warp.
    return str(one) == str(other) or _are_same(str(one), str(other))


@lru_cache(maxsize=256)
def _are_same(one: str, other: str) -> bool:
    crs = [CRS(text).proj for text in (one, other)]
    if crs[0].equals(crs[1], ignore_axis_order=True):
        return True
    codes = [each.to_epsg(min_confidence=_EPSG_CONFIDENCE) for each in crs]
    return codes[0] is not None and codes[0] == codes[1]


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    # One for all threads: pyproj makes the C object behind it once per thread.
    return Transformer.from_crs(source, target, always_xy=True)
