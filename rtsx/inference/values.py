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
_RANGES = {"reflectance": (-1.0, 5.0), "index": (-1.5, 1.5), "degree": (-361.0, 361.0)}
"""Physical values by unit, wide enough for clouds, noise and snow."""
_WRAPPED_PART = 1e-3
"""Part of the sample above the range from which an index without a negative value is a wrapped one."""
_FAR = 20.0
"""Channel values that no trained network has seen."""


def check_values(
    stored: Mapping[str, NDArray[Any]],
    valid: NDArray[np.bool_],
    *,
    inputs: Sequence[InputLayer],
    packings: Mapping[str, Packing],
) -> None:
    """Refuse layers whose values, in a thinned sample of the valid pixels, contradict packing and unit.

    Raises
    ------
    BundleError
        Names the layer, what was found, and the cure.
    """
    thin = tuple(slice(None, None, max(1, length // _SIDE)) for length in valid.shape)
    for layer in inputs:
        if layer.name not in stored:
            continue
        raw = stored[layer.name][thin][valid[thin]]
        raw = raw[np.isfinite(raw)].astype(np.float64)
        if raw.size:
            is_float = stored[layer.name].dtype.kind == "f"
            _check(layer, raw, packings[layer.name], is_float=is_float)


def _check(layer: InputLayer, raw: NDArray[np.float64], packing: Packing, *, is_float: bool) -> None:
    name = layer.name
    physical = raw * packing.scale_factor + packing.add_offset
    is_whole = bool((raw == np.rint(raw)).all())
    # Whole numbers are stored ones; fractions that would do as they are were made physical before.
    if is_float and not is_whole and packing.scale_factor <= 0.1 and _would_do(layer, raw):
        raise BundleError(
            f"Layer {name!r} is scaled twice: it holds floats from {raw.min():.4g} to {raw.max():.4g}, which are physical already, "
            f"and the attribute scale_factor {packing.scale_factor:g} would make them {physical.min():.4g} to {physical.max():.4g}. "
            f"Remove it, with `cube[{name!r}].attrs.pop('scale_factor'); cube[{name!r}].attrs.pop('add_offset', None)`."
        )
    units = "index" if name == "ndvi" else layer.units
    if units not in _RANGES:
        return
    low, high = _RANGES[units]
    outside = float(((physical < low) | (physical > high)).mean())
    is_wrapped = units == "index" and physical.min() >= 0 and float((physical > high).mean()) > _WRAPPED_PART
    if outside > 0.5 or is_wrapped:
        cure = (
            "Differences of unsigned integers wrap around: compute it in floats, with a derived layer (rtsx.add_ndvi(cube), or "
            f"`derived:` in a recipe), or leave {name!r} out of the cube where the bundle derives it."
            if units == "index"
            else f"Set cube[{name!r}].attrs['scale_factor'] to what makes stored values physical, such as 0.0001."
        )
        raise BundleError(
            f"Layer {name!r} has values from {physical.min():.4g} to {physical.max():.4g}, {outside:.1%} of them outside "
            f"{low:g} to {high:g}, which the bundle's unit {units!r} allows. {cure}"
        )


def _would_do(layer: InputLayer, values: NDArray[np.float64]) -> bool:
    """Whether values are ones that the network knows without any packing."""
    if layer.units in _RANGES:
        low, high = _RANGES[layer.units]
        return bool(values.min() >= low and values.max() <= high)
    if layer.scale == 1 and layer.offset == 0:
        return False  # a network that scales by itself
    return bool(np.abs(values * layer.scale + layer.offset).max() <= _FAR) and bool(
        np.ptp(values) * abs(layer.scale) > 0.05
    )
