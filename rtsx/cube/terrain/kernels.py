"""Compiled kernels over elevation. They release the GIL, run on one thread, and never look outside their array.

A missing neighbour is extrapolated in a straight line: the one beside a pixel through the pixel from the opposite one,
a diagonal one likewise, else from the two beside it. So a plane keeps its slope up to the edge of the data. Where both
neighbours along a row, or both along a column, are missing, nothing is known, and the result is NaN.
"""

from collections.abc import Callable
from math import atan, atan2, cos, degrees, floor, isnan, nan, radians, sin, sqrt

import numba
import numpy as np
from numpy.typing import NDArray

from rtsx.cube.erosion import compiled

Heights = NDArray[np.float32]
Lengths = NDArray[np.float64]

_part = numba.njit(nogil=True, error_model="numpy")
"""For functions within kernels; not kept on disk, because the kernels that are hold them."""

_FINENESS = 65536.0
"""Parts of a metre in which heights are summed. Whole numbers, so that a sum does not depend on where it began; 0.015 mm
is below the spacing of float32 from 128 m on."""

_HIGHEST = 100_000.0
"""Metres; a number beyond is no height, and its sum could overflow."""


def _minus_circle_mean(dem: Heights, half_widths: NDArray[np.int32]) -> Heights:
    """Return the height minus the mean of the valid heights in a circle around it, NaN where the middle is invalid.

    Row by row of the circle, two look-ups in running sums each: pixels x 2 x reach instead of pixels x reach².
    """
    rows, columns = dem.shape
    reach = half_widths.shape[1] // 2
    # Running sums go on flat for the longest row of a circle beyond either edge, so that the loop below needs no ifs.
    margin = min(half_widths.max(), columns)
    sums = np.zeros((rows, columns + 2 * margin + 1), np.int64)
    counts = np.zeros((rows, columns + 2 * margin + 1), np.int32)
    for row in range(rows):
        total = np.int64(0)
        count = np.int32(0)
        for column in range(columns + margin):
            if column < columns and abs(dem[row, column]) <= _HIGHEST:
                total += np.int64(floor(np.float64(dem[row, column]) * _FINENESS + 0.5))
                count += np.int32(1)
            sums[row, column + margin + 1] = total
            counts[row, column + margin + 1] = count
    out = np.empty((rows, columns), np.float32)
    circle_sum = np.empty(columns, np.int64)
    circle_count = np.empty(columns, np.int32)
    for row in range(rows):
        circle_sum[:] = 0
        circle_count[:] = 0
        widths = half_widths[min(row, half_widths.shape[0] - 1)]
        for offset in range(max(-reach, -row), min(reach, rows - 1 - row) + 1):
            width = min(widths[offset + reach], margin)
            if width >= 0:
                left, right = margin - width, margin + width + 1
                sums_left = sums[row + offset, left : left + columns]
                sums_right = sums[row + offset, right : right + columns]
                counts_left = counts[row + offset, left : left + columns]
                counts_right = counts[row + offset, right : right + columns]
                for column in range(columns):
                    circle_sum[column] += sums_right[column] - sums_left[column]
                for column in range(columns):
                    circle_count[column] += counts_right[column] - counts_left[column]
        for column in range(columns):
            height = np.float64(dem[row, column])
            if abs(height) <= _HIGHEST:
                own = np.int64(floor(height * _FINENESS + 0.5))
                above = own * circle_count[column] - circle_sum[column]
                out[row, column] = above / (circle_count[column] * _FINENESS)
            else:
                out[row, column] = nan
    return out


@_part
def _at(dem: Heights, row: int, column: int) -> float:
    if row < 0 or column < 0 or row >= dem.shape[0] or column >= dem.shape[1]:
        return nan
    return np.float64(dem[row, column])


@_part
def _mirrored(value: float, opposite: float, centre: float) -> float:
    return 2 * centre - opposite if isnan(value) else value


@_part
def _neighbours(dem: Heights, row: int, column: int) -> tuple[float, float, float, float, float, float, float, float]:
    """Return north-west, north, north-east, west, east, south-west, south, south-east in the array; extrapolated where missing."""
    z = np.float64(dem[row, column])
    given_nw, given_n, given_ne = (
        _at(dem, row - 1, column - 1),
        _at(dem, row - 1, column),
        _at(dem, row - 1, column + 1),
    )
    given_w, given_e = _at(dem, row, column - 1), _at(dem, row, column + 1)
    given_sw, given_s, given_se = (
        _at(dem, row + 1, column - 1),
        _at(dem, row + 1, column),
        _at(dem, row + 1, column + 1),
    )
    n, s = _mirrored(given_n, given_s, z), _mirrored(given_s, given_n, z)
    w, e = _mirrored(given_w, given_e, z), _mirrored(given_e, given_w, z)
    nw, se = _mirrored(given_nw, given_se, z), _mirrored(given_se, given_nw, z)
    ne, sw = _mirrored(given_ne, given_sw, z), _mirrored(given_sw, given_ne, z)
    if isnan(nw):
        nw, se = n + w - z, s + e - z
    if isnan(ne):
        ne, sw = n + e - z, s + w - z
    return nw, n, ne, w, e, sw, s, se


