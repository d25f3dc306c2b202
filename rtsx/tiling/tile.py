"""One tile: a square of pixels that the network sees at once, and the part of it that counts."""

from dataclasses import dataclass

__all__ = ["Tile"]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One network input of a `TilePlan`; all positions are pixels of its raster, (y, x)."""

    index: tuple[int, int]
    """Address on the lattice, the same for every raster of the grid."""
    start: tuple[int, int]
    """Upper-left pixel of the window; negative where it begins before the raster."""
    size: int
    """Pixels of the window along each axis."""
    support: tuple[slice, slice]
    """Pixels of the raster that the tile answers for, alone or with its neighbours."""
    core: tuple[slice, slice]
    """Pixels that are this tile's own: those of all tiles cover the raster once."""
