"""The cells of a campaign: which of the grid, in which order along a Hilbert curve, and which tiling makes their work least. Pure.

Blocks of cells are halved until they lie in the region as a whole, or beside it: a million cells then take as many
questions as there are cells along the region's border, instead of one each.

Every cell computes all tiles whose support meets it, so that no cell waits for another; a tile that meets two cells is
computed twice. Where tiles are cropped and their step divides the cell, none is: their seams lie on the cells' borders.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from rtsx.campaign.recipe import PredictionSpec
from rtsx.errors import CampaignError
from rtsx.grid import Grid
from rtsx.inference.plan import TilingNeeds, choose_tiling
from rtsx.tiling import TileAxis, TilePlan

Address = tuple[int, int]
"""Row and column (iy, ix) of a cell in the grid."""


@dataclass(frozen=True, eq=False)
class CellTable:
    """Addresses of cells, each once.

    Examples
    --------
    >>> table = CellTable(np.array([[4, -1], [4, 0]], np.int32))
    >>> len(table), list(table), (4, 0) in table, table == CellTable(table.addresses.copy())
    (2, [(4, -1), (4, 0)], True, True)
    """

    addresses: NDArray[np.int32]
    """Row and column (cell, 2), in the order of running: neighbours follow each other, so that caches of sources help."""

    def __post_init__(self) -> None:
        """Refuse what is no list of different cells, and close it against change."""
        if not np.issubdtype(np.asarray(self.addresses).dtype, np.integer):
            raise CampaignError(
                f"Rows and columns of cells are whole numbers; got {np.asarray(self.addresses).dtype.name}."
            )
        array = np.array(self.addresses, np.int32, order="C")  # a copy, because what is closed may be somebody else's
        if array.ndim != 2 or array.shape[1] != 2:
            raise CampaignError(f"Cells are an array (cell, 2) of rows and columns; got shape {array.shape}.")
        if len(np.unique(self._keys(array))) != len(array):
            raise CampaignError("Every cell of a campaign comes once; some come twice.")
        array.setflags(write=False)
        object.__setattr__(self, "addresses", array)

    def __len__(self) -> int:
        return len(self.addresses)

    def __iter__(self) -> Iterator[Address]:
        for start in range(0, len(self), 4096):  # a part at a time, because a million tuples are a hundred megabytes
            yield from map(tuple, self.addresses[start : start + 4096].tolist())

    def __contains__(self, address: object) -> bool:
        return address in self.places

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CellTable) and np.array_equal(self.addresses, other.addresses)

    def __hash__(self) -> int:
        return hash(self.addresses.tobytes())

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the addresses alone, because `places` of a million cells would go to every worker with them."""
        return CellTable, (self.addresses,)

    @cached_property
    def places(self) -> dict[Address, int]:
        """Position of each cell in the order."""
        return {address: place for place, address in enumerate(self)}

    @staticmethod
    def _keys(array: NDArray[np.int32]) -> NDArray[np.int64]:
        return (array[:, 0].astype(np.int64) << 32) + array[:, 1]


def hilbert_order(addresses: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return places (cell,) of some cells in the order of a Hilbert curve over the square that holds them all.

    Instead of row by row, because images are about as high as wide: what a worker has read of one is then wanted again
    soon, by the cells beside and below as well.

    Parameters
    ----------
    addresses
        Rows and columns (cell, 2).

    Examples
    --------
    >>> addresses = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32)
    >>> addresses[hilbert_order(addresses)].tolist()
    [[0, 0], [1, 0], [1, 1], [0, 1]]
    """
    if not len(addresses):
        return np.zeros(0, np.intp)
    low = addresses.min(axis=0).astype(np.int64)
    y, x = (addresses.astype(np.int64) - low).T
    place = np.zeros(len(addresses), np.int64)
    half = 1 << max(int(max(y.max(), x.max())).bit_length() - 1, 0)
    while half:
        right, below = (x & half) > 0, (y & half) > 0
        place += half * half * ((3 * right) ^ below)
        # The quarter is turned so that its curve begins where that of the last one ended.
        flipped = right & ~below
        x, y = (
            np.where(flipped, half - 1 - (x & (half - 1)), x & (half - 1)),
            np.where(flipped, half - 1 - (y & (half - 1)), y & (half - 1)),
        )
        x, y = np.where(below, x, y), np.where(below, y, x)
        half >>= 1
    return np.argsort(place, kind="stable")


_MOST_CELLS = 20_000_000
"""Cells of a campaign; the Arctic's land has 20,000 at 3 m."""


