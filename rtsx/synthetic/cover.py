"""What grows, lies or stands on the ground, as reflectance in blue, green, red and nir."""

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy import ndimage

from rtsx.synthetic.landscape import Landscape
from rtsx.synthetic.noise import fractal_noise, smoothstep, upsample, value_noise
from rtsx.synthetic.outline import blob, draw_areas
from rtsx.synthetic.terrain import COARSE, LAKE, RIVER, SEA, Terrain

__all__ = ["paint_bare_ground", "paint_shores", "paint_tundra", "paint_water"]

CLEAR_WATER = (0.027, 0.031, 0.018, 0.009)
"""Deep lake."""
SILT_WATER = (0.060, 0.083, 0.086, 0.038)
"""Water that carries silt."""


def colour(values: tuple[float, ...]) -> NDArray[np.float32]:
    """Four reflectances as a column that broadcasts over (band, y, x)."""
    return np.array(values, np.float32)[:, None, None]


def blend(reflectance: NDArray[np.float32], values: tuple[float, ...], weight: NDArray[np.float32]) -> None:
    """Move `reflectance` (band, y, x) towards a colour by `weight` (y, x), 0-1, in place."""
    for band, value in zip(reflectance, values, strict=True):
        band += (np.float32(value) - band) * weight


def paint_tundra(terrain: Terrain, *, landscape: Landscape, rng: np.random.Generator) -> NDArray[np.float32]:
    """Reflectance (band, y, x) at 3 m of the ground with its plants, without water, shores and scars."""
    middle, fine = terrain.elevation.shape, terrain.water.shape
    position = terrain.elevation - ndimage.gaussian_filter(terrain.elevation, 14)
    position /= position.std() + 1e-6
    curve = ndimage.gaussian_laplace(terrain.elevation, 2.5)
    curve /= curve.std() + 1e-6
    dry = 0.75 * position - 0.35 * curve + 0.8 * fractal_noise(middle, coarsest=48, finest=3, persistence=0.55, rng=rng)
    shrubs = 0.6 * fractal_noise(middle, coarsest=64, finest=2, persistence=0.6, rng=rng) - 0.35 * position
    dryness = upsample(dry, factor=COARSE, shape=fine) + 0.45 * fractal_noise(
        fine, coarsest=12, finest=3, persistence=0.7, rng=rng
    )
    bush = upsample(shrubs, factor=COARSE, shape=fine) + 0.35 * value_noise(fine, spacing=4, rng=rng)
    brook = ndimage.uniform_filter(terrain.brook.astype(np.float32), 5)
    bush += 5 * brook

    reflectance = np.broadcast_to(colour(landscape.tussock), (4, *fine)).copy()
    blend(reflectance, landscape.heath, smoothstep(dryness, 0.3, 1.8))
    blend(reflectance, landscape.sedge, smoothstep(-dryness, 0.5, 1.6))
    blend(reflectance, landscape.shrub, np.float32(0.9) * smoothstep(bush, 0.3, 1.3))
    blend(reflectance, landscape.rock, np.float32(0.9) * smoothstep(dryness, rng.uniform(1.9, 2.5), 2.9))
    basin = ndimage.uniform_filter(terrain.basin.astype(np.float32), 3)
    blend(reflectance, landscape.basin, basin * (np.float32(0.75) + np.float32(0.12) * np.clip(dryness, -2, 2)))
    ponds = smoothstep(value_noise(fine, spacing=9, rng=rng), 1.5, 2.0) * basin
    blend(reflectance, landscape.mud_wet, ponds)
    mottle = 1 + 0.07 * fractal_noise(fine, coarsest=20, finest=2.5, persistence=0.75, rng=rng)
    troughs = np.exp(-((value_noise(fine, spacing=5, rng=rng) / 0.18) ** 2))
    flat = upsample(smoothstep(-np.abs(position), -0.7, -0.1), factor=COARSE, shape=fine)
    mottle -= np.float32(0.09) * troughs * flat
    reflectance *= mottle
    return reflectance


