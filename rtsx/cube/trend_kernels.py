"""Trends of the tasseled cap of Landsat: the published recipe as kernels. Pure arrays: sums that one scene after the other is added to, and slopes of them.

The recipe is that of the trends which published models have learnt (Nitze and Grosse 2016, Remote Sensing of Environment 181;
their production scripts of 2020), for surface reflectance of Collection 2: scenes of July and August under 70 % cloud; cloud,
its shadow and rim, cirrus and snow masked; OLI brought to ETM+; observations beyond three standard deviations of a pixel's own
mean dropped; slope of the unweighted linear fit against time, a decade of 3,650 days; -0.12 to 0.12 a decade on 0 to 255.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.erosion import compiled
from rtsx.cube.recipe import TREND_LAYERS, TrendRecipe

TASSELED_CAP = np.array(
    [
        [0.2043, 0.4158, 0.5524, 0.5741, 0.3124, 0.2303],
        [-0.1603, -0.2819, -0.4934, 0.7940, -0.0002, -0.1446],
        [0.0315, 0.2021, 0.3102, 0.1594, -0.6806, -0.6109],
    ]
)
"""Brightness, greenness and wetness of reflectance in `TASSELED_CAP_BANDS`: Crist 1985, Remote Sensing of Environment 17, 301-306, for
TM. One matrix for all sensors, as published: ETM+ sees like TM, and OLI is brought to ETM+ before."""

OLI_SLOPE = np.array([0.9785, 0.9542, 0.9825, 1.0073, 1.0171, 0.9949])
OLI_INTERCEPT = np.array([-0.0095, -0.0016, -0.0022, -0.0021, -0.0030, 0.0029])
"""OLI = slope x ETM+ + intercept in `TASSELED_CAP_BANDS`, by reduced major axis: Roy et al. 2016, Remote Sensing of Environment 185, 57-70."""

LEAST = 5
"""Observations that a trend has at least; with fewer a pixel is missing."""
DEVIATIONS = 3.0
"""Standard deviations from a pixel's mean beyond which an observation is dropped."""
_SCREENED = 4
"""Bands that are looked at for it: blue, green, red and nir."""
_ROUNDING = 1e-9
"""Reflectance by which an observation may lie outside and still belong: a pixel that never changed has a deviation of 0."""

LIMIT = 0.12
"""Reflectance a decade that becomes 255; its negative becomes 0."""
_ONE_PASS = 600 / 86_400 / 3_650
"""Decades, ten minutes, within which two scenes are rows of one pass, half a minute apart: no slope is taken between them."""
_SAME_TIME = 1e-12
"""Sum of squared distances in time, decades, below which all observations are of one pass, and have no slope."""


@dataclass(frozen=True, kw_only=True)
class SceneObservations:
    """What one scene gives to a block: the pixels that count, and nothing of the others."""

    counts: NDArray[np.bool_]
    """(pixel,) True where it does."""
    values: NDArray[Any]
    """(band, n) stored values of those, in `TASSELED_CAP_BANDS`."""
    gain: NDArray[np.float64]
    """(band,) reflectance as ETM+ sees it per stored unit."""
    bias: NDArray[np.float64]
    """(band,) reflectance as ETM+ sees it of stored 0."""
    decades: float
    """Time, decades from the middle of the window, so that sums of it stay small."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.counts.nbytes + self.values.nbytes


def scene_observations(
    layers: tuple[NDArray[Any], ...],
    counts: NDArray[np.bool_],
    *,
    packing: tuple[NDArray[np.float64], NDArray[np.float64]],
    oli: bool,
    decades: float,
) -> SceneObservations:
    """Return what a scene gives to a block.

    Parameters
    ----------
    layers
        Stored pixels (y, x) in `TASSELED_CAP_BANDS`.
    counts
        (y, x) True where a pixel can be trusted.
    packing
        (band,) reflectance per stored unit, and of stored 0.
    oli
        Whether it has to be brought to ETM+.
    decades
        Its time.
    """
    gain, bias = packing
    if oli:
        gain, bias = gain / OLI_SLOPE, (bias - OLI_INTERCEPT) / OLI_SLOPE
    values = np.stack([layer[counts] for layer in layers])
    return SceneObservations(counts=counts.ravel(), values=values, gain=gain, bias=bias, decades=decades)


def _add_moments(counts, values, gain, bias, moments):  # type: ignore[no-untyped-def]
    """Add a scene to (pixel, 9) number, sums and sums of squares of the bands that are looked at."""
    k = 0
    for i in range(counts.shape[0]):
        if counts[i]:
            moments[i, 0] += 1
            for band in range(4):
                value = gain[band] * values[band, k] + bias[band]
                moments[i, 1 + band] += value
                moments[i, 5 + band] += value * value
            k += 1


def _tasseled_cap(values, k, gain, bias, limits, i, matrix, found):  # type: ignore[no-untyped-def]
    """Return brightness, greenness and wetness of an observation into `found`; False where it lies outside the pixel's limits."""
    found[:] = 0.0
    for band in range(6):
        value = gain[band] * values[band, k] + bias[band]
        if band < 4 and not limits[i, 0, band] <= value <= limits[i, 1, band]:
            return False
        for index in range(3):
            found[index] += matrix[index, band] * value
    return True


