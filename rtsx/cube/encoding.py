"""How a variable of a cube is stored: CF packing in its attributes, never applied to the array; dtype, rounding and the value of missing pixels."""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rtsx.errors import CubeError, LayerValuesWarning

MISSING = ("_FillValue", "missing_value", "nodata")
"""Words for stored values of missing pixels: of CF, of CF for several, of odc-stac and GDAL."""
MISSING_ATTRS = (*MISSING, "fill_value")
"""The same in attributes, where rioxarray has one more; in `encoding` that is what Zarr fills new chunks with."""
VALID_RANGE = ("valid_range", "valid_min", "valid_max")
"""Words of CF for the stored values outside which pixels are missing."""


def packing(layer: xr.DataArray) -> dict[str, Any]:
    """Return the packing of one variable, as its attributes say.

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
            f"Layer {layer.name!r} has several values of missing pixels, {list(missing)}. Store the layer with one; in "
            "Python, as_cube(cube) makes them one."
        )
    return {
        "scale_factor": float(attrs.get("scale_factor", 1.0)),
        "add_offset": float(attrs.get("add_offset", 0.0)),
        "nodata": missing[0] if missing else None,
        "is_declared": "scale_factor" in attrs or "add_offset" in attrs,
    }


def decoded_packing(layer: xr.DataArray) -> dict[str, float]:
    """Return the scale and offset that xarray has applied to a layer, which it keeps in `encoding`; empty where it has applied none."""
    words = ("scale_factor", "add_offset") if layer.dtype.kind == "f" else ()
    return {word: float(np.asarray(said).item()) for word in words if (said := layer.encoding.get(word)) is not None}


def missing_values(layer: xr.DataArray) -> tuple[float, ...]:
    """Return stored values that mark missing pixels, each once, `_FillValue` first; NaN of floats is missing anyway.

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
    found = dict.fromkeys(_stored_value(number, dtype) for _, number, dtype in _stated(layer))
    return tuple(number for number in found if number is not None)


def _stated(layer: xr.DataArray) -> Iterator[tuple[str, float, np.dtype[Any]]]:
    """Yield the word and number of all that is said of missing pixels, and the dtype that it is said of."""
    encoding = {} if decoded_packing(layer) else layer.encoding
    stored = np.dtype(encoding.get("dtype") or layer.dtype)
    for words, known, dtype in ((layer.attrs, MISSING_ATTRS, layer.dtype), (encoding, MISSING, stored)):
        for word in known:
            for value in np.ravel(np.asarray(words.get(word), object)):
                try:
                    if value is not None:
                        yield word, float(value), dtype
                except (TypeError, ValueError) as error:
                    raise CubeError(
                        f"Layer {layer.name!r} has {word} {words[word]!r}, which is no number. Set "
                        f"cube[{layer.name!r}].attrs[{word!r}] to the stored value of missing pixels."
                    ) from error


def _stored_value(number: float, dtype: np.dtype[Any]) -> float | None:
    """Return what a pixel of a dtype holds that was set to a number; None where none can, or where it equals nothing, as NaN.

    A whole number of the same bits counts: NetCDF writes -1 for 65535, and arrays keep their attributes when they are converted.
    """
    if dtype.kind not in "iu":
        return None if np.isnan(number) else number
    limits, count = np.iinfo(dtype), 2.0 ** (8 * dtype.itemsize)
    if not number.is_integer() or not -count / 2 <= number < count:
        return None
    return number + count if number < limits.min else number - count if number > limits.max else number


def is_sparse(layer: xr.DataArray) -> bool:
    """Test whether what was left out of a Zarr store, because it holds nothing but the fill value, is missing or not valid.

    By the encoding that xarray gives: in format 3 it has the fill value, in format 2 that is `_FillValue`.
    """
    fill, words = layer.encoding.get("fill_value"), layer.encoding | layer.attrs
    if fill is None or layer.name == "valid":
        return words.get("_FillValue") is not None if fill is None else not fill
    dtype = np.dtype(layer.encoding.get("dtype") or layer.dtype)
    stored = xr.DataArray(np.zeros((), dtype), attrs={word: words.get(word) for word in MISSING}, name=layer.name)
    return bool(np.isnan(fill) or float(fill) in missing_values(stored))


