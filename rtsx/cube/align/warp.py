"""`warp`: pixels of any raster on the pixels of any grid."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.align.arguments import Block, Frame, Positions, Rule, Samples
from rtsx.cube.align.coordinates import CELL, Coordinates, coordinates_of
from rtsx.cube.align.numba import average, bilinear, cubic, nearest
from rtsx.cube.align.placement import Placement, lattice_index
from rtsx.cube.align.reader import WindowReader
from rtsx.cube.align.resampling import Resampling
from rtsx.cube.align.storing import Storing, is_stored, without_mask
from rtsx.cube.align.window import Window, read_window, window_of

__all__ = ["Warped", "warp"]

_WINDOW_BYTES = 64 * 2**20
"""Bytes of a source window that are read without asking; above it a window may have four times the bytes of the target."""

_EXACT_PIXELS = 2**20
"""Target pixels of a piece that holds exact cells: their positions take 16 bytes a pixel."""

_OVERVIEW_SLACK = 1.05
"""How much larger than the target's the pixels of an overview may be: projections stretch by some per cent, and a level
of twice the size is meant for a target of twice the size."""

_MARGINS = {"nearest": 0, "bilinear": 1, "cubic": 2}
"""Pixels around a position that each kernel reads."""

_KERNELS = {"nearest": nearest, "bilinear": bilinear, "cubic": cubic}


@dataclass(frozen=True, eq=False)
class Warped:
    """Pixels of a raster on another grid."""

    pixels: NDArray[Any]
    """(band, y, x); missing pixels hold the source's nodata value, without one 0 (integers) or NaN (floats)."""
    valid: NDArray[np.bool_]
    """(band, y, x): True where a pixel can be trusted."""


def warp(
    reader: WindowReader,
    target: GeoBox,
    *,
    resampling: Resampling,
    anchor: tuple[float, float],
    dtype: np.dtype[Any] | None = None,
) -> Warped:
    """Align a raster to a block of a grid.

    Positions in the source are exact to 1e-4 px, in practice far better, and depend on global pixel indices of the grid
    alone: blocks of any size put together equal the whole, to the last bit. A target pixel is valid where the source pixel
    that holds its middle exists and is valid. Other source pixels that are missing are left out and the rest is weighted
    anew; what is missing is nodata, or not finite. Where grids are pixel-equal, the stored pixels come out, whatever the
    resampling.

    Parameters
    ----------
    reader
        The raster. Only the window that is needed is read, and nothing where it misses the target; for windows out of
        proportion, as around a pole, the target is done in pieces.
    target
        The block: north-up, on whole pixels of the lattice.
    resampling
        ``"nearest"``; ``"bilinear"``; ``"cubic"`` (Keys, a = -0.5; bilinear where one of the 16 pixels is missing);
        ``"average"``: mean of n by n samples in the target pixel, n twice the number of source pixels along it, at most 64.
        All but nearest read the coarsest overview that is at least as fine as the target.
    anchor
        Corner (x, y) of the lattice in target CRS units.
    dtype
        Of the answer; None for the source's. Integers are rounded and clipped, and never become nodata by it.

    Returns
    -------
    Warped
        All bands of the reader.

    Raises
    ------
    CubeError
        The target is off the lattice, a grid has no CRS, or the reader fails.

    Examples
    --------
    >>> from affine import Affine
    >>> from rtsx.cube.align.reader import ArrayReader
    >>> coarse = ArrayReader(np.array([[[10, 30]]], np.uint8), GeoBox((1, 2), Affine(4, 0, 0, 0, -4, 4), "EPSG:3413"), nodata=0)
    >>> fine = GeoBox((1, 4), Affine(2, 0, 0, 0, -2, 4), "EPSG:3413")
    >>> warp(coarse, fine, resampling="bilinear", anchor=(0.0, 4.0)).pixels
    array([[[10, 15, 25, 30]]], dtype=uint8)
    """
    row, column = lattice_index(target, anchor)
    placement = Placement.of(reader.geobox, target, anchor=anchor)
    offset = placement.offset()
    if offset is not None:
        resampling = "nearest"
    elif resampling != "nearest" and (scale := placement.scale() * _OVERVIEW_SLACK) > 1:
        reader = reader.coarser(scale)
        placement = Placement.of(reader.geobox, target, anchor=anchor)
    storing = Storing(np.dtype(reader.dtype if dtype is None else dtype).newbyteorder("="), reader.nodata)
    rows, columns = slice(row, row + target.shape[0]), slice(column, column + target.shape[1])
    if offset is not None and not placement.turn:
        return _sliced(reader, rows, columns, offset=offset, storing=storing)
    return _gathered(reader, rows, columns, placement=placement, resampling=resampling, storing=storing)


