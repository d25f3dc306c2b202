"""Tiles blurred, brightened, made noisy, or without some channels, in physical units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from rtsx.cube.sensors import SENSORS
from rtsx.errors import TrainingError
from rtsx.suggest import suggest
from rtsx.training.augment.geometric import ANGLES, KeyedRandom, blurred, check_flag, check_number, check_pair
from rtsx.training.dataset import TileBatch


@dataclass(frozen=True, kw_only=True)
class ChannelDropout:
    """Whole channels of the network's input replaced by the bundle's fill, as if they had never been measured.

    It comes after `prepare` and so after all other augmentations, wherever it stands among them.
    """

    most: int = 1
    """Greatest number of channels that are dropped at a time, at least 1; all numbers from 1 on are equally likely."""

    def __post_init__(self) -> None:
        """Refuse what is no number of channels."""
        check_number("most of ChannelDropout", self.most, low=1, high=1000)
        if not isinstance(self.most, int):
            raise TrainingError(f"most of ChannelDropout has to be a whole number; got {self.most!r}.")

    def check_layers(self, layers: Sequence[str]) -> None:
        """Leave at least one; ndvi may be a channel more than what is read."""
        self.check_rest(len(layers) + 1)

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """The batch as it is: channels do not exist before `prepare`."""
        return batch

    def dropped(self, channels: torch.Tensor, *, fill: float, chance: KeyedRandom) -> torch.Tensor:
        """Channels (tile, channel, y, x) of which each tile has some that hold `fill` everywhere."""
        tiles, count = channels.shape[:2]
        self.check_rest(count)
        lost = chance.integers(tiles, low=1, high=self.most)
        is_lost = chance.order(tiles, of=count) < lost[:, None]
        return channels.masked_fill(is_lost.to(channels.device)[:, :, None, None], fill)

    def check_rest(self, count: int) -> None:
        """Refuse so few channels that none would be left."""
        if self.most >= count:
            raise TrainingError(
                f"ChannelDropout is to drop up to {self.most} of {count} channels and would leave nothing to see. Set most below "
                f"{count}, or leave it out."
            )


REFLECTANCE = frozenset(
    name for sensor in SENSORS.values() if sensor.units == "reflectance" for bands in sensor.bands for name in bands
)
"""Layers that light and sensor change: the band names of the sensors that rtsx knows."""

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Physical values (tile, layer, y, x), 0 where invalid, and validity (tile, 1, y, x), to new values."""


