"""Relief, rivers and outlines of slumps: areas as published, flow directions by priority flood, and channels as smooth lines.

Drainage runs on cells of 24 m, valleys and banks are cut on cells of 12 m, masks are drawn at 3 m.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from scipy.special import ndtr, ndtri

from rtsx.synthetic.noise import block_mean, fractal_noise, smoothstep, upsample, value_noise

AREA_MEDIAN_M2 = 9534.0
"""Median area of the 2,182 outlines of Nitze et al. 2021."""
AREA_LOG_DEVIATION = 1.49
"""Standard deviation of the logarithm of their area (natural logarithm)."""
AREA_LEAST_M2 = 80.0
"""Smallest of them."""
AREA_LARGEST_M2 = 870_000.0
"""Largest of them."""


def draw_areas(count: int, *, rng: np.random.Generator, largest_m2: float = AREA_LARGEST_M2) -> NDArray[np.float64]:
    """Return areas in m² from the log-normal distribution of published outlines, cut at `largest_m2`.

    Examples
    --------
    >>> areas = draw_areas(2000, rng=np.random.default_rng(0))
    >>> bool(8_000 < np.median(areas) < 11_000), bool(areas.max() <= 870_000)
    (True, True)
    """
    low, high = ndtr(np.log(np.array([AREA_LEAST_M2, largest_m2]) / AREA_MEDIAN_M2) / AREA_LOG_DEVIATION)
    quantile = ndtri(rng.uniform(low, high, count))
    return np.asarray(AREA_MEDIAN_M2 * np.exp(AREA_LOG_DEVIATION * quantile), np.float64)


def wobble(angle: NDArray[np.float64], *, size: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the periodic factor around 1 with a deviation of about `size`, rougher at low frequencies."""
    orders = np.arange(2, 18)
    amplitude = rng.standard_normal(orders.size) / orders**0.95
    phase = rng.uniform(0, 2 * np.pi, orders.size)
    wave = (amplitude[:, None] * np.cos(orders[:, None] * angle + phase[:, None])).sum(axis=0)
    return np.asarray(np.clip(1 + size * wave, 0.55, 1.6), np.float64)


def polygon_area(points: NDArray[np.float64]) -> float:
    """Return the area of a ring (vertex, 2), the last vertex joined to the first."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def horseshoe(area_m2: float, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the ring (vertex, 2) of a scar in its own frame: upslope u and across v in m, toe at u = 0, head at the far end.

    The head is a scalloped arc, the toe narrower: mud leaves there. The area is exactly `area_m2`.
    """
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    elongation = np.exp(rng.normal(0.42, 0.4))
    widest, toe = rng.uniform(0.5, 0.75), rng.uniform(0.35, 0.8)
    along = (1 - np.cos(turn)) / 2
    body = toe + (1 - toe) * np.sin(np.pi / 2 * np.clip(along / widest, 0, 1))
    head = np.sqrt(np.clip(1 - np.clip((along - widest) / (1 - widest), 0, 1) ** 2.4, 0, 1))
    foot = np.sqrt(np.clip(along / 0.08, 0, 1))
    across = np.sign(np.sin(turn)) * body * head * foot / 2
    scallops = 1 + rng.uniform(0.03, 0.2) * np.abs(np.sin(rng.integers(2, 6) * turn + rng.uniform(0, np.pi))) * along
    u, v = elongation * (along - 0.5), across
    factor = wobble(turn, size=rng.uniform(0.08, 0.26), rng=rng) * scallops
    ring = np.stack([u * factor, v * factor + rng.normal(0, 0.12) * u**2 * np.sign(elongation)], axis=1)
    ring *= np.sqrt(area_m2 / polygon_area(ring))
    ring[:, 0] -= ring[:, 0].min()
    return ring


