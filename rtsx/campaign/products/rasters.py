"""Rasters of a delivery: the map cut into cloud-optimised GeoTIFFs, along its own cells or a registered tile matrix set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from rtsx.campaign.cells import Address
from rtsx.campaign.map import map_path, map_year, named_damage, variables_of
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.tables import partition_of
from rtsx.cube.cog import Colours, encoded_cog
from rtsx.cube.georeference import with_georeference
from rtsx.cube.recipe import Resampling
from rtsx.cube.resample.warp import warp
from rtsx.errors import CampaignError, MissingExtraError
from rtsx.geometry.crs import transform
from rtsx.grid.grid import cell_id
from rtsx.inference.kernel import NODATA
from rtsx.inference.predict import variable_attrs
from rtsx.names import suggest
from rtsx.storage.zarr import open_group

NAMES = ("{z}/{x}/{y}", "{col}_{row}")
"""How tiles of a matrix set may be called."""
_LEVELS = 4
"""Zooms between a file and its pixels, unless one is given: files of 16 x 256 px, as many objects as an archive likes to have."""
_MOST_LEVELS = 6
_STEPS = 16
"""Parts along each side of a cell, whose corners are looked up in a matrix; an edge of one is straight to a pixel."""


@dataclass(frozen=True, kw_only=True)
class RasterFile:
    """One file of each variable."""

    name: str
    """Path below the folder of the variable, without an ending."""
    group: str
    """Files of one group are recorded together."""
    geobox: GeoBox
    """Its raster."""
    cells: tuple[Address, ...]
    """Cells that may have pixels in it, sorted."""


@dataclass(frozen=True)
class CellTiling:
    """A file for each cell, on the map's own grid: its pixels as they are."""

    plan: CampaignPlan
    """Of the year."""

    @property
    def anchor(self) -> tuple[float, float]:
        """Corner (x, y) of the pixel grid of all files."""
        return self.plan.grid.origin

    @property
    def document(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        return {"tiles": "cells", "crs": self.plan.grid.crs, "pixel_size": self.plan.grid.resolution}

    def resampling(self, variable: str) -> Resampling:
        """Return how a variable is brought onto the pixels of the files: nearest, which changes nothing where grids agree."""
        return "nearest"

    def files(self, cells: Iterable[Address]) -> list[RasterFile]:
        """Return a file for each cell, sorted."""
        return [
            RasterFile(name=cell_id(*cell), group=partition_of(cell), geobox=self.plan.grid[cell].geobox, cells=(cell,))
            for cell in sorted(cells)
        ]


@dataclass(frozen=True, kw_only=True)
class MatrixTiling:
    """Files that are exactly tiles of a registered tile matrix set, and pixels that are those of a finer matrix of it."""

    plan: CampaignPlan
    """Of the year."""
    tiles: str
    """Name of the tile matrix set."""
    crs: CRS
    """Of the set."""
    zoom: int
    """Matrix whose pixels the files have."""
    tile_zoom: int
    """Matrix whose tiles are files."""
    anchor: tuple[float, float]
    """Upper left corner (x, y) of both matrices."""
    pixel_size: float
    """Side of a pixel, CRS units."""
    side: int
    """Pixels along a file."""
    size: tuple[int, int]
    """Columns and rows of files that the set has."""
    names: str
    """How files are called: one of `NAMES`."""

    @classmethod
    def of(
        cls, plan: CampaignPlan, tiles: str, *, zoom: int | None, tile_zoom: int | None, names: str = NAMES[0]
    ) -> "MatrixTiling":
        """Look up a tile matrix set.

        Parameters
        ----------
        plan
            Of the year.
        tiles
            Name of the set.
        zoom
            Matrix whose pixels are taken; None for the one whose pixels are nearest in size to the map's.
        tile_zoom
            Matrix whose tiles are files; None for a few above `zoom`, where they are nested.
        names
            How files are called: one of `NAMES`.

        Raises
        ------
        CampaignError
            There is no such set or zoom, or its tiles are not squares of one size that each hold whole ones of the next.
        MissingExtraError
            morecantile is not installed.
        """
        try:
            import morecantile
        except ImportError as error:
            raise MissingExtraError("Tile matrix sets need the deliver extra: pip install 'rtsx[deliver]'.") from error
        known = sorted(morecantile.tms.list())
        if tiles not in known:
            raise CampaignError(f"{tiles!r} is no registered tile matrix set.{suggest(tiles, known)}")
        if names not in NAMES:
            raise CampaignError(f"Tiles are called {' or '.join(NAMES)}; got {names!r}.")
        found = morecantile.tms.get(tiles)
        crs = CRS(found.crs._pyproj_crs.to_wkt())
        if found.is_variable or found.matrix(found.minzoom).cornerOfOrigin == "bottomLeft":
            raise CampaignError(
                f"{tiles} has tiles of several widths, or counts rows from below, which GeoTIFFs of one pixel grid cannot "
                "follow. Choose another, such as WebMercatorQuad or UPSArcticWGS84Quad."
            )
        native = native_size(plan, crs)
        if zoom is None:
            zoom = int(found.zoom_for_res(native))
        _require_zoom("zoom", zoom, low=found.minzoom, high=found.maxzoom, tiles=tiles)
        if tile_zoom is None:
            tile_zoom = next(
                one for one in range(max(zoom - _LEVELS, found.minzoom), zoom + 1) if _nests(found, one, zoom)
            )
        _require_zoom("tile_zoom", tile_zoom, low=max(found.minzoom, zoom - _MOST_LEVELS), high=zoom, tiles=tiles)
        if not _nests(found, tile_zoom, zoom):
            raise CampaignError(
                f"Tiles of {tiles} at zoom {tile_zoom} do not hold whole tiles of zoom {zoom}. Give both the same zoom."
            )
        matrix, files = found.matrix(zoom), found.matrix(tile_zoom)
        box = found.xy_bounds(morecantile.Tile(0, 0, zoom))
        return cls(
            plan=plan,
            tiles=tiles,
            crs=crs,
            zoom=zoom,
            tile_zoom=tile_zoom,
            anchor=(float(box.left), float(box.top)),
            # Of the coarsest matrix, because those of finer ones are rounded and would drift by pixels.
            pixel_size=_pixel_size(found, zoom),
            side=int(matrix.tileWidth) * 2 ** (zoom - tile_zoom),
            size=(int(files.matrixWidth), int(files.matrixHeight)),
            names=names,
        )

    @cached_property
    def _native(self) -> float:
        return native_size(self.plan, self.crs)

    @property
    def document(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        return {
            "tiles": self.tiles,
            "zoom": self.zoom,
            "tile_zoom": self.tile_zoom,
            "pixel_size": self.pixel_size,
            "resampling": {name: self.resampling(name) for name in delivered(self.plan)},
            **({} if self.names == NAMES[0] else {"names": self.names}),
        }

    def resampling(self, variable: str) -> Resampling:
        """Return nearest for classes; the mean of probability and spread where pixels become larger, and between pixels else."""
        if variable == "binary":
            return "nearest"
        return "average" if self.pixel_size > 1.5 * self._native else "bilinear"

    def files(self, cells: Iterable[Address]) -> list[RasterFile]:
        """Return the tiles that these cells have pixels in, and maybe some more.

        Raises
        ------
        CampaignError
            There are none.
        """
        found: dict[tuple[int, int], list[Address]] = {}
        for cell in sorted(cells):
            for place in self._places(cell):
                found.setdefault(place, []).append(cell)
        if not found:
            raise self.unreached()
        return [
            RasterFile(
                name=self.names.format(z=self.tile_zoom, x=column, y=row, col=column, row=row),
                group=f"{self.tile_zoom}-{column}",
                geobox=self.geobox(column, row),
                cells=tuple(there),
            )
            for (column, row), there in sorted(found.items())
        ]

    def unreached(self) -> CampaignError:
        """Make the error of a set in which the map has no pixel."""
        x, y = self.anchor
        span = self.side * self.pixel_size
        whole = (x, y - self.size[1] * span, x + self.size[0] * span, y)
        mapped = tuple(self.plan.geobox.boundingbox)
        return CampaignError(
            f"No pixel of the map lies in a tile of {self.tiles}: the set has {_lonlat_text(whole, self.crs)}, the map "
            f"{_lonlat_text(mapped, CRS(self.plan.grid.crs))}. Choose a tile matrix set of that part of the earth, or leave it out "
            "for a file for each cell."
        )

    def geobox(self, column: int, row: int) -> GeoBox:
        """Return the raster of a tile."""
        size, (x, y) = self.pixel_size, self.anchor
        corner = x + column * self.side * size, y - row * self.side * size
        return GeoBox((self.side, self.side), Affine(size, 0, corner[0], 0, -size, corner[1]), self.crs)

    def _places(self, cell: Address) -> set[tuple[int, int]]:
        """Return columns and rows of the tiles that a cell lies on, and of some beside it."""
        grid, (width, height) = self.plan.grid, self.size
        side = grid.cell_size * grid.resolution
        steps = np.linspace(0, side, _STEPS + 1)
        x, y = np.meshgrid(grid.origin[0] + cell[1] * side + steps, grid.origin[1] - cell[0] * side - steps)
        there = transform(x.ravel(), y.ravel(), source=CRS(grid.crs), target=self.crs)
        span = self.side * self.pixel_size
        columns, rows = (
            np.where(np.isfinite(values), values, np.nan).reshape(x.shape)
            for values in ((there[0] - self.anchor[0]) / span, (self.anchor[1] - there[1]) / span)
        )
        # What lies beyond the corners, because edges are bent, and kernels read around a pixel.
        margin = 1 / 64 + 4 / self.side
        across, down = _corners(columns), _corners(rows)
        known = np.isfinite(across).all(axis=0) & np.isfinite(down).all(axis=0)
        across, down = across[:, known], down[:, known]
        left, right = across[0] - margin, across[-1] + margin
        top, bottom = down[0] - margin, down[-1] + margin
        # Parts that seem to go around the earth lie on the seam of the set, or hold a pole, where all columns meet.
        wide = (right - left >= width / 2) if width > 1 else np.zeros(left.shape, bool)
        pole = wide & (np.diff(across, axis=0).max(axis=0, initial=0) <= width / 2)
        seam = wide & ~pole
        left[pole], right[pole] = 0, width - 1
        north = bottom < height / 2
        top[pole & north], bottom[pole & ~north] = 0, height - 1
        boxes = np.stack([left, right, top, bottom], axis=-1)
        west, east = boxes[seam], boxes[seam]
        west[:, 0], west[:, 1] = 0, np.where(across < width / 2, across, 0).max(axis=0)[seam] + margin
        east[:, 0], east[:, 1] = np.where(across > width / 2, across, width).min(axis=0)[seam] - margin, width - 1
        places: set[tuple[int, int]] = set()
        every = np.floor(np.concatenate([boxes[~seam], west, east]))
        for low, high, first, last in np.unique(every, axis=0).clip(-1, max(width, height)).astype(int).tolist():
            inside = range(max(first, 0), min(last, height - 1) + 1)
            places |= {(i, j) for i in range(max(low, 0), min(high, width - 1) + 1) for j in inside}
        return places


Tiling = CellTiling | MatrixTiling
"""How the map is cut into files."""


def delivered(plan: CampaignPlan) -> tuple[str, ...]:
    """Return variables of the map that are delivered: all but `valid`, which their missing pixels say."""
    return variables_of(plan)[:-1]


def _corners(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the four corners of each part, sorted."""
    corners = np.stack([values[:-1, :-1], values[1:, :-1], values[:-1, 1:], values[1:, 1:]]).reshape(4, -1)
    return np.sort(corners, axis=0)


def native_size(plan: CampaignPlan, crs: CRS) -> float:
    """Return the side of a pixel of the map in units of a CRS: the median over its cells."""
    side, half = plan.grid.cell_size * plan.grid.resolution, plan.grid.resolution / 2
    middle = (plan.cells.addresses[:, ::-1].astype(np.float64) + 0.5) * side
    x = plan.grid.origin[0] + middle[:, 0]
    y = plan.grid.origin[1] - middle[:, 1]
    source = CRS(plan.grid.crs)
    west, east = (np.stack(transform(x + shift, y, source=source, target=crs)) for shift in (-half, half))
    south, north = (np.stack(transform(x, y + shift, source=source, target=crs)) for shift in (-half, half))
    along, up = east - west, north - south
    areas = np.abs(along[0] * up[1] - along[1] * up[0])
    usable = np.isfinite(areas) & (areas > 0)
    if not usable.any():
        raise CampaignError(f"No cell of the map lies in {crs}. Choose a tile matrix set of that part of the earth.")
    return float(np.sqrt(np.median(areas[usable])))


def _lonlat_text(bounds: tuple[float, ...], crs: CRS) -> str:
    """Say from where to where a rectangle (left, bottom, right, top) of a CRS reaches on the earth."""
    x, y = np.meshgrid(*(np.linspace(bounds[axis], bounds[axis + 2], 2 * _STEPS + 1) for axis in (0, 1)))
    there = np.stack(transform(x.ravel(), y.ravel(), source=crs, target=CRS("EPSG:4326")))
    lon, lat = there[:, np.isfinite(there).all(axis=0)]
    if not lon.size:
        return "no place on the earth"
    return f"longitudes {lon.min():.3f} to {lon.max():.3f} and latitudes {lat.min():.3f} to {lat.max():.3f}"


def _require_zoom(name: str, value: int, *, low: int, high: int, tiles: str) -> None:
    if not low <= value <= high:
        raise CampaignError(f"{name} of {tiles} is from {low} to {high} here; got {value}.")


def _pixel_size(found: Any, zoom: int) -> float:
    """Return the side of a pixel, by that of the coarsest matrix where sizes are halved from zoom to zoom."""
    size: float = found.matrix(zoom).cellSize
    halved: float = found.matrix(found.minzoom).cellSize / 2 ** (zoom - found.minzoom)
    return halved if abs(halved / size - 1) < 1e-6 else size


def _nests(found: Any, coarse: int, fine: int) -> bool:
    """Test whether tiles of a zoom hold whole ones of a finer one, and both begin at the same corner."""
    upper, lower = found.matrix(coarse), found.matrix(fine)
    corners = [found.xy_bounds(0, 0, zoom) for zoom in (coarse, fine)]
    ratio = upper.cellSize / lower.cellSize / 2 ** (fine - coarse)
    apart = max(abs(corners[0].left - corners[1].left), abs(corners[0].top - corners[1].top))
    same_tiles = {upper.tileWidth, upper.tileHeight, lower.tileWidth, lower.tileHeight} == {upper.tileWidth}
    return abs(ratio - 1) < 1e-6 and apart < lower.cellSize * 1e-3 and same_tiles


@dataclass(frozen=True, kw_only=True)
class MapReader:
    """A variable of the map in one year, a band for each class; what is not finished is missing, whatever is written of it so far."""

    array: "zarr.Array[Any]"
    """(time, [class,] y, x)."""
    place: int
    """Step of the year."""
    plan: CampaignPlan
    """Of the year."""
    finished: frozenset[Address]
    """Cells that are done."""

    @classmethod
    def of(
        cls, output: str, plan: CampaignPlan, variable: str, *, options: Mapping[str, Any], finished: Iterable[Address]
    ) -> "MapReader":
        """Open a variable."""
        group = open_group(map_path(output), options)
        array: Any = group[variable]
        return cls(array=array, place=map_year(group, plan.year), plan=plan, finished=frozenset(finished))

    @property
    def geobox(self) -> GeoBox:
        """Raster of the map."""
        return self.plan.geobox

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.plan.prediction.classes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the map."""
        return np.dtype(np.uint8)

    @property
    def nodata(self) -> float | None:
        """Stored value of a missing pixel."""
        return NODATA

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return stored pixels (class, y, x)."""
        shape = self.count, rows.stop - rows.start, columns.stop - columns.start
        at = self.place, ..., rows, columns
        with named_damage(self.array, at):
            pixels = np.array(self.array[at], np.uint8).reshape(shape)
        for cell, (y, x) in self.plan.cells_under(rows, columns):
            if cell not in self.finished:
                pixels[
                    :, y.start - rows.start : y.stop - rows.start, x.start - columns.start : x.stop - columns.start
                ] = NODATA
        return pixels

    def overview_for(self, factor: float) -> "MapReader":
        """Return itself, because levels of the map need not be up to date."""
        return self


def encoded_raster(
    reader: MapReader, variable: str, file: RasterFile, *, tiling: Tiling, attrs: Mapping[str, str]
) -> bytes | None:
    """Encode a variable on the raster of a file as a cloud-optimised GeoTIFF; None where it has no pixel there."""
    warped = warp(reader, file.geobox, resampling=tiling.resampling(variable), anchor=tiling.anchor)
    if not warped.valid.any():
        return None
    return encoded_bands(
        variable,
        warped.pixels,
        file.geobox,
        names=reader.plan.prediction.classes,
        attrs=variable_attrs(variable, "uint8"),
        anchor=tiling.anchor,
        of_file=attrs,
    )


def encoded_bands(
    variable: str,
    pixels: "NDArray[Any] | da.Array",
    geobox: GeoBox,
    *,
    names: Sequence[str],
    attrs: Mapping[str, Any],
    anchor: tuple[float, float] = (0.0, 0.0),
    of_file: Mapping[str, str] = MappingProxyType({}),
    colours: Colours | None = None,
) -> bytes:
    """Encode pixels (band, y, x) as a cloud-optimised GeoTIFF.

    Parameters
    ----------
    variable
        What they are of.
    pixels
        As they are stored.
    geobox
        Their raster.
    names
        Of the bands, by which they are told apart where they are several.
    attrs
        Of the variable.
    anchor
        Corner (x, y) of the pixel grid.
    of_file
        Attributes of the file.
    colours
        Table of colours, where there is one.
    """
    several = len(pixels) > 1
    dims = ("class", "y", "x") if several else ("y", "x")
    made = xr.Variable(dims, pixels if several else pixels[0], attrs)
    cube = with_georeference({variable: made}, geobox, lattice_origin=anchor).assign_attrs(of_file)
    return encoded_cog(cube.assign_coords({"class": list(names)}) if several else cube, variable, colours=colours)
