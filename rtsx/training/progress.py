"""How far a training is, for whoever shows it."""

from collections.abc import Callable
from dataclasses import dataclass

from rtsx.training.log import LogRow

__all__ = ["Progress", "ShowProgress"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A moment of a training: after a step, or after the validation that ends an epoch."""

    epoch: int
    """Number of the epoch, from 1."""
    epochs: int
    """Epochs of the whole training, should it not stop early."""
    step: int
    """Steps done in all epochs."""
    steps: int
    """Steps of the whole training, should it not stop early."""
    loss: float
    """Mean loss of the epoch so far."""
    learning_rate: float
    """Of the last step."""
    row: LogRow | None = None
    """The new row of the log, with the scores of the validation, where this moment is the end of an epoch."""


ShowProgress = Callable[[Progress], None]
"""What is called after every step and every epoch, in the process that called `train`; an exception from it stops the training,
which goes on from the last epoch when it is called again."""
