"""Layers computed pixel by pixel from others: the vegetation index, and those that are registered by name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rtsx.cube.conventions import as_cube
from rtsx.cube.encoding import packing
from rtsx.cube.georeference import GRID_MAPPING
from rtsx.cube.recipe import DerivedLayer
from rtsx.errors import CubeError

DerivedKernel = Callable[..., NDArray[np.float32]]


_KNOWN: dict[str, DerivedLayer] = {
    "ndvi": DerivedLayer(
        name="ndvi",
        needs=("red", "nir"),
        units="index",
        kernel=None,
        long_name="normalised difference vegetation index",
    )
}


def derived_layer(
    name: str, *, needs: Sequence[str], units: str, long_name: str = ""
) -> Callable[[DerivedKernel], DerivedKernel]:
    """Return a decorator that makes a function a layer which recipes and YAML files can name; the function stays what it is.

    Parameters
    ----------
    name, needs, units, long_name
        Fields of `DerivedLayer`.

    Raises
    ------
    CubeError
        Another function has that name already.

    Examples
    --------
    >>> @derived_layer("ndwi", needs=("green", "nir"), units="index")
    ... def ndwi(green, nir):
    ...     return (green - nir) / (green + nir)
    >>> get_derived("ndwi").needs
    ('green', 'nir')
    """

    def register(kernel: DerivedKernel) -> DerivedKernel:
        layer = DerivedLayer(name=name, needs=tuple(needs), units=units, kernel=kernel, long_name=long_name)
        register_layer(_KNOWN, layer, what="Derived layer")
        return kernel

    return register


def register_layer(known: dict[str, Any], layer: Any, *, what: str) -> None:
    """Add a layer, which has a name and a kernel, to those that are known by name.

    Raises
    ------
    CubeError
        Another function has that name already.
    """
    # A cell of a notebook that runs again, or a module that is loaded again, replaces its own function, and nobody else's.
    own, other = _place(layer.kernel), _place(known.get(layer.name, layer).kernel)
    if own != other:
        raise CubeError(f"{what} {layer.name!r} is taken by {other}; {own} needs another name.")
    known[layer.name] = layer


def _place(kernel: Callable[..., Any] | None) -> str:
    """Return where a kernel was defined; ndvi, which has none, is ours."""
    return "rtsx" if kernel is None else f"{kernel.__module__}.{getattr(kernel, '__qualname__', repr(kernel))}"


_CALL = re.compile(r"(?P<name>[^()]+)\((?P<needs>[^()]*)\)")
"""A derived layer with the layers that it is made from."""


def get_derived(name: str) -> DerivedLayer:
    """Return the layer that was registered under a name; after it, in brackets, may stand the layers that it is made from instead.

    Raises
    ------
    CubeError
        There is none, or it is made from another number of layers.

    Examples
    --------
    >>> get_derived("ndvi(s2_red, s2_nir)").needs
    ('s2_red', 's2_nir')
    """
    call = _CALL.fullmatch(name)
    if call is not None:
        layer = get_derived(call["name"].strip())
        needs = tuple(one.strip() for one in call["needs"].split(","))
        if len(needs) != len(layer.needs) or not all(needs):
            raise CubeError(f"{layer.name} is made from {len(layer.needs)} layers, as {layer} is; got {name!r}.")
        return replace(layer, needs=needs)
    if ("(" in name) != (")" in name):
        raise CubeError(
            f"{name!r} is half of a derived layer. In a list of YAML it stands in quotes: ['ndvi(RED, NIR)']."
        )
    if name not in _KNOWN:
        raise CubeError(
            f"Known derived layers are {sorted(_KNOWN)}; got {name!r}. Choose one. In Python, @derived_layer({name!r}, needs=...) adds one."
        )
    return _KNOWN[name]


def derived_text(layer: DerivedLayer) -> str:
    """Return what `get_derived` makes the layer of."""
    return layer.name if layer.needs == get_derived(layer.name).needs else str(layer)


def add_ndvi(cube: xr.Dataset) -> xr.Dataset:
    """Return the cube with `ndvi` = (nir - red) / (nir + red), from physical values; lazy.

    Returns
    -------
    xarray.Dataset
        With a float32 layer `ndvi` (NumPy in, NumPy out), NaN where nir + red is 0, where either is nodata, and where
        `valid` is False.

    Raises
    ------
    CubeError
        `red` or `nir` is missing, one of them is in digital numbers and the other not, or `ndvi` is there already.
    """
    return add_derived(cube, get_derived("ndvi"))


_COUNTS = frozenset({"dn", "dns", "digital number", "digital numbers", "count", "counts", "raw"})
"""Units of numbers that no physical unit follows from."""


def _require_like_units(cube: xr.Dataset, layer: DerivedLayer) -> None:
    """Refuse an index of digital numbers and of something else, as where red and nir come from two sensors.

    Raises
    ------
    CubeError
        It would be one.
    """
    units = {name: str(cube[name].attrs.get("units", "no stated unit")) for name in layer.needs}
    if len({unit.lower().replace("_", " ") in _COUNTS for unit in units.values()}) > 1:
        found = " and ".join(f"{name!r} in {unit}" for name, unit in units.items())
        raise CubeError(
            f"{layer.name} is made from bands in one unit; got {found}. Name those of one sensor, in this order: derived: "
            f"'{layer.name}({', '.join(f'OTHER_{name}' for name in layer.needs)})' in YAML."
        )


def _ndvi(
    red: NDArray[np.generic],
    nir: NDArray[np.generic],
    valid: NDArray[np.bool_] | None = None,
    *,
    packings: Sequence[dict[str, Any]],
) -> NDArray[np.float32]:
    keep = np.ones(red.shape, bool) if valid is None else valid.copy()
    # Both in stored units of red, instead of physical ones: the index is the same, and with an offset such as
    # Sentinel-2's the sum of two whole numbers is exactly 0 where it should be, not 1e-8.
    unit = packings[0]["scale_factor"]
    bands = []
    for stored, packed in zip((red, nir), packings, strict=True):
        if packed["nodata"] is not None:
            keep &= stored != packed["nodata"]
        factor, summand = np.float32(packed["scale_factor"] / unit), np.float32(packed["add_offset"] / unit)
        bands.append(stored.astype(np.float32) * factor + summand)
    total = bands[0] + bands[1]
    keep &= total != 0
    index = np.full(red.shape, np.nan, np.float32)
    np.divide(bands[1] - bands[0], total, out=index, where=keep)
    return index


def add_derived(cube: xr.Dataset, layer: DerivedLayer) -> xr.Dataset:
    """Return the cube with one more layer; lazy.

    Parameters
    ----------
    cube
        Has all that the layer needs, in stored units.
    layer
        What to add.

    Returns
    -------
    xarray.Dataset
        With a float32 variable, NaN where an input is nodata or `valid` is False, or where the kernel gives no finite
        number.

    Raises
    ------
    CubeError
        Of ndvi: a band is missing, only one of them is in digital numbers, or it is there already.
    """
    cube = as_cube(cube)
    if layer.kernel is not None:
        return _with_layer(cube, layer, partial(_computed, kernel=layer.kernel))
    missing = [name for name in layer.needs if name not in cube]
    if missing or layer.name in cube:
        raise CubeError(
            f"{layer.name} is made from {' and '.join(layer.needs)} where there is none yet; missing {missing}, layers {list(cube.data_vars)}."
        )
    _require_like_units(cube, layer)
    return _with_layer(cube, layer, _ndvi)


def _with_layer(cube: xr.Dataset, layer: DerivedLayer, function: DerivedKernel) -> xr.Dataset:
    """Add what a function makes of stored layers, their packings and, where it applies, the mask."""
    inputs = [cube[name] for name in layer.needs]
    if "valid" in cube and ("time" not in cube["valid"].dims or any("time" in each.dims for each in inputs)):
        inputs.append(cube["valid"])  # but a layer of things without a time gets none from the mask of others
    made = xr.apply_ufunc(
        function,
        *inputs,
        kwargs={"packings": [packing(cube[name]) for name in layer.needs]},
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    made = made.transpose("time", "y", "x", missing_dims="ignore")  # static and timed inputs may mix
    made.attrs = {"_FillValue": np.float32(np.nan), "units": layer.units, "long_name": layer.long_name or layer.name}
    made.variable.encoding |= GRID_MAPPING
    return cube.assign({layer.name: made})


def _computed(*arrays: NDArray[Any], kernel: DerivedKernel, packings: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
    physical = []
    for stored, packed in zip(arrays, packings, strict=False):
        values = stored.astype(np.float32) * np.float32(packed["scale_factor"]) + np.float32(packed["add_offset"])
        if packed["nodata"] is not None:
            values[stored == packed["nodata"]] = np.nan
        physical.append(values)
    with np.errstate(all="ignore"):  # a pixel that cannot be computed becomes NaN below, which is no warning
        made = np.array(kernel(*physical), np.float32)
    made[~np.isfinite(made)] = np.nan
    if len(arrays) > len(packings):
        made[~np.broadcast_to(arrays[-1], made.shape)] = np.nan
    return made
