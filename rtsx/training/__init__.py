"""Labels and cubes to a bundle: tiles drawn lazily, scaled by the code that inference uses, and a network trained on them."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.training.finish import TrainedRun, read_run
    from rtsx.training.recipe import (
        AugmentationSpec,
        LossTerm,
        NetworkSpec,
        OptimisationSpec,
        SamplingSpec,
        TrainingRecipe,
        TrainingScene,
    )
    from rtsx.training.run import train
    from rtsx.training.run_log import LogRow, Progress

__getattr__ = lazy(__name__)
