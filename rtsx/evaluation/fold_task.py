"""One fold with one seed: trained, predicted, evaluated and stored, so that it is not done twice; here or on a cluster."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

import dask
from dask.delayed import Delayed

from rtsx.errors import EvaluationError, OutputExistsError, RtsxError
from rtsx.evaluation.cases import EvaluationScene, EvaluationSettings
from rtsx.evaluation.folds import Fold, FoldPlan
from rtsx.evaluation.result import Evaluation
from rtsx.evaluation.scoring import evaluate
from rtsx.inference import predict_cube
from rtsx.inference.memory import current_client
from rtsx.model import ModelBundle
from rtsx.parsing import json_value
from rtsx.storage import write_whole
from rtsx.training import TrainingRecipe, TrainingScene, read_run, train
from rtsx.training.run import check_recipe
from rtsx.training.run_folder import recipe_record, stated_differences

if TYPE_CHECKING:
    from distributed import Client

PLAN = "plan.json"
FOLDS = "folds"
"""Folder of the folds."""


@contextmanager
def claimed(out: Path, *, plan: FoldPlan, recipe: TrainingRecipe, rule: EvaluationSettings) -> Iterator[None]:
    """Make `out` the folder of these folds for the block, or find that it is already; reads one tile of each scene.

    Where the block fails before an epoch of any fold is done, the folder is free again.

    Raises
    ------
    OutputExistsError
        It holds other folds, another recipe's, or something else altogether.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    _claim(out, plan=plan, recipe=recipe, rule=rule)
    try:
        yield
    except BaseException:
        if not any(_kept(out / FOLDS)):  # a training that took no step has left nothing
            (out / PLAN).unlink(missing_ok=True)
            below = sorted((path for path in (out / FOLDS).rglob("*") if path.is_dir()), reverse=True)
            for folder in (*below, out / FOLDS, *made):
                with suppress(OSError):  # not empty
                    folder.rmdir()
        raise


def _kept(folder: Path) -> Iterator[Path]:
    """Files that are no leavings: all but drafts of a killed process, and the batch of a first loss that was no number."""
    files = (path for path in folder.rglob("*") if not path.is_dir() and path.name != "failed-batch.npz")
    return (path for path in files if not any(part.endswith(".partial") for part in path.relative_to(folder).parts))


def _claim(out: Path, *, plan: FoldPlan, recipe: TrainingRecipe, rule: EvaluationSettings) -> None:
    document = {"plan": asdict(plan), "rule": asdict(rule), "recipe": recipe_record(recipe)}
    text = json.dumps(document, indent=1)
    there = out / PLAN
    if there.is_file():
        stored = json_value(there.read_bytes(), what=str(there), error=EvaluationError)
        if differing := stated_differences(stored, json.loads(text)):
            raise OutputExistsError(
                f"{out} holds another cross-validation: {differing}. Make the call that began it, or give another folder."
            )
        return
    # A plan that was not finished is no one else's, because a call that was killed while it wrote it leaves nothing else.
    if out.is_file() or any(_kept(out)):
        raise OutputExistsError(f"{out} is there and is no folder of a cross-validation: give another one.")
    write_whole(there, text.encode())


Trainer = Callable[[TrainingRecipe, Path], ModelBundle]
"""Returns the bundle of a recipe, trained in a folder; goes on with what an interrupted call has left there. Can be pickled."""

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
    recipe: TrainingRecipe = field(repr=False)
    """How; its own scenes and seed are replaced."""
    scenes: Mapping[str, TrainingScene] = field(repr=False)
    """Scenes of the fold, by name."""
    rule: EvaluationSettings
    """By what it is evaluated."""
    trainer: Trainer
    device: str
    folder: Path
    """Where it works, for this fold and seed alone."""

    def __call__(self) -> str:
        """The JSON of the evaluation: read if the fold is finished, else made.

        Raises
        ------
        EvaluationError
            The fold cannot be trained or evaluated; names it.
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
        scenes = []
        for name in self.fold.test:
            scene = self.scenes[name]
            # The bundle's own tiles, instead of the largest that fit, because scores must not depend on a machine's memory.
            pred = predict_cube(scene.cube, bundle, tile="bundle", overlap="bundle", device=self.device)
            scenes.append(EvaluationScene(name=name, region=scene.group, prediction=pred, truth=scene.truth))
        return evaluate(scenes, classes=self.recipe.classes, **asdict(self.rule))

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


@dataclass(frozen=True, kw_only=True)
class BundleTrainer:
    """Trains in a run folder, goes on where an interrupted training stood, and reads what a finished one has left."""

    device: str

    def __call__(self, recipe: TrainingRecipe, folder: Path) -> ModelBundle:
        """The bundle of a recipe."""
        try:
            return train(recipe, folder, device=self.device).bundle
        except OutputExistsError:
            # Finished, but not evaluated before the cross-validation was stopped. Its folder belongs to this recipe, because
            # that of the whole cross-validation was claimed for it.
            return read_run(folder).bundle


def run_jobs(jobs: Sequence[Callable[[], str]], *, client: "Client | None") -> list[str]:
    """What each job returns; on the workers of a client, of the current one where none is given, else one after the other here.

    Graphs by hand, instead of `dask.delayed`, because that looks into the scenes of a job and would compute them.
    """
    client = current_client() if client is None else client
    if client is None:
        return [job() for job in jobs]
    if client.asynchronous:
        raise EvaluationError(
            "Folds are waited for, which an asynchronous client cannot: give one made without asynchronous=True."
        )
    from distributed import wait  # loaded, where there is a client

    # Names of their own, because a job is remembered on disk, and not by its key on a scheduler that may have failed it.
    keys = [f"fold-{number}-{uuid4().hex}" for number in range(len(jobs))]
    pending = [Delayed(key, {key: (job,)}) for key, job in zip(keys, jobs, strict=True)]
    futures = client.compute(pending)
    # All of them, because one that still runs when another has failed would write into a folder that is given up.
    wait(futures)
    return list(client.gather(futures))
