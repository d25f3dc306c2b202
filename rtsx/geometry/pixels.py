"""Ground area, longitude and latitude of the pixels of a raster of any size, by interpolation between a few that are measured."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import CubeError
from rtsx.geometry.crs import WGS84, apply_affine, crs_text, lonlat_transformer

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Floats = NDArray[np.float64]
Window = tuple[slice, slice]

_LONGEST_M = 2000.0
"""Ground between measured pixels: over it, the area of a pixel leaves a straight line by about 1e-8 of itself."""
_MOST_PIXELS = 64


@dataclass(frozen=True)
class PixelMesh:
    """A coarse mesh of pixels, counted from the raster's first, between which what is measured there is interpolated.

    Linearly along y and x, so that a pixel has the same values in every window that holds it.

    Examples
    --------
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> mesh = PixelMesh(GeoBox((1000, 1000), Affine(10, 0, 500_000, 0, -10, 7_800_000), "EPSG:32608"))
    >>> mesh.areas_m2((slice(0, 2), slice(0, 3))).round(2)
    array([[100.08, 100.08, 100.08],
           [100.08, 100.08, 100.08]])
    >>> lon, lat = mesh.lonlat((slice(0, 1), slice(0, 1)))
    >>> lon.round(4).item(), lat.round(4).item()
    (-134.9999, 70.306)
    """

    geobox: "GeoBox"
    """The raster."""

    def areas_m2(self, window: Window) -> Floats:
        """Return the areas `(y, x)` of a window's pixels on the WGS84 ellipsoid, float64, m².

        Right to 1e-7 of itself for pixels of up to 10 km.

        Raises
        ------
        CubeError
            A pixel has no place on the Earth.
        """
        return self._interpolated(window, self.areas_at)

    def lonlat(self, window: Window) -> tuple[Floats, Floats]:
        """Return longitude (-180 to 180) and latitude `(y, x)` of the middles of a window's pixels, degrees.

        Right to a decimetre for pixels of up to 2 km.

        Raises
        ------
        CubeError
            A pixel has no place on the Earth.
        """
        # Of the direction of the vertical, instead of angles, which jump at 180 degrees and have no value at a pole.
        x, y, z = (self._interpolated(window, partial(self._vertical, axis=n)) for n in range(3))
        return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))

    def _interpolated(self, window: Window, measure: Callable[[Floats, Floats], Floats]) -> Floats:
        (rows, row, down), (columns, column, across) = (
            self._between(part, length) for part, length in zip(window, self.geobox.shape, strict=True)
        )
        measured = measure(*np.meshgrid(rows.astype(np.float64), columns.astype(np.float64), indexing="ij"))
        along = measured[row] * (1 - down[:, None]) + measured[row + 1] * down[:, None]
        return np.asarray(along[:, column] * (1 - across) + along[:, column + 1] * across)

    def _between(self, part: slice, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Return the measured pixels around a part of an axis, and of each pixel the place of the one before it and how far it is on."""
        step = self._spacing
        mesh = np.arange(part.start // step, (part.stop - 1) // step + 2) * step
        # The last pixel instead of one beyond the raster, which may have no place on the Earth.
        mesh = np.minimum(mesh, max(length - 1, 1))
        pixels = np.arange(part.start, part.stop)
        before = np.clip(np.searchsorted(mesh, pixels, side="right") - 1, 0, len(mesh) - 2)
        gap = np.maximum(mesh[before + 1] - mesh[before], 1)
        return np.minimum(mesh, length - 1), before, (pixels - mesh[before]) / gap

    @cached_property
    def _spacing(self) -> int:
        """Pixels between measured ones, so that they are at most `_LONGEST_M` apart."""
        height, width = self.geobox.shape
        middle = float(np.sqrt(self.areas_at(*np.array([[height // 2], [width // 2]], np.float64))[0]))
        return int(np.clip(_LONGEST_M // middle, 1, _MOST_PIXELS))

    def areas_at(self, row: Floats, column: Floats) -> Floats:
        """Return the areas of single pixels by row and column, as `areas_m2` does, but each measured."""
        across = self._places(row + 0.5, column + 1) - self._places(row + 0.5, column)
        down = self._places(row + 1, column + 0.5) - self._places(row, column + 0.5)
        return np.asarray(np.linalg.norm(np.cross(across, down, axis=0), axis=0))

    def _places(self, row: Floats, column: Floats) -> Floats:
        """Return where points of the raster are in space, `(3, ...)`, m from the middle of the Earth."""
        x, y, z = self._verticals(row, column)
        radius = WGS84.a / np.sqrt(1 - WGS84.es * z**2)
        return np.stack([radius * x, radius * y, radius * (1 - WGS84.es) * z])

    def _vertical(self, row: Floats, column: Floats, *, axis: int) -> Floats:
        return np.asarray(self._verticals(row + 0.5, column + 0.5)[axis])

    def _verticals(self, row: Floats, column: Floats) -> Floats:
        """Return the direction of the vertical at points of the raster, `(3, ...)`."""
        crs = CRS.from_user_input(self.geobox.crs)
        lon, lat = np.radians(lonlat_transformer(crs).transform(*apply_affine(self.geobox.affine, column, row)))
        if not np.isfinite((lon, lat)).all():
            raise CubeError(
                f"The raster has pixels without a place on the Earth in {crs_text(crs)}: is its CRS the right one?"
            )
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
