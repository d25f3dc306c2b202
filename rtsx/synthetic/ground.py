"""The synthetic landscape at 3 m: terrain, where slumps lie and what they do to it, and the reflectance of what grows, lies or stands on it."""

from dataclasses import dataclass

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from rtsx.synthetic.noise import block_mean, fractal_noise, smoothstep, upsample, value_noise
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
    horseshoe,
    make_terrain,
    polygon_mask,
)

ATTEMPTS = 150
"""Sites that are tried for one scar; the largest are placed first, so hardly any is given up."""
SPACING_M = 9.0
"""Least ground between two scars, m."""


@dataclass(frozen=True, kw_only=True)
class Scar:
    """One slump, active or old, on the pixel grid of its ground."""

    ring: NDArray[np.float64]
    """Outline (vertex, 2) as x, y in px of 3 m; the upper left pixel's centre is 0.5, 0.5."""
    toe: NDArray[np.float64]
    """Middle of the open lower end, x, y in px."""
    upslope: NDArray[np.float64]
    """Unit vector x, y (y down) from the toe towards the headwall."""
    length_m: float
    """Distance from toe to headwall, m."""
    depth_m: float
    """Height of the headwall, m."""
    run_m: float
    """Length of the mud tongue below the toe, m."""
    is_active: bool
    """True for a slump, False for a scar that has stabilised and grown over."""

    @property
    def polygon(self) -> shapely.Polygon:
        """The outline as a polygon in px."""
        return shapely.Polygon(self.ring)


@dataclass(frozen=True, kw_only=True)
class Banks:
    """Sites where a toe may lie, on cells of 12 m."""

    cells: NDArray[np.int64]
    """Flat indices of the sites, those at water first."""
    weight: NDArray[np.float64]
    """Chance of each site, summing to one."""
    upslope: NDArray[np.float32]
    """Unit vectors (2, y, x) as x, y away from water and uphill."""
    distance_m: NDArray[np.float32]
    """Distance to open water (y, x), m."""


def find_banks(terrain: Terrain, *, clusters: NDArray[np.float32]) -> Banks:
    """Return sites and their chances: steep ground beside lakes, rivers and the sea, denser where `clusters` (y, x) is high."""
    water = block_mean(terrain.water > 0, factor=COARSE) > 0.2
    distance_m = np.asarray(ndimage.distance_transform_edt(~water) * CELL_M, np.float32)
    rise = np.stack(np.gradient(ndimage.gaussian_filter(terrain.elevation, 3), CELL_M)[::-1])
    away = np.stack(np.gradient(ndimage.gaussian_filter(np.minimum(distance_m, 400), 3), CELL_M)[::-1])
    slope = np.hypot(*rise)
    near = np.exp(-distance_m / 50)
    upslope = rise / (slope + 1e-6) * (1 - 0.8 * near) + away * 1.6 * near
    upslope /= np.hypot(*upslope) + 1e-6
    steep = np.clip(slope, 0, 0.3) ** 1.3
    chance = steep * (near + 0.02) * np.exp(1.1 * clusters) * (distance_m > 3)
    chance[distance_m > 700] = 0
    cells = np.flatnonzero(chance)
    weight = chance.ravel()[cells].astype(np.float64)
    return Banks(cells=cells, weight=weight / max(weight.sum(), 1e-12), upslope=upslope, distance_m=distance_m)


def on_land(ring: NDArray[np.float64], *, terrain: Terrain) -> bool:
    """Say whether an outline lies inside the pixel grid and off the water."""
    size = terrain.water.shape[0]
    if ring.min() < 3 or ring.max() > size - 3:
        return False
    middle = ring.mean(axis=0)
    probes = np.concatenate([ring, (ring + middle) / 2]).astype(int)
    wet = terrain.water[probes[:, 1], probes[:, 0]] > 0
    return bool(wet.mean() < 0.04)


