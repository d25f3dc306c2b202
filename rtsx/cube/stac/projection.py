"""The grid of an asset as its item states it; None wherever the statement cannot be trusted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.exceptions import CRSError

from rtsx.cube.stac.item import ItemDict

__all__ = ["stated_geobox"]

_CRS_KEYS = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")

_TOLERANCE = 0.5
"""Pixels by which ``proj:bbox`` may differ from transform and shape; beyond, one of them is wrong."""


def stated_geobox(item: ItemDict, key: str) -> GeoBox | None:
    """CRS, transform and shape of an asset from the projection extension, of any version.

    What the asset states goes before what the item states. Transform, shape and bbox are taken from one of the two, never
    mixed, because an item often states its finest grid and leaves coarser assets to themselves. Two of the three are
    enough. None means that the file's header has to be read: nothing is stated, it contradicts itself (a ``proj:bbox``
    that is half a pixel or more elsewhere), or the transform is in another order than STAC's.

    Examples
    --------
    >>> asset = {"proj:transform": [10, 0, 300000, 0, -10, 7400040], "proj:shape": [10980, 10980]}
    >>> box = stated_geobox({"properties": {"proj:code": "EPSG:32601"}, "assets": {"red": asset}}, "red")
    >>> box.crs.to_epsg(), tuple(box.shape)
    (32601, (10980, 10980))
    """
    asset: Mapping[str, Any] = item["assets"][key]
    properties: Mapping[str, Any] = item.get("properties") or {}
    crs = _crs(asset) or _crs(properties)
    if crs is None:
        return None
    for stated in (asset, properties):
        if any(stated.get(name) for name in ("proj:transform", "proj:shape", "proj:bbox")):
            return _geobox(stated, crs)
    return None


def _crs(stated: Mapping[str, Any]) -> str | None:
    """What a geobox takes as its CRS: ``AUTHORITY:CODE`` where there is one, else WKT."""
    for key in _CRS_KEYS:
        value = stated.get(key)
        try:
            crs = CRS.from_user_input(value) if isinstance(value, str | int | dict) else None
        except (CRSError, ValueError, TypeError):
            continue
        if crs is None:
            continue
        if not (crs.is_projected or crs.is_geographic):
            continue  # the file's own header then says what it is
        return str(value) if key == "proj:code" else f"EPSG:{value}" if key == "proj:epsg" else _crs_name(crs)
    return None


def _crs_name(crs: CRS) -> str:
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else str(crs.to_wkt())


def _geobox(stated: Mapping[str, Any], crs: str) -> GeoBox | None:
    affine = _affine(_numbers(stated.get("proj:transform")))
    shape = _shape(_numbers(stated.get("proj:shape")))
    bbox = _bbox(_numbers(stated.get("proj:bbox")))
    if stated.get("proj:transform") and affine is None:
        return None
    if affine is None and shape and bbox:
        west, south, east, north = bbox
        affine = Affine((east - west) / shape[1], 0, west, 0, (south - north) / shape[0], north)
    if shape is None and affine is not None and bbox and affine.b == affine.d == 0:
        west, south, east, north = bbox
        shape = (round((north - south) / abs(affine.e)), round((east - west) / abs(affine.a)))
    if affine is None or shape is None or min(shape) < 1:
        return None
    geobox = GeoBox(shape, affine, crs)
    return geobox if bbox is None or _agrees(geobox, bbox) else None


def _numbers(values: object) -> tuple[float, ...]:
    """What is a list of finite numbers; nothing for anything else."""
    if not isinstance(values, list | tuple):
        return ()
    is_plain = all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in values)
    return tuple(map(float, values)) if is_plain else ()


def _affine(values: Sequence[float]) -> Affine | None:
    """Six or nine numbers, row by row; None for what is no grid in that order, such as GDAL's (x0, dx, 0, y0, 0, dy)."""
    if not values or len(values) not in (6, 9):
        return None
    affine = Affine(*(float(value) for value in values[:6]))
    pixel = max(abs(affine.a), abs(affine.b)), max(abs(affine.d), abs(affine.e))
    has_sane_pixels = affine.determinant != 0 and max(pixel) < 1e3 * min(pixel)
    return affine if has_sane_pixels and (affine.a != 0) == (affine.e != 0) else None


def _shape(values: Sequence[float]) -> tuple[int, int] | None:
    return (round(values[0]), round(values[1])) if values and len(values) == 2 else None


def _bbox(values: Sequence[float]) -> tuple[float, float, float, float] | None:
    if not values or len(values) not in (4, 6):
        return None
    if len(values) == 6:
        values = [*values[:2], *values[3:5]]
    west, south, east, north = map(float, values)
    return (west, south, east, north) if west < east and south < north else None


def _agrees(geobox: GeoBox, bbox: tuple[float, float, float, float]) -> bool:
    pixel = max(abs(geobox.affine.a), abs(geobox.affine.b))
    bounds = geobox.boundingbox
    ours = (bounds.left, bounds.bottom, bounds.right, bounds.top)
    return all(abs(a - b) < _TOLERANCE * pixel for a, b in zip(ours, bbox, strict=True))
