"""Truth from outlines, rasterised window by window, and from a label raster on the cube's own grid."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import geopandas
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rtsx.cube import geobox_of, layer_names
from rtsx.cube.georeference import describe_geobox
from rtsx.cube.open import open_source
from rtsx.errors import LabelError
from rtsx.geometry.crs import crs_text
from rtsx.labels.rasterize import IGNORED, LabelRaster, TruthWindow, ignore_borders, rasterize, to_pixels
from rtsx.labels.schema import broken_outline
from rtsx.names import did_you_mean


@dataclass(frozen=True, kw_only=True, eq=False)
class RasterizedLabels:
    """Outlines on the pixels of a raster; made by `rasterize_labels`."""

    classes: tuple[str, ...]
    """Names of the classes, counted from 1."""
    shape: tuple[int, int]
    """Height and width of the raster, px."""
    ignore: int
    """Pixels on both sides of each class border that become `IGNORED`."""
    outlines: NDArray[np.object_] = field(repr=False)
    """Polygons or MultiPolygons in pixel coordinates, `(label,)`, in the order in which they are painted: those that meet
    the raster or lie within `ignore` px of it."""
    numbers: NDArray[np.uint8] = field(repr=False)
    """Class of each outline, `(label,)`, counted from 1."""
    ids: tuple[str, ...] = field(default=(), repr=False)
    """`label_id` of each outline, then of each refused one; empty where a table had none."""
    refused: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, np.object_), repr=False)
    """What looks like a class and is none, in pixel coordinates, `(refused,)`: 0 like all other ground, but shown more often."""

    @cached_property
    def label_ids(self) -> frozenset[str]:
        """Ids of the labels that cover ground of the raster: scenes that share one must not be on both sides of a split."""
        height, width = self.shape
        inside = shapely.area(shapely.intersection(self._all, shapely.box(0, 0, width, height))) > 0
        return frozenset(name for name, is_inside in zip(self.ids, inside, strict=False) if is_inside)

    @cached_property
    def count(self) -> int:
        """How many labels meet the raster; 0 where all of them lie elsewhere."""
        height, width = self.shape
        return int(shapely.intersects(self._all, shapely.box(0, 0, width, height)).sum())

    @property
    def _all(self) -> NDArray[np.object_]:
        return np.concatenate([self.outlines, self.refused])

    @cached_property
    def digest(self) -> str:
        """sha256, as hex, over size, classes, band and the outlines in pixels, in order, refused ones included."""
        digest = hashlib.sha256(repr((self.classes, self.shape, self.ignore)).encode())
        digest.update(self.numbers.tobytes())
        for outline in shapely.to_wkb(self._all, byte_order=1):  # `numbers` says which of them are refused: the rest
            digest.update(outline)
        return digest.hexdigest()

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Return values (y, x) of a window.

        Labels beyond the raster's edge count in the band of `ignore` px, so that a cut-out of a raster has the same truth.
        """
        rows, columns = window
        band = self.ignore
        row, column = rows.start - band, columns.start - band
        values = np.zeros((rows.stop + band - row, columns.stop + band - column), np.uint8)
        height, width = values.shape
        for index in np.sort(self._tree.query(shapely.box(column, row, column + width, row + height))):
            rasterize(values, self.outlines[index], number=int(self.numbers[index]), origin=(row, column))
        banded = ignore_borders(values, ignore=band)
        return banded[band : height - band, band : width - band].copy()

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.outlines)


