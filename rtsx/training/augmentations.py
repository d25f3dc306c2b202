"""Augmentations: tiles flipped, turned and cropped, blurred, brightened, made noisy, or without some channels; and their protocol.

Tiles are warped so that invalid pixels never leak into valid ones, with directions turned along, and values change in physical units.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Protocol

import torch

from rtsx.cube.sensors import SENSORS
from rtsx.errors import TrainingError, require_extra
from rtsx.labels import IGNORED
from rtsx.names import suggest
from rtsx.training.dataset import TileBatch
from rtsx.training.sampler import seed_of


class KeyedRandom:
    """Numbers that depend on a key alone; drawn on the CPU, whatever device the batch is on.

    Examples
    --------
    >>> first, second = (KeyedRandom(3, 1).uniform((2,), low=0, high=1) for _ in range(2))
    >>> torch.equal(first, second)
    True
    """

    def __init__(self, *key: int | str) -> None:
        self._generator = torch.Generator().manual_seed(seed_of(*key))

    def chosen(self, count: int, *, probability: float) -> torch.Tensor:
        """Return which of so many things happen, bool (count,)."""
        return torch.rand(count, generator=self._generator) < probability

    def uniform(self, shape: tuple[int, ...], *, low: float, high: float) -> torch.Tensor:
        """Return float32 numbers from `low` to `high`, all equally likely."""
        return low + (high - low) * torch.rand(shape, generator=self._generator)

    def integers(self, count: int, *, low: int, high: int) -> torch.Tensor:
        """Return whole numbers from `low` to `high`, both included, int64 (count,)."""
        return torch.randint(low, high + 1, (count,), generator=self._generator)

    def order(self, count: int, *, of: int) -> torch.Tensor:
        """For each of `count` things a permutation of the numbers below `of`, int64 (count, of)."""
        return torch.rand((count, of), generator=self._generator).argsort(1)


class Augmentation(Protocol):
    """One augmentation with its parameters: a frozen dataclass whose fields are the parameters.

    Construction raises `TrainingError` for values that are not possible. Threads: any; it holds nothing but its parameters.
    """

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise `TrainingError` where the stored layers (their names) do not allow it."""
        ...

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Return a batch in which every tile was changed; layers, packings and shape stay.

        What stands under an invalid pixel changes nothing that can be seen, and `IGNORED` is the truth of whatever was
        not in the picture before.
        """
        ...


def check_number(name: str, value: object, *, low: float, high: float) -> None:
    """Refuse what is no number from `low` to `high`.

    Raises
    ------
    TrainingError
        It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TrainingError(f"{name} has to be a number; got {value!r}.")
    if not low <= value <= high:
        raise TrainingError(f"{name} has to be from {low:g} to {high:g}; got {value}.")


def check_pair(name: str, value: object, *, low: float, high: float) -> tuple[float, float]:
    """Return two numbers from `low` to `high`, the first not above the second, also where a list came.

    Raises
    ------
    TrainingError
        It is not.
    """
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TrainingError(f"{name} has to be two numbers [low, high]; got {value!r}.")
    for each in value:
        check_number(name, each, low=low, high=high)
    if value[0] > value[1]:
        raise TrainingError(f"{name} has to be [low, high] with low not above high; got {list(value)}.")
    return float(value[0]), float(value[1])


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither true nor false.

    Raises
    ------
    TrainingError
        It is not.
    """
    if not isinstance(value, bool):
        raise TrainingError(f"{name} has to be true or false; got {value!r}.")


ANGLES = frozenset({"aspect"})
"""Layers in degrees clockwise from north, of which 0 is level ground."""

_FIXED = frozenset({"eastness", "hillshade", "illumination", "northness"})
"""Layers that depend on a direction outside the picture, in a way that no formula turns."""


class Turning:
    """What all augmentations share that turn or mirror the picture."""

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers that state a direction which does not turn along."""
        fixed = sorted(_FIXED & set(layers))
        if fixed:
            raise TrainingError(
                f"{type(self).__name__} turns the picture, but {fixed} would still be lit or measured from the same side: no "
                "ground looks like that. Leave the augmentation out, or train without these layers; aspect and slope say the "
                "same and turn."
            )


