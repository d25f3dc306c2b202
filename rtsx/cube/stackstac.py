"""Images read by stackstac, to compare with our own reader and for those who prefer its graph."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from warnings import catch_warnings, filterwarnings

import dask.array as da
import numpy as np
import stackstac
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling as RasterioResampling
from stackstac.rio_reader import DEFAULT_GDAL_ENV, AutoParallelRioReader

from rtsx.cube.align.file_reader import FileReader
from rtsx.cube.align.opening import open_reader
from rtsx.cube.align.reader import WindowReader
from rtsx.cube.align.resampling import Resampling
from rtsx.cube.image import Image
from rtsx.cube.rasterio import read_header
from rtsx.cube.single_bands import BandTable, band_table
from rtsx.errors import CubeError

__all__ = ["read_stackstac"]

_ENV = DEFAULT_GDAL_ENV.updated(open_vrt={"VSI_CACHE": True})
"""stackstac's, with an `Env` of its own for each of two that it nests: one that is entered twice stays with the thread."""


def read_stackstac(
    images: Sequence[Image],
    names: Sequence[str],
    target: GeoBox,
    *,
    resampling: Resampling,
    chunk: tuple[int, int],
    any_value: bool,
) -> da.Array:
    """Stored values of some bands of images on a grid, lazily, as stackstac and GDAL's warp give them.

    Parameters
    ----------
    images
        What to read; each has all names.
    names
        Names of bands; several bands of one name come one after the other.
    target
        North-up grid in a CRS with an EPSG code.
    resampling
        How pixels of the images become pixels of the grid.
    chunk
        Height and width of a chunk, px.
    any_value
        Whether every stored value is data whatever the file declares missing, as in quality data.

    Returns
    -------
    dask array
        (image, band, y, x) in the stored dtype; the nodata value where an image has no pixel, 0 where it has none.

    Raises
    ------
    CubeError
        Grid or images are not what stackstac can take; when computed, also a file that has a mask or is not what its item says.
    """
    table = band_table(images, names)
    epsg = None if target.crs is None else target.crs.to_epsg()
    affine = target.affine
    if epsg is None or affine.b or affine.d or affine.a <= 0 or affine.e >= 0:
        raise CubeError(
            f"stackstac reads to north-up grids with an EPSG code; got {target.crs} and {tuple(affine)[:6]}. Use the "
            "reader 'rtsx'."
        )
    height, width = target.shape
    bounds = (affine.c, affine.f + height * affine.e, affine.c + width * affine.a, affine.f)
    files = {band.href: open_reader(band.file, any_value=any_value) for row in table.rows for band in row}
    with catch_warnings():
        filterwarnings("ignore", category=DeprecationWarning)  # of its use of NumPy and pandas
        filterwarnings("ignore", category=FutureWarning)
        try:
            stack = stackstac.stack(
                _items(table),
                assets=list(table.keys),
                epsg=epsg,
                resolution=(affine.a, -affine.e),
                bounds=bounds,
                snap_bounds=False,  # True would move the grid to a multiple of its resolution, silently
                resampling=RasterioResampling[resampling],
                chunksize=chunk,
                dtype=table.dtype,
                fill_value=table.fill,
                rescale=False,
                sortby_date=False,
                xy_coords=False,
                properties=False,
                band_coords=False,
                gdal_env=_ENV,
                reader=partial(_CheckedReader, files=files),
                errors_as_nodata=(),  # a file that is missing is an error, not missing ground
            )
        except ValueError as error:
            raise CubeError(f"stackstac cannot read {[image.id for image in images][:5]}: {error}") from error
    return _completed(stack, table, shape=(height, width), chunk=chunk)


class _CheckedReader(AutoParallelRioReader):  # type: ignore[misc]  # stackstac has no types
    """stackstac's reader of a file that is what its item says and has no mask, which would be lost."""

    def __init__(self, *, files: Mapping[str, WindowReader], **given: Any) -> None:
        super().__init__(**given)
        self.files = files

    def _open(self) -> Any:
        file = self.files[self.url]
        assert isinstance(file, FileReader)  # `band_table` has refused others
        header = read_header(file.path)
        file.check(header)
        if set(header.masked) & set(file.bands):
            raise CubeError(
                f"Missing pixels of {file.path} are marked by a mask or an alpha band, which stackstac loses. Use the reader "
                "'rtsx', the default: remove `reader: stackstac` from the source."
            )
        return super()._open()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "files": self.files}


def _items(table: BandTable) -> list[dict[str, Any]]:
    """Items of a minimum, because stackstac knows proj:epsg only, and one band per asset."""
    items = []
    for number, row in enumerate(table.rows):
        assets = {}
        for band in row:
            if band.epsg is None:
                raise CubeError(
                    f"stackstac needs EPSG codes; {band.href} is in {band.geobox.crs}. Use the reader 'rtsx'."
                )
            assets[band.key] = {
                "href": band.href,
                "proj:epsg": band.epsg,
                "proj:shape": list(band.geobox.shape),
                "proj:transform": list(band.geobox.affine)[:6],
            }
        properties = {"datetime": datetime(2000, 1, 1, tzinfo=UTC).isoformat()}
        items.append({"type": "Feature", "id": str(number), "properties": properties, "assets": assets})
    return items


def _completed(stack: Any, table: BandTable, *, shape: tuple[int, int], chunk: tuple[int, int]) -> da.Array:
    """All images and bands in their order: stackstac leaves out those that lie beside the grid."""
    pixels = stack.data.rechunk({2: chunk[0], 3: chunk[1]})
    rows = {str(name): number for number, name in enumerate(np.atleast_1d(stack["id"].values))}
    columns = {str(name): number for number, name in enumerate(np.atleast_1d(stack["band"].values))}
    empty = da.full(shape, table.fill, dtype=table.dtype, chunks=chunk)
    completed: da.Array = da.stack(
        [
            da.stack(
                [
                    pixels[rows[str(number)], columns[key]] if str(number) in rows and key in columns else empty
                    for key in table.keys
                ]
            )
            for number in range(len(table.rows))
        ]
    )
    return completed
