"""Warp pixels of any raster to the pixels of any grid."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.encoding import OutputDtype, is_representable, output_nodata, without_mask
from rtsx.cube.recipe import Resampling
from rtsx.cube.resample.kernels import average, bilinear, cubic, nearest
from rtsx.cube.resample.readers import WindowReader
from rtsx.cube.resample.transform import CELL, GridTransform, TransformGrid, pixel_index, transform_grid


@dataclass(frozen=True)
class Window:
    """Rows and columns of a source; columns may run on across the seam of a raster that goes around the earth."""

    top: int
    height: int
    left: int
    """First column; below 0 where the window begins before the seam."""
    width: int
    period: int
    """Columns after which the raster begins again; 0 if it does not."""

    @property
    def pixels(self) -> int:
        """Rows times columns."""
        return self.height * self.width


def window_of(coordinates: TransformGrid, *, margin: int) -> Window | None:
    """Return the smallest window that holds all positions and `margin` pixels around; None where it misses the raster."""
    reach = coordinates.reach()
    if reach is None:
        return None
    placement = coordinates.placement
    height, width = placement.source.shape
    top, bottom = _span(reach.rows, margin)
    top, bottom = max(top, 0), min(bottom, height)
    left, right = _span(reach.columns, margin)
    period = placement.period
    if period:
        shifted = _span(reach.shifted, margin)
        if shifted[1] - shifted[0] < right - left:
            left, right = shifted
        if right - left >= period:
            left, right = 0, period
    else:
        left, right = max(left, 0), min(right, width)
    if top >= bottom or left >= right:
        return None
    return Window(top, bottom - top, left, right - left, period)


def read_source_window(reader: WindowReader, window: Window) -> NDArray[Any]:
    """Return stored pixels (band, y, x) of a window, masked where the reader's are."""
    rows = slice(window.top, window.top + window.height)
    start = window.left % window.period if window.period else window.left
    stop = start + window.width
    if window.period and stop > window.period:
        parts = [reader.read(rows, slice(start, window.period)), reader.read(rows, slice(0, stop - window.period))]
        joined: Any = np.ma.concatenate if any(map(np.ma.isMaskedArray, parts)) else np.concatenate
        pixels: NDArray[Any] = joined(parts, axis=2)
        return pixels
    return reader.read(rows, slice(start, stop))


def _span(reach: tuple[float, float], margin: int) -> tuple[int, int]:
    # Limited before it is made whole, because positions far outside a raster may be any number.
    low, high = (min(max(value, -1e9), 1e9) for value in reach)
    return math.floor(low) - margin, math.floor(high) + 1 + margin


SAMPLE_LIMIT = 64
"""Rows or columns of samples in one target pixel: more differ by less than a hundredth from these."""


def _kernel_arguments(
    coordinates: TransformGrid, *, within: tuple[slice, slice], storing: OutputDtype
) -> tuple[tuple[Any, ...], ...]:
    """Return block, positions and rule as kernels take them.

    As plain tuples, because compiled code is kept on disk by the types of its arguments, and could not be read again after
    a class of ours changed its name.
    """
    rows, columns = coordinates.rows, coordinates.columns
    size = rows.stop - rows.start, columns.stop - columns.start
    block = (rows.start, columns.start, *size, rows.start - within[0].start, columns.start - within[1].start)
    nodes = coordinates.node_rows, coordinates.node_columns
    positions = (*nodes, coordinates.is_exact, coordinates.exact_rows, coordinates.exact_columns)
    kind = storing.dtype.type
    fill, above, below = (storing.fill, storing.above, storing.below) if storing.has_fill else (0, 0, 0)
    rule = (storing.dtype.kind != "f", *storing.limits, storing.has_fill, kind(fill), kind(above), kind(below))
    return block, positions, rule