def turned_aspect(batch: TileBatch, *, sign: int, degrees: torch.Tensor | float) -> TileBatch:
    """Return the batch with every aspect `a` replaced by ``sign * a + degrees``, modulo 360.

    An aspect is an azimuth, clockwise from the top of the picture (Horn 1981, Proc. IEEE 69(1), p. 22). A picture turned
    counter-clockwise by t therefore has a - t; mirrored left to right -a, because east and west change places; mirrored
    top to bottom 180 - a. Where north is not at the top, as rtsx measures aspect from true north, a mirrored picture is
    one of ground whose meridian leans to the other side; that ground exists too.

    Level ground, which rtsx writes as exactly 0, stays 0, and so does the rare slope that faces north to the last bit, which
    cannot be told from it. Sloping ground that comes to face north is 360, to stay apart.

    Parameters
    ----------
    batch
        Tiles, already turned.
    sign
        -1 where the picture was mirrored, else 1.
    degrees
        What is added, one number or one per tile (tile,).
    """
    places = [place for place, name in enumerate(batch.layers) if name in ANGLES]
    if not places:
        return batch
    stored = batch.stored.clone()
    shift = degrees.to(stored)[:, None, None] if isinstance(degrees, torch.Tensor) else degrees
    for place in places:
        packing = batch.packings[batch.layers[place]]
        aspect = stored[:, place] * packing.scale_factor + packing.add_offset
        turned = torch.remainder(sign * aspect + shift, 360.0)
        turned = torch.where(turned == 0, 360.0, turned)
        turned = torch.where(aspect == 0, 0.0, turned)
        stored[:, place] = torch.where(batch.valid, (turned - packing.add_offset) / packing.scale_factor, 0.0)
    return replace(batch, stored=stored)


def _flipped(batch: TileBatch, axis: int) -> TileBatch:
    return replace(batch, stored=batch.stored.flip(axis), valid=batch.valid.flip(axis), truth=batch.truth.flip(axis))


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip(Turning):
    """Left and right change places."""

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Return every tile mirrored."""
        return turned_aspect(_flipped(batch, -1), sign=-1, degrees=0.0)


@dataclass(frozen=True, kw_only=True)
class VerticalFlip(Turning):
    """Top and bottom change places."""

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Return every tile mirrored."""
        return turned_aspect(_flipped(batch, -2), sign=-1, degrees=180.0)


def _kornia() -> ModuleType:
    with require_extra("Training needs the train extra: pip install 'rtsx[train]'."):
        import kornia.geometry  # heavy
    return kornia


def rotation(degrees: torch.Tensor, *, size: int) -> torch.Tensor:
    """Return matrices (tile, 2, 3) that turn tiles about their middle, counter-clockwise by these angles (tile,)."""
    middle = torch.full((len(degrees), 2), (size - 1) / 2)
    matrices: torch.Tensor = _kornia().geometry.get_rotation_matrix2d(middle, degrees, torch.ones(len(degrees), 2))
    return matrices


def zoom(sides: torch.Tensor, corners: torch.Tensor, *, size: int) -> torch.Tensor:
    """Return matrices (tile, 2, 3) that enlarge a square of each tile to the whole tile.

    Parameters
    ----------
    sides
        Side of each square, px, (tile,).
    corners
        Upper left corner of each square (tile, 2) as y, x: 0 is the outer edge of the first pixel.
    size
        Side of a tile, px.
    """
    factor = size / sides
    matrices = torch.zeros(len(sides), 2, 3)
    for row, axis in ((0, 1), (1, 0)):  # x comes first in a matrix
        matrices[:, row, row] = factor
        # A pixel's centre lies half a pixel from its edge, before and after.
        matrices[:, row, 2] = (0.5 - corners[:, axis]) * factor - 0.5
    return matrices