def paint_shores(
    reflectance: NDArray[np.float32], *, terrain: Terrain, landscape: Landscape, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Lay gravel bars along rivers and beaches along lakes and sea, in place; returns their cover (y, x), 0-1."""
    fine = terrain.water.shape
    reach = terrain.river_distance_m / (0.9 * terrain.river_width_m + 6)
    bars = upsample(1.3 - reach, factor=COARSE, shape=fine) * np.float32(1.4)
    bars += value_noise(fine, spacing=26, rng=rng) + 0.4 * value_noise(fine, spacing=6, rng=rng)
    wide = upsample(smoothstep(terrain.river_width_m, 7, 18), factor=COARSE, shape=fine)
    cover = smoothstep(bars, 0.5, 1.0) * wide * (upsample(reach, factor=COARSE, shape=fine) < 1.9)
    still = (terrain.water >= LAKE).astype(np.float32)
    rim = smoothstep(ndimage.uniform_filter(still, 5), 0.02, 0.3)
    rough = value_noise(fine, spacing=60, rng=rng) + 0.4 * value_noise(fine, spacing=10, rng=rng)
    cover = np.maximum(cover, rim * smoothstep(rough, 0.2, 0.9))
    cover *= terrain.water == 0
    blend(reflectance, landscape.gravel, np.float32(0.9) * cover)
    damp = cover * smoothstep(value_noise(fine, spacing=8, rng=rng), 0.2, 1.2)
    blend(reflectance, landscape.mud_wet, np.float32(0.7) * damp)
    return np.asarray(cover, np.float32)


def paint_bare_ground(
    reflectance: NDArray[np.float32], *, terrain: Terrain, landscape: Landscape, count: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Lay `count` patches of mud and till anywhere on land, without hollow or headwall, in place; returns their mask.

    Their colours and sizes are those of slumps, so that colour alone cannot tell a slump.
    """
    size = terrain.water.shape[0]
    mask = np.zeros((size, size), bool)
    areas = draw_areas(count, rng=rng, largest_m2=120_000) if count else np.empty(0)
    for area_m2 in areas:
        ring = blob(float(area_m2), rng=rng) / 3 + rng.uniform(0, size, 2)
        x0, y0 = np.clip(np.floor(ring.min(axis=0)) - 2, 0, size - 2).astype(int)
        x1, y1 = np.clip(np.ceil(ring.max(axis=0)) + 2, [x0 + 1, y0 + 1], size).astype(int)
        rows, columns = slice(y0, y1), slice(x0, x1)
        shape = (int(y1 - y0), int(x1 - x0))
        polygon = shapely.Polygon(ring).buffer(0)
        inside = np.asarray(
            rasterize([polygon], out_shape=shape, transform=Affine.translation(x0, y0), dtype="uint8"), bool
        )
        inside &= terrain.water[rows, columns] == 0
        grain = fractal_noise(shape, coarsest=24, finest=3, persistence=0.7, rng=rng)
        moist = np.clip(0.45 + rng.normal(0, 0.2) + 0.3 * grain, 0, 1)
        mud = colour(landscape.mud_wet) * moist + colour(landscape.mud_dry) * (1 - moist)
        soft = smoothstep(
            ndimage.gaussian_filter(inside.astype(np.float32), rng.uniform(0.7, 4)) + 0.16 * grain, 0.3, 0.75
        )
        window = reflectance[:, rows, columns]
        window += (mud - window) * soft * inside * np.float32(rng.uniform(0.6, 1))
        mask[rows, columns] |= inside
    return mask


def paint_water(
    reflectance: NDArray[np.float32], *, terrain: Terrain, plume: NDArray[np.float32], rng: np.random.Generator
) -> None:
    """Fill rivers, lakes and sea, in place; `plume` (y, x), 0-1, is the silt that slumps wash in."""
    fine = terrain.water.shape
    silt = np.clip(plume, 0, 1)
    silt = np.maximum(silt, (terrain.water == RIVER) * np.float32(rng.uniform(0.2, 0.8)))
    silt = np.maximum(silt, (terrain.water == SEA) * np.float32(rng.uniform(0.05, 0.5)))
    silt += np.float32(0.06) * value_noise(fine, spacing=40, rng=rng) * (terrain.water > 0)
    shore = ndimage.uniform_filter((terrain.water == 0).astype(np.float32), 9)
    silt = np.clip(silt + 0.25 * shore, 0, 1)
    wet = terrain.water > 0
    for band, clear, turbid in zip(reflectance, CLEAR_WATER, SILT_WATER, strict=True):
        band[wet] = (clear + (turbid - clear) * silt)[wet]
