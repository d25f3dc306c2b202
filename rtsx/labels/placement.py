"""Labels of any CRS in the pixel coordinates of a raster."""

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rtsx.errors import LabelError
from rtsx.grid.lonlat import lonlat_polygon
from rtsx.labels.longitude import check_latitudes, cut, jumping, to_lonlat, unwrapped
from rtsx.labels.pyproj import crs_text, densified, has_seam, period_of, seam_of, transformed

__all__ = ["PIXEL_PARTS", "place"]

Geometries = NDArray[np.object_]

PIXEL_PARTS = 65_536
"""Vertices are rounded to this fraction of a pixel, so that noise of the arithmetic decides nothing."""

_DATUMS = 0.02
"""Degrees by which datums of the field differ at most, about 2 km."""

_LONLAT = CRS.from_epsg(4326)


def place(outlines: Geometries, crs: CRS, geobox: GeoBox, *, margin: int) -> tuple[Geometries, NDArray[np.int64]]:
    """Bring outlines onto the pixels of a raster; what lies elsewhere is left out.

    Edges are straight in the CRS of the labels: long ones get further vertices before they are moved. Outlines across the
    antimeridian may be split there, run on beyond 180 degrees, or jump from 180 to -180.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(n,)` valid Polygons or MultiPolygons in `crs`.
    crs : pyproj.CRS
        Geographic or projected.
    geobox : odc.geo.geobox.GeoBox
        The raster, perhaps across the antimeridian, perhaps around a pole.
    margin : int
        Pixels around the raster that are of interest too.

    Returns
    -------
    tuple of numpy.ndarray
        `(m,)` outlines in pixel coordinates, x the column and y the row, corners of pixels at whole numbers; and
        `(m,)` int64, which of `outlines` they are, ascending.

    Raises
    ------
    LabelError
        The raster or the labels have no CRS that lies on the Earth's surface, or a vertex has no place in it.
    """
    target = _raster_crs(geobox)
    if not (crs.is_geographic or crs.is_projected):
        raise LabelError(
            f"Labels lie in {crs_text(crs)}, which is neither geographic nor projected. Bring them to EPSG:4326 with "
            "rtsx.standardise_labels(...)."
        )
    if len(outlines) == 0:
        return outlines, np.empty(0, np.int64)
    parts, owner = shapely.get_parts(outlines, return_index=True)
    padded = geobox.pad(margin + 1)
    if crs.is_geographic:
        near = _perhaps_nearby(parts, crs, padded)
        parts, owner = parts[near], owner[near]
    lonlat, across = to_lonlat(parts, crs)
    if (period := period_of(crs)) is not None:
        parts = unwrapped(parts, period)
        across[:] = False
    # The rest is left out before it is projected, because a projection says anything of places it is not made for.
    near = _nearby(lonlat, padded)
    parts, owner, lonlat, across = parts[near], owner[near], lonlat[near], across[near]
    moved = _moved(parts, lonlat, across, crs=crs, target=target)
    if (period := period_of(target)) is not None:
        moved, owner = _repeated(unwrapped(moved, period), owner, period=period, box=padded.extent.geom)
    return _gathered(_in_pixels(moved, geobox.affine), owner, margin=margin, shape=(geobox.shape.y, geobox.shape.x))


def _raster_crs(geobox: GeoBox) -> CRS:
    if geobox.crs is None:
        raise LabelError(
            "Labels go onto rasters that have a CRS, but this one has none. Give it one, with rio.write_crs."
        )
    return CRS.from_wkt(geobox.crs.to_wkt())


def _nearby(lonlat: Geometries, geobox: GeoBox) -> NDArray[np.bool_]:
    """Whether polygons in longitude and latitude may meet a raster."""
    polar = jumping(lonlat, 360.0)
    return np.asarray(polar | _meeting(shapely.bounds(lonlat).reshape(-1, 4), geobox), bool)


def _perhaps_nearby(parts: Geometries, crs: CRS, geobox: GeoBox) -> NDArray[np.bool_]:
    """Whether polygons in a geographic CRS may meet a raster, by their bounds alone, so that most are left at once."""
    period = period_of(crs)
    assert period is not None  # it is geographic
    degrees = shapely.bounds(parts).reshape(-1, 4) * (360 / period)
    check_latitudes(degrees)
    wide = degrees[:, 2] - degrees[:, 0] > 180
    return np.asarray(wide | _meeting(degrees + _DATUMS * np.array([-1, -1, 1, 1]), geobox), bool)


