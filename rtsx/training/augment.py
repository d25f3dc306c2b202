"""Changes of training tiles, by name: checked for the layers that they change, and applied to a batch by key.

They change stored pixels before `prepare`, so what a network learns from went through the scaling that inference uses; only
`drop_channels` comes after it. Every random number is drawn from a generator that the key seeds, on the CPU, so that a key
means the same on every device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch

from rtsx.errors import TrainingError
from rtsx.names import suggest
from rtsx.training import augmentations
from rtsx.training.augmentations import Augmentation, ChannelDropout, KeyedRandom, check_number
from rtsx.training.dataset import TileBatch
from rtsx.training.recipe import AUGMENTATION_NAMES, AugmentationSpec, check_augmentation_name


@dataclass(frozen=True, kw_only=True)
class TrivialAugment:
    """One augmentation for each tile, each of a list equally likely, with its own parameters (Mueller and Hutter 2021, ICCV).

    Of rtsx's own augmentations, instead of kornia's policy, because that knows three channels from 0 to 1 and no invalid pixels.
    """

    augmentations: tuple[str, ...] = ("Blur", "MultiplicativeNoise", "RandomBrightnessContrast")
    """What it chooses from; by default nothing that turns or scales a tile, because that moves shadows to where no sun casts
    them, and slumps to sizes that they do not have."""

    def __post_init__(self) -> None:
        """Refuse what is no list of augmentations that come one by one; one, as YAML has it, becomes a tuple."""
        names: object = self.augmentations
        choices = [name for name in AUGMENTATIONS if name not in ("ChannelDropout", "TrivialAugment")]
        if not isinstance(names, list | tuple) or not names:
            raise TrainingError(f"augmentations of TrivialAugment has to be a list of names; got {names!r}.")
        for name in names:
            if name not in choices:
                raise TrainingError(f"TrivialAugment cannot choose {name!r}.{suggest(str(name), choices)}")
        object.__setattr__(self, "augmentations", tuple(names))

    def check_layers(self, layers: Sequence[str]) -> None:
        """Refuse layers that one of them refuses."""
        for name in self.augmentations:
            AUGMENTATIONS[name]().check_layers(layers)

    def apply(self, batch: TileBatch, *, chance: KeyedRandom) -> TileBatch:
        """Change each tile by one of them."""
        choice = chance.integers(len(batch.valid), low=0, high=len(self.augmentations) - 1)
        for number, name in enumerate(self.augmentations):
            chosen = (choice == number).to(batch.valid.device)
            if chosen.any():
                batch = _merged(batch, chosen, AUGMENTATIONS[name]().apply(_part(batch, chosen), chance=chance))
        return batch


AUGMENTATIONS: Mapping[str, type[Augmentation]] = {
    name: TrivialAugment if name == "TrivialAugment" else getattr(augmentations, name) for name in AUGMENTATION_NAMES
}
"""Every augmentation by the name that a recipe calls it; the fields of each are its parameters."""


def build_augmentations(spec: AugmentationSpec) -> Augmentation:
    """Return the augmentation that a recipe asks for.

    Raises
    ------
    TrainingError
        The name or a parameter is unknown, or a value is not possible.

    Examples
    --------
    >>> build_augmentations(AugmentationSpec(name="Rotate", options={"limit": 30}))
    Rotate(limit=30)
    """
    check_augmentation_name(spec)
    known = AUGMENTATIONS[spec.name]
    names = [field.name for field in fields(known)]  # type: ignore[arg-type]  # all are dataclasses
    for name in spec.options:
        if name not in names:
            raise TrainingError(f"{spec.name} has no parameter {name!r}.{suggest(name, names)}")
    return known(**spec.options)


def check_augmentations(steps: Sequence[AugmentationSpec], *, layers: Sequence[str]) -> None:
    """Refuse augmentations before anything is read.

    Parameters
    ----------
    steps
        As in a recipe.
    layers
        Names of the stored layers that are read.

    Raises
    ------
    TrainingError
        A name or parameter is unknown (the nearest is named), a value is not possible, or the physics of a layer does not
        allow the change.

    Examples
    --------
    >>> check_augmentations([AugmentationSpec(name="Rotate")], layers=["red", "aspect"])
    >>> check_augmentations([AugmentationSpec(name="Rotate")], layers=["red", "hillshade"])
    Traceback (most recent call last):
    ...
    rtsx.errors.TrainingError: Rotate turns the picture, but ['hillshade'] would still be lit ...
    """
    for step in steps:
        augmentation = build_augmentations(step)
        check_number(f"The probability of {step.name}", step.probability, low=0, high=1)
        augmentation.check_layers(layers)


def check_dropped(steps: Sequence[AugmentationSpec], *, channels: int) -> None:
    """Refuse to drop all of so many channels of the network's input.

    Raises
    ------
    TrainingError
        A step would.
    """
    for step in steps:
        augmentation = build_augmentations(step)
        if isinstance(augmentation, ChannelDropout):
            augmentation.check_rest(channels)


@torch.no_grad()
def augment(batch: TileBatch, steps: Sequence[AugmentationSpec], *, key: tuple[int, ...]) -> TileBatch:
    """Change a batch by the steps, in their order; each tile by itself, with each step's probability.

    Parameters
    ----------
    batch
        Tiles, on any device; it stays as it is.
    steps
        What happens. ``ChannelDropout`` is left to `drop_channels`.
    key
        Seed, epoch, place in the epoch: whatever makes this batch another than the others. Equal keys, equal changes.

    Raises
    ------
    TrainingError
        As `check_augmentations`.
    """
    check_augmentations(steps, layers=batch.layers)
    for number, step in enumerate(steps):
        augmentation = build_augmentations(step)
        if isinstance(augmentation, ChannelDropout):
            continue
        chance = KeyedRandom("augment", *key, number)
        chosen = chance.chosen(len(batch.valid), probability=step.probability).to(batch.valid.device)
        if chosen.any():
            batch = _merged(batch, chosen, augmentation.apply(_part(batch, chosen), chance=chance))
    return batch


@torch.no_grad()
def drop_channels(
    channels: torch.Tensor, steps: Sequence[AugmentationSpec], *, fill: float, key: tuple[int, ...]
) -> torch.Tensor:
    """Return what ``ChannelDropout`` among the steps makes of the network's input (tile, channel, y, x), which stays as it is.

    Parameters
    ----------
    channels
        As `Batch.channels` gives them.
    steps
        All steps; only this one is applied.
    fill
        Value of a channel that is missing: the bundle's fill.
    key
        As for `augment`.

    Raises
    ------
    TrainingError
        It would leave no channel.
    """
    for number, step in enumerate(steps):
        augmentation = build_augmentations(step)
        if not isinstance(augmentation, ChannelDropout):
            continue
        chance = KeyedRandom("channels", *key, number)
        chosen = chance.chosen(len(channels), probability=step.probability).to(channels.device)
        if chosen.any():
            changed = channels.clone()
            changed[chosen] = augmentation.dropped(channels[chosen], fill=fill, chance=chance)
            channels = changed
    return channels


def _part(batch: TileBatch, chosen: torch.Tensor) -> TileBatch:
    return replace(batch, stored=batch.stored[chosen], valid=batch.valid[chosen], truth=batch.truth[chosen])


def _merged(batch: TileBatch, chosen: torch.Tensor, changed: TileBatch) -> TileBatch:
    """Return the batch with the chosen tiles replaced."""
    stored, valid, truth = batch.stored.clone(), batch.valid.clone(), batch.truth.clone()
    stored[chosen], valid[chosen], truth[chosen] = changed.stored, changed.valid, changed.truth
    return replace(batch, stored=stored, valid=valid, truth=truth)
