"""Truth on a raster: which class each pixel is, and outlines painted onto it, window by window or as a lazy array."""

import math
from typing import Protocol

import dask.array as da
import numpy as np
import shapely
import xarray as xr
from affine import Affine
from dask.base import tokenize
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from scipy.ndimage import distance_transform_edt

from rtsx.cube import GRID_MAPPING
from rtsx.errors import LabelError
from rtsx.geometry.antimeridian import (
    check_latitudes,
    crosses_antimeridian,
    lonlat_polygon,
    split_at_antimeridian,
    to_lonlat,
    unwrap,
)
from rtsx.geometry.crs import LONLAT, crs_text, densified, has_seam, period_of, seam_of, transformed

IGNORED = 255
"""Value of a pixel that counts neither way: it is left out of losses and scores."""

TruthWindow = tuple[slice, slice]
"""Rows and columns of a raster, with start and stop given, within the raster."""


class LabelRaster(Protocol):
    """The truth of one raster.

    Values are 0 where no label lies, k for the k-th of `classes`, counted from 1, and `IGNORED`. A pixel is the class of
    the last label that its centre lies in. Threads: any; a truth is frozen, can be pickled, and `read` depends on its
    window alone, so windows fit together without seams.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that labels have; 0 is none of them."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the raster, px."""
        ...

    @property
    def digest(self) -> str:
        """sha256, as hex, over everything that the values depend on."""
        ...

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Return values (y, x) of a window."""
        ...


class StubLabelRaster:
    """A truth of an array in memory; for tests of whatever reads truths.

    Examples
    --------
    >>> truth = StubLabelRaster(np.eye(3, dtype=np.uint8))
    >>> truth.read((slice(0, 2), slice(1, 3)))
    array([[0, 0],
           [1, 0]], dtype=uint8)
    """

    def __init__(self, values: NDArray[np.uint8], *, classes: tuple[str, ...] = ("target",)) -> None:
        self.classes = classes
        self._values = values

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width = self._values.shape
        return height, width

    @property
    def digest(self) -> str:
        """The values themselves, as hex."""
        return self._values.tobytes().hex()

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Return values (y, x) of a window."""
        return self._values[window].copy()


_conforms: type[LabelRaster] = StubLabelRaster