def with_packing(layer: xr.DataArray) -> xr.DataArray:
    """Return the layer with its packing in the attributes that `packing` reads, and one value of missing pixels; lazy.

    The layer itself where that is so already. A scale of 1 and an offset of 0 are what rioxarray and GDAL give where a file
    is silent, so they declare nothing.
    """
    layer = _within_range(_with_sign(layer))
    # Beside an encoding of another dtype, which a layer keeps when it is converted, as it holds them now.
    held = dict.fromkeys(_stored_value(number, layer.dtype) for number in missing_values(layer))
    missing = [number for number in held if number is not None]
    attrs = {key: value for key, value in layer.attrs.items() if key not in MISSING_ATTRS}
    # NetCDF and HDF5 have lists of one, which xarray takes as numbers, too.
    lists = [key for key in ("scale_factor", "add_offset") if key in attrs and np.shape(attrs[key]) == (1,)]
    attrs |= {key: attrs[key][0] for key in lists}
    if "_FillValue" in layer.attrs and missing and float(missing[0]) == layer.attrs["_FillValue"]:
        attrs["_FillValue"] = layer.attrs["_FillValue"]
    elif missing:
        attrs["_FillValue"] = layer.dtype.type(missing[0])
    elif "_FillValue" in layer.attrs and layer.dtype.kind == "f":
        attrs["_FillValue"] = layer.attrs["_FillValue"]  # NaN
    _warn_of_others(layer)
    if (attrs.get("scale_factor", 1), attrs.get("add_offset", 0)) == (1, 0):
        attrs = {key: value for key, value in attrs.items() if key not in ("scale_factor", "add_offset")}
    several = len(missing) > 1
    if not lists and not several and attrs == layer.attrs:
        return layer
    made = layer
    if several:
        others = np.array(missing[1:], layer.dtype)
        layer = _lazy(layer)
        made = layer.where(~layer.isin(others), layer.dtype.type(missing[0]))
    made = made.copy(deep=False)
    made.attrs = attrs
    made.encoding = {key: value for key, value in layer.encoding.items() if key not in MISSING}
    return made


def _with_sign(layer: xr.DataArray) -> xr.DataArray:
    """Return the layer in the dtype that `_Unsigned` says: NetCDF's classic formats have no unsigned integers."""
    kind = {"true": "u", "false": "i"}.get(str(layer.attrs.get("_Unsigned")).lower())
    if kind is None or layer.dtype.kind not in "iu":
        return layer
    made = layer if kind == layer.dtype.kind else _lazy(layer).astype(f"{kind}{layer.dtype.itemsize}", keep_attrs=True)
    return made.drop_attrs().assign_attrs({key: value for key, value in layer.attrs.items() if key != "_Unsigned"})


