"""The gather: one pass over the target pixels of a block for all bands, compiled, without the interpreter's lock.

Arguments come as plain tuples; arrays that the innermost loop reads or writes come by themselves, because an array in a
tuple, or handed on to a function, is counted anew at every use:

- block: global row and column of its first pixel, height, width, and row and column of that pixel in the output;
- positions: rows and columns of the nodes, which cells are exact, rows and columns of the pixels of those, as in
  `TransformGrid`;
- frame of the window of source pixels: its first row and column in the raster (any number of turns away), height, width,
  the columns after which the raster begins again (0 if it does not), whether a stored value means missing, and that value;
- rule of storing: whether to round, the lowest and the highest value, whether missing pixels are marked by a value that a
  valid one must not get, that value, and what a valid pixel gets instead from above and from below;
- samples of `average`: rows and columns of samples in each pixel by transform cell, the most there are, rows and columns of
  the upper left corners of pixels in exact cells, and the columns once around the earth (0 for none).

Every kernel takes the block and its positions, the source's pixels (band, y, x) and their frame, the arrays of the output
(band, y, x), filled with the value of missing pixels and with False, and the rule of storing. Positions are computed a run
of pixels at a time from the nodes of the pixel grid, by the same operations for the same global pixel whatever the block, so
outputs are equal to the last bit.

All kernels and what they call are in one file, because numba looks only at the file of a compiled function to see
whether it changed.
"""

import math
from collections.abc import Callable

import numba
import numpy as np

from rtsx.cube.erosion import compiled

_CELL = 64
"""The transform cell of `coordinates`; a constant, so that the compiler turns divisions into shifts."""

_NUDGE = 1e-6
"""Pixels that a position moves right and down before the pixel that holds it is found. A position that lies on a border
between two pixels, as every one does where a grid is coarser by an even factor, then belongs to the same side of each
border, whatever the last bits say."""

_FAR = 1e9
"""Pixels: no raster is as large. Not-a-number fails this comparison too."""


_inline = numba.njit(forceinline=True, nogil=True, error_model="numpy")
_called = numba.njit(nogil=True, error_model="numpy")


@_inline
def _through(start, middle, end, at):  # type: ignore[no-untyped-def]
    """Return the parabola through three values at 0, 1/2 and 1."""
    return start + at * ((4 * middle - 3 * start - end) + at * (2 * (start - 2 * middle + end)))


@_called
def _runs(block):  # type: ignore[no-untyped-def]
    """Yield pixels of one row and one transform cell as (y, x, length), cell by cell.

    Not row by row, because the source pixels of a cell stay in the fastest cache whichever way the source is turned.
    """
    row, column, height, width, _, _ = block
    y = 0
    while y < height:
        tall = min(_CELL - (row + y) % _CELL, height - y)
        x = 0
        while x < width:
            wide = min(_CELL - (column + x) % _CELL, width - x)
            for line in range(y, y + tall):
                yield line, x, wide
            x += wide
        y += tall


@_inline
def _cell_of(block, y, x):  # type: ignore[no-untyped-def]
    """Return the row and column of the transform cell of a pixel, counted from that of the first pixel."""
    row, column, _, _, _, _ = block
    return (row + y) // _CELL - row // _CELL, (column + x) // _CELL - column // _CELL


@_inline
def _place_of(block, y, x):  # type: ignore[no-untyped-def]
    """Return the row and column of a pixel in its transform cell."""
    row, column, _, _, _, _ = block
    return float((row + y) % _CELL), float((column + x) % _CELL)


@_inline
def _goal_of(block, y, x):  # type: ignore[no-untyped-def]
    """Return the row and column of a pixel in the output."""
    _, _, _, _, top, left = block
    return np.uintp(top + y), np.uintp(left + x)


@_inline
def _fill_line(nodes, cell, v, begin, length, out):  # type: ignore[no-untyped-def]
    """Return the quadratic of one cell on a line: at (v, begin) and on, in pixels of the cell, a pixel apart."""
    ky, kx, at = 2 * cell[0], 2 * cell[1], v / _CELL
    start = _through(nodes[ky, kx], nodes[ky + 1, kx], nodes[ky + 2, kx], at)
    middle = _through(nodes[ky, kx + 1], nodes[ky + 1, kx + 1], nodes[ky + 2, kx + 1], at)
    end = _through(nodes[ky, kx + 2], nodes[ky + 1, kx + 2], nodes[ky + 2, kx + 2], at)
    slope, bend = 4 * middle - 3 * start - end, 2 * (start - 2 * middle + end)
    for i in range(length):
        u = (begin + i) / _CELL
        out[i] = start + u * (slope + u * bend)


