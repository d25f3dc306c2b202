"""The conventions of xarray, rioxarray, odc-stac and stackstac for layers, nodata, scale and place, and what makes a Dataset a cube."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from os import PathLike, fspath
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from rtsx.cube.encoding import (
    MISSING,
    MISSING_ATTRS,
    as_mask,
    decoded_packing,
    is_sparse,
    missing_values,
    packing,
    with_packing,
)
from rtsx.cube.georeference import COORDINATE_NOISE, in_crs_units, validate_georeference, with_axes, with_crs
from rtsx.cube.rasterio import read_header
from rtsx.cube.sensors import require_layer_names
from rtsx.errors import CubeError, LayerValuesWarning
from rtsx.storage.zarr import refuse_absent_chunks

AXIS_NAMES = (("latitude", "longitude"), ("lat", "lon"), ("Y", "X"), ("northing", "easting"))
"""What others call the dimensions y and x."""
_PER_BAND = {
    "scales": "scale_factor",
    "offsets": "add_offset",
    "nodatavals": "nodata",
    "scale_factor": "scale_factor",
    "add_offset": "add_offset",
    "long_name": "long_name",
    "units": "units",
}
"""Attributes that may hold one value for each band, and the word for that of one layer."""
_OF_A_LAYER = frozenset({*_PER_BAND, *MISSING_ATTRS})
"""Attributes of an array or Dataset that describe its layers rather than the whole."""
NAMELESS = re.compile(r"band_?\d+|__xarray_dataarray_variable__")
"""Names that a library gives because it knows none."""
_PREDICTED = frozenset({"class", "member"})
"""Dimensions of a prediction; those of a layer may be called anything else."""
_SNAP = 1 / 32
"""Stored units below which a number that was decoded to physical units is the whole number that it comes from."""


def as_cube(given: xr.Dataset | xr.DataArray, *, layers: Sequence[str] | None = None) -> xr.Dataset:
    """Turn a Dataset or an array with a band dimension into one variable per layer; lazy, and what is so already stays.

    Nodata and scale are taken from wherever xarray, rioxarray, odc-stac and stackstac leave them: `_FillValue`,
    `missing_value`, `nodata` (one value or several), `scale_factor`, `add_offset`, `scales`, `offsets` of the layer or of
    the whole, and `encoding`. The layers then have at most `_FillValue`, `scale_factor` and `add_offset`, which `packing`
    reads. A `valid` of 0 and 1 becomes boolean. Times become datetime64 in UTC, and coordinates that cannot be stored become text.

    Parameters
    ----------
    given
        A Dataset, or a DataArray on (y, x), with time and one dimension of bands in any order.
    layers
        Names of the layers, in the order of the bands; None takes them from `long_name` or from the coordinate.

    Raises
    ------
    CubeError
        It is no Dataset, or does not say what its layers are called or which of their pixels are missing.

    Examples
    --------
    >>> array = xr.DataArray(np.zeros((2, 4, 4)), dims=("band", "y", "x"), attrs={"_FillValue": -1.0})
    >>> cube = as_cube(array, layers=["red", "nir"])
    >>> list(cube.data_vars), cube["nir"].attrs
    (['red', 'nir'], {'_FillValue': -1.0})
    """
    if isinstance(layers, str):
        raise CubeError(f"Layers are a list of names; got the string {layers!r}. Write layers=[{layers!r}].")
    _refuse_lost_masks(given)
    if isinstance(given, xr.DataArray):
        cube = _split(with_axis_names(given), layers)
    elif isinstance(given, xr.Dataset):
        cube = _named(with_axis_names(given), layers)
    else:
        raise CubeError(_no_cube(given))
    cube = _with_whole_longitudes(with_axes(in_crs_units(with_crs(_arranged(cube)))))
    layered = [name for name, layer in cube.data_vars.items() if _is_layer(layer)]
    require_layer_names(layered, cure="Rename them, with cube.rename({'name': 'another'}).")
    if "source" in cube.encoding and {"y", "x"} <= set(cube.coords):  # opened by xarray
        whole = {str(name): cube[name].shape[:-2] for name in layered if not is_sparse(cube[name])}
        refuse_absent_chunks(
            str(cube.encoding["source"]),
            whole,
            y=cube["y"].values,
            x=cube["x"].values,
            axis_names=(("y", "x"), *AXIS_NAMES),
        )
    _refuse_doubled_axes(cube)
    nested = [name for name, index in cube.indexes.items() if isinstance(index, pd.MultiIndex) and name in cube.dims]
    if nested:
        raise CubeError(
            f"Coordinate {nested[0]!r} is a MultiIndex. Take it apart with cube.reset_index({nested[0]!r})."
        )
    cube = _with_plain_coordinates(cube)
    changed = {
        name: with_packing(_without_empty_chunks(layer)) for name, layer in cube.data_vars.items() if _is_layer(layer)
    }
    if "valid" in cube.data_vars and {"y", "x"} <= set(cube["valid"].dims):
        changed["valid"] = as_mask(cube["valid"])
    different = {name: layer for name, layer in changed.items() if layer is not cube.data_vars[name]}
    return _with_plain_attrs(cube.assign(different) if different else cube)


def with_axis_names(given: Any) -> Any:
    """Return the Dataset or array with dimensions y and x, where it has them under another usual name."""
    for names in AXIS_NAMES:
        if set(names) <= set(given.dims) and not {"y", "x"} & set(given.dims):
            return given.rename(dict(zip(names, ("y", "x"), strict=True)))
    return given


def as_stored(cube: xr.Dataset, layers: Sequence[str]) -> xr.Dataset:
    """Bring layers that xarray decoded back to the numbers that were stored, with their packing in the attributes; lazy.

    So that a decoded cube gives the same values as the file, to the last bit. A number that is not near a whole one, as
    after resampling, stays what it is.
    """
    scales = {"scale_factor", "add_offset"}
    decoded = [name for name in layers if decoded_packing(cube[name]) and not scales & set(cube[name].attrs)]
    return cube.assign({name: _encoded(cube[name]) for name in decoded})


def _encoded(layer: xr.DataArray) -> xr.DataArray:
    packed = decoded_packing(layer)
    dtype = np.dtype(layer.encoding.get("dtype") or "float32")
    words = {word: layer.encoding[word] for word in MISSING if word in layer.encoding}
    # xarray leaves values that attributes state in the bits of another integer, such as -1 of unsigned ones.
    missing = missing_values(xr.DataArray(np.zeros((), dtype), attrs=words, name=layer.name))[:1]
    scale, offset = packed.get("scale_factor", 1.0), packed.get("add_offset", 0.0)
    stored = xr.apply_ufunc(
        partial(_stored_numbers, scale=scale, offset=offset, is_whole=dtype.kind in "ui"),
        layer,
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return layer.copy(data=stored.data).assign_attrs(packed | dict(zip(("_FillValue",), missing, strict=False)))


def _stored_numbers(values: NDArray[Any], *, scale: float, offset: float, is_whole: bool) -> NDArray[np.float32]:
    stored = (values.astype(np.float64) - offset) / scale
    if is_whole:
        whole = np.rint(stored)
        stored = np.where(np.abs(stored - whole) < _SNAP, whole, stored)
    return np.asarray(stored, np.float32)


def _without_empty_chunks(layer: xr.DataArray) -> xr.DataArray:
    """Return the layer without chunks of no pixel, which selecting and concatenating leave behind."""
    sizes = layer.chunksizes
    if not any(0 in lengths for lengths in sizes.values()):
        return layer
    return layer.chunk({dim: tuple(filter(None, lengths)) or lengths for dim, lengths in sizes.items()})


def _is_layer(layer: xr.DataArray) -> bool:
    return layer.name != "valid" and {"y", "x"} <= set(layer.dims)


def _refuse_lost_masks(given: Any) -> None:
    """Raise for what rioxarray opened without the mask of its file, of which nothing is in the array."""
    arrays = given.data_vars.values() if isinstance(given, xr.Dataset) else [given]
    for array in arrays if isinstance(given, xr.Dataset | xr.DataArray) else ():
        source = array.encoding.get("source")
        if "rasterio_dtype" not in array.encoding or "dtype" in array.encoding or not source:
            continue  # of another library, or opened with masked=True
        try:
            header = read_header(source)
        except CubeError:
            continue  # no file any more
        several = {str(value) for value in header.nodata} if "band" in array.dims else set()
        if header.masked or len(several) > 1:
            by_value = f"the nodata values {list(header.nodata)} of its bands"
            what = "a mask or an alpha band" if header.masked else by_value
            raise CubeError(
                f"{source} says by {what} which pixels are missing, and rioxarray left that out. Open it with "
                f"rioxarray.open_rasterio({source!r}, masked=True), or with rtsx.open_cube({source!r})."
            )


def _no_cube(given: object) -> str:
    expected = "A cube is an xarray.Dataset with one variable per layer, or a DataArray with a dimension of bands; got"
    if isinstance(given, str | PathLike):
        return f"{expected} the path {fspath(given)!r}. Open it first, with rtsx.open_cube({fspath(given)!r})."
    return f"{expected} {type(given).__name__}. Open one with rtsx.open_cube(path)."


def _split(array: xr.DataArray, layers: Sequence[str] | None) -> xr.Dataset:
    """Return one variable per band of an array, each with its own of what the array says of all."""
    extra = [dim for dim in array.dims if dim not in ("time", "y", "x")]
    if len(extra) > 1 or not {"y", "x"} <= set(array.dims):
        raise CubeError(
            f"An array of a cube is on (y, x), with time and one dimension of bands where it has them; got "
            f"{dict(array.sizes)}. Select one entry of the others with array.isel(...), or rename the dimensions."
        )
    is_single = not extra
    array = array.expand_dims("band") if is_single else array
    dim = "band" if is_single else extra[0]
    coordinate = _band_coordinate(array, dim)
    names = _band_names(array, dim, layers)
    variables = {}
    for number, name in enumerate(names):
        band = array.isel({dim: number}).transpose("time", "y", "x", missing_dims="ignore")
        place = _place(number, coordinate, array.attrs.get("long_name"))
        variables[name] = _variable(band.rename(name), array.attrs, place=place)
    stated = {*array.attrs, *(word for one in variables.values() for word in one.attrs)} & set(MISSING_ATTRS)
    if not is_single and not stated and not set(MISSING) & set(array.encoding):
        _ask_for_nodata(array)
    whole = {key: value for key, value in array.attrs.items() if key not in _OF_A_LAYER}
    coords = array.isel({dim: 0}, drop=True).coords
    return xr.Dataset(variables, coords={name: coords[name] for name in coords if name not in variables}, attrs=whole)


def _place(number: int, coordinate: Sequence[Any], long_name: Any = None) -> tuple[int, int | None]:
    """Return where a band's value stands among those of an attribute, and of how many.

    By the number of the band, which rioxarray counts from 1, or its name in `long_name`, because attributes keep
    their order when bands are selected.
    """
    if isinstance(long_name, tuple | list) and list(long_name).count(coordinate[number]) == 1:
        return list(long_name).index(coordinate[number]), None
    if all(isinstance(one, int) and one > 0 for one in coordinate):
        return coordinate[number] - 1, None
    return number, len(coordinate)


def _band_coordinate(array: xr.DataArray, dim: Any) -> list[Any]:
    return array[dim].values.tolist() if dim in array.coords else [None] * array.sizes[dim]


def _band_names(array: xr.DataArray, dim: Any, layers: Sequence[str] | None) -> list[str]:
    coordinate = _band_coordinate(array, dim)
    count = len(coordinate)
    if layers is not None and len(layers) != count:
        raise CubeError(
            f"The array has {count} bands along {dim!r}; got {len(layers)} layers {list(layers)}. Name every one."
        )
    long_name = array.attrs.get("long_name")
    names: list[Any] = list(layers or [])
    if layers is not None and (spelt := as_spelt(coordinate, layers)):
        names = [spelt[one] for one in coordinate]
    if not names and all(isinstance(one, str) for one in coordinate):
        names = list(coordinate)
    if not names and count == 1 and isinstance(array.name, str) and not NAMELESS.fullmatch(array.name):
        names = [array.name]
    if not names:
        names = [_of_band(long_name, _place(number, coordinate)) for number in range(count)]
    if not any(names) and "chunks" in array.encoding:
        names = [f"band_{number}" for number in range(1, count + 1)]  # as those of a file that does not describe them
    if len(set(names)) != count or not all(isinstance(one, str) and one for one in names):
        raise CubeError(
            f"The {count} bands along {dim!r} have no names of their own, only {list(coordinate)} and long_name {long_name!r}. Name "
            f"them in their order: layers=['red', ...] in predict_cube, or array.expand_dims({dim!r}) where there is one, and "
            f"array.assign_coords({dim}=['red', ...])."
        )
    require_layer_names(
        names, cure=f"Give the bands other names: layers=[...] in predict_cube, or array.assign_coords({dim}=[...])."
    )
    return names


def _of_band(value: Any, place: tuple[int, int | None]) -> Any:
    """Return what an attribute of several bands says of one; None where that cannot be known."""
    number, count = place
    if not isinstance(value, tuple | list | np.ndarray):
        return value
    if number < len(value) and count in (None, len(value)):
        return value[number]
    return value[0] if len(value) and all(one == value[0] for one in value) else None


def _variable(layer: xr.DataArray, words: Mapping[Any, Any], *, place: tuple[int, int | None]) -> xr.Variable:
    """Return one layer, with what attributes of several bands, `encoding` and stackstac's coordinates say of it."""
    variable: xr.Variable = layer.variable.copy(deep=False)
    variable.attrs = _stated(words, place=place, name=layer.name)
    variable.encoding = _stated(layer.encoding, place=place, name=layer.name)
    _state_stac(variable, layer)
    return variable


