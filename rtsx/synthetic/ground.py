"""The synthetic landscape at 3 m: terrain, and the reflectance of what grows, lies or stands on it."""

from dataclasses import dataclass

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage

from rtsx.synthetic.noise import block_mean, fractal_noise, smoothstep, upsample, value_noise
from rtsx.synthetic.scar import Patch, Scar, carve, cut_patch, paint_patch, place_scars
from rtsx.synthetic.spec import PIXEL_M, Landscape, LandscapeSpec, landscape_named
from rtsx.synthetic.terrain import (
    AREA_LARGEST_M2,
    CELL_M,
    COARSE,
    LAKE,
    RIVER,
    SEA,
    Terrain,
    blob,
    draw_areas,
    make_terrain,
)

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


LARGEST_PART = 0.02
"""No scar covers more than this part of the ground; that cuts the distribution of areas only on small grounds."""
OLD_PER_ACTIVE = 0.7
"""Stabilised scars per active slump."""
BARE_PER_ACTIVE = 1.5
"""Patches of bare ground per active slump."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A square of tundra; every array starts at the upper left corner of `spec`."""

    spec: LandscapeSpec
    """Where it lies and the seed that it follows from."""
    elevation: NDArray[np.float32]
    """Height (y, x) at 3 m, m, scars carved in."""
    reflectance: NDArray[np.float32]
    """Reflectance (band, y, x) at 3 m of blue, green, red, nir in level, even light, 0-1."""
    water: NDArray[np.uint8]
    """Water (y, x) at 3 m: 0 land, 1 river, 2 lake, 3 sea."""
    trends: NDArray[np.float32]
    """Trend of tasselled-cap brightness, greenness and wetness (trend, y, x) on cells of 12 m; 127.5 is no change."""
    snow: NDArray[np.float32]
    """Rank of places by how long snow lies (y, x) on cells of 12 m, 0-1; 1 melts last."""
    scars: tuple[Scar, ...]
    """Slumps and old scars."""

    @property
    def transform(self) -> Affine:
        """Transform of the 3 m pixel grid: px to CRS."""
        return Affine(PIXEL_M, 0, self.spec.left, 0, -PIXEL_M, self.spec.top)

    def slumps(self) -> geopandas.GeoDataFrame:
        """Outlines of the active slumps in the ground's CRS, with `area_m2`, in a fixed order."""
        rings = [scar.ring for scar in self.scars if scar.is_active]
        corner = np.array([self.spec.left, self.spec.top])
        polygons = [shapely.Polygon(corner + ring * np.array([PIXEL_M, -PIXEL_M])) for ring in rings]
        table = geopandas.GeoDataFrame({"geometry": polygons}, geometry="geometry", crs=self.spec.crs)
        table.insert(0, "area_m2", table.geometry.area)
        return table


