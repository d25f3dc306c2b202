"""Augmentations applied to a batch: which tiles change, and by what, is a function of the key."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from rtsx.training.augment.augmentation import check_number
from rtsx.training.augment.chance import Chance
from rtsx.training.augment.checking import check_augmentations
from rtsx.training.augment.dropout import ChannelDropout
from rtsx.training.augment.registry import built
from rtsx.training.batch import Batch
from rtsx.training.recipe import AugmentationSpec

__all__ = ["augment", "drop_channels"]


@torch.no_grad()
def augment(batch: Batch, steps: Sequence[AugmentationSpec], *, key: tuple[int, ...]) -> Batch:
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
        augmentation = built(step)
        if isinstance(augmentation, ChannelDropout):
            continue
        chance = Chance("augment", *key, number)
        chosen = chance.chosen(len(batch.valid), probability=step.probability).to(batch.valid.device)
        if chosen.any():
            batch = _merged(batch, chosen, augmentation.apply(_part(batch, chosen), chance=chance))
    return batch


@torch.no_grad()
def drop_channels(
    channels: torch.Tensor, steps: Sequence[AugmentationSpec], *, fill: float, key: tuple[int, ...]
) -> torch.Tensor:
    """What ``ChannelDropout`` among the steps makes of the network's input (tile, channel, y, x), which stays as it is.

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
        augmentation = built(step)
        if not isinstance(augmentation, ChannelDropout):
            continue
        check_number(f"The probability of {step.name}", step.probability, low=0, high=1)
        chance = Chance("channels", *key, number)
        chosen = chance.chosen(len(channels), probability=step.probability).to(channels.device)
        if chosen.any():
            changed = channels.clone()
            changed[chosen] = augmentation.dropped(channels[chosen], fill=fill, chance=chance)
            channels = changed
    return channels


def _part(batch: Batch, chosen: torch.Tensor) -> Batch:
    return replace(batch, stored=batch.stored[chosen], valid=batch.valid[chosen], truth=batch.truth[chosen])


def _merged(batch: Batch, chosen: torch.Tensor, changed: Batch) -> Batch:
    """The batch with the chosen tiles replaced."""
    stored, valid, truth = batch.stored.clone(), batch.valid.clone(), batch.truth.clone()
    stored[chosen], valid[chosen], truth[chosen] = changed.stored, changed.valid, changed.truth
    return replace(batch, stored=stored, valid=valid, truth=truth)