def chosen_layers(layers: Sequence[str], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Those that are changed: the wanted ones, else all that are known as reflectance."""
    return tuple(name for name in layers if (name in REFLECTANCE if wanted is None else name in wanted))


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """What all augmentations share that change values of some layers."""

    layers: tuple[str, ...] | None = None
    """Which layers; None: those of reflectance, because elevation changes neither with light nor with focus."""

    def __post_init__(self) -> None:
        """Refuse what is no list of names; one, as YAML has it, becomes a tuple."""
        names: object = self.layers
        if names is None:
            return
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            raise TrainingError(f"layers of {type(self).__name__} has to be a list of names; got {names!r}.")
        object.__setattr__(self, "layers", tuple(names))

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers that are not there or that such a change makes no sense for, and a change of nothing."""
        augmentation = type(self).__name__
        for name in self.layers or ():
            if name not in layers:
                raise TrainingError(
                    f"{augmentation} is to change layer {name!r}, which is not read.{suggest(name, layers)}"
                )
            if name in ANGLES:
                raise TrainingError(
                    f"{augmentation} cannot change {name!r}: angles have neither mean nor gain. Leave it out."
                )
            if name == "ndvi" and {"red", "nir"} <= set(layers):
                raise TrainingError(
                    f"{augmentation} cannot change 'ndvi' by itself: it follows red and nir. Name these instead."
                )
        if not chosen_layers(layers, self.layers):
            raise TrainingError(
                f"{augmentation} changes reflectance, and none of the layers {list(layers)} is known as such. Name those that it is "
                "to change with layers=[...], or leave it out."
            )


def changed_layers(batch: TileBatch, names: Sequence[str], change: Change) -> TileBatch:
    """The batch with some layers changed in physical units, and a stored ndvi computed anew from changed bands.

    A pixel whose red and nir come to add up to exactly 0, which has no ndvi, becomes invalid.
    """
    places = [batch.layers.index(name) for name in names]
    factors, summands = _packing(batch, names)
    valid = batch.valid[:, None]
    physical = (batch.stored[:, places] * factors + summands).masked_fill(~valid, 0)
    stored = batch.stored.clone()
    stored[:, places] = ((change(physical, valid) - summands) / factors).masked_fill(~valid, 0)
    changed = replace(batch, stored=stored)
    if {"red", "nir"} <= set(batch.layers) and {"red", "nir"} & set(names):
        return _with_ndvi(changed, before=batch)
    return changed


def _packing(batch: TileBatch, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale factors and offsets (layer, 1, 1) of some layers."""
    packings = [batch.packings[name] for name in names]
    return (
        batch.stored.new_tensor([packing.scale_factor for packing in packings])[:, None, None],
        batch.stored.new_tensor([packing.add_offset for packing in packings])[:, None, None],
    )


def _with_ndvi(batch: TileBatch, *, before: TileBatch) -> TileBatch:
    red, nir = _bands(batch)
    total = nir + red
    lost = (total == 0) & (sum(_bands(before)) != 0)
    stored = batch.stored
    if "ndvi" in batch.layers:
        place, packing = batch.layers.index("ndvi"), batch.packings["ndvi"]
        ndvi = ((nir - red) / total - packing.add_offset) / packing.scale_factor
        stored[:, place] = torch.where(batch.valid & (total != 0), ndvi, stored[:, place])
    return replace(batch, valid=batch.valid & ~lost)


def _bands(batch: TileBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Physical red and nir (tile, y, x)."""
    places = [batch.layers.index(name) for name in ("red", "nir")]
    factors, summands = _packing(batch, ("red", "nir"))
    red, nir = (batch.stored[:, places] * factors + summands).unbind(1)
    return red, nir


@dataclass(frozen=True, kw_only=True)
class Blur(LayerChange):
    """A Gaussian over the valid pixels around each: haze, or optics out of focus. Nothing leaks out of invalid pixels."""

    sigma: tuple[float, float] = (0.5, 1.5)
    """Least and greatest standard deviation of the Gaussian, px, 0.1 to 20; all equally likely."""

    def __post_init__(self) -> None:
        """Refuse what cannot be; lists, as YAML has them, become tuples."""
        object.__setattr__(self, "sigma", check_pair("sigma of Blur", self.sigma, low=0.1, high=20))
        super().__post_init__()

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Every tile blurred, each by its own Gaussian."""
        low, high = self.sigma
        sigmas = chance.uniform((len(batch.valid),), low=low, high=high)
        return changed_layers(
            batch,
            chosen_layers(batch.layers, self.layers),
            lambda values, valid: blurred(values, valid[:, 0], sigmas=sigmas, widest=high),
        )


@dataclass(frozen=True, kw_only=True)
class RandomBrightnessContrast(LayerChange):
    """Reflectance brighter or darker, and spread or gathered about the tile's mean.

    With m the mean of a layer's valid pixels in the tile, ``v -> (m + (v - m) * (1 + contrast)) * (1 + brightness)``.
    One contrast and one brightness for all layers of a tile, so that brightness alone leaves ndvi as it is. No value
    that is above 0 falls below half of what it was, because reflectance is not negative and ndvi has to stay defined.
    """

    brightness: float = 0.2
    """Greatest part by which a tile gets brighter or darker, 0 to 0.9."""
    contrast: float = 0.2
    """Greatest part by which distances from the mean grow or shrink, 0 to 0.9."""

    def __post_init__(self) -> None:
        """Refuse what cannot be; a list, as YAML has it, becomes a tuple."""
        check_number("brightness of RandomBrightnessContrast", self.brightness, low=0, high=0.9)
        check_number("contrast of RandomBrightnessContrast", self.contrast, low=0, high=0.9)
        super().__post_init__()

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Every tile changed, each by its own numbers."""
        shape = (len(batch.valid), 1, 1, 1)
        contrast = 1 + chance.uniform(shape, low=-self.contrast, high=self.contrast).to(batch.stored)
        brightness = 1 + chance.uniform(shape, low=-self.brightness, high=self.brightness).to(batch.stored)

        def change(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            mean = values.sum((-2, -1), keepdim=True) / valid.sum((-2, -1), keepdim=True).clamp_min(1)
            changed = (mean + (values - mean) * contrast) * brightness
            return torch.where(values > 0, torch.maximum(changed, values / 2), changed)

        return changed_layers(batch, chosen_layers(batch.layers, self.layers), change)


@dataclass(frozen=True, kw_only=True)
class MultiplicativeNoise(LayerChange):
    """Reflectance times a gain: one for the tile, which leaves ndvi as it is, or one per layer, per pixel, or both."""

    multiplier: tuple[float, float] = (0.9, 1.1)
    """Least and greatest gain, above 0; all equally likely."""
    per_layer: bool = False
    """True: each layer has its own."""
    per_pixel: bool = False
    """True: each pixel has its own."""

    def __post_init__(self) -> None:
        """Refuse what cannot be; lists, as YAML has them, become tuples."""
        multiplier = check_pair("multiplier of MultiplicativeNoise", self.multiplier, low=0.01, high=100)
        object.__setattr__(self, "multiplier", multiplier)
        check_flag("per_layer of MultiplicativeNoise", self.per_layer)
        check_flag("per_pixel of MultiplicativeNoise", self.per_pixel)
        super().__post_init__()

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Every tile changed, each by its own numbers."""
        names = chosen_layers(batch.layers, self.layers)
        height, width = batch.valid.shape[1:] if self.per_pixel else (1, 1)
        shape = (len(batch.valid), len(names) if self.per_layer else 1, height, width)
        low, high = self.multiplier
        gains = chance.uniform(shape, low=low, high=high).to(batch.stored)
        return changed_layers(batch, names, lambda values, _: values * gains)