@_part
def _gradient(dem: Heights, row: int, column: int, height: float, width: float) -> tuple[float, float]:
    """Return the rise per metre along x and along y of the map, after Horn (1981); lengths are signed like the CRS's axes."""
    nw, n, ne, w, e, sw, s, se = _neighbours(dem, row, column)
    along_x = ((ne + 2 * e + se) - (nw + 2 * w + sw)) / (8 * width)
    along_y = ((sw + 2 * s + se) - (nw + 2 * n + ne)) / (8 * height)
    return along_x, along_y


def _slope(dem: Heights, heights: Lengths, widths: Lengths) -> Heights:
    """Return the angle to the horizontal in degrees."""
    out = np.empty(dem.shape, np.float32)
    for row in range(dem.shape[0]):
        for column in range(dem.shape[1]):
            x, y = _gradient(dem, row, column, heights[row], widths[row])
            out[row, column] = degrees(atan(sqrt(x * x + y * y)))
    return out


def _aspect(dem: Heights, heights: Lengths, widths: Lengths, north: NDArray[np.float32]) -> Heights:
    """Return the downhill direction in degrees clockwise from true north, 0 up to 360; 0 where the ground is level."""
    out = np.empty(dem.shape, np.float32)
    for row in range(dem.shape[0]):
        for column in range(dem.shape[1]):
            x, y = _gradient(dem, row, column, heights[row], widths[row])
            north_x, north_y = np.float64(north[0, row, column]), np.float64(north[1, row, column])
            if x == 0 and y == 0:
                out[row, column] = 0
                continue
            east = x * north_y - y * north_x
            angle = degrees(atan2(-east, -(x * north_x + y * north_y)))
            # Rounded before it is compared, because the float32 just below 360 is 360 for what lies still closer.
            rounded = np.float32(angle + 360 if angle < 0 else angle)
            out[row, column] = np.float32(0) if rounded >= np.float32(360) else rounded
    return out


def _hillshade(
    dem: Heights, heights: Lengths, widths: Lengths, north: NDArray[np.float32], sun: tuple[float, float]
) -> Heights:
    """Return the cosine of the angle between the sun (azimuth, elevation in degrees) and the ground's normal; 0 where turned away."""
    out = np.empty(dem.shape, np.float32)
    to_east = cos(radians(sun[1])) * sin(radians(sun[0]))
    to_north = cos(radians(sun[1])) * cos(radians(sun[0]))
    up = sin(radians(sun[1]))
    for row in range(dem.shape[0]):
        for column in range(dem.shape[1]):
            x, y = _gradient(dem, row, column, heights[row], widths[row])
            north_x, north_y = np.float64(north[0, row, column]), np.float64(north[1, row, column])
            east = x * north_y - y * north_x
            light = (up - to_east * east - to_north * (x * north_x + y * north_y)) / sqrt(1 + x * x + y * y)
            out[row, column] = 0 if light < 0 else light
    return out


def _curvatures(dem: Heights, heights: Lengths, widths: Lengths, which: int) -> Heights:
    """Return curvature after Zevenbergen & Thorne (1987) in 1/100 m: 0 total, 1 profile, 2 plan."""
    out = np.empty(dem.shape, np.float32)
    for row in range(dem.shape[0]):
        height, width = heights[row], widths[row]
        for column in range(dem.shape[1]):
            z = np.float64(dem[row, column])
            nw, n, ne, w, e, sw, s, se = _neighbours(dem, row, column)
            # D to H of the paper, whose y points to the first row; lengths are signed, so it points along the CRS here.
            d = ((w + e) / 2 - z) / (width * width)
            f = (ne - nw + sw - se) / (-4 * width * height)
            e2 = ((n + s) / 2 - z) / (height * height)
            g = (e - w) / (2 * width)
            h = (s - n) / (2 * height)
            steepness = g * g + h * h
            if which == 0:
                out[row, column] = -200 * (d + e2)
            elif isnan(d + e2 + f):
                out[row, column] = nan
            elif steepness == 0:
                out[row, column] = 0
            elif which == 1:
                out[row, column] = -200 * (d * g * g + e2 * h * h + f * g * h) / steepness
            else:
                out[row, column] = 200 * (d * h * h + e2 * g * g - f * g * h) / steepness
    return out


minus_circle_mean: Callable[[Heights, NDArray[np.int32]], Heights] = compiled(_minus_circle_mean)
slope_kernel: Callable[[Heights, Lengths, Lengths], Heights] = compiled(_slope)
aspect_kernel: Callable[[Heights, Lengths, Lengths, NDArray[np.float32]], Heights] = compiled(_aspect)
hillshade_kernel: Callable[[Heights, Lengths, Lengths, NDArray[np.float32], tuple[float, float]], Heights] = compiled(
    _hillshade
)
curvatures: Callable[[Heights, Lengths, Lengths, int], Heights] = compiled(_curvatures)
