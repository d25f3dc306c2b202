"""Where slumps lie, and what a scar does to the terrain under it."""

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage

from rtsx.synthetic.noise import smoothstep
from rtsx.synthetic.spec import Landscape
from rtsx.synthetic.terrain import CELL_M, COARSE, LAKE, RIVER, Terrain, horseshoe

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
    """Sites and their chances: steep ground beside lakes, rivers and the sea, denser where `clusters` (y, x) is high."""
    shape = terrain.elevation.shape
    open_water = (terrain.water >= LAKE) | (terrain.water == RIVER)
    water = open_water.reshape(shape[0], COARSE, shape[1], COARSE).mean(axis=(1, 3)) > 0.2
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
    inside = np.asarray(
        rasterize([scar.polygon], out_shape=(y1 - y0, x1 - x0), transform=Affine.translation(x0, y0), dtype="uint8"),
        bool,
    )
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
    wet, dry, wall, green = (np.array(colour, np.float32)[:, None, None] for colour in colours)
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