def tundra_trends(
    terrain: Terrain, *, scars: tuple[Scar, ...], patches: list[Patch], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Twenty-year trends (trend, y, x) on cells of 12 m: slumps brighten and lose green, old scars and basins gain it."""
    shape = terrain.elevation.shape
    active, old = (np.zeros(terrain.water.shape, bool) for _ in range(2))
    for scar, patch in zip(scars, patches, strict=True):
        (active if scar.is_active else old)[patch.window] |= patch.inside
    slump, healed, basin = (block_mean(mask, factor=COARSE) for mask in (active, old, terrain.basin))
    change = np.array([[62, -8, -6], [-58, 34, 44], [-34, 6, -46]], np.float32)
    trends = np.einsum("tk,kyx->tyx", change, np.stack([slump, healed, basin]))
    water = block_mean(terrain.water > 0, factor=COARSE)
    for trend, deviation, drift in zip(trends, (7, 8, 7), (0, 7, 2), strict=True):
        noise = fractal_noise(shape, coarsest=40, finest=3, persistence=0.7, rng=rng)
        trend += 127.5 + (drift + deviation * noise) * (1 - 0.6 * water)
    smooth = ndimage.gaussian_filter(trends, (0, 1.25, 1.25))
    return np.asarray(np.clip(smooth, 0, 255), np.float32)


def snow_rank(terrain: Terrain, *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Rank (y, x) on cells of 12 m of hollows and steep lee sides, where drifts last."""
    elevation = terrain.elevation
    hollow = ndimage.gaussian_filter(elevation, 5) - elevation
    south, east = np.gradient(ndimage.gaussian_filter(elevation, 1), CELL_M)
    score = hollow / (hollow.std() + 1e-6) + 9 * np.clip(0.6 * south - 0.8 * east, 0, 0.5)
    score += 0.8 * fractal_noise(elevation.shape, coarsest=10, finest=2, persistence=0.7, rng=rng)
    score[block_mean(terrain.water > 0, factor=COARSE) > 0] = score.min()
    order = np.empty(score.size, np.float32)
    order[np.argsort(score, axis=None)] = np.linspace(0, 1, score.size, dtype=np.float32)
    return order.reshape(score.shape)


def silt_plume(terrain: Terrain, *, scars: tuple[Scar, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Silt (y, x) at 3 m that active slumps wash into lakes and sea, 0-1."""
    shape = terrain.elevation.shape
    source = np.zeros(shape, np.float32)
    for scar in scars:
        if scar.is_active:
            foot = (scar.toe - scar.upslope * (scar.run_m + 20) / 3) / COARSE
            column, row = np.clip(foot, 0, shape[0] - 1).astype(int)
            source[row, column] += scar.length_m / 12
    spread = 60 * ndimage.gaussian_filter(source, 6) + 12 * ndimage.gaussian_filter(source, 2.5)
    drift = fractal_noise(shape, coarsest=14, finest=3, persistence=0.6, rng=rng)
    wet = smoothstep(spread * np.exp(0.9 * drift), 0.05, 3.5)
    return upsample(wet, factor=COARSE, shape=terrain.water.shape) * (terrain.water >= LAKE)


def sites(spec: LandscapeSpec, *, terrain: Terrain, rng: np.random.Generator) -> tuple[Scar, ...]:
    """Draw how many slumps and old scars there are, how large, and where."""
    largest_m2 = min(AREA_LARGEST_M2, LARGEST_PART * spec.area_km2 * 1e6)
    active = rng.poisson(spec.slumps_per_km2 * spec.area_km2)
    count = active + rng.poisson(OLD_PER_ACTIVE * active)
    areas_m2 = draw_areas(count, rng=rng, largest_m2=largest_m2)
    clusters = fractal_noise(terrain.elevation.shape, coarsest=90, finest=40, persistence=0.5, rng=rng)
    return place_scars(areas_m2, terrain=terrain, clusters=clusters, is_active=np.arange(count) < active, rng=rng)


def make_ground(spec: LandscapeSpec) -> Ground:
    """Make a ground; the same spec gives the same arrays.

    Examples
    --------
    >>> ground = make_ground(LandscapeSpec(seed=3, crs="EPSG:32608", left=520_200, top=7_482_600, size=256))
    >>> ground.reflectance.shape, ground.elevation.dtype
    ((4, 256, 256), dtype('float32'))
    """
    streams = [np.random.default_rng([spec.seed, part]) for part in range(6)]
    landscape = landscape_named(spec.landscape)
    terrain = make_terrain(spec.size, height=landscape.relief, rng=streams[0])
    scars = sites(spec, terrain=terrain, rng=streams[1])
    patches = [cut_patch(scar, size=spec.size, rng=streams[2]) for scar in scars]
    shape = (spec.size, spec.size)
    elevation = upsample(terrain.elevation, factor=COARSE, shape=shape)
    elevation += np.float32(0.12) * fractal_noise(shape, coarsest=10, finest=2.5, persistence=0.7, rng=streams[3])
    reflectance = paint_tundra(terrain, landscape=landscape, rng=streams[3])
    paint_shores(reflectance, terrain=terrain, landscape=landscape, rng=streams[3])
    active = sum(scar.is_active for scar in scars)
    count = round(BARE_PER_ACTIVE * active)
    paint_bare_ground(reflectance, terrain=terrain, landscape=landscape, count=count, rng=streams[3])
    paint_water(reflectance, terrain=terrain, plume=silt_plume(terrain, scars=scars, rng=streams[2]), rng=streams[3])
    for scar, patch in zip(scars, patches, strict=True):
        carve(elevation, scar=scar, patch=patch)
        paint_patch(reflectance, scar=scar, patch=patch, landscape=landscape, water=terrain.water, rng=streams[2])
    return Ground(
        spec=spec,
        elevation=elevation,
        reflectance=np.clip(reflectance, 0.002, 1),
        water=terrain.water,
        trends=tundra_trends(terrain, scars=scars, patches=patches, rng=streams[4]),
        snow=snow_rank(terrain, rng=streams[5]),
        scars=scars,
    )