def warped(batch: TileBatch, matrices: torch.Tensor) -> TileBatch:
    """Return tiles moved by matrices (tile, 2, 3) from old to new pixels, x first.

    Layers are bilinear over the valid ones of the four pixels around; `valid`, truth and angles, which have no mean, are
    those of the nearest pixel. What was not in the picture is invalid and ignored.
    """
    size = (batch.valid.shape[-2], batch.valid.shape[-1])
    moves = matrices.to(batch.stored)
    is_angle = [name in ANGLES for name in batch.layers]
    weight = batch.valid[:, None].to(batch.stored)
    values = batch.stored.masked_fill(~batch.valid[:, None], 0)
    warp_affine = _kornia().geometry.warp_affine
    smooth = warp_affine(torch.cat([values, weight], 1), moves, size, mode="bilinear", padding_mode="zeros")
    # Truth is turned over, because what comes from outside is 0 and has to be IGNORED.
    turned_over = IGNORED - batch.truth[:, None].to(batch.stored)
    sharp = torch.cat([weight, turned_over, values[:, is_angle]], 1)
    nearest = warp_affine(sharp, moves, size, mode="nearest", padding_mode="zeros")
    valid = nearest[:, 0] > 0.5
    # The nearest pixel has a quarter of the weight or more, so that no valid pixel is divided by 0.
    stored = smooth[:, :-1] / smooth[:, -1:].clamp_min(0.1)
    stored[:, is_angle] = nearest[:, 2:]
    truth = (IGNORED - nearest[:, 1]).round().to(torch.uint8)
    return replace(batch, stored=stored.masked_fill_(~valid[:, None], 0), valid=valid, truth=truth)


