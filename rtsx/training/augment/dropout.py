"""Channels that are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from rtsx.errors import TrainingError
from rtsx.training.augment.augmentation import check_number
from rtsx.training.augment.chance import Chance
from rtsx.training.batch import Batch

__all__ = ["ChannelDropout"]


@dataclass(frozen=True, kw_only=True)
class ChannelDropout:
    """Whole channels of the network's input replaced by the bundle's fill, as if they had never been measured.

    It comes after `prepare` and so after all other augmentations, wherever it stands among them.
    """

    turns: ClassVar[bool] = False

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

    def apply(self, batch: Batch, *, chance: Chance) -> Batch:
        """The batch as it is: channels do not exist before `prepare`."""
        return batch

    def dropped(self, channels: torch.Tensor, *, fill: float, chance: Chance) -> torch.Tensor:
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