@dataclass(frozen=True, kw_only=True)
class CellChoice:
    """Cells, and the window of the grid around them."""

    cells: CellTable
    """What is run, along a Hilbert curve."""
    rows: tuple[int, int]
    """Rows of cells that the map has room for, half-open."""
    columns: tuple[int, int]
    """Columns, likewise."""


def chosen_cells(
    grid: Grid, region: BaseGeometry, *, without: BaseGeometry | None, extent: BaseGeometry | None
) -> CellChoice:
    """Select the cells that intersect a region, but for those whose share of it is left out.

    Parameters
    ----------
    grid
        Whose cells.
    region
        Ground to be mapped, longitude and latitude.
    without
        Ground that is left out, likewise; a cell of which it leaves nothing is not run.
    extent
        Ground that the map has room for, likewise; None for the region, whatever is left out of it.

    Raises
    ------
    CampaignError
        Nothing is left of the region, or it reaches beyond the extent.
    GridError
        A geometry is empty or cannot be expressed in the grid's CRS.

    Examples
    --------
    >>> choice = chosen_cells(Grid.arctic(), shapely.box(-139.3, 69.5, -138.0, 69.65), without=None, extent=None)
    >>> list(choice.cells), choice.rows, choice.columns
    ([(-5, -61), (-4, -61)], (-5, -3), (-61, -60))
    """
    area = grid.projected(region)
    met, is_inside = _meeting(grid, area)
    addresses = met
    if without is not None:
        left_out = grid.projected(without)
        if not left_out.intersects(area):
            warnings.warn(
                f"The ground that is left out meets none of the region: it spans {_bounds(without)}, the region {_bounds(region)}, longitude and "
                "latitude. Does it have latitude first?",
                RuntimeWarning,
                stacklevel=2,
            )
        shapely.prepare(left_out)
        boxes = _boxes(grid, met, 1)
        gone = shapely.covers(left_out, boxes)
        # Cells along the area's border may extend beyond it, which says nothing about them.
        along = np.flatnonzero(~gone & ~is_inside & shapely.intersects(left_out, boxes))
        gone[along] = shapely.covers(left_out, shapely.intersection(area, boxes[along]))
        addresses = met[~gone]
        if not len(addresses):
            raise CampaignError(
                f"All {len(met)} cells of the region lie in ground that is left out. Check both: the one "
                f"spans {_bounds(region)}, the other {_bounds(without)}, longitude and latitude."
            )
    room = met if extent is None else _meeting(grid, grid.projected(extent))[0]
    rows, columns = ((int(room[:, axis].min()), int(room[:, axis].max()) + 1) for axis in (0, 1))
    _require_on_earth(grid, addresses)
    outside = ((addresses < (rows[0], columns[0])) | (addresses >= (rows[1], columns[1]))).any(axis=1)
    if outside.any():
        assert extent is not None  # the region's own window holds its cells
        iy, ix = addresses[outside][0].tolist()
        raise CampaignError(
            f"{int(outside.sum())} of the region's {len(addresses)} cells lie outside the extent, such as {grid[iy, ix].id}: "
            f"the region spans {_bounds(region)}, the extent {_bounds(extent)}. Widen the extent before the first year "
            "is mapped, or narrow the region."
        )
    return CellChoice(cells=CellTable(addresses[hilbert_order(addresses)]), rows=rows, columns=columns)


