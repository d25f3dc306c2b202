"""Terrain layers in plain loops over float64, as their docstrings say them: what the compiled kernels are held to."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def relative_elevation(dem: Floats, heights_m: Floats, widths_m: Floats, radius_m: float = 100.0) -> Floats:
    """Height minus the mean of the valid pixels whose centre is within the radius."""
    out = np.full(dem.shape, np.nan)
    rows, columns = np.indices(dem.shape)
    for row, column in zip(*np.nonzero(np.isfinite(dem)), strict=True):
        distance = np.hypot((rows - row) * heights_m[row], (columns - column) * widths_m[row])
        out[row, column] = dem[row, column] - np.nanmean(dem[distance <= radius_m + 1e-9])
    return out


def windows(dem: Floats) -> Iterator[tuple[int, int, Floats]]:
    """Row, column and the 3x3 heights around each valid pixel, missing ones extrapolated; NaN where that cannot be."""
    padded = np.pad(dem, 1, constant_values=np.nan)
    for row, column in zip(*np.nonzero(np.isfinite(dem)), strict=True):
        given = padded[row : row + 3, column : column + 3]
        z = given[1, 1]
        full = given.copy()
        for y, x in ((0, 1), (1, 0), (1, 2), (2, 1), (0, 0), (0, 2), (2, 0), (2, 2)):
            if np.isnan(given[y, x]):
                full[y, x] = 2 * z - given[2 - y, 2 - x]
        for y, x in ((0, 0), (0, 2), (2, 0), (2, 2)):
            if np.isnan(full[y, x]):
                full[y, x] = full[y, 1] + full[1, x] - z
        yield row, column, full


def gradient(window: Floats, dy: float, dx: float) -> tuple[float, float]:
    """Rise along x and along y of the map after Horn; lengths signed from row to row and column to column."""
    weights = np.array([1, 2, 1]) / 4
    return weights @ (window[:, 2] - window[:, 0]) / (2 * dx), (window[2] - window[0]) @ weights / (2 * dy)


def horn(dem: Floats, dy: Floats, dx: Floats, *, north: Floats, sun: tuple[float, float]) -> dict[str, Floats]:
    """Slope, aspect and hillshade by angles."""
    out = {name: np.full(dem.shape, np.nan) for name in ("slope", "aspect", "hillshade")}
    azimuth, zenith = math.radians(sun[0]), math.radians(90 - sun[1])
    for row, column, window in windows(dem):
        x, y = gradient(window, dy[row], dx[row])
        if math.isnan(x + y):
            continue
        slope = math.atan(math.hypot(x, y))
        convergence = math.atan2(north[0, row, column], north[1, row, column])
        aspect = (math.atan2(-x, -y) - convergence) % (2 * math.pi)
        light = math.cos(zenith) * math.cos(slope) + math.sin(zenith) * math.sin(slope) * math.cos(azimuth - aspect)
        out["slope"][row, column] = math.degrees(slope)
        out["aspect"][row, column] = math.degrees(aspect) if slope else 0.0
        out["hillshade"][row, column] = max(0.0, light)
    return out


def curvatures(dem: Floats, dy: Floats, dx: Floats) -> dict[str, Floats]:
    """Total, profile and plan curvature in 1/100 m by the formulas of Zevenbergen & Thorne (1987), north up."""
    out = {name: np.full(dem.shape, np.nan) for name in ("curvature", "profile_curvature", "plan_curvature")}
    for row, column, w in windows(dem):
        across, down = abs(dx[row]), abs(dy[row])
        d = ((w[1, 0] + w[1, 2]) / 2 - w[1, 1]) / across**2
        e = ((w[0, 1] + w[2, 1]) / 2 - w[1, 1]) / down**2
        f = (-w[0, 0] + w[0, 2] + w[2, 0] - w[2, 2]) / (4 * across * down)
        g = (w[1, 2] - w[1, 0]) / (2 * across)
        h = (w[0, 1] - w[2, 1]) / (2 * down)
        steep = g**2 + h**2
        out["curvature"][row, column] = -200 * (d + e)
        profile = -200 * (d * g * g + e * h * h + f * g * h) / steep if steep else 0 * (d + e + f)
        plan = 200 * (d * h * h + e * g * g - f * g * h) / steep if steep else 0 * (d + e + f)
        out["profile_curvature"][row, column], out["plan_curvature"][row, column] = profile, plan
    return out
