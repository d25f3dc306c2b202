"""Files and images as lazy arrays: which images meet which chunk, and one task per chunk that reads all bands."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import accumulate, pairwise, product
from operator import getitem
from typing import Any, Protocol

import cloudpickle
import dask.array as da
import numpy as np
import shapely
import shapely.affinity
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.cube.georeference import pixel_m
from rtsx.cube.images import Image
from rtsx.cube.rasterio import RasterHeader, read_valid, read_window, stored_dtype
from rtsx.geometry.crs import apply_affine, longitude_period, same_crs, transform

Chunks = tuple[tuple[int, ...], tuple[int, ...]]
"""Lengths of the chunks of a raster along y and x."""


def chunk_lengths(length: int, chunk: int, *, begun: int = 0) -> tuple[int, ...]:
    """Return lengths of the chunks of an axis: all `chunk` but the last, and the first where so many pixels of it lie before the axis.

    Examples
    --------
    >>> chunk_lengths(2500, 1024), chunk_lengths(2500, 1024, begun=1000)
    ((1024, 1024, 452), (24, 1024, 1024, 428))
    """
    ends = [*range(chunk - begun % chunk, length, chunk), length]
    return tuple(end - start for start, end in pairwise([0, *ends]))


def lazy_bands(
    header: RasterHeader,
    window: tuple[slice, slice],
    *,
    bands: tuple[int, ...],
    chunk: tuple[int, int],
    masks: bool = False,
    any_value: bool = False,
) -> da.Array:
    """Return the lazy pixels (band, y, x) of some bands of one file, one task per chunk that reads all of them in one go.

    One task per file and chunk, instead of rioxarray's one per variable: in a pixel-interleaved file (PlanetScope as
    delivered) every read decodes all bands anyway, and a remote file is opened once instead of once per band.

    Parameters
    ----------
    header
        The file.
    window
        Rows and columns of the file that the array covers.
    bands
        Band numbers from 1, all of one dtype.
    chunk
        Height and width of a chunk, px.
    masks
        Return instead where no mask of the file calls a pixel (y, x) of the bands missing.
    any_value
        With `masks`, whether nodata is no mask.
    """
    leading = () if masks else (len(bands),)
    dtype = np.dtype(bool) if masks else stored_dtype(header, bands[0])
    lengths = (chunk_lengths(span.stop - span.start, size) for span, size in zip(window, chunk, strict=True))
    # map_blocks, instead of from_array with an array-like: dask pushes the slicing of single bands into from_array's
    # tasks, which would read the file once per band after all.
    pixels: da.Array = da.map_blocks(
        _read_block,
        chunks=(*((length,) for length in leading), *lengths),
        dtype=dtype,
        meta=np.empty((0,) * (len(leading) + 2), dtype),
        name=f"{'mask' if masks else 'raster'}-{tokenize(header, bands, window, chunk, any_value)}",
        read=partial(read_valid, any_value=any_value) if masks else read_window,
        path=header.path,
        overview=header.overview,
        bands=bands,
        window=window,
        chunk=chunk,
    )
    return pixels


def _read_block(
    block_id: tuple[int, ...],
    *,
    read: Callable[..., NDArray[Any]],
    path: str,
    overview: int | None,
    bands: tuple[int, ...],
    window: tuple[slice, slice],
    chunk: tuple[int, int],
) -> NDArray[Any]:
    """Read one chunk of a window."""
    rows, columns = (
        slice(span.start + place * size, min(span.start + (place + 1) * size, span.stop))
        for span, place, size in zip(window, block_id[-2:], chunk, strict=True)
    )
    return read(path, (rows, columns), bands=bands, overview=overview)


class ChunkReader(Protocol):
    """Reads one chunk of several arrays at once; a value that pickles, and that all tasks of a graph share."""

    @property
    def images(self) -> Sequence[Image]:
        """What it reads."""

    @property
    def variables(self) -> Mapping[str, tuple[np.dtype[Any], Mapping[str, Any]]]:
        """Dtype and CF attributes of each array that `__call__` returns, by name and in order."""

    def __call__(
        self, places: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[NDArray[Any], ...]:
        """Arrays (y, x) of a half-open range of rows and columns, from the images at `places`."""


def token_of(blocks: ChunkReader, *others: object) -> str:
    """Return what tells the tasks of a reader, on some chunks, from all others."""
    # Pickled bytes (cloudpickle, as rules may be functions of a notebook), instead of dask's walk through thousands of images, their geoboxes and footprints.
    return str(tokenize(blake2b(cloudpickle.dumps(blocks), digest_size=16).hexdigest(), *others))


def lazy_blocks(
    blocks: ChunkReader, meeting: Sequence[Mapping[tuple[int, int], Sequence[int]]], *, chunks: Chunks, has_time: bool
) -> dict[str, da.Array]:
    """Return the lazy arrays by name on (y, x), or on (time, y, x) in chunks of one step.

    One task per step and chunk reads what all arrays need, and one per array picks its part: the graph does not know the
    images, so it does not grow with them.

    Parameters
    ----------
    blocks
        Reads.
    meeting
        Per step, the images of each chunk by its index; a chunk that is left out reads none.
    chunks
        Lengths of the chunks along y and x.
    has_time
        Whether the arrays have a time dimension; without one there is one step.
    """
    token = token_of(blocks, meeting, chunks, has_time)
    shared = f"images-{token}"
    read: dict[Any, Any] = {shared: blocks}
    spans = [list(zip((0, *accumulate(lengths)), accumulate(lengths), strict=False)) for lengths in chunks]
    for step, images in enumerate(meeting):
        for iy, ix in product(*(range(len(lengths)) for lengths in chunks)):
            # Constants go into the function, because dask would take a tuple in a graph for a task or a key.
            places = tuple(images.get((iy, ix), ()))
            task = partial(_read_chunk, places=places, rows=spans[0][iy], columns=spans[1][ix], has_time=has_time)
            read[(f"block-{token}", *((step,) if has_time else ()), iy, ix)] = (task, shared)
    graph = HighLevelGraph({f"blocks-{token}": read}, {f"blocks-{token}": set()})
    return split_outputs(graph, blocks, token=token, chunks=chunks, steps=len(meeting) if has_time else None)


def images_behind(array: da.Array) -> Iterator[Image]:
    """Yield the images that tasks of `lazy_blocks` read for an array; none for what is computed or stored."""
    for name, layer in array.dask.layers.items():
        if isinstance(layer, Mapping) and (blocks := layer.get(f"images-{name.removeprefix('blocks-')}")) is not None:
            yield from blocks.images


def split_outputs(
    graph: HighLevelGraph, blocks: ChunkReader, *, token: str, chunks: Chunks, steps: int | None
) -> dict[str, da.Array]:
    """Return the lazy arrays by name that pick their part of what the tasks ``block-{token}`` of a graph return.

    Parameters
    ----------
    graph
        Has a layer ``blocks-{token}`` with a task for every step and chunk.
    blocks
        What these return.
    token
        What tells them from other tasks.
    chunks
        Lengths of the chunks along y and x.
    steps
        Length of the time dimension; None for no such dimension.
    """
    lengths = (*(() if steps is None else ((1,) * steps,)), *chunks)
    indices = list(product(*(range(len(axis)) for axis in lengths)))
    lazy = {}
    for place, (name, (dtype, _)) in enumerate(blocks.variables.items()):
        key = f"{name}-{token}"
        parts: dict[Any, Any] = {(key, *index): (getitem, (f"block-{token}", *index), place) for index in indices}
        whole = HighLevelGraph({**graph.layers, key: parts}, {**graph.dependencies, key: {f"blocks-{token}"}})
        lazy[name] = da.Array(whole, key, chunks=lengths, dtype=dtype)
    return lazy


def _read_chunk(
    blocks: ChunkReader, *, places: tuple[int, ...], rows: tuple[int, int], columns: tuple[int, int], has_time: bool
) -> tuple[NDArray[Any], ...]:
    arrays = blocks(places, rows, columns)
    return tuple(array[None] for array in arrays) if has_time else arrays


_EDGE_POINTS = 21
"""Points per edge of a raster before it is projected: the bend between two of them is far below the buffer."""
_SLACK = 0.01
"""Part of a raster's diagonal by which outlines are widened: published footprints are simplified, and an image too many
costs one look at its header while one too few would lose ground."""
_WIDE_DEG = 30.0
"""Rasters in degrees wider than this are taken to meet every chunk, because their outline may go around a pole."""


def images_per_chunk(
    images: Sequence[Image], geobox: GeoBox, chunks: Chunks, *, halo: int
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return per image the indices (iy, ix) of the chunks that it may hold ground of, row by row.

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
    """Return outlines of all chunks, row by row."""
    rows, columns = (np.concatenate([[0], np.cumsum(lengths)]) for lengths in chunks)
    ys, xs = geobox.affine.f + geobox.affine.e * rows, geobox.affine.c + geobox.affine.a * columns
    boxes = shapely.box(xs[None, :-1], ys[1:, None], xs[None, 1:], ys[:-1, None])
    return list(boxes.ravel())


def _outline(image: Image, target: GeoBox, margin: float) -> BaseGeometry | None:
    """Return the ground of an image in the target's CRS, widened; None where it cannot be drawn there."""
    parts = []
    for geobox in dict.fromkeys(bands.geobox for bands in image.bands.values()):
        rim = _raster_outline(geobox, target)
        if rim is None:
            return None
        parts.append(rim.buffer(margin + _SLACK * _diagonal(rim)))
    rasters = _every_turn(shapely.union_all(parts), target)
    if image.footprint is None:
        return rasters
    footprint = _projected(shapely.segmentize(image.footprint, 0.1), CRS("EPSG:4326"), target)
    if footprint is None:
        return rasters
    return rasters & _every_turn(footprint.buffer(margin + _SLACK * max(map(_diagonal, parts))), target)