def truth_array(truth: LabelRaster, like: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Return the lazy array of a truth, on the grid of a cube and in its chunks.

    Parameters
    ----------
    truth : LabelRaster
        What is where.
    like : xarray.Dataset or xarray.DataArray
        The cube: its (y, x), coordinates and chunks are taken over. One that is not chunked gives a single chunk.

    Returns
    -------
    xarray.DataArray
        (y, x) uint8, coded as in `LabelRaster`, computed when it is asked for; attributes name the classes.

    Raises
    ------
    LabelError
        The two differ in size.
    """
    size = (like.sizes.get("y"), like.sizes.get("x"))
    if truth.shape != size:
        raise LabelError(
            f"A truth of {truth.shape} px does not fit a cube of {size} px. Make it with the cube's own grid; in Python, "
            "rasterize_labels(labels, rtsx.cube.geobox_of(cube), ...) does so."
        )
    chunks = tuple(like.chunksizes.get(name, (length,)) for name, length in zip(("y", "x"), truth.shape, strict=True))
    values = da.map_blocks(
        _block,
        truth,
        chunks=chunks,
        dtype=np.uint8,
        meta=np.empty((0, 0), np.uint8),
        name=f"truth-{tokenize(truth.digest, chunks)}",
        starts=tuple(tuple(int(start) for start in np.cumsum((0, *lengths))) for lengths in chunks),
    )
    coords = {name: one for name, one in like.coords.items() if set(one.dims) <= {"y", "x"}}
    numbers = np.arange(len(truth.classes) + 1, dtype=np.uint8)
    attrs = {
        "long_name": "truth",
        "flag_values": numbers,
        "flag_meanings": " ".join(("none", *(name.replace(" ", "_") for name in truth.classes))),
        "_FillValue": np.uint8(IGNORED),
    }
    array = xr.DataArray(values, dims=("y", "x"), coords=coords, name="truth", attrs=attrs)
    if "spatial_ref" in coords:
        array.encoding |= GRID_MAPPING
    return array


def _block(
    truth: LabelRaster, starts: tuple[tuple[int, ...], tuple[int, ...]], block_id: tuple[int, int]
) -> NDArray[np.uint8]:
    rows, columns = (slice(axis[index], axis[index + 1]) for axis, index in zip(starts, block_id, strict=True))
    return truth.read((rows, columns))


Geometries = NDArray[np.object_]

PIXEL_PARTS = 65_536
"""Vertices are rounded to this fraction of a pixel, so that noise of the arithmetic decides nothing."""

_DATUMS = 0.02
"""Degrees by which datums of the field differ at most, about 2 km."""


def to_pixels(outlines: Geometries, crs: CRS, geobox: GeoBox, *, margin: int) -> tuple[Geometries, NDArray[np.int64]]:
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
        parts = unwrap(parts, period)
        across[:] = False
    # The rest is left out before it is projected, because a projection says anything of places it is not made for.
    near = _nearby(lonlat, padded)
    parts, owner, lonlat, across = parts[near], owner[near], lonlat[near], across[near]
    moved = _moved(parts, lonlat, across, crs=crs, target=target)
    if (period := period_of(target)) is not None:
        moved, owner = _repeated(unwrap(moved, period), owner, period=period, box=padded.extent.geom)
    return _gathered(_in_pixels(moved, geobox.affine), owner, margin=margin, shape=(geobox.shape.y, geobox.shape.x))


def _raster_crs(geobox: GeoBox) -> CRS:
    if geobox.crs is None:
        raise LabelError(
            "Labels go onto rasters that have a CRS, but this one has none. Give it one, with rio.write_crs."
        )
    return CRS.from_wkt(geobox.crs.to_wkt())


def _nearby(lonlat: Geometries, geobox: GeoBox) -> NDArray[np.bool_]:
    """Test whether polygons in longitude and latitude may meet a raster."""
    polar = crosses_antimeridian(lonlat, 360.0)
    return np.asarray(polar | _meets_raster(shapely.bounds(lonlat).reshape(-1, 4), geobox), bool)


def _perhaps_nearby(parts: Geometries, crs: CRS, geobox: GeoBox) -> NDArray[np.bool_]:
    """Test whether polygons in a geographic CRS may meet a raster, by their bounds alone, so that most are left at once."""
    period = period_of(crs)
    assert period is not None  # it is geographic
    degrees = shapely.bounds(parts).reshape(-1, 4) * (360 / period)
    check_latitudes(degrees)
    wide = degrees[:, 2] - degrees[:, 0] > 180
    return np.asarray(wide | _meets_raster(degrees + _DATUMS * np.array([-1, -1, 1, 1]), geobox), bool)


def _meets_raster(bounds: NDArray[np.float64], geobox: GeoBox) -> NDArray[np.bool_]:
    """Test whether rectangles of longitude and latitude, `(n, 4)`, meet a raster at any turn around the world."""
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
    """Return polygons in the raster's CRS; those that its projection tears become MultiPolygons."""
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
        # Inset by 0.1 mm, so that rounding tells sides apart.
        pieces = split_at_antimeridian(lonlat[index], west=seam_of(target), inset=1e-9)
        moved[index] = shapely.multipolygons(transformed(pieces, LONLAT, target))
    return moved


def _repeated(
    parts: Geometries, owner: NDArray[np.int64], *, period: float, box: shapely.Polygon
) -> tuple[Geometries, NDArray[np.int64]]:
    """Return polygons at each turn around the world at which they meet the raster."""
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
    """Return one outline for each label that meets the raster or its margin."""
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


def rasterize(values: NDArray[np.uint8], outline: shapely.Geometry, *, number: int, origin: tuple[int, int]) -> None:
    """Set the pixels whose centre lies in an outline to a number, in place.

    Written out, instead of GDAL's rasterisation, because that computes with coordinates relative to the window: where a
    border meets a pixel centre, rounding lets two windows give different pixels, and it fills such pixels on both sides.

    Parameters
    ----------
    values : numpy.ndarray
        `(y, x)` uint8, a window of the raster.
    outline : shapely.Geometry
        A valid Polygon or MultiPolygon in pixel coordinates of the whole raster: x is the column, y the row, corners of
        pixels are whole numbers. It may reach beyond the raster.
    number : int
        What the pixels become.
    origin : tuple of int
        Row and column of the window's first pixel.

    Notes
    -----
    Even-odd rule. A centre on a border lies in the outline below it, or right of it: of two outlines that share a border
    one has it, never both.

    Examples
    --------
    >>> values = np.zeros((3, 4), np.uint8)
    >>> rasterize(values, shapely.box(0.5, 0, 2.5, 2), number=1, origin=(0, 0))
    >>> values
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 0, 0]], dtype=uint8)
    """
    (row, column), (height, width) = origin, values.shape
    left, top, right, bottom = shapely.bounds(outline)
    rows = _pixel_range(top, bottom, first=row, length=height)
    columns = _pixel_range(left, right, first=column, length=width)
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        return
    inside = _inside(outline, rows, columns)
    values[rows[0] - row : rows[1] - row, columns[0] - column : columns[1] - column][inside] = number


def _pixel_range(low: float, high: float, *, first: int, length: int) -> tuple[int, int]:
    """Return the half-open range of the pixels of a window that an interval meets."""
    return max(first, int(np.floor(low))), min(first + length, int(np.ceil(high)))


def _inside(outline: shapely.Geometry, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.bool_]:
    """Test whether centres lie inside, (y, x) of half-open ranges."""
    (top, bottom), (left, right) = rows, columns
    rings = shapely.get_rings(shapely.get_parts(outline))
    vertices, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[:-1] == ring[1:]
    before, after = vertices[:-1][same], vertices[1:][same]
    # From top to bottom, because neighbours walk a shared border in opposite ways and have to find the same crossings.
    is_upward = (before[:, 1] > after[:, 1])[:, None]
    start, end = np.where(is_upward, after, before), np.where(is_upward, before, after)
    first = np.clip(np.ceil(start[:, 1] - 0.5), top, bottom).astype(np.int64)
    count = np.clip(np.ceil(end[:, 1] - 0.5), top, bottom).astype(np.int64) - first
    edge = np.repeat(np.arange(len(count)), count)
    line = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x, y), (run, rise) = start[edge].T, (end - start)[edge].T
    crossing = x + (line + 0.5 - y) * run / rise
    column = np.clip(np.ceil(crossing - 0.5), left, right).astype(np.int64)
    height, width = bottom - top, right - left
    place = (line - top) * (width + 1) + column - left
    crossed = np.bincount(place, minlength=height * (width + 1)).reshape(height, width + 1)
    is_inside: NDArray[np.bool_] = np.cumsum(crossed[:, :-1], axis=1) % 2 == 1
    return is_inside