def blurred(values: torch.Tensor, valid: torch.Tensor, *, sigmas: torch.Tensor, widest: float) -> torch.Tensor:
    """Return layers (tile, layer, y, x) smoothed by a Gaussian over valid pixels (tile, y, x) alone; invalid ones become 0.

    Parameters
    ----------
    values, valid
        What is smoothed.
    sigmas
        Standard deviation of each tile's Gaussian, px, (tile,).
    widest
        Greatest of them that could have been drawn: it gives the size of the kernel, so that no tile changes with those
        beside it.
    """
    side = 2 * math.ceil(3 * widest) + 1
    weight = valid[:, None].to(values)
    weighted = torch.cat([values.masked_fill(~valid[:, None], 0), weight], 1)
    both = sigmas.to(values)[:, None].expand(-1, 2)
    # A border of zeros has no weight, so what lies beyond the tile counts as little as what is invalid.
    smooth: torch.Tensor = _kornia().filters.gaussian_blur2d(weighted, side, both, border_type="constant")
    mean = smooth[:, :-1] / smooth[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
    return mean.masked_fill_(~valid[:, None], 0)


@dataclass(frozen=True, kw_only=True)
class RandomRotate90(Turning):
    """A quarter, half or three quarters of a turn, equally often; pixels stay as they are.

    Never none, so that `probability` is what it says: at 0.75 all four positions are equally likely.
    """

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Return every tile turned, counter-clockwise."""
        quarters = chance.integers(len(batch.valid), low=1, high=3)
        stored, valid, truth = (
            torch.stack([torch.rot90(tile, int(k), dims=(-2, -1)) for tile, k in zip(whole, quarters, strict=True)])
            for whole in (batch.stored, batch.valid, batch.truth)
        )
        turned = replace(batch, stored=stored, valid=valid, truth=truth)
        return turned_aspect(turned, sign=1, degrees=-90.0 * quarters)


@dataclass(frozen=True, kw_only=True)
class Rotate(Turning):
    """Turned about the middle by any angle; the corners that come in are invalid and ignored."""

    limit: float = 90.0
    """Greatest angle, degrees, above 0 to 180; either way, all equally likely."""

    def __post_init__(self) -> None:
        """Refuse what is no angle."""
        check_number("limit of Rotate, in degrees,", self.limit, low=1e-3, high=180)

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Return every tile turned, counter-clockwise for angles above 0."""
        degrees = chance.uniform((len(batch.valid),), low=-self.limit, high=self.limit)
        turned = warped(batch, rotation(degrees, size=batch.valid.shape[-1]))
        return turned_aspect(turned, sign=1, degrees=-degrees)


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A square of the tile, at random, seen from closer.

    The picture gets a finer resolution than the ground has, while values stay physical: a slope is that of the real ground,
    relative elevation is against 100 m of it. Proportions are kept, because ground that is stretched in one direction has
    other slopes and aspects.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    """Least and greatest part of the tile's area, above 0 to 1; all equally likely."""

    def __post_init__(self) -> None:
        """Refuse what is no part; a list, as YAML has it, becomes a pair."""
        object.__setattr__(self, "scale", check_pair("scale of RandomResizedCrop", self.scale, low=0.01, high=1))

    def check_layers(self, layers: Sequence[str]) -> None:
        """Every layer can be enlarged."""

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Return every tile cut and enlarged."""
        count, size = len(batch.valid), batch.valid.shape[-1]
        sides = chance.uniform((count,), low=self.scale[0], high=self.scale[1]).sqrt() * size
        corners = chance.uniform((count, 2), low=0, high=1) * (size - sides)[:, None]
        return warped(batch, zoom(sides, corners, size=size))


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
        """Return the batch as it is: channels do not exist before `prepare`."""
        return batch

    def dropped(self, channels: torch.Tensor, *, fill: float, chance: KeyedRandom) -> torch.Tensor:
        """Return channels (tile, channel, y, x) of which each tile has some that hold `fill` everywhere."""
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
        if not self._chosen(layers):
            raise TrainingError(
                f"{augmentation} changes reflectance, and none of the layers {list(layers)} is known as such. Name those that it is "
                "to change with layers=[...], or leave it out."
            )

    def _chosen(self, layers: Sequence[str]) -> list[str]:
        return [name for name in layers if name in (REFLECTANCE if self.layers is None else self.layers)]

    def _changed(self, batch: TileBatch, change: Change) -> TileBatch:
        return changed_layers(batch, self._chosen(batch.layers), change)


def changed_layers(batch: TileBatch, names: Sequence[str], change: Change) -> TileBatch:
    """Return the batch with some layers changed in physical units, and a stored ndvi computed anew from changed bands.

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
    numbers = batch.stored.new_tensor([(packing.scale_factor, packing.add_offset) for packing in packings])
    factors, summands = numbers.T[:, :, None, None]
    return factors, summands


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
    """Return physical red and nir (tile, y, x)."""
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
        """Return every tile blurred, each by its own Gaussian."""
        low, high = self.sigma
        sigmas = chance.uniform((len(batch.valid),), low=low, high=high)
        return self._changed(batch, lambda values, valid: blurred(values, valid[:, 0], sigmas=sigmas, widest=high))


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
        """Return every tile changed, each by its own numbers."""
        shape = (len(batch.valid), 1, 1, 1)
        contrast = 1 + chance.uniform(shape, low=-self.contrast, high=self.contrast).to(batch.stored)
        brightness = 1 + chance.uniform(shape, low=-self.brightness, high=self.brightness).to(batch.stored)

        def change(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            mean = values.sum((-2, -1), keepdim=True) / valid.sum((-2, -1), keepdim=True).clamp_min(1)
            changed = (mean + (values - mean) * contrast) * brightness
            return torch.where(values > 0, torch.maximum(changed, values / 2), changed)

        return self._changed(batch, change)


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
        """Return every tile changed, each by its own numbers."""

        def change(values: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            tiles, layers, height, width = values.shape
            shape = (tiles, layers if self.per_layer else 1, *((height, width) if self.per_pixel else (1, 1)))
            return values * chance.uniform(shape, low=self.multiplier[0], high=self.multiplier[1]).to(values)

        return self._changed(batch, change)