def _stated(words: Mapping[Any, Any], *, place: tuple[int, int | None], name: Any) -> dict[str, Any]:
    """Return what attributes or an encoding of several bands say of one of them, in the words of one layer."""
    found = {key: words[key] for key in (*MISSING_ATTRS, "dtype", "grid_mapping") if key in words}
    for key, word in _PER_BAND.items():
        value = _of_band(words.get(key), place)
        if value is not None:
            found[word] = value
        elif words.get(key) is not None and word not in ("long_name", "units"):
            raise CubeError(
                f"The attribute {key} has {len(words[key])} values, {list(words[key])}: which is that of layer {name!r} cannot "
                f"be known. Set {word} of each layer, such as cube['red'].attrs[{word!r}], and remove {key}."
            )
    return found


def _state_stac(variable: xr.Variable, layer: xr.DataArray) -> None:
    """Add what stackstac keeps of an item's `raster:bands` as a coordinate; it applies the scale where it gives float64."""
    coord = layer.coords.get("raster:bands")
    stated = coord.item() if coord is not None and coord.size == 1 else None
    if not isinstance(stated, Mapping):
        return
    attrs, keys = variable.attrs, {"scale": "scale_factor", "offset": "add_offset"}
    packed = {word: float(stated[key]) for key, word in keys.items() if stated.get(key) is not None}
    if variable.dtype == np.float64:
        variable.encoding |= packed | {"dtype": stated.get("data_type", "float32")}
    else:
        attrs |= {word: value for word, value in packed.items() if word not in attrs}
    if stated.get("unit"):
        attrs.setdefault("units", stated["unit"])
    # Its fill_value stands where pixels are missing, and it does not say which one it was; 0 is what is usual for 0.
    if variable.dtype.kind in "iu" and stated.get("nodata") == 0:
        attrs.setdefault("nodata", 0)


