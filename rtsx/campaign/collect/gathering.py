"""All outlines that belong to the objects of some cells, however far those reach: a walk from cell to cell, without a store.

Only what is cut at the border of a cell can go on in the next one, and objects are small beside cells; so the walk ends
after a few neighbours, and memory holds one partition, whatever the number of cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from rtsx.campaign.cell_table import Address
from rtsx.grid import Grid

__all__ = ["CellRows", "Gathered", "gather"]

Geometries = NDArray[np.object_]


@dataclass(frozen=True, kw_only=True)
class CellRows:
    """Outlines of several cells, with their columns `cut` and `prob_counts`."""

    table: geopandas.GeoDataFrame
    """A row for each outline."""
    cells: NDArray[np.int64]
    """(row, 2) row and column of the cell that each was found in."""

    def take(self, chosen: NDArray[np.bool_]) -> "CellRows":
        """Some of the rows."""
        return CellRows(table=self.table[chosen], cells=self.cells[chosen])

    @property
    def outlines(self) -> Geometries:
        """Geometry of each row."""
        return np.asarray(self.table.geometry.array, np.object_)

    @property
    def cut(self) -> NDArray[np.bool_]:
        """Rows that may go on in a neighbouring cell."""
        return np.asarray(self.table["cut"], bool)


ReadCells = Callable[[Sequence[Address]], CellRows]
"""Outlines of cells; none of those that are not finished."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Outlines that make up all objects of some cells."""

    rows: CellRows
    """Of those cells all outlines, of others those that hang together with them: every object that has an outline in one of
    those cells is complete."""
    visited: tuple[Address, ...]
    """Other cells that were looked at, sorted; they may turn out to have nothing."""


def gather(cells: Sequence[Address], read: ReadCells, *, grid: Grid) -> Gathered:
    """Walk from some cells to all that their objects reach into.

    Parameters
    ----------
    cells
        Where to begin.
    read
        Reads cells; asked once for each.
    grid
        Whose cells they are.
    """
    inside = set(cells)
    own = read(sorted(inside))
    visited: set[Address] = set()
    parts, front = [own], own.take(own.cut)
    waiting: list[CellRows] = []  # of visited cells, what is cut and belongs to no object so far
    while len(front.cells):
        fresh = sorted(_reached(front, grid=grid) - inside - visited)
        if fresh:
            visited.update(fresh)
            found = read(fresh)
            waiting.append(found.take(found.cut))
        if not waiting:
            break
        candidates = _joined(waiting)
        meets = np.zeros(len(candidates.cells), bool)
        # Half a pixel is between touching and being apart.
        tree = shapely.STRtree(candidates.outlines)
        meets[tree.query(front.outlines, predicate="dwithin", distance=grid.resolution / 2)[1]] = True
        front, waiting = candidates.take(meets), [candidates.take(~meets)]
        parts.append(front)
    return Gathered(rows=_joined(parts), visited=tuple(sorted(visited)))


def _reached(rows: CellRows, *, grid: Grid) -> set[Address]:
    """Cells that the rows come near to, by their boxes: some more may be among them."""
    left, bottom, right, top = shapely.bounds(rows.outlines).T
    near, side = grid.resolution / 2, grid.cell_size * grid.resolution
    x, y = grid.origin
    # An outline lies within a cell, so that its widened box ends in it or in the next one.
    across = np.stack([top + near, bottom - near])
    along = np.stack([left - near, right + near])
    rows_of = np.vstack([np.floor((y - across) / side).astype(np.int64), rows.cells[:, 0]])
    columns_of = np.vstack([np.floor((along - x) / side).astype(np.int64), rows.cells[:, 1]])
    corners = np.stack(np.broadcast_arrays(rows_of[:, None], columns_of[None]), axis=-1).reshape(-1, 2)
    return {(int(iy), int(ix)) for iy, ix in np.unique(corners, axis=0)}


def _joined(parts: Sequence[CellRows]) -> CellRows:
    """All rows; without the empty tables, because their dtypes say nothing about the columns."""
    some = [part for part in parts if len(part.cells)] or list(parts[:1])
    if len(some) == 1:
        return some[0]
    table = pd.concat([part.table for part in some], ignore_index=True)
    return CellRows(table=table, cells=np.concatenate([part.cells for part in some]))