def _meeting(bounds: NDArray[np.float64], geobox: GeoBox) -> NDArray[np.bool_]:
    """Whether rectangles of longitude and latitude, `(n, 4)`, meet a raster at any turn around the world."""
    ground = lonlat_polygon(geobox.extent.geom, _raster_crs(geobox).to_wkt())
    near = np.zeros(len(bounds), bool)
    if not np.isfinite(ground.bounds).all():  # the raster reaches beyond the Earth, as pictures of a whole disk do
        return ~near
    shapely.prepare(ground)
    west, south, east, north = bounds.T
    for turn in (-360, 0, 360):
        near |= shapely.intersects(ground, shapely.box(west + turn, south, east + turn, north))
    return near


def _moved(parts: Geometries, lonlat: Geometries, across: NDArray[np.bool_], *, crs: CRS, target: CRS) -> Geometries:
    """Polygons in the raster's CRS; those that its projection tears become MultiPolygons."""
    torn = across.copy()
    if not target.is_geographic and len(parts):
        west, south, east, north = shapely.bounds(lonlat).T
        seam = seam_of(target)
        crosses = np.floor((west - seam) / 360) < np.ceil((east - seam) / 360) - 1
        for index in np.flatnonzero(crosses & ~torn):
            torn[index] = has_seam(target, float(south[index] + north[index]) / 2)
    moved = np.empty(len(parts), np.object_)
    is_same = crs.equals(target, ignore_axis_order=True)
    moved[~torn] = parts[~torn] if is_same else transformed(densified(parts[~torn], crs), crs, target)
    for index in np.flatnonzero(torn):
        pieces = cut(lonlat[index], west=seam_of(target), inset=1e-9)  # 0.1 mm, so that rounding tells sides apart
        moved[index] = shapely.multipolygons(transformed(pieces, _LONLAT, target))
    return moved


def _repeated(
    parts: Geometries, owner: NDArray[np.int64], *, period: float, box: shapely.Polygon
) -> tuple[Geometries, NDArray[np.int64]]:
    """Polygons at each turn around the world at which they meet the raster."""
    low, _, high, _ = box.bounds
    west, _, east, _ = shapely.bounds(parts).reshape(-1, 4).T
    shifted, owners = [parts[:0]], [owner[:0]]
    if len(parts):
        for turn in range(int(np.floor((low - east.max()) / period)), int(np.ceil((high - west.min()) / period)) + 1):
            near = (west + turn * period <= high) & (east + turn * period >= low)
            shifted.append(shapely.transform(parts[near], lambda xy, turn=turn: xy + np.array([turn * period, 0])))
            owners.append(owner[near])
    return np.concatenate(shifted), np.concatenate(owners)


def _in_pixels(parts: Geometries, affine: Affine) -> Geometries:
    inverse = ~affine
    matrix, shift = np.array([[inverse.a, inverse.b], [inverse.d, inverse.e]]), np.array([inverse.c, inverse.f])
    pixels: Geometries = shapely.transform(
        parts, lambda xy: np.rint((xy @ matrix.T + shift) * PIXEL_PARTS) / PIXEL_PARTS
    )
    return pixels


def _gathered(
    parts: Geometries, owner: NDArray[np.int64], *, margin: int, shape: tuple[int, int]
) -> tuple[Geometries, NDArray[np.int64]]:
    """One outline for each label that meets the raster or its margin."""
    height, width = shape
    frame = shapely.box(-margin, -margin, width + margin, height + margin)
    singles, single = shapely.get_parts(parts, return_index=True)
    meets = shapely.intersects(frame, shapely.box(*shapely.bounds(singles).reshape(-1, 4).T))
    singles, owner = singles[meets], owner[single][meets]
    order = np.argsort(owner, kind="stable")
    labels, starts = np.unique(owner[order], return_index=True)
    outlines = np.empty(len(labels), np.object_)
    for number, members in enumerate(np.split(singles[order], starts[1:]) if len(labels) else []):
        outlines[number] = members[0] if len(members) == 1 else shapely.multipolygons(members)
    return outlines, labels.astype(np.int64)
