"""What is stated about a network, by its file and by the caller, whose word counts more, and which statements fit together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import BundleError
from rtsx.model.inputs import InputLayer, preset_named
from rtsx.model.source import BatchNormMode
from rtsx.names import is_background

Activation = Literal["sigmoid", "softmax", "none"]

_EXAMPLE = 'layers=("blue", "green", "red"), mean=[0.1, 0.1, 0.1], std=[0.05, 0.05, 0.05], classes=("target",), tile=256, overlap=64)'


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a perturbation test found out about a network."""

    stride: int
    """Total down-sampling in px."""
    radius: int
    """Farthest distance in px at which a changed pixel moves the answer by more than 0.005."""
    depends_on_tile: bool
    """Whether the answer in the middle of a tile changes with the tile's size."""


DISTRIBUTIONS = "layer_distributions"
"""Where the provenance of a model keeps those that it has learnt from, by layer."""
QUANTILES = tuple(part / 20 for part in range(1, 20))
"""Parts of the values that lie below those of `LayerDistribution.quantiles`."""


@dataclass(frozen=True, kw_only=True)
class LayerDistribution:
    """How the values of a layer are distributed, in physical units; what is kept to be compared with.

    Examples
    --------
    >>> found = LayerDistribution.of(np.arange(101.0), pixels=202)
    >>> found.mean, round(found.std, 3), found.quantiles[9], found.invalid
    (50.0, 29.155, 50.0, 0.5)
    """

    pixels: int
    """Those that were looked at."""
    count: int
    """Those that hold a value."""
    mean: float
    """0 where it is not known."""
    std: float
    """Standard deviation; likewise."""
    quantiles: tuple[float, ...]
    """Values at `QUANTILES`; empty where they, mean and deviation are not known, as there are too few values."""

    @classmethod
    def of(cls, values: NDArray[Any], *, pixels: int, count: int | None = None) -> Self:
        """Measure values, all of those there are or, of `count`, a part."""
        held = int(values.size) if count is None else count
        if not values.size:
            return cls(pixels=pixels, count=held, mean=0.0, std=0.0, quantiles=())
        return cls(
            pixels=pixels,
            count=held,
            mean=float(values.mean(dtype=np.float64)),
            std=float(values.std(dtype=np.float64)),
            quantiles=tuple(np.quantile(values, QUANTILES).tolist()),
        )

    @property
    def invalid(self) -> float:
        """Share of the pixels without a value, 0-1."""
        return 1 - self.count / self.pixels if self.pixels else 1.0


