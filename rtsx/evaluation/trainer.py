"""What a cross-validation asks of a training."""

from pathlib import Path
from typing import Protocol

from rtsx.model import ModelBundle
from rtsx.training import TrainingRecipe

__all__ = ["StubTrainer", "Trainer"]


class Trainer(Protocol):
    """Trains one fold. Processes: any, so it can be pickled; one call at a time in each."""

    def __call__(self, recipe: TrainingRecipe, folder: Path) -> ModelBundle:
        """Return the bundle of a recipe, trained in a folder; goes on with what an interrupted call has left there."""
        ...


class StubTrainer:
    """Gives everyone the same bundle and learns nothing; for tests of whatever has things trained."""

    def __init__(self, bundle: ModelBundle) -> None:
        self.bundle = bundle

    def __call__(self, recipe: TrainingRecipe, folder: Path) -> ModelBundle:
        """The bundle, whatever the recipe."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.bundle


def _conforms(stub: StubTrainer) -> Trainer:
    return stub  # a typed line that fails the type check when the stub stops being a Trainer