def place_scars(
    areas_m2: NDArray[np.float64],
    *,
    terrain: Terrain,
    clusters: NDArray[np.float32],
    is_active: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[Scar, ...]:
    """Put a scar of each area on a bank; one that fits nowhere is left out."""
    banks = find_banks(terrain, clusters=clusters)
    if not banks.cells.size:
        return ()
    placed: list[Scar] = []
    taken: list[shapely.Polygon] = []
    columns = terrain.elevation.shape[1]
    for index in np.argsort(-areas_m2):
        shape = horseshoe(float(areas_m2[index]), rng=rng)
        sites = rng.choice(banks.cells, ATTEMPTS, p=banks.weight)
        for site in sites:
            row, column = divmod(int(site), columns)
            upslope = banks.upslope[:, row, column].astype(np.float64)
            turn = rng.normal(0, 0.2)
            upslope = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ upslope
            toe = (np.array([column, row]) + rng.uniform(0, 1, 2)) * COARSE
            ring = toe + (shape[:, :1] * upslope + shape[:, 1:] * np.array([-upslope[1], upslope[0]])) / 3
            if not on_land(ring, terrain=terrain):
                continue
            polygon = shapely.Polygon(ring)
            if not polygon.is_valid or shapely.dwithin(np.array(taken, object), polygon, SPACING_M / 3).any():
                continue
            length = float(shape[:, 0].max())
            taken.append(polygon)
            placed.append(
                Scar(
                    ring=ring,
                    toe=toe,
                    upslope=upslope / np.hypot(*upslope),
                    length_m=length,
                    depth_m=float(np.clip(0.9 * length**0.45 * np.exp(rng.normal(0, 0.3)), 1.5, 25)),
                    run_m=float(np.clip(banks.distance_m[row, column] + rng.uniform(-20, 60), 0, 1.2 * length)),
                    is_active=bool(is_active[index]),
                )
            )
            break
    return tuple(placed)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """The window around one scar, in the scar's own frame."""

    window: tuple[slice, slice]
    """Rows and columns of the ground pixel grid."""
    inside: NDArray[np.bool_]
    """True within the outline (y, x)."""
    depth_in_m: NDArray[np.float32]
    """Distance to the outline from within (y, x), m."""
    up_m: NDArray[np.float32]
    """Distance from the toe towards the headwall (y, x), m; negative on the tongue."""
    side_m: NDArray[np.float32]
    """Distance across (y, x), m."""
    grain: NDArray[np.float32]
    """Noise (y, x) drawn out along the flow; deviation about 1."""


def cut_patch(scar: Scar, *, size: int, rng: np.random.Generator) -> Patch:
    """Frame a scar and its tongue on a pixel grid of `size` px."""
    tongue = scar.toe - scar.upslope * scar.run_m / 3
    points = np.concatenate([scar.ring, tongue[None]])
    pad = 6 + 0.3 * scar.length_m / 3
    x0, y0 = np.clip(np.floor(points.min(axis=0) - pad), 0, size - 1).astype(int)
    x1, y1 = np.clip(np.ceil(points.max(axis=0) + pad), 1, size).astype(int)
    inside = polygon_mask([scar.polygon], shape=(y1 - y0, x1 - x0), at=(x0, y0))
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32) + np.float32(0.5)
    dx, dy = (x - scar.toe[0]) * 3, (y - scar.toe[1]) * 3
    up = dx * scar.upslope[0] + dy * scar.upslope[1]
    side = dy * scar.upslope[0] - dx * scar.upslope[1]
    # Flow lines draw together towards the toe, where all mud leaves.
    lane = side / np.clip(0.45 + 0.75 * up / scar.length_m, 0.45, 1.2)
    nodes = rng.standard_normal((4, 96, 96), dtype=np.float32)
    grain = 0.6 * lookup(nodes[0], up / 70, lane / 15) + 0.35 * lookup(nodes[1], up / 26, lane / 8)
    grain += 0.75 * lookup(nodes[2], up / 32, side / 30) + 0.5 * lookup(nodes[3], up / 10, side / 9)
    return Patch(
        window=(slice(y0, y1), slice(x0, x1)),
        inside=inside,
        depth_in_m=np.asarray(ndimage.distance_transform_edt(inside) * 3, np.float32),
        up_m=up,
        side_m=side,
        grain=grain * np.float32(1.3),
    )