_SMALL = 6
"""Width, px, up to which comparing with each pixel of a disk is faster than the distances of all pixels."""


def ignore_borders(values: NDArray[np.uint8], *, ignore: int) -> NDArray[np.uint8]:
    """Ignore the pixels that have another class within some distance: `ignore` px on both sides of each border.

    Distances are Euclidean, between pixel centres, so that the band is equally wide in all directions. Pixels that are
    `IGNORED` already are no class: nothing is known of a border there. The edge of the array is no border either.

    Parameters
    ----------
    values : numpy.ndarray
        `(y, x)` uint8, coded as in `LabelRaster`.
    ignore : int
        Width, px; 0 changes nothing.

    Returns
    -------
    numpy.ndarray
        `(y, x)` uint8; exact at least `ignore` px inside the array's edge.

    Examples
    --------
    >>> ignore_borders(np.array([[0, 0, 0, 1, 1, 1]], np.uint8), ignore=2)
    array([[  0, 255, 255, 255, 255,   1]], dtype=uint8)
    """
    if ignore == 0:
        return values
    banded = values.copy()
    present = np.unique(values)
    known = present[present != IGNORED]
    if len(known) < 2:
        return banded
    if ignore <= _SMALL:
        banded[_differing(values, ignore)] = IGNORED
        return banded
    for number in known:
        is_other = (values != number) & (values != IGNORED)
        banded[(values == number) & (distance_transform_edt(~is_other) <= ignore)] = IGNORED
    return banded


def _differing(values: NDArray[np.uint8], radius: int) -> NDArray[np.bool_]:
    """Test whether a pixel and another within a radius are of different classes; each pair is looked at once."""
    height, width = values.shape
    known = values != IGNORED
    differing = np.zeros(values.shape, bool)
    for down in range(min(radius, height - 1) + 1):
        reach = math.isqrt(radius**2 - down**2)
        for right in range(max(-reach, 1 - width) if down else 1, min(reach, width - 1) + 1):
            here = (slice(0, height - down), slice(max(-right, 0), width - max(right, 0)))
            there = (slice(down, height), slice(max(right, 0), width + min(right, 0)))
            other = (values[here] != values[there]) & known[here] & known[there]
            differing[here] |= other
            differing[there] |= other
    return differing