def _within_range(layer: xr.DataArray) -> xr.DataArray:
    """Return the layer with what CF's `valid_range`, `valid_min` and `valid_max` exclude among the missing pixels; lazy.

    They are of stored values. Floats that were computed with keep the attributes and not the encoding, and are left alone.
    """
    given = {word: layer.attrs[word] for word in VALID_RANGE if word in layer.attrs}
    if not given or layer.dtype.kind not in "iuf" or (layer.dtype.kind == "f" and not layer.encoding):
        return layer
    try:
        low, high = (float(value) for value in given.get("valid_range", (-np.inf, np.inf)))
        low = max(low, float(np.asarray(given.get("valid_min", -np.inf)).item()))
        high = min(high, float(np.asarray(given.get("valid_max", np.inf)).item()))
    except (TypeError, ValueError) as error:
        raise CubeError(
            f"Layer {layer.name!r} has {given}, which are no numbers. Remove them, with "
            f"cube[{layer.name!r}].attrs.pop({next(iter(given))!r}), or set them to the least and the greatest stored value."
        ) from error
    missing: list[Any] = list(missing_values(layer))
    if layer.dtype.kind == "f":
        missing = missing or [np.nan]
        if decoded := decoded_packing(layer):
            scale, offset = decoded.get("scale_factor", 1.0), decoded.get("add_offset", 0.0)
            low, high = sorted((low * scale + offset, high * scale + offset))
            low, high = low - abs(scale) / 2, high + abs(scale) / 2  # decoding rounds
    else:
        limits = np.iinfo(layer.dtype)
        low, high = (number if np.isinf(number) else _stored_value(number, layer.dtype) for number in (low, high))  # type: ignore[assignment]
        missing = missing or [limits.max] * (high < limits.max) or [limits.min] * (low > limits.min)
    made = layer
    if missing:
        layer = _lazy(layer)
        made = layer.where((layer >= low) & (layer <= high), layer.dtype.type(missing[0]))
    made = made.drop_attrs().assign_attrs({key: value for key, value in layer.attrs.items() if key not in given})
    made.encoding = layer.encoding
    return made if not missing or missing_values(made) else made.assign_attrs(_FillValue=layer.dtype.type(missing[0]))


def as_mask(valid: xr.DataArray) -> xr.DataArray:
    """Return `valid` as bool, lazily: a mask that went through a file may come back as 0 and 1, with NaN or `_FillValue` where nothing is known.

    Raises
    ------
    CubeError
        1 is declared missing; or it has other numbers, such as the 255 of GDAL's masks: where it is lazy, when a block is read,
        which is named.

    Examples
    --------
    >>> as_mask(xr.DataArray(np.array([1, 0, 9], np.uint8), attrs={"_FillValue": 9})).values.tolist()
    [True, False, False]
    """
    if valid.dtype.kind not in "iufO":
        return valid
    lazy, missing = _lazy(valid), missing_values(valid)
    if 1 in missing:
        raise CubeError(_odd_mask("1 is declared missing", 1))
    if lazy.chunks is None:
        made = lazy.copy(data=_yes_or_no(lazy.values, missing=missing))
    else:
        meta = np.empty((0,) * lazy.ndim, bool)
        made = lazy.copy(data=da.map_blocks(_yes_or_no, lazy.data, dtype=bool, meta=meta, missing=missing))
    made = made.drop_attrs().assign_attrs({key: one for key, one in valid.attrs.items() if key not in MISSING_ATTRS})
    made.encoding = {key: valid.encoding[key] for key in ("grid_mapping", "chunks", "shards") if key in valid.encoding}
    return made


def _yes_or_no(
    values: NDArray[Any], *, missing: tuple[float, ...], block_info: Mapping[int, Any] | None = None
) -> NDArray[np.bool_]:
    if values.dtype.kind == "O":  # True and False of a bool that declares a missing value, with NaN in its place
        values = values.astype(np.float64)
    yes = values == 1
    odd = values[~(yes | (values == 0) | np.isnan(values) | np.isin(values, missing))]
    if odd.size:
        spans = block_info[0]["array-location"][-2:] if block_info else ()
        place = ", ".join(f"{dim} {a}-{b}" for dim, (a, b) in zip(("rows", "columns"), spans, strict=False))
        raise CubeError(_odd_mask(f"it has {odd[0]:g}{f' in {place}' if place else ''}", odd[0]))
    return np.asarray(yes)


def _odd_mask(what: str, number: float) -> str:
    return (
        f"`valid` says by 1 and 0 which pixels can be trusted, and by the value of missing ones that they cannot; {what}. Store 1 where that "
        f"is valid, else 0; in Python, with cube['valid'] == {number:g}, or call it otherwise, with cube.rename(valid='mask'), if it is a layer."
    )


def _lazy(layer: xr.DataArray) -> xr.DataArray:
    """Return the layer; where it is stored and was not read yet, in chunks, instead of being read here."""
    if layer.variable._in_memory or layer.chunks is not None:
        return layer
    preferred = layer.encoding.get("preferred_chunks", {})
    return layer.chunk({dim: size for dim, size in preferred.items() if dim in layer.dims})


