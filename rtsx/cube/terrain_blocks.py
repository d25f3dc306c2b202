"""One chunk of terrain: elevation mosaicked, derived on its own grid or on the cube's, and warped. The twin of `block`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.encoding import packing_attrs
from rtsx.cube.georeference import geobox_window, pixel_m
from rtsx.cube.images import Image
from rtsx.cube.mask_rules import GOOD
from rtsx.cube.recipe import SourceRecipe
from rtsx.cube.resample.dtype import Resampling
from rtsx.cube.resample.mosaic import group_by_grid
from rtsx.cube.resample.readers import WindowReader, open_reader
from rtsx.cube.resample.warp import warp
from rtsx.cube.source_plan import LayerEncoding
from rtsx.cube.terrain import TerrainGrid, TerrainReader, terrain_block, terrain_halo
from rtsx.errors import CubeError


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
    def names(self) -> tuple[str, ...]:
        """What `__call__` returns, in order: `dem` where it is kept, the terrain layers, and last the quality."""
        return (*self.source.layer_names, "quality")

    @property
    def dtypes(self) -> tuple[np.dtype[Any], ...]:
        """Dtype of each of `names`."""
        floats = [np.dtype(np.float32)] * len(self.source.terrain)
        return (*([self.elevation.dtype] if self.source.keep_dem else []), *floats, np.dtype(np.uint8))

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """CF attributes of every layer."""
        made = {
            layer.name: packing_attrs(
                np.dtype(np.float32), nodata=float("nan"), units=layer.units, long_name=layer.long_name
            )
            for layer in self.source.terrain
        }
        return ({"dem": self.elevation.attributes} if self.source.keep_dem else {}) | made

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

    def __dask_tokenize__(self) -> str:
        return blake2b(cloudpickle.dumps(self), digest_size=16).hexdigest()

    def __call__(
        self, places: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[NDArray[Any], ...]:
        """Arrays (y, x) of one chunk, see `names`; reads pixels.

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
