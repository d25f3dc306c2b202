"""From stored pixels to network input: the one place where values are scaled, and the same for training and inference.

A cube keeps its layers as they are stored (uint16 reflectance, float32 terrain) with CF packing in the attributes; a
bundle says what the network wants, in physical units. `prepare` folds both into one multiply-add per layer, on the
device that the network runs on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtsx.arguments import typed
from rtsx.errors import BundleError

if TYPE_CHECKING:
    import torch

__all__ = ["InputLayer", "Packing", "prepare", "required_layers", "trusted_pixels", "valid_pixels"]

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
        """Factor and summand that turn a stored value straight into the channel, before `clip`."""
        return self.scale * packing.scale_factor, self.scale * packing.add_offset + self.offset


def required_layers(inputs: Sequence[InputLayer], available: Sequence[str]) -> tuple[str, ...]:
    """Names of the cube's variables that have to be read, `ndvi` replaced by its two bands where the cube lacks it.

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
            f"missing {missing}. Add them to the cube, or rename its variables."
        )
    return tuple(dict.fromkeys(wanted))


def valid_pixels(
    stored: Mapping[str, NDArray[Any]], *, packings: Mapping[str, Packing], mask: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Pixels (y, x) that are valid in every stored layer and in `mask`; runs on the host, before anything is filled.

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
        if nodata is not None and np.isfinite(nodata):
            valid &= layer != nodata
    return valid


def trusted_pixels(
    stored: Mapping[str, NDArray[Any]],
    *,
    inputs: Sequence[InputLayer],
    packings: Mapping[str, Packing],
    mask: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Pixels (y, x) that inference trusts, and training learns from: valid, and with every derived channel defined.

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
    """Pixels (y, x) where red + nir is not 0, so that ndvi = (nir - red) / (nir + red) exists."""
    red, nir = (
        stored[name].astype(np.float32) * np.float32(factor) + np.float32(summand)
        for name, (factor, summand) in _in_units_of_red(packings).items()
    )
    defined: NDArray[np.bool_] = red + nir != 0
    return defined


def _in_units_of_red(packings: Mapping[str, Packing]) -> dict[str, tuple[float, float]]:
    """Factor and summand of both bands of ndvi, in stored units of red instead of physical ones.

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
    """Network input (layer, y, x) float32 from stored layers (y, x), on the device they are on.

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