def _warn_of_others(layer: xr.DataArray) -> None:
    """Warn of missing values that the layer cannot hold."""
    odd = [
        (word, number)
        for word, number, dtype in _stated(layer)
        if dtype == layer.dtype and dtype.kind in "iu" and _stored_value(number, dtype) is None
    ]
    if odd:
        (word, number), name = odd[0], layer.name
        warnings.warn(
            f"Layer {name!r} of {layer.dtype} says that its {word} is {number:g}, which it cannot hold, so all of its pixels count. "
            f"Missing ones became another number when it was converted: set cube[{name!r}].attrs['_FillValue'] to that, or "
            f"remove the attribute where none is missing.",
            LayerValuesWarning,
            stacklevel=2,
        )


def stores_all_chunks(name: str, dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> bool:
    """Test whether no value of a variable is missing, so that every chunk is stored and one that a copy has lost is known.

    Floats have NaN, and `valid` has False.
    """
    return dtype.kind != "f" and name != "valid" and "_FillValue" not in attrs


def require_nodata(nodata: float | None, dtype: np.dtype[Any], *, layer: str) -> None:
    """Raise for a value of missing pixels that somebody stated and that no pixel of the dtype holds.

    Raises
    ------
    CubeError
        Says which value has the same bits, where there is one.
    """
    if nodata is None or dtype.kind not in "iu":
        return
    held = _stored_value(float(nodata), dtype)
    if held != nodata:
        cure = (
            "Say the stored value that" if held is None else f"Say nodata={held:.0f}, which has the same bits, if that"
        )
        raise CubeError(
            f"Layer {layer!r} is stored as {dtype}, which cannot hold the nodata {nodata:g} that is stated. {cure} marks missing "
            "pixels, or leave nodata out where none is missing."
        )


def packing_attrs(
    dtype: np.dtype[Any],
    *,
    scale_factor: float | None = None,
    add_offset: float | None = None,
    nodata: float | None = None,
    units: str | None = None,
    long_name: str | None = None,
) -> dict[str, Any]:
    """Return the attributes that `packing` reads; whatever is None is left out.

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
        elif output_nodata(nodata, dtype) is not None:
            attrs["_FillValue"] = dtype.type(int(nodata))
    attrs |= {name: value for name, value in (("units", units), ("long_name", long_name)) if value}
    return attrs


_WIDER = {1: np.dtype(np.int16), 2: np.dtype(np.int32), 4: np.dtype(np.int64), 8: np.dtype(np.float64)}
"""Signed dtype by bytes of an integer, that holds all its values and one more."""


def output_nodata(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return the nodata value as it can be stored in `dtype`; None where no pixel of that dtype can have it.

    Examples
    --------
    >>> output_nodata(-9999, np.dtype("float32")), output_nodata(-9999, np.dtype("uint8"))
    (-9999.0, None)
    """
    if nodata is None or math.isnan(nodata):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(nodata))
    if dtype.kind == "b" or not math.isfinite(nodata) or nodata != int(nodata):
        return None
    return float(nodata) if np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max else None


