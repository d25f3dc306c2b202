"""Where water runs: flow directions by priority flood, drained area, and channels as smooth lines."""

import heapq
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


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


def edges(field: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Upper, lower, left and right line of `field` (y, x)."""
    return field[0], field[-1], field[:, 0], field[:, -1]


def drain(elevation: NDArray[np.float32], *, rng: np.random.Generator) -> Drainage:
    """Route water over `elevation` (y, x) by priority flood (Barnes et al. 2014), eight neighbours.

    Filled hollows get a random slope, because water crosses an even one in straight lines. A heap in Python is fast enough
    because the pixel grid is coarse (0.3 s for 290 x 290).
    """
    rows, columns = elevation.shape
    height = elevation.ravel().tolist()
    receiver = [-2] * len(height)
    border = np.unique(
        np.concatenate([cells.ravel() for cells in edges(np.arange(elevation.size).reshape(rows, columns))])
    )
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
    """Flat indices of the cells that water from `cell` passes, itself included, down to the border."""
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