def _ask_for_nodata(array: xr.DataArray) -> None:
    """Raise for integers that may have lost it: xarray forgets attributes in `to_dataarray`, stackstac its fill value.

    Of a store it is only warned.
    """
    if array.dtype.kind not in "ui" or "rasterio_dtype" in array.encoding or "AREA_OR_POINT" in array.attrs:
        return  # rioxarray says nothing of a file that has no nodata value
    if "chunks" in array.encoding:  # read from a store
        warnings.warn(
            f"Array {array.name!r} of {array.dtype} in a store does not say which pixels are missing: all are taken as measured. Where some "
            "are not, write their value into the store as the attribute nodata of the array.",
            LayerValuesWarning,
            stacklevel=2,
        )
        return
    raise CubeError(
        f"This array of {array.dtype} does not say which pixels are missing: stackstac does not name its fill_value, and "
        "to_dataarray() forgets the attributes of the variables. Give the Dataset itself, or set array.attrs['nodata'] to the "
        "value of missing pixels, None where there are none."
    )


def _named(cube: xr.Dataset, layers: Sequence[str] | None) -> xr.Dataset:
    """Return a Dataset with the names, nodata and scale that `to_dataset` left on the whole given to its layers."""
    found = {name: layer for name, layer in cube.data_vars.items() if _is_layer(layer)}
    if len(found) == 1:
        ((name, layer),) = found.items()
        extra = set(layer.dims) - {"time", "y", "x"}
        if len(extra) == 1 and not extra & _PREDICTED:
            split = _split(layer.assign_attrs(cube.attrs | layer.attrs), layers)
            return (
                cube.drop_vars([name])
                .drop_dims(extra, errors="ignore")
                .assign(split.data_vars)
                .assign_attrs(split.attrs)
            )
    names = list(found)
    whole = {key: value for key, value in cube.attrs.items() if key in _OF_A_LAYER}
    silent = [name for name, layer in found.items() if not _OF_A_LAYER & set(layer.attrs)]
    dtypes = sorted({str(found[name].dtype) for name in silent})
    if len(dtypes) > 1 and set(whole) - {"long_name", "units"}:
        raise CubeError(
            f"The attributes {whole} of the Dataset describe layers, but not all: {silent} are of {dtypes}. Set those of each "
            "layer, such as cube['red'].attrs['scale_factor'], and remove them from cube.attrs."
        )
    changed = {}
    for number, (name, layer) in enumerate(found.items()):
        own = layer.attrs | (whole if name in silent else {})
        is_told = {"scales", "offsets", "nodatavals"} & {*own, *layer.encoding} or "raster:bands" in layer.coords
        if own != layer.attrs or is_told:
            variable = _variable(layer, own, place=_place(number, names))
            others = {key: value for key, value in layer.attrs.items() if key not in _OF_A_LAYER}
            variable.attrs = others | variable.attrs
            changed[name] = variable
    if changed:
        kept = {key: value for key, value in cube.attrs.items() if key not in whole or key == "long_name"}
        cube = cube.assign(changed).drop_attrs(deep=False).assign_attrs(kept)
    return cube.rename(_new_names(cube, names, layers))


