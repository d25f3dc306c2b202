"""Values of layers that cannot be what a bundle relies on: scaled twice, not at all, or wrapped around."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import BundleError
from rtsx.model.inputs import InputLayer, Packing

__all__ = ["check_values"]

_SIDE = 64
"""Pixels along each side of the thinned sample, about."""
_ENOUGH = 100
"""Valid pixels of a sample below which nothing is certain."""
_RANGES = {"reflectance": (-1.0, 5.0), "index": (-1.5, 1.5), "degree": (-361.0, 361.0)}
"""Physical values by unit, wide enough for clouds, noise and snow."""
_KNOWN = dict.fromkeys(("blue", "green", "red", "nir"), "reflectance") | {"ndvi": "index"}
"""Units of layers whose bundle declares none, for what is certain without a declaration."""
_TINY_SCALE = 1e-3
"""Greatest scale_factor that makes any reflectance or index implausibly small."""
_PHYSICAL = 1.5
"""Greatest value of nearly all reflectances and indices; stored ones are larger by far."""
_WRAPPED_PART = 1e-3
"""Part of the sample above the range from which an index without a negative value is a wrapped one."""


def check_values(
    stored: Mapping[str, NDArray[Any]],
    valid: NDArray[np.bool_],
    *,
    inputs: Sequence[InputLayer],
    packings: Mapping[str, Packing],
) -> None:
    """Refuse layers whose values, in a thinned sample of the valid pixels, contradict packing and unit.

    Integers of declared packing are taken at their word.

    Raises
    ------
    BundleError
        Names the layer, what was found, and the cure.
    """
    thin = tuple(slice(None, None, max(1, length // _SIDE)) for length in valid.shape)
    for layer in inputs:
        if layer.name not in stored:
            continue
        packing, is_float = packings[layer.name], stored[layer.name].dtype.kind == "f"
        if packing.is_declared and not is_float:
            continue
        raw = stored[layer.name][thin][valid[thin]].astype(np.float64)
        raw = raw[np.isfinite(raw)]
        if raw.size < _ENOUGH:
            continue
        if is_float:
            _check_scaled_once(layer, raw, packing)
        _check_range(layer, raw * packing.scale_factor + packing.add_offset)


def _check_scaled_once(layer: InputLayer, raw: NDArray[np.float64], packing: Packing) -> None:
    """Refuse fractions that are physical as they are, yet carry a packing; whole numbers and large ones are stored ones."""
    name, units = layer.name, layer.units or _KNOWN.get(layer.name)
    if units not in ("reflectance", "index") or abs(packing.scale_factor) > _TINY_SCALE or (raw == np.rint(raw)).all():
        return
    # No index is 0.00015 nearly everywhere; a reflectance may be over clear water, but then DN of 1 and more are stored.
    if float((np.abs(raw) <= _PHYSICAL).mean()) < (0.5 if units == "index" else 0.99):
        return
    _check_range(layer, raw)  # an index may have wrapped around as well
    physical = raw * packing.scale_factor + packing.add_offset
    raise BundleError(
        f"Layer {name!r} is scaled twice: it holds floats from {raw.min():.4g} to {raw.max():.4g}, which are physical already, "
        f"and the attribute scale_factor {packing.scale_factor:g} would make them {physical.min():.4g} to {physical.max():.4g}. "
        f"Remove it, with `cube[{name!r}].attrs.pop('scale_factor'); cube[{name!r}].attrs.pop('add_offset', None)`."
    )


def _check_range(layer: InputLayer, physical: NDArray[np.float64]) -> None:
    name, units = layer.name, layer.units
    if name == "ndvi" and not units and layer.scale != 1 and max(1, abs(layer.offset)) / abs(layer.scale) <= 1.5:
        units = "index"  # statistics of a layer within -1 to 1, not of one that is stored as 0 to 255
    if units not in _RANGES:
        return
    low, high = _RANGES[units]
    above = float((physical > high).mean())
    outside = above + float((physical < low).mean())
    # A difference that wrapped around is never negative, and far too large where it should have been.
    is_wrapped = units == "index" and physical.min() >= 0 and above > _WRAPPED_PART
    if outside <= 0.5 and not is_wrapped:
        return
    cure = {
        "index": "Differences of unsigned integers wrap around: "
        + (
            "leave it to the bundle, which computes it of red and nir, with `cube = cube.drop_vars('ndvi')`, or name it under `derived` in a recipe."
            if name == "ndvi"
            else "compute it in floats, as `derived` layers are, with `.astype('float32')` on each band."
        ),
        "reflectance": f"Set cube[{name!r}].attrs['scale_factor'] to what makes stored values physical, such as 0.0001.",
        "degree": f"Set cube[{name!r}].attrs['scale_factor'] to what makes stored values degrees, such as 0.01.",
    }[units]
    raise BundleError(
        f"Layer {name!r} has values from {physical.min():.4g} to {physical.max():.4g}, {outside:.1%} of them outside "
        f"{low:g} to {high:g}, which the bundle's unit {units!r} allows. {cure}"
    )
