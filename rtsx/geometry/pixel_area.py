"""Ground area and place of the pixels of a raster of any size, by interpolation between a few that are measured."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Geod

from rtsx.errors import CubeError
from rtsx.geometry.crs import crs_text, lonlat_transformer

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Floats = NDArray[np.float64]
Window = tuple[slice, slice]

_GEOD = Geod(ellps="WGS84")
_LONGEST_M = 2000.0
"""Ground between measured pixels: over it, the area of a pixel leaves a straight line by about 1e-8 of itself."""
_MOST_PIXELS = 64


@dataclass(frozen=True)
class PixelAreas:
    """Areas on the WGS84 ellipsoid of the pixels of a raster, in m².

    Pixels on a coarse mesh, counted from the raster's first pixel, are measured; those between are interpolated
    linearly along y and x. So a pixel has the same area in every window that holds it. Right to 1e-7 of itself for pixels of
    up to 10 km.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from affine import Affine
    >>> geobox = GeoBox((1000, 1000), Affine(10, 0, 500_000, 0, -10, 7_800_000), "EPSG:32608")
    >>> areas = PixelAreas(geobox)
    >>> areas((slice(0, 2), slice(0, 3))).round(2)
    array([[100.08, 100.08, 100.08],
           [100.08, 100.08, 100.08]])
    """

    geobox: "GeoBox"
    """The raster."""

    def __call__(self, window: Window) -> Floats:
        """Return the areas `(y, x)` of a window, float64.

        Raises
        ------
        CubeError
            A pixel has no place on the Earth.
        """
        (rows, row, down), (columns, column, across) = (
            self._between(part, length) for part, length in zip(window, self.geobox.shape, strict=True)
        )
        measured = self._measured(rows, columns)
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
        middle = float(np.sqrt(self._measured(np.array([height // 2]), np.array([width // 2]))[0, 0]))
        return int(np.clip(_LONGEST_M // middle, 1, _MOST_PIXELS))

    def _measured(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
        row, column = (axis.astype(np.float64) for axis in np.meshgrid(rows, columns, indexing="ij"))
        across = self._ecef(row + 0.5, column + 1) - self._ecef(row + 0.5, column)
        down = self._ecef(row + 1, column + 0.5) - self._ecef(row, column + 0.5)
        return np.asarray(np.linalg.norm(np.cross(across, down), axis=-1))

    def _ecef(self, row: Floats, column: Floats) -> Floats:
        """Return where points of the raster are in space, `(..., 3)`, m: instead of in degrees, which jump at 180 and at the poles."""
        a, b, c, d, e, f = self.geobox.affine[:6]
        transformer = lonlat_transformer(CRS.from_user_input(self.geobox.crs))
        lon, lat = np.radians(transformer.transform(a * column + b * row + c, d * column + e * row + f))
        if not np.isfinite((lon, lat)).all():
            raise CubeError(
                f"The raster has pixels without a place on the Earth in {crs_text(CRS.from_user_input(self.geobox.crs))}: "
                "is its CRS the right one?"
            )
        radius = _GEOD.a / np.sqrt(1 - _GEOD.es * np.sin(lat) ** 2)
        flat = radius * np.cos(lat)
        return np.stack([flat * np.cos(lon), flat * np.sin(lon), radius * (1 - _GEOD.es) * np.sin(lat)], axis=-1)
