"""`open_reader`: the reader of what a catalog describes."""

import numpy as np

from rtsx.cube.align.file_reader import FileReader
from rtsx.cube.align.reader import WindowReader
from rtsx.cube.align.zarr_reader import ZarrReader
from rtsx.cube.image import AssetBands
from rtsx.errors import CubeError

__all__ = ["open_reader"]


def open_reader(bands: AssetBands, *, any_value: bool = False) -> WindowReader:
    """The reader of bands of a file or Zarr group; opens nothing, and compares with the file when that is read.

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
    >>> open_reader(AssetBands(href="scene.tif", bands=(1,), geobox=box, dtype="uint16", nodata=0)).nodata
    0
    """
    numbers = tuple(band for band in bands.bands if isinstance(band, int))
    names = tuple(band for band in bands.bands if isinstance(band, str))
    if not bands.bands or (names if bands.opener == "gdal" else numbers):
        kind = "numbers from 1" if bands.opener == "gdal" else "names of arrays"
        raise CubeError(f"Bands of {bands.href} are {kind}, at least one; got {bands.bands}.")
    nodata = None if any_value else bands.nodata
    if bands.opener == "zarr":
        return ZarrReader(
            path=bands.href,
            arrays=names,
            geobox=bands.geobox,
            dtype=np.dtype(bands.dtype),
            nodata=nodata,
            asset=bands.asset,
        )
    return FileReader(
        path=bands.href,
        bands=numbers,
        geobox=bands.geobox,
        dtype=np.dtype(bands.dtype),
        nodata=nodata,
        scale_factor=bands.scale_factor,
        add_offset=bands.add_offset,
        settled=bands.settled,
        any_value=any_value,
        asset=bands.asset,
    )
