"""The grid: one CRS, one pixel grid, and cells with addresses on it."""

from rtsx.geometry.antimeridian import lonlat_polygon, lonlat_region
from rtsx.grid.grid import Cell, Grid, grid_offset

__all__ = ["Cell", "Grid", "grid_offset", "lonlat_polygon", "lonlat_region"]