@_called
def _fill_positions(block, positions, y, x, length, rows, columns):  # type: ignore[no-untyped-def]
    """Return source positions of a run of target pixels into `rows` and `columns`."""
    node_rows, node_columns, is_exact, exact_rows, exact_columns = positions
    cell = _cell_of(block, y, x)
    if is_exact[cell]:
        for i in range(length):
            rows[i] = exact_rows[y, x + i]
            columns[i] = exact_columns[y, x + i]
    else:
        v, begin = _place_of(block, y, x)
        _fill_line(node_rows, cell, v, begin, length, rows)
        _fill_line(node_columns, cell, v, begin, length, columns)


@_inline
def _all_within(frame, rows, columns, length, margin):  # type: ignore[no-untyped-def]
    """Test whether every position of a run is `margin` pixels inside the window, so that no tap needs a look."""
    first_row, first_column, height, width, _, _, _ = frame
    top, bottom = first_row + margin, first_row + height - margin
    left, right = first_column + margin, first_column + width - margin
    is_within = first_column >= 0
    for i in range(length):
        is_within &= (rows[i] >= top) & (rows[i] < bottom) & (columns[i] >= left) & (columns[i] < right)
    return is_within


@_inline
def _is_missing(frame, value):  # type: ignore[no-untyped-def]
    """Nodata, or not finite: a finite number less itself is 0."""
    _, _, _, _, _, has_nodata, nodata = frame
    return (has_nodata and value == nodata) or value - value != 0


@_inline
def _row_of(frame, row):  # type: ignore[no-untyped-def]
    """Return the row in the window; -1 where there is none."""
    top, _, height, _, _, _, _ = frame
    place = row - top
    return place if 0 <= place < height else -1


@_inline
def _column_of(frame, column):  # type: ignore[no-untyped-def]
    """Return the column in the window; -1 where there is none."""
    _, left, _, width, period, _, _ = frame
    place = column - left
    if period:
        place %= period
    return place if 0 <= place < width else -1


@_inline
def _holder(frame, row, column):  # type: ignore[no-untyped-def]
    """Return the row and column in the window of the pixel that holds a position; (-1, -1) where there is none."""
    if not (abs(row) < _FAR and abs(column) < _FAR):
        return -1, -1
    y = _row_of(frame, math.floor(row + _NUDGE))
    x = _column_of(frame, math.floor(column + _NUDGE))
    return (y, x) if y >= 0 and x >= 0 else (-1, -1)


@_inline
def _tap(pixels, band, y, x):  # type: ignore[no-untyped-def]
    """Return a pixel of the window; unsigned, because Python's negative indices would cost a look at each."""
    return pixels[band, np.uintp(y), np.uintp(x)]


@_inline
def _rounded(value, rule):  # type: ignore[no-untyped-def]
    """Return a value as it can be stored, but for the one that means missing."""
    is_integer, low, high, _, _, _, _ = rule
    return min(max(np.rint(value), low), high) if is_integer else value


@_inline
def _beside(value, rule):  # type: ignore[no-untyped-def]
    """Return what is stored of a valid value that would be read as missing."""
    _, _, _, _, fill, above, below = rule
    return above if value >= fill else below


def _nearest(block, positions, pixels, frame, out, valid, rule):  # type: ignore[no-untyped-def]
    """Copy the pixel that holds each position; the output is of the pixels' own dtype."""
    rows = np.empty(_CELL)
    columns = np.empty(_CELL)
    for y, x, length in _runs(block):
        _fill_positions(block, positions, y, x, length, rows, columns)
        for i in range(length):
            hy, hx = _holder(frame, rows[i], columns[i])
            if hy >= 0:
                ty, tx = _goal_of(block, y, x + i)
                for band in range(pixels.shape[0]):
                    value = _tap(pixels, band, hy, hx)
                    if not _is_missing(frame, value):
                        out[band, ty, tx] = value
                        valid[band, ty, tx] = True


