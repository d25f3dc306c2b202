"""Where the pixels of a target lattice lie in a source raster: the exact answer, point by point."""

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from rtsx.cube.align.pyproj import same_crs, transform, turn_of
from rtsx.cube.georeference import describe_geobox
from rtsx.errors import CubeError

__all__ = ["Placement", "lattice_index"]

Floats = NDArray[np.float64]

_OFF_LATTICE = 0.01
"""Pixels that a target may lie off the lattice: far below what could be seen, far above rounding noise."""

_PIXEL_EQUAL = 1e-3
"""Pixels that two grids of one CRS may differ by anywhere on the source and still count as the same."""


def lattice_index(target: GeoBox, anchor: tuple[float, float]) -> tuple[int, int]:
    """Global row and column of a target's first pixel, counted from `anchor`; negative above or left of it.

    Raises
    ------
    CubeError
        The target has no CRS, is rotated or not north-up, or does not lie on whole pixels of the lattice.

    Examples
    --------
    >>> lattice_index(GeoBox((2, 2), Affine(3, 0, -30, 0, -3, 600), "EPSG:3413"), (0.0, 0.0))
    (-200, -10)
    """
    affine = target.affine
    if target.crs is None or affine.b or affine.d or not affine.a > 0 or not affine.e < 0:
        raise CubeError(f"Pixels are aligned to a north-up grid that has a CRS; got {describe_geobox(target)}.")
    row, column = (affine.f - anchor[1]) / affine.e, (affine.c - anchor[0]) / affine.a
    if not np.abs([row - np.round(row), column - np.round(column)]).max() <= _OFF_LATTICE:
        raise CubeError(
            f"A target lies on whole pixels of the lattice, to {_OFF_LATTICE} px; its corner ({affine.c}, {affine.f}) is at "
            f"row {row:.4f}, column {column:.4f} of the lattice at {anchor} with pixels of ({affine.a}, {affine.e}). "
            "Take a cell of the grid, or the target's own corner as anchor."
        )
    return round(row), round(column)


