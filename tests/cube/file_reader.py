"""The reader of a file that its own header describes."""

import numpy as np

from rtsx.cube.rasterio import read_header
from rtsx.cube.resample.readers import FileReader


def file_reader(path: str, bands: tuple[int, ...] | None = None) -> FileReader:
    """Return the reader of some bands of a file; of all if none are named."""
    header = read_header(path)
    chosen = header.data_bands if bands is None else bands
    dtype, nodata = np.dtype(header.dtypes[chosen[0] - 1]), header.nodata[chosen[0] - 1]
    return FileReader(path=path, bands=chosen, geobox=header.geobox, dtype=dtype, nodata=nodata)
