"""Stored pixels to network input: layer names, scaling, and the presets of published models.

A cube keeps its layers as they are stored (uint16 reflectance, float32 terrain) with CF packing in the attributes; a
bundle says what the network wants, in physical units. `prepare` folds both into one multiply-add per layer, on the
device that the network runs on.

A preset belongs to the weights, not to the data: everything is in physical units (reflectance, m, degree), and a cube
says by its packing how stored values become physical. What checkpoints store as `norm_factors` is never read, because
the published files carry wrong ones for ndvi.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtsx.arguments import typed
from rtsx.errors import BundleError
from rtsx.names import did_you_mean

if TYPE_CHECKING:
    import torch

Units = Literal["", "reflectance", "index", "m", "degree", "1"]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How one layer of a cube is stored: ``physical = stored * scale_factor + add_offset``, as in CF."""

    scale_factor: float = 1.0
    """Physical units per stored unit."""
    add_offset: float = 0.0
    """Physical value of stored 0."""
    nodata: float | None = None
    """Stored value that marks a missing pixel; NaN is always missing. None: every number counts."""
    is_declared: bool = False
    """True where the cube states the packing, False where 1 and 0 are only the fallback."""


@typed(BundleError)
@dataclass(frozen=True, kw_only=True)
class InputLayer:
    """One input channel of a network: ``channel = clip(physical * scale + offset)``."""

    name: str
    """Name of the cube's variable; `ndvi` is derived from `red` and `nir` where the cube lacks it."""
    scale: float = 1.0
    """Channel units per physical unit: 1 / standard deviation, or 1 / (maximum - minimum)."""
    offset: float = 0.0
    """Channel value of physical 0."""
    clip: tuple[float, float] | None = None
    """Least and greatest channel value, applied last; None lets every value through."""
    units: Units = ""
    """Physical unit that the cube has to provide; `""` takes what comes."""

    def __post_init__(self) -> None:
        """Refuse numbers that would turn a channel into NaN."""
        if not self.name:
            raise BundleError("An input layer needs a name; got ''. Name it after the cube's variable.")
        if not (math.isfinite(self.scale) and math.isfinite(self.offset)) or self.scale == 0:
            raise BundleError(
                f"Input layer {self.name!r} needs a finite, non-zero scale and a finite offset; "
                f"got {self.scale} and {self.offset}. Look for a zero standard deviation."
            )
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise BundleError(f"Input layer {self.name!r} needs clip=(low, high) with low < high; got {self.clip}.")

    @classmethod
    @typed(BundleError)
    def from_statistics(cls, name: str, *, mean: float, std: float) -> "InputLayer":
        """Scale to zero mean and unit deviation: ``(physical - mean) / std``.

        Examples
        --------
        >>> InputLayer.from_statistics("red", mean=10, std=4).offset
        -2.5
        """
        if not std > 0:
            raise BundleError(f"The standard deviation of layer {name!r} has to be above 0; got {std}.")
        return cls(name=name, scale=1 / std, offset=-mean / std)

    @classmethod
    @typed(BundleError)
    def from_range(cls, name: str, low: float, high: float, *, clip: bool, units: Units = "") -> "InputLayer":
        """Scale so that `low` becomes 0 and `high` 1; `clip` holds the channel within them.

        Examples
        --------
        >>> InputLayer.from_range("slope", 0, 90, clip=True, units="degree").scale * 45
        0.5
        """
        if not low < high:
            raise BundleError(f"The range of layer {name!r} has to be (low, high) with low < high; got {low}, {high}.")
        span = high - low
        return cls(name=name, scale=1 / span, offset=-low / span, clip=(0.0, 1.0) if clip else None, units=units)

    def coefficients(self, packing: Packing) -> tuple[float, float]:
        """Return the factor and summand that turn a stored value straight into the channel, before `clip`."""
        return self.scale * packing.scale_factor, self.scale * packing.add_offset + self.offset


