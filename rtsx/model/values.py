"""Layers whose unit or values cannot be what a network relies on: scaled twice, not at all, or wrapped around.

Pure. Nobody sees wrong scaling in a map that is merely empty, so what is certainly wrong is refused, and what is doubtful is
returned in words, for the caller to warn of.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import BundleError
from rtsx.model.inputs import InputLayer, Packing

_SIDE = 64
"""Pixels along each side of the thinned sample, about."""
_ENOUGH = 100
"""Valid pixels of a sample below which nothing is certain."""
_MANY = 16
"""Different numbers in a layer that is no mask and no classes."""
_RANGES = {"reflectance": (-1.0, 5.0), "index": (-1.5, 1.5), "degree": (-361.0, 361.0), "m": (-12000.0, 9500.0)}
"""Physical values by unit, wide enough for clouds, glint, noise and the deepest sea."""
_SLOPE = (-0.5, 90.5)
_OPTICAL = re.compile(r"(coastal_?)?(blue|green(_i)?|yellow|red|nir0?\d?|rededge\d?|swir\d*)")
"""Names of layers that are reflectance where the bundle's statistics do not say otherwise."""
_VISIBLE = frozenset({"blue", "green", "red"})
_INDEX = re.compile(r"nd[a-z]{1,3}\d?|mndwi|nbr2?")
"""Names of normalised differences, which are within -1 and 1."""
_BRIGHT = 1.5
"""Greatest value of nearly all reflectances and indices; stored ones are larger by far."""
_SCALED = 2**17
"""Stored integers are below it, so that a larger quotient of value and scale says nothing."""
_FAR = 50.0
"""Deviations (or ranges) from what a network has learnt beyond which a layer is doubtful."""
_NODATA = (-9999.0, -99999.0, -32768.0, -32767.0, -3.4028234663852886e38, 3.4028234663852886e38, 1e20)
"""Numbers that mark missing pixels in usual files and occur in no measurement."""
_WORDS = {
    "m": "metre metres meter meters",
    "cm": "centimetre centimetres centimeter centimeters",
    "dm": "decimetre decimetres decimeter decimeters",
    "mm": "millimetre millimetres millimeter millimeters",
    "km": "kilometre kilometres kilometer kilometers",
    "ft": "foot feet us_survey_foot",
    "degree": "degrees deg °  arc_degree angular_degree degree_angle",
    "radian": "radians rad",
    "%": "percent per_cent pct percentage",
    "1": "unitless dimensionless none - index ndvi",
    "K": "kelvin kelvins degk",
    "degC": "celsius degree_celsius degrees_celsius degc °c c",
    "degF": "fahrenheit degree_fahrenheit degrees_fahrenheit degf °f f",
    "dn": "dns digital_number digital_numbers count counts raw",
}
_CANONICAL = {word: unit for unit, words in _WORDS.items() for word in (unit, unit.lower(), *words.split())}
_FACTORS = {"m": 1.0, "cm": 0.01, "dm": 0.1, "mm": 0.001, "km": 1000.0, "ft": 0.3048} | {
    "degree": 1.0,
    "radian": 180 / np.pi,
    "1": 1.0,
    "%": 0.01,
}
"""Metres, degrees or parts of one unit."""
_KINDS = ({"m", "cm", "dm", "mm", "km", "ft"}, {"degree", "radian"}, {"1", "%"}, {"K", "degC", "degF"}, {"dn"})


def check_units(
    inputs: Sequence[InputLayer],
    packings: Mapping[str, Packing],
    *,
    dtypes: Mapping[str, np.dtype[Any]],
    units: Mapping[str, str],
) -> None:
    """Refuse layers whose unit, packing or dtype contradicts what a network wants; looks at no pixel.

    Parameters
    ----------
    inputs
        The network's channels; those that are not stored are derived.
    packings, dtypes, units
        How each layer is stored, and the unit that it says its physical values are in, `""` where it is silent.

    Raises
    ------
    BundleError
        Names the layer, both units, and the cure.
    """
    for layer in inputs:
        if layer.name in packings:
            packing, dtype = packings[layer.name], dtypes[layer.name]
            _check_unit(layer, packing, stated=str(units.get(layer.name) or ""))
            _check_packing(layer, packing, dtype)


