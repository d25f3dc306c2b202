"""Outlines beside ground that is planned and not done yet: their true outline may go on there."""

from collections.abc import Collection, Iterable

import geopandas
import numpy as np
import shapely

from rtsx.campaign.cell_table import Address
from rtsx.grid import Grid

__all__ = ["cells_around", "with_edges"]


def cells_around(cells: Iterable[Address], *, reach: int) -> set[Address]:
    """Cells that lie at most `reach` rows and columns from one of those given, and are none of them.

    Examples
    --------
    >>> len(cells_around([(0, 0), (0, 1)], reach=1))
    10
    """
    given = set(cells)
    steps = range(-reach, reach + 1)
    return {(iy + dy, ix + dx) for iy, ix in given for dy in steps for dx in steps} - given


def with_edges(
    footprints: geopandas.GeoDataFrame, missing: Collection[Address], *, grid: Grid, edge_distance: int
) -> geopandas.GeoDataFrame:
    """Flag outlines near missing cells, as `extract_footprints` does on a map on which these cells are invalid.

    Parameters
    ----------
    footprints
        Outlines along pixel borders, in the grid's CRS.
    missing
        Cells without an answer.
    grid
        Whose cells they are.
    edge_distance
        Pixels, in king's moves, within which they are flagged; 0 flags nothing.
    """
    if not missing or not edge_distance or not len(footprints):
        return footprints
    # Half a pixel less, because outlines run along pixel borders: a pixel just inside is then met, and one just outside is
    # half a pixel away, whatever the last bits of the coordinates.
    widen = (edge_distance - 0.5) * grid.resolution
    bounds = np.array([grid[cell].bounds for cell in sorted(missing)])
    boxes = shapely.box(*(bounds + np.array([-widen, -widen, widen, widen])).T)
    tree = shapely.STRtree(np.asarray(footprints.geometry.array, np.object_))
    _, near = tree.query(boxes, predicate="intersects")
    flags = footprints["touches_edge"].to_numpy(bool).copy()
    flags[near] = True
    return footprints.assign(touches_edge=flags)
