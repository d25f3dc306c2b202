"""Where a raster lies on a pixel lattice, in whole pixels."""

import math

from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.errors import GridError

__all__ = ["grid_offset"]

_ROUNDING = 0.25
"""Pixels added before rounding down. Rasters of one lattice share a sub-pixel phase, which in the field is 0 (corner on
the lattice) or 0.5 (corner on a pixel centre); 0.25 keeps both a quarter pixel away from the place where floating
point noise would decide the answer, instead of the 0.5 of plain rounding, which sits on one of them."""


def grid_offset(raster: GeoBox | Affine, lattice_origin: tuple[float, float]) -> tuple[int, int]:
    """Global pixel index (row, column) of a raster's upper-left corner, counted from `lattice_origin`.

    Parameters
    ----------
    raster
        A north-up raster: its geobox, or its transform from pixel (x, y) to CRS units.
    lattice_origin
        Upper-left corner (x, y) of pixel (0, 0) of the lattice, in CRS units.

    Returns
    -------
    tuple
        Row and column; negative above or left of the origin. Any cut-out of a raster that is moved by whole pixels
        moves by the same number here.

    Raises
    ------
    GridError
        The raster is rotated or not north-up, or a number is not finite.

    Examples
    --------
    >>> grid_offset(Affine(3, 0, 600, 0, -3, -30), (0.0, 0.0))
    (10, 200)
    >>> grid_offset(Affine(3, 0, 601.5, 0, -3, -30), (0.0, 0.0))  # half a pixel off: the same for every cut-out
    (10, 200)
    """
    affine = raster if isinstance(raster, Affine) else raster.affine
    if affine.b or affine.d or not affine.a > 0 or not affine.e < 0:
        raise GridError(
            f"A raster on a lattice has to be north-up and not rotated (a > 0, b = d = 0, e < 0); got {tuple(affine)[:6]}. "
            "Warp it first, e.g. with gdalwarp."
        )
    column = (affine.c - lattice_origin[0]) / affine.a
    row = (lattice_origin[1] - affine.f) / -affine.e
    if not (math.isfinite(row) and math.isfinite(column)):
        raise GridError(f"Lattice origin {lattice_origin} and transform {tuple(affine)[:6]} have to be finite numbers.")
    return math.floor(row + _ROUNDING), math.floor(column + _ROUNDING)
