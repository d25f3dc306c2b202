"""The grid that everything is aligned to, and its cells, the unit of a campaign."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Proj, Transformer
from pyproj.exceptions import CRSError
from shapely import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from rtsx.arguments import typed
from rtsx.errors import GridError
from rtsx.geometry.antimeridian import lonlat_polygon
from rtsx.geometry.crs import cached_transformer, crs_definition

if TYPE_CHECKING:
    import odc.geo.geobox
    from odc.geo.geobox import GeoBox

_ID = re.compile(r"r(-?\d{3,})c(-?\d{3,})")


def cell_id(iy: int, ix: int) -> str:
    """Return the name of the cell at (iy, ix); rows count downwards, columns to the right, three digits at least.

    Examples
    --------
    >>> cell_id(412, 88), cell_id(-7, 1200)
    ('r412c088', 'r-007c1200')
    """
    return "".join(f"{letter}{'-' if index < 0 else ''}{abs(index):03d}" for letter, index in (("r", iy), ("c", ix)))


def parse_cell_id(name: str) -> tuple[int, int]:
    """Return (iy, ix) of a cell's name.

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
    def geobox(self) -> "GeoBox":
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

    def haloed(self, halo: int) -> "GeoBox":
        """Return pixels of the cell and `halo` pixels of context on every side.

        Raises
        ------
        GridError
            `halo` is negative.
        """
        if halo < 0:
            raise GridError(f"A halo is 0 or more pixels; got {halo}.")
        size = self.grid.cell_size
        rows, columns = ((index * size - halo, (index + 1) * size + halo) for index in (self.iy, self.ix))
        return self.grid.window(rows, columns)


_DEGREE_STEP = 0.1
"""Degrees between vertices before a region is projected: a parallel at 60° N is then true to 2 m."""


_LARGEST_STRETCH = 20.0
"""Length on the map by length on the ground. The north pole's stereographic projection has 1.9 at the equator and 20 at 65° S,
Web Mercator 12 at its edge."""
_MOST_SAMPLED = 2000
"""Vertices at which that is looked at."""


