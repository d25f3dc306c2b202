"""Positions of target pixels in a source raster: exact point by point, or exact at nodes and quadratic in between."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from rtsx.cube.georeference import describe_geobox
from rtsx.errors import CubeError
from rtsx.geometry.crs import apply_affine, longitude_period, same_crs, transform

Floats = NDArray[np.float64]

_OFF_LATTICE = 0.01
"""Pixels that a target may lie off the pixel grid: far below what could be seen, far above rounding noise."""

_PIXEL_EQUAL = 1e-3
"""Pixels that two grids of one CRS may differ by anywhere on the source and still count as the same."""


def pixel_index(target: GeoBox, anchor: tuple[float, float]) -> tuple[int, int]:
    """Return the global row and column of a target's first pixel, counted from `anchor`; negative above or left of it.

    Raises
    ------
    CubeError
        The target has no CRS, is rotated or not north-up, or does not lie on whole pixels of the pixel grid.

    Examples
    --------
    >>> pixel_index(GeoBox((2, 2), Affine(3, 0, -30, 0, -3, 600), "EPSG:3413"), (0.0, 0.0))
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
class GridTransform:
    """A pixel grid of target pixels over one source raster.

    Positions in the source are in pixels from its first corner, (row, column), so that the middle of the first pixel is
    (0.5, 0.5). They depend on the number of the target pixel in its pixel grid alone, never on which block asks.

    Examples
    --------
    >>> source = GeoBox((10, 10), Affine(30, 0, 0, 0, -30, 300), "EPSG:3413")
    >>> GridTransform(source, CRS("EPSG:3413"), anchor=(0.0, 300.0), size=(10.0, -10.0)).positions(np.r_[0.0], np.r_[1.0])
    (array([0.16666667]), array([0.5]))
    """

    source: GeoBox
    """Grid of the source, north-up or not."""
    crs: CRS
    """CRS of the pixel grid."""
    anchor: tuple[float, float]
    """Corner (x, y) of pixel (0, 0) of the pixel grid, in CRS units."""
    size: tuple[float, float]
    """Width and height of a target pixel in CRS units; the height is negative."""

    @classmethod
    def of(cls, source: GeoBox, target: GeoBox, *, anchor: tuple[float, float]) -> "GridTransform":
        """Return the placement of the pixel grid that `target` is a window of.

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
        return 0.0 if affine.b or affine.d else longitude_period(self.source_crs) / abs(affine.a)

    @property
    def period(self) -> int:
        """Columns after which the source begins again; 0 unless it spans all longitudes."""
        turn = self.turn
        whole = round(turn)
        spans = whole > 0 and abs(turn - whole) <= _OFF_LATTICE and self.source.shape[1] >= whole
        return whole if spans else 0

    def positions(self, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
        """Return the exact positions in the source of points in the pixel grid.

        Parameters
        ----------
        rows, columns
            Pixel grid points in pixels, of one shape; whole numbers are middles of pixels.

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
        """Return rows and columns to add to a target pixel for the source pixel it equals; None where grids differ."""
        if not same_crs(self.crs, self.source_crs):
            return None
        height, width = self.source.shape
        x, y = self._ground(np.array([0.5]), np.array([0.5]))
        row, column = round(float(self._row(y)[0])), round(float(self._column(x)[0]))
        rows, columns = self.positions(np.array([row, row + height - 1.0]), np.array([column, column + width - 1.0]))
        apart = np.abs([rows - [0.5, height - 0.5], columns - [0.5, width - 0.5]])
        return (-row, -column) if (apart <= _PIXEL_EQUAL).all() else None

    def scale(self) -> float:
        """Return the source pixels along a target pixel, in the direction and at the place where they are fewest.

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
        """Return coordinates (x, y) of positions in the source, in its CRS."""
        return apply_affine(self.source.affine, columns, rows)

    def _row(self, y: Floats) -> Floats:
        return (y - self.anchor[1]) / self.size[1] - 0.5

    def _column(self, x: Floats) -> Floats:
        return (x - self.anchor[0]) / self.size[0] - 0.5

    def _short_way(self, step: Floats) -> Floats:
        """Return the steps (row, column) that do not go around the earth."""
        if self.turn:
            step[1] -= np.round(step[1] / self.turn) * self.turn
        return step

    def _nearest_turn(self, columns: Floats) -> Floats:
        """Return columns moved by whole turns around the earth to where the raster is; the seam is as far from it as can be."""
        turn = self.period or self.turn
        if not turn:
            return columns
        slack = 0.0 if self.period else max(0.0, (turn - self.source.shape[1]) / 2)
        with np.errstate(invalid="ignore"):  # points that the CRS does not have
            moved: Floats = columns - np.floor((columns + slack) / turn) * turn
        return moved


CELL = 64
"""Side in target pixels of a transform cell. Its corners, the middles of its edges and its own middle are exact: nodes every
32 px, anchored to global pixel indices."""

_NODE = CELL // 2

_CHECKS = ((CELL // 4, CELL // 4), (CELL // 4, 3 * CELL // 4))
"""Points (row, column) of every cell where interpolated and exact positions are compared: where the cubic part that a
quadratic leaves out is largest."""

_TOLERANCE = 1e-4
"""Source pixels that a position may be off: 0.01 units of a layer that changes by 100 from one pixel to the next. Cells of
pixels up to 30 m stay a thousand times below; those of a kilometre, near a pole, have to be exact."""

_BEND = 4.0
"""Source pixels by which a node may lie beside the straight line between its neighbours, twice. More is a jump, such as at
the antimeridian, or the pole."""

_OVERSHOOT = 2
"""Pixels by which positions inside a cell can leave the range of its nodes: a quarter of `_BEND` along each axis."""


class SourceExtent(NamedTuple):
    """Positions that a block needs, each as (lowest, highest)."""

    rows: tuple[float, float]
    columns: tuple[float, float]
    shifted: tuple[float, float]
    """Columns counted half a turn around the earth away, for what lies on both sides of the seam."""


@dataclass(frozen=True, eq=False)
class TransformGrid:
    """Source positions of a block of target pixels.

    A cell that the quadratic misses by more than `_TOLERANCE`, or that is bent by a jump, has exact positions for each
    pixel instead. That decision, like everything here, depends on global pixel indices alone.
    """

    placement: GridTransform
    """Whose positions these are."""
    rows: slice
    """Global rows of the block."""
    columns: slice
    """Global columns of the block."""
    node_rows: Floats
    """Source rows of the nodes, (2 cells + 1, 2 cells + 1)."""
    node_columns: Floats
    """Source columns of the nodes."""
    is_exact: NDArray[np.bool_]
    """(cell, cell): True where the nodes are not to be used."""
    exact_rows: Floats
    """Source rows of the pixels of exact cells, NaN elsewhere; (0, 0) where there is none."""
    exact_columns: Floats
    """Source columns of the pixels of exact cells."""
    corner_rows: Floats
    """Source rows of the upper left corners of the pixels of exact cells, one more along each axis; (0, 0) where there
    is none or where corners were not asked for."""
    corner_columns: Floats
    """Source columns of these corners."""

    @property
    def first_cell(self) -> tuple[int, int]:
        """Row and column of the first cell, counted from the pixel grid's corner."""
        return self.rows.start // CELL, self.columns.start // CELL

    def steps(self) -> Floats:
        """Return most source pixels, along either axis, from a target pixel to the one (below, right); (cell, cell, 2)."""
        nodes = np.stack([self.node_rows, self.node_columns])
        down, right = (np.abs(np.diff(nodes, axis=axis)).max(axis=0) / _NODE for axis in (1, 2))
        with np.errstate(invalid="ignore"):  # exact cells may lie where the CRS ends
            below = np.stack([down[i::2, j : -2 + j or None : 2] for i in (0, 1) for j in (0, 1, 2)]).max(axis=0)
            beside = np.stack([right[i : -2 + i or None : 2, j::2] for i in (0, 1, 2) for j in (0, 1)]).max(axis=0)
        return np.stack([below, beside], axis=-1)

    def reach(self) -> SourceExtent | None:
        """Return the lowest and highest positions of the pixels, up to the overshoot of the quadratic; None where there is none."""
        rows, columns = (_probes(span) for span in (self.rows, self.columns))
        probed = self._interpolated(rows, columns)
        is_smooth = ~self.is_exact[np.ix_(rows // CELL - self.first_cell[0], columns // CELL - self.first_cell[1])]
        parts = [(probed[0][is_smooth], probed[1][is_smooth], probed[1][is_smooth], _OVERSHOOT)]
        parts += [(row, column, self.exact_columns, 0) for row, column in self._exact_extents()]
        half = self.placement.turn / 2 or np.inf
        ranges = []
        for row, column, middle, slack in parts:
            known = np.isfinite(row) & np.isfinite(column)
            if known.any():
                row, column, is_far = row[known], column[known], middle[known] >= half
                shifted = column - np.where(is_far, self.placement.turn, 0)
                ranges.append([(axis.min() - slack, axis.max() + slack) for axis in (row, column, shifted)])
        if not ranges:
            return None
        lowest, highest = np.min(ranges, axis=0)[:, 0], np.max(ranges, axis=0)[:, 1]
        return SourceExtent(*((float(low), float(high)) for low, high in zip(lowest, highest, strict=True)))

    def _exact_extents(self) -> list[tuple[Floats, Floats]]:
        """Return rows and columns of the middle and of the corners of each pixel of an exact cell.

        Corners go the short way around the earth from the middle.
        """
        extents = [(self.exact_rows, self.exact_columns)]
        turn = self.placement.turn
        if self.corner_rows.size:
            for part in (np.s_[:-1, :-1], np.s_[1:, :-1], np.s_[:-1, 1:], np.s_[1:, 1:]):
                columns = self.corner_columns[part]
                if turn:
                    columns = columns - np.rint((columns - self.exact_columns) / turn) * turn
                extents.append((self.corner_rows[part], columns))
        return extents

    def _interpolated(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[Floats, Floats]:
        return _quadratic(self.node_rows, self.node_columns, at=(rows, columns), first=self.first_cell)


def transform_grid(
    placement: GridTransform, rows: slice, columns: slice, *, corners: bool, limit: int
) -> TransformGrid | None:
    """Return positions of a block of global rows and columns.

    Parameters
    ----------
    placement
        The pixel grid over the source.
    rows, columns
        Global rows and columns of the block.
    corners
        Whether to give the positions of pixel corners in exact cells too.
    limit
        Most pixels of a block that holds exact cells; None comes back for more, before memory is taken.
    """
    first = rows.start // CELL, columns.start // CELL
    count = -(-rows.stop // CELL) - first[0], -(-columns.stop // CELL) - first[1]
    down, right = (_NODE * np.arange(2 * cells + 1) + CELL * cell for cells, cell in zip(count, first, strict=True))
    nodes = _exact_grid(placement, down, right)
    is_exact = _bent(nodes[0]) | _bent(nodes[1])
    for check in _CHECKS:
        down, right = (CELL * (np.arange(n) + cell) + q for n, cell, q in zip(count, first, check, strict=True))
        truth = _exact_grid(placement, down, right)
        near = _quadratic(*nodes, at=(down, right), first=first)
        with np.errstate(invalid="ignore"):
            is_exact |= ~(np.maximum(*(np.abs(a - b) for a, b in zip(truth, near, strict=True))) <= _TOLERANCE)
    exact = outer = np.empty((0, 0)), np.empty((0, 0))
    if is_exact.any():
        if (rows.stop - rows.start) * (columns.stop - columns.start) > limit:
            return None
        spans = [np.arange(span.start, span.stop) for span in (rows, columns)]
        wanted = is_exact[np.ix_(spans[0] // CELL - first[0], spans[1] // CELL - first[1])]
        exact = _exact_points(placement, wanted, start=(rows.start, columns.start))
        if corners:
            touched = np.zeros((wanted.shape[0] + 1, wanted.shape[1] + 1), bool)
            for part in (np.s_[:-1, :-1], np.s_[1:, :-1], np.s_[:-1, 1:], np.s_[1:, 1:]):
                touched[part] |= wanted
            outer = _exact_points(placement, touched, start=(rows.start - 0.5, columns.start - 0.5))
    return TransformGrid(placement, rows, columns, *nodes, is_exact, *exact, *outer)


def _exact_grid(placement: GridTransform, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the exact positions of the grid of global rows and columns."""
    shape = len(rows), len(columns)
    points: Floats = np.empty((2, *shape))
    points[0], points[1] = rows[:, None], columns[None, :]
    found = placement.positions(points[0].ravel(), points[1].ravel())
    return found[0].reshape(shape), found[1].reshape(shape)


def _exact_points(
    placement: GridTransform, wanted: NDArray[np.bool_], *, start: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Return the exact positions where wanted, NaN elsewhere."""
    rows, columns = np.nonzero(wanted)
    down: Floats = np.add(rows, start[0], dtype=np.float64)
    right: Floats = np.add(columns, start[1], dtype=np.float64)
    found = placement.positions(down, right)
    filled = tuple(np.full(wanted.shape, np.nan) for _ in found)
    for out, values in zip(filled, found, strict=True):
        out[rows, columns] = values
    return filled[0], filled[1]


def _bent(nodes: Floats) -> NDArray[np.bool_]:
    """Return (cell, cell): whether the nine nodes of a cell are not all finite, or bend by more than `_BEND`."""
    with np.errstate(invalid="ignore"):
        down = ~(np.abs(nodes[:-2:2] - 2 * nodes[1::2] + nodes[2::2]) <= _BEND)
        right = ~(np.abs(nodes[:, :-2:2] - 2 * nodes[:, 1::2] + nodes[:, 2::2]) <= _BEND)
    return down[:, :-2:2] | down[:, 1::2] | down[:, 2::2] | right[:-2:2] | right[1::2] | right[2::2]


def _quadratic(
    *nodes: Floats, at: tuple[NDArray[np.int64], NDArray[np.int64]], first: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return positions on the grid of global rows and columns `at`, by the quadratic through the nodes of each cell."""
    (row, v), (column, u) = (
        (2 * (axis // CELL - cell), (axis % CELL) / CELL) for axis, cell in zip(at, first, strict=True)
    )
    found = []
    with np.errstate(invalid="ignore"):
        for node in nodes:
            lines = _through(*(node[row + i] for i in range(3)), at=v[:, None])
            found.append(_through(*(lines[:, column + j] for j in range(3)), at=u[None, :]))
    return found[0], found[1]


def _through(start: Floats, middle: Floats, end: Floats, *, at: Floats) -> Floats:
    """Return the parabola through three values at 0, 1/2 and 1."""
    value: Floats = start + at * ((4 * middle - 3 * start - end) + at * (2 * (start - 2 * middle + end)))
    return value


def _probes(span: slice) -> NDArray[np.int64]:
    """Return pixels of a span between which positions run without a turn: its ends, the nodes, and the last one of each cell."""
    pixels = np.arange(span.start, span.stop)
    place = pixels % CELL
    is_probe = (place == 0) | (place == _NODE) | (place == CELL - 1)
    is_probe[[0, -1]] = True
    found: NDArray[np.int64] = pixels[is_probe]
    return found