def blob(area_m2: float, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the ring (vertex, 2) of a rounded patch around 0, 0 in m, with exactly `area_m2`: lakes, basins, bare ground."""
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = wobble(turn, size=rng.uniform(0.1, 0.35), rng=rng)
    stretch, angle = np.exp(rng.normal(0.2, 0.25)), rng.uniform(0, np.pi)
    x, y = stretch * radius * np.cos(turn), radius * np.sin(turn)
    ring = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)
    return np.asarray(ring * np.sqrt(area_m2 / polygon_area(ring)), np.float64)


@dataclass(frozen=True, kw_only=True)
class Drainage:
    """Flow over one elevation model."""

    filled: NDArray[np.float32]
    """Elevation (y, x) with every hollow filled to its outlet, m."""
    receiver: NDArray[np.int64]
    """Flat index of the cell that each cell drains to, (cell,); -1 where it leaves at the border."""
    area: NDArray[np.float64]
    """Drained area (y, x), itself included, in cells."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One reach between two confluences."""

    path: NDArray[np.float64]
    """Vertices (vertex, 2) as x, y, downstream, in cells of the drainage pixel grid (centre of the first cell: 0.5)."""
    area: float
    """Mean drained area, in cells."""


def drain(elevation: NDArray[np.float32], *, rng: np.random.Generator) -> Drainage:
    """Route water over `elevation` (y, x) by priority flood (Barnes et al. 2014), eight neighbours.

    Filled hollows get a random slope, because water crosses an even one in straight lines. A heap in Python is fast enough
    because the pixel grid is coarse (0.3 s for 290 x 290).
    """
    rows, columns = elevation.shape
    height = elevation.ravel().tolist()
    receiver = [-2] * len(height)
    cells = np.arange(elevation.size).reshape(rows, columns)
    border = np.unique(np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]]))
    low = elevation.ravel()[border]
    # Outlets only on the low side: with the whole border open no river would cross the square.
    outlets = border[low <= np.quantile(low, 0.3)].tolist()
    rise = rng.uniform(1e-4, 0.2, len(height)).tolist()
    heap = [(height[cell], cell) for cell in outlets]
    for cell in outlets:
        receiver[cell] = -1
    heapq.heapify(heap)
    order = []
    while heap:
        level, cell = heapq.heappop(heap)
        order.append(cell)
        row, column = divmod(cell, columns)
        for y in range(max(row - 1, 0), min(row + 2, rows)):
            for x in range(max(column - 1, 0), min(column + 2, columns)):
                other = y * columns + x
                if receiver[other] == -2:
                    receiver[other] = cell
                    height[other] = max(height[other], level + rise[other])
                    heapq.heappush(heap, (height[other], other))
    area = [1.0] * len(height)
    for cell in reversed(order):
        if receiver[cell] >= 0:
            area[receiver[cell]] += area[cell]
    return Drainage(
        filled=np.array(height, np.float32).reshape(rows, columns),
        receiver=np.array(receiver, np.int64),
        area=np.array(area).reshape(rows, columns),
    )


def course(drainage: Drainage, cell: int) -> list[int]:
    """Return flat indices of the cells that water from `cell` passes, itself included, down to the border."""
    path = [cell]
    while drainage.receiver[path[-1]] >= 0:
        path.append(int(drainage.receiver[path[-1]]))
    return path


def with_trunk(drainage: Drainage, *, upstream: float, rng: np.random.Generator) -> Drainage:
    """Let a river with `upstream` cells of country behind it enter at the border, where its way through is long."""
    rows, columns = drainage.area.shape
    along = rng.integers(1, min(rows, columns) - 1, 80)
    sides = (columns + along, (rows - 2) * columns + along, along * columns + 1, along * columns + columns - 2)
    courses = [course(drainage, int(cell)) for side in sides for cell in side[:20]]
    longest = sorted(courses, key=len)[-12:]
    area = drainage.area.copy()
    area.ravel()[longest[int(rng.integers(len(longest)))]] += upstream
    return replace(drainage, area=area)


def channels(drainage: Drainage, *, least_area: float, smooth: float) -> list[Channel]:
    """Follow every channel with at least `least_area` cells upstream, cut at confluences, smoothed by `smooth` cells."""
    columns = drainage.area.shape[1]
    area, receiver = drainage.area.ravel(), drainage.receiver
    is_channel = area >= least_area
    cells = np.flatnonzero(is_channel)
    down = receiver[cells]
    fed = np.bincount(down[down >= 0], minlength=area.size)
    heads = cells[fed[cells] != 1]
    found = []
    for head in heads:
        path = [int(head)]
        while receiver[path[-1]] >= 0:
            path.append(int(receiver[path[-1]]))
            if fed[path[-1]] != 1:
                break
        if len(path) < 2:
            continue
        y, x = np.divmod(np.array(path), columns)
        line = np.stack([x, y], axis=1) + 0.5
        ends = line[[0, -1]]
        line = ndimage.gaussian_filter1d(line, smooth, axis=0, mode="nearest")
        line[[0, -1]] = ends
        found.append(Channel(path=line, area=float(area[path].mean())))
    return found


COARSE = 4
"""Pixel grid px per cell of the 12 m pixel grid."""
DRAINAGE = 8
"""Pixel grid px per cell of the 24 m pixel grid."""
CELL_M = 12.0
"""Cell of the pixel grid on which valleys and banks are cut, m."""
DRAINAGE_KM2 = 0.024**2
"""Area of a drainage cell, km²."""
LAND, RIVER, LAKE, SEA = range(4)
"""Codes of `Terrain.water`."""


