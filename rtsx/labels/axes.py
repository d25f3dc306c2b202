"""Outlines whose coordinates come in the wrong order."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rtsx.labels.report import Finding

__all__ = ["AxisOrder", "axis_order", "in_area"]

Geometries = NDArray[np.object_]
Floats = NDArray[np.float64]

_NEAR, _FAR = 0.1, 1.0
"""Degrees within which a centre is where its row says it is, and beyond which it is not."""
_AREA_MARGIN = 10.0
"""Degrees around the area that a CRS is made for in which it is used all the same."""
_HIGH_LATITUDE = 60.0
"""Where all outlines would be if swapped, and none is as it stands, a doubt is told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AxisOrder:
    """Outlines with x first, and how that was told."""

    outlines: Geometries
    """`(row,)`; those that had y first are swapped."""
    findings: tuple[Finding, ...]
    """One for each row that was swapped, or that cannot be told."""
    doubt: str | None
    """What speaks for an order that nothing proves; None where nothing does."""


def axis_order(outlines: Geometries, crs: CRS, *, told: tuple[Floats, Floats]) -> AxisOrder:
    """Swap coordinates that come with y (latitude, northing) first, where that is certain.

    It is certain where a row says where its centre is, and it is there only when swapped; where a latitude is beyond a pole
    as it stands and not when swapped, and then for the whole source, unless rows contradict; and in a projection, where no
    outline lies within 10 degrees of the area that it is made for as it stands, and each lies in it when swapped.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` Polygons, MultiPolygons or None.
    crs : pyproj.CRS
        Geographic or projected.
    told : tuple of numpy.ndarray
        Latitude and longitude that rows say they lie at, `(row,)`; NaN where they say nothing.
    """
    swap = np.zeros(len(outlines), bool)
    unclear = swap.copy()
    there = np.flatnonzero(shapely.is_geometry(outlines))
    if len(there) == 0:
        return AxisOrder(outlines=outlines, findings=(), doubt=None)
    bounds = shapely.bounds(outlines[there])
    x, y = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    given, swapped = _lonlat(x, y, crs), _lonlat(y, x, crs)
    by_centre = _away(given, told, there) & _close(swapped, told, there)
    swap[there] = by_centre
    why = "its centre lies there only when they are swapped"
    doubt = None
    if crs.is_geographic and not by_centre.any():
        beyond, wide = np.abs(bounds[:, [1, 3]]).max(axis=1) > 90, np.abs(bounds[:, [0, 2]]).max(axis=1) > 90
        proven = beyond & ~wide
        is_whole = bool(proven.any() and not (wide & ~beyond).any())
        swap[there] = ~wide if is_whole else proven
        unclear[there] = bool(proven.any()) & ~is_whole & ~beyond & ~wide
        why = "latitudes of this source are beyond the poles otherwise"
        if not (beyond | wide).any():
            doubt = _doubt(given[1], swapped[1])
    elif crs.is_projected and not by_centre.any():
        misplaced = ~in_area(*given, crs, margin=_AREA_MARGIN) & in_area(*swapped, crs, margin=0.0)
        swap[there] = misplaced.all()
        why = "all labels of this source lie far outside the area of its CRS otherwise"
    turned = outlines.copy()
    turned[swap] = shapely.transform(outlines[swap], lambda xy: xy[:, ::-1])
    return AxisOrder(outlines=turned, findings=_findings(swap, unclear, why), doubt=doubt)


def in_area(lon: Floats, lat: Floats, crs: CRS, *, margin: float) -> NDArray[np.bool_]:
    """Whether places lie in the area that a CRS is made for, or within some degrees of it; True where it has none."""
    area = crs.area_of_use
    if area is None:
        return np.isfinite(lat)
    width = (area.east - area.west) % 360 or 360.0
    with np.errstate(invalid="ignore"):
        east_of = (lon - area.west + margin) % 360
        return np.asarray(
            (east_of <= width + 2 * margin) & (lat >= area.south - margin) & (lat <= area.north + margin), bool
        )


def _findings(swap: NDArray[np.bool_], unclear: NDArray[np.bool_], why: str) -> tuple[Finding, ...]:
    swapped = [
        Finding(row=int(row), problem="wrong axis order", action="repaired", detail=f"x and y swapped: {why}")
        for row in np.flatnonzero(swap)
    ]
    detail = "other rows have latitude first, this one may have either: left as it is"
    doubtful = [
        Finding(row=int(row), problem="doubtful axis order", action="kept", detail=detail)
        for row in np.flatnonzero(unclear)
    ]
    return (*swapped, *doubtful)


def _doubt(given: Floats, swapped: Floats) -> str | None:
    if (np.abs(given) < _HIGH_LATITUDE).all() and (np.abs(swapped) >= _HIGH_LATITUDE).all():
        return (
            f"all labels lie between {given.min():.2f} and {given.max():.2f} degrees of latitude, and between "
            f"{swapped.min():.2f} and {swapped.max():.2f} if latitude came first; nothing proves that it does, so they stay"
        )
    return None


def _lonlat(x: Floats, y: Floats, crs: CRS) -> tuple[Floats, Floats]:
    transformer = Transformer.from_crs(crs, CRS.from_epsg(4326), always_xy=True)
    lon, lat = transformer.transform(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)


def _apart(place: tuple[Floats, Floats], told: tuple[Floats, Floats], there: NDArray[np.int64]) -> Floats:
    lat, lon = (one[there] for one in told)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.maximum(np.abs(place[1] - lat), np.abs((place[0] - lon + 180) % 360 - 180)), np.float64)


def _close(place: tuple[Floats, Floats], told: tuple[Floats, Floats], there: NDArray[np.int64]) -> NDArray[np.bool_]:
    return _apart(place, told, there) < _NEAR


def _away(place: tuple[Floats, Floats], told: tuple[Floats, Floats], there: NDArray[np.int64]) -> NDArray[np.bool_]:
    return _apart(place, told, there) > _FAR
