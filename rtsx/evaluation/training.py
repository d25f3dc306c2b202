"""The trainer that folds use: `rtsx.training.train`."""

from dataclasses import dataclass
from pathlib import Path

from rtsx.errors import OutputExistsError
from rtsx.evaluation.trainer import Trainer
from rtsx.model import ModelBundle
from rtsx.training import TrainingRecipe, read_run, train

__all__ = ["BundleTrainer"]


@dataclass(frozen=True, kw_only=True)
class BundleTrainer:
    """Trains in a run folder, goes on where an interrupted training stood, and reads what a finished one has left."""

    device: str
    """Where to train."""

    def __call__(self, recipe: TrainingRecipe, folder: Path) -> ModelBundle:
        """The bundle of a recipe."""
        try:
            return train(recipe, folder, device=self.device).bundle
        except OutputExistsError:
            # Finished, but not judged before the cross-validation was stopped. Its folder belongs to this recipe, because
            # that of the whole cross-validation was claimed for it.
            return read_run(folder).bundle


def _conforms(trainer: BundleTrainer) -> Trainer:
    return trainer
