"""Images taken apart into single bands, for stackstac, which knows one band per file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from rtsx.cube.image import AssetBands, Image
from rtsx.errors import CubeError

__all__ = ["BandTable", "SingleBand", "band_table"]


@dataclass(frozen=True, kw_only=True)
class SingleBand:
    """One band of one file."""

    key: str
    """Name that is unique within the image and the same in all images."""
    href: str
    """What GDAL opens to see this band alone, with the nodata value that counts."""
    file: AssetBands
    """The file with all its bands."""
    geobox: GeoBox
    """Grid of the file."""
    epsg: int | None
    """Code of its CRS; None for one without."""


@dataclass(frozen=True, kw_only=True)
class BandTable:
    """The bands of several images that are read together."""

    rows: tuple[tuple[SingleBand, ...], ...]
    """Bands by image; all rows have the same keys."""
    dtype: np.dtype[Any]
    """Dtype that they are stored in."""
    nodata: float | None
    """Stored value of a missing pixel; None where every stored value counts."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the bands, in order."""
        return tuple(band.key for band in self.rows[0])

    @property
    def fill(self) -> np.generic:
        """What pixels outside a file get, as NumPy scalar, because a Python number is refused by stackstac."""
        fill: np.generic = self.dtype.type(0 if self.nodata is None else self.nodata)
        return fill


def band_table(images: Sequence[Image], names: Sequence[str]) -> BandTable:
    """The bands of some names, one after the other, of all images.

    Raises
    ------
    CubeError
        There are none, they differ in dtype or nodata, or are no files of GDAL's.

    Examples
    --------
    >>> from affine import Affine
    >>> box = GeoBox((2, 2), Affine(10, 0, 0, 0, -10, 20), "EPSG:3413")
    >>> bands = AssetBands(href="a.tif", bands=(4, 3), geobox=box, dtype="uint16", nodata=0)
    >>> [band.href for band in band_table([Image(id="a", bands={"rg": bands})], ["rg"]).rows[0]]
    ['vrt://a.tif?bands=4&a_nodata=0', 'vrt://a.tif?bands=3&a_nodata=0']
    """
    if not images or not names:
        raise CubeError(f"At least one image and one band have to be read; got {len(images)} and {list(names)}.")
    rows = []
    for image in images:
        missing = [name for name in names if name not in image.bands]
        if missing:
            raise CubeError(f"Image {image.id!r} has {sorted(image.bands)}; {missing} are wanted too.")
        rows.append(tuple(band for name in names for band in _single_bands(name, image.bands[name], image.id)))
    files = [image.bands[name] for image in images for name in names]
    stored = {(file.dtype, repr(file.nodata)) for file in files}
    if len(stored) > 1 or len({tuple(band.key for band in row) for row in rows}) > 1:
        raise CubeError(
            f"Bands that are read together share number, dtype and nodata; {list(names)} have {sorted(stored)}. Read "
            "them one by one."
        )
    return BandTable(rows=tuple(rows), dtype=np.dtype(files[0].dtype), nodata=files[0].nodata)


def _single_bands(name: str, file: AssetBands, image: str) -> list[SingleBand]:
    if file.opener != "gdal" or "?" in file.href:
        raise CubeError(
            f"Bands {name!r} of image {image!r} are in {file.href}: Zarr and addresses with a query string, such as signed "
            "ones, are for the reader 'rtsx' only."
        )
    nodata = "" if file.nodata is None else f"&a_nodata={file.nodata:.17g}"
    epsg = None if file.geobox.crs is None else file.geobox.crs.to_epsg()
    return [
        SingleBand(
            key=f"{name}_{position}",
            href=f"vrt://{file.href}?bands={number}{nodata}",
            file=file,
            geobox=file.geobox,
            epsg=epsg,
        )
        for position, number in enumerate(file.bands, start=1)
    ]
