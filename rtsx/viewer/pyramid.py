"""An image, cube or map at every zoom: its coarser levels, and a window of one of them read at the size of a screen."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from threading import Lock
from typing import Any

import numpy as np
import pyproj
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube import CubeRecipe, as_cube, geobox_of, open_source, pixel_m
from rtsx.cube.conventions import validate_times
from rtsx.cube.open import coarse_recipe, is_store
from rtsx.cube.rasterio import read_header
from rtsx.cube.rasters import open_rasters
from rtsx.cube.times import years_of
from rtsx.cube.write import level_count
from rtsx.errors import CubeError
from rtsx.grid import Cell
from rtsx.storage.zarr import open_group

Box = tuple[float, float, float, float]
"""Left, bottom, right and top in the units of a CRS."""

_COARSER = 1.01
"""Part of a screen's pixel that a level's may be larger and still count as fine enough: zooms are rounded."""
_LARGEST_READ = 1 << 26
"""Pixels of one layer that a window may read. Beyond it the image has no overviews that would do."""

_CHUNK = 512
"""Side of the chunks of a recipe, px, because all of each is aligned that a window meets. Of 1024 a look from near takes twice as long."""


@dataclass(eq=False, kw_only=True)
class Level:
    """One resolution of an image, opened when it is first seen."""

    pixel: float
    """Side of its pixels, in the units of the CRS."""
    opener: Callable[[], xr.Dataset]
    """Opens it; asks catalogs and reads metadata."""
    _opened: tuple[xr.Dataset, GeoBox] | None = None
    _lock: Lock = field(default_factory=Lock)

    def open(self) -> tuple[xr.Dataset, GeoBox]:
        """Return the lazy cube, north up, its times in order, and its geobox."""
        with self._lock:
            if self._opened is None:
                cube = self.opener()
                if "time" in cube.indexes and not cube.indexes["time"].is_monotonic_increasing:
                    cube = cube.sortby("time")  # overviews of a campaign have its years as they were run
                geobox = geobox_of(cube)
                if geobox.affine.e > 0:
                    cube = cube.isel(y=slice(None, None, -1))
                    geobox = geobox_of(cube)
                self._opened = cube, geobox
            return self._opened


@dataclass(frozen=True)
class ReadWindow:
    """What was read of an image for one look."""

    cube: xr.Dataset
    """Stored values on (y, x), in memory, all other dimensions selected."""
    box: Box
    """Edges of its pixels, in the CRS of the map."""
    pixel_m: float
    """Side of its pixels, m."""
    known: NDArray[np.bool_]
    """Where the image has a pixel (y, x); on a map in another CRS it may not fill the window."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pyramid:
    """An image at every zoom.

    Examples
    --------
    >>> import rioxarray
    >>> values = xr.DataArray(np.arange(16.0).reshape(4, 4), dims=("y", "x"), coords={"y": [9.0, 7, 5, 3], "x": [1.0, 3, 5, 7]})
    >>> image = Pyramid.of(values.rename("dem").to_dataset().rio.write_crs("EPSG:3413"))
    >>> image.box, image.read(["dem"], (0, 2, 8, 10), size=(2, 2)).cube["dem"].values
    ((0.0, 2.0, 8.0, 10.0), array([[ 5.,  7.],
           [13., 15.]]))
    """

    levels: tuple[Level, ...]
    """Full resolution first."""
    year: int | None = None
    """What is seen where no time is chosen: the last time that is not after this year; None for the last of all."""
    _made_of: tuple[CubeRecipe, Cell | GeoBox | None] | None = field(default=None, repr=False)
    """Recipe and its ground; None for what is stored."""
    _parts: dict[tuple[str | int | None, ...], "Pyramid"] = field(default_factory=dict, repr=False)
    """Pyramids of some of the recipe's sources, by year and their names."""

    @classmethod
    def of(
        cls,
        source: str | PathLike[str] | CubeRecipe | xr.Dataset | xr.DataArray,
        *,
        cell: Cell | GeoBox | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> "Pyramid":
        """Open an image lazily: a Zarr store with its overviews, a recipe at any resolution, a raster file with its overviews, or a Dataset as it is.

        Parameters
        ----------
        source
            What is opened.
        cell
            Ground of a recipe: a cell of its grid, or a raster on it; None for its region.
        storage_options
            Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.
        """
        if isinstance(source, CubeRecipe):
            source = replace(source, chunk=min(source.chunk, _CHUNK))
            return cls(levels=_of_recipe(source, cell), _made_of=(source, cell))
        if isinstance(source, xr.Dataset | xr.DataArray):
            given = as_cube(source)
            validate_times(given)
            return cls(levels=(Level(pixel=abs(geobox_of(given).affine.a), opener=lambda: given),))
        path, options = str(source), storage_options or {}
        if is_store(path):
            return cls(levels=_of_store(path, options))
        return cls(levels=_of_file(path))

    @property
    def geobox(self) -> GeoBox:
        """Of full resolution."""
        return self.levels[0].open()[1]

    @property
    def crs(self) -> str:
        """As text."""
        return str(self.geobox.crs)

    @property
    def box(self) -> Box:
        """Edges of the whole image."""
        box = self.geobox.boundingbox
        return float(box.left), float(box.bottom), float(box.right), float(box.top)

    @property
    def cube(self) -> xr.Dataset:
        """Lazy, at full resolution."""
        return self.levels[0].open()[0]

    @property
    def years(self) -> tuple[int, ...]:
        """Years of its times, ascending; none where no time means one."""
        return tuple(sorted({year for year in years_of(self.cube) if year is not None}))

    def only(self, layers: Sequence[str]) -> "Pyramid":
        """Return the image for a look at some layers: of a recipe, sources of none of them are not read and make no pixel invalid."""
        if self._made_of is None:
            return self
        recipe, cell = self._made_of
        wanted = [source for source in recipe.sources if set(layers) & set(source.layer_names)]
        # Derived layers have no data where the cube is not valid, by any source.
        if len(wanted) == len(recipe.sources) or not set(layers) <= {
            name for one in wanted for name in one.layer_names
        }:
            return self
        key = (self.year, *(source.name for source in wanted))
        if key not in self._parts:
            # With all layers of these sources, so that another look at them asks the catalogs no second time.
            part = recipe.only(tuple(name for source in wanted for name in source.layer_names))
            self._parts.setdefault(key, Pyramid(levels=_of_recipe(part, cell), year=self.year))
        return self._parts[key]

    def read(
        self,
        names: Sequence[str],
        box: Box,
        *,
        size: tuple[int, int],
        crs: str | None = None,
        select: Mapping[str, int] | None = None,
    ) -> ReadWindow:
        """Read a window at the coarsest level that still has a pixel for each of a screen's; only the chunks under it.

        Parameters
        ----------
        names
            Variables to read.
        box
            What is seen, in `crs`; parts beyond the image are left out.
        size
            Height and width of the screen, px.
        crs
            Of the map; None for that of the image. In another, each pixel of the screen takes the image's nearest.
        select
            Place along dimensions beside y and x; the last time, or that of `year`, and the first of others if left out.

        Raises
        ------
        CubeError
            Variables are unknown, or the image has no overviews and the window is too large to be read without them.
        """
        if crs is not None and pyproj.CRS(crs) != pyproj.CRS(self.crs):
            return self._warped(names, box, size=size, crs=crs, select=select)
        wanted = max((box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0])
        fine = (one for one in reversed(self.levels) if one.pixel <= wanted * _COARSER and self._has_times(one))
        level = next(fine, self.levels[0])
        cube, geobox = level.open()
        unknown = [name for name in names if name not in cube]
        if unknown:
            raise CubeError(f"Layers {unknown} are not in this image, which has {sorted(map(str, cube.data_vars))}.")
        columns, rows = (
            sorted(axis) for axis in zip(*(~geobox.affine * corner for corner in (box[:2], box[2:])), strict=True)
        )
        step = max(1, math.floor(wanted * _COARSER / level.pixel))
        y, x = (_span(edges, length, step) for edges, length in ((rows, geobox.shape[0]), (columns, geobox.shape[1])))
        if (y.stop - y.start) * (x.stop - x.start) > _LARGEST_READ:
            raise CubeError(
                f"This window has {y.stop - y.start} x {x.stop - x.start} pixels, too many to read at once, and the image has no "
                "overview as coarse as the screen. Zoom in, or add overviews: gdaladdo image.tif 2 4 8 16 32, or, as "
                "rtsx.write_cube(cube, 'cube.zarr') does, a Zarr store with them."
            )
        place = {"y": slice(y.start + step // 2, y.stop, step), "x": slice(x.start + step // 2, x.stop, step)}
        part = cube[list(names)].isel(place)
        chosen = {
            dim: (select or {}).get(str(dim), self._time if dim == "time" else 0)
            for dim in part.dims
            if dim not in ("y", "x")
        }
        part = part.isel(chosen, drop=True)
        read = part.compute()
        left, top = geobox.affine * (x.start, y.start)
        right, bottom = geobox.affine * (x.start + step * read.sizes["x"], y.start + step * read.sizes["y"])
        known = np.ones((read.sizes["y"], read.sizes["x"]), bool)
        return ReadWindow(read, (left, bottom, right, top), pixel_m(geobox) * step, known)

    @property
    def _time(self) -> int:
        """Place of the time that is seen where none is chosen."""
        if self.year is None or not self.years:
            return -1
        years = enumerate(years_of(self.cube))
        return max((place for place, year in years if year is not None and year <= self.year), default=0)

    def _has_times(self, level: Level) -> bool:
        """Test whether a level has all times: overviews lack the year of a campaign that was not collected yet."""
        cube = level.open()[0]
        # Asked of the level first, because opening another asks catalogs.
        return "time" not in cube.dims or cube["time"].equals(self.cube["time"])

    def _warped(
        self, names: Sequence[str], box: Box, *, size: tuple[int, int], crs: str, select: Mapping[str, int] | None
    ) -> ReadWindow:
        """Read a window for a map in another CRS, and take for each of its pixels the nearest."""
        height, width = size
        x = box[0] + (np.arange(width) + 0.5) * (box[2] - box[0]) / width
        y = box[3] - (np.arange(height) + 0.5) * (box[3] - box[1]) / height
        there = pyproj.Transformer.from_crs(crs, self.crs, always_xy=True)
        at_x, at_y = there.transform(*np.meshgrid(x, y))
        known = np.isfinite(at_x) & np.isfinite(at_y)
        left, bottom, right, top = self.box
        known &= (at_x >= left) & (at_x <= right) & (at_y >= bottom) & (at_y <= top)
        seen = left, top, left, top
        if known.any():
            x, y = at_x[known], at_y[known]
            seen = float(x.min()), float(y.min()), float(x.max()), float(y.max())
        there_is = self.read(names, _padded(seen, size), size=size, select=select)
        rows, columns = there_is.cube.sizes["y"], there_is.cube.sizes["x"]
        known &= rows > 0 and columns > 0
        dy, dx = (
            (there_is.box[3 - axis] - there_is.box[1 - axis]) / max(1, count)
            for axis, count in ((0, rows), (1, columns))
        )
        row = np.where(known, (there_is.box[3] - at_y) / (dy or 1), 0).astype(int)
        column = np.where(known, (at_x - there_is.box[0]) / (dx or 1), 0).astype(int)
        known &= (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        taken = {name: _gather(there_is.cube[name], row, column, known=known) for name in names}
        return ReadWindow(xr.Dataset(taken), box, pixel_m(GeoBox.from_bbox(box, crs, shape=size, tight=True)), known)


def _padded(box: Box, size: tuple[int, int]) -> Box:
    """Return a box with a screen's pixel more on each side, so that the nearest of a border pixel is in it."""
    dx, dy = (box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0]
    return box[0] - dx, box[1] - dy, box[2] + dx, box[3] + dy


def _span(edges: Sequence[float], length: int, step: int) -> slice:
    """Return pixels between two edges, clipped to the image; begins at a multiple of the step, so that a pan shows the same ones."""
    start = min(max(math.floor(edges[0] / step) * step, 0), length // step * step)
    stop = min(max(math.ceil(edges[1] / step) * step, start), length)
    return slice(start, stop)


def _gather(layer: xr.DataArray, row: NDArray[Any], column: NDArray[Any], *, known: NDArray[np.bool_]) -> xr.DataArray:
    """Return values at places; missing where there are none: NaN, and False in what is True or False."""
    if layer.dtype.kind == "b":
        filled = np.zeros(known.shape, bool)
    else:
        filled = np.full(known.shape, np.nan, np.float64 if layer.dtype.itemsize > 2 else np.float32)
    filled[known] = layer.values[row[known], column[known]]
    return xr.DataArray(filled, dims=("y", "x"), attrs=layer.attrs, name=layer.name)


def _of_store(path: str, options: Mapping[str, Any]) -> tuple[Level, ...]:
    layout: Any = open_group(path, options).attrs.get("multiscales", {"layout": []})
    finest = open_source(path, storage_options=options or None)
    levels = [Level(pixel=abs(geobox_of(finest).affine.a), opener=lambda: finest)]
    for entry in layout["layout"]:
        if entry["asset"] != ".":
            place = f"{path.rstrip('/')}/{entry['asset']}"
            opener = partial(open_source, place, storage_options=options or None)
            levels.append(Level(pixel=abs(entry["spatial:transform"][0]), opener=opener))
    return tuple(sorted(levels, key=lambda level: level.pixel))


def _of_file(path: str) -> tuple[Level, ...]:
    whole = open_source(path)
    pixel = float(geobox_of(whole).affine.a)
    opener = partial(open_rasters, path, None, layers=None, sensor=None, chunk=None)
    return (
        Level(pixel=pixel, opener=lambda: whole),
        *(
            Level(pixel=pixel * factor, opener=partial(opener, overview=number))
            for number, factor in enumerate(read_header(path).overviews)
        ),
    )


def _of_recipe(recipe: CubeRecipe, cell: Cell | GeoBox | None) -> tuple[Level, ...]:
    """Return levels whose sources read their own overviews; each asks the catalogs when it is first seen."""
    from rtsx.cube.load import recipe_geobox  # compiles the warp, which stores do not need

    raster = recipe_geobox(recipe, cell)
    levels = []
    for number in range(level_count(raster.shape.yx) + 1):
        coarse, window = coarse_recipe(recipe, raster, side=max(1, max(raster.shape) >> number))
        levels.append(Level(pixel=coarse.grid.resolution, opener=partial(open_source, coarse, window)))
    return tuple(levels)
