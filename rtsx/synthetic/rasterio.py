"""Cloud-optimised GeoTIFFs, written by rasterio, and what their headers say."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile


@dataclass(frozen=True, kw_only=True)
class RasterInfo:
    """Header of a file that `write_cog` has written."""

    crs: str
    """CRS as "EPSG:" and its code."""
    transform: Affine
    """Transform: px to CRS."""
    shape: tuple[int, int]
    """Height and width, px."""
    dtype: str
    """NumPy dtype of all bands."""
    nodata: float | None
    """Stored value of a missing pixel; None where every value counts."""
    scale: float
    """Physical units per stored unit."""
    names: tuple[str, ...]
    """Names of the bands, in order."""


def read_info(path: Path) -> RasterInfo:
    """Read a header instead of remembering what was written, so that metadata made from it cannot differ from the file."""
    with rasterio.open(path) as raster:
        return RasterInfo(
            crs=f"EPSG:{raster.crs.to_epsg()}",
            transform=raster.transform,
            shape=raster.shape,
            dtype=raster.dtypes[0],
            nodata=raster.nodata,
            scale=raster.scales[0],
            names=tuple(raster.descriptions),
        )


def write_cog(
    path: Path,
    bands: NDArray[np.generic],
    *,
    crs: str,
    transform: Affine,
    nodata: float | None,
    names: tuple[str, ...],
    scale: float = 1.0,
    tags: dict[str, str],
) -> None:
    """Write (band, y, x) as a deflated COG with blocks of 512 px, overviews, band names and a scale per band."""
    count, height, width = bands.shape
    profile = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype.name,
        "crs": crs, "transform": transform, "nodata": nodata, "interleave": "pixel",
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(bands)
            raster.descriptions = names
            raster.colorinterp = [ColorInterp.undefined if count > 1 else ColorInterp.gray] * count
            raster.update_tags(**tags)
            if scale != 1:
                raster.scales = (scale,) * count
        # GDAL's COG driver only copies; the first file never leaves memory.
        rasterio.shutil.copy(
            memory.name, path, driver="COG", compress="deflate", level=1, blocksize=512,
            predictor="yes", overview_resampling="average" if bands.dtype.kind == "f" else "nearest",
        )  # fmt: skip
