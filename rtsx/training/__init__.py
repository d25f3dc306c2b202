"""Labels and cubes to a bundle: tiles drawn lazily, scaled by the code that inference uses, and a network trained on them."""

from typing import TYPE_CHECKING

from rtsx.lazy import lazy

if TYPE_CHECKING:
    from rtsx.training.driver import train
    from rtsx.training.log import LogRow
    from rtsx.training.network import NetworkSpec
    from rtsx.training.optimisation import OptimisationSpec
    from rtsx.training.progress import Progress
    from rtsx.training.recipe import AugmentationSpec, LossTerm, TrainingRecipe
    from rtsx.training.sampling import SamplingSpec
    from rtsx.training.scene import TrainingScene
    from rtsx.training.trained_run import TrainedRun, read_run

__all__ = [
    "AugmentationSpec",
    "LogRow",
    "LossTerm",
    "NetworkSpec",
    "OptimisationSpec",
    "Progress",
    "SamplingSpec",
    "TrainedRun",
    "TrainingRecipe",
    "TrainingScene",
    "read_run",
    "train",
]

__getattr__ = lazy(__name__)
