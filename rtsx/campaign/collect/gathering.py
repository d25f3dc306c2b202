"""All outlines that belong to the objects of a partition, however far those reach: a walk from cell to cell, without a store.

Only what is cut at the border of a cell can go on in the next one, and objects are small beside cells; so the walk ends
after a few neighbours, and memory holds one partition, whatever the number of cells.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from rtsx.campaign.cell_table import Address
from rtsx.grid import Grid

__all__ = ["Gathered", "gather"]

ReadCell = Callable[[Address], geopandas.GeoDataFrame | None]
"""Outlines of a finished cell with their columns `cut` and `prob_counts`; None for a cell that is not finished or has none."""

_DIRECTIONS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Outlines that make up all objects of some cells."""

    tables: tuple[geopandas.GeoDataFrame, ...]
    """Of those cells all outlines, of others those that go on from there; each object is complete if it has an outline in
    one of those cells."""
    owner: dict[str, Address]
    """Cell that the outline of an id was found in."""
    visited: tuple[Address, ...]
    """Other cells that were looked at, sorted."""


def gather(cells: Collection[Address], read: ReadCell, *, grid: Grid) -> Gathered:
    """Walk from some cells to all that their objects reach into.

    Parameters
    ----------
    cells
        Where to begin; all of them are read.
    read
        Reads a cell; called once for each.
    grid
        Whose cells they are.
    """
    inside = set(cells)
    tables = {cell: table for cell in sorted(cells) if (table := read(cell)) is not None and len(table)}
    going_on = [(cell, table[table["cut"].astype(bool)]) for cell, table in tables.items()]
    others: dict[Address, geopandas.GeoDataFrame | None] = {}
    taken: dict[Address, NDArray[np.bool_]] = {}
    while going_on:
        cell, rows = going_on.pop()
        for (dy, dx), reaches in _reaching(rows, cell, grid=grid).items():
            neighbour = (cell[0] + dy, cell[1] + dx)
            if neighbour in inside or not reaches.any():
                continue
            if neighbour not in others:
                found = read(neighbour)
                others[neighbour] = None if found is None else found[found["cut"].astype(bool)]
                taken[neighbour] = np.zeros(0 if found is None else int(found["cut"].sum()), bool)
            candidates = others[neighbour]
            if candidates is None:
                continue
            fresh = _meeting(candidates, rows[reaches], grid=grid) & ~taken[neighbour]
            if fresh.any():
                taken[neighbour] |= fresh
                going_on.append((neighbour, candidates[fresh]))
    tables |= {
        cell: table[taken[cell]] for cell, table in sorted(others.items()) if table is not None and taken[cell].any()
    }
    owner = {str(name): cell for cell, table in tables.items() for name in table["footprint_id"]}
    return Gathered(tables=tuple(tables.values()), owner=owner, visited=tuple(sorted(others)))


def _reaching(rows: geopandas.GeoDataFrame, cell: Address, *, grid: Grid) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """Which rows come near to each of the eight neighbours; by their boxes, so that some more may be among them."""
    if not len(rows):
        return {}
    near = grid.resolution / 2
    west, south, east, north = grid[cell].bounds
    left, bottom, right, top = shapely.bounds(np.asarray(rows.geometry.array, np.object_)).T
    everywhere = np.ones(len(rows), bool)
    along_y = {-1: top > north - near, 0: everywhere, 1: bottom < south + near}
    along_x = {-1: left < west + near, 0: everywhere, 1: right > east - near}
    return {(dy, dx): along_y[dy] & along_x[dx] for dy, dx in _DIRECTIONS}


def _meeting(candidates: geopandas.GeoDataFrame, rows: geopandas.GeoDataFrame, *, grid: Grid) -> NDArray[np.bool_]:
    """Which candidates come near to one of the rows; half a pixel is between touching and being apart."""
    meets = np.zeros(len(candidates), bool)
    tree = shapely.STRtree(np.asarray(candidates.geometry.array, np.object_))
    _, found = tree.query(
        np.asarray(rows.geometry.array, np.object_), predicate="dwithin", distance=grid.resolution / 2
    )
    meets[found] = True
    return meets
