"""`export_cog`: a prediction as cloud-optimised GeoTIFF, for those who work with GDAL and QGIS."""

import ctypes
import math
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import rasterio
import rasterio._io
import rasterio.errors
import rasterio.shutil
import xarray as xr
from numpy.typing import NDArray
from rasterio.windows import Window

from rtsx.arguments import typed
from rtsx.cube.conventions import as_cube
from rtsx.cube.encoding import packing
from rtsx.cube.georeference import geobox_of, validate_georeference
from rtsx.errors import CubeError, OutputNotWritableError
from rtsx.progress import show_progress
from rtsx.storage import local_path, refuse_other_format, staged

_BLOCK = 512
_TAGS = ("bundle_id", "bundle_digest", "threshold", "rtsx_version")
"""Attributes of a prediction that every file carries on."""
_CACHE_MB = 256
"""GDAL's block cache while exporting, instead of its own 5 % of the machine's memory."""
_STEP = 2048
"""Side in pixels of the windows that an array without dask chunks is written in."""


@typed(CubeError, but=("cube",))
def export_cog(
    cube: xr.Dataset | xr.DataArray,
    folder: str | PathLike[str],
    *,
    variables: Sequence[str] | None = None,
    prefix: str = "",
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[Path, ...]:
    """Write variables as one cloud-optimised GeoTIFF each: ``<folder>/<prefix><variable>.tif``.

    Deflate, blocks of 512 px, overviews (average; nearest for `binary`, because GDAL knows no maximum there and the mode
    would erase small objects), nodata, scale and offset from the packing, one band per time and class with its name; integers
    without nodata have the cube's `valid` as the mask of the file. Window by window: memory does not grow with the raster. A
    file appears when it is complete.

    Parameters
    ----------
    cube
        Any georeferenced Dataset, or what `as_cube` makes one.
    folder
        Local folder; made if it is not there.
    variables
        Which ones; by default those of `probability` and `binary` that are there.
    prefix
        Beginning of each file name.
    overwrite
        Replace files that are there.
    progress
        Show a bar.

    Returns
    -------
    tuple of Path
        The files, in the order of `variables`.

    Raises
    ------
    CubeError
        A variable is missing or is not on (y, x); or several times have a mask each, which a GeoTIFF cannot hold.
    OutputExistsError, OutputNotWritableError
        A file cannot go there, found out before anything is computed; or the disk was full.
    """
    refuse_other_format(folder, what="a folder of GeoTIFFs")
    cube = as_cube(cube)
    validate_georeference(cube)
    names = [name for name in ("probability", "binary") if name in cube] if variables is None else list(variables)
    missing = [name for name in names if name not in cube.data_vars or cube[name].dims[-2:] != ("y", "x")]
    if missing or not names:
        raise CubeError(
            f"Variables to export are on (..., y, x), probability and binary if none are named; "
            f"{f'{missing} are not among' if missing else 'neither is among'} {list(cube.data_vars)}. Name those that are meant; in "
            "Python, with variables=['red', ...]."
        )
    targets = tuple(local_path(folder) / f"{prefix}{name}.tif" for name in names)
    return _export(cube, dict(zip(names, targets, strict=True)), overwrite=overwrite, progress=progress)


Colours = Mapping[int, tuple[int, int, int, int]]
"""Red, green, blue and alpha (0-255) by stored value."""


def encoded_cog(cube: xr.Dataset, variable: str, *, colours: Colours | None = None) -> bytes:
    """Encode a variable as `export_cog` does, with a colour table if one is given; by way of a temporary folder, because GDAL writes files."""
    with tempfile.TemporaryDirectory(prefix="rtsx-cog-") as folder:
        path = Path(folder) / f"{variable}.tif"
        _export(cube, {variable: path}, overwrite=False, progress=False, colours=colours)
        return path.read_bytes()


def _export(
    cube: xr.Dataset, targets: dict[str, Path], *, overwrite: bool, progress: bool, colours: Colours | None = None
) -> tuple[Path, ...]:
    masks = {name: _mask(cube, name) for name in targets}
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_CACHE_MB, GDAL_TIFF_INTERNAL_MASK=True))
        drafts = {name: stack.enter_context(staged(target, overwrite=overwrite)) for name, target in targets.items()}
        _silence_libtiff()
        rasters = {
            name: _Raster(cube, name, path.with_name("plain.tif"), colours=colours) for name, path in drafts.items()
        }
        masked = {rasters[name].begin_mask(): mask for name, mask in masks.items() if mask is not None}
        for raster in rasters.values():
            stack.callback(raster.abandon)  # else it is closed some time later, when nobody listens to GDAL any more
        with show_progress("exporting") if progress else nullcontext():
            # One computation for all variables, so that a prediction is made once; in threads of this process, because
            # a GeoTIFF is written by one process (write a Zarr store first, and export that, to use a cluster).
            arrays = [*(raster.pixels for raster in rasters.values()), *masked.values()]
            files: list[Any] = [*rasters.values(), *masked]
            da.store(arrays, files, lock=False, scheduler="threads")
        for name, path in drafts.items():
            rasters[name].close()
            resampling = "nearest" if name == "binary" or colours else "average"
            with _write_failures(name):
                _to_cog(path.with_name("plain.tif"), path, resampling=resampling)
    return tuple(targets.values())


