"""The gather: one pass over the target pixels of a block for all bands, compiled, without the interpreter's lock.

Every kernel takes the same three bundles of arrays and numbers. Positions are computed a row at a time from the nodes of
the lattice, by the same operations for the same global pixel whatever the block, so answers are equal to the last bit.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["PositionArrays", "Samples", "SourceWindow", "TargetPixels", "average", "bilinear", "cubic", "nearest"]

Floats = NDArray[np.float64]

_CELL = 64
"""The lattice cell of `coordinates`; a constant, so that the compiler turns divisions into shifts."""

_NUDGE = 1e-6
"""Pixels that a position moves right and down before the pixel that holds it is told. A position that lies on a border
between two pixels, as every one does where a grid is coarser by an even factor, then belongs to the same side of each
border, whatever the last bits say."""

_FAR = 1e9
"""Pixels: no raster is as large. Not-a-number fails this comparison too."""


class PositionArrays(NamedTuple):
    """Source positions of a block of target pixels, as `Coordinates` has them."""

    row: int
    """Global row of the first pixel."""
    column: int
    """Global column of the first pixel."""
    height: int
    """Rows of the block."""
    width: int
    """Columns of the block."""
    node_rows: Floats
    node_columns: Floats
    is_exact: NDArray[np.bool_]
    exact_rows: Floats
    exact_columns: Floats


class SourceWindow(NamedTuple):
    """Stored pixels around these positions."""

    pixels: NDArray[Any]
    """(band, y, x)"""
    top: int
    """Row of the first pixel in the raster."""
    left: int
    """Column of the first pixel in the raster; with a period, any number of turns away."""
    period: int
    """Columns after which the raster begins again; 0 if it does not."""
    has_nodata: bool
    """Whether a stored value means missing."""
    nodata: Any
    """That value, in the dtype of the pixels."""


class TargetPixels(NamedTuple):
    """Where answers go, and how they are stored."""

    pixels: NDArray[Any]
    """(band, y, x), filled with the value of missing pixels."""
    valid: NDArray[np.bool_]
    """(band, y, x), all False."""
    y: int
    """Row in `pixels` of the block's first pixel."""
    x: int
    """Column in `pixels` of the block's first pixel."""
    is_integer: bool
    """Whether to round to the nearest."""
    low: float
    """Lowest value that can be stored."""
    high: float
    """Highest value that can be stored."""
    has_fill: bool
    """Whether missing pixels are told by a value that a valid one must not get."""
    fill: Any
    """That value, in the dtype of the pixels."""
    above: Any
    """What a valid pixel gets instead, from above."""
    below: Any
    """What a valid pixel gets instead, from below."""


class Samples(NamedTuple):
    """How many samples `average` takes in a target pixel."""

    counts: NDArray[np.int64]
    """(cell, cell, 2): rows and columns of samples in each pixel of a lattice cell."""
    limit: int
    """Most rows or columns of samples in a pixel of an exact cell."""
    corner_rows: Floats
    """Source rows of the pixels' upper left corners in exact cells, (height + 1, width + 1)."""
    corner_columns: Floats
    """Source columns of these corners."""
    turn: float
    """Columns once around the earth; 0 for none."""