def _every_turn(outline: BaseGeometry, target: GeoBox) -> BaseGeometry:
    """Return an outline in the target's CRS; in degrees wherever its ground lies once more, as rasters may run on beyond 180."""
    period = 0.0 if target.crs is None else longitude_period(target.crs)
    turns = (-period, 0.0, period) if period else (0.0,)
    return shapely.union_all([shapely.affinity.translate(outline, turn) for turn in turns])


def _raster_outline(geobox: GeoBox, target: GeoBox) -> BaseGeometry | None:
    height, width = geobox.shape
    steps = np.linspace(0, 1, _EDGE_POINTS)
    if geobox.crs is not None and geobox.crs.geographic and width * abs(geobox.affine.a) > _WIDE_DEG:
        return None
    zeros, ones = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    columns = np.concatenate([steps, ones, steps[::-1], zeros]) * width
    rows = np.concatenate([zeros, steps, ones, steps[::-1]]) * height
    corners = np.column_stack(apply_affine(geobox.affine, columns, rows))
    return _projected(shapely.Polygon(corners), geobox.crs, target)


def _projected(geometry: BaseGeometry, crs: CRS | None, target: GeoBox) -> BaseGeometry | None:
    assert crs is not None  # every image and every grid has one
    assert target.crs is not None
    if same_crs(crs, target.crs):
        return geometry
    moved = shapely.transform(geometry, partial(transform, source=crs, target=target.crs), interleaved=False)
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        return None
    if target.crs.geographic and moved.bounds[2] - moved.bounds[0] > 180:
        return None  # it crosses the antimeridian of a target in degrees, where its outline would turn inside out
    return shapely.make_valid(moved)


