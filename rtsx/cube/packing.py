"""How a variable of a cube is stored: CF packing in its attributes, never applied to the array."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["packing", "packing_attrs"]


def packing(layer: xr.DataArray) -> dict[str, Any]:
    """Packing of one variable, as its attributes say.

    Returns
    -------
    dict
        ``scale_factor`` and ``add_offset`` (physical = stored * scale_factor + add_offset), ``nodata`` (stored value of
        a missing pixel, or None) and ``is_declared`` (False where scale 1 and offset 0 are only the fallback).

    Examples
    --------
    >>> packing(xr.DataArray([3000], attrs={"scale_factor": 1e-4, "_FillValue": 0}))
    {'scale_factor': 0.0001, 'add_offset': 0.0, 'nodata': 0.0, 'is_declared': True}
    """
    # A variable that somebody decoded with xarray has its packing in `encoding`: what is in memory is physical then.
    attrs = layer.attrs
    nodata = attrs.get("_FillValue", attrs.get("missing_value"))
    return {
        "scale_factor": float(attrs.get("scale_factor", 1.0)),
        "add_offset": float(attrs.get("add_offset", 0.0)),
        "nodata": None if nodata is None else float(nodata),
        "is_declared": "scale_factor" in attrs or "add_offset" in attrs,
    }


def packing_attrs(
    dtype: np.dtype[Any],
    *,
    scale_factor: float | None,
    add_offset: float | None,
    nodata: float | None,
    units: str | None,
    long_name: str | None,
) -> Mapping[str, Any]:
    """Attributes that `packing` reads; whatever is None is left out.

    A nodata value that the dtype cannot hold is left out too, because no stored pixel can have it.

    Examples
    --------
    >>> attrs = packing_attrs(
    ...     np.dtype("uint8"), scale_factor=None, add_offset=None, nodata=-9999, units="1", long_name=None
    ... )
    >>> attrs
    {'units': '1'}
    """
    attrs: dict[str, Any] = {}
    if scale_factor is not None:
        attrs["scale_factor"] = float(scale_factor)
    if add_offset is not None:
        attrs["add_offset"] = float(add_offset)
    if nodata is not None:
        if dtype.kind == "f":
            attrs["_FillValue"] = dtype.type(nodata)
        elif float(nodata).is_integer() and np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max:
            attrs["_FillValue"] = dtype.type(int(nodata))
    attrs |= {name: value for name, value in (("units", units), ("long_name", long_name)) if value}
    return attrs
