"""Rasters on one grid, such as the tiles of an elevation mosaic, read like one raster."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.georeference import describe_geobox
from rtsx.cube.resample.dtype import OutputDtype, is_representable
from rtsx.cube.resample.readers import WindowReader
from rtsx.errors import CubeError
from rtsx.geometry.crs import same_crs

_OFF_LATTICE = 0.01
"""Pixels that a tile may lie off the pixel grid of the first one, anywhere on the tile."""


@dataclass(frozen=True, init=False)
class MosaicReader:
    """Several readers as one raster that reaches around all of them; where they overlap, the first valid pixel counts.

    Raises
    ------
    CubeError
        There is no reader, their bands, dtypes or nodata differ, or they do not share one pixel grid to a hundredth of a pixel.
        Without nodata, there is ground between them that no value could mark as missing.

    Examples
    --------
    >>> from rtsx.cube.resample.readers import ArrayReader
    >>> left, right = (
    ...     ArrayReader(np.full((1, 2, 2), value), GeoBox((2, 2), Affine(5, 0, x, 0, -5, 10), "EPSG:3413"), nodata=-1)
    ...     for value, x in ((7, 0), (8, 15))
    ... )
    >>> MosaicReader([left, right]).read(slice(0, 1), slice(0, 5))
    array([[[ 7,  7, -1,  8,  8]]])
    """

    readers: tuple[WindowReader, ...]
    """The tiles, those that count first first."""
    geobox: GeoBox
    """The pixel grid, around all tiles."""
    nodata: float | None
    """That of the tiles; for floats without one, NaN."""
    _spans: NDArray[np.int64] = field(compare=False, repr=False)
    """First row, last row + 1, first column, last column + 1 of each tile in the mosaic, (tile, 4)."""

    def __init__(self, readers: Iterable[WindowReader]) -> None:
        tiles = tuple(readers)
        if not tiles:
            raise CubeError("A mosaic has at least one tile; got none.")
        for tile in tiles[1:]:
            _refuse_other_kind(tiles[0], tile)
        spans = np.array([_span(tiles[0].geobox, tile.geobox) for tile in tiles])
        top, left = spans[:, 0].min(), spans[:, 2].min()
        spans -= np.array([top, top, left, left])
        affine = tiles[0].geobox.affine
        corner = (affine.a * left + affine.b * top + affine.c, affine.d * left + affine.e * top + affine.f)
        shape = int(spans[:, 1].max()), int(spans[:, 3].max())
        nodata = tiles[0].nodata
        if nodata is None and tiles[0].dtype.kind == "f":
            nodata = float("nan")
        if nodata is None and not _covers(spans, shape):
            raise CubeError(
                f"{len(tiles)} tiles of {tiles[0].dtype} without nodata leave ground of their mosaic empty (shape {shape}), and "
                "no value can say so. Name a nodata value for them."
            )
        for name, value in {
            "readers": tiles,
            "geobox": GeoBox(
                shape, Affine(affine.a, affine.b, corner[0], affine.d, affine.e, corner[1]), tiles[0].geobox.crs
            ),
            "nodata": nodata,
            "_spans": spans,
        }.items():
            object.__setattr__(self, name, value)

    @property
    def count(self) -> int:
        """Number of bands."""
        return self.readers[0].count

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the tiles."""
        return self.readers[0].dtype

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return stored pixels (band, y, x) of a window; nodata where there is no tile.

        Raises
        ------
        CubeError
            A tile cannot be read.
        """
        shape = self.count, rows.stop - rows.start, columns.stop - columns.start
        pixels = np.full(shape, OutputDtype(self.dtype, self.nodata).fill, self.dtype)
        missing = np.ones(shape, bool)
        top, bottom, left, right = self._spans.T
        meets = (top < rows.stop) & (bottom > rows.start) & (left < columns.stop) & (right > columns.start)
        for place in np.flatnonzero(meets):
            first_row, last_row, first_column, last_column = (int(edge) for edge in self._spans[place])
            y0, y1 = max(first_row, rows.start), min(last_row, rows.stop)
            x0, x1 = max(first_column, columns.start), min(last_column, columns.stop)
            part = (slice(None), slice(y0 - rows.start, y1 - rows.start), slice(x0 - columns.start, x1 - columns.start))
            if missing[part].any():
                tile = self.readers[place]
                stored = tile.read(slice(y0 - first_row, y1 - first_row), slice(x0 - first_column, x1 - first_column))
                taken = missing[part] & is_representable(stored, tile.nodata)
                np.copyto(pixels[part], np.ma.getdata(stored), where=taken)
                missing[part] &= ~taken
        # Without a value that says so, what no tile has is masked.
        return (
            pixels
            if OutputDtype(self.dtype, self.nodata).has_fill or self.dtype.kind == "f" or not missing.any()
            else np.ma.MaskedArray(pixels, missing)
        )

    def overview_for(self, factor: float) -> Self:
        """Return itself: a mosaic is read at full resolution, however coarse the target.

        Which overview fits would hang on the tiles that happen to be in the mosaic, so that two cells of a campaign would
        give the same ground other values; and every tile's header would be read to find out. Elevation, which mosaics are
        for, is published at several resolutions: where reading takes long, a coarser product is the cure. "average" takes
        the mean over all pixels in any case.
        """
        return self


def _refuse_other_kind(first: WindowReader, tile: WindowReader) -> None:
    kinds = [
        (one.count, str(one.dtype), None if one.nodata is None else str(float(one.nodata))) for one in (first, tile)
    ]
    if kinds[0] != kinds[1]:
        raise CubeError(
            f"Tiles of a mosaic are of one kind: the first has (bands, dtype, nodata) {kinds[0]}, another {kinds[1]}. "
            "Read them as separate images."
        )


def _span(lattice: GeoBox, tile: GeoBox) -> tuple[int, int, int, int]:
    """Return the first and last + 1 row and column of a tile, counted from the first pixel of `lattice`."""
    if lattice.crs is None or tile.crs is None or not same_crs(lattice.crs, tile.crs):
        raise _off_lattice("another CRS", lattice, tile)
    height, width = tile.shape
    inverse = ~lattice.affine
    # All four corners, because a square tile that is turned or mirrored has two of them in place.
    rows, columns = np.array([0.0, height, 0, height]), np.array([0.0, width, width, 0])
    x = tile.affine.a * columns + tile.affine.b * rows + tile.affine.c - lattice.affine.c
    y = tile.affine.d * columns + tile.affine.e * rows + tile.affine.f - lattice.affine.f
    columns, rows = inverse.a * x + inverse.b * y, inverse.d * x + inverse.e * y
    top, left = round(float(rows[0])), round(float(columns[0]))
    apart = np.abs([rows - top - [0, height, 0, height], columns - left - [0, width, width, 0]]).max()
    if not apart <= _OFF_LATTICE:
        raise _off_lattice(f"{apart:.3g} px off", lattice, tile)
    return top, top + height, left, left + width


def _off_lattice(how: str, lattice: GeoBox, tile: GeoBox) -> CubeError:
    return CubeError(
        f"Tiles of a mosaic share one lattice to {_OFF_LATTICE} px; one is {how}: {describe_geobox(tile)}, the first is "
        f"{describe_geobox(lattice)}. Read them as separate images, each aligned by itself."
    )


def _covers(spans: NDArray[np.int64], shape: tuple[int, int]) -> bool:
    """Test whether spans leave no pixel of a rectangle out."""
    rows, columns = np.unique(spans[:, :2]), np.unique(spans[:, 2:])
    is_covered = np.zeros((len(rows) - 1, len(columns) - 1), bool)
    for top, bottom, left, right in spans:
        is_covered[
            np.searchsorted(rows, top) : np.searchsorted(rows, bottom),
            np.searchsorted(columns, left) : np.searchsorted(columns, right),
        ] = True
    return bool(is_covered.all()) and shape == (rows[-1], columns[-1])


_conforms: type[WindowReader] = MosaicReader


_PHASE_STEPS = 64
"""Parts of a pixel that two corners are told apart by: tiles of one mosaic carry the rounding errors of their writers."""


def group_by_grid(readers: Iterable[WindowReader]) -> tuple[MosaicReader, ...]:
    """Return one raster for each pixel grid among some rasters, in the order in which the pixel grids first appear.

    A raster that is alone on its pixel grid is a mosaic, too: the next cell of a campaign may find two tiles there, and both
    have to be read at the same resolution.

    Examples
    --------
    >>> import numpy as np
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> from rtsx.cube.resample.readers import ArrayReader
    >>> tiles = [
    ...     ArrayReader(np.ones((1, 2, 2), np.int16), GeoBox((2, 2), Affine(5, 0, x, 0, -5, 10), "EPSG:3413"), nodata=0)
    ...     for x in (0, 2.5, 10)
    ... ]
    >>> [one.geobox.shape.x for one in group_by_grid(tiles)]
    [4, 2]
    """
    groups: dict[object, list[WindowReader]] = {}
    for reader in readers:
        affine = reader.geobox.affine
        # The corner in pixels, turned back, because a raster may lie on its side; only rasters turned alike share `sizes`.
        inverse = ~Affine(affine.a, affine.b, 0, affine.d, affine.e, 0)
        corner = (inverse.a * affine.c + inverse.b * affine.f, inverse.d * affine.c + inverse.e * affine.f)
        phase = tuple(round(place * _PHASE_STEPS) % _PHASE_STEPS for place in corner)
        sizes = tuple(round(value, 9) for value in (affine.a, affine.b, affine.d, affine.e))
        kind = (reader.count, reader.dtype.str, str(reader.nodata), str(reader.geobox.crs))
        groups.setdefault((kind, sizes, phase), []).append(reader)
    return tuple(MosaicReader(group) for group in groups.values())
