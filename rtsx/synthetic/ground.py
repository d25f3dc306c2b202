"""The ground: one lattice of 3 m that every layer of a scene is taken from."""

from dataclasses import dataclass

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from rtsx.synthetic.cover import paint_bare_ground, paint_shores, paint_tundra, paint_water
from rtsx.synthetic.landscape import landscape_named
from rtsx.synthetic.noise import block_mean, fractal_noise, smoothstep, upsample
from rtsx.synthetic.outline import AREA_LARGEST_M2, draw_areas
from rtsx.synthetic.patch import Patch, carve, cut_patch, paint_patch
from rtsx.synthetic.scar import Scar, place_scars
from rtsx.synthetic.spec import PIXEL_M, GroundSpec
from rtsx.synthetic.terrain import CELL_M, COARSE, LAKE, Terrain, make_terrain

__all__ = ["Ground", "make_ground"]

LARGEST_PART = 0.02
"""No scar covers more than this part of the ground; that cuts the distribution of areas only on small grounds."""
OLD_PER_ACTIVE = 0.7
"""Stabilised scars per active slump."""
BARE_PER_ACTIVE = 1.5
"""Patches of bare ground per active slump."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A square of tundra; every array starts at the upper left corner of `spec`."""

    spec: GroundSpec
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
        """Transform of the 3 m lattice: px to CRS."""
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


def sites(spec: GroundSpec, *, terrain: Terrain, rng: np.random.Generator) -> tuple[Scar, ...]:
    """Draw how many slumps and old scars there are, how large, and where."""
    largest_m2 = min(AREA_LARGEST_M2, LARGEST_PART * spec.area_km2 * 1e6)
    active = rng.poisson(spec.slumps_per_km2 * spec.area_km2)
    count = active + rng.poisson(OLD_PER_ACTIVE * active)
    areas_m2 = draw_areas(count, rng=rng, largest_m2=largest_m2)
    clusters = fractal_noise(terrain.elevation.shape, coarsest=90, finest=40, persistence=0.5, rng=rng)
    return place_scars(areas_m2, terrain=terrain, clusters=clusters, is_active=np.arange(count) < active, rng=rng)


def make_ground(spec: GroundSpec) -> Ground:
    """Make a ground; the same spec gives the same arrays.

    Examples
    --------
    >>> ground = make_ground(GroundSpec(seed=3, crs="EPSG:32608", left=520_200, top=7_482_600, size=256))
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
