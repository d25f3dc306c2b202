"""Trainers that learn little or nothing, quickly; they pickle, so that workers of a cluster can have them too."""

from dataclasses import dataclass
from pathlib import Path

import torch

from rtsx.errors import TrainingError
from rtsx.model import ModelBundle
from rtsx.training import TrainingRecipe

LOG = "calls.txt"


def brightness_bundle(threshold=0.5):
    """Probability rises with the first layer: 0.5 at 1400 DN."""
    network = torch.nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        network.weight[:] = torch.tensor([1.0, 0.0])[None, :, None, None]
        network.bias[:] = -1.0
    return ModelBundle.from_module(
        network, layers=("red", "nir"), mean=[0.1, 0.1], std=[0.04, 0.04], tile=32, overlap=0, trim=0
    )


@dataclass(frozen=True)
class WritingTrainer:
    """Writes down what it is asked for and gives the same bundle to everyone."""

    log: Path
    """Folder of the notes."""
    fails_on: str = ""
    """Part of the id of a recipe that cannot be trained."""

    def __call__(self, recipe: TrainingRecipe, folder: Path) -> ModelBundle:
        if self.fails_on and self.fails_on in recipe.id:
            raise TrainingError("The loss is NaN.")
        names = [
            ",".join(scene.name for scene in scenes) for scenes in (recipe.training, recipe.validation, recipe.test)
        ]
        with (self.log / LOG).open("a") as notes:
            notes.write(f"{recipe.id}|{recipe.seed}|{'|'.join(names)}\n")
        return brightness_bundle()

    def calls(self):
        path = self.log / LOG
        return path.read_text().splitlines() if path.exists() else []