@_inline
def _taps(frame, row, column, are_within):  # type: ignore[no-untyped-def]
    """Return rows and columns in the window of the two by two pixels around a position; -1 where there is none."""
    y, x = math.floor(row - 0.5), math.floor(column - 0.5)
    if are_within:
        top, left, _, _, _, _, _ = frame
        return (y - top, y - top + 1), (x - left, x - left + 1)
    return (_row_of(frame, y), _row_of(frame, y + 1)), (_column_of(frame, x), _column_of(frame, x + 1))


@_inline
def _outer_taps(frame, row, column, are_within):  # type: ignore[no-untyped-def]
    """Return rows and columns before and after those of `_taps`."""
    y, x = math.floor(row - 0.5), math.floor(column - 0.5)
    if are_within:
        top, left, _, _, _, _, _ = frame
        return (y - top - 1, y - top + 2), (x - left - 1, x - left + 2)
    return (_row_of(frame, y - 1), _row_of(frame, y + 2)), (_column_of(frame, x - 1), _column_of(frame, x + 2))


@_inline
def _exist(ys, xs):  # type: ignore[no-untyped-def]
    return ys[0] >= 0 and ys[1] >= 0 and xs[0] >= 0 and xs[1] >= 0


@_inline
def _weights(row, column):  # type: ignore[no-untyped-def]
    """Return weights of the two by two pixels around a position, row by row."""
    fy, fx = row - 0.5, column - 0.5
    dy, dx = fy - math.floor(fy), fx - math.floor(fx)
    return (1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx


@_inline
def _four(pixels, frame, band, ys, xs, weights):  # type: ignore[no-untyped-def]
    """Return the weighted sum of four taps that exist, and whether all of them are valid.

    A tap that is not finite makes the sum so, which saves looking at each.
    """
    v00, v01 = _tap(pixels, band, ys[0], xs[0]), _tap(pixels, band, ys[0], xs[1])
    v10, v11 = _tap(pixels, band, ys[1], xs[0]), _tap(pixels, band, ys[1], xs[1])
    total = weights[0] * v00 + weights[1] * v01 + weights[2] * v10 + weights[3] * v11
    _, _, _, _, _, has_nodata, nodata = frame
    is_missing = has_nodata & ((v00 == nodata) | (v01 == nodata) | (v10 == nodata) | (v11 == nodata))
    return total, (total - total == 0) & (not is_missing)


@_called
def _some_of_four(pixels, frame, band, ys, xs, weights):  # type: ignore[no-untyped-def]
    """Return the weighted mean of those of four taps that exist and are valid."""
    total = 0.0
    weight = 0.0
    for i in range(2):
        for j in range(2):
            if ys[i] >= 0 and xs[j] >= 0:
                value = _tap(pixels, band, ys[i], xs[j])
                if not _is_missing(frame, value):
                    w = weights[2 * i + j]
                    total += w * value
                    weight += w
    return total / weight


def _bilinear(block, positions, pixels, frame, out, valid, rule):  # type: ignore[no-untyped-def]
    """Return the mean of the four pixels around each position, weighted by nearness; missing ones are left out."""
    rows = np.empty(_CELL)
    columns = np.empty(_CELL)
    _, _, _, has_fill, fill, _, _ = rule
    for y, x, length in _runs(block):
        _fill_positions(block, positions, y, x, length, rows, columns)
        are_within = _all_within(frame, rows, columns, length, 0.5)
        for i in range(length):
            holder = _holder(frame, rows[i], columns[i])
            if holder[0] >= 0:
                ys, xs = _taps(frame, rows[i], columns[i], are_within)
                weights = _weights(rows[i], columns[i])
                ty, tx = _goal_of(block, y, x + i)
                exist = _exist(ys, xs)
                for band in range(pixels.shape[0]):
                    value, is_valid = 0.0, False
                    if exist:
                        value, is_valid = _four(pixels, frame, band, ys, xs, weights)
                    if not is_valid and not _is_missing(frame, _tap(pixels, band, holder[0], holder[1])):
                        value, is_valid = _some_of_four(pixels, frame, band, ys, xs, weights), True
                    if is_valid:
                        # Not in a function, because arrays are counted when they are handed on.
                        out[band, ty, tx] = _rounded(value, rule)
                        if has_fill and out[band, ty, tx] == fill:
                            out[band, ty, tx] = _beside(value, rule)
                        valid[band, ty, tx] = True


@_inline
def _keys(distance):  # type: ignore[no-untyped-def]
    """Return the four weights of cubic convolution with a = -0.5 (Keys 1981), `distance` after the second tap."""
    t = distance
    return (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


@_inline
def _line(pixels, frame, band, y, xs, outer, weights):  # type: ignore[no-untyped-def]
    """Return the weighted sum of four taps of one row, and whether one of them is nodata."""
    v0, v1 = _tap(pixels, band, y, outer[0]), _tap(pixels, band, y, xs[0])
    v2, v3 = _tap(pixels, band, y, xs[1]), _tap(pixels, band, y, outer[1])
    _, _, _, _, _, has_nodata, nodata = frame
    is_missing = has_nodata & ((v0 == nodata) | (v1 == nodata) | (v2 == nodata) | (v3 == nodata))
    return weights[0] * v0 + weights[1] * v1 + weights[2] * v2 + weights[3] * v3, is_missing


@_inline
def _sixteen(pixels, frame, band, ys, xs, outer_ys, outer_xs, wy, wx):  # type: ignore[no-untyped-def]
    """Return the weighted sum of sixteen taps that exist, and whether all of them are valid."""
    a, is_missing_a = _line(pixels, frame, band, outer_ys[0], xs, outer_xs, wx)
    b, is_missing_b = _line(pixels, frame, band, ys[0], xs, outer_xs, wx)
    c, is_missing_c = _line(pixels, frame, band, ys[1], xs, outer_xs, wx)
    d, is_missing_d = _line(pixels, frame, band, outer_ys[1], xs, outer_xs, wx)
    total = wy[0] * a + wy[1] * b + wy[2] * c + wy[3] * d
    return total, (total - total == 0) & (not (is_missing_a | is_missing_b | is_missing_c | is_missing_d))


def _cubic(block, positions, pixels, frame, out, valid, rule):  # type: ignore[no-untyped-def]
    """Return the cubic convolution of the sixteen pixels around each position; bilinear where one of them is missing."""
    rows = np.empty(_CELL)
    columns = np.empty(_CELL)
    _, _, _, has_fill, fill, _, _ = rule
    for y, x, length in _runs(block):
        _fill_positions(block, positions, y, x, length, rows, columns)
        are_within = _all_within(frame, rows, columns, length, 1.5)
        for i in range(length):
            holder = _holder(frame, rows[i], columns[i])
            if holder[0] < 0:
                continue
            fy, fx = rows[i] - 0.5, columns[i] - 0.5
            wy, wx = _keys(fy - math.floor(fy)), _keys(fx - math.floor(fx))
            ys, xs = _taps(frame, rows[i], columns[i], are_within)
            outer_ys, outer_xs = _outer_taps(frame, rows[i], columns[i], are_within)
            ty, tx = _goal_of(block, y, x + i)
            exist = are_within or (_exist(ys, xs) and _exist(outer_ys, outer_xs))
            for band in range(pixels.shape[0]):
                value, is_valid = 0.0, False
                if exist:
                    value, is_valid = _sixteen(pixels, frame, band, ys, xs, outer_ys, outer_xs, wy, wx)
                if not is_valid and not _is_missing(frame, _tap(pixels, band, holder[0], holder[1])):
                    weights = _weights(rows[i], columns[i])
                    value, is_valid = _some_of_four(pixels, frame, band, ys, xs, weights), True
                if is_valid:
                    out[band, ty, tx] = _rounded(value, rule)
                    if has_fill and out[band, ty, tx] == fill:
                        out[band, ty, tx] = _beside(value, rule)
                    valid[band, ty, tx] = True


def _average(block, positions, pixels, frame, out, valid, rule, samples):  # type: ignore[no-untyped-def]
    """Return the mean of the valid ones of evenly spaced samples in each target pixel; a sample is the pixel that holds it."""
    rows = np.empty(_CELL)
    columns = np.empty(_CELL)
    edges = np.empty((2, 2, _CELL + 1))
    quad = np.empty((2, 2, 2))
    node_rows, node_columns, are_exact, _, _ = positions
    sample_counts = samples[0]
    bands = pixels.shape[0]
    totals = np.empty(bands)
    counts = np.empty(bands, np.int64)
    _, _, _, has_fill, fill, _, _ = rule
    for y, x, length in _runs(block):
        _fill_positions(block, positions, y, x, length, rows, columns)
        cell = _cell_of(block, y, x)
        is_exact = are_exact[cell]
        if not is_exact:
            v, u = _place_of(block, y, x)
            for k in range(2):
                _fill_line(node_rows, cell, v + k - 0.5, u - 0.5, length + 1, edges[k, 0])
                _fill_line(node_columns, cell, v + k - 0.5, u - 0.5, length + 1, edges[k, 1])
        for i in range(length):
            holder = _holder(frame, rows[i], columns[i])
            if holder[0] < 0:
                continue
            if is_exact:
                ny, nx = _exact_corners(samples, y, x + i, columns[i], quad)
            else:
                ny, nx = sample_counts[cell[0], cell[1], 0], sample_counts[cell[0], cell[1], 1]
                for k in range(2):
                    for j in range(2):
                        quad[k, j, 0], quad[k, j, 1] = edges[k, 0, i + j], edges[k, 1, i + j]
            for band in range(bands):
                totals[band], counts[band] = 0.0, 0
            for k in range(ny):
                start, end = _edge(quad, (k + 0.5) / ny)
                for j in range(nx):
                    u = (j + 0.5) / nx
                    sy, sx = _holder(frame, start[0] + u * (end[0] - start[0]), start[1] + u * (end[1] - start[1]))
                    if sy >= 0:
                        for band in range(bands):
                            value = _tap(pixels, band, sy, sx)
                            if not _is_missing(frame, value):
                                totals[band] += value
                                counts[band] += 1
            ty, tx = _goal_of(block, y, x + i)
            for band in range(bands):
                if counts[band] and not _is_missing(frame, _tap(pixels, band, holder[0], holder[1])):
                    value = totals[band] / counts[band]
                    out[band, ty, tx] = _rounded(value, rule)
                    if has_fill and out[band, ty, tx] == fill:
                        out[band, ty, tx] = _beside(value, rule)
                    valid[band, ty, tx] = True


@_inline
def _edge(quad, v):  # type: ignore[no-untyped-def]
    """Return positions (row, column) on the left and on the right edge of a pixel, `v` of its height down."""
    start = (1 - v) * quad[0, 0, 0] + v * quad[1, 0, 0], (1 - v) * quad[0, 0, 1] + v * quad[1, 0, 1]
    end = (1 - v) * quad[0, 1, 0] + v * quad[1, 1, 0], (1 - v) * quad[0, 1, 1] + v * quad[1, 1, 1]
    return start, end


@_called
def _exact_corners(samples, y, x, column, quad):  # type: ignore[no-untyped-def]
    """Return corners of a pixel of an exact cell into `quad` (y, x, row and column), and the samples they ask for."""
    _, limit, corner_rows, corner_columns, turn = samples
    for i in range(2):
        for j in range(2):
            quad[i, j, 0] = corner_rows[y + i, x + j]
            quad[i, j, 1] = corner_columns[y + i, x + j]
            if turn:
                quad[i, j, 1] -= np.rint((quad[i, j, 1] - column) / turn) * turn
    below = 0.0
    beside = 0.0
    for k in range(2):
        for i in range(2):
            below = max(below, abs(quad[1, i, k] - quad[0, i, k]))
            beside = max(beside, abs(quad[i, 1, k] - quad[i, 0, k]))
    return _count(below, limit), _count(beside, limit)


@_inline
def _count(step, limit):  # type: ignore[no-untyped-def]
    """Return samples along a target pixel that is `step` source pixels long: two for each, so that half a pixel counts half."""
    if not step < limit:
        return limit
    return max(1, min(limit, 2 * math.ceil(step - 1e-3)))


nearest: Callable[..., None] = compiled(_nearest)
bilinear: Callable[..., None] = compiled(_bilinear)
cubic: Callable[..., None] = compiled(_cubic)
average: Callable[..., None] = compiled(_average)
