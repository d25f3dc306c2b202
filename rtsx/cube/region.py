"""Ground of a cube: the raster of a region on a grid, and what to search for it."""

import math

import shapely
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from rtsx.cube.georeference import describe_geobox, pixel_m, window_of
from rtsx.cube.recipe import CubeRecipe
from rtsx.errors import CubeError
from rtsx.grid import Cell, Grid, lonlat_polygon

__all__ = ["longitude_of", "recipe_geobox", "region_geobox", "search_area"]

_NOISE = 1e-6
"""Pixels by which the corner of a region may be off through rounding."""
_LARGEST = 2**31
"""Pixels per side of the largest raster that is taken for meant."""


def region_geobox(grid: Grid, region: BaseGeometry) -> GeoBox:
    """The smallest raster of a grid's pixels around a region.

    Parameters
    ----------
    grid
        Whose pixels.
    region
        Any shapely geometry in longitude and latitude, not empty.

    Raises
    ------
    CubeError
        The region has no extent on this grid.

    Examples
    --------
    >>> from shapely import box
    >>> region_geobox(Grid.arctic(resolution=30), box(-139.3, 69.5, -138.9, 69.65)).shape
    Shape2d(x=595, y=560)
    """
    xmin, ymin, xmax, ymax = _unwrapped(grid.projected(region), grid).bounds
    left, right = (xmin - grid.origin[0]) / grid.resolution, (xmax - grid.origin[0]) / grid.resolution
    top, bottom = (grid.origin[1] - ymax) / grid.resolution, (grid.origin[1] - ymin) / grid.resolution
    # Edges that lie on a pixel's but for rounding noise take no pixel more.
    rows = math.floor(top + _NOISE), math.ceil(bottom - _NOISE)
    columns = math.floor(left + _NOISE), math.ceil(right - _NOISE)
    for what, (start, stop) in (("rows", rows), ("columns", columns)):
        if not 0 < stop - start < _LARGEST:
            raise CubeError(
                f"The region {region.bounds} spans {stop - start} {what} of {grid}. Give it as longitude and latitude, in "
                "this order, with an area."
            )
    return grid.window(rows, columns)


def _unwrapped(region: BaseGeometry, grid: Grid) -> BaseGeometry:
    """A region that is split at the antimeridian in one piece, on a grid in degrees: its west is moved beyond 180."""
    if not CRS(grid.crs).geographic or region.bounds[2] - region.bounds[0] <= 180:
        return region
    parts = shapely.get_parts(region)
    return shapely.union_all([translate(part, 360) if part.bounds[2] <= 0 else part for part in parts])


def recipe_geobox(recipe: CubeRecipe, ground: Cell | GeoBox | None) -> GeoBox:
    """Raster of a recipe's cube: a cell of its grid, a raster on it, or its own region.

    Raises
    ------
    CubeError
        The cell is of another grid, the raster does not lie on the grid, or there is no region.
    """
    grid = recipe.grid
    if ground is None:
        if recipe.region is None:
            raise CubeError(
                "This recipe names no region. Give it one, or open it with a cell: open_cube(recipe, grid[iy, ix])."
            )
        return region_geobox(grid, recipe.region)
    if isinstance(ground, Cell):
        if (ground.grid.crs, ground.grid.resolution, ground.grid.origin) != (grid.crs, grid.resolution, grid.origin):
            raise CubeError(
                f"The cell is of {ground.grid}, the recipe of {grid}. Take the cell from the recipe's grid."
            )
        return ground.geobox
    row = (grid.origin[1] - ground.affine.f) / grid.resolution
    column = (ground.affine.c - grid.origin[0]) / grid.resolution
    same_pixels = (
        ground.crs == CRS(grid.crs)
        and not (ground.affine.b or ground.affine.d)
        and max(abs(ground.affine.a / grid.resolution - 1), abs(ground.affine.e / grid.resolution + 1)) < 1e-9
        and max(abs(row - round(row)), abs(column - round(column))) < 1e-3
    )
    if not same_pixels:
        raise CubeError(f"The raster has to lie on the pixels of {grid}; got {describe_geobox(ground)}.")
    # The grid's own numbers, so that coordinates are the same to the last bit as in any other cut of this grid.
    return grid.window((round(row), round(row) + ground.shape[0]), (round(column), round(column) + ground.shape[1]))


def search_area(geobox: GeoBox, *, margin_m: float) -> BaseGeometry:
    """Outline of a raster and the ground around it in longitude and latitude, split at the antimeridian.

    Parameters
    ----------
    geobox
        Of the cube.
    margin_m
        How far beyond its edge its layers look: what a source is not asked for there would show as a seam between cells.
    """
    pixels = math.ceil(margin_m / pixel_m(geobox))
    height, width = geobox.shape
    wide = window_of(geobox, (0, height), (0, width), halo=pixels)
    return lonlat_polygon(wide.extent.geom, str(wide.crs))


def longitude_of(geobox: GeoBox) -> float:
    """Longitude of the middle of a raster, degrees; 0 on a pole, which has none.

    Examples
    --------
    >>> round(longitude_of(Grid.arctic()[0, 0].geobox), 3)
    0.0
    """
    height, width = geobox.shape
    x, y = geobox.affine * (width / 2, height / 2)
    longitude, _ = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return float(longitude) if math.isfinite(longitude) else 0.0
