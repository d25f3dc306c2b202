"""Raster files that share a grid, as a lazy cube."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from os import PathLike

import numpy as np
import xarray as xr

from rtsx.cube.dask import lazy_bands, lazy_valid
from rtsx.cube.georeference import with_georeference
from rtsx.cube.layer import Layer
from rtsx.cube.packing import packing_attrs
from rtsx.cube.rasterio import RasterHeader, read_header, stored_dtype
from rtsx.cube.selection import Selected, select_bands, select_layers, validate_same_grid
from rtsx.cube.sensor import Sensor
from rtsx.cube.window import cell_window
from rtsx.errors import CubeError
from rtsx.grid import Cell

__all__ = ["AUTO_CHUNK", "RasterSource", "open_rasters"]

RasterSource = str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, Layer | str | PathLike[str]]

AUTO_CHUNK = 1024
"""Pixels per side of a chunk that is chosen for the caller: 1 Mpx of ten uint16 layers is 20 MB, a good task for dask."""


def open_rasters(
    source: RasterSource,
    cell: Cell | None,
    *,
    layers: Sequence[str] | None,
    sensor: Sensor | None,
    chunk: int | None,
) -> xr.Dataset:
    """Lazy cube of raster files; reads their headers only.

    `chunk` in pixels; None chooses about 1024, in whole blocks of the files.
    """
    selected = _select(source, layers=layers, sensor=sensor)
    headers = tuple(dict.fromkeys(one.header for one in selected))
    validate_same_grid(headers)
    geobox = headers[0].geobox
    if geobox.affine.e > 0 or geobox.affine.a < 0 or geobox.affine.b or geobox.affine.d:
        raise CubeError(
            f"{headers[0].path} is not north-up (transform {tuple(geobox.affine)[:6]}). Warp it first, e.g. with gdalwarp."
        )
    if cell is None:
        window = (slice(0, geobox.shape[0]), slice(0, geobox.shape[1]))
        origin = (geobox.affine.c, geobox.affine.f)
    else:
        window = cell_window(geobox, cell, name=headers[0].path)
        geobox = geobox[window]
        origin = cell.grid.origin
    size = _auto_chunk(headers) if chunk is None else (chunk, chunk)
    variables: dict[str, xr.Variable] = {}
    for header in headers:
        # VRTs may hold bands of several dtypes; one read gives one dtype.
        for dtype in dict.fromkeys(header.dtypes):
            group = [one for one in selected if one.header == header and header.dtypes[one.band - 1] == dtype]
            if group:
                stack = lazy_bands(header, window, bands=tuple(one.band for one in group), chunk=size)
                for place, one in enumerate(group):
                    variables[one.layer.name] = xr.Variable(("y", "x"), stack[place], _attrs(one))
    ordered = {one.layer.name: variables[one.layer.name] for one in selected}
    masks = []
    for header in headers:
        masked = tuple(one.band for one in selected if one.header == header and one.band in header.masked)
        if masked:
            masks.append(lazy_valid(header, window, bands=masked, chunk=size))
    if masks:
        attrs = {"long_name": "True where no mask of the files calls a pixel missing"}
        ordered["valid"] = xr.Variable(("y", "x"), reduce(and_, masks), attrs)
    return with_georeference(ordered, geobox, lattice_origin=origin)


def _select(source: RasterSource, *, layers: Sequence[str] | None, sensor: Sensor | None) -> tuple[Selected, ...]:
    if isinstance(source, Mapping):
        if sensor is not None:
            raise CubeError("A mapping from names to files says itself what each band is; leave sensor= out.")
        wanted = {name: one for name, one in source.items() if layers is None or name in layers}
        missing = sorted(set(layers or ()) - set(wanted))
        if missing or not wanted:
            raise CubeError(f"Layers {missing} are not among the sources {sorted(source)}. Add them, or ask for fewer.")
        paths = [str(one.source if isinstance(one, Layer) else one) for one in wanted.values()]
        return select_layers({path: read_header(path) for path in dict.fromkeys(paths)}, wanted)
    paths = [str(source)] if isinstance(source, str | PathLike) else [str(path) for path in source]
    if not paths:
        raise CubeError("A cube needs at least one file; the list of sources is empty.")
    return select_bands([read_header(path) for path in paths], layers=layers, sensor=sensor)


def _auto_chunk(headers: Sequence[RasterHeader]) -> tuple[int, int]:
    """About `AUTO_CHUNK` px in whole blocks of the file with the largest ones, so that no block is decoded twice.

    Strips (blocks as wide as the file) bind the rows only.
    """
    width = headers[0].geobox.shape[1]
    rows = max(header.block[0] for header in headers)
    columns = max((header.block[1] for header in headers if header.block[1] < width), default=AUTO_CHUNK)
    return tuple(max(1, round(AUTO_CHUNK / block)) * block for block in (rows, columns))  # type: ignore[return-value]


def _attrs(one: Selected) -> dict[str, object]:
    layer = one.layer
    dtype: np.dtype[np.generic] = stored_dtype(one.header, one.band)
    return dict(
        packing_attrs(
            dtype,
            scale_factor=layer.scale_factor,
            add_offset=layer.add_offset,
            nodata=layer.nodata,
            units=layer.units,
            long_name=layer.long_name,
        )
    )
