"""How a variable of a cube is stored: CF packing in its attributes, never applied to the array."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from rtsx.errors import CubeError

__all__ = ["MISSING", "missing_values", "packing", "packing_attrs", "with_packing"]

MISSING = ("_FillValue", "missing_value", "nodata")
"""Words for stored values of missing pixels: of CF, of CF for several, of odc-stac and GDAL."""


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
    missing = missing_values(layer)
    if len(missing) > 1:
        raise CubeError(
            f"Layer {layer.name!r} has several values of missing pixels, {list(missing)}. Make them one with as_cube(cube), "
            "or store the layer with one."
        )
    return {
        "scale_factor": float(attrs.get("scale_factor", 1.0)),
        "add_offset": float(attrs.get("add_offset", 0.0)),
        "nodata": missing[0] if missing else None,
        "is_declared": "scale_factor" in attrs or "add_offset" in attrs,
    }


def missing_values(layer: xr.DataArray) -> tuple[float, ...]:
    """Stored values that mark missing pixels, each once, `_FillValue` first; NaN of floats is missing anyway.

    `encoding` counts where the numbers in memory are those that are stored: no scale is in it.

    Raises
    ------
    CubeError
        One is no number; the message names attribute and value.

    Examples
    --------
    >>> missing_values(xr.DataArray(np.zeros(2, np.uint8), attrs={"_FillValue": 0, "missing_value": [0, 255]}))
    (0.0, 255.0)
    """
    decoded = {"scale_factor", "add_offset"} & set(layer.encoding)
    sources = (layer.attrs,) if decoded and layer.dtype.kind == "f" else (layer.attrs, layer.encoding)
    found: dict[float, None] = {}
    for words in sources:
        for word in MISSING:
            for value in np.ravel(np.asarray(words.get(word), object)):
                try:
                    number = np.nan if value is None else float(value)
                except (TypeError, ValueError) as error:
                    raise CubeError(
                        f"Layer {layer.name!r} has {word} {words[word]!r}, which is no number. Set "
                        f"cube[{layer.name!r}].attrs[{word!r}] to the stored value of missing pixels."
                    ) from error
                if _can_be_stored(number, layer.dtype):
                    found[number] = None
    return tuple(found)


def _can_be_stored(number: float, dtype: np.dtype[Any]) -> bool:
    """Whether a pixel of this dtype can have the value; NaN is left out, because it equals nothing."""
    if dtype.kind in "iu":
        return number.is_integer() and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max
    return not np.isnan(number)


def with_packing(layer: xr.DataArray) -> xr.DataArray:
    """The layer with its packing in the attributes that `packing` reads, and one value of missing pixels; lazy.

    The layer itself where that is so already. A scale of 1 and an offset of 0 are what rioxarray and GDAL give where a file
    is silent, so they declare nothing.
    """
    missing = missing_values(layer)
    attrs = {key: value for key, value in layer.attrs.items() if key not in MISSING}
    if "_FillValue" in layer.attrs and (not missing or float(missing[0]) == layer.attrs["_FillValue"]):
        attrs["_FillValue"] = layer.attrs["_FillValue"]
    elif missing:
        attrs["_FillValue"] = layer.dtype.type(missing[0])
    if (attrs.get("scale_factor", 1), attrs.get("add_offset", 0)) == (1, 0):
        attrs = {key: value for key, value in attrs.items() if key not in ("scale_factor", "add_offset")}
    several = len(missing) > 1
    if attrs == layer.attrs and not several:
        return layer
    made = layer
    if several:
        others = np.array(missing[1:], layer.dtype)
        if (
            not layer.variable._in_memory and layer.chunks is None
        ):  # stays where it is stored, instead of being read here
            layer = layer.chunk(layer.encoding.get("preferred_chunks", {}))
        made = layer.where(~layer.isin(others), layer.dtype.type(missing[0]))
    made = made.copy(deep=False)
    made.attrs = attrs
    made.encoding = {key: value for key, value in layer.encoding.items() if key not in MISSING}
    return made


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
