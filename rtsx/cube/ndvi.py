"""The vegetation index as a layer."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rtsx.cube.conventions import as_cube
from rtsx.cube.georeference import GRID_MAPPING
from rtsx.cube.packing import packing
from rtsx.errors import CubeError

__all__ = ["add_ndvi"]


def add_ndvi(cube: xr.Dataset) -> xr.Dataset:
    """The cube with `ndvi` = (nir - red) / (nir + red), from physical values; lazy.

    Returns
    -------
    xarray.Dataset
        With a float32 layer `ndvi` (NumPy in, NumPy out), NaN where nir + red is 0, where either is nodata, and where
        `valid` is False.

    Raises
    ------
    CubeError
        `red` or `nir` is missing, or `ndvi` is there already.
    """
    cube = as_cube(cube)
    missing = [name for name in ("red", "nir") if name not in cube]
    if missing or "ndvi" in cube:
        raise CubeError(
            f"ndvi is made from red and nir where there is none yet; missing {missing}, layers {list(cube.data_vars)}."
        )
    inputs = [cube["red"], cube["nir"]]
    if "valid" in cube and ("time" not in cube["valid"].dims or any("time" in band.dims for band in inputs)):
        inputs.append(cube["valid"])  # but an index of things without a time gets none from the mask of others
    ndvi = xr.apply_ufunc(
        _ndvi,
        *inputs,
        kwargs={"red_packing": packing(cube["red"]), "nir_packing": packing(cube["nir"])},
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    ndvi = ndvi.transpose("time", "y", "x", missing_dims="ignore")  # static and timed inputs may mix
    ndvi.attrs = {
        "_FillValue": np.float32(np.nan),
        "units": "index",
        "long_name": "normalised difference vegetation index",
    }
    ndvi.variable.encoding |= GRID_MAPPING
    return cube.assign(ndvi=ndvi)


def _ndvi(
    red: NDArray[np.generic],
    nir: NDArray[np.generic],
    valid: NDArray[np.bool_] | None = None,
    *,
    red_packing: dict[str, Any],
    nir_packing: dict[str, Any],
) -> NDArray[np.float32]:
    keep = np.ones(red.shape, bool) if valid is None else valid.copy()
    # Both in stored units of red, instead of physical ones: the index is the same, and with an offset such as
    # Sentinel-2's the sum of two whole numbers is exactly 0 where it should be, not 1e-8.
    unit = red_packing["scale_factor"]
    bands = []
    for stored, packed in ((red, red_packing), (nir, nir_packing)):
        if packed["nodata"] is not None:
            keep &= stored != packed["nodata"]
        factor, summand = np.float32(packed["scale_factor"] / unit), np.float32(packed["add_offset"] / unit)
        bands.append(stored.astype(np.float32) * factor + summand)
    total = bands[0] + bands[1]
    keep &= total != 0
    index = np.full(red.shape, np.nan, np.float32)
    np.divide(bands[1] - bands[0], total, out=index, where=keep)
    return index
