"""Raster files as lazy arrays."""

from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from rtsx.cube.rasterio import RasterHeader, read_window, stored_dtype

__all__ = ["chunk_lengths", "lazy_bands"]


def chunk_lengths(length: int, chunk: int) -> tuple[int, ...]:
    """Lengths of the chunks of an axis: all `chunk` but the last.

    Examples
    --------
    >>> chunk_lengths(2500, 1024)
    (1024, 1024, 452)
    """
    whole, rest = divmod(length, chunk)
    return (chunk,) * whole + ((rest,) if rest else ())


def lazy_bands(
    header: RasterHeader, window: tuple[slice, slice], *, bands: tuple[int, ...], chunk: tuple[int, int]
) -> da.Array:
    """Lazy pixels (band, y, x) of some bands of one file, one task per chunk that reads all of them in one go.

    One task per file and chunk, instead of rioxarray's one per variable: in a pixel-interleaved file (PlanetScope as
    delivered) every read decodes all bands anyway, and a remote file is opened once instead of once per band.

    Parameters
    ----------
    header
        The file.
    window
        Rows and columns of the file that the array covers.
    bands
        Band numbers from 1, all of one dtype.
    chunk
        Height and width of a chunk, px.
    """
    rows, columns = window
    lengths = tuple(
        chunk_lengths(span.stop - span.start, size) for span, size in zip((rows, columns), chunk, strict=True)
    )
    dtype = stored_dtype(header, bands[0])
    # map_blocks, instead of from_array with an array-like: dask pushes the slicing of single bands into from_array's
    # tasks, which would read the file once per band after all.
    stack: da.Array = da.map_blocks(
        _read_block,
        chunks=((len(bands),), *lengths),
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
        name=f"raster-{tokenize(header, bands, window, chunk)}",
        path=header.path,
        bands=bands,
        starts=(rows.start, columns.start),
        stops=(rows.stop, columns.stop),
        chunk=chunk,
    )
    return stack


def _read_block(
    block_id: tuple[int, int, int],
    *,
    path: str,
    bands: tuple[int, ...],
    starts: tuple[int, int],
    stops: tuple[int, int],
    chunk: tuple[int, int],
) -> NDArray[Any]:
    rows, columns = (
        slice(start + index * size, min(start + (index + 1) * size, stop))
        for index, start, stop, size in zip(block_id[1:], starts, stops, chunk, strict=True)
    )
    return read_window(path, (rows, columns), bands=bands)
