"""Terrain layers on the elevation's own grid, read like any other raster."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.resample.dtype import is_representable
from rtsx.cube.resample.readers import WindowReader
from rtsx.cube.terrain.grid import SUN_AZIMUTH, SUN_ELEVATION, TerrainGrid
from rtsx.cube.terrain.layers import TerrainLayer, get_terrain, terrain_block
from rtsx.errors import CubeError


@dataclass(frozen=True)
class TerrainReader(WindowReader):
    """A raster whose bands are terrain layers of another raster's first band.

    A window is the same however it is cut: its halo is read from `dem`, up to the edge of that raster. Values, not
    handles; as safe between threads as `dem` is.

    Examples
    --------
    >>> from affine import Affine
    >>> from rtsx.cube.resample.readers import ArrayReader
    >>> box = GeoBox((4, 4), Affine(2, 0, 1000, 0, -2, 5000), "EPSG:3413")
    >>> plane = ArrayReader(np.tile(np.arange(4) * 2.0, (1, 4, 1)), box, nodata=-9999)
    >>> TerrainReader(plane, ["slope", "dem"]).read(slice(0, 1), slice(1, 3))
    array([[[45., 45.]],
           [[ 2.,  4.]]], dtype=float32)
    """

    dem: WindowReader
    """Heights in its first band."""
    layers: Sequence[str | TerrainLayer]
    """What its bands are, in order."""
    sun_azimuth: float = field(default=SUN_AZIMUTH, kw_only=True)
    """Degrees clockwise from true north."""
    sun_elevation: float = field(default=SUN_ELEVATION, kw_only=True)
    """Degrees above the horizon."""
    scale_factor: float = field(default=1.0, kw_only=True)
    """Metres per stored unit of `dem`."""
    add_offset: float = field(default=0.0, kw_only=True)
    """Metres at stored 0."""

    def __post_init__(self) -> None:
        """Look up the layers by name, and refuse a sun below the horizon."""
        object.__setattr__(self, "layers", tuple(get_terrain(layer) for layer in self.layers))
        if not self.layers:
            raise CubeError("A terrain reader has at least one layer; got none.")
        self._ground()

    @property
    def geobox(self) -> GeoBox:
        """That of the elevation."""
        return self.dem.geobox

    @property
    def count(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    @property
    def nodata(self) -> float:
        """NaN."""
        return float("nan")

    def read(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return the layers (layer, y, x) of a window that lies within the raster, NaN where invalid."""
        height, width = self.geobox.shape
        whole = self._ground()
        halos = [get_terrain(layer).halo(whole.window(rows, columns)) for layer in self.layers]
        y, x = (max(halo) for halo in zip(*halos, strict=True))
        outer_rows = slice(max(rows.start - y, 0), min(rows.stop + y, height))
        outer_columns = slice(max(columns.start - x, 0), min(columns.stop + x, width))
        stored = self.dem.read(outer_rows, outer_columns)[0]
        valid = is_representable(stored, self.dem.nodata)
        heights = stored
        if (self.scale_factor, self.add_offset) != (1.0, 0.0):
            heights = stored * self.scale_factor + self.add_offset
        layers = terrain_block(
            heights, valid, ground=whole.window(outer_rows, outer_columns), layers=self.layers, halo=0
        )
        top, left = rows.start - outer_rows.start, columns.start - outer_columns.start
        # Copied, because the caller owns it, and a view would keep the halo alive.
        return layers[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start].copy()

    def overview_for(self, factor: float) -> Self:
        """Return itself: the slope of coarse heights is another layer than the slope, coarse."""
        return self

    def _ground(self) -> TerrainGrid:
        return TerrainGrid.from_geobox(self.geobox, sun_azimuth=self.sun_azimuth, sun_elevation=self.sun_elevation)
