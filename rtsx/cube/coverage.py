"""Which images meet which chunks: the plan that keeps scenes out of tasks that they have nothing to do with."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import shapely
import shapely.affinity
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from shapely.geometry.base import BaseGeometry

from rtsx.cube.image import Image

__all__ = ["meeting"]

_EDGE_POINTS = 21
"""Points per edge of a raster before it is projected: the bend between two of them is far below the buffer."""
_SLACK = 0.01
"""Part of a raster's diagonal by which outlines are widened: published footprints are simplified, and an image too many
costs one look at its header while one too few would lose ground."""
_WIDE_DEG = 30.0
"""Rasters in degrees wider than this are taken to meet every chunk, because their outline may go around a pole."""


Chunks = tuple[tuple[int, ...], tuple[int, ...]]
"""Lengths of the chunks of a raster along y and x."""


def meeting(
    images: Sequence[Image], geobox: GeoBox, chunks: Chunks, *, halo: int
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Per image the indices (iy, ix) of the chunks that it may hold ground of, row by row.

    Never one too few; sometimes one too many near its edge, which then reads nothing.

    Parameters
    ----------
    images
        What was found.
    geobox
        Raster of the cube, north-up.
    chunks
        How it is cut.
    halo
        Pixels around each chunk that are read too.
    """
    tree = shapely.STRtree(_boxes(geobox, chunks))
    columns = len(chunks[1])
    margin = halo * abs(geobox.affine.a)
    everything = range(len(chunks[0]) * columns)
    found = []
    for image in images:
        outline = _outline(image, geobox, margin)
        hits: Iterable[int] = everything if outline is None else sorted(tree.query(outline, "intersects").tolist())
        found.append(tuple(divmod(hit, columns) for hit in hits))
    return tuple(found)


def _boxes(geobox: GeoBox, chunks: Chunks) -> list[BaseGeometry]:
    """Outlines of all chunks, row by row."""
    rows, columns = (np.concatenate([[0], np.cumsum(lengths)]) for lengths in chunks)
    ys, xs = geobox.affine.f + geobox.affine.e * rows, geobox.affine.c + geobox.affine.a * columns
    boxes = shapely.box(xs[None, :-1], ys[1:, None], xs[None, 1:], ys[:-1, None])
    return list(boxes.ravel())


def _outline(image: Image, target: GeoBox, margin: float) -> BaseGeometry | None:
    """Ground of an image in the target's CRS, widened; None where it cannot be drawn there."""
    outline = _ground(image, target, margin)
    if outline is None or target.crs is None or not target.crs.geographic:
        return outline
    # A target in degrees may run on beyond 180, where the same ground lies once more.
    turns = (shapely.affinity.translate(outline, turn) for turn in (-360.0, 0.0, 360.0))
    return shapely.union_all(list(turns))


def _ground(image: Image, target: GeoBox, margin: float) -> BaseGeometry | None:
    parts = []
    for geobox in dict.fromkeys(bands.geobox for bands in image.bands.values()):
        rim = _raster_outline(geobox, target)
        if rim is None:
            return None
        parts.append(rim.buffer(margin + _SLACK * _diagonal(rim)))
    rasters = shapely.union_all(parts)
    if image.footprint is None:
        return rasters
    footprint = _projected(shapely.segmentize(image.footprint, 0.1), "EPSG:4326", target)
    if footprint is None:
        return rasters
    return rasters & footprint.buffer(margin + _SLACK * _diagonal(rasters))


def _raster_outline(geobox: GeoBox, target: GeoBox) -> BaseGeometry | None:
    height, width = geobox.shape
    steps = np.linspace(0, 1, _EDGE_POINTS)
    if geobox.crs is not None and geobox.crs.geographic and width * abs(geobox.affine.a) > _WIDE_DEG:
        return None
    zeros, ones = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    columns = np.concatenate([steps, ones, steps[::-1], zeros]) * width
    rows = np.concatenate([zeros, steps, ones, steps[::-1]]) * height
    affine = geobox.affine
    corners = np.column_stack(
        [affine.a * columns + affine.b * rows + affine.c, affine.d * columns + affine.e * rows + affine.f]
    )
    return _projected(shapely.Polygon(corners), str(geobox.crs), target)


def _projected(geometry: BaseGeometry, crs: str, target: GeoBox) -> BaseGeometry | None:
    move = _transformer(crs, str(target.crs))
    if move is None:
        return geometry
    moved = shapely.transform(geometry, move.transform, interleaved=False)
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        return None
    if move.target_crs is not None and move.target_crs.is_geographic and moved.bounds[2] - moved.bounds[0] > 180:
        return None  # it crosses the antimeridian of a target in degrees, where its outline would turn inside out
    return shapely.make_valid(moved)


@lru_cache(maxsize=64)  # because a search gives thousands of images in a handful of systems
def _transformer(crs: str, target: str) -> Transformer | None:
    """What moves points, x first; None where nothing has to move."""
    return None if CRS(crs) == CRS(target) else Transformer.from_crs(crs, target, always_xy=True)


def _diagonal(geometry: BaseGeometry) -> float:
    xmin, ymin, xmax, ymax = geometry.bounds
    return float(np.hypot(xmax - xmin, ymax - ymin))