def is_representable(pixels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Return True where a stored pixel is neither masked nor nodata nor NaN nor infinite.

    Examples
    --------
    >>> is_representable(np.array([1.0, np.nan, -9999.0]), -9999)
    array([ True, False, False])
    """
    stored = np.ma.getdata(pixels)
    valid: NDArray[np.bool_] = np.isfinite(stored)
    value = output_nodata(nodata, stored.dtype)
    if value is not None:
        valid &= stored != stored.dtype.type(value)
    if np.ma.isMaskedArray(pixels):
        valid &= ~np.ma.getmaskarray(pixels)
    return valid


def without_mask(pixels: NDArray[Any], nodata: float | None) -> tuple[NDArray[Any], float | None]:
    """Return pixels with a stored value in the place of what a mask hides, and that value: nodata, else NaN, else one of a wider dtype.

    Examples
    --------
    >>> without_mask(np.ma.MaskedArray(np.array([7, 8], np.uint8), mask=[True, False]), None)
    (array([-32768,      8], dtype=int16), -32768.0)
    """
    if not np.ma.isMaskedArray(pixels):
        return pixels, nodata
    stored: Any = np.ma.getdata(pixels)
    if output_nodata(nodata, stored.dtype) is None and stored.dtype.kind != "f":
        stored = stored.astype(_WIDER[stored.dtype.itemsize])
        nodata = None if stored.dtype.kind == "f" else float(np.iinfo(stored.dtype).min)
    filled = np.array(stored)
    filled[np.ma.getmaskarray(pixels)] = OutputDtype(stored.dtype, nodata).fill
    return filled, nodata


@dataclass(frozen=True)
class OutputDtype:
    """How values go into an array of one dtype.

    Integers are rounded to the nearest and clipped; a valid value that would become the nodata value becomes the next
    one above or below, on the side that it came from.

    Raises
    ------
    CubeError
        Values cannot be stored in that dtype.

    Examples
    --------
    >>> storing = OutputDtype(np.dtype("uint8"), nodata=0)
    >>> storing.fill, storing.above
    (0.0, 1.0)
    >>> storing.stored(np.array([0.2, 99.6, 400.0]), valid=np.array([True, True, False]))
    array([  1, 100,   0], dtype=uint8)
    """

    dtype: np.dtype[Any]
    """NumPy dtype, an integer or a float."""
    nodata: float | None
    """Stored value of a missing pixel; None where there is none."""

    def __post_init__(self) -> None:
        """Refuse what has no numbers in it."""
        if self.dtype.kind not in "iufb":
            raise CubeError(f"Aligned values are integers or floats; got dtype {self.dtype}. Read the bands apart.")

    @property
    def has_fill(self) -> bool:
        """Whether missing pixels have a stored value of their own; NaN cannot be met by rounding."""
        return output_nodata(self.nodata, self.dtype) is not None

    @property
    def fill(self) -> float:
        """Value of missing pixels: nodata, else NaN for floats and 0 for integers."""
        value = output_nodata(self.nodata, self.dtype)
        return value if value is not None else math.nan if self.dtype.kind == "f" else 0.0

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that can be stored."""
        if self.dtype.kind == "f":
            return -math.inf, math.inf
        if self.dtype.kind == "b":
            return 0.0, 1.0
        # A float64 next to the end of 64 bits may lie beyond it.
        low, high = float(np.iinfo(self.dtype).min), float(np.iinfo(self.dtype).max)
        return low, high if int(high) <= np.iinfo(self.dtype).max else math.nextafter(high, 0)

    @property
    def above(self) -> float:
        """What replaces the nodata value for a value that is not below it."""
        return self._neighbour(1) if self.fill < self.limits[1] else self._neighbour(-1)

    @property
    def below(self) -> float:
        """What replaces the nodata value for a value below it."""
        return self._neighbour(-1) if self.fill > self.limits[0] else self._neighbour(1)

    def stored(self, values: NDArray[Any], *, valid: NDArray[np.bool_]) -> NDArray[Any]:
        """Return values in this dtype, with the fill where they are not valid."""
        if values.dtype == self.dtype:
            out = values.copy()
        else:
            low, high = self.limits
            with np.errstate(invalid="ignore", over="ignore"):
                if self.dtype.kind != "f":
                    values = np.clip(np.rint(np.where(valid, values, 0)), low, high)
                out = values.astype(self.dtype)
            if self.has_fill:
                hit = valid & (out == self.dtype.type(self.fill))
                out[hit] = np.where(values[hit] >= self.fill, self.above, self.below)
        out[~valid] = self.fill
        return out

    def _neighbour(self, side: int) -> float:
        if self.dtype.kind == "f":
            towards = self.dtype.type(math.copysign(math.inf, side))
            return float(np.nextafter(self.dtype.type(self.fill), towards))
        return self.fill + side
