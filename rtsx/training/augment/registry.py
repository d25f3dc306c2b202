"""Augmentations by name."""

from collections.abc import Mapping
from dataclasses import fields

from rtsx.errors import TrainingError
from rtsx.training.augment.augmentation import Augmentation
from rtsx.training.augment.blur import Blur
from rtsx.training.augment.brightness import RandomBrightnessContrast
from rtsx.training.augment.crop import RandomResizedCrop
from rtsx.training.augment.dropout import ChannelDropout
from rtsx.training.augment.flips import HorizontalFlip, VerticalFlip
from rtsx.training.augment.noise import MultiplicativeNoise
from rtsx.training.augment.rotations import RandomRotate90, Rotate
from rtsx.training.nearest import nearest
from rtsx.training.recipe import AugmentationSpec, check_augmentation_name

__all__ = ["AUGMENTATIONS", "built"]

_KNOWN: tuple[type[Augmentation], ...] = (
    HorizontalFlip,
    VerticalFlip,
    RandomRotate90,
    Rotate,
    Blur,
    RandomBrightnessContrast,
    MultiplicativeNoise,
    RandomResizedCrop,
    ChannelDropout,
)

AUGMENTATIONS: Mapping[str, type[Augmentation]] = {known.__name__: known for known in _KNOWN}
"""Every augmentation by the name that a recipe calls it; the fields of each are its parameters."""


def built(spec: AugmentationSpec) -> Augmentation:
    """The augmentation that a recipe asks for.

    Raises
    ------
    TrainingError
        The name or a parameter is unknown, or a value is not possible.

    Examples
    --------
    >>> built(AugmentationSpec(name="Rotate", options={"limit": 30}))
    Rotate(limit=30)
    """
    check_augmentation_name(spec)
    known = AUGMENTATIONS[spec.name]
    names = [field.name for field in fields(known)]  # type: ignore[arg-type]  # all are dataclasses
    for name in spec.options:
        if name not in names:
            raise TrainingError(f"{spec.name} has no parameter {name!r}.{nearest(name, names)}")
    return known(**spec.options)