@dataclass(frozen=True)
class Placement:
    """A lattice of target pixels over one source raster.

    Positions in the source are in pixels from its first corner, (row, column), so that the middle of the first pixel is
    (0.5, 0.5). They depend on the number of the target pixel in its lattice alone, never on which block asks.

    Examples
    --------
    >>> source = GeoBox((10, 10), Affine(30, 0, 0, 0, -30, 300), "EPSG:3413")
    >>> Placement(source, CRS("EPSG:3413"), anchor=(0.0, 300.0), size=(10.0, -10.0)).positions(np.r_[0.0], np.r_[1.0])
    (array([0.16666667]), array([0.5]))
    """

    source: GeoBox
    """Grid of the source, north-up or not."""
    crs: CRS
    """CRS of the lattice."""
    anchor: tuple[float, float]
    """Corner (x, y) of pixel (0, 0) of the lattice, in CRS units."""
    size: tuple[float, float]
    """Width and height of a target pixel in CRS units; the height is negative."""

    @classmethod
    def of(cls, source: GeoBox, target: GeoBox, *, anchor: tuple[float, float]) -> "Placement":
        """The placement of the lattice that `target` is a window of.

        Raises
        ------
        CubeError
            The source has no CRS or no extent.
        """
        if source.crs is None or target.crs is None or not source.affine.determinant:
            raise CubeError(
                f"A raster can be aligned when its CRS and transform are known; got {describe_geobox(source)}."
            )
        return cls(source, target.crs, (float(anchor[0]), float(anchor[1])), (target.affine.a, target.affine.e))

    @property
    def source_crs(self) -> CRS:
        """CRS of the source."""
        assert self.source.crs is not None  # checked at construction
        return self.source.crs

    @property
    def turn(self) -> float:
        """Columns of the source once around the earth; 0 where it is not in longitude and latitude, or rotated."""
        affine = self.source.affine
        return 0.0 if affine.b or affine.d else turn_of(self.source_crs) / abs(affine.a)

    @property
    def period(self) -> int:
        """Columns after which the source begins again; 0 unless it spans all longitudes."""
        turn = self.turn
        whole = round(turn)
        spans = whole > 0 and abs(turn - whole) <= _OFF_LATTICE and self.source.shape[1] >= whole
        return whole if spans else 0

    def positions(self, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
        """Exact positions in the source of points in the lattice.

        Parameters
        ----------
        rows, columns
            Lattice points in pixels, of one shape; whole numbers are middles of pixels.

        Returns
        -------
        tuple
            Rows and columns in the source; not finite where the source's CRS has no such point. Around the earth,
            columns are those nearest to the raster.
        """
        x = self.anchor[0] + (columns + 0.5) * self.size[0]
        y = self.anchor[1] + (rows + 0.5) * self.size[1]
        x, y = transform(x, y, source=self.crs, target=self.source_crs)
        affine = self.source.affine
        # The corner first: dividing coordinates of the size of the earth would cost four digits.
        x, y = x - affine.c, y - affine.f
        if affine.b or affine.d:
            inverse = ~Affine(affine.a, affine.b, 0, affine.d, affine.e, 0)
            return inverse.d * x + inverse.e * y, inverse.a * x + inverse.b * y
        return y / affine.e, self._nearest_turn(x / affine.a)

    def offset(self) -> tuple[int, int] | None:
        """Rows and columns to add to a target pixel for the source pixel it equals; None where grids differ."""
        if not same_crs(self.crs, self.source_crs):
            return None
        height, width = self.source.shape
        x, y = self._ground(np.array([0.5]), np.array([0.5]))
        row, column = round(float(self._row(y)[0])), round(float(self._column(x)[0]))
        rows, columns = self.positions(np.array([row, row + height - 1.0]), np.array([column, column + width - 1.0]))
        apart = np.abs([rows - [0.5, height - 0.5], columns - [0.5, width - 0.5]])
        return (-row, -column) if (apart <= _PIXEL_EQUAL).all() else None

    def scale(self) -> float:
        """Source pixels along a target pixel, in the direction and at the place where they are fewest.

        Taken over the source as a whole, so that all blocks of a target choose the same overview.
        """
        height, width = self.source.shape
        fractions = (np.arange(5) + 0.5) / 5
        rows, columns = (grid.ravel() for grid in np.meshgrid(fractions * height, fractions * width, indexing="ij"))
        x, y = transform(*self._ground(rows, columns), source=self.source_crs, target=self.crs)
        rows, columns = self._row(y), self._column(x)
        middle = np.array(self.positions(rows, columns))
        below = np.array(self.positions(rows + 1, columns)) - middle
        right = np.array(self.positions(rows, columns + 1)) - middle
        steps = np.stack([self._short_way(below), self._short_way(right)], axis=-1).transpose(1, 0, 2)
        steps = steps[np.isfinite(steps).all(axis=(1, 2))]
        return float(np.linalg.svd(steps, compute_uv=False).min()) if len(steps) else 1.0

    def _ground(self, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
        """Coordinates (x, y) of positions in the source, in its CRS."""
        affine = self.source.affine
        return affine.a * columns + affine.b * rows + affine.c, affine.d * columns + affine.e * rows + affine.f

    def _row(self, y: Floats) -> Floats:
        return (y - self.anchor[1]) / self.size[1] - 0.5

    def _column(self, x: Floats) -> Floats:
        return (x - self.anchor[0]) / self.size[0] - 0.5

    def _short_way(self, step: Floats) -> Floats:
        """Steps (row, column) that do not go around the earth."""
        if self.turn:
            step[1] -= np.round(step[1] / self.turn) * self.turn
        return step

    def _nearest_turn(self, columns: Floats) -> Floats:
        """Columns moved by whole turns around the earth to where the raster is; the seam is as far from it as can be."""
        turn = self.period or self.turn
        if not turn:
            return columns
        slack = 0.0 if self.period else max(0.0, (turn - self.source.shape[1]) / 2)
        with np.errstate(invalid="ignore"):  # points that the CRS does not have
            moved: Floats = columns - np.floor((columns + slack) / turn) * turn
        return moved
