"""The picture that a satellite takes of a ground: light, snow, sky, optics, noise, numbers."""

import datetime as dt

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage

from rtsx.synthetic.ground import Ground
from rtsx.synthetic.noise import upsample
from rtsx.synthetic.sampling import ground_positions, sample
from rtsx.synthetic.sky import Sky, Sun, see_through
from rtsx.synthetic.spec import PIXEL_M, SceneSpec
from rtsx.synthetic.terrain import COARSE

__all__ = ["footprint_polygon", "illuminate", "quantise", "scene_transform", "snow_part", "view"]

SNOW = (0.72, 0.73, 0.72, 0.64)
"""Reflectance of old summer snow: blue, green, red, nir."""
SKYLIGHT = 0.22
"""Part of the light that comes from the whole sky and casts no relief."""
BLUR = 0.6
"""Deviation of the optics' point spread, px."""


def scene_transform(spec: SceneSpec) -> Affine:
    """Transform of a scene's raster: px to CRS."""
    return Affine(PIXEL_M, 0, spec.left, 0, -PIXEL_M, spec.top)


def footprint_polygon(spec: SceneSpec) -> shapely.Polygon:
    """Outline of the strip in px: the largest square turned by `tilt_deg` that fits into the raster."""
    angle = np.radians(spec.tilt_deg)
    half = spec.size / 2 / (np.cos(angle) + np.sin(angle))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ turn.T + spec.size / 2
    return shapely.Polygon(corners)


def footprint_mask(spec: SceneSpec) -> NDArray[np.bool_]:
    """Pixels (y, x) whose centre lies in the footprint."""
    shape = (spec.size, spec.size)
    return np.asarray(rasterize([footprint_polygon(spec)], out_shape=shape, dtype="uint8"), bool)


def snow_part(date: dt.date) -> float:
    """Part of the ground under snow on a day of summer: 15 % at the end of May, 0.3 % in late July."""
    return float(np.clip(0.15 * np.exp((150 - date.timetuple().tm_yday) / 13), 0, 0.9))


def illuminate(elevation: NDArray[np.float32], *, sun: Sun) -> NDArray[np.float32]:
    """Light (y, x) on sloping ground, 1 on level ground: direct light by the angle of incidence, plus skylight."""
    south, east = np.gradient(elevation, PIXEL_M)
    azimuth, height = np.radians(sun.azimuth_deg), np.radians(sun.elevation_deg)
    towards_sun = east * np.float32(np.sin(azimuth)) - south * np.float32(np.cos(azimuth))
    facing = np.sin(height) - np.cos(height) * towards_sun
    facing /= np.sqrt(1 + south**2 + east**2)
    light = SKYLIGHT + (1 - SKYLIGHT) * np.clip(facing / np.sin(height), 0, 2.2)
    return np.asarray(light, np.float32)


def view(ground: Ground, spec: SceneSpec, *, sun: Sun) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sunlit reflectance (band, y, x) and snow (y, x) on the scene's own raster, under a clear sky.

    A raster on the ground's lattice is cut out of it; any other is interpolated.
    """
    shape = (spec.size, spec.size)
    transform = scene_transform(spec)
    positions = ground_positions(ground.spec, crs=spec.crs, transform=transform, shape=shape)
    first = np.round(positions[:, 0, 0]).astype(int)
    lit = ground.reflectance * illuminate(ground.elevation, sun=sun)
    rank = upsample(ground.snow, factor=COARSE, shape=ground.elevation.shape)
    on_lattice = spec.crs == ground.spec.crs and np.allclose(positions[:, 0, 0], first, atol=1e-3)
    if on_lattice and first.min() >= 0 and (first + spec.size).max() <= ground.spec.size:
        rows, columns = (slice(start, start + spec.size) for start in first)
        seen, lasting = lit[:, rows, columns].copy(), rank[rows, columns]
    else:
        seen = np.stack([sample(band, positions, cell=1) for band in lit])
        lasting = sample(rank, positions, cell=1)
    snow = lasting > 1 - snow_part(spec.date)
    for band, white in zip(seen, SNOW, strict=True):
        band[snow] = white
    return seen, snow


def quantise(
    reflectance: NDArray[np.float32], *, sky: Sky, footprint: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.uint16]:
    """DN (band, y, x) = 10000 x reflectance as the sensor records it, at least 1; 0 outside of the footprint and the ground."""
    see_through(reflectance, sky=sky)
    covered = footprint & np.isfinite(reflectance[0])
    dn = np.zeros(reflectance.shape, np.uint16)
    for band, out in zip(reflectance, dn, strict=True):
        clean = ndimage.gaussian_filter(np.nan_to_num(band), BLUR) * np.float32(rng.normal(1, 0.025))
        noise = rng.standard_normal(band.shape, dtype=np.float32) * (np.float32(0.0012) + np.float32(0.012) * clean)
        out[...] = np.clip(np.round(10_000 * (clean + noise)), 1, 15_000) * covered
    return dn