def rasterize_labels(
    labels: geopandas.GeoDataFrame,
    geobox: GeoBox,
    *,
    classes: Sequence[str],
    ignore: int = 0,
    unsure: geopandas.GeoDataFrame | None = None,
    refused: geopandas.GeoDataFrame | None = None,
) -> RasterizedLabels:
    """Return the truth of label polygons on the pixels of a raster.

    A pixel is the class of the last label, in the order of rows, that its centre lies in. Nothing is painted before a
    window is read; memory grows with windows and labels, never with the raster.

    Parameters
    ----------
    labels : geopandas.GeoDataFrame
        Valid Polygons or MultiPolygons in any CRS, with a column `class_name`; as `read_labels` gives them. Those that lie
        elsewhere are passed over: `RasterizedLabels.count` says how many meet the raster.
    geobox : odc.geo.geobox.GeoBox
        The raster, as `rtsx.cube.geobox_of(cube)` gives it.
    classes : sequence of str
        Names of the classes, at most 254: the k-th, counted from 1, becomes the value k.
    ignore : int
        Pixels on both sides of each class border that become 255, where distance is Euclidean between pixel centres.
    unsure : geopandas.GeoDataFrame or None
        Outlines whose pixels become 255 where no label lies on them.
    refused : geopandas.GeoDataFrame or None
        Outlines of what looks like a class and is none; training shows them more often.

    Returns
    -------
    RasterizedLabels
        Can be pickled.

    Raises
    ------
    LabelError
        A label has a class that is not among `classes`, no class, no outline, an invalid outline, or no place in the
        raster's CRS; or there is no CRS.

    Examples
    --------
    >>> table = {"class_name": ["slump"], "geometry": [shapely.box(600, -90, 660, -30)]}
    >>> labels = geopandas.GeoDataFrame(table, crs="EPSG:3413")
    >>> from affine import Affine
    >>> raster = GeoBox((4, 4), Affine(30, 0, 600, 0, -30, 0), "EPSG:3413")
    >>> truth = rasterize_labels(labels, raster, classes=["slump"])
    >>> truth.count, truth.read((slice(0, 2), slice(0, 4))).tolist()
    (1, [[0, 0, 0, 0], [1, 1, 0, 0]])
    """
    names = check_classes(classes)
    band = check_ignore(ignore)
    numbers = _numbers(labels, names)
    under = _placed(unsure, geobox, margin=band)
    placed = _placed(labels, geobox, margin=band)
    beside = _placed(refused, geobox, margin=band)
    return RasterizedLabels(
        classes=names,
        shape=(int(geobox.shape.y), int(geobox.shape.x)),
        ignore=band,
        outlines=np.concatenate([under[0], placed[0]]),
        numbers=np.concatenate([np.full(len(under[0]), IGNORED, np.uint8), numbers[placed[1]]]),
        ids=(*under[2], *placed[2], *beside[2]),
        refused=beside[0],
    )