def lookup(nodes: NDArray[np.float32], up: NDArray[np.float32], side: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smooth noise at any place, repeating after as many units as there are nodes."""
    places = np.stack([up, side])
    return np.asarray(ndimage.map_coordinates(nodes, places, order=1, mode="grid-wrap", prefilter=False), np.float32)


def carve(elevation: NDArray[np.float32], *, scar: Scar, patch: Patch) -> None:
    """Lower the floor of a scar in `elevation` (y, x), in place: deepest under the headwall, nothing at the toe."""
    up = np.clip(patch.up_m / scar.length_m, 0, 1)
    wall_m = 5.0 if scar.is_active else 0.35 * scar.length_m + 12
    depth = (scar.depth_m if scar.is_active else 0.6 * scar.depth_m) * (0.25 + 0.75 * up)
    hollow = smoothstep(patch.depth_in_m, 0, wall_m) * smoothstep(patch.up_m, 0, 0.35 * scar.length_m + 6)
    lumps = 0.35 * patch.grain * (patch.depth_in_m > 6) if scar.is_active else 0
    elevation[patch.window] += np.where(patch.inside, lumps - depth * hollow, 0)


def tongue(scar: Scar, *, patch: Patch) -> NDArray[np.float32]:
    """Cover (y, x), 0-1, of the mud that left through the toe; it widens downslope and stays outside of the outline."""
    down = -patch.up_m
    half_m = (0.09 * scar.length_m + 3) * (1 + 0.7 * np.clip(down / (scar.run_m + 1), 0, 1)) * (1 + 0.18 * patch.grain)
    along = smoothstep(down, -0.15 * scar.length_m, 0) * (1 - smoothstep(down, 0.8 * scar.run_m, scar.run_m + 6))
    return np.asarray(along * (1 - smoothstep(np.abs(patch.side_m) / half_m, 0.8, 1.1)), np.float32)


def paint_patch(
    reflectance: NDArray[np.float32],
    *,
    scar: Scar,
    patch: Patch,
    landscape: Landscape,
    water: NDArray[np.uint8],
    rng: np.random.Generator,
) -> None:
    """Colour a scar and its tongue in `reflectance` (band, y, x), in place; open water keeps its own colour."""
    rows, columns = patch.window
    window = reflectance[:, rows, columns]
    colours = (landscape.mud_wet, landscape.mud_dry, landscape.headwall, landscape.regrowth)
    wet, dry, wall, green = map(colour, colours)
    up = np.clip(patch.up_m / scar.length_m, 0, 1)
    moist = np.clip(0.5 + rng.normal(0, 0.18) + 0.24 * patch.grain - 0.2 * up, 0, 1)
    mud = (wet * moist + dry * (1 - moist)) * np.float32(rng.uniform(0.85, 1.12))
    if scar.is_active:
        islands = smoothstep(patch.grain - 1.1 * (up - 0.2), rng.uniform(0.6, 1.4), 2.2)
        floor = mud + (window - mud) * islands * 0.9
        brink_m = float(np.clip(0.05 * scar.length_m, 4, 11)) * (1 + 0.3 * patch.grain)
        brink = (patch.depth_in_m < brink_m) * smoothstep(up, 0.3, 0.55)
        floor = floor + (wall - floor) * np.float32(0.85) * brink
        cover = patch.inside * np.float32(rng.uniform(0.88, 1.0))
        mantle = tongue(scar, patch=patch) * ~patch.inside * (water[rows, columns] == 0)
        window += (mud - window) * mantle * np.float32(0.8)
    else:
        bare = smoothstep(patch.grain, 1.0, 2.2) * np.float32(rng.uniform(0.2, 0.8))
        floor = green * (1 + 0.06 * patch.grain) + (mud - green) * bare
        cover = smoothstep(patch.depth_in_m, 0, 12) * np.float32(rng.uniform(0.5, 0.95))
    window += (floor - window) * cover * patch.inside


CLEAR_WATER = (0.027, 0.031, 0.018, 0.009)
"""Deep lake."""
SILT_WATER = (0.060, 0.083, 0.086, 0.038)
"""Water that carries silt."""


def colour(values: tuple[float, ...]) -> NDArray[np.float32]:
    """Return four reflectances as a column that broadcasts over (band, y, x)."""
    return np.array(values, np.float32)[:, None, None]


def blend(reflectance: NDArray[np.float32], values: tuple[float, ...], weight: NDArray[np.float32]) -> None:
    """Move `reflectance` (band, y, x) towards a colour by `weight` (y, x), 0-1, in place."""
    for band, value in zip(reflectance, values, strict=True):
        band += (np.float32(value) - band) * weight


def paint_tundra(terrain: Terrain, *, landscape: Landscape, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return reflectance (band, y, x) at 3 m of the ground with its plants, without water, shores and scars."""
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
        inside = polygon_mask([shapely.Polygon(ring).buffer(0)], shape=shape, at=(x0, y0))
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
        """Return outlines of the active slumps in the ground's CRS, with `area_m2`, in a fixed order."""
        rings = [scar.ring for scar in self.scars if scar.is_active]
        corner = np.array([self.spec.left, self.spec.top])
        polygons = [shapely.Polygon(corner + ring * np.array([PIXEL_M, -PIXEL_M])) for ring in rings]
        table = geopandas.GeoDataFrame({"geometry": polygons}, geometry="geometry", crs=self.spec.crs)
        table.insert(0, "area_m2", table.geometry.area)
        return table


def tundra_trends(
    terrain: Terrain, *, scars: tuple[Scar, ...], patches: list[Patch], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return twenty-year trends (trend, y, x) on cells of 12 m: slumps brighten and lose green, old scars and basins gain it."""
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
    """Return silt (y, x) at 3 m that active slumps wash into lakes and sea, 0-1."""
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