def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, and keep the result on disk where there is a place for it."""
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(kernel)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        compiled = numba.njit(nogil=True, error_model="numpy")(kernel)
    return compiled


_inline = numba.njit(inline="never", nogil=True, error_model="numpy")


@_inline
def _through(start, middle, end, at):  # type: ignore[no-untyped-def]
    """The parabola through three values at 0, 1/2 and 1."""
    return start + at * ((4 * middle - 3 * start - end) + at * (2 * (start - 2 * middle + end)))


@_inline
def _fill_positions(positions, y, rows, columns):  # type: ignore[no-untyped-def]
    """Source positions of one row of target pixels into `rows` and `columns`."""
    line = positions.row + y
    cell_y = line // _CELL - positions.row // _CELL
    v = (line % _CELL) / _CELL
    first = positions.column // _CELL
    x = 0
    while x < positions.width:
        column = positions.column + x
        cell_x = column // _CELL - first
        begin = column % _CELL
        length = min(_CELL - begin, positions.width - x)
        if positions.is_exact[cell_y, cell_x]:
            for i in range(length):
                rows[x + i] = positions.exact_rows[y, x + i]
                columns[x + i] = positions.exact_columns[y, x + i]
        else:
            for nodes, out in ((positions.node_rows, rows), (positions.node_columns, columns)):
                ky, kx = 2 * cell_y, 2 * cell_x
                start = _through(nodes[ky, kx], nodes[ky + 1, kx], nodes[ky + 2, kx], v)
                middle = _through(nodes[ky, kx + 1], nodes[ky + 1, kx + 1], nodes[ky + 2, kx + 1], v)
                end = _through(nodes[ky, kx + 2], nodes[ky + 1, kx + 2], nodes[ky + 2, kx + 2], v)
                slope, bend = 4 * middle - 3 * start - end, 2 * (start - 2 * middle + end)
                for i in range(length):
                    u = (begin + i) / _CELL
                    out[x + i] = start + u * (slope + u * bend)
        x += length


@_inline
def _is_missing(source, value):  # type: ignore[no-untyped-def]
    """Nodata, or not finite: a finite number less itself is 0."""
    return (source.has_nodata and value == source.nodata) or value - value != 0


@_inline
def _row_of(source, row):  # type: ignore[no-untyped-def]
    """Row in the window; -1 where there is none."""
    place = row - source.top
    return place if 0 <= place < source.pixels.shape[1] else -1


@_inline
def _column_of(source, column):  # type: ignore[no-untyped-def]
    """Column in the window; -1 where there is none."""
    place = column - source.left
    if source.period:
        place %= source.period
    return place if 0 <= place < source.pixels.shape[2] else -1


@_inline
def _holder(source, row, column):  # type: ignore[no-untyped-def]
    """Row and column in the window of the pixel that holds a position; (-1, -1) where there is none."""
    if not (abs(row) < _FAR and abs(column) < _FAR):
        return -1, -1
    y = _row_of(source, math.floor(row + _NUDGE))
    x = _column_of(source, math.floor(column + _NUDGE))
    return (y, x) if y >= 0 and x >= 0 else (-1, -1)


@_inline
def _store(target, band, y, x, value):  # type: ignore[no-untyped-def]
    """A valid value in the target's dtype, never the one that means missing."""
    pixels = target.pixels
    stored = value
    if target.is_integer:
        stored = min(max(np.rint(value), target.low), target.high)
    pixels[band, y, x] = stored
    if target.has_fill and pixels[band, y, x] == target.fill:
        pixels[band, y, x] = target.above if value >= target.fill else target.below
    target.valid[band, y, x] = True


@_inline
def _bilinear_at(source, band, ys, xs, dy, dx):  # type: ignore[no-untyped-def]
    """Weighted mean of the taps that exist and are valid; the holder of the position is always one of them."""
    total = 0.0
    weight = 0.0
    for i in range(2):
        if ys[i] >= 0:
            wy = dy if i else 1 - dy
            for j in range(2):
                if xs[j] >= 0:
                    value = source.pixels[band, ys[i], xs[j]]
                    if not _is_missing(source, value):
                        w = wy * (dx if j else 1 - dx)
                        total += w * value
                        weight += w
    return total / weight


