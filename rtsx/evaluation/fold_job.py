"""One fold with one seed: trained, predicted, judged, and remembered, so that it is not done twice."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import dask

from rtsx.errors import EvaluationError, RtsxError
from rtsx.evaluation.evaluation import Evaluation
from rtsx.evaluation.folds import Fold
from rtsx.evaluation.judging import evaluate
from rtsx.evaluation.rule import JudgingRule
from rtsx.evaluation.scene import JudgedScene
from rtsx.evaluation.trainer import Trainer
from rtsx.inference import predict_cube
from rtsx.storage import write_whole
from rtsx.training import TrainingRecipe, TrainingScene
from rtsx.training.checking import check_recipe

__all__ = ["FoldJob"]

RESULT = "evaluation.json"
"""File of a fold that is there once it is finished, written last."""

# One fold at a time in a process, because torch draws from generators that the whole process shares.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldJob:
    """All that a worker needs; can be pickled if its scenes can."""

    fold: Fold
    """What to learn from and test on."""
    seed: int
    """Of the training."""
    recipe: TrainingRecipe = field(repr=False)
    """How; its own scenes and seed are replaced."""
    scenes: Mapping[str, TrainingScene] = field(repr=False)
    """Scenes of the fold, by name."""
    rule: JudgingRule
    """By what it is judged."""
    trainer: Trainer
    """What trains."""
    device: str
    """Where it predicts."""
    folder: Path
    """Where it works, for this fold and seed alone."""

    def __call__(self) -> str:
        """The JSON of the evaluation: read if the fold is finished, else made.

        Raises
        ------
        EvaluationError
            The fold cannot be trained or judged; names it.
        """
        done = self.folder / RESULT
        with _ONE_AT_A_TIME:
            # Inside, because whoever waited may find that the one before him was at the same fold.
            if done.is_file():
                return done.read_text()
            try:
                # Threads of its own, because a task that waits for tasks of the cluster it runs on may wait for ever.
                with dask.config.set(scheduler="threads"):
                    document = self._made().to_json()
            except RtsxError as error:
                raise EvaluationError(f"Fold {self.fold.name!r} with seed {self.seed} failed: {error}") from error
            write_whole(done, document.encode())
            return document

    def check(self) -> None:
        """Refuse a fold that could not be trained; reads no pixel.

        Raises
        ------
        EvaluationError
            Its recipe is none; names the fold.
        """
        try:
            check_recipe(self._own_recipe())
        except RtsxError as error:
            raise EvaluationError(f"Fold {self.fold.name!r} cannot be trained: {error}") from error

    def _made(self) -> Evaluation:
        bundle = self.trainer(self._own_recipe(), self.folder / "run")
        judged = []
        for name in self.fold.test:
            scene = self.scenes[name]
            # The bundle's own tiles, instead of the largest that fit, because scores must not depend on a machine's memory.
            pred = predict_cube(scene.cube, bundle, tile="bundle", overlap="bundle", device=self.device)
            judged.append(JudgedScene(name=name, region=scene.group, prediction=pred, truth=scene.truth))
        rule = self.rule
        return evaluate(
            judged,
            classes=self.recipe.classes,
            threshold=rule.threshold,
            object_iou=rule.object_iou,
            boundary=rule.boundary,
            min_object_area_m2=rule.min_object_area_m2,
            bootstrap=rule.bootstrap,
            seed=rule.seed,
        )

    def _own_recipe(self) -> TrainingRecipe:
        fold = self.fold
        return replace(
            self.recipe,
            id=f"{self.recipe.id}-{slug(fold.name)}-{self.seed}",
            training=tuple(self.scenes[name] for name in fold.training),
            validation=tuple(self.scenes[name] for name in fold.validation),
            test=(),
            seed=self.seed,
            provenance={**self.recipe.provenance, "fold": fold.name, "trained_on": fold.trained_on},
        )


def slug(name: str) -> str:
    """A name as part of a path.

    Examples
    --------
    >>> slug("all but Herschel Island/2")
    'all-but-Herschel-Island-2'
    """
    return re.sub(r"[^\w.+-]+", "-", name).strip("-") or "fold"
