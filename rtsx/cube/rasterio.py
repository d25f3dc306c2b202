"""Raster files: what their header says, and windowed reads. The only place that opens them for reading."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import get_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rtsx.cube.georeference import require_ground
from rtsx.errors import CubeError
from rtsx.geometry.crs import crs_definition, without_heights
from rtsx.storage import absolute, leads_to_server, without_query
from rtsx.storage.diagnosis import causes, gdal_problem, georeferencing

_READ_ATTEMPTS = 3
"""Times that a window is read before the error counts. There is no pause between them, because GDAL itself waits
between its HTTP retries, and a file that came back on a network disk is back at once."""

_HTTP_OPTIONS = {
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    # A server that accepts and says nothing, rather than GDAL_HTTP_TIMEOUT, which would end a long honest transfer too.
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
}
"""How GDAL talks to servers, local files included, because a VRT on disk may name files on a server. GDAL's own default
is to wait for ever."""

_REMOTE_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
"""Saves about ten requests at each opening, for sidecars that published files do not have."""

_LOCAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"}
"""Files on disk keep their sidecars, masks among them, also where the environment is set for servers, or stackstac left its own."""

_REMOTE = re.compile(
    r"/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(_streaming)?[/?]|^(vrt://)?(?!(file|zip|tar|gzip|vrt):)[a-z0-9+]+://"
)
"""Paths that lead to a server, as rasterio and GDAL write them."""

_TURNED = 1e-3
"""Pixels by which the far corner of a raster that is not rotated may be turned."""

_FAILED: set[str] = set()
"""Paths whose last opening or reading failed. GDAL remembers of a server's file that it is not there, would say so for ever
without asking again, and would not say why."""

_VARIABLE = re.compile(r"(NETCDF|HDF5|ZARR):(\"[^\"]*\"|[^\":]*):(?P<name>.+)", re.IGNORECASE)
"""How GDAL names one variable of a file."""
_NAMELESS = re.compile(r"Band\d+|__xarray_dataarray_variable__")
"""Variables of NetCDF that GDAL and xarray have written without a name."""

_NOT_ALLOWED = re.compile(
    r"HTTP (response|error) code ?: ?40[13]|AWS(AccessDenied|InvalidCredentials|SignatureDoesNotMatch)|Access ?Denied"
)
"""What GDAL says, in the words or the class of its error, where a server wants other credentials."""


@dataclass(frozen=True)
class RasterHeader:
    """Everything about a raster file but its pixels."""

    path: str
    """Path or URL, as GDAL reads it."""
    geobox: GeoBox
    """CRS, transform and shape."""
    dtypes: tuple[str, ...]
    """NumPy dtype of each band."""
    nodata: tuple[float | None, ...]
    """Stored value of a missing pixel, each band; None where the file declares none, or where a mask counts instead."""
    descriptions: tuple[str | None, ...]
    """Name of each band; None where the file gives none."""
    scales: tuple[float, ...]
    """Physical units per stored unit, each band; 1 also where the file declares none."""
    offsets: tuple[float, ...]
    """Physical value of stored 0, each band; 0 also where the file declares none."""
    units: tuple[str | None, ...]
    """Physical unit of each band; None where the file gives none."""
    block: tuple[int, int]
    """Height and width in pixels of the blocks that the file is stored in."""
    overviews: tuple[int, ...]
    """How many times larger the pixels of each overview are, as whole numbers, finest first; empty where there is none."""
    stamp: tuple[int, int] | None
    """Time of last change in ns and size in bytes of a local file, so that a rewritten file is another one to dask."""
    masked: tuple[int, ...] = ()
    """Bands, from 1, whose missing pixels a mask tells: of the file, beside it (.msk), in a VRT, or an alpha band."""
    alpha: int | None = None
    """Number of the alpha band; None where there is none."""
    overview: int | None = None
    """Which overview `geobox` is of, 0 the finest; None for the raster itself."""
    coloured: tuple[int, ...] = ()
    """Bands, from 1, with a colour table: their numbers stand for classes."""

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.dtypes)

    @property
    def data_bands(self) -> tuple[int, ...]:
        """Numbers of all bands but alpha.

        One that the file describes as something else counts, because GDAL marks any fourth band of bytes as alpha.
        """
        every, alpha = tuple(range(1, self.count + 1)), self.alpha
        if alpha is None or self.count == 1:
            return every
        is_alpha = (self.descriptions[alpha - 1] or "alpha").lower().startswith("alpha")
        return tuple(band for band in every if band != alpha) if is_alpha else every

    def number_of(self, band: int | str) -> int | None:
        """Return the number of a band that is asked for by it or by its name; None where there is none."""
        if isinstance(band, str):
            return self.descriptions.index(band) + 1 if band in self.descriptions else None
        return band if 1 <= band <= self.count else None


def read_header(path: str | PathLike[str]) -> RasterHeader:
    """Read what a raster file says about itself; no pixel.

    Raises
    ------
    CubeError
        The file is missing, unreadable or empty, or says not where it lies.
    """
    name = absolute(path)  # because pixels are read later, from another folder perhaps
    try:
        with _opened(name) as file:
            if file.count == 0 and file.subdatasets:
                tags = file.tags(ns="SUBDATASETS")  # as GDAL spells them, with quotes
                raise _several(name, [value for key, value in tags.items() if key.endswith("_NAME")])
            if file.crs is None or file.transform.is_identity:
                raise _nowhere(name, file)
            _refuse_ignored_nodata(file, name)
            header = _header_of(file, name)
            require_ground(header.geobox, name, cure="gdal_edit.py -a_srs EPSG:...")
            return header
    except NotGeoreferencedWarning as warning:
        # An error only where the caller made it one. Filtering it here would change the filters of all threads for good,
        # so that elsewhere it is shown beside the error above.
        raise _nowhere(name, None) from warning
    except RasterioError as error:
        raise CubeError(f"{name} cannot be opened as a raster: {gdal_problem(name, error)}") from error


def require_raster(path: str | PathLike[str]) -> None:
    """Refuse a file that is no raster, or that ends before its last pixel.

    Raises
    ------
    CubeError
        It cannot be opened, or its last pixel cannot be read.
    """
    with suppress(NotGeoreferencedWarning):  # where the caller made it an error; a raster it is
        try:
            with _opened(str(path)) as file:
                file.read(window=Window(file.width - 1, file.height - 1, 1, 1))
        except RasterioError as error:
            raise CubeError(f"{path} is no whole raster: {gdal_problem(str(path), error)}") from error


def read_overview_geobox(path: str, overview: int, *, whole: GeoBox) -> GeoBox:
    """Return the geobox of an overview, 0 the finest, of a raster that lies on `whole`.

    Its shape cannot be computed from the factor, as writers round either way; its pixels are stretched to cover exactly the same ground.

    Raises
    ------
    CubeError
        The file cannot be read, or has no such overview.
    """
    try:
        with _opened(path, overview_level=overview) as file:
            rows, columns = file.height, file.width
    except RasterioError as error:
        raise CubeError(f"Overview {overview} of {path} cannot be opened: {gdal_problem(path, error)}") from error
    stretched = whole.affine * Affine.scale(whole.shape[1] / columns, whole.shape[0] / rows)
    return GeoBox((rows, columns), stretched, whole.crs)


def read_window(
    path: str,
    window: tuple[slice, slice],
    *,
    bands: Sequence[int],
    overview: int | None = None,
    masked: bool = False,
    any_value: bool = False,
    check: Callable[[RasterHeader], None] | None = None,
) -> NDArray[Any]:
    """Return pixels (band, y, x) of one window, as stored; tried three times.

    Parameters
    ----------
    path
        Path or URL of the file.
    window
        Rows and columns.
    bands
        Band numbers, counted from 1, in the order wanted; all of one dtype.
    overview
        Which overview the window is of, 0 the finest; None for the raster itself.
    masked
        Whether masks and alpha bands are read too, where the file has any: then the pixels are a `numpy.ma.MaskedArray`.
    any_value
        Whether nodata, and an alpha band that is wanted itself, is no mask, as in quality data.
    check
        Given the header of what was opened, before pixels are read; raises where it is not what was expected.

    Raises
    ------
    CubeError
        The file cannot be read there, three times in a row, or has no such band.
    """

    def read(file: rasterio.DatasetReader, part: Window) -> NDArray[Any]:
        if check is not None:
            check(_header_of(file, path))
        pixels: NDArray[Any] = file.read(list(bands), window=part)
        if masked and set(bands) & set(_masked_bands(file)):
            return np.ma.MaskedArray(pixels, mask=~_valid(file, bands, part, any_value=any_value))
        return pixels

    return _tried(path, window, read, bands=bands, overview=overview)


def read_valid(
    path: str,
    window: tuple[slice, slice],
    *,
    bands: Sequence[int],
    overview: int | None = None,
    any_value: bool = False,
) -> NDArray[np.bool_]:
    """Return where no mask and no alpha band calls a pixel (y, x) of one of `bands` missing, as `rasterio`'s ``read_masks``; see `read_window`.

    Raises
    ------
    CubeError
        The file cannot be read there, three times in a row.
    """

    def read(file: rasterio.DatasetReader, part: Window) -> NDArray[np.bool_]:
        valid: NDArray[np.bool_] = np.logical_and.reduce(_valid(file, bands, part, any_value=any_value), axis=0)
        return valid

    return _tried(path, window, read, bands=bands, overview=overview)


def _tried(
    path: str,
    window: tuple[slice, slice],
    read: Callable[[rasterio.DatasetReader, Window], NDArray[Any]],
    *,
    bands: Sequence[int],
    overview: int | None = None,
) -> NDArray[Any]:
    """Return what `read` makes of a window of an open file; three times where GDAL fails."""
    rows, columns = window
    part = Window.from_slices(rows, columns)
    options = {} if overview is None else {"overview_level": overview}
    error: RasterioError | None = None
    # Closed together, because GDAL takes a VRT at the address of one that failed for it, and does not try its files again.
    with ExitStack() as files:
        for _ in range(_READ_ATTEMPTS):
            try:
                # Opened anew each time, because GDAL datasets must not be shared between threads and a kept handle would
                # serve stale blocks of a file that was replaced; the header costs well under 1 % of a chunk's read.
                with _opened(path, files, **options) as file:
                    pixels = read(file, part)
                    _require_all_read(pixels, file=file, bands=bands, part=part)
                    return pixels
            except RasterioError as failure:
                error = failure
    assert error is not None  # there is at least one attempt
    raise CubeError(
        f"{path} cannot be read in rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop} "
        f"(tried {_READ_ATTEMPTS} times): {gdal_problem(path, error)}"
    ) from error


def _require_all_read(
    pixels: NDArray[Any], *, file: rasterio.DatasetReader, bands: Sequence[int], part: Window
) -> None:
    """Refuse a mosaic's background where a file of it could not be read.

    While any VRT is open, GDAL says of a file that cannot be opened so once, and then fails without a message, which rasterio
    takes for success. A checksum says that it failed.

    Raises
    ------
    RasterioError
        A file of it cannot be opened.
    CubeError
        One could not be opened before.
    """
    if file.driver not in _MOSAICS:
        return
    background = {0, *(file.nodatavals[band - 1] for band in bands)} - {None}
    if not np.isin(np.nan_to_num(np.ma.filled(pixels, 0)), np.nan_to_num(list(background))).any():
        return
    try:
        for band in bands:
            file.checksum(band, window=part)
    except RasterioError as error:
        _open_parts(file)  # says why
        raise CubeError(
            f"{file.name} is made of files one of which could not be opened before, and GDAL does not try again while mosaics "
            "are open. All can be opened now: start a new process."
        ) from error


def _open_parts(mosaic: rasterio.DatasetReader) -> None:
    """Open every file that a mosaic is made of."""
    for name in mosaic.files[1:]:
        with rasterio.open(name) as file:
            if file.driver in _MOSAICS:
                _open_parts(file)


@contextmanager
def _opened(path: str, files: ExitStack | None = None, **options: Any) -> Iterator[rasterio.DatasetReader]:
    """Open a raster for the duration of a block, or as long as `files`.

    Raises
    ------
    CubeError
        It lies on a server and is made of files that do not; or the server wants other credentials, as asking again is of no use.
    """
    # As a browser does with an address; GDAL refuses it.
    name = path.replace(" ", "%20") if path.startswith(("http://", "https://")) else path
    try:
        with rasterio.Env(**_options(path)), nullcontext(files) if files is not None else ExitStack() as opened:
            file = opened.enter_context(rasterio.open(name, **options))
            if _REMOTE.search(path):
                _refuse_local_sources(file, path)
            yield file
    except RasterioError as error:
        _FAILED.add(path)
        _refuse_if_not_allowed(path, error)
        raise
    _FAILED.discard(path)


def _refuse_local_sources(file: rasterio.DatasetReader, path: str) -> None:
    """Refuse a raster on a server that names files of this machine, as a stranger's VRT can.

    A VRT within a VRT is known by the ending of its name only, because a mosaic may have thousands of files.
    """
    found: list[str] = []
    if file.driver not in {"VRT", *_SELF_CONTAINED} and not path.startswith(f"{file.driver}:"):
        found = [f"what a {file.driver} file names"]
    elif file.driver == "VRT":
        folder = without_query(path).rpartition("/")[0]
        for element in ET.fromstring(file.tags(ns="xml:VRT")["xml:VRT"]).iter():
            name = (element.text or "").strip()
            if element.get("relativeToVRT") == "1" and re.match(r"[^/:<][^:<]*$", name):
                name = f"{folder}/{name}"
            elif not (name.startswith("/") or element.tag.endswith("Filename") or element.tag == "SourceDataset"):
                continue
            if not leads_to_server(name, path.split("://")[0]):
                found.append(name)
            elif without_query(name).lower().endswith(".vrt"):
                with rasterio.open(name) as inner:
                    _refuse_local_sources(inner, name)
    if found:
        raise CubeError(
            f"{path} lies on a server and is made of {', '.join(found[:3])}, which may not: what lies on a server may not read "
            "files of this machine. Copy it to this machine, and open the copy."
        )


_MOSAICS = frozenset({"VRT", "GTI", "STACIT"})
"""Drivers of GDAL whose pixels lie in other files."""

_CF = frozenset({"netCDF", "HDF5", "HDF5Image", "Zarr"})
"""Drivers whose tags are the attributes of a variable."""
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)")

_SELF_CONTAINED = frozenset(
    {"GTiff", "COG", "JP2OpenJPEG", "JPEG", "PNG", "WEBP", "GIF", "BMP", "HFA", "NITF", "ENVI", "EHdr", "AAIGrid"}
    | {"USGSDEM", "DTED", "SRTMHGT", "netCDF", "HDF5", "HDF5Image", "BAG", "GRIB", "GPKG", "MBTiles", "Zarr"}
    | {"SENTINEL2", "SAFE"}
)
"""Drivers whose files name no others but those beside them. Of the rest, most do, such as those of tile indices and of WMS."""


_READ_AS = {"complex_int16": "complex64"}
"""Dtypes of GDAL that NumPy has not, and in which rasterio gives their pixels."""


def _header_of(file: rasterio.DatasetReader, path: str) -> RasterHeader:
    return RasterHeader(
        path=path,
        geobox=GeoBox((file.height, file.width), _upright(file), None if file.crs is None else _crs_name(file.crs)),
        dtypes=tuple(_READ_AS.get(dtype, dtype) for dtype in file.dtypes),
        nodata=_nodata_of(file),
        descriptions=_descriptions_of(file, path),
        scales=tuple(file.scales),
        offsets=tuple(file.offsets),
        units=tuple(unit or None for unit in file.units),
        block=file.block_shapes[0],
        overviews=tuple(file.overviews(1)),
        stamp=_stamp(path),
        masked=_masked_bands(file),
        alpha=_alpha_of(file),
        coloured=tuple(band for band, kind in enumerate(file.colorinterp, start=1) if kind is ColorInterp.palette),
    )


def _upright(file: rasterio.DatasetReader) -> Affine:
    """Return the transform, without a rotation that moves no pixel: computing leaves terms of 1e-12 where there is none."""
    affine: Affine = file.transform
    moved = abs(affine.b) * file.height, abs(affine.d) * file.width
    is_noise = moved[0] <= _TURNED * abs(affine.a) and moved[1] <= _TURNED * abs(affine.e)
    return Affine(affine.a, 0, affine.c, 0, affine.e, affine.f) if is_noise else affine


def _descriptions_of(file: rasterio.DatasetReader, path: str) -> tuple[str | None, ...]:
    """Return names of bands; the only band of a variable of NetCDF or HDF5 is called like that."""
    names = tuple((text or "").strip() or None for text in file.descriptions)
    if names != (None,):
        return names
    variable = _VARIABLE.fullmatch(path)
    name = re.split(r"[/:]", variable["name"])[-1] if variable else file.tags(1).get("NETCDF_VARNAME", "")
    return (name if name and not _NAMELESS.fullmatch(name) else None,)


def _alpha_of(file: rasterio.DatasetReader) -> int | None:
    return next((band for band, kind in enumerate(file.colorinterp, start=1) if kind is ColorInterp.alpha), None)


def _masked_bands(file: rasterio.DatasetReader) -> tuple[int, ...]:
    """Return bands with a mask besides their nodata; an alpha band counts also where GDAL lets nodata shadow it."""
    alpha = _alpha_of(file)
    return tuple(
        band
        for band, flags in enumerate(file.mask_flag_enums, start=1)
        if flags not in ([MaskFlags.all_valid], [MaskFlags.nodata]) or alpha not in (None, band)
    )


def _nodata_of(file: rasterio.DatasetReader) -> tuple[float | None, ...]:
    """Return nodata of each band; None where GDAL takes a mask in its place, as its value is data then.

    So it does where only pixels count that are nodata in all bands together (NODATA_VALUES). NetCDF of odc-stac has its word.
    """
    found = tuple(
        value if flags == [MaskFlags.nodata] else None
        for value, flags in zip(file.nodatavals, file.mask_flag_enums, strict=True)
    )
    # Beside it is only the value that NetCDF fills new variables with.
    tags = [file.tags(band) if file.driver in _CF else {} for band in range(1, file.count + 1)]
    own = [
        None if {"_FillValue", "missing_value"} & set(one) else _NUMBER.fullmatch(one.get("nodata", "")) for one in tags
    ]
    return tuple(value if stated is None else float(stated[0]) for value, stated in zip(found, own, strict=True))


def _refuse_ignored_nodata(file: rasterio.DatasetReader, path: str) -> None:
    """Refuse words of CF for missing pixels that GDAL ignores: several values, and a limit on one side."""
    tags = file.tags(1) if file.driver in _CF and file.count else {}
    limits = [word for word in ("valid_min", "valid_max") if word in tags and "valid_range" not in tags]
    several = [word for word in ("missing_value", "_FillValue") if len(set(_NUMBER.findall(tags.get(word, "")))) > 1]
    if several or len(limits) == 1:
        word = [*several, *limits][0]
        value = tags[word].strip("{}")
        how = f"-setvrange,{value},MAX" if word == "valid_min" else f"-setvrange,MIN,{value}"
        how = f"-setctomiss,{value.split(',')[-1]}" if several else how
        raise CubeError(
            f"{path} says by {word} {value} which pixels are missing, and GDAL, which reads it, does not heed that. Make them the one "
            f"missing value, such as with cdo {how} IN.nc OUT.nc; in Python, xarray.open_dataset opens it with all that it says."
        )


def _valid(
    file: rasterio.DatasetReader, bands: Sequence[int], part: Window, *, any_value: bool = False
) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = file.read_masks(list(bands), window=part) > 0
    alpha = _alpha_of(file)
    if any_value:
        # Without being asked, GDAL marks the fourth of four bands of bytes as alpha, beside red, green and blue.
        is_unasked = file.count == 4 and ColorInterp.red in file.colorinterp
        alpha = None if alpha in bands or is_unasked else alpha
        kinds = {MaskFlags.nodata} | (set() if alpha else {MaskFlags.alpha})
        for place, band in enumerate(bands):
            if kinds & set(file.mask_flag_enums[band - 1]):
                valid[place] = True
    return valid if alpha is None else valid & (file.read(alpha, window=part) > 0)


def _options(path: str) -> dict[str, str]:
    """Return GDAL's options for a path, without those for servers that the caller's environment or `rasterio.Env` sets otherwise."""
    is_remote = _REMOTE.search(path)
    options = _HTTP_OPTIONS | (_REMOTE_OPTIONS if is_remote else {})
    # Those already set alike are set again, because they may be another thread's that is about to take them back.
    kept = {name: value for name, value in options.items() if get_gdal_config(name, normalize=False) in (None, value)}
    again = {"CPL_VSIL_CURL_NON_CACHED": "/vsi"} if path in _FAILED else {}
    return kept | again if is_remote else kept | again | _LOCAL_OPTIONS


def _refuse_if_not_allowed(path: str, error: BaseException) -> None:
    """Raise where the reason, or one behind it, is that a server wants other credentials: asking again is of no use.

    Raises
    ------
    CubeError
        The server does not allow it.
    """
    reason = next((one for one in causes(error) if _NOT_ALLOWED.search(f"{type(one).__name__}: {one}")), None)
    if reason is not None:
        raise CubeError(
            f"{path} is not allowed to be read: {reason}. Give credentials: GDAL_HTTP_HEADERS, such as "
            "'Authorization: Bearer ...', for a plain server; AWS_* variables for s3://, AWS_NO_SIGN_REQUEST=YES where it is public; a signing hook for the hrefs of "
            "a catalog, and find the images again where its tokens have run out."
        ) from error


def _several(path: str, names: Sequence[str]) -> CubeError:
    """Return the refusal of a file that only holds others, as NetCDF, HDF5 and products of Sentinel-2 may."""
    return CubeError(
        f"{path} holds {len(names)} rasters and none of its own. Give those that are meant instead of the file, by these names "
        f"in single quotes: {', '.join(map(shlex.quote, names))}. In Python, xarray.open_dataset opens NetCDF with all variables."
    )


def _nowhere(path: str, file: rasterio.DatasetReader | None) -> CubeError:
    """Return the refusal of a raster without CRS or transform; None where only that is known of it."""
    if file is None:
        lacking = "it has no transform (gdalinfo lists the rasters that it may hold)"
        how = georeferencing(path, has_crs=False, control=None, crs=None, has_nodata=False)
        return CubeError(f"{path} does not say where it lies: {lacking}. {how}")
    points, crs = file.gcps
    rpcs = file.rpcs
    control = "gcps" if points else "rpc" if rpcs is not None else "geoloc" if file.tags(ns="GEOLOCATION") else None
    centre = None
    if points and (crs is None or crs.is_geographic):
        centre = (np.mean([point.x for point in points]), np.mean([point.y for point in points])) if crs else None
    elif rpcs is not None and not points:
        centre = (rpcs.long_off, rpcs.lat_off)
    how = georeferencing(
        path,
        has_crs=file.crs is not None,
        control=control,
        crs=_crs_name(crs) if points and crs and not crs.is_geographic else None if centre is None else _zone(*centre),
        has_nodata=all(value is not None for value in file.nodatavals),
    )
    return CubeError(f"{path} does not say where it lies: CRS {file.crs}, transform {tuple(file.transform)[:6]}. {how}")


def _zone(longitude: float, latitude: float) -> str:
    """Return the usual projection of a place: its UTM zone, polar stereographic near a pole."""
    if abs(latitude) > 84:
        return "EPSG:3413" if latitude > 0 else "EPSG:3031"
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) % 60 + 1}"


@lru_cache(maxsize=256)
def _crs_name(crs: rasterio.CRS) -> str:
    """Return ``AUTHORITY:CODE`` where the CRS is exactly that one, else its WKT; without the heights of a compound one, as no pixel has any."""
    whole = CRS.from_wkt(crs.to_wkt())
    flat = without_heights(whole)
    if flat is not whole:
        return crs_definition(flat)
    authority = crs.to_authority(confidence_threshold=100)
    return ":".join(authority) if authority else str(crs.to_wkt())


def _stamp(path: str) -> tuple[int, int] | None:
    """Change time and size of a local file; None for anything else."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def stored_dtype(header: RasterHeader, band: int) -> np.dtype[Any]:
    """Return the NumPy dtype of a band, counted from 1."""
    return np.dtype(header.dtypes[band - 1])