def as_spelt(names: Sequence[Any], wanted: Sequence[str]) -> dict[str, str]:
    """Return names of layers as they are wanted, where those are the same but for case and order; empty where they are others.

    Examples
    --------
    >>> as_spelt(["Blue", "Red"], ["red", "blue"]), as_spelt(["B2", "B4"], ["red", "blue"])
    ({'Blue': 'blue', 'Red': 'red'}, {})
    """
    folded = {name.casefold(): name for name in names if isinstance(name, str)}
    asked = {name.casefold(): name for name in wanted}
    is_same = len(folded) == len(names) == len(asked) == len(wanted) and set(folded) == set(asked)
    return {folded[key]: asked[key] for key in folded} if is_same else {}


def _new_names(cube: xr.Dataset, names: Sequence[Any], layers: Sequence[str] | None) -> dict[Any, str]:
    """Return names for layers that have only a number: those given, else what they are called by `long_name`."""
    if layers is not None:
        if len(layers) != len(names):
            raise CubeError(
                f"The Dataset has layers {names}; got the names {list(layers)}. Name every one, in this order."
            )
        spelt = as_spelt(names, layers) or dict(zip(names, layers, strict=True))
        return {old: new for old, new in spelt.items() if old != new}
    nameless = [name for name in names if not isinstance(name, str) or NAMELESS.fullmatch(name)]
    new = {name: cube[name].attrs.get("long_name") for name in nameless}
    texts = [one for one in new.values() if isinstance(one, str) and one]
    if len(texts) == len(new) and len({*texts, *names}) == len(new) + len(names):
        return new
    if all(isinstance(name, str) for name in nameless):
        return {}  # as open_cube itself calls the bands of a file that does not describe them
    raise CubeError(
        f"Layers are called by their number, {nameless}. Name them in their order: layers=['red', ...] in predict_cube, or "
        f"cube.rename({{{nameless[0]!r}: 'red', ...}})."
    )