def _mask(cube: xr.Dataset, name: str) -> da.Array | None:
    """Return which pixels (y, x) of a variable count, where only `valid` says so; None where its values do, or all count."""
    variable, valid = cube[name], cube.get("valid")
    if (
        valid is None
        or name == "valid"
        or name.startswith("quality")
        or variable.dtype.kind == "f"
        or packing(variable)["nodata"] is not None
    ):
        return None
    if "time" in valid.dims:
        if "time" not in variable.dims:
            return None  # a layer of things without a time gets none from the mask of others
        steps = da.asarray(valid.transpose("time", "y", "x").data)
        if len(steps) > 1 and (steps != steps[:1]).any().compute():
            raise CubeError(
                f"{name!r} of {variable.dtype} has no value for missing pixels, and a GeoTIFF has one mask for all of its bands, but "
                f"`valid` differs between its {len(steps)} times. Export each time to a folder of its own; in Python, that of "
                "cube.isel(time=[0])."
            )
        valid = valid.isel(time=0)
    counts: da.Array = da.asarray(valid.transpose("y", "x").data)
    return counts


@cache
def _silence_libtiff() -> None:
    """Have libtiff not print to standard error, in its own words, what GDAL raises."""
    with suppress(AttributeError, OSError):  # where GDAL has one inside, whose functions nobody can call
        handler = ctypes.CDLL(rasterio._io.__file__).TIFFSetErrorHandler  # of the libraries that it is linked with
        handler.argtypes = [ctypes.c_void_p]
        handler(None)


def _to_cog(source: Path, target: Path, *, resampling: str) -> None:
    rasterio.shutil.copy(
        source,
        target,
        driver="COG",
        compress="DEFLATE",
        blocksize=_BLOCK,
        overview_resampling=resampling,
        bigtiff="IF_SAFER",
        num_threads="ALL_CPUS",
    )


@contextmanager
def _write_failures(name: str) -> Iterator[None]:
    """Turn what GDAL says of a full or failing disk, which has no number, into `OutputNotWritableError`."""
    try:
        yield
    except rasterio.errors.RasterioIOError as error:
        raise OutputNotWritableError(
            f"The GeoTIFF of {name} was not written: {error.__cause__ or error}. Free space or check the disk, then export again; "
            "nothing is left half-written."
        ) from error


class _Raster:
    """A plain tiled GeoTIFF that dask stores blocks into; a COG cannot be written in pieces, so this comes first."""

    def __init__(self, cube: xr.Dataset, name: str, path: Path, *, colours: Colours | None = None) -> None:
        variable, geobox = cube[name], geobox_of(cube)
        pixels = da.asarray(variable.data).reshape((-1, *geobox.shape.yx))
        narrow = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}  # which GeoTIFF has, or GDAL of rasterio
        pixels = pixels.astype(narrow.get(pixels.dtype, pixels.dtype))
        packed = packing(variable)
        file = rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=geobox.shape[0],
            width=geobox.shape[1],
            count=pixels.shape[0],
            dtype=pixels.dtype,
            crs=rasterio.CRS.from_user_input(str(geobox.crs)),
            transform=geobox.affine,
            nodata=math.nan if packed["nodata"] is None and pixels.dtype.kind == "f" else packed["nodata"],
            tiled=True,
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
            bigtiff="IF_SAFER",
            sparse_ok=True,
        )
        file.scales = (packed["scale_factor"],) * pixels.shape[0]
        file.offsets = (packed["add_offset"],) * pixels.shape[0]
        file.descriptions = tuple(_band_names(variable))
        if colours is not None:
            file.write_colormap(1, dict(colours))
        file.update_tags(**{key: str(cube.attrs[key]) for key in _TAGS if key in cube.attrs})
        self.pixels = pixels.rechunk({0: 1, 1: _even(pixels, 1), 2: _even(pixels, 2)})
        self._name, self._file, self._lock = name, file, threading.Lock()

    def __setitem__(self, region: tuple[slice, slice, slice], block: NDArray[Any]) -> None:
        bands, rows, columns = region
        with self._lock, _write_failures(self._name):  # GDAL datasets take one caller at a time
            if not self._file.closed:  # by the first failure, after which other threads are still on their way here
                self._file.write(block[0], bands.start + 1, window=Window.from_slices(rows, columns))

    def begin_mask(self) -> "_Mask":
        """Return the mask of the file, which has one from now on."""
        # In the thread whose options say that it goes into the file instead of beside it.
        self._file.write_mask(np.zeros((1, 1), bool), window=Window(0, 0, 1, 1))
        return _Mask(self)

    def write_mask(self, region: tuple[slice, slice], block: NDArray[np.bool_]) -> None:
        """Write a window of the mask."""
        with self._lock, _write_failures(self._name):
            if not self._file.closed:
                self._file.write_mask(block, window=Window.from_slices(*region))

    def close(self) -> None:
        with self._lock, _write_failures(self._name):
            self._file.close()

    def abandon(self) -> None:
        with self._lock, suppress(rasterio.errors.RasterioError):
            self._file.close()


class _Mask:
    """The mask of a `_Raster`, as dask stores blocks into it."""

    def __init__(self, raster: _Raster) -> None:
        self._raster = raster

    def __setitem__(self, region: tuple[slice, slice], block: NDArray[np.bool_]) -> None:
        self._raster.write_mask(region, block)


def _even(pixels: da.Array, axis: int) -> int | tuple[int, ...]:
    """Return the chunks as they come; a large array in one piece is cut."""
    lengths: tuple[int, ...] = pixels.chunks[axis]
    return _STEP if lengths[0] > _STEP and len(lengths) == 1 else lengths


def _band_names(variable: xr.DataArray) -> list[str]:
    """Return one name per band: the variable's, and the time and class that the band is for."""
    names = [str(variable.name)]
    for dim in variable.dims[:-2]:
        labels = variable[dim].values if dim in variable.coords else np.arange(variable.sizes[dim])
        texts = labels.astype("datetime64[D]" if labels.dtype.kind == "M" else str).astype(str)
        names = [f"{name} {text}" for name in names for text in texts]
    return names