def _require_on_earth(grid: Grid, addresses: NDArray[np.int32]) -> None:
    """Refuse cells in degrees that lie beyond a pole by more than a pixel and a degree, which no image does."""
    crs = CRS(grid.crs)
    if not crs.is_geographic:
        return
    side = grid.cell_size * grid.resolution
    top, bottom = grid.origin[1] - addresses[:, 0] * side, grid.origin[1] - (addresses[:, 0] + 1) * side
    farthest = np.maximum(np.abs(top), np.abs(bottom)) * np.degrees(crs.axis_info[0].unit_conversion_factor)
    worst = int(np.argmax(farthest))
    if farthest[worst] > 91 + grid.resolution:
        iy, ix = addresses[worst].tolist()
        raise CampaignError(
            f"Cells of cube.grid are {side:.6g} degrees high, {grid.cell_size} px (cell_size) of {grid.resolution:g} degrees (resolution), "
            f"and {grid[iy, ix].id} reaches from latitude {bottom[worst]:.6g} to {top[worst]:.6g}, beyond the pole. Say a smaller cell_size, finer "
            "pixels, or a projected CRS such as EPSG:3413."
        )


def _meeting(grid: Grid, area: BaseGeometry) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return rows and columns (cell, 2) that `Grid.cells` gives, in another order, and whether a cell (cell,) lies in the area as a whole."""
    xmin, ymin, xmax, ymax = area.bounds
    cells = area.area / (grid.cell_size * grid.resolution) ** 2
    if cells > _MOST_CELLS:
        raise CampaignError(
            f"The region is {cells:.3g} cells of {grid.cell_size} px, and a campaign has {_MOST_CELLS:,} at most. Take larger "
            "cells (cell_size), coarser pixels (resolution), or divide the region."
        )
    first, last = grid.cell_at(xmin, ymax), grid.cell_at(xmax, ymin)
    top, left = first.iy - 1, first.ix - 1
    size = 1 << max(last.iy - top, last.ix - left).bit_length()
    shapely.prepare(area)
    blocks = np.array([[top, left]], np.int64)
    whole: list[NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
    while size > 1:
        boxes = _boxes(grid, blocks, size)
        inside = shapely.contains_properly(area, boxes)
        whole.append(_parts(blocks[inside], size, step=1))
        blocks = _parts(blocks[~inside & shapely.intersects(area, boxes)], size, step=size // 2)
        size //= 2
    boxes = _boxes(grid, blocks, 1)
    meets = shapely.intersects(area, boxes)
    if area.area > 0:
        meets[meets] = shapely.relate_pattern(area, boxes[meets], "T********")
    inside = np.concatenate(whole)
    addresses = np.concatenate([inside, blocks[meets]]).astype(np.int32)
    return addresses, np.arange(len(addresses)) < len(inside)


def _boxes(grid: Grid, blocks: NDArray[np.integer], size: int) -> NDArray[np.object_]:
    side = grid.cell_size * grid.resolution
    xmin, ymax = grid.origin[0] + blocks[:, 1] * side, grid.origin[1] - blocks[:, 0] * side
    boxes: NDArray[np.object_] = shapely.box(xmin, ymax - size * side, xmin + size * side, ymax)
    return boxes


def _parts(blocks: NDArray[np.int64], size: int, *, step: int) -> NDArray[np.int64]:
    """Return corners (part, 2) of the squares of `step` cells that blocks of `size` cells consist of."""
    along = np.arange(0, size, step)
    offsets = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)
    return (blocks[:, None] + offsets).reshape(-1, 2)


def _bounds(geometry: BaseGeometry) -> str:
    return "({:.2f}, {:.2f}, {:.2f}, {:.2f})".format(*geometry.bounds)


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
    """Return columns of the widest window that any cell of a map reads, px.

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
    needs: TilingNeeds,
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
    needs
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
            needs=needs,
            tile=choice.tile,
            overlap=choice.overlap,
            trim=choice.trim,
            blend=choice.blend,
            largest=most,
            cost=cost,
        )
        if choice.tile != "auto" or needs.reach is None or 4 * needs.reach > most:
            return chosen
        return min([chosen, *_meeting_borders(chosen, side=side, largest=most)], key=cost)

    if spec.blend != "auto":
        return tiling_by(spec)
    if needs.reach is not None and spec.trim is None:
        cropped = tiling_by(replace(spec, blend="crop"))
        if cropped.trim >= needs.reach:
            return cropped
    return tiling_by(replace(spec, blend="linear"))


def mean_over_compute(tiling: TilePlan, *, side: int) -> float:
    """Return over-compute if every cell of the map were run: a row of cells has as many rows of tiles in every column."""
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