def _arranged(cube: xr.Dataset) -> xr.Dataset:
    """Return layers on (..., y, x), without other dimensions of one entry, such as the band that rioxarray gives each variable of a NetCDF."""
    layers = [layer for layer in cube.data_vars.values() if {"y", "x"} <= set(layer.dims)]
    known = {"time", "y", "x", *_PREDICTED}
    single = {dim for layer in layers for dim, size in layer.sizes.items() if size == 1 and dim not in known}
    cube = cube.squeeze(sorted(single, key=str), drop=True) if single else cube
    return cube.transpose(..., "y", "x") if any(layer.dims[-2:] != ("y", "x") for layer in layers) else cube


def _with_whole_longitudes(cube: xr.Dataset) -> xr.Dataset:
    """Return longitudes that go on beyond 180, where they step from 180 to -180."""
    axis = cube.coords.get("x")
    if axis is None or axis.ndim != 1 or axis.dtype.kind not in "iuf":
        return cube
    jumps = np.flatnonzero(np.abs(np.diff(axis.values.astype(np.float64))) > 180)
    if len(jumps) != 1 or cube.odc.crs is None or not cube.odc.crs.geographic:
        return cube
    (last,) = jumps
    beyond = 360.0 * (np.arange(axis.size) > last) * np.sign(axis.values[last] - axis.values[last + 1])
    return cube.assign_coords(x=axis.copy(data=axis.values + beyond))


