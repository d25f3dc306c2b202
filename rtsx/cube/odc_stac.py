"""Images read by odc-stac, to compare with our own reader and for those who prefer its graph."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from warnings import catch_warnings, filterwarnings

import dask.array as da
import numpy as np
import odc.stac
import pystac
from odc.geo.geobox import GeoBox
from shapely.geometry import mapping

from rtsx.cube.align.resampling import Resampling
from rtsx.cube.image import Image
from rtsx.cube.single_bands import BandTable, band_table
from rtsx.grid.lonlat import lonlat_polygon

__all__ = ["read_odc_stac"]

_START = datetime(2000, 1, 1, tzinfo=UTC)
"""The first image's time for odc-stac, one day for each: a name for a place in the order, not when it was taken."""


def read_odc_stac(
    images: Sequence[Image], names: Sequence[str], target: GeoBox, *, resampling: Resampling, chunk: tuple[int, int]
) -> da.Array:
    """Stored values of some bands of images on a grid, lazily, as odc-stac and GDAL's warp give them.

    Parameters
    ----------
    images
        What to read; each has all names.
    names
        Names of bands; several bands of one name come one after the other.
    target
        Any grid.
    resampling
        How pixels of the images become pixels of the grid.
    chunk
        Height and width of a chunk, px.

    Returns
    -------
    dask array
        (image, band, y, x) in the stored dtype; the nodata value where an image has no pixel, 0 where it has none.

    Raises
    ------
    CubeError
        The images differ in dtype or nodata, or are no files of GDAL's.
    """
    table = band_table(images, names)
    stored = {"data_type": table.dtype.name, "nodata": table.fill.item()}
    with catch_warnings():
        filterwarnings("ignore", category=DeprecationWarning)  # of its use of shapely and pystac
        filterwarnings("ignore", category=PendingDeprecationWarning)
        loaded = odc.stac.load(
            _items(table),
            bands=list(table.keys),
            geobox=target,
            groupby="id",
            resampling=resampling,
            chunks={"y": chunk[0], "x": chunk[1]},
            stac_cfg={"*": {"assets": {"*": stored}, "warnings": "ignore"}},
            preserve_original_order=True,
        )
    days = ((loaded["time"].values - np.datetime64(_START.replace(tzinfo=None))) / np.timedelta64(1, "D")).round()
    rows = {int(day): number for number, day in enumerate(days)}
    empty = da.full(tuple(target.shape), table.fill, dtype=table.dtype, chunks=chunk)
    pixels: da.Array = da.stack(
        [
            da.stack([loaded[key].data[rows[number]] if number in rows else empty for key in table.keys])
            for number in range(len(table.rows))
        ]
    )
    return pixels


def _items(table: BandTable) -> list[pystac.Item]:
    """Items of a minimum, one band per asset."""
    items = []
    for number, row in enumerate(table.rows):
        outline = lonlat_polygon(row[0].geobox.extent.geom, _wkt(row[0].geobox))
        item = pystac.Item(
            id=str(number),
            geometry=mapping(outline),
            bbox=list(outline.bounds),
            datetime=_START + timedelta(days=number),
            properties={},
            collection="images",
            stac_extensions=[_PROJECTION],
        )
        for band in row:
            grid: dict[str, Any] = {
                "proj:shape": list(band.geobox.shape),
                "proj:transform": list(band.geobox.affine)[:6],
            }
            named = {"proj:code": f"EPSG:{band.epsg}"} if band.epsg else {"proj:wkt2": _wkt(band.geobox)}
            item.add_asset(
                band.key, pystac.Asset(band.href, media_type="image/tiff", roles=["data"], extra_fields=grid | named)
            )
        items.append(item)
    return items


_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


def _wkt(geobox: GeoBox) -> str:
    assert geobox.crs is not None  # every image here says where it lies
    return str(geobox.crs.to_wkt())
