"""Which pixels of a source a cell asks for."""

import odc.geo
from odc.geo.geobox import GeoBox

from rtsx.cube.georeference import crs_name
from rtsx.errors import CubeError
from rtsx.grid import Cell

__all__ = ["cell_window"]

_PHASE_TOLERANCE = 0.01
"""Pixels that a source may lie off the grid's lattice: far below what a viewer could see, far above rounding noise."""


def cell_window(source: GeoBox, cell: Cell, *, name: str) -> tuple[slice, slice]:
    """Rows and columns of `source` that lie in `cell`.

    A source that covers part of the cell gives that part: nothing is filled in, and because tiles are anchored to the
    grid's lattice, the part is predicted exactly as it would be within the whole.

    Raises
    ------
    CubeError
        The source is not on the cell's grid, or does not meet the cell.
    """
    grid, wanted = cell.grid, cell.geobox
    if source.crs != odc.geo.CRS(grid.crs):
        raise _off_grid(name, "CRS", got=crs_name(source.crs), expected=grid.crs)
    affine = source.affine
    if max(abs(affine.a - grid.resolution), abs(affine.e + grid.resolution)) * max(source.shape) > (
        _PHASE_TOLERANCE * grid.resolution
    ):
        raise _off_grid(
            name, "pixel size", got=f"({affine.a}, {affine.e})", expected=f"({grid.resolution}, {-grid.resolution})"
        )
    column = (wanted.affine.c - affine.c) / grid.resolution
    row = (affine.f - wanted.affine.f) / grid.resolution
    if max(abs(row - round(row)), abs(column - round(column))) > _PHASE_TOLERANCE:
        raise _off_grid(name, "upper-left corner", got=f"({affine.c}, {affine.f})", expected=f"a whole pixel of {grid}")
    spans = []
    for start, size, length in (
        (round(row), grid.cell_size, source.shape[0]),
        (round(column), grid.cell_size, source.shape[1]),
    ):
        span = slice(max(start, 0), min(start + size, length))
        if span.start >= span.stop:
            raise CubeError(
                f"{name} does not meet cell {cell.id}: it covers {tuple(source.boundingbox)}, the cell {cell.bounds}. "
                "Choose another source or another cell."
            )
        spans.append(span)
    return spans[0], spans[1]


def _off_grid(name: str, what: str, *, got: str, expected: str) -> CubeError:
    return CubeError(
        f"{name} is not on the grid of the cell: {what} {got}, expected {expected}. "
        "Warp it first, e.g. with gdalwarp -t_srs -tr -tap, or open it without a cell."
    )