def _sliced(reader: WindowReader, rows: slice, columns: slice, *, offset: tuple[int, int], storing: Storing) -> Warped:
    """Stored pixels of a raster on the same lattice."""
    inside, outside = [], []
    for span, shift, size in zip((rows, columns), offset, reader.geobox.shape, strict=True):
        start, stop = (min(max(edge + shift, 0), size) for edge in (span.start, span.stop))
        inside.append(slice(start, stop))
        outside.append(slice(start - shift - span.start, stop - shift - span.start))
    warped = _empty(reader, rows, columns, storing=storing)
    if all(span.start < span.stop for span in inside):
        part = (slice(None), *outside)
        stored = reader.read(inside[0], inside[1])
        warped.valid[part] = is_stored(stored, reader.nodata)
        warped.pixels[part] = storing.stored(np.ma.getdata(stored), valid=warped.valid[part])
    return warped


def _gathered(
    reader: WindowReader,
    rows: slice,
    columns: slice,
    *,
    placement: Placement,
    resampling: Resampling,
    storing: Storing,
) -> Warped:
    """Pixels put together from those around their positions."""
    # Nearest copies, so that it needs no signature of its own for each pair of dtypes, and keeps 64-bit integers exact.
    gathered = Storing(_gathered_dtype(reader.dtype if resampling == "nearest" else storing.dtype), reader.nodata)
    out = _empty(reader, rows, columns, storing=gathered)
    pieces = _pieces(reader, rows, columns, placement=placement, resampling=resampling, storing=gathered)
    for coordinates, window in pieces:
        pixels, nodata = without_mask(read_window(reader, window), reader.nodata)
        pixels = np.ascontiguousarray(pixels, _gathered_dtype(pixels.dtype))
        # As plain tuples: compiled code is kept on disk by the types of its arguments, and could not be read again after a
        # class of ours changed its name.
        given = (
            tuple(Block.of(coordinates, within=(rows, columns))),
            tuple(Positions.of(coordinates)),
            pixels,
            tuple(Frame.of(window, pixels.dtype, nodata=nodata)),
            out.pixels,
            out.valid,
            tuple(Rule.of(gathered)),
        )
        if resampling == "average":
            average(*given, tuple(Samples.of(coordinates)))
        else:
            _KERNELS[resampling](*given)
    if gathered.dtype == storing.dtype:
        return out
    return Warped(storing.stored(out.pixels, valid=out.valid), out.valid)


def _pieces(
    reader: WindowReader,
    rows: slice,
    columns: slice,
    *,
    placement: Placement,
    resampling: Resampling,
    storing: Storing,
) -> Iterator[tuple[Coordinates, Window]]:
    """The block as a whole, or cut along the lattice until each piece needs memory in proportion; what meets the raster."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width:
        return
    is_pixel = height == width == 1
    coordinates = coordinates_of(
        placement, rows, columns, corners=resampling == "average", limit=1 if is_pixel else _EXACT_PIXELS
    )
    if coordinates is not None:
        window = _window(coordinates, resampling)
        if window is None:
            return
        needed = window.pixels * reader.count * reader.dtype.itemsize
        if is_pixel or needed <= max(_WINDOW_BYTES, 4 * height * width * reader.count * storing.dtype.itemsize):
            yield coordinates, window
            return
    if height >= width:
        halves = [(half, columns) for half in _halves(rows)]
    else:
        halves = [(rows, half) for half in _halves(columns)]
    for half in halves:
        yield from _pieces(reader, *half, placement=placement, resampling=resampling, storing=storing)


def _halves(span: slice) -> tuple[slice, slice]:
    """Two halves of a span of pixels, cut between lattice cells if it holds such a place."""
    middle = (span.start + span.stop) // 2
    border = (middle + CELL // 2) // CELL * CELL
    cut = border if span.start < border < span.stop else middle
    return slice(span.start, cut), slice(cut, span.stop)


def _window(coordinates: Coordinates, resampling: Resampling) -> Window | None:
    if resampling != "average":
        return window_of(coordinates, margin=_MARGINS[resampling])
    steps = coordinates.steps()[~coordinates.is_exact]
    return window_of(coordinates, margin=1 + (math.ceil(steps.sum(axis=1).max() / 2) if len(steps) else 0))


def _empty(reader: WindowReader, rows: slice, columns: slice, *, storing: Storing) -> Warped:
    shape = (reader.count, rows.stop - rows.start, columns.stop - columns.start)
    return Warped(np.full(shape, storing.fill, storing.dtype), np.zeros(shape, bool))


def _gathered_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that a kernel reads or writes: those that numba does not have are widened."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize == 2 else np.float64)
    return dtype.newbyteorder("=")