@typed(GridError, but=("cell_size",))
@dataclass(frozen=True)
class Grid:
    """A pixel grid in one CRS, cut into square cells with addresses ``(iy, ix)``.

    Raises
    ------
    GridError
        The CRS is unknown or in degrees of an unknown axis, or a number is not usable.

    Examples
    --------
    >>> grid = Grid("EPSG:32608", 10.0, cell_size=1000, origin=(300000.0, 7900000.0))
    >>> grid[0, 1].bounds
    (310000.0, 7890000.0, 320000.0, 7900000.0)
    """

    crs: str
    """Coordinate reference system as ``AUTHORITY:CODE`` where it has one, else as WKT."""
    resolution: float
    """Side of a square pixel in CRS units."""
    cell_size: int = 12288
    """Side of a cell in pixels. The default is 36.9 km at 3 m and whole shards of 512, 1024, 2048 and 4096 px."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Upper-left corner (x, y) of pixel (0, 0) and of cell (0, 0), in CRS units."""

    def __post_init__(self) -> None:
        """Check every number once, and write the CRS in one way so that equal grids compare equal."""
        try:
            crs = CRS.from_user_input(self.crs)
        except CRSError as error:
            raise GridError(
                f"The CRS of a grid has to be one that PROJ knows, such as 'EPSG:3413'; got {self.crs!r}."
            ) from error
        if not crs.is_projected and not crs.is_geographic:
            raise GridError(f"The CRS of a grid has to be projected or geographic; got {crs.name!r}.")
        object.__setattr__(self, "crs", crs_definition(crs))
        cached_transformer(self.crs, "EPSG:4326")  # refuses what is not on Earth
        if not (math.isfinite(self.resolution) and self.resolution > 0):
            raise GridError(f"The resolution of a grid has to be a length above 0 in CRS units; got {self.resolution}.")
        if not (isinstance(self.cell_size, int | np.integer) and self.cell_size > 0):
            raise GridError(
                f"The cell size of a grid has to be a whole number of pixels above 0; got {self.cell_size!r}."
            )
        if len(self.origin) != 2 or not all(math.isfinite(value) for value in self.origin):
            raise GridError(f"The origin of a grid has to be two finite numbers (x, y); got {self.origin}.")
        object.__setattr__(self, "resolution", float(self.resolution))
        object.__setattr__(self, "cell_size", int(self.cell_size))
        object.__setattr__(self, "origin", (float(self.origin[0]), float(self.origin[1])))

    def __repr__(self) -> str:
        return f"Grid({self.crs!r}, {self.resolution:g}, cell_size={self.cell_size}, origin={self.origin})"

    @classmethod
    @typed(GridError)
    def arctic(cls, resolution: float = 3.0, *, cell_size: int = 12288) -> Self:
        """Return the Arctic in EPSG:3413 (polar stereographic, as ArcticDEM), the pixel grid's corner on the north pole.

        Examples
        --------
        >>> Grid.arctic()
        Grid('EPSG:3413', 3, cell_size=12288, origin=(0.0, 0.0))
        """
        return cls("EPSG:3413", resolution, cell_size=cell_size)

    @classmethod
    @typed(GridError)
    def from_geobox(cls, geobox: "odc.geo.geobox.GeoBox", *, cell_size: int = 12288) -> Self:
        """Return the grid whose pixel grid is that of a raster: cell (0, 0) begins at the raster's upper-left corner.

        Raises
        ------
        GridError
            The raster has no CRS, is rotated or not north-up, or its pixels are not square.
        """
        affine = geobox.affine
        if geobox.crs is None:
            raise GridError("A grid needs a raster with a CRS; this geobox has none.")
        if affine.b or affine.d or not affine.a > 0 or not math.isclose(affine.a, -affine.e, rel_tol=1e-9):
            raise GridError(
                f"A grid needs a north-up raster with square pixels; got pixels of ({affine.a}, {affine.e}) and rotation "
                f"({affine.b}, {affine.d}). Warp the raster to square pixels, or open it without a grid."
            )
        return cls(str(geobox.crs), affine.a, cell_size=cell_size, origin=(affine.c, affine.f))

    def __getitem__(self, address: tuple[int, int]) -> Cell:
        whole = isinstance(address, tuple) and all(isinstance(index, int | np.integer) for index in address)
        if not whole or len(address) != 2:
            raise GridError(f"A cell is taken by two whole numbers, grid[iy, ix]; got grid[{address!r}].")
        return Cell(self, int(address[0]), int(address[1]))

    def __iter__(self) -> Iterator[Cell]:  # without this, Python would try grid[0], grid[1], ...
        raise TypeError("A grid has no end; ask for the cells of a region with grid.cells(geometry).")

    def cell(self, name: str) -> Cell:
        """Return the cell of a name such as ``r412c088``.

        Raises
        ------
        GridError
            The name is not a cell's name.
        """
        return self[parse_cell_id(name)]

    def cell_at(self, x: float, y: float) -> Cell:
        """Return the cell that holds a point in CRS units; a point on a border belongs to the cell below or to the right."""
        side = self.cell_size * self.resolution
        return self[math.floor((self.origin[1] - y) / side), math.floor((x - self.origin[0]) / side)]

    def window(self, rows: tuple[int, int], columns: tuple[int, int]) -> "GeoBox":
        """Return the geobox of a half-open range of pixel grid rows and columns.

        Examples
        --------
        >>> window = Grid.arctic().window((10, 20), (-5, 0))
        >>> window.affine.c, window.affine.f, window.shape
        (-15.0, -30.0, Shape2d(x=5, y=10))
        """
        (top, bottom), (left, right) = rows, columns
        if not (top < bottom and left < right):
            raise GridError(
                f"A window needs rows and columns as (start, stop) with start < stop; got {rows}, {columns}."
            )
        affine = Affine(
            *(self.resolution, 0.0, self.origin[0] + left * self.resolution),
            *(0.0, -self.resolution, self.origin[1] - top * self.resolution),
        )
        from odc.geo.geobox import GeoBox  # here, because it loads dask

        return GeoBox((bottom - top, right - left), affine, self.crs)

    @typed(GridError)
    def cells(self, region: BaseGeometry, *, crs: str = "EPSG:4326") -> Iterator[Cell]:
        """Yield cells that share ground with a region, row by row.

        A cell that an area only touches along its border is left out; points and lines count where they touch.

        Parameters
        ----------
        region
            Any shapely geometry.
        crs
            CRS of its coordinates; x comes first, also in degrees.

        Raises
        ------
        GridError
            The region is empty, or cannot be expressed in the grid's CRS.

        Examples
        --------
        >>> from shapely import box
        >>> [cell.id for cell in Grid.arctic().cells(box(-139.3, 69.5, -138.9, 69.65))]
        ['r-005c-061']
        """
        area = self.projected(region, crs=crs)
        xmin, ymin, xmax, ymax = area.bounds
        first, last = self.cell_at(xmin, ymax), self.cell_at(xmax, ymin)
        is_areal = area.area > 0
        shapely.prepare(area)
        for iy in range(first.iy - 1, last.iy + 1):
            # A row at a time, because boxes of the whole Arctic are not needed at once and one box at a time is slow.
            row = [self[iy, ix] for ix in range(first.ix - 1, last.ix + 1)]
            boxes = np.array([cell.polygon for cell in row])
            meets = shapely.intersects(area, boxes)
            if is_areal:
                meets[meets] = shapely.relate_pattern(area, boxes[meets], "T********")
            yield from (cell for cell, is_met in zip(row, meets, strict=True) if is_met)

    def projected(self, region: BaseGeometry, *, crs: str = "EPSG:4326") -> BaseGeometry:
        """Return a region in the grid's CRS, its edges densified so that they stay where they were.

        Parameters
        ----------
        region
            Any shapely geometry.
        crs
            CRS of its coordinates; x comes first, also in degrees.

        Raises
        ------
        GridError
            The region is empty, or cannot be expressed in the grid's CRS.
        """
        if not isinstance(region, BaseGeometry) or region.is_empty:
            raise GridError(f"A region has to be a shapely geometry that is not empty; got {region!r}.")
        if region.geom_type.endswith("Polygon") and not _has_area(region):
            raise GridError(
                f"The region {region.bounds} is a polygon without area: its corners lie on one line. Correct it."
            )
        try:
            source, target = CRS.from_user_input(crs), CRS.from_user_input(self.crs)
        except CRSError as error:
            raise GridError(f"The CRS of a region has to be one that PROJ knows; got {crs!r}.") from error
        if source == target:
            return region
        step = _DEGREE_STEP if source.is_geographic else self.cell_size * self.resolution / 16
        dense = shapely.segmentize(region, step)
        if source.is_geographic and target.is_projected:
            self._require_sane_scale(shapely.get_coordinates(dense))
        transformer = Transformer.from_crs(source, target, always_xy=True)
        moved = shapely.transform(dense, transformer.transform, interleaved=False)
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            raise GridError(
                f"The region {region.bounds} in {crs} cannot be expressed in the grid's CRS {self.crs}. "
                "Check the order of its coordinates (x or longitude first) and its CRS."
            )
        return shapely.make_valid(moved)

    def _require_sane_scale(self, lonlat: NDArray[np.float64]) -> None:
        """Raise where the projection stretches ground so much that no map of it is meant, as polar ones do far from their pole."""
        some = lonlat[:: max(len(lonlat) // _MOST_SAMPLED, 1)]
        factors = Proj(self.crs).get_factors(some[:, 0], some[:, 1])
        stretch = np.sqrt(np.abs(factors.areal_scale))
        worst = int(np.argmax(np.where(np.isfinite(stretch), stretch, 0.0)))
        if _LARGEST_STRETCH < stretch[worst] < np.inf:
            bounds = tuple(round(float(value), 2) for value in (*lonlat.min(axis=0), *lonlat.max(axis=0)))
            raise GridError(
                f"A grid in {self.crs} cannot hold the region {bounds}: at longitude {some[worst, 0]:.1f} and latitude "
                f"{some[worst, 1]:.1f} it stretches ground {stretch[worst]:.3g} times. "
                "Take a CRS that is meant for that ground, such as EPSG:3031 around the south pole, or cut the region."
            )


def _has_area(polygons: BaseGeometry) -> bool:
    """Test whether polygons cover any ground, also those whose rings cross themselves."""
    try:
        return bool(shapely.make_valid(polygons).area > 0)
    except shapely.GEOSException:  # all corners of a ring are one point
        return False


_ROUNDING = 0.25
"""Pixels added before rounding down. Rasters of one pixel grid share a sub-pixel phase, which in the field is 0 (corner on
the pixel grid) or 0.5 (corner on a pixel centre); 0.25 keeps both a quarter pixel away from the place where floating
point noise would decide the result, instead of the 0.5 of plain rounding, which sits on one of them."""


def grid_offset(raster: "GeoBox | Affine", lattice_origin: tuple[float, float]) -> tuple[int, int]:
    """Return the global pixel index (row, column) of a raster's upper-left corner, counted from `lattice_origin`.

    Parameters
    ----------
    raster
        A north-up raster: its geobox, or its transform from pixel (x, y) to CRS units.
    lattice_origin
        Upper-left corner (x, y) of pixel (0, 0) of the pixel grid, in CRS units.

    Returns
    -------
    tuple
        Row and column; negative above or left of the origin. Any cut-out of a raster that is moved by whole pixels
        moves by the same number here.

    Raises
    ------
    GridError
        The raster is rotated or not north-up, or a number is not finite.

    Examples
    --------
    >>> grid_offset(Affine(3, 0, 600, 0, -3, -30), (0.0, 0.0))
    (10, 200)
    >>> grid_offset(Affine(3, 0, 601.5, 0, -3, -30), (0.0, 0.0))  # half a pixel off: the same for every cut-out
    (10, 200)
    """
    affine = raster if isinstance(raster, Affine) else raster.affine
    if affine.b or affine.d or not affine.a > 0 or not affine.e < 0:
        raise GridError(
            f"A raster on a lattice has to be north-up and not rotated (a > 0, b = d = 0, e < 0); got {tuple(affine)[:6]}. "
            "Warp it first, e.g. with gdalwarp."
        )
    column = (affine.c - lattice_origin[0]) / affine.a
    row = (lattice_origin[1] - affine.f) / -affine.e
    if not (math.isfinite(row) and math.isfinite(column)):
        raise GridError(f"Lattice origin {lattice_origin} and transform {tuple(affine)[:6]} have to be finite numbers.")
    return math.floor(row + _ROUNDING), math.floor(column + _ROUNDING)
