"""The state of a training between two epochs: all that the rest of it depends on."""

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch

from rtsx.errors import TrainingError
from rtsx.storage import staged
from rtsx.training.run_log import LogRow

StateDict = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class BestWeights:
    """The weights that validation likes best so far."""

    epoch: int
    """The epoch that they are of, from 1."""
    iou: float | None
    """What it scored; None without validation, where the last epoch is the best."""
    state: StateDict
    """The weights that were evaluated: the averages where there are some."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingCheckpoint:
    """A training after an epoch. Nothing random is in it: seeds follow from recipe, epoch and step."""

    recipe: str
    """Digest of the recipe, so that no other training goes on from here."""
    epoch: int
    step: int
    is_done: bool
    """Whether no epoch is left, or patience has run out."""
    network: StateDict
    """Weights and running statistics."""
    average: StateDict | None
    """Moving averages of them, where there are some."""
    n_averaged: int
    """Updates of the averages."""
    optimiser: Mapping[str, Any]
    """State of the optimiser, as torch gives it."""
    scaler: Mapping[str, Any]
    """State of the gradient scaler of float16; empty otherwise."""
    best: BestWeights
    """What will be kept, unless a later epoch is better."""
    log: tuple[LogRow, ...]
    """A row for every epoch done."""

    def save(self, path: Path) -> None:
        """Write it, replacing the one before at once."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["best"] = {field.name: getattr(self.best, field.name) for field in fields(BestWeights)}
        content["log"] = [asdict(row) for row in self.log]
        with staged(path, overwrite=True) as draft:
            torch.save(content, draft)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what `save` wrote, tensors on the CPU.

        Raises
        ------
        TrainingError
            It is damaged, or another release's.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            log = tuple(LogRow(**row) for row in content.pop("log"))
            return cls(best=BestWeights(**content.pop("best")), log=log, **content)
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"The checkpoint {path} cannot be read ({type(error).__name__}). It is damaged, or was written by another "
                "release: delete it to train from the beginning."
            ) from error
