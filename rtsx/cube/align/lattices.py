"""Which rasters share a lattice, so that they can be read as one."""

from collections.abc import Iterable

from affine import Affine

from rtsx.cube.align.mosaic_reader import MosaicReader
from rtsx.cube.align.reader import WindowReader

__all__ = ["mosaics"]

_PHASE_STEPS = 64
"""Parts of a pixel that two corners are told apart by: tiles of one mosaic carry the rounding errors of their writers."""


def mosaics(readers: Iterable[WindowReader]) -> tuple[MosaicReader, ...]:
    """One raster for each lattice among some rasters, in the order in which the lattices first appear.

    A raster that is alone on its lattice is a mosaic, too: the next cell of a campaign may find two tiles there, and both
    have to be read at the same resolution.

    Examples
    --------
    >>> import numpy as np
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> from rtsx.cube.align.reader import ArrayReader
    >>> tiles = [
    ...     ArrayReader(np.ones((1, 2, 2), np.int16), GeoBox((2, 2), Affine(5, 0, x, 0, -5, 10), "EPSG:3413"), nodata=0)
    ...     for x in (0, 2.5, 10)
    ... ]
    >>> [one.geobox.shape.x for one in mosaics(tiles)]
    [4, 2]
    """
    groups: dict[object, list[WindowReader]] = {}
    for reader in readers:
        affine = reader.geobox.affine
        # The corner in pixels, turned back, because a raster may lie on its side; only rasters turned alike share `sizes`.
        inverse = ~Affine(affine.a, affine.b, 0, affine.d, affine.e, 0)
        corner = (
            inverse.a * affine.c + inverse.b * affine.f,
            inverse.d * affine.c + inverse.e * affine.f,
        )
        phase = tuple(round(place * _PHASE_STEPS) % _PHASE_STEPS for place in corner)
        sizes = tuple(round(value, 9) for value in (affine.a, affine.b, affine.d, affine.e))
        kind = (reader.count, reader.dtype.str, str(reader.nodata), str(reader.geobox.crs))
        groups.setdefault((kind, sizes, phase), []).append(reader)
    return tuple(MosaicReader(group) for group in groups.values())
