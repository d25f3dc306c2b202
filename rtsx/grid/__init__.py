"""The grid: one CRS, one pixel lattice, and cells with addresses on it."""

from rtsx.grid.cell import Cell
from rtsx.grid.grid import Grid
from rtsx.grid.lattice import lattice_offset
from rtsx.grid.lonlat import lonlat_polygon, lonlat_region

__all__ = ["Cell", "Grid", "lattice_offset", "lonlat_polygon", "lonlat_region"]