def _diagonal(geometry: BaseGeometry) -> float:
    xmin, ymin, xmax, ymax = geometry.bounds
    return float(np.hypot(xmax - xmin, ymax - ymin))


_PIXELS_AROUND = 8
"""Pixels of an image around what a cube touches: twice what the widest resampling looks at."""
_COVER_POINTS = 33
"""Points per side of the cube's raster that are projected to find what it touches; inside, too."""


def covering_window(raster: GeoBox, cube: GeoBox, *, margin_m: float) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return rows and columns of an image's raster that a cube may touch; None where it touches none.

    Parameters
    ----------
    raster
        Grid of the image.
    cube
        Grid of the cube.
    margin_m
        Ground around the cube that counts, too.
    """
    ours, theirs = cube.crs, raster.crs
    assert ours is not None  # every grid and every image has one
    assert theirs is not None
    # A tenth more, because a metre of a projection is not one of the ground.
    around = margin_m / pixel_m(cube) * 1.1 + 2
    height, width = cube.shape
    along = [np.linspace(-around, size + around, _COVER_POINTS) for size in (width, height)]
    columns, rows = np.meshgrid(*along)
    x, y = apply_affine(cube.affine, columns.ravel(), rows.ravel())
    x, y = transform(x, y, source=ours, target=theirs)
    column, row = apply_affine(~raster.affine, x, y)
    if not (np.isfinite(column).all() and np.isfinite(row).all()):
        return (0, raster.shape[0]), (0, raster.shape[1])
    if turn := longitude_period(theirs) / abs(raster.affine.a):
        # Around the earth to where the raster is; where the cube lies on the seam or on a pole, all columns count.
        column = column - np.floor((column + max(0.0, (turn - raster.shape[1]) / 2)) / turn) * turn
        if np.ptp(column) > turn / 2:
            column = np.array([0.0, raster.shape[1]])
            row = np.append(row, [0.0] if abs(y).max() > 89 else [])
    spans = []
    for positions, size in ((row, raster.shape[0]), (column, raster.shape[1])):
        start = max(0, math.floor(positions.min()) - _PIXELS_AROUND)
        stop = min(size, math.ceil(positions.max()) + _PIXELS_AROUND)
        if start >= stop:
            return None
        spans.append((start, stop))
    return spans[0], spans[1]