def _check_unit(layer: InputLayer, packing: Packing, *, stated: str) -> None:
    wanted, given = _unit(layer.units), _unit(stated)
    if not wanted or not given or wanted == given or (given == "dn" and (packing.is_declared or layer.units == "1")):
        return
    of = {unit: number for number, kind in enumerate(_KINDS) for unit in kind}
    if wanted not in of or given not in of:
        return
    found = f"Layer {layer.name!r} says that it is in {stated!r}, and the bundle wants {layer.units!r}."
    array = f"cube[{layer.name!r}]"
    if of[wanted] == of[given] and wanted in _FACTORS:
        factor = _FACTORS[given] / _FACTORS[wanted]
        cure = (
            f"{array}.attrs.update(scale_factor={packing.scale_factor * factor:.9g}, "
            f"add_offset={packing.add_offset * factor:.9g}, units={layer.units!r})"
        )
        raise BundleError(f"{found} Convert it, with `{cure}`, or correct the attribute if it is wrong.")
    if layer.name == "slope" and (given, wanted) == ("%", "degree"):
        cure = f"cube['slope'] = np.degrees(np.arctan({array} / 100)).assign_attrs(units='degree')"
        raise BundleError(f"{found} Convert it, with `{cure}` on physical values.")
    if given == "dn":
        raise BundleError(f"{found} {_scale_cure(layer)}")
    raise BundleError(
        f"{found} Give the bundle the layer that it was trained with, or correct the attribute with {array}.attrs['units'] = "
        f"{layer.units!r} if it is wrong."
    )


def _unit(text: str) -> str:
    """Return one word for a unit, `""` where it is not known; reflectances and indices are parts of 1."""
    word = text.strip().lower().replace(" ", "_")
    if "reflectance" in word:
        return "1"
    return _CANONICAL.get(word, "")


def _check_packing(layer: InputLayer, packing: Packing, dtype: np.dtype[Any]) -> None:
    quantity = _quantity(layer)
    if dtype.kind not in "ui" or quantity not in ("reflectance", "index"):
        return
    what = "reflectance" if quantity == "reflectance" else "an index from -1 to 1"
    if not packing.is_declared:
        raise BundleError(
            f"The bundle wants layer {layer.name!r} as {what}, but the cube holds integers and no scale_factor. "
            f"{_scale_cure(layer)}"
        )
    greatest = abs(packing.scale_factor) * float(np.iinfo(dtype).max) + packing.add_offset
    if greatest < 0.1:
        raise BundleError(
            f"The bundle wants layer {layer.name!r} as {what}, but the greatest number of {dtype}, by scale_factor "
            f"{packing.scale_factor:g} and add_offset {packing.add_offset:g}, is {greatest:.4g}. {_scale_cure(layer)}"
        )


def _scale_cure(layer: InputLayer) -> str:
    array = f"cube[{layer.name!r}]"
    if _quantity(layer) == "reflectance":
        return (
            f"Set {array}.attrs['scale_factor'] to what makes stored values reflectance (PlanetScope: 0.0001), or open raster "
            "files with sensor='planetscope' or 'sentinel2-l2a'."
        )
    return f"Set {array}.attrs['scale_factor'] to what makes stored values physical, such as 0.0001."


