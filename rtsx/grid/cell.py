"""One block of the grid: the unit of a campaign."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from odc.geo.geobox import GeoBox
from shapely import MultiPolygon, Polygon, box

from rtsx.errors import GridError
from rtsx.grid.lonlat import lonlat_polygon

if TYPE_CHECKING:
    from rtsx.grid.grid import Grid

__all__ = ["Cell", "cell_id", "parse_cell_id"]

_ID = re.compile(r"r(-?\d{3,})c(-?\d{3,})")


def cell_id(iy: int, ix: int) -> str:
    """Name of the cell at (iy, ix); rows count downwards, columns to the right, three digits at least.

    Examples
    --------
    >>> cell_id(412, 88), cell_id(-7, 1200)
    ('r412c088', 'r-007c1200')
    """
    return "".join(f"{letter}{'-' if index < 0 else ''}{abs(index):03d}" for letter, index in (("r", iy), ("c", ix)))


def parse_cell_id(name: str) -> tuple[int, int]:
    """(iy, ix) of a cell's name.

    Raises
    ------
    GridError
        The name is not one that `cell_id` gives.

    Examples
    --------
    >>> parse_cell_id("r-007c1200")
    (-7, 1200)
    """
    match = _ID.fullmatch(name)
    if match is None or cell_id(int(match[1]), int(match[2])) != name:
        raise GridError(f"A cell is named like 'r412c088' or 'r-007c1200' (row, column); got {name!r}.")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Cell:
    """One square block of a grid, made by ``grid[iy, ix]``.

    Examples
    --------
    >>> from rtsx.grid import Grid
    >>> cell = Grid.arctic()[-3, 2]
    >>> cell
    Cell(r-003c002 of EPSG:3413 at 3)
    >>> cell.bounds
    (73728.0, 73728.0, 110592.0, 110592.0)
    """

    grid: "Grid"
    """The grid that the cell belongs to."""
    iy: int
    """Row of the cell; 0 begins at the grid's origin, and rows count downwards (to smaller y)."""
    ix: int
    """Column of the cell; 0 begins at the grid's origin, and columns count to larger x."""

    def __repr__(self) -> str:
        return f"Cell({self.id} of {self.grid.crs} at {self.grid.resolution:g})"

    @property
    def id(self) -> str:
        """Name of the cell, such as ``r412c088``; unique within its grid."""
        return cell_id(self.iy, self.ix)

    @property
    def geobox(self) -> GeoBox:
        """The cell's pixels: CRS, transform and shape (cell_size, cell_size)."""
        return self.haloed(0)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(xmin, ymin, xmax, ymax) in CRS units."""
        side = self.grid.cell_size * self.grid.resolution
        xmin, ymax = self.grid.origin[0] + self.ix * side, self.grid.origin[1] - self.iy * side
        return xmin, ymax - side, xmin + side, ymax

    @property
    def polygon(self) -> Polygon:
        """Outline in the grid's CRS."""
        return box(*self.bounds)

    @property
    def lonlat(self) -> Polygon | MultiPolygon:
        """Outline in longitude and latitude (EPSG:4326), split at the antimeridian."""
        return lonlat_polygon(self.polygon, self.grid.crs)

    def haloed(self, halo: int) -> GeoBox:
        """Pixels of the cell and `halo` pixels of context on every side.

        Raises
        ------
        GridError
            `halo` is negative.
        """
        if halo < 0:
            raise GridError(f"A halo is 0 or more pixels; got {halo}.")
        size = self.grid.cell_size
        return self.grid.window(
            (self.iy * size - halo, (self.iy + 1) * size + halo), (self.ix * size - halo, (self.ix + 1) * size + halo)
        )
