"""Labels and cubes to a bundle: tiles drawn lazily, scaled by the code that inference uses, and a network trained on them."""

from rtsx.training.network import NetworkSpec
from rtsx.training.optimisation import OptimisationSpec
from rtsx.training.recipe import AugmentationSpec, LossTerm, TrainingRecipe
from rtsx.training.sampling import SamplingSpec
from rtsx.training.scene import TrainingScene

__all__ = [
    "AugmentationSpec",
    "LossTerm",
    "NetworkSpec",
    "OptimisationSpec",
    "SamplingSpec",
    "TrainingRecipe",
    "TrainingScene",
]
