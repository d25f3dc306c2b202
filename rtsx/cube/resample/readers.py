"""Windows of rasters on their own grid: arrays, files that GDAL opens, and Zarr groups."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.encoding import output_nodata
from rtsx.cube.georeference import crs_name, pixels_apart
from rtsx.cube.images import BandSource
from rtsx.cube.mask_rules import band_places, band_words
from rtsx.cube.rasterio import RasterHeader, read_header, read_overview_geobox, read_window
from rtsx.cube.stac.item import same_band_name
from rtsx.errors import CubeError
from rtsx.geometry.crs import same_crs
from rtsx.storage.codecs import fast_codecs, read_part
from rtsx.storage.zarr import metadata_stamp, open_group, require_chunks, store_failures


class WindowReader(Protocol):
    """Reads windows of the bands of one raster.

    Values, not handles: a reader can be pickled, holds no open file, and may be used by several threads at once.
    """

    @property
    def geobox(self) -> GeoBox:
        """CRS, transform and shape of the raster."""

    @property
    def count(self) -> int:
        """Number of bands."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what `read` returns."""

    @property
    def nodata(self) -> float | None:
        """Stored value of a missing pixel; None where there is none. NaN is always missing."""

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return stored pixels (band, y, x) of a window that lies within the raster; the caller owns them.

        A `numpy.ma.MaskedArray` where a mask of the raster says what is missing.
        """

    def overview_for(self, factor: float) -> "WindowReader":
        """Return the reader of the coarsest overview whose pixels are at most `factor` times as large; itself where none is."""


class ArrayReader:
    """A raster in memory: the fake for tests, and the reader of what has been computed.

    Examples
    --------
    >>> from affine import Affine
    >>> box = GeoBox((2, 3), Affine(10, 0, 0, 0, -10, 20), "EPSG:3413")
    >>> ArrayReader(np.arange(6).reshape(1, 2, 3), box, nodata=0).read(slice(0, 1), slice(1, 3))
    array([[[1, 2]]])
    """

    def __init__(self, pixels: NDArray[Any], geobox: GeoBox, *, nodata: float | None) -> None:
        self.pixels = pixels
        """Stored pixels (band, y, x)."""
        self.geobox = geobox
        self.nodata = nodata

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.pixels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the pixels."""
        return self.pixels.dtype

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return stored pixels (band, y, x) of a window, copied."""
        return self.pixels[:, rows, columns].copy()

    def overview_for(self, factor: float) -> Self:
        """Return itself: an array has no overviews."""
        return self


_reader_conforms: type[WindowReader] = ArrayReader


_TOLERANCE = 0.01
"""Pixels that a corner of the file may lie away from where the catalog puts it."""


@dataclass(frozen=True, kw_only=True)
class _StoredBands:
    """What a catalog says of bands, whatever reads them."""

    path: str
    """Path or URL of the file, as GDAL reads it, or of the group."""
    geobox: GeoBox
    """CRS, transform and shape; of an overview, its own."""
    dtype: np.dtype[Any]
    """Dtype that the bands are stored in."""
    nodata: float | None
    """Stored value of a missing pixel; None where there is none."""
    any_value: bool = False
    """Whether every stored value is data whatever the file declares missing, as in quality data; masks and alpha bands count all the same."""
    asset: str = ""
    """What the file is called in its catalog, for messages."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.path}{f' (asset {self.asset!r})' if self.asset else ''}"