def _placed(
    table: geopandas.GeoDataFrame | None, geobox: GeoBox, *, margin: int
) -> tuple[NDArray[np.object_], NDArray[np.int64], tuple[str, ...]]:
    """Return the outlines in pixels, which rows they are, and their ids."""
    if table is None or not len(table):
        return np.empty(0, np.object_), np.empty(0, np.int64), ()
    placed, which = to_pixels(_outlines(table), CRS.from_user_input(table.crs), geobox, margin=margin)
    ids = tuple(table["label_id"].iloc[which].astype(str)) if "label_id" in table.columns else ()
    return np.asarray(placed, np.object_), which, ids


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes, once it is known that values can stand for them."""
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    if not names or len(set(names)) < len(names) or len(names) >= IGNORED or not all(names):
        raise LabelError(
            f"A truth has 1 to {IGNORED - 1} classes with names of their own, but classes is {list(classes)}. "
            "Name each class once."
        )
    return names


def check_ignore(ignore: int) -> int:
    """Return the width of a band, once it is known to be one."""
    if isinstance(ignore, bool) or int(ignore) != ignore or ignore < 0:
        raise LabelError(f"ignore is a whole number of pixels, at least 0; got {ignore!r}. 0 ignores nothing.")
    return int(ignore)


def _numbers(labels: geopandas.GeoDataFrame, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    if "class_name" not in labels.columns:
        raise LabelError(
            f"Labels have a column 'class_name', but there are {', '.join(map(str, labels.columns))}. "
            "Bring them into the schema with rtsx.standardise_labels(labels, class_name=...)."
        )
    known = {name: number for number, name in enumerate(classes, 1)}
    found = labels["class_name"]
    is_unknown = ~found.isin(classes)
    if is_unknown.any():
        row = int(np.argmax(is_unknown.to_numpy()))
        name = found.iloc[row]
        raise LabelError(
            f"{int(is_unknown.sum())} of {len(labels)} labels have none of the classes {', '.join(classes)}; the first is "
            f"row {row} with {name!r}.{did_you_mean(str(name), classes)} Add the class, or leave its labels out with "
            "labels[labels['class_name'].isin(classes)]."
        )
    return np.asarray(found.map(known), np.uint8)


def _outlines(labels: geopandas.GeoDataFrame) -> NDArray[np.object_]:
    if labels.crs is None:
        raise LabelError("Labels have a CRS, but it is None. Say what it is with labels.set_crs(...).")
    outlines = np.asarray(labels.geometry.array, np.object_)
    if (broken := broken_outline(outlines)) is not None:
        count, row, what = broken
        raise LabelError(
            f"Labels are valid Polygons or MultiPolygons, but {count} of {len(labels)} are not; the first is "
            f"row {row}: {what}. Repair them with rtsx.standardise_labels(labels)."
        )
    return outlines


_ROWS_AT_ONCE = 1024
"""Rows of the raster that are in memory together while its digest is made."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RasterLabels:
    """A raster of codes, recoded window by window; made by `open_label_raster`."""

    classes: tuple[str, ...]
    """Names of the classes, counted from 1."""
    raster: xr.DataArray = field(repr=False)
    """Codes, (y, x), integers, lazy or not."""
    codes: tuple[tuple[int, ...], ...]
    """Codes of each class."""
    ignored: tuple[int, ...]
    """Codes that become `IGNORED`."""
    ignore: int
    """Pixels on both sides of each class border that become `IGNORED`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the raster, px."""
        height, width = self.raster.shape
        return height, width

    @cached_property
    def digest(self) -> str:
        """sha256, as hex, over classes, codes, band and the recoded pixels; reads the whole raster once, rows at a time."""
        height, width = self.shape
        digest = hashlib.sha256(repr((self.classes, self.shape, self.ignore)).encode())
        for start in range(0, height, _ROWS_AT_ONCE):
            digest.update(self._recoded(slice(start, min(start + _ROWS_AT_ONCE, height)), slice(0, width)).tobytes())
        return digest.hexdigest()

    def read(self, window: TruthWindow) -> NDArray[np.uint8]:
        """Return values (y, x) of a window; reads `ignore` px around it."""
        (rows, columns), (height, width), band = window, self.shape, self.ignore
        top, left = max(rows.start - band, 0), max(columns.start - band, 0)
        values = self._recoded(slice(top, min(rows.stop + band, height)), slice(left, min(columns.stop + band, width)))
        inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        return ignore_borders(values, ignore=band)[inner].copy()

    def _recoded(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        found = np.asarray(self.raster[rows, columns])
        values = np.zeros(found.shape, np.uint8)
        for number, codes in enumerate(self.codes, 1):
            values[np.isin(found, codes)] = number
        values[np.isin(found, self.ignored)] = IGNORED
        return values


def open_label_raster(
    raster: xr.DataArray, *, classes: Mapping[str, Sequence[int]], ignored: Sequence[int] = (), ignore: int = 0
) -> RasterLabels:
    """Return the truth of a raster of codes, such as a land cover map, on the pixels of a cube.

    Nothing is read before a window is asked for.

    Parameters
    ----------
    raster : xarray.DataArray
        Codes, (y, x), integers or booleans, lazy or not; on the grid of the cube that it is the truth of.
    classes : mapping of str to sequence of int
        Codes of each class; the k-th class, counted from 1, becomes the value k. Any other code becomes 0.
    ignored : sequence of int
        Codes of pixels that count neither way. What the attribute `_FillValue` or `nodata` of the raster says is one of
        them, unless a class names it.
    ignore : int
        Pixels on both sides of each class border that become 255, where distance is Euclidean between pixel centres.
        Ignored pixels and the raster's edge are no border.

    Returns
    -------
    RasterLabels
        Can be pickled, if the raster can.

    Raises
    ------
    LabelError
        The raster is not (y, x) or not of integers; a class has no code, or two have the same.

    Examples
    --------
    >>> cover = xr.DataArray(np.array([[1, 2, 3], [0, 3, 3]], np.uint8), dims=("y", "x"))
    >>> open_label_raster(cover, classes={"low": [3], "water": [1]}, ignored=[0]).read((slice(0, 2), slice(0, 3)))
    array([[  2,   0,   1],
           [255,   1,   1]], dtype=uint8)
    """
    if raster.dims != ("y", "x"):
        raise LabelError(
            f"A label raster has the dimensions (y, x), but this has {tuple(map(str, raster.dims))}. "
            "Select one band and one time, or transpose it."
        )
    if raster.dtype.kind not in "iub":
        raise LabelError(
            f"A label raster holds codes, which are integers, but this holds {raster.dtype}. Convert it with gdal_translate -ot "
            "Byte; in Python, with raster.fillna(255).astype('uint8')."
        )
    names = check_classes(tuple(classes))
    codes = tuple(tuple(int(code) for code in classes[name]) for name in names)
    missing = raster.attrs.get("_FillValue", raster.attrs.get("nodata"))
    flat = [code for some in codes for code in some]
    if missing is not None and float(missing).is_integer() and int(missing) not in flat:
        ignored = (*ignored, int(missing))
    if not all(codes) or len({*flat, *ignored}) < len(flat) + len(set(ignored)):
        raise LabelError(
            f"Each class has codes of its own, but classes are {dict(zip(names, codes, strict=True))} and ignored are "
            f"{[int(code) for code in ignored]}. Give each code to one of them."
        )
    return RasterLabels(
        classes=names,
        raster=raster,
        codes=codes,
        ignored=tuple(sorted({int(code) for code in ignored})),
        ignore=check_ignore(ignore),
    )


def read_label_raster(path: str, geobox: GeoBox, *, band: int) -> xr.DataArray:
    """Open the codes of a raster file for `open_label_raster`; reads no pixel.

    Parameters
    ----------
    path : str
        What `rtsx.open_cube` takes.
    geobox : odc.geo.geobox.GeoBox
        Whose pixels they have to lie on.
    band : int
        Which, from 1.

    Raises
    ------
    LabelError
        It has no such band, or lies on other pixels.
    CubeError
        It cannot be opened.
    """
    opened = open_source(path)
    names = layer_names(opened)
    if not 0 < band <= len(names):
        raise LabelError(f"{path} has {len(names)} bands, and band {band} is none of them.")
    theirs = geobox_of(opened)
    if not same_pixels(geobox, theirs):
        raise LabelError(
            f"A label raster lies on the pixels of the image or map: {path} has {describe_geobox(theirs)}, those are "
            f"{describe_geobox(geobox)}. Warp it: {warp_onto(geobox)}."
        )
    return opened[names[band - 1]]


def same_pixels(one: GeoBox, other: GeoBox) -> bool:
    """Test whether two grids have the same pixels, up to noise of their transforms."""
    if one.crs != other.crs or one.shape != other.shape:
        return False
    drift = tuple(~one.affine @ other.affine)[:6]
    return all(abs(found - same) < 1e-3 for found, same in zip(drift, (1, 0, 0, 0, 1, 0), strict=True))


def warp_onto(geobox: GeoBox) -> str:
    """Return the command that brings a label raster onto a grid, for messages."""
    west, south, east, north = geobox.extent.boundingbox
    crs = crs_text(CRS.from_wkt(geobox.crs.to_wkt())) if geobox.crs is not None else "..."
    height, width = geobox.shape
    return f"gdalwarp -r near -t_srs {crs} -te {west:.12g} {south:.12g} {east:.12g} {north:.12g} -ts {width} {height} OLD NEW"


_conforms: tuple[type[LabelRaster], ...] = (RasterizedLabels, RasterLabels)