@dataclass(frozen=True, kw_only=True)
class OutlineChoice:
    """What outlines are made by where nobody says otherwise: threshold and least area, chosen together by object scores.

    Raises
    ------
    BundleError
        A number is out of its range.
    """

    threshold: float
    """Least probability of a pixel of an outline, above 0 and up to 1; `ModelBundle.threshold` is that of the binary map."""
    min_area_m2: float
    """Smaller objects are left out, m²; geodesic."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if not (0 < self.threshold <= 1 and 0 <= self.min_area_m2 < math.inf):
            raise BundleError(
                f"Outlines have a threshold above 0 and up to 1, and a finite least area of at least 0 m²; got {self.threshold} and "
                f"{self.min_area_m2}."
            )

    def __str__(self) -> str:
        return f"from {self.threshold:g}, at least {self.min_area_m2:g} m2"

    @property
    def attrs(self) -> dict[str, float]:
        """Attributes of a prediction that say it."""
        return {"outline_threshold": self.threshold, "outline_min_area_m2": self.min_area_m2}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Everything a bundle knows besides its weights; None where nobody has said it yet."""

    id: str | None = None
    """Name of the model for people and products."""
    layers: tuple[str, ...] | None = None
    """Names of the input channels, in their order."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, in physical units."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel, in physical units."""
    inputs: tuple[InputLayer, ...] | None = None
    """The input channels with their scaling; says more than `layers`, `mean` and `std`."""
    preset: str | None = None
    """Name of the preset that scales the layers."""
    classes: tuple[str, ...] | None = None
    """Names of the output channels; a single one is what a binary network finds."""
    activation: Activation | None = None
    """What turns the network's output into probabilities."""
    tile: int | None = None
    """Side of a tile in px."""
    overlap: int | None = None
    """Pixels that neighbouring tiles share."""
    trim: int | None = None
    """Pixels on each side of a tile that never count; None: the planner's choice."""
    stride: int | None = None
    """Total down-sampling of the network in px."""
    threshold: float | None = None
    """Least probability that counts as found."""
    outlines: OutlineChoice | None = None
    """Threshold and least area of outlines, where they were chosen by object scores."""
    temperature: float | None = None
    """What the network's output is divided by before the activation, so that probabilities are calibrated."""
    fill: float | None = None
    """Channel value of an invalid pixel."""
    pixel_m: float | None = None
    """Ground length of a pixel that the network has learnt, m."""
    bn_mode: BatchNormMode | None = None
    """Statistics that batch normalisation uses."""
    reach: Reach | None = None
    """How far a pixel matters, as measured."""
    provenance: Mapping[str, object] | None = None
    """Where the weights come from, as JSON values."""

    def over(self, found: "Metadata") -> "Metadata":
        """Put this word over another: what is None here is taken from `found`.

        Scaling is taken as a whole: whoever names layers, a mean or a preset replaces what the file says of all three.

        Examples
        --------
        >>> Metadata(tile=256).over(Metadata(tile=1024, overlap=64)).overlap
        64
        """
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        merged = replace(found, **{name: value for name, value in said.items() if value is not None})
        if self.inputs is None and any(said[name] is not None for name in ("layers", "mean", "std", "preset")):
            layers = merged.layers
            if self.layers is None and layers is None and found.inputs is not None:
                layers = tuple(layer.name for layer in found.inputs)
            states_statistics = self.mean is not None or self.std is not None
            return replace(merged, inputs=None, layers=layers, preset=None if states_statistics else merged.preset)
        return merged

    def scaled(self) -> "Metadata":
        """Turn layers and their scaling into `inputs`; raises `BundleError` where lengths differ or a layer is unknown.

        Examples
        --------
        >>> Metadata(layers=("red",), mean=(10.0,), std=(4.0,)).scaled().inputs[0].offset
        -2.5
        """
        if self.inputs is not None or self.layers is None:
            return self
        if self.mean is not None and self.std is not None:
            return replace(self, inputs=_from_statistics(self.layers, mean=self.mean, std=self.std))
        if self.preset is not None:
            preset = preset_named(self.preset)
            fill = preset.fill if self.fill is None else self.fill
            return replace(self, inputs=preset.inputs_for(self.layers), fill=fill)
        return self

    def require(self, *, described: str, opener: str) -> None:
        """Refuse to go on while something is missing that nobody can guess.

        Parameters
        ----------
        described
            What the metadata belongs to, for the message.
        opener
            Function and first argument that take what is missing, likewise.

        Raises
        ------
        BundleError
            Names everything that is missing at once, with an example.
        """
        needs_scaling = self.inputs is None and self.preset is None
        needed = {
            "layers": self.inputs is None and self.layers is None,
            "mean": needs_scaling and self.mean is None,
            "std": needs_scaling and self.std is None,
            "classes": self.classes is None,
            "tile": self.tile is None,
            "overlap": self.overlap is None,
        }
        missing = [name for name, is_needed in needed.items() if is_needed]
        if missing:
            raise BundleError(
                f"{described} does not say its {', '.join(missing)}. Pass them, such as {opener}, {_EXAMPLE}; "
                "a preset= stands for mean and std."
            )


def _from_statistics(layers: Sequence[str], *, mean: Sequence[float], std: Sequence[float]) -> tuple[InputLayer, ...]:
    if not len(layers) == len(mean) == len(std):
        raise BundleError(
            f"layers, mean and std have to be of one length; got {len(layers)}, {len(mean)} and {len(std)}. "
            "Give one number for each layer, in the order of the network's channels."
        )
    return tuple(
        InputLayer.from_statistics(name, mean=middle, std=spread)
        for name, middle, spread in zip(layers, mean, std, strict=True)
    )


