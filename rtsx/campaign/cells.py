"""The cells of a campaign: which of the grid, and in which order along a Hilbert curve. Pure geometry.

Blocks of cells are halved until they lie in the region as a whole, or beside it: a million cells then take as many
questions as there are cells along the region's border, instead of one each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rtsx.errors import CampaignError
from rtsx.grid import Grid

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
    """Places (cell,) of some cells in the order of a Hilbert curve over the square that holds them all.

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


def _meeting(grid: Grid, area: BaseGeometry) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Rows and columns (cell, 2) that `Grid.cells` gives, in another order, and whether a cell (cell,) lies in the area as a whole."""
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
    """Corners (part, 2) of the squares of `step` cells that blocks of `size` cells consist of."""
    along = np.arange(0, size, step)
    offsets = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)
    return (blocks[:, None] + offsets).reshape(-1, 2)


def _bounds(geometry: BaseGeometry) -> str:
    return "({:.2f}, {:.2f}, {:.2f}, {:.2f})".format(*geometry.bounds)
