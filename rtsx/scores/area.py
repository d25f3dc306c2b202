"""Sums of probability x ground by cells of a coarse grid: the kernel of expected areas."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsx.geometry.pixels import PixelMesh, Window

_MISSING = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class CellSums:
    """Sums of some cells; blocks add up."""

    cells: NDArray[np.int64]
    """`(cell, 2)` numbers along y (upwards) and x; each cell once, in order."""
    area_m2: NDArray[np.float64]
    """`(cell, 2)` expected and valid."""

    def __add__(self, more: "CellSums") -> "CellSums":
        cells, place = np.unique(np.concatenate([self.cells, more.cells]), axis=0, return_inverse=True)
        area = np.zeros((len(cells), 2))
        np.add.at(area, place.ravel(), np.concatenate([self.area_m2, more.area_m2]))
        return CellSums(cells=cells, area_m2=area)

    @classmethod
    def nothing(cls) -> "CellSums":
        """No cell."""
        return cls(cells=np.empty((0, 2), np.int64), area_m2=np.empty((0, 2)))


@dataclass(frozen=True, kw_only=True)
class SumCells:
    """Expected and valid area of parts of a raster by cell."""

    mesh: PixelMesh
    """Of the whole raster."""
    side: float
    """Of a cell, in the unit of the raster's CRS or in degrees; cells begin at multiples of it."""
    degrees: bool
    """Whether cells are those of longitude and latitude."""
    levels: int
    """Steps between probability 0 and 1, of floats 1."""

    def __call__(self, stored: NDArray[np.float32] | NDArray[np.uint8], window: Window) -> CellSums:
        """Sum a window of stored probabilities `(y, x)`; missing ones are 255, or NaN of floats."""
        valid = np.isfinite(stored) if stored.dtype.kind == "f" else stored != _MISSING
        if not valid.any():  # most of an Arctic is sea
            return CellSums.nothing()
        along_x, along_y = self.mesh.lonlat(window) if self.degrees else self._coordinates(window)
        cell_y, cell_x = (np.floor(along / self.side).astype(np.int64) for along in (along_y, along_x))
        first_y, first_x = cell_y.min(), cell_x.min()
        shape = (int(cell_y.max() - first_y) + 1, int(cell_x.max() - first_x) + 1)
        place = ((cell_y - first_y) * shape[1] + (cell_x - first_x))[valid]
        ground = self.mesh.areas_m2(window)[valid]
        sums = [
            np.bincount(place, weights=weights, minlength=shape[0] * shape[1])
            for weights in (ground * stored[valid] / self.levels, ground)
        ]
        met = np.flatnonzero(sums[1])
        y, x = np.divmod(met, shape[1])
        return CellSums(
            cells=np.column_stack([y + first_y, x + first_x]), area_m2=np.column_stack([each[met] for each in sums])
        )

    def _coordinates(self, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x and y `(y, x)` of the middles of a window's pixels."""
        a, b, c, d, e, f = self.mesh.geobox.affine[:6]
        row, column = (np.arange(part.start, part.stop) + 0.5 for part in window)
        return a * column + b * row[:, None] + c, d * column + e * row[:, None] + f