def check_channels(layers: tuple[str, ...], *, classes: tuple[str, ...], activation: str, threshold: float) -> None:
    """Refuse layers and classes that are missing or named twice, and activations that cannot be.

    Raises
    ------
    BundleError
        The message says which, and what to do.

    Examples
    --------
    >>> check_channels(("red",), classes=("lake",), activation="sigmoid", threshold=0.5)
    """
    if not layers or len(set(layers)) < len(layers):
        raise BundleError(
            f"A bundle needs at least one input layer, and each once; got {list(layers)}. Pass layers= in the order of "
            "the network's channels."
        )
    if not classes or len(set(classes)) < len(classes) or "" in classes:
        raise BundleError(
            f"A bundle needs at least one class, each with its own name; got {list(classes)}. Pass classes= in the order "
            "of the network's output."
        )
    if activation not in {"sigmoid", "softmax", "none"}:
        raise BundleError(f"activation has to be 'sigmoid', 'softmax' or 'none'; got {activation!r}.")
    if activation == "softmax" and len(classes) == 1:
        raise BundleError(
            f"softmax over the single class {classes[0]!r} is 1 everywhere. Pass activation='sigmoid', or name every "
            "class that the network tells apart."
        )
    if not 0 <= threshold <= 1:
        raise BundleError(f"threshold has to be a probability in 0..1; got {threshold}.")


def check_background(classes: Sequence[str]) -> None:
    """Refuse other spellings of "background" where classes are named; bundles that were stored with one keep it.

    Raises
    ------
    BundleError
        The message says which, and what to pass instead.

    Examples
    --------
    >>> check_background(("background", "lake"))
    """
    misspelt = [name for name in classes if is_background(name) and name != "background"]
    if misspelt:
        named = ["background" if name in misspelt else name for name in classes]
        raise BundleError(
            f"Class {misspelt[0]!r} is what none of the others is, by its name. Call it 'background', which outlines, areas and scores "
            f"leave out: pass classes={named}."
        )


def check_temperature(temperature: float, *, activation: str) -> None:
    """Refuse temperatures that turn probabilities around, and those that nothing would apply.

    Raises
    ------
    BundleError
        The message says which, and what to do.

    Examples
    --------
    >>> check_temperature(1.5, activation="sigmoid")
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise BundleError(f"temperature has to be a finite number above 0; got {temperature}. 1 changes nothing.")
    if temperature != 1 and activation == "none":
        raise BundleError(
            f"temperature={temperature} divides the output of a network before its activation, but with activation='none' "
            "the network has applied its own. Leave temperature out, or take the activation out of the network."
        )


def check_tiles(tile: int, *, overlap: int, stride: int, trim: int | None) -> None:
    """Refuse tiles that are off the network's stride, and overlaps that leave nothing to step by; all in px.

    Raises
    ------
    BundleError
        The message names the nearest numbers that go together.

    Examples
    --------
    >>> check_tiles(1024, overlap=256, stride=32, trim=None)
    """
    if stride < 1:
        raise BundleError(f"stride has to be at least 1 px; got {stride}. A five-stage encoder has 32.")
    if tile < 1 or tile % stride:
        raise BundleError(
            f"tile has to be a multiple of the network's stride of {stride} px; got {tile}. Pass "
            f"tile={max(1, round(tile / stride)) * stride}, or the stride= of the network if it is another."
        )
    if not 0 <= overlap < tile:
        raise BundleError(
            f"overlap has to be at least 0 and below the tile of {tile} px; got {overlap}. A quarter of the tile is usual."
        )
    if overlap % stride:
        raise BundleError(
            f"overlap has to be a multiple of the network's stride of {stride} px, or tiles would start off its lattice; "
            f"got {overlap}. Pass overlap={min(tile - stride, -(-overlap // stride) * stride)}."
        )
    if trim is not None and not 0 <= 2 * trim <= overlap:
        raise BundleError(f"trim has to be between 0 and half the overlap of {overlap} px; got {trim}.")