def _refuse_doubled_axes(cube: xr.Dataset) -> None:
    for name in ("y", "x"):
        if name not in cube.coords or cube[name].ndim != 1 or cube[name].dtype.kind not in "iuf":
            continue
        steps = np.abs(np.diff(cube[name].values.astype(np.float64)))
        if name in cube.dims and not cube.sizes[name]:
            raise CubeError(
                f"The cube has no pixel along {name!r}: its layers have no coordinate in common. Merge them with "
                "xr.merge([...], join='override') where they lie on the same pixels, else warp one onto the other."
            )
        if steps.size and (steps < COORDINATE_NOISE * steps.max()).any():
            raise CubeError(
                f"Coordinate {name!r} has neighbours less than a thousandth of a pixel apart: layers of the same pixels, whose "
                "coordinates were rounded differently, were merged, and every pixel is there twice. Merge them with "
                "xr.merge([...], join='override')."
            )


def _with_plain_coordinates(cube: xr.Dataset) -> xr.Dataset:
    """Return coordinates of numbers, times and text: zones and periods to UTC, objects to JSON, dropped where that has no word."""
    changed, dropped = {}, []
    for name, coord in cube.coords.items():
        if isinstance(coord.dtype, np.dtype) and coord.dtype.kind in "biufcMmSUT":
            continue
        values = _plain_values(list(np.asarray(coord.values, object).flat), is_axis=name in cube.dims)
        if values is None:
            dropped.append(name)
        else:
            changed[name] = (coord.dims, values.reshape(coord.shape), coord.attrs)
    return cube.drop_vars(dropped).assign_coords(changed) if changed or dropped else cube


def _plain_values(values: list[Any], *, is_axis: bool) -> NDArray[Any] | None:
    if values and all(isinstance(one, pd.Period) for one in values):
        values = [one.to_timestamp() for one in values]
    if values and all(isinstance(one, date | np.datetime64) for one in values):  # datetimes and timestamps are dates
        return np.asarray(pd.to_datetime(values, utc=True).tz_localize(None).values)
    if all(isinstance(one, str) for one in values):
        return np.array(values, str)
    if all(isinstance(one, int | float | np.number) for one in values):
        return np.array(values)
    try:
        texts = [json.dumps(one, default=_plain_number) for one in values]
    except (TypeError, ValueError):
        return np.array([str(one) for one in values]) if is_axis else None
    return None if set(texts) == {"null"} else np.array(texts)


