"""Whether augmentations are known, possible, and sensible for the layers that they are to change."""

from collections.abc import Sequence

from rtsx.training.augment.augmentation import check_number
from rtsx.training.augment.dropout import ChannelDropout
from rtsx.training.augment.registry import built
from rtsx.training.recipe import AugmentationSpec

__all__ = ["check_augmentations", "check_dropped"]


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
        augmentation = built(step)
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
        augmentation = built(step)
        if isinstance(augmentation, ChannelDropout):
            augmentation.check_rest(channels)