@dataclass(frozen=True, kw_only=True)
class FileReader(_StoredBands):
    """Bands of one dtype of a raster file.

    Nothing is opened before the first `read`, and each opens the file anew: it may be used by several threads. What the
    file says of itself is then compared with what was said of it.

    Examples
    --------
    >>> from affine import Affine
    >>> box = GeoBox((100, 200), Affine(3, 0, 0, 0, -3, 300), "EPSG:3413")
    >>> FileReader(path="scene.tif", bands=(4, 3), geobox=box, dtype=np.dtype("uint16"), nodata=0).count
    2
    """

    bands: tuple[int, ...]
    """Band numbers, from 1."""
    scale_factor: float = 1.0
    """Physical units per stored unit, as the catalog says."""
    add_offset: float = 0.0
    """Physical value of stored 0, as the catalog says."""
    settled: frozenset[str] = frozenset({"scale_factor", "add_offset"})
    """Which of `nodata`, `scale_factor` and `add_offset` count whatever the file declares; the others must not contradict it."""
    like: RasterHeader | None = None
    """Header of another file that the bands were chosen and described by; None where it is the file's own, or the catalog said it all."""
    alone: tuple[str, ...] = ()
    """Names of the band where the catalog lists no other, so that one of several in the file has to have one of them."""
    names: tuple[str, ...] = ()
    """What the rule of quality data calls the bands, where another file's header answered for this one and the item does not name them."""
    overview: int | None = None
    """Which overview is read, 0 the finest; None for the raster itself."""

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.bands)

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return stored pixels (band, y, x) of a window; masked where the file has a mask or an alpha band.

        Raises
        ------
        CubeError
            The window cannot be read, or the file is not the one that was described.
        """
        return read_window(
            self.path,
            (rows, columns),
            bands=self.bands,
            overview=self.overview,
            masked=True,
            any_value=self.any_value,
            check=self.check,
        )

    def overview_for(self, factor: float) -> "FileReader":
        """Return the reader of the coarsest overview whose pixels are at most `factor` times as large; itself where none is."""
        if self.overview is not None or factor < 2 / _ROUNDED:
            return self
        factors = read_header(self.path).overviews
        fitting = [place for place, times in enumerate(factors) if times <= factor * _ROUNDED]
        for place in sorted(fitting, key=lambda one: factors[one], reverse=True):
            coarse = replace(self, geobox=read_overview_geobox(self.path, place, whole=self.geobox), overview=place)
            # By shape rather than by terms of the transform, because those are 0 in a raster turned by 90 degrees.
            if max(whole / part for whole, part in zip(self.geobox.shape, coarse.geobox.shape, strict=True)) <= factor:
                return coarse
        return self

    def check(self, header: RasterHeader) -> None:
        """Refuse a file that is not the one that was described.

        Raises
        ------
        CubeError
            It has another grid, dtype, nodata or scale.
        """
        name, found, dtypes = self.name, header.geobox, header.dtypes
        if max(self.bands) > len(dtypes):
            raise CubeError(f"{name} has {len(dtypes)} bands; band {max(self.bands)} was expected. Correct its entry.")
        kinds = sorted({dtypes[band - 1] for band in self.bands})
        differs: list[tuple[str, object, object]] = []
        if kinds != [self.dtype.name]:
            differs.append(("dtype", self.dtype.name, ", ".join(kinds)))
        if found.shape != self.geobox.shape:
            differs.append(("shape (y, x)", self.geobox.shape.yx, found.shape.yx))
        elif found.crs is not None and self.geobox.crs is not None and not same_crs(self.geobox.crs, found.crs):
            differs.append(("CRS", crs_name(self.geobox.crs), crs_name(found.crs)))
        elif found.crs is not None and pixels_apart(self.geobox, found) > _TOLERANCE:
            differs.append(("transform", tuple(self.geobox.affine)[:6], tuple(found.affine)[:6]))
        cure = "The file was replaced, or the item is wrong: correct the item, or leave these fields out of it."
        _refuse_others(name, differs, cure=cure)
        called = header.descriptions[self.bands[0] - 1]
        if self.alone and len(header.data_bands) > 1 and not any(same_band_name(one, called) for one in self.alone):
            raise CubeError(
                f"{name} has {len(header.data_bands)} bands called {list(header.descriptions)}, and its item lists one, {self.alone[0]!r}: which "
                "of them that is cannot be known. Give its number in the layer, as `band: 1`, or list all bands in the item."
            )
        self._check_like(header)
        if not self.any_value:
            self._check_packing(header)

    def _check_like(self, header: RasterHeader) -> None:
        """Refuse a file that says otherwise of its bands than the one sampled for its collection."""
        like = self.like
        if like is None:
            return
        described = [header.descriptions[band - 1] for band in self.bands]
        try:
            order = band_places(self.names, described)
        except CubeError as error:
            raise CubeError(f"{self.name}: {error}") from error
        if not any(like.descriptions) and list(order) != sorted(order):
            raise CubeError(
                f"{self.name} describes its bands as {described}, in another order than the rule that reads them, {list(self.names)}; {like.path}, whose "
                "header answered for its collection, does not. State the bands in the items, or make those that differ a source of their own."
            )
        is_turned = self.any_value and list(self.bands) != sorted(self.bands)  # by the names of the sampled one
        for band in self.bands:
            name, other = header.descriptions[band - 1], like.descriptions[band - 1]
            packed = [(one.scales[band - 1], one.offsets[band - 1]) for one in (header, like) if like.scales]
            if self.any_value or {"scale_factor", "add_offset"} <= self.settled:
                packed = []
            is_known = bool(name) or not other or not is_turned
            if len(set(packed)) > 1 or not is_known or (name and other and band_words(name) != band_words(other)):
                packings = [
                    f" and has the scale {scale:.15g} and the offset {offset:.15g}" for scale, offset in packed
                ] or ["", ""]
                raise CubeError(
                    f"{self.name}: its band {band} is called {name!r}{packings[0]}; in {like.path}, whose header "
                    f"answered for its collection, it is called {other!r}{packings[1]}. State bands and packing in "
                    "the items, or make those that differ a source of their own."
                )

    def _check_packing(self, header: RasterHeader) -> None:
        """Refuse a file that declares other packing than its catalog: its values, or its edges, would count as what they are not."""
        for field, silent, values in (
            ("nodata", None, header.nodata),
            ("scale_factor", 1.0, header.scales),
            ("add_offset", 0.0, header.offsets),
        ):
            stated: float | None = getattr(self, field)
            declared = [values[band - 1] for band in self.bands]
            if field == "nodata":  # only what a stored pixel can be; NaN is missing anyway
                stated, *declared = (output_nodata(value, self.dtype) for value in (stated, *declared))
            present = [value for value in declared if value is not None and value != silent]
            others = sorted(
                {value for value in present if stated is None or not math.isclose(value, stated, rel_tol=1e-6)}
            )
            if others and field not in self.settled:
                item = f"no {field}" if stated in (None, silent) else f"{field} {stated:.15g}"
                raise CubeError(
                    f"{self.name} declares {field} {', '.join(f'{value:.15g}' for value in others)}; the item that describes it "
                    f"states dtype {self.dtype.name} and {item}. Write {field}: with the right value in the layer, or correct "
                    "the item."
                )


_ROUNDED = 1.01
"""Overview factors are whole numbers that GDAL rounded: a level of 3.98 is called 4."""


_file_reader_conforms: type[WindowReader] = FileReader


VALID = "valid"
"""Array of a cube's store that says which pixels count."""
MASKED = "masked_by_valid"
"""Attribute of an array whose pixels mean nothing without it."""


