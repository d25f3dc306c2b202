"""One chunk of terrain: elevation mosaicked, derived on its own grid or on the cube's, and warped. The twin of `chunk_loader`."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.chunk_loader import QUALITY, LayerEncoding
from rtsx.cube.encoding import OutputDtype, is_representable, packing_attrs
from rtsx.cube.georeference import corner_positions, describe_geobox, geobox_window, pixel_m
from rtsx.cube.images import Image
from rtsx.cube.mask_rules import GOOD
from rtsx.cube.recipe import Resampling, SourceRecipe
from rtsx.cube.resample.readers import WindowReader, open_reader
from rtsx.cube.resample.warp import warp
from rtsx.cube.terrain import TerrainGrid, TerrainReader, terrain_block, terrain_halo
from rtsx.errors import CubeError

_OFF_LATTICE = 0.01
"""Pixels that a tile may lie off the pixel grid of the first one, anywhere on the tile."""


@dataclass(frozen=True, init=False)
class MosaicReader:
    """Several readers as one raster that reaches around all of them; where they overlap, the first valid pixel counts.

    Raises
    ------
    CubeError
        They do not share one pixel grid to a hundredth of a pixel. Without nodata, there is ground between them that no value could mark as missing.

    Examples
    --------
    >>> from rtsx.cube.resample.readers import ArrayReader
    >>> left, right = (
    ...     ArrayReader(np.full((1, 2, 2), value), GeoBox((2, 2), Affine(5, 0, x, 0, -5, 10), "EPSG:3413"), nodata=-1)
    ...     for value, x in ((7, 0), (8, 15))
    ... )
    >>> MosaicReader([left, right]).read(slice(0, 1), slice(0, 5))
    array([[[ 7,  7, -1,  8,  8]]])
    """

    readers: tuple[WindowReader, ...]
    """The tiles, those that count first first; of one CRS, count, dtype and nodata."""
    geobox: GeoBox
    """The pixel grid, around all tiles."""
    nodata: float | None
    """That of the tiles; for floats without one, NaN."""
    _spans: NDArray[np.int64] = field(compare=False, repr=False)
    """First row, last row + 1, first column, last column + 1 of each tile in the mosaic, (tile, 4)."""

    def __init__(self, readers: Iterable[WindowReader]) -> None:
        tiles = tuple(readers)
        spans = np.array([_span(tiles[0].geobox, tile.geobox) for tile in tiles])
        top, left = spans[:, 0].min(), spans[:, 2].min()
        spans -= np.array([top, top, left, left])
        first = tiles[0].geobox
        shape = int(spans[:, 1].max()), int(spans[:, 3].max())
        nodata = tiles[0].nodata
        if nodata is None and tiles[0].dtype.kind == "f":
            nodata = float("nan")
        if nodata is None and not _covers(spans, shape):
            raise CubeError(
                f"{len(tiles)} tiles of {tiles[0].dtype} without nodata leave ground of their mosaic empty (shape {shape}), and "
                "no value can say so. Name a nodata value for them."
            )
        geobox = GeoBox(shape, first.affine * Affine.translation(float(left), float(top)), first.crs)
        for name, value in {"readers": tiles, "geobox": geobox, "nodata": nodata, "_spans": spans}.items():
            object.__setattr__(self, name, value)

    @property
    def count(self) -> int:
        """Number of bands."""
        return self.readers[0].count

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the tiles."""
        return self.readers[0].dtype

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return stored pixels (band, y, x) of a window; nodata where there is no tile.

        Raises
        ------
        CubeError
            A tile cannot be read.
        """
        shape = self.count, rows.stop - rows.start, columns.stop - columns.start
        storing = OutputDtype(self.dtype, self.nodata)
        pixels = np.full(shape, storing.fill, self.dtype)
        missing = np.ones(shape, bool)
        top, bottom, left, right = self._spans.T
        meets = (top < rows.stop) & (bottom > rows.start) & (left < columns.stop) & (right > columns.start)
        for place in np.flatnonzero(meets):
            first_row, last_row, first_column, last_column = (int(edge) for edge in self._spans[place])
            y0, y1 = max(first_row, rows.start), min(last_row, rows.stop)
            x0, x1 = max(first_column, columns.start), min(last_column, columns.stop)
            part = (slice(None), slice(y0 - rows.start, y1 - rows.start), slice(x0 - columns.start, x1 - columns.start))
            if missing[part].any():
                tile = self.readers[place]
                stored = tile.read(slice(y0 - first_row, y1 - first_row), slice(x0 - first_column, x1 - first_column))
                taken = missing[part] & is_representable(stored, tile.nodata)
                np.copyto(pixels[part], np.ma.getdata(stored), where=taken)
                missing[part] &= ~taken
        # Without a value that says so, what no tile has is masked.
        tells_all = storing.has_fill or self.dtype.kind == "f" or not missing.any()
        return pixels if tells_all else np.ma.MaskedArray(pixels, missing)

    def overview_for(self, factor: float) -> Self:
        """Return itself: a mosaic is read at full resolution, however coarse the target.

        Which overview fits would hang on the tiles that happen to be in the mosaic, so that two cells of a campaign would
        give the same ground other values; and every tile's header would be read to find out. Elevation, which mosaics are
        for, is published at several resolutions: where reading takes long, a coarser product is the cure. "average" takes
        the mean over all pixels in any case.
        """
        return self


def _span(lattice: GeoBox, tile: GeoBox) -> tuple[int, int, int, int]:
    """Return the first and last + 1 row and column of a tile, counted from the first pixel of `lattice`."""
    height, width = tile.shape
    # All four corners, because a square tile that is turned or mirrored has two of them in place.
    columns, rows = corner_positions(tile, lattice)
    top, left = round(float(rows[0])), round(float(columns[0]))
    apart = np.abs([columns - left - [0, width, 0, width], rows - top - [0, 0, height, height]]).max()
    if not apart <= _OFF_LATTICE:
        raise CubeError(
            f"Tiles of a mosaic share one lattice to {_OFF_LATTICE} px; one is {apart:.3g} px off: {describe_geobox(tile)}, the "
            f"first is {describe_geobox(lattice)}. Read them as separate images, each aligned by itself."
        )
    return top, top + height, left, left + width


def _covers(spans: NDArray[np.int64], shape: tuple[int, int]) -> bool:
    """Test whether spans leave no pixel of a rectangle out."""
    rows, columns = np.unique(spans[:, :2]), np.unique(spans[:, 2:])
    is_covered = np.zeros((len(rows) - 1, len(columns) - 1), bool)
    for top, bottom, left, right in spans:
        is_covered[
            np.searchsorted(rows, top) : np.searchsorted(rows, bottom),
            np.searchsorted(columns, left) : np.searchsorted(columns, right),
        ] = True
    return bool(is_covered.all()) and shape == (rows[-1], columns[-1])


_conforms: type[WindowReader] = MosaicReader


_PHASE_STEPS = 64
"""Parts of a pixel that two corners are told apart by: tiles of one mosaic carry the rounding errors of their writers."""


def group_by_grid(readers: Iterable[WindowReader]) -> tuple[MosaicReader, ...]:
    """Return one raster for each pixel grid among some rasters, in the order in which the pixel grids first appear.

    A raster that is alone on its pixel grid is a mosaic, too: the next cell of a campaign may find two tiles there, and both
    have to be read at the same resolution.

    Examples
    --------
    >>> import numpy as np
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> from rtsx.cube.resample.readers import ArrayReader
    >>> tiles = [
    ...     ArrayReader(np.ones((1, 2, 2), np.int16), GeoBox((2, 2), Affine(5, 0, x, 0, -5, 10), "EPSG:3413"), nodata=0)
    ...     for x in (0, 2.5, 10)
    ... ]
    >>> [one.geobox.shape.x for one in group_by_grid(tiles)]
    [4, 2]
    """
    groups: dict[object, list[WindowReader]] = {}
    for reader in readers:
        affine = reader.geobox.affine
        # The corner in pixels, turned back, because a raster may lie on its side; only rasters turned alike share `sizes`.
        corner = ~Affine(affine.a, affine.b, 0, affine.d, affine.e, 0) * (affine.c, affine.f)
        phase = tuple(round(place * _PHASE_STEPS) % _PHASE_STEPS for place in corner)
        sizes = tuple(round(value, 9) for value in (affine.a, affine.b, affine.d, affine.e))
        kind = (reader.count, reader.dtype.str, str(reader.nodata), str(reader.geobox.crs))
        groups.setdefault((kind, sizes, phase), []).append(reader)
    return tuple(MosaicReader(group) for group in groups.values())


@dataclass(frozen=True, kw_only=True)
class TerrainChunkReader:
    """Everything that the tasks of a terrain source share; pickled once for all of them."""

    source: SourceRecipe
    images: tuple[Image, ...]
    """Pieces of the elevation mosaic; a task names those that it reads by index."""
    elevation: LayerEncoding
    """How heights are stored."""
    sun: tuple[float, float]
    """Azimuth and elevation of the sun, degrees."""
    geobox: GeoBox
    """The whole cube's raster."""
    anchor: tuple[float, float]
    """Corner (x, y) of the pixel grid that coordinates are anchored to."""

    @property
    def variables(self) -> dict[str, tuple[np.dtype[Any], dict[str, Any]]]:
        """Dtype and CF attributes of what `__call__` returns, in order: `dem` where it is kept, the terrain layers, and last the quality."""
        kept = {"dem": (self.elevation.dtype, self.elevation.attributes)} if self.source.keep_dem else {}
        dtype = np.dtype(np.float32)
        made = {
            layer.name: (dtype, packing_attrs(dtype, nodata=math.nan, units=layer.units, long_name=layer.long_name))
            for layer in self.source.terrain
        }
        return kept | made | {"quality": QUALITY}

    @property
    def halo(self) -> int:
        """Pixels around a chunk within which a piece of the mosaic matters to its layers."""
        reach_m = max(
            max(layer.halo_m, layer.halo_px * pixel_m(image.bands["dem"].geobox))
            for layer in self.source.terrain
            for image in self.images
        )
        return int(reach_m / pixel_m(self.geobox)) + 4

    def __getstate__(self) -> dict[str, Any]:
        """Fields without the mosaics, which every process makes for itself."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __call__(
        self, places: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[NDArray[Any], ...]:
        """Arrays (y, x) of one chunk, see `variables`; reads pixels.

        Parameters
        ----------
        places
            Indices of the pieces that meet the chunk and what its layers look at.
        rows, columns
            Half-open range of the cube's pixels.

        Raises
        ------
        CubeError
            A piece cannot be read.
        """
        window = geobox_window(self.geobox, rows, columns, halo=0)
        rasters = self._mosaics if places else ()
        try:
            if self.source.terrain_grid == "source":
                layers = self._from_own_grid(rasters, window)
                heights = self._heights(rasters, window) if self.source.keep_dem else None
            else:
                layers, heights = self._from_cube_grid(rasters, rows, columns)
        except CubeError as error:
            raise CubeError(f"Source {self.source.name!r}: {error}") from error
        quality = np.where(np.isfinite(layers).all(axis=0), np.uint8(GOOD), np.uint8(0))
        kept = [self._stored(heights)] if self.source.keep_dem and heights is not None else []
        return (*kept, *layers, quality)

    @cached_property
    def _mosaics(self) -> tuple[WindowReader, ...]:
        """All pieces as one raster for each pixel grid among them.

        All, rather than those that meet a chunk, so that positions are counted from one corner and every chunk gets the
        same bits; a window reads only the pieces that it touches.
        """
        return group_by_grid(open_reader(image.bands["dem"]) for image in self.images)

    def _from_own_grid(self, rasters: Sequence[WindowReader], window: GeoBox) -> NDArray[np.float32]:
        out = np.full((len(self.source.terrain), *window.shape), np.nan, np.float32)
        for raster in rasters:
            for resampling, chosen in self._by_resampling().items():
                reader = TerrainReader(
                    raster,
                    [self.source.terrain[place] for place in chosen],
                    sun_azimuth=self.sun[0],
                    sun_elevation=self.sun[1],
                    scale_factor=self.elevation.scale_factor,
                    add_offset=self.elevation.add_offset,
                )
                warped = warp(reader, window, resampling=resampling, anchor=self.anchor)
                for place, pixels, seen in zip(chosen, warped.pixels, warped.valid, strict=True):
                    limits = self.source.terrain[place].limits
                    if limits is not None:
                        np.clip(pixels, *limits, out=pixels)
                    np.copyto(out[place], pixels, where=seen & np.isnan(out[place]))
        return out

    def _by_resampling(self) -> dict[Resampling, list[int]]:
        """Return the places of the layers by how they are warped: angles nearest, as the mean of 359 and 1 degree is not 180."""
        places: dict[Resampling, list[int]] = {}
        for place, layer in enumerate(self.source.terrain):
            places.setdefault("nearest" if layer.is_angle else self.source.terrain_resampling, []).append(place)
        return places

    def _from_cube_grid(
        self, rasters: Sequence[WindowReader], rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # Of the whole cube, not of a chunk, because in degrees a row's halo depends on its latitude.
        halo = terrain_halo(self.source.terrain, TerrainGrid.from_geobox(self.geobox))
        wide = geobox_window(self.geobox, rows, columns, halo=halo)
        heights = self._heights(rasters, wide)
        ground = TerrainGrid.from_geobox(wide, sun_azimuth=self.sun[0], sun_elevation=self.sun[1])
        layers = terrain_block(heights, np.isfinite(heights), ground=ground, layers=self.source.terrain, halo=halo)
        height, width = wide.shape
        return layers, heights[halo : height - halo, halo : width - halo]

    def _heights(self, rasters: Sequence[WindowReader], window: GeoBox) -> NDArray[np.float32]:
        """Return the heights (y, x) in m on a window of the cube's grid, NaN where there are none."""
        out = np.full(window.shape, np.nan, np.float32)
        stored = self.elevation
        for raster in rasters:
            resampling = stored.recipe.resampling
            warped = warp(raster, window, resampling=resampling, anchor=self.anchor, dtype=np.dtype(np.float32))
            heights = warped.pixels[0] * np.float32(stored.scale_factor) + np.float32(stored.add_offset)
            np.copyto(out, heights, where=warped.valid[0] & np.isnan(out))
        return out

    def _stored(self, heights: NDArray[np.float32]) -> NDArray[Any]:
        layer = self.elevation
        values = (heights - layer.add_offset) / layer.scale_factor
        if layer.dtype.kind in "iu":
            values = np.floor(values + 0.5)
        return np.where(np.isfinite(heights), values, layer.fill).astype(layer.dtype)