def _samples(coordinates: TransformGrid) -> tuple[Any, ...]:
    """Return how many samples `average` takes: two for each source pixel along a target pixel, so that half a pixel counts half."""
    steps = np.nan_to_num(coordinates.steps(), nan=0.0, posinf=0.0)  # only exact cells are not finite
    # One thousandth less, so that 2.0001 source pixels are 2.
    counts = np.clip(2 * np.ceil(np.minimum(steps, SAMPLE_LIMIT) - 1e-3), 1, SAMPLE_LIMIT).astype(np.int64)
    corners = coordinates.corner_rows, coordinates.corner_columns
    return (counts, SAMPLE_LIMIT, *corners, float(coordinates.placement.turn))


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
        The block: north-up, on whole pixels of the pixel grid.
    resampling
        ``"nearest"``; ``"bilinear"``; ``"cubic"`` (Keys, a = -0.5; bilinear where one of the 16 pixels is missing);
        ``"average"``: mean of n by n samples in the target pixel, n twice the number of source pixels along it, at most 64.
        All but nearest read the coarsest overview that is at least as fine as the target.
    anchor
        Corner (x, y) of the pixel grid in target CRS units.
    dtype
        Of the output; None for the source's. Integers are rounded and clipped, and never become nodata by it.

    Returns
    -------
    Warped
        All bands of the reader.

    Raises
    ------
    CubeError
        The target is off the pixel grid, a grid has no CRS, or the reader fails.

    Examples
    --------
    >>> from affine import Affine
    >>> from rtsx.cube.resample.readers import ArrayReader
    >>> coarse = ArrayReader(np.array([[[10, 30]]], np.uint8), GeoBox((1, 2), Affine(4, 0, 0, 0, -4, 4), "EPSG:3413"), nodata=0)
    >>> fine = GeoBox((1, 4), Affine(2, 0, 0, 0, -2, 4), "EPSG:3413")
    >>> warp(coarse, fine, resampling="bilinear", anchor=(0.0, 4.0)).pixels
    array([[[10, 15, 25, 30]]], dtype=uint8)
    """
    row, column = pixel_index(target, anchor)
    placement = GridTransform.of(reader.geobox, target, anchor=anchor)
    offset = placement.offset()
    if offset is not None:
        resampling = "nearest"
    elif factor := _overview_factor(placement, resampling):
        reader = reader.overview_for(factor)
        placement = GridTransform.of(reader.geobox, target, anchor=anchor)
    storing = OutputDtype(np.dtype(reader.dtype if dtype is None else dtype).newbyteorder("="), reader.nodata)
    rows, columns = slice(row, row + target.shape[0]), slice(column, column + target.shape[1])
    if offset is not None and not placement.turn:
        return _sliced(reader, rows, columns, offset=offset, storing=storing)
    return _gathered(reader, rows, columns, placement=placement, resampling=resampling, storing=storing)


def overview_factor(source: GeoBox, target: GeoBox, *, resampling: Resampling, anchor: tuple[float, float]) -> float:
    """Return by how much the pixels of the overview that `warp` reads may be larger; 0 where it reads the raster itself."""
    placement = GridTransform.of(source, target, anchor=anchor)
    return 0.0 if placement.offset() is not None else _overview_factor(placement, resampling)


def _overview_factor(placement: GridTransform, resampling: Resampling) -> float:
    factor = 0.0 if resampling == "nearest" else placement.scale() * _OVERVIEW_SLACK
    return factor if factor > 1 else 0.0


def _sliced(
    reader: WindowReader, rows: slice, columns: slice, *, offset: tuple[int, int], storing: OutputDtype
) -> Warped:
    """Return stored pixels of a raster on the same pixel grid."""
    inside, outside = [], []
    for span, shift, size in zip((rows, columns), offset, reader.geobox.shape, strict=True):
        start, stop = (min(max(edge + shift, 0), size) for edge in (span.start, span.stop))
        inside.append(slice(start, stop))
        outside.append(slice(start - shift - span.start, stop - shift - span.start))
    if not all(span.start < span.stop for span in inside):
        return _empty(reader, rows, columns, storing=storing)
    stored = reader.read(inside[0], inside[1])
    valid = is_representable(stored, reader.nodata)
    pixels = storing.stored(np.ma.getdata(stored), valid=valid)
    if valid.shape[1:] == (rows.stop - rows.start, columns.stop - columns.start):
        return Warped(pixels, valid)
    warped = _empty(reader, rows, columns, storing=storing)
    warped.pixels[:, *outside], warped.valid[:, *outside] = pixels, valid
    return warped


def _gathered(
    reader: WindowReader,
    rows: slice,
    columns: slice,
    *,
    placement: GridTransform,
    resampling: Resampling,
    storing: OutputDtype,
) -> Warped:
    """Return pixels put together from those around their positions."""
    # Nearest copies, so that it needs no signature of its own for each pair of dtypes, and keeps 64-bit integers exact.
    gathered = OutputDtype(_gathered_dtype(reader.dtype if resampling == "nearest" else storing.dtype), reader.nodata)
    out = _empty(reader, rows, columns, storing=gathered)
    pieces = _pieces(reader, rows, columns, placement=placement, resampling=resampling, storing=gathered)
    for coordinates, window in pieces:
        pixels, nodata = without_mask(read_source_window(reader, window), reader.nodata)
        pixels = np.ascontiguousarray(pixels, _gathered_dtype(pixels.dtype))
        value = output_nodata(nodata, pixels.dtype)
        place = window.top, window.left, window.height, window.width
        frame = (*place, window.period, value is not None, pixels.dtype.type(value or 0))
        block, positions, rule = _kernel_arguments(coordinates, within=(rows, columns), storing=gathered)
        given = (block, positions, pixels, frame, out.pixels, out.valid, rule)
        if resampling == "average":
            average(*given, _samples(coordinates))
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
    placement: GridTransform,
    resampling: Resampling,
    storing: OutputDtype,
) -> Iterator[tuple[TransformGrid, Window]]:
    """Yield the block as a whole, or cut along the pixel grid until each piece needs memory in proportion; what meets the raster."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width:
        return
    is_pixel = height == width == 1
    coordinates = transform_grid(
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
    """Return two halves of a span of pixels, cut between transform cells if it holds such a place."""
    middle = (span.start + span.stop) // 2
    border = (middle + CELL // 2) // CELL * CELL
    cut = border if span.start < border < span.stop else middle
    return slice(span.start, cut), slice(cut, span.stop)


def _window(coordinates: TransformGrid, resampling: Resampling) -> Window | None:
    if resampling != "average":
        return window_of(coordinates, margin=_MARGINS[resampling])
    steps = coordinates.steps()[~coordinates.is_exact]
    return window_of(coordinates, margin=1 + (math.ceil(steps.sum(axis=1).max() / 2) if len(steps) else 0))


def _empty(reader: WindowReader, rows: slice, columns: slice, *, storing: OutputDtype) -> Warped:
    shape = (reader.count, rows.stop - rows.start, columns.stop - columns.start)
    return Warped(np.full(shape, storing.fill, storing.dtype), np.zeros(shape, bool))


def _gathered_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that a kernel reads or writes: those that numba does not have are widened."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize == 2 else np.float64)
    return dtype.newbyteorder("=")