@dataclass(frozen=True, kw_only=True)
class Terrain:
    """Shape of the ground and where water stands, before slumps."""

    elevation: NDArray[np.float32]
    """Elevation on cells of 12 m (y, x), m."""
    water: NDArray[np.uint8]
    """Water at 3 m (y, x): 0 land, 1 river, 2 lake, 3 sea."""
    brook: NDArray[np.bool_]
    """Line of brooks too narrow for open water, at 3 m (y, x): willows grow there."""
    basin: NDArray[np.bool_]
    """Floors of drained lakes at 3 m (y, x)."""
    river_distance_m: NDArray[np.float32]
    """Distance to the nearest open river on cells of 12 m (y, x), m."""
    river_width_m: NDArray[np.float32]
    """Width of that river (y, x), m."""


def relief(shape: tuple[int, int], *, height: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return hills (y, x) on drainage cells in m: a slope, a fractal, and ridges, all `height` times the plateau's."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) * np.float32(0.024)
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(4, 14) * (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))
    hills = fractal_noise(shape, coarsest=64, finest=2, persistence=0.45, rng=rng)
    ridges = 1 - np.abs(fractal_noise(shape, coarsest=48, finest=6, persistence=0.4, rng=rng))
    hills *= np.float32(height * rng.uniform(18, 38))
    ridges *= np.float32(height * rng.uniform(5, 20))
    return np.asarray(300 + slope * height + hills + ridges, np.float32)