def check_values(
    stored: Mapping[str, NDArray[Any]],
    valid: NDArray[np.bool_],
    *,
    inputs: Sequence[InputLayer],
    packings: Mapping[str, Packing],
) -> dict[str, str]:
    """Refuse layers whose values, in a thinned sample of the valid pixels, contradict packing, unit or statistics.

    Parameters
    ----------
    stored
        Layers (y, x) as stored.
    valid
        Pixels (y, x) that count.
    inputs
        The network's channels; those that are not stored are derived, and not looked at.
    packings
        How each layer is stored.

    Returns
    -------
    dict
        What is doubtful, in words, by a short name that is the same wherever the same is found.

    Raises
    ------
    BundleError
        Names the layer, what was found, and the cure.
    """
    thin = tuple(slice(None, None, max(1, length // _SIDE)) for length in valid.shape)
    trusted = valid[thin]
    doubts: dict[str, str] = {}
    reflectances: dict[str, NDArray[np.float64]] = {}
    for layer in dict.fromkeys(inputs):
        if layer.name not in stored or stored[layer.name].dtype.kind == "b":
            continue
        packing = packings[layer.name]
        values = stored[layer.name][thin][trusted]
        raw = _sample(values)
        if raw.size < _ENOUGH:
            continue
        _check_nodata(layer, raw)
        doubts |= _scaled_twice(layer, raw, packing)
        physical = raw * packing.scale_factor + packing.add_offset
        doubts |= _out_of_range(layer, physical) or _far_from_learnt(layer, physical)
        if packing.nodata is None and not any(key.startswith(f"{layer.name} ") for key in doubts):
            doubts |= _lonely_number(layer, values)
        if _quantity(layer) == "reflectance":
            reflectances[layer.name] = physical
    # Only stored numbers of 1/10,000 can be those of Sentinel-2; a hazy scene of another sensor may be as bright.
    has_offset = any(packings[name].add_offset or packings[name].scale_factor != 1e-4 for name in reflectances)
    optical = {layer.name for layer in inputs if layer.name in stored and _OPTICAL.fullmatch(layer.name)}
    zeros = [stored[name][thin][trusted] == 0 for name in sorted(optical)]
    return doubts | _zero_at_once(sorted(optical), zeros) | _offset_or_emptiness(reflectances, has_offset=has_offset)


def _sample(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the finite values; those of integers without the saturated ones."""
    if values.dtype.kind in "ui":
        values = values[values != np.iinfo(values.dtype).max]
    numbers = values.astype(np.float64)
    return numbers[np.isfinite(numbers)]


def _quantity(layer: InputLayer) -> str:
    """Return the bundle's unit, or what the layer is by its name and the bundle's statistics; `""` where nothing is known.

    `"number"` is an optical layer of a bundle that has learnt stored numbers.
    """
    name, units = layer.name, str(layer.units)
    if units or (layer.scale, layer.offset) == (1, 0):
        return units
    learnt = (1 + abs(layer.offset)) / abs(layer.scale)  # |mean| and deviation, or the far end of the range
    if _OPTICAL.fullmatch(name):
        return "reflectance" if 1e-3 <= learnt <= 3 else "number" if learnt > 50 else ""
    return "index" if _INDEX.fullmatch(name) and learnt <= 2 else ""


def _check_nodata(layer: InputLayer, raw: NDArray[np.float64]) -> None:
    for value in _NODATA:
        part = float((raw == value).mean() if abs(value) < 1e20 else np.isclose(raw, value, rtol=1e-6).mean())
        if part > 0.01:
            raise BundleError(
                f"Layer {layer.name!r} holds {value:g} in {part:.1%} of its valid pixels, which marks missing ones in usual "
                f"files, and does not say so. Set cube[{layer.name!r}].attrs['_FillValue'] = {value:.17g}."
            )


def _lonely_number(layer: InputLayer, values: NDArray[Any]) -> dict[str, str]:
    """Say of a number that many pixels hold, and that lies farther from all others than they do from each other.

    In optical layers a negative one, where all others are not, is farther too.
    """
    name = layer.name
    numbers = values.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    for lonely in (numbers.min(), numbers.max()):
        others = numbers[numbers != lonely]
        part = 1 - others.size / numbers.size
        if lonely == 0 or part <= 0.01 or others.size < _ENOUGH or np.unique(others).size < _MANY:
            continue
        low, high = np.quantile(others, (0.01, 0.99))
        is_odd = bool(_OPTICAL.fullmatch(name)) and lonely < 0 <= others.min()
        if is_odd or np.abs(others - lonely).min() > high - low:
            return {
                f"{name} lonely": f"Layer {name!r} holds {lonely:.17g} in {part:.1%} of its valid pixels, and from {low:.4g} to "
                f"{high:.4g} in nearly all others. If that marks missing ones, say so: set cube[{name!r}].attrs['_FillValue'] = "
                f"{lonely:.17g}."
            }
    return {}


def _zero_at_once(names: Sequence[str], zeros: Sequence[NDArray[np.bool_]]) -> dict[str, str]:
    """Say of pixels that are 0 in all optical layers, as usual files have it where nothing was seen."""
    part = float(np.logical_and.reduce(zeros).mean()) if len(names) > 1 and zeros[0].size >= _ENOUGH else 0.0
    if part <= 0.01:
        return {}
    return {
        "zero": f"Layers {', '.join(map(repr, names))} are 0 together in {part:.1%} of their valid pixels, as in usual files where "
        f"nothing was seen. If these are missing, say so: set cube[{names[0]!r}].attrs['_FillValue'] = 0, and so for all of them."
    }


def _scaled_twice(layer: InputLayer, raw: NDArray[np.float64], packing: Packing) -> dict[str, str]:
    """Refuse fractions that are physical as they are, yet carry a packing; whole numbers and large ones are stored ones."""
    scale, offset = abs(packing.scale_factor), packing.add_offset
    if not packing.is_declared or not 0 < scale < 1 or (raw == np.rint(raw)).all():
        return {}
    quotient = (raw - offset) / packing.scale_factor
    # Products of stored integers and the scale; resampled numbers are none, and large ones are multiples of anything.
    is_multiple = bool((np.abs(quotient) < _SCALED).all() and (np.abs(quotient - np.rint(quotient)) < 1 / 32).all())
    name = layer.name
    quantity = str(layer.units) or (
        "reflectance" if _OPTICAL.fullmatch(name) else "index" if _INDEX.fullmatch(name) else ""
    )
    is_small = quantity in ("reflectance", "index") and float((np.abs(raw) <= _BRIGHT).mean()) >= (
        0.5 if quantity == "index" else 0.99
    )
    if not is_multiple and not (is_small and scale <= 0.1):
        return {}
    if quantity == "index":
        _out_of_range(layer, raw)  # it may have wrapped around as well
    physical = raw * packing.scale_factor + offset
    array = f"cube[{name!r}]"
    reason = (
        f"it holds floats from {raw.min():.4g} to {raw.max():.4g}, which are physical already, and the attribute scale_factor "
        f"{packing.scale_factor:g} makes them {physical.min():.4g} to {physical.max():.4g}. Remove it, with "
        f"`{array}.attrs.pop('scale_factor'); {array}.attrs.pop('add_offset', None)`"
    )
    if is_small and (is_multiple or scale <= 1e-3):
        raise BundleError(f"Layer {name!r} is scaled twice: {reason}.")
    return {f"{name} scaled twice": f"Layer {name!r} seems to be scaled twice: {reason}, if so."}


def _out_of_range(layer: InputLayer, physical: NDArray[np.float64]) -> dict[str, str]:
    """Refuse values that the unit rules out, and say which are doubtful."""
    name, quantity = layer.name, _quantity(layer)
    if quantity not in _RANGES:
        return {}
    low, high = _SLOPE if (name, quantity) == ("slope", "degree") else _RANGES[quantity]
    above, below = float((physical > high).mean()), float((physical < low).mean())
    middle = float(np.median(physical))
    # A difference that wrapped around is never negative, and far too large where it should have been.
    is_wrapped = quantity == "index" and physical.min() >= 0 and above > 1e-3
    finding = (
        f"Layer {name!r} has values from {physical.min():.4g} to {physical.max():.4g} (median {middle:.4g}), "
        f"{above + below:.1%} of them outside {low:g} to {high:g}, which the bundle's {quantity!r} allows."
    )
    cure = {
        "index": "Differences of unsigned integers wrap around: "
        + (
            "leave it to the bundle, which computes it of red and nir, with `cube = cube.drop_vars('ndvi')`, or name it under "
            "`derived` in a recipe."
            if name == "ndvi"
            else "compute it in floats, as `derived` layers are, with `.astype('float32')` on each band."
        )
        + f" Of an index that is stored in other numbers, set cube[{name!r}].attrs['scale_factor'].",
        "reflectance": f"Set cube[{name!r}].attrs['scale_factor'] to what makes stored values reflectance: 0.0001 for those of "
        "PlanetScope and Sentinel-2, 0.01 for per cent, 1 / 255 for 8-bit pictures.",
        "degree": f"Set cube[{name!r}].attrs['scale_factor'] to what makes stored values degrees, such as 0.01; a slope in per cent "
        "p is np.degrees(np.arctan(p / 100)).",
        "m": f"Set cube[{name!r}].attrs['scale_factor'] to what makes stored values metres, such as 0.01 for centimetres.",
    }[quantity]
    if above + below > 0.5 or is_wrapped:
        raise BundleError(f"{finding} {cure}")
    if above + below > 0.01 or (quantity == "reflectance" and middle > _BRIGHT):
        return {
            f"{name} range": f"{finding} {cure} If some number marks missing pixels, set it as attribute '_FillValue'."
        }
    return {}


def _far_from_learnt(layer: InputLayer, physical: NDArray[np.float64]) -> dict[str, str]:
    """Refuse reflectance where stored numbers were learnt, and say which layers are far from the bundle's statistics."""
    name = layer.name
    quantity = _quantity(layer)
    if quantity in ("reflectance", "index") or (layer.scale, layer.offset) == (1, 0):
        return {}
    centre, spread = -layer.offset / layer.scale, 1 / abs(layer.scale)
    is_fraction = float((np.abs(physical) <= _BRIGHT).mean()) >= 0.99 and not (physical == np.rint(physical)).all()
    if quantity == "number" and is_fraction:
        raise BundleError(
            f"Layer {name!r} has values from {physical.min():.4g} to {physical.max():.4g}, which is reflectance, and the bundle "
            f"has learnt numbers of about {centre:.4g}, give or take {spread:.4g}. Give it those that it has learnt: leave the "
            f"scale out, with cube[{name!r}].attrs.pop('scale_factor', None) where integers are stored, or "
            f"`cube[{name!r}] = cube[{name!r}] * 10000` for floats; or make the bundle with statistics of reflectance."
        )
    distance = float(np.median(np.abs(physical * layer.scale + layer.offset)))
    if distance <= _FAR:
        return {}
    return {
        f"{name} far": f"Layer {name!r} has values from {physical.min():.4g} to {physical.max():.4g} (median "
        f"{np.median(physical):.4g}), {distance:.0f} deviations from the {centre:.4g}, give or take {spread:.4g}, that the bundle "
        f"has learnt. Is it in the same unit? Set cube[{name!r}].attrs['scale_factor'] to what makes it so."
    }


def _offset_or_emptiness(layers: Mapping[str, NDArray[np.float64]], *, has_offset: bool) -> dict[str, str]:
    """Return what shows in all reflectances together: an offset that is left out or applied twice, or nothing at all."""
    if not _VISIBLE & set(layers):
        return {}
    names = ", ".join(map(repr, layers))
    lowest = min(float(np.median(values)) for values in layers.values())
    if lowest < -0.03:
        return {
            "negative": f"Layers {names} are reflectance, and most values of one are below -0.03 (median {lowest:.3g}): the offset of "
            "Sentinel-2 may have been applied twice. If it was, remove the attribute add_offset of each layer."
        }
    brightest = max(float(np.quantile(values, 0.99)) for values in layers.values())
    if brightest < 2e-3:
        return {
            "empty": f"Layers {names} are reflectance, and 99 % of their values are below {brightest:.3g}: they may have been "
            "scaled twice, or hold nothing. Look at cube[name].attrs['scale_factor'], and at how they were made."
        }
    darkest = min(float(np.quantile(values, 0.01)) for values in layers.values())
    visible = min(float(np.median(layers[name])) for name in _VISIBLE & set(layers))
    if len(layers) >= 3 and not has_offset and 0.098 <= darkest <= 0.125 and visible < 0.25:
        return {
            "offset": f"Layers {names} are reflectance, and nothing in them is darker than {darkest:.3g}: Sentinel-2 files of "
            "processing baseline 04.00 and later store 1000 more. If these do, open them with sensor='sentinel2-l2a-04.00', or "
            "set the attribute add_offset of each to -0.1."
        }
    return {}