def _plain_number(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON")


def _with_plain_attrs(cube: xr.Dataset) -> xr.Dataset:
    """Return the attributes that can be stored, of the whole and of its variables: a transform is its six numbers, what has no JSON text."""
    whole = _plain_attrs(cube.attrs)
    odd = {name: plain for name, one in cube.variables.items() if (plain := _plain_attrs(one.attrs)) is not one.attrs}
    if odd:
        changed = {name: cube[name].drop_attrs().assign_attrs(attrs) for name, attrs in odd.items()}
        cube = cube.assign({name: one for name, one in changed.items() if name in cube.data_vars}).assign_coords(
            {name: one for name, one in changed.items() if name in cube.coords}
        )
    return cube if whole is cube.attrs else cube.drop_attrs(deep=False).assign_attrs(whole)


def _plain_attrs(attrs: dict[Any, Any]) -> dict[Any, Any]:
    plain = {key: _plain(value) for key, value in attrs.items()}
    return attrs if all(plain[key] is attrs[key] for key in attrs) else plain


def _plain(value: Any) -> Any:
    """Return the value itself where it can be stored, else its JSON with the numbers of NumPy within, else its text."""
    if isinstance(value, Affine):
        return list(value)[:6]
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufU":
        return value
    with suppress(TypeError, ValueError):
        json.dumps(value)
        return value
    with suppress(TypeError, ValueError):
        return json.loads(json.dumps(value, default=_plain_number))
    return str(value)


def layer_names(cube: xr.Dataset) -> tuple[str, ...]:
    """Return names of the variables that lie on the cube's pixels, without `valid`."""
    return tuple(str(name) for name, layer in cube.data_vars.items() if _is_layer(layer))


def class_names(pred: xr.Dataset) -> list[str]:
    """Return names of a prediction's classes, in their order; empty where it does not say what it found.

    Examples
    --------
    >>> class_names(xr.Dataset(attrs={"bundle_classes": '["slump"]'})), class_names(xr.Dataset())
    (['slump'], [])
    """
    if "class" in pred.coords:
        return [str(name) for name in np.atleast_1d(pred["class"].values)]
    names = pred.attrs.get("bundle_classes", [])  # a list in older predictions
    if isinstance(names, str):
        names = json.loads(names) if names.startswith("[") else [names]
    return [str(name) for name in np.atleast_1d(names)]


def validate_cube(cube: xr.Dataset | xr.DataArray) -> None:
    """Raise unless a Dataset can be predicted, written and cut into tiles; computes nothing.

    A cube has dimensions (y, x) or (time, y, x), coordinates `y` (falling) and `x` (rising) of pixel centres, a CRS in
    `spatial_ref`, one numeric variable per layer with CF packing in its attributes, and optionally a boolean `valid`.
    Variables without the dimensions y and x do not count. What `as_cube` makes one passes too.

    Raises
    ------
    CubeError
        Something is missing or wrong; the message says what to do.
    """
    cube = as_cube(cube)
    validate_georeference(cube)
    names = layer_names(cube)
    if not names:
        raise CubeError(f"A cube needs at least one layer on (y, x); this one has variables {list(cube.data_vars)}.")
    for name in names:
        _validate_layer(cube[name])
    validate_times(cube)
    if "valid" in cube:
        valid = cube["valid"]
        if valid.dtype != bool or valid.dims not in (("y", "x"), ("time", "y", "x")):
            raise CubeError(
                f"`valid` has to be boolean on (y, x) or (time, y, x), True where a pixel can be trusted; got {valid.dtype} "
                f"on {valid.dims}. Make it so, or call it otherwise, with cube.rename(valid='mask'), if it is a layer."
            )


def validate_times(cube: xr.Dataset) -> None:
    """Raise where the dimension time has no entry, or one that is missing.

    Raises
    ------
    CubeError
        It is so.
    """
    if "time" in cube.dims and not cube.sizes["time"]:
        raise CubeError("The cube has no time: its dimension 'time' has length 0. Look at what selected the times.")
    if "time" in cube.dims and "time" in cube.coords and cube["time"].isnull().any():
        raise CubeError(
            "Some times of the cube are missing (NaT). Set them, or store the cube without them; in Python, "
            "cube.isel(time=cube.time.notnull().values) of the Dataset that xarray opens leaves them out."
        )


def require_numbers(layer: xr.DataArray) -> None:
    """Raise unless a layer holds numbers that networks and stores know.

    Raises
    ------
    CubeError
        It holds text, objects, times, complex or extended numbers.
    """
    if layer.dtype.kind not in "uifb" or layer.dtype.itemsize > 8:
        cure = f"Convert it with cube[{layer.name!r}].astype('float32'), or leave it out with cube.drop_vars({layer.name!r})."
        if layer.dtype.kind == "c":
            cure = (
                "Store what is wanted of it, such as its amplitude: gdal_calc.py -A FILE --calc 'abs(A)' --outfile AMPLITUDE.tif; in "
                f"Python, abs(cube[{layer.name!r}]) is that."
            )
        raise CubeError(f"Layer {layer.name!r} has to be numeric, of 64 bits at most; got {layer.dtype}. {cure}")


def _validate_layer(layer: xr.DataArray) -> None:
    if layer.dims not in (("y", "x"), ("time", "y", "x")):
        raise CubeError(
            f"Layer {layer.name!r} has to be on (y, x) or (time, y, x); got {layer.dims}. "
            "Split other dimensions into layers with cube[name].to_dataset(dimension), or transpose."
        )
    require_numbers(layer)
    try:
        scale = packing(layer)["scale_factor"]
    except (TypeError, ValueError) as error:
        raise CubeError(
            f"Layer {layer.name!r} has packing attributes that are no numbers: "
            f"{ {key: layer.attrs[key] for key in ('scale_factor', 'add_offset', '_FillValue') if key in layer.attrs} }."
        ) from error
    if not np.isfinite(scale) or scale == 0:
        raise CubeError(f"Layer {layer.name!r} needs a finite scale_factor other than 0; got {scale}.")