def cut_valleys(
    elevation: NDArray[np.float32], *, area: NDArray[np.float64], filled: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Lower the ground (24 m cells) towards the beds of its channels, wider and deeper where more water runs."""
    km2 = area * DRAINAGE_KM2
    away, (row, column) = ndimage.distance_transform_edt(km2 < 0.3, return_indices=True)
    size = km2[row, column]
    bed = filled[row, column] - 8.0 * np.clip(size, 0, 80) ** 0.3
    floor = ndimage.gaussian_filter(bed, 2.0)
    half_width = np.clip(2.0 + 2.4 * size**0.33, 2, 13)
    keep = 1 - np.exp(-((away / ndimage.gaussian_filter(half_width, 3.0)) ** 2))
    cut = floor + (np.maximum(elevation, floor) - floor) * keep
    return np.asarray(ndimage.gaussian_filter(np.minimum(cut, filled), 0.8), np.float32)


def polygon_mask(
    shapes: Sequence[shapely.Geometry], *, shape: tuple[int, int], at: tuple[int, int] = (0, 0)
) -> NDArray[np.bool_]:
    """Mask (y, x) of polygons in px; its upper left corner lies at x, y."""
    if not shapes:
        return np.zeros(shape, bool)
    return np.asarray(rasterize(shapes, out_shape=shape, transform=Affine.translation(*at), dtype="uint8"), bool)


def meander(path: NDArray[np.float64], *, sway: NDArray[np.float32]) -> NDArray[np.float64]:
    """Move vertices (x, y in px) by the field `sway` (2, y, x on 12 m cells), the same at a point for every channel."""
    at = np.clip(path[:, ::-1].T / COARSE - 0.5, 0, np.array(sway.shape[1:])[:, None] - 1)
    moved = [ndimage.map_coordinates(axis, at, order=1) for axis in sway]
    return np.asarray(path + np.stack(moved, axis=1), np.float64)


def open_channels(
    reaches: list[Channel], *, sway: NDArray[np.float32], shape: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    """Draw rivers and brooks at 3 m, and river width in m at 3 m (0 beside rivers)."""
    rivers: list[tuple[NDArray[np.float64], float]] = []
    brooks: list[tuple[NDArray[np.float64], float]] = []
    width_m = np.zeros(shape, np.float32)
    for reach in reaches:
        path = meander(reach.path * DRAINAGE, sway=sway)
        width = 2.4 * float(np.sqrt(reach.area * DRAINAGE_KM2))  # from bank to bank, m
        (rivers if width > 5 else brooks).append((path, width / 3))
    rivers.sort(key=lambda line: line[1])
    if rivers:
        bands = ((shapely.LineString(path).buffer(width / 2, quad_segs=3), width * 3) for path, width in rivers)
        width_m = np.asarray(rasterize(bands, out_shape=shape, dtype="float32"), np.float32)
    lines = [shapely.LineString(path).buffer(max(width, 0.7) / 2, quad_segs=3) for path, width in brooks]
    return width_m > 0, polygon_mask(lines, shape=shape), width_m


def bowls(
    elevation: NDArray[np.float32], *, taken: NDArray[np.bool_], per_km2: float, rng: np.random.Generator
) -> list[shapely.Geometry]:
    """Return outlines in px of lakes or basins on flat, low and free ground; `elevation` and `taken` on 12 m cells."""
    area_km2 = elevation.size * (CELL_M / 1000) ** 2
    smooth = ndimage.gaussian_filter(elevation, 6)
    steep = np.hypot(*np.gradient(smooth, CELL_M))
    score = steep + 0.0015 * (smooth - ndimage.gaussian_filter(elevation, 40))
    score = np.where(taken, np.inf, score)
    free = np.flatnonzero(score < np.quantile(score[~taken], 0.3)) if not taken.all() else np.empty(0, int)
    outlines = []
    for _ in range(rng.poisson(per_km2 * area_km2)):
        if not free.size:
            break
        row, column = np.divmod(int(rng.choice(free)), elevation.shape[1])
        area_m2 = np.exp(rng.normal(np.log(30_000), 1.1))
        ring = blob(float(np.clip(area_m2, 2_000, 0.03e6 * area_km2)), rng=rng) / 3
        outlines.append(shapely.Polygon(ring + np.array([column + 0.5, row + 0.5]) * COARSE).buffer(0))
    return outlines


def level_bowls(
    elevation: NDArray[np.float32], *, mask: NDArray[np.bool_], bank_m: float, reach_m: float
) -> NDArray[np.float32]:
    """Flatten every connected part of `mask` (12 m cells) at its low ground and lead the banks down to it."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return elevation
    levels = np.array([np.quantile(elevation[labels == part], 0.15) for part in range(1, count + 1)])
    away, (row, column) = ndimage.distance_transform_edt(~mask, return_indices=True)
    level = levels[labels[row, column] - 1]
    distance_m = away * CELL_M
    free = smoothstep(distance_m, 0, reach_m)
    bank = bank_m * smoothstep(distance_m, 0, 40) * (1 - smoothstep(distance_m, 40, 3 * reach_m))
    return np.asarray(level + (elevation - level) * free + bank, np.float32)


def make_terrain(size: int, *, height: float, rng: np.random.Generator) -> Terrain:
    """Shape a square of `size` px of 3 m: hills, drainage, valleys, lakes, drained basins and, for every third, a coast.

    Hills are `height` times as high as on the plateau.
    """
    fine, cells = (size, size), (size // DRAINAGE, size // DRAINAGE)
    middle = (size // COARSE, size // COARSE)
    base = relief(cells, height=height, rng=rng)
    upstream_km2 = float(np.exp(rng.uniform(np.log(30), np.log(400))))
    water_flow = with_trunk(drain(base, rng=rng), upstream=upstream_km2 / DRAINAGE_KM2, rng=rng)
    valley = cut_valleys(base, area=water_flow.area, filled=water_flow.filled)
    elevation = upsample(valley, factor=DRAINAGE // COARSE, shape=middle)
    elevation += 1.2 * fractal_noise(middle, coarsest=24, finest=2, persistence=0.5, rng=rng)

    sway = np.stack(
        [8 * value_noise(middle, spacing=13, rng=rng) + 16 * value_noise(middle, spacing=36, rng=rng) for _ in "xy"]
    )
    reaches = channels(water_flow, least_area=0.3 / DRAINAGE_KM2, smooth=1.4)
    river, brook, width_m = open_channels(reaches, sway=sway, shape=fine)

    sea = np.zeros(middle, bool)
    if rng.uniform() < 1 / 3:
        sea = elevation < np.quantile(elevation, rng.uniform(0.06, 0.2))
        sea = ndimage.binary_opening(sea, iterations=4)
    near_river = block_mean(river, factor=COARSE) > 0
    taken = ndimage.binary_dilation(near_river | sea, iterations=8)
    lake, basin = (
        polygon_mask(bowls(elevation, taken=taken, per_km2=per_km2, rng=rng), shape=fine)
        for per_km2 in (rng.uniform(0.3, 1.1), 0.15)
    )
    basin &= ~lake
    elevation = level_bowls(elevation, mask=block_mean(basin, factor=COARSE) > 0.5, bank_m=1.0, reach_m=90)
    elevation = level_bowls(
        elevation, mask=block_mean(lake, factor=COARSE) > 0.5, bank_m=rng.uniform(2, 6), reach_m=110
    )
    elevation = level_bowls(elevation, mask=sea, bank_m=rng.uniform(3, 9), reach_m=80)

    water = np.where(river, np.uint8(RIVER), np.uint8(LAND))
    water[lake] = LAKE
    water[upsample(sea, factor=COARSE, shape=fine) > 0.5] = SEA
    width = ndimage.maximum_filter(width_m, size=COARSE)[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE]
    away, (row, column) = ndimage.distance_transform_edt(~near_river, return_indices=True)
    return Terrain(
        elevation=elevation,
        water=water,
        brook=brook & (water == LAND),
        basin=basin & (water == LAND),
        river_distance_m=np.asarray(away * CELL_M, np.float32),
        river_width_m=np.asarray(width[row, column], np.float32),
    )
