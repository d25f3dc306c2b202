"""Where slumps lie: on banks, open towards the water, apart from each other."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from rtsx.synthetic.outline import horseshoe
from rtsx.synthetic.terrain import CELL_M, COARSE, LAKE, RIVER, Terrain

__all__ = ["Scar", "place_scars"]

ATTEMPTS = 150
"""Sites that are tried for one scar; the largest are placed first, so hardly any is given up."""
SPACING_M = 9.0
"""Least ground between two scars, m."""


@dataclass(frozen=True, kw_only=True)
class Scar:
    """One slump, active or old, on the lattice of its ground."""

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
    """Say whether an outline lies inside the lattice and off the water."""
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