@dataclass(frozen=True, kw_only=True)
class ZarrReader(_StoredBands):
    """Arrays (y, x) of one dtype and shape in a Zarr group, v2 or v3, each as a band.

    Nothing is opened before the first `read`: it may be pickled, and used by several threads.

    Examples
    --------
    >>> from affine import Affine
    >>> box = GeoBox((100, 200), Affine(3, 0, 0, 0, -3, 300), "EPSG:3413")
    >>> ZarrReader(path="scene.zarr", arrays=("red", "nir"), geobox=box, dtype=np.dtype("uint16"), nodata=0).count
    2
    """

    arrays: tuple[str, ...]
    """Names of the arrays, in band order."""
    step: int | None = None
    """Place along the one further axis of an array that is longer than one; None where none has."""

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.arrays)

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return stored pixels (band, y, x) of a window; chunks that were never written hold the array's fill value.

        Masked by the array `valid` that cubes have, where the pixels have no value of their own for what is missing.

        Raises
        ------
        CubeError
            The group cannot be read there, or an array is not the one that was described.
        """
        stamp = metadata_stamp(self.path, (*self.arrays, VALID))
        arrays, valid = self.open_arrays() if stamp is None else _opened(self, stamp)
        shape = rows.stop - rows.start, columns.stop - columns.start
        pixels = np.empty((len(arrays), *shape), self.dtype)
        for array, plane in zip(arrays, pixels, strict=True):
            self._read(array, rows, columns, out=plane)
        if valid is None:
            return pixels
        counts = np.empty(shape, valid.dtype)
        self._read(valid, rows, columns, out=counts)
        if counts.dtype != bool and counts.max(initial=0) > 1:
            raise CubeError(
                f"{self.name}: array {VALID!r} says by 0 and 1 which pixels count; got {counts.max()}. Store it so."
            )
        return np.ma.MaskedArray(pixels, np.broadcast_to(counts == 0, pixels.shape))

    def overview_for(self, factor: float) -> Self:
        """Return itself: the levels that Zarr stores have no common rule for what a coarse pixel is the mean of."""
        return self

    def _read(self, array: zarr.Array[Any], rows: slice, columns: slice, *, out: NDArray[Any]) -> None:
        """Read pixels (y, x) of a window, of one step; leading axes of length one, such as a single time, fall away."""
        window = "rows {0.start}-{0.stop}, columns {1.start}-{1.stop}"
        with store_failures(
            self.name, what=lambda: f"{array.basename} cannot be read in {window.format(rows, columns)}"
        ):
            steps = (slice(step, step + 1) for step in (0 if n == 1 else self.step or 0 for n in array.shape[:-2]))
            read_part(array, (*steps, rows, columns), out=out)

    def open_arrays(self) -> "tuple[tuple[zarr.Array[Any], ...], zarr.Array[Any] | None]":
        """Open the arrays, and the one that says which pixels count, where the pixels have no value for that."""
        group = open_group(self.path, {})
        arrays = tuple(self._array(group, name) for name in self.arrays)
        has_value = output_nodata(self.nodata, self.dtype) is not None or self.dtype.kind not in "iu"
        if self.any_value:
            has_value = not any(array.attrs.get(MASKED) for array in arrays)
        if has_value or VALID in self.arrays:
            return arrays, None
        valid = self._valid(group)
        if valid is None and any(array.attrs.get(MASKED) for array in arrays):
            raise CubeError(
                f"{self.name} lacks its array {VALID!r}, which says which pixels count. Copy the store again."
            )
        return arrays, valid

    def _valid(self, group: zarr.Group) -> zarr.Array[Any] | None:
        """Return the array that says which pixels count; None where there is none."""
        with fast_codecs():
            array = group.get(VALID)
        if not isinstance(array, zarr.Array) or array.dtype.kind not in "bu":
            return None
        if array.shape[-2:] != self.geobox.shape.yx or not self._is_plane(array.shape):
            return None
        if array.metadata.fill_value:  # a chunk that is not there would count as pixels
            require_chunks(group, VALID)
        return array

    def _is_plane(self, shape: Sequence[int]) -> bool:
        """Test whether one plane (y, x) of an array is meant."""
        several = [length for length in shape[:-2] if length > 1]
        of_step = self.step is not None and len(several) == 1 and self.step < several[0]
        return len(shape) >= 2 and (of_step or not several)

    def _array(self, group: zarr.Group, name: str) -> zarr.Array[Any]:
        """Return an array, after a look at what it says of itself."""
        with fast_codecs():
            array = group.get(name)
        if not isinstance(array, zarr.Array):
            raise CubeError(
                f"{self.name} has no array {name!r}; there are {sorted(group.array_keys())}. Correct the names of its bands."
            )
        differs: list[tuple[str, object, object]] = []
        if array.dtype.newbyteorder("=") != self.dtype:
            differs.append(("dtype", self.dtype, array.dtype))
        expected = self.geobox.shape.yx
        if array.shape[-2:] != expected or not self._is_plane(array.shape):
            differs.append(("shape (y, x)", expected, array.shape))
        elif (straight := (self.path, name, self.geobox)) not in _STRAIGHT:
            differs += self._turned(group, array)
            if not differs:
                if len(_STRAIGHT) >= 10_000:
                    _STRAIGHT.clear()
                _STRAIGHT.add(straight)
        _refuse_others(f"{name} of {self.name}", differs, cure="Correct its entry.")
        fill, declared = array.metadata.fill_value, array.attrs.get("_FillValue")
        # Format 2 has one word for what is missing and what a chunk that is not there reads as.
        is_stated = fill is not None and (
            array.metadata.zarr_format == 2 or np.isnan(fill) or fill in (self.nodata, declared)
        )
        if not is_stated:
            require_chunks(group, name)
        return array

    def _turned(self, group: zarr.Group, array: zarr.Array[Any]) -> Iterator[tuple[str, object, object]]:
        """Yield what would turn the pixels: axes in another order, or one whose coordinates are those of the raster in reverse."""
        dims: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
        if tuple(dims[-2:]) == ("x", "y"):
            yield "axes", ("y", "x"), ("x", "y")
        height, width = self.geobox.shape.yx
        (left, top), (right, bottom) = self.geobox.affine * (0.5, 0.5), self.geobox.affine * (width - 0.5, height - 0.5)
        for dim, length, first, last in zip(dims[-2:], (height, width), (top, left), (bottom, right), strict=False):
            stored = group.get(str(dim))
            if (
                length > 1
                and isinstance(stored, zarr.Array)
                and stored.shape == (length,)
                and stored.dtype.kind in "iuf"
            ):
                with store_failures(self.name, what=lambda: "coordinates cannot be read"):
                    found = [float(np.asarray(stored[place]).item()) for place in (0, -1)]
                if np.allclose(found, (last, first), rtol=0, atol=abs(last - first) / (length - 1)):
                    yield f"first and last {dim}", (first, last), tuple(found)


@lru_cache(maxsize=64)
def _opened(
    reader: ZarrReader, stamp: tuple[object, ...]
) -> "tuple[tuple[zarr.Array[Any], ...], zarr.Array[Any] | None]":
    """Open what a reader reads, once as long as its metadata stay as they are: to open ten arrays takes as long as to read a chunk of them."""
    return reader.open_arrays()


_STRAIGHT: set[tuple[str, str, GeoBox]] = set()
"""Arrays whose coordinates were found to be those of their raster, so that windows after the first do not read them again."""


def _refuse_others(name: str, differs: Sequence[tuple[str, object, object]], *, cure: str) -> None:
    """Raise where anything differs: what, as it was expected, and as it was found."""
    if differs:
        differences = "; ".join(f"{what}: expected {expected}, found {got}" for what, expected, got in differs)
        raise CubeError(f"{name} is not what its catalog says it is: {differences}. {cure}")


_zarr_reader_conforms: type[WindowReader] = ZarrReader


def open_reader(bands: BandSource, *, any_value: bool = False) -> WindowReader:
    """Return the reader of bands of a file or Zarr group; opens nothing, and compares with the file when that is read.

    Parameters
    ----------
    bands
        What the catalog says of them. Where it says no nodata, a file that declares one is refused when it is read.
    any_value
        Whether every stored value is data, as in quality data: then no nodata counts, neither the catalog's nor the file's.

    Raises
    ------
    CubeError
        There is no band, or bands are named in a way that their file cannot answer: files have numbers, Zarr names.

    Examples
    --------
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> box = GeoBox((100, 200), Affine(3, 0, 0, 0, -3, 300), "EPSG:3413")
    >>> open_reader(BandSource(href="scene.tif", bands=(1,), geobox=box, dtype="uint16", nodata=0)).nodata
    0
    """
    if bands.reader is not None:
        return bands.reader
    numbers = tuple(band for band in bands.bands if isinstance(band, int))
    names = tuple(band for band in bands.bands if isinstance(band, str))
    if not bands.bands or (names if bands.opener == "gdal" else numbers):
        kind = "numbers from 1" if bands.opener == "gdal" else "names of arrays"
        raise CubeError(f"Bands of {bands.href} are {kind}, at least one; got {bands.bands}.")
    given: dict[str, Any] = {"path": bands.href, "geobox": bands.geobox, "dtype": np.dtype(bands.dtype)}
    given |= {"nodata": None if any_value else bands.nodata, "any_value": any_value, "asset": bands.asset}
    if bands.opener == "zarr":
        return ZarrReader(arrays=names, step=bands.step, **given)
    packing = {
        name: getattr(bands, name) for name in ("scale_factor", "add_offset", "settled", "like", "alone", "names")
    }
    return FileReader(bands=numbers, **packing, **given)
