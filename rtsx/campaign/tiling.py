"""Tiles of a map that is run cell by cell: how many the cells compute together, and which tiling makes them fewest. Pure.

Every cell computes all tiles whose support meets it, so that no cell waits for another; a tile that meets two cells is
computed twice. Where tiles are cropped and their step divides the cell, none is: their seams lie on the cells' borders.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from rtsx.campaign.cells import CellTable
from rtsx.campaign.recipe import PredictionSpec
from rtsx.inference.plan import TilingNeeds, choose_tiling
from rtsx.tiling import TileAxis, TilePlan


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """What cells compute and read by a tiling of the map that they are part of."""

    n_cells: int
    n_pixels: int
    """Pixels of their supports, all together."""
    n_tiles: int
    """Tiles that they compute; one that several cells compute counts for each of them."""
    tile: int
    """Side of a tile, px."""
    n_read: int
    """Pixels that they read of each layer, halo included."""

    @property
    def over_compute(self) -> float:
        """Pixels that the network sees per pixel of the map, overlaps and borders of cells included."""
        return self.n_tiles * self.tile**2 / self.n_pixels


def cell_work(
    tiling: TilePlan, cells: CellTable, *, rows: tuple[int, int], columns: tuple[int, int], side: int
) -> CellWork:
    """Count what cells compute.

    Parameters
    ----------
    tiling
        Tiles of the whole map.
    cells
        Cells within the map.
    rows, columns
        Rows and columns of cells that the map consists of, half-open.
    side
        Side of a cell, px.

    Examples
    --------
    >>> cells = CellTable(np.array([[0, 0], [0, 1]], np.int32))
    >>> tiling = TilePlan(shape=(512, 1024), tile=320, overlap=64, trim=32, stride=32, blend="crop")
    >>> cell_work(tiling, cells, rows=(0, 1), columns=(0, 2), side=512).over_compute
    1.5625
    """
    along = [_along(axis, stop - start, side=side) for axis, (start, stop) in ((tiling.y, rows), (tiling.x, columns))]
    tiles, read = (
        along[0][what][cells.addresses[:, 0] - rows[0]] * along[1][what][cells.addresses[:, 1] - columns[0]]
        for what in (0, 1)
    )
    return CellWork(
        n_cells=len(cells),
        n_pixels=len(cells) * side**2,
        n_tiles=int(tiles.sum()),
        tile=tiling.tile,
        n_read=int(read.sum()),
    )


def widest_read(tiling: TilePlan, *, side: int) -> int:
    """Columns of the widest window that any cell of a map reads, px.

    Parameters
    ----------
    tiling
        Tiles of the whole map.
    side
        Side of a cell, px.
    """
    return int(_along(tiling.x, tiling.shape[1] // side, side=side)[1].max())


def campaign_tiling(
    *,
    rows: tuple[int, int],
    columns: tuple[int, int],
    side: int,
    habits: TilingNeeds,
    spec: PredictionSpec,
    largest: int,
    fits: Callable[[TilePlan], bool],
    settled: int | None,
) -> TilePlan:
    """Choose the tiling of a whole map, on the pixels of its grid.

    Its seams do not depend on which cells are run. Tiles of a network whose reach is finite are cropped unless the spec says
    otherwise: whatever the blend, they then give one output, and cropped ones share nothing.

    Parameters
    ----------
    rows, columns
        Rows and columns of cells that the map has room for, half-open.
    side
        Side of a cell, px.
    habits
        What the bundles need.
    spec
        What the operator has chosen.
    largest
        Largest tile whose network the memory holds, px.
    fits
        Whether the memory holds a whole task of a tiling.
    settled
        Tile that an earlier plan of the same bundles has taken where the spec leaves it open, px; None: choose.

    Raises
    ------
    PlanError
        The choices contradict each other or the bundles.
    """
    shape = (rows[1] - rows[0]) * side, (columns[1] - columns[0]) * side

    def cost(tiling: TilePlan) -> float:
        if tiling.tile == settled:
            return 0.0
        if not fits(tiling) or any(tiling.tile * scale % tiling.stride for scale in spec.scales):
            return inf
        return mean_over_compute(tiling, side=side)

    def tiling_by(choice: PredictionSpec) -> TilePlan:
        assert choice.blend != "auto"
        most = settled or largest
        chosen = choose_tiling(
            shape,
            (rows[0] * side, columns[0] * side),
            habits=habits,
            tile=choice.tile,
            overlap=choice.overlap,
            trim=choice.trim,
            blend=choice.blend,
            largest=most,
            cost=cost,
        )
        if choice.tile != "auto" or habits.reach is None or 4 * habits.reach > most:
            return chosen
        return min([chosen, *_meeting_borders(chosen, side=side, largest=most)], key=cost)

    if spec.blend != "auto":
        return tiling_by(spec)
    if habits.reach is not None and spec.trim is None:
        cropped = tiling_by(replace(spec, blend="crop"))
        if cropped.trim >= habits.reach:
            return cropped
    return tiling_by(replace(spec, blend="linear"))


def mean_over_compute(tiling: TilePlan, *, side: int) -> float:
    """Over-compute if every cell of the map were run: a row of cells has as many rows of tiles in every column."""
    tiles = [_along(axis, axis.length // side, side=side)[0].mean() for axis in (tiling.y, tiling.x)]
    return float(tiles[0] * tiles[1]) * tiling.tile**2 / side**2


def _meeting_borders(tiling: TilePlan, *, side: int, largest: int) -> Iterator[TilePlan]:
    """Like tilings, whose seams lie on the borders of cells where they are cropped: a cell is whole steps."""
    for count in range(1, side // tiling.stride + 1):
        step = side // count
        if step < tiling.overlap:
            return
        if side % count == 0 and step % tiling.stride == 0 and step + tiling.overlap <= largest:
            yield replace(tiling, tile=step + tiling.overlap)


def _along(axis: TileAxis, count: int, *, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the tiles whose support meets each of `count` stretches of an axis (stretch,), and the pixels of their windows.

    `TileAxis.tiles_covering` for all of them at once, because a map may have thousands of rows of cells.
    """
    low = np.arange(count, dtype=np.int64) * side
    begin = axis.start(0) + axis.trim
    length = axis.tile - 2 * axis.trim
    # Of the tiles, whose supports begin at begin + k * step: the first that ends behind low, the last that begins before high.
    first = np.maximum((low - begin - length) // axis.step + 1, axis.indices[0])
    last = np.minimum(-((begin - low - side) // axis.step) - 1, axis.indices[-1])
    starts, stops = first * axis.step + axis.start(0), last * axis.step + axis.start(0) + axis.tile
    return last - first + 1, np.minimum(stops, axis.length) - np.maximum(starts, 0)
