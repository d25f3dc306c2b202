"""`open_cube` for everything, configs and stores of native images included: the door that users go through."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import xarray as xr
from odc.geo.geobox import GeoBox

from rtsx.arguments import typed
from rtsx.config.files import load_cube_config
from rtsx.config.stored import stored_config
from rtsx.cube import opening
from rtsx.cube.native_images import with_native_images
from rtsx.cube.rasters import RasterSource
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.sensor import Sensor
from rtsx.errors import CubeError
from rtsx.grid import Cell

__all__ = ["is_config", "open_cube"]


def is_config(source: object) -> bool:
    """Whether a source is the path of a config: by its ending.

    Examples
    --------
    >>> is_config("configs/cube.yaml"), is_config("scene.tif")
    (True, False)
    """
    return isinstance(source, str | PathLike) and Path(source).suffix.lower() in (".yaml", ".yml")


@typed(CubeError, but=("chunks",))
def open_cube(
    source: RasterSource | CubeRecipe,
    cell: Cell | GeoBox | None = None,
    *,
    layers: Sequence[str] | None = None,
    mask: tuple[str | PathLike[str] | xr.DataArray, str] | None = None,
    chunks: int | Literal["auto"] = "auto",
    sensor: str | Sensor | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a lazy cube: one variable per layer, as stored; asks catalogs and reads metadata, but no pixel.

    Parameters
    ----------
    source
        - The path of a YAML config (``.yaml``, ``.yml``), or a `CubeRecipe`: sources on grids of their own; each chunk of
          the cube reads and aligns what it needs.
        - A Zarr store (v2 or v3, path or URL): of layers, of a prediction, or built with images on their own grids, which
          are then aligned like those of a config.
        - Raster files that already share one grid: a path, several paths, or a mapping from layer name to the path of a
          one-band file or to a `Layer`.
    cell
        Keep what lies in this cell; tiles are then anchored to the cell's grid. A store or files have to be on that grid.
        A config fills the cell, or any raster on its grid; None takes the config's region.
    layers
        Names of the layers to keep, in this order. For raster files without band names: the names, in band order.
    mask
        Quality data and the rule that reads it, e.g. ``("udm2.tif", "tss-v1")``; see `apply_mask`.
    chunks
        Side of a chunk, px. ``"auto"``: about 1024, in whole blocks, chunks or shards of the source; a config's own.
    sensor
        What the bands of the raster files are: ``"planetscope"``, ``"sentinel2-l2a"``, ``"sentinel2-l2a-04.00"``,
        ``"arcticdem"``, ``"tcvis"`` or a `Sensor`; gives names, scale, nodata and units.
    storage_options
        For fsspec, where a Zarr store is behind a URL.

    Returns
    -------
    xarray.Dataset
        Dask-backed variables on (y, x) or (time, y, x), those of a prediction also with `class`, in their stored dtype,
        packing in their attributes, coordinates `y`, `x`, `spatial_ref`, the attribute `lattice_origin`; with quality data
        or `mask` the boolean variable `valid`.

    Raises
    ------
    ConfigError
        The config cannot be read, or something in it is wrong; everything that is wrong is listed, by line and key.
    CubeError
        A source is missing, damaged, unfinished, or not on the common grid; a layer is missing. A file that turns out
        to be damaged later raises it when the chunk is computed.
    """
    given: RasterSource | CubeRecipe = source
    ground = cell
    if is_config(source):
        config = load_cube_config(str(source))
        given, ground = config.recipe(), cell or config.cell
    elif isinstance(source, str | PathLike) and mask is None and sensor is None:
        stored = stored_config(str(source), storage_options or {})
        if stored is not None:
            given, ground = with_native_images(stored.recipe(), str(source)), cell or stored.cell
            storage_options = None
    return opening.open_cube(
        given, ground, layers=layers, mask=mask, chunks=chunks, sensor=sensor, storage_options=storage_options
    )