def required_layers(inputs: Sequence[InputLayer], available: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the cube's variables that have to be read, `ndvi` replaced by its two bands where the cube lacks it.

    Raises
    ------
    BundleError
        A layer is missing and cannot be derived; all of them are named.

    Examples
    --------
    >>> required_layers([InputLayer(name="red"), InputLayer(name="ndvi")], ["red", "nir", "dem"])
    ('red', 'nir')
    """
    wanted: list[str] = []
    for layer in inputs:
        derives = layer.name == "ndvi" and "ndvi" not in available
        wanted.extend(("red", "nir") if derives else (layer.name,))
    missing = sorted({name for name in wanted if name not in available})
    if missing:
        raise BundleError(
            f"The bundle needs layers {[layer.name for layer in inputs]}, but the cube has {sorted(available)}: "
            f"missing {missing}. Where these are bands under other names, name all bands in their order with layers=[...]; else "
            "take an image that has them."
        )
    return tuple(dict.fromkeys(wanted))


def valid_pixels(
    stored: Mapping[str, NDArray[Any]], *, packings: Mapping[str, Packing], mask: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return the pixels (y, x) that are valid in every stored layer and in `mask`; runs on the host, before anything is filled.

    Parameters
    ----------
    stored
        The required layers, (y, x) each, in any numeric dtype.
    packings
        One per stored layer.
    mask
        True where a pixel can be trusted, (y, x); None where the cube has no mask.
    """
    shape = next(iter(stored.values())).shape
    valid = np.ones(shape, bool) if mask is None else np.array(mask, bool)
    for name, layer in stored.items():
        nodata = packings[name].nodata
        if layer.dtype.kind == "f":
            valid &= np.isfinite(layer)
        if nodata is None or not np.isfinite(nodata):
            continue
        if layer.dtype.kind not in "iu":
            valid &= layer != nodata
        elif int(nodata) == nodata and np.iinfo(layer.dtype).min <= nodata <= np.iinfo(layer.dtype).max:
            valid &= layer != layer.dtype.type(nodata)  # in its own dtype: NumPy would turn every pixel into a float64
    return valid


def trusted_pixels(
    stored: Mapping[str, NDArray[Any]],
    *,
    inputs: Sequence[InputLayer],
    packings: Mapping[str, Packing],
    mask: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Return the pixels (y, x) that inference trusts, and training learns from: valid, and with every derived channel defined.

    Parameters
    ----------
    stored, packings, mask
        As for `valid_pixels`.
    inputs
        The network's channels; one that is not stored is derived.
    """
    valid = valid_pixels(stored, packings=packings, mask=mask)
    if any(layer.name == "ndvi" and "ndvi" not in stored for layer in inputs):
        valid &= derived_ndvi_is_defined(stored, packings=packings)
    return valid


def derived_ndvi_is_defined(
    stored: Mapping[str, NDArray[Any]], *, packings: Mapping[str, Packing]
) -> NDArray[np.bool_]:
    """Return the pixels (y, x) where red + nir is not 0, so that ndvi = (nir - red) / (nir + red) exists."""
    red, nir = (
        stored[name].astype(np.float32) * np.float32(factor) + np.float32(summand)
        for name, (factor, summand) in _in_units_of_red(packings).items()
    )
    defined: NDArray[np.bool_] = red + nir != 0
    return defined


def _in_units_of_red(packings: Mapping[str, Packing]) -> dict[str, tuple[float, float]]:
    """Return the factor and summand of both bands of ndvi, in stored units of red instead of physical ones.

    The index is the same, and with an offset such as Sentinel-2's the sum of two whole numbers is exactly 0 where it
    should be, not 1e-8.
    """
    unit = packings["red"].scale_factor
    return {name: (packings[name].scale_factor / unit, packings[name].add_offset / unit) for name in ("red", "nir")}


def prepare(
    stored: "Mapping[str, torch.Tensor]",
    valid: "torch.Tensor",
    *,
    inputs: Sequence[InputLayer],
    packings: Mapping[str, Packing],
    fill: float,
) -> "torch.Tensor":
    """Return the network input (layer, y, x) float32 from stored layers (y, x), on the device they are on.

    With a batch of tiles, (tile, y, x) in `stored` and `valid`, the result is (layer, tile, y, x).

    `fill` stands in every channel of an invalid pixel, so nothing that hides under the mask reaches the network.
    """
    import torch  # heavy; kept out of `import rtsx`

    out = torch.empty((len(inputs), *valid.shape), dtype=torch.float32, device=valid.device)
    for channel, layer in zip(out, inputs, strict=True):
        if layer.name in stored:
            factor, summand = layer.coefficients(packings[layer.name])
            channel.copy_(stored[layer.name]).mul_(factor).add_(summand)
        else:
            red, nir = (
                stored[name].float() * scale + shift for name, (scale, shift) in _in_units_of_red(packings).items()
            )
            factor, summand = layer.coefficients(Packing())
            torch.div(nir - red, nir + red, out=channel).mul_(factor).add_(summand)
        if layer.clip is not None:
            channel.clamp_(*layer.clip)
    return out.masked_fill_(~valid, fill)


_OPTICAL = ("blue", "green", "red", "nir")
_TREND = ("tc_brightness", "tc_greenness", "tc_wetness")

LAYER_NAMES = (
    *(*_OPTICAL, "ndvi", "relative_elevation", "slope", *_TREND),
    *("aspect", "hillshade", "curvature", "dem"),
)
"""Every layer that a preset knows how to scale."""

# A source of the predecessors may stand for several layers, in the order in which its bands were stacked.
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "planet": _OPTICAL,
    "planetscope": _OPTICAL,
    "optical": _OPTICAL,
    "sentinel2": _OPTICAL,
    "s2": _OPTICAL,
    "tcvis": _TREND,
    "near_infrared": ("nir",),
    "near-infrared": ("nir",),
    "elevation": ("dem",),
    "arcticdem": ("dem",),
    "rel_elevation": ("relative_elevation",),
    "tcvis_brightness": ("tc_brightness",),
    "tcvis_greenness": ("tc_greenness",),
    "tcvis_wetness": ("tc_wetness",),
}


def canonical_layers(names: Iterable[str]) -> tuple[str, ...]:
    """Return our names of layers that may go by the predecessors' names; their sources become several layers.

    Raises
    ------
    BundleError
        A name means no layer, or one layer is meant twice.

    Examples
    --------
    >>> canonical_layers(["ndvi", "tcvis"])
    ('ndvi', 'tc_brightness', 'tc_greenness', 'tc_wetness')
    """
    layers: list[str] = []
    for name in names:
        key = name.lower()
        if key not in LAYER_NAMES and key not in _OTHER_NAMES:
            hint = did_you_mean(key, [*LAYER_NAMES, *_OTHER_NAMES])
            raise BundleError(
                f"Unknown layer {name!r}; presets know {list(LAYER_NAMES)}.{hint} For any other layer pass layers= "
                "with mean= and std=, or inputs=."
            )
        layers.extend(_OTHER_NAMES.get(key, (key,)))
    twice = sorted({layer for layer in layers if layers.count(layer) > 1})
    if twice:
        raise BundleError(f"Layers {twice} are named twice in {list(names)}. Name each layer once.")
    return tuple(layers)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The scaling of every layer that a family of models may use."""

    name: str
    """Name by which files and users refer to it."""
    scaling: Mapping[str, InputLayer]
    """One input layer per name of a layer."""
    fill: float
    """Channel value of an invalid pixel, in every layer."""
    classes: tuple[str, ...]
    """What the family's binary models find."""

    def inputs_for(self, layers: Iterable[str]) -> tuple[InputLayer, ...]:
        """Return the input layers in the order given; the predecessors' names are understood.

        Raises
        ------
        BundleError
            The preset does not know a layer.

        Examples
        --------
        >>> [layer.name for layer in PRESETS["tss-v1"].inputs_for(["ndvi", "planetscope"])]
        ['ndvi', 'blue', 'green', 'red', 'nir']
        """
        names = canonical_layers(layers)
        unknown = [name for name in names if name not in self.scaling]
        if unknown:
            raise BundleError(
                f"Preset {self.name!r} has no scaling for layers {unknown}; it has {sorted(self.scaling)}. "
                "Use the preset that the weights were trained with, or pass inputs=."
            )
        return tuple(self.scaling[name] for name in names)


def _preset(name: str, *, reflectance: tuple[float, float], clip: bool, more: Iterable[InputLayer] = ()) -> Preset:
    ranges: list[tuple[str, float, float, Units]] = [
        *((name, *reflectance, "reflectance") for name in _OPTICAL),
        ("ndvi", -1, 1, "index"),
        ("relative_elevation", -50, 50, "m"),
        ("slope", 0, 90, "degree"),
        *((name, 0, 255, "1") for name in _TREND),
    ]
    layers = [InputLayer.from_range(name, low, high, clip=clip, units=units) for name, low, high, units in ranges]
    scaling = {layer.name: layer for layer in (*layers, *more)}
    return Preset(name=name, scaling=scaling, fill=0.0, classes=("thaw_slump",))


PRESETS: Mapping[str, Preset] = {
    # DN / 3000 = reflectance / 0.3; nothing is clipped.
    "tss-v1": _preset("tss-v1", reflectance=(0, 0.3), clip=False),
    "darts-v2": _preset(
        "darts-v2",
        reflectance=(-0.1, 0.5),
        clip=True,
        more=(
            InputLayer.from_range("aspect", 0, 360, clip=True, units="degree"),
            InputLayer.from_range("hillshade", 0, 1, clip=True, units="1"),
            InputLayer.from_range("curvature", -1, 1, clip=True),
            InputLayer.from_range("dem", -100, 3000, clip=True, units="m"),
        ),
    ),
}
"""The presets of the published models."""


def preset_named(name: str) -> Preset:
    """Look a preset up.

    Raises
    ------
    BundleError
        There is none of this name.

    Examples
    --------
    >>> preset_named("darts-v2").fill
    0.0
    """
    if name not in PRESETS:
        raise BundleError(
            f"The preset has to be one of {sorted(PRESETS)}; got {name!r}. For another scaling pass mean= and std=."
        )
    return PRESETS[name]