def _add_sums(counts, values, gain, bias, limits, matrix, time, sums):  # type: ignore[no-untyped-def]
    """Add a scene to (pixel, 12) sums of 1, t, t², and of y, t y and y² of the three indices."""
    found = np.empty(3)
    k = 0
    for i in range(counts.shape[0]):
        if counts[i]:
            if _observed(values, k, gain, bias, limits, i, matrix, found):
                sums[i, 0] += 1
                sums[i, 1] += time
                sums[i, 2] += time * time
                for index in range(3):
                    sums[i, 3 + index] += found[index]
                    sums[i, 6 + index] += time * found[index]
                    sums[i, 9 + index] += found[index] * found[index]
            k += 1


def _add_series(counts, values, gain, bias, limits, matrix, time, number, times, series):  # type: ignore[no-untyped-def]
    """Append a scene to the series of each pixel: (pixel,) lengths, (pixel, n) times, (pixel, 3, n) indices."""
    found = np.empty(3)
    k = 0
    for i in range(counts.shape[0]):
        if counts[i]:
            if _observed(values, k, gain, bias, limits, i, matrix, found):
                times[i, number[i]] = time
                for index in range(3):
                    series[i, index, number[i]] = found[index]
                number[i] += 1
            k += 1


def _median_slopes(number, times, series, least, slopes):  # type: ignore[no-untyped-def]
    """Return the median of the slopes between all pairs of observations of each pixel into (3, pixel); pairs of one pass have none."""
    longest = times.shape[1]
    pairs = np.empty(longest * (longest - 1) // 2)
    for i in range(number.shape[0]):
        if number[i] < least:
            continue
        for index in range(3):
            m = 0
            for a in range(number[i]):
                for b in range(a):
                    apart = times[i, a] - times[i, b]
                    if abs(apart) > _ONE_PASS:
                        pairs[m] = (series[i, index, a] - series[i, index, b]) / apart
                        m += 1
            if m:
                slopes[index, i] = np.median(pairs[:m])


_observed: Callable[..., Any] = compiled(_tasseled_cap)
add_moments: Callable[..., None] = compiled(_add_moments)
add_sums: Callable[..., None] = compiled(_add_sums)
add_series: Callable[..., None] = compiled(_add_series)
median_slopes: Callable[..., None] = compiled(_median_slopes)

MOMENTS, SUMS = 9, 12
"""Numbers that are kept for each pixel: before observations are dropped, and of those that are left."""


def reflectance_limits(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lowest and highest reflectance (pixel, 2, band) that counts: `DEVIATIONS` of the population from the mean."""
    number = np.maximum(moments[:, :1], 1)
    mean = moments[:, 1 : 1 + _SCREENED] / number
    variance = np.maximum(moments[:, 1 + _SCREENED :] / number - mean**2, 0)
    reach = DEVIATIONS * np.sqrt(variance) + _ROUNDING
    return np.stack([mean - reach, mean + reach], axis=1)


def linear_fit(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return number (pixel,), slopes a decade and their standard errors (3, pixel); NaN with fewer than `LEAST` observations, or all of one pass."""
    sums = sums.T
    number, time, index = sums[0], sums[1], sums[3:6]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = sums[2] - time**2 / number
        together = sums[6:9] - time * index / number
        slopes = together / spread
        left = np.maximum(sums[9:12] - index**2 / number - slopes * together, 0)
        errors = np.sqrt(left / (number - 2) / spread)
        missing = (number < LEAST) | ~(spread > _SAME_TIME)
    slopes[:, missing] = errors[:, missing] = math.nan
    return number, slopes, errors


def encoded(slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return slopes as the published trends store them: -`LIMIT` to `LIMIT` on 0 to 255, rounded half up, cut off at both ends.

    Whole numbers as floats, because NaN stays.

    Examples
    --------
    >>> encoded(np.array([-0.3, 0.0, 0.06, 0.12, np.nan])).tolist()
    [0.0, 128.0, 191.0, 255.0, nan]
    """
    # No change lies in the middle between two numbers, and the last bit of a sum must not decide which one it is.
    return np.clip(np.floor((slopes + LIMIT) * (255 / (2 * LIMIT)) + 0.5 + _ROUNDING), 0, 255)


def trend_layers(
    trend: TrendRecipe, *, number: NDArray[np.float64], slopes: NDArray[np.float64], errors: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the layers (layer, pixel) of a trend, in order; NaN where one is missing, but for the number of observations."""
    stored = encoded(slopes) if trend.dtype == "uint8" else slopes
    known = dict(zip(TREND_LAYERS, stored, strict=True)) | {"tc_observations": number}
    if errors is not None:
        known |= {f"{name}_stderr": one for name, one in zip(TREND_LAYERS, errors, strict=True)}
    return np.stack([known[name] for name in trend.layers])