@_inline
def _keys(distance, weights):  # type: ignore[no-untyped-def]
    """The four weights of cubic convolution with a = -0.5 (Keys 1981), `distance` after the second tap."""
    t = distance
    weights[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    weights[1] = (1.5 * t - 2.5) * t * t + 1.0
    weights[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    weights[3] = (0.5 * t - 0.5) * t * t


def nearest(positions: PositionArrays, source: SourceWindow, target: TargetPixels) -> None:
    """Copy the pixel that holds each position; target and source are of one dtype."""
    rows = np.empty(positions.width)
    columns = np.empty(positions.width)
    for y in range(positions.height):
        _fill_positions(positions, y, rows, columns)
        ty = target.y + y
        for x in range(positions.width):
            hy, hx = _holder(source, rows[x], columns[x])
            if hy >= 0:
                for band in range(source.pixels.shape[0]):
                    value = source.pixels[band, hy, hx]
                    if not _is_missing(source, value):
                        target.pixels[band, ty, target.x + x] = value
                        target.valid[band, ty, target.x + x] = True


def bilinear(positions: PositionArrays, source: SourceWindow, target: TargetPixels) -> None:
    """Mean of the four pixels around each position, weighted by nearness; missing ones are left out."""
    rows = np.empty(positions.width)
    columns = np.empty(positions.width)
    ys = np.empty(2, np.int64)
    xs = np.empty(2, np.int64)
    pixels = source.pixels
    for y in range(positions.height):
        _fill_positions(positions, y, rows, columns)
        ty = target.y + y
        for x in range(positions.width):
            hy, hx = _holder(source, rows[x], columns[x])
            if hy < 0:
                continue
            fy, fx = rows[x] - 0.5, columns[x] - 0.5
            y0, x0 = math.floor(fy), math.floor(fx)
            dy, dx = fy - y0, fx - x0
            ys[0], ys[1] = _row_of(source, y0), _row_of(source, y0 + 1)
            xs[0], xs[1] = _column_of(source, x0), _column_of(source, x0 + 1)
            is_inside = ys[0] >= 0 and ys[1] >= 0 and xs[0] >= 0 and xs[1] >= 0
            w00, w01, w10, w11 = (1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx
            for band in range(pixels.shape[0]):
                if _is_missing(source, pixels[band, hy, hx]):
                    continue
                if is_inside:
                    v00, v01 = pixels[band, ys[0], xs[0]], pixels[band, ys[0], xs[1]]
                    v10, v11 = pixels[band, ys[1], xs[0]], pixels[band, ys[1], xs[1]]
                    if not (
                        _is_missing(source, v00)
                        or _is_missing(source, v01)
                        or _is_missing(source, v10)
                        or _is_missing(source, v11)
                    ):
                        value = w00 * v00 + w01 * v01 + w10 * v10 + w11 * v11
                        _store(target, band, ty, target.x + x, value)
                        continue
                _store(target, band, ty, target.x + x, _bilinear_at(source, band, ys, xs, dy, dx))


def cubic(positions: PositionArrays, source: SourceWindow, target: TargetPixels) -> None:
    """Cubic convolution of the sixteen pixels around each position; bilinear where one of them is missing."""
    rows = np.empty(positions.width)
    columns = np.empty(positions.width)
    ys = np.empty(4, np.int64)
    xs = np.empty(4, np.int64)
    wy = np.empty(4)
    wx = np.empty(4)
    pixels = source.pixels
    for y in range(positions.height):
        _fill_positions(positions, y, rows, columns)
        ty = target.y + y
        for x in range(positions.width):
            hy, hx = _holder(source, rows[x], columns[x])
            if hy < 0:
                continue
            fy, fx = rows[x] - 0.5, columns[x] - 0.5
            y0, x0 = math.floor(fy), math.floor(fx)
            dy, dx = fy - y0, fx - x0
            _keys(dy, wy)
            _keys(dx, wx)
            is_inside = True
            for i in range(4):
                ys[i] = _row_of(source, y0 - 1 + i)
                xs[i] = _column_of(source, x0 - 1 + i)
                is_inside &= ys[i] >= 0 and xs[i] >= 0
            for band in range(pixels.shape[0]):
                if _is_missing(source, pixels[band, hy, hx]):
                    continue
                is_whole = is_inside
                total = 0.0
                if is_whole:
                    for i in range(4):
                        line = 0.0
                        for j in range(4):
                            value = pixels[band, ys[i], xs[j]]
                            is_whole &= not _is_missing(source, value)
                            line += wx[j] * value
                        total += wy[i] * line
                if not is_whole:
                    total = _bilinear_at(source, band, ys[1:3], xs[1:3], dy, dx)
                _store(target, band, ty, target.x + x, total)


def average(positions: PositionArrays, source: SourceWindow, target: TargetPixels, samples: Samples) -> None:
    """Mean of the valid ones of evenly spaced samples in each target pixel; a sample is the pixel that holds it."""
    rows = np.empty(positions.width)
    columns = np.empty(positions.width)
    bands = source.pixels.shape[0]
    totals = np.empty(bands)
    counts = np.empty(bands, np.int64)
    quad = np.empty((2, 2, 2))
    first_y, first_x = positions.row // _CELL, positions.column // _CELL
    for y in range(positions.height):
        _fill_positions(positions, y, rows, columns)
        ty = target.y + y
        line = positions.row + y
        cell_y = line // _CELL - first_y
        for x in range(positions.width):
            hy, hx = _holder(source, rows[x], columns[x])
            if hy < 0:
                continue
            place = positions.column + x
            cell_x = place // _CELL - first_x
            if positions.is_exact[cell_y, cell_x]:
                ny, nx = _exact_corners(samples, y, x, columns[x], quad)
            else:
                ny, nx = samples.counts[cell_y, cell_x, 0], samples.counts[cell_y, cell_x, 1]
                for i in range(2):
                    for j in range(2):
                        at_y, at_x = (line % _CELL + i - 0.5) / _CELL, (place % _CELL + j - 0.5) / _CELL
                        quad[i, j, 0] = _at(positions.node_rows, 2 * cell_y, 2 * cell_x, at_y, at_x)
                        quad[i, j, 1] = _at(positions.node_columns, 2 * cell_y, 2 * cell_x, at_y, at_x)
            totals[:] = 0
            counts[:] = 0
            for i in range(ny):
                v = (i + 0.5) / ny
                row, row_end = _between(quad, 0, v)
                column, column_end = _between(quad, 1, v)
                for j in range(nx):
                    u = (j + 0.5) / nx
                    sy, sx = _holder(source, row + u * (row_end - row), column + u * (column_end - column))
                    if sy >= 0:
                        for band in range(bands):
                            value = source.pixels[band, sy, sx]
                            if not _is_missing(source, value):
                                totals[band] += value
                                counts[band] += 1
            for band in range(bands):
                if counts[band] and not _is_missing(source, source.pixels[band, hy, hx]):
                    _store(target, band, ty, target.x + x, totals[band] / counts[band])


@_inline
def _at(nodes, ky, kx, v, u):  # type: ignore[no-untyped-def]
    """The quadratic of one cell at (v, u)."""
    start = _through(nodes[ky, kx], nodes[ky + 1, kx], nodes[ky + 2, kx], v)
    middle = _through(nodes[ky, kx + 1], nodes[ky + 1, kx + 1], nodes[ky + 2, kx + 1], v)
    end = _through(nodes[ky, kx + 2], nodes[ky + 1, kx + 2], nodes[ky + 2, kx + 2], v)
    return _through(start, middle, end, u)


@_inline
def _exact_corners(samples, y, x, column, quad):  # type: ignore[no-untyped-def]
    """Corners of a pixel of an exact cell into `quad` (y, x, row and column), and the samples they ask for."""
    for i in range(2):
        for j in range(2):
            quad[i, j, 0] = samples.corner_rows[y + i, x + j]
            quad[i, j, 1] = samples.corner_columns[y + i, x + j]
            if samples.turn:
                quad[i, j, 1] -= np.rint((quad[i, j, 1] - column) / samples.turn) * samples.turn
    below = 0.0
    beside = 0.0
    for k in range(2):
        for i in range(2):
            below = max(below, abs(quad[1, i, k] - quad[0, i, k]))
            beside = max(beside, abs(quad[i, 1, k] - quad[i, 0, k]))
    return _count(below, samples.limit), _count(beside, samples.limit)


@_inline
def _count(step, limit):  # type: ignore[no-untyped-def]
    """Samples along a target pixel that is `step` source pixels long: two for each, so that half a pixel counts half."""
    if not step < limit:
        return limit
    return max(1, min(limit, 2 * math.ceil(step - 1e-3)))


@_inline
def _between(quad, axis, v):  # type: ignore[no-untyped-def]
    """Positions on the left and on the right edge of a pixel."""
    return (1 - v) * quad[0, 0, axis] + v * quad[1, 0, axis], (1 - v) * quad[0, 1, axis] + v * quad[1, 1, axis]


nearest = _compiled(nearest)
bilinear = _compiled(bilinear)
cubic = _compiled(cubic)
average = _compiled(average)
