"""Cross-validate: train on some regions, test on others; each fold trained, evaluated and stored once, here or on a cluster."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import dask
from dask.delayed import Delayed

from rtsx.arguments import typed
from rtsx.errors import EvaluationError, OutputExistsError, RtsxError
from rtsx.evaluation.cases import EvaluationScene, EvaluationSettings
from rtsx.evaluation.folds import ALL_OTHERS, Fold, FoldPlan, FoldUnit, overlap_of, planned_units, transfer_plan
from rtsx.evaluation.result import CrossValidation, Evaluation, FoldResult, check_drawable, draw_matrix, draw_regions
from rtsx.evaluation.scoring import evaluate
from rtsx.inference import predict_cube
from rtsx.inference.memory import current_client
from rtsx.model import ModelBundle
from rtsx.parsing import json_value
from rtsx.storage import local_path, refuse_other_format, write_whole
from rtsx.storage.lock import exclusive_lock
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
        It holds other folds, another recipe's, or something else altogether, or another process is at it.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    with exclusive_lock(str(out), {}):
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
    """Return files that are no leavings: all but drafts of a killed process, and the batch of a first loss that was no number."""
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
    """Return a name as part of a path.

    Examples
    --------
    >>> slug("all but Herschel Island/2")
    'all-but-Herschel-Island-2'
    """
    return re.sub(r"[^\w.+-]+", "-", name).strip("-") or "fold"


def trained_bundle(recipe: TrainingRecipe, folder: Path, *, device: str) -> ModelBundle:
    """Train in a run folder, go on where an interrupted training stood, or read what a finished one has left."""
    try:
        return train(recipe, folder, device=device).bundle
    except OutputExistsError:
        # Finished, but not evaluated before the cross-validation was stopped. Its folder belongs to this recipe, because
        # that of the whole cross-validation was claimed for it.
        return read_run(folder).bundle


def run_jobs(jobs: Sequence[Callable[[], str]], *, client: "Client | None") -> list[str]:
    """Return what each job returns; on the workers of a client, of the current one where none is given, else one after the other here.

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


Overlapping = Literal["refuse", "merge"]


@typed(EvaluationError)
def cross_validate(
    recipe: TrainingRecipe,
    out: str | Path,
    *,
    by: Literal["group"] = "group",
    folds: int | None = None,
    validation: float = 0.2,
    overlapping: Overlapping = "refuse",
    seeds: Sequence[int] | None = None,
    seed: int = 0,
    threshold: float | None = None,
    object_iou: float = 0.5,
    boundary: int = 3,
    min_object_area_m2: float = 0.0,
    bootstrap: int = 1000,
    device: str = "auto",
    client: "Client | None" = None,
    plot: bool = True,
) -> CrossValidation:
    """Train on all groups but some and test on these, until each scene has been tested by a model that never saw its group.

    Groups, which are regions most of the time, are never divided. Scenes that overlap on the ground, or whose truths share a
    label, are on one side too: where they are of different groups this is refused, or the groups become one. All of this is
    known before anything is trained. A fold that is finished is not repeated when the same call is made again; one that was
    interrupted goes on where its training stood.

    Parameters
    ----------
    recipe
        What to train. The scenes of its training, validation and test are all taken, whatever they were meant for; its seed
        is that of the trainings unless `seeds` are given.
    out
        Folder of all results: ``plan.json``, ``table.csv``, ``matrix.csv``, ``result.json``, pictures, and for each fold and
        seed a folder with its training and its scores.
    by
        What is never divided: the groups of the scenes.
    folds
        Number of parts that groups are dealt to, with about as many scenes each. None: every group is a part of its own.
    validation
        Part of the training scenes that choose epoch and threshold instead of being learnt from, 0 to below 1; drawn from
        the training groups, never from the tested ones, and undivided where scenes overlap. None are drawn where no labelled
        scene could be spared.
    overlapping
        ``"refuse"``, or ``"merge"`` the groups of scenes that overlap or share labels.
    seeds
        Trainings of each fold, one for each seed; scores are means over them. None: one, with the seed of the recipe.
    seed
        Seed of the draws of groups, validation scenes and intervals.
    threshold, object_iou, boundary, min_object_area_m2, bootstrap
        As for `evaluate`.
    device
        Where to train and predict: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    client
        A `distributed.Client`, whose workers run the folds, one at a time in each process, and must see `out`. None: the
        current one; without any, one fold after the other in this process.
    plot
        Draw ``regions.png`` and ``matrix.png``, with matplotlib.

    Raises
    ------
    EvaluationError
        A single group, an empty fold, a group without labels, groups that share ground; or a fold fails.
    OutputExistsError
        `out` holds something else.
    MissingExtraError
        There is to be a picture, and no matplotlib.
    """
    if by != "group":
        raise EvaluationError(
            f"Folds are made by 'group', not by {by!r}: set the group of each scene, and folds=... for k."
        )
    rule = EvaluationSettings(
        threshold=threshold,
        object_iou=object_iou,
        boundary=boundary,
        min_object_area_m2=min_object_area_m2,
        bootstrap=bootstrap,
        seed=seed,
    )
    units = _units(recipe, overlapping)
    if folds is None:
        plan = FoldPlan.leave_one_out(units, validation=validation, seed=seed)
    else:
        plan = FoldPlan.k_fold(units, folds=folds, validation=validation, seed=seed)
    return run_folds(plan, recipe, out, units=units, rule=rule, seeds=seeds, device=device, client=client, plot=plot)


def transfer_matrix(
    recipe: TrainingRecipe,
    out: str | Path,
    *,
    held_out: float = 0.3,
    validation: float = 0.2,
    overlapping: Overlapping = "refuse",
    seeds: Sequence[int] | None = None,
    seed: int = 0,
    threshold: float | None = None,
    object_iou: float = 0.5,
    boundary: int = 3,
    min_object_area_m2: float = 0.0,
    bootstrap: int = 1000,
    device: str = "auto",
    client: "Client | None" = None,
    plot: bool = True,
) -> CrossValidation:
    """Train on each group alone, on all others, and on all together; test each of them on every group.

    A part of every group is held out and is what all rows are tested on, so that columns can be compared, also on the
    diagonal: nothing that is tested has been learnt. A group that cannot be divided, because it has one scene or all of its
    scenes overlap, is tested whole, by others only.

    Parameters
    ----------
    recipe, out, validation, overlapping, seeds, seed, threshold, object_iou, boundary, min_object_area_m2, bootstrap
        As for `cross_validate`.
    held_out
        Part of each group's scenes that is tested and never learnt from, between 0 and 1.
    device, client, plot
        As for `cross_validate`.

    Returns
    -------
    CrossValidation
        Its `matrix` has a row for each group, one for ``all others`` and one for ``pooled``.

    Raises
    ------
    EvaluationError, OutputExistsError, MissingExtraError
        As for `cross_validate`.
    """
    rule = EvaluationSettings(
        threshold=threshold,
        object_iou=object_iou,
        boundary=boundary,
        min_object_area_m2=min_object_area_m2,
        bootstrap=bootstrap,
        seed=seed,
    )
    units = _units(recipe, overlapping)
    plan = transfer_plan(units, held_out=held_out, validation=validation, seed=seed)
    return run_folds(plan, recipe, out, units=units, rule=rule, seeds=seeds, device=device, client=client, plot=plot)


def run_folds(
    plan: FoldPlan,
    recipe: TrainingRecipe,
    out: str | Path,
    *,
    units: Sequence[FoldUnit],
    rule: EvaluationSettings,
    seeds: Sequence[int] | None,
    device: str,
    client: "Client | None",
    plot: bool,
    trainer: Trainer | None = None,
) -> CrossValidation:
    """Run every fold of a plan that has no result yet, and write what all of them give."""
    refuse_other_format(out, what="the folder of a cross-validation")
    out = local_path(out)
    if plot:
        check_drawable()
    # In the groups of the plan, which may have grown together.
    group_of = {name: unit.group for unit in units for name in unit.scenes}
    scenes = {scene.name: replace(scene, group=group_of[scene.name]) for scene in recipe.scenes}
    chosen = tuple(dict.fromkeys(seeds)) if seeds is not None else (recipe.seed,)
    if not chosen:
        raise EvaluationError(
            "A fold is trained with one seed at least, but seeds is empty: leave it out for the recipe's."
        )
    jobs = [
        FoldJob(
            fold=fold,
            seed=each,
            recipe=replace(recipe, training=recipe.training[:1], validation=(), test=()),
            scenes={name: scenes[name] for name in (*fold.training, *fold.validation, *fold.test)},
            rule=rule,
            trainer=trainer or partial(trained_bundle, device=device),
            device=device,
            folder=out / FOLDS / f"{number:02d}-{slug(fold.name)}" / f"seed-{each}",
        )
        for number, fold in enumerate(plan.folds, 1)
        for each in chosen
    ]
    for job in jobs:
        job.check()
    with claimed(out, plan=plan, recipe=recipe, rule=rule):
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
        documents = run_jobs(jobs, client=client)
    results = tuple(
        FoldResult(
            fold=job.fold,
            seed=job.seed,
            bundle=(job.folder / "run" / "bundle").relative_to(out).as_posix(),
            evaluation=Evaluation.from_json(document),
        )
        for job, document in zip(jobs, documents, strict=True)
    )
    result = CrossValidation(plan=plan, results=results)
    _write(result, out, plot=plot)
    return result


def _units(recipe: TrainingRecipe, overlapping: Overlapping) -> tuple[FoldUnit, ...]:
    if overlapping not in ("refuse", "merge"):
        raise EvaluationError(f"overlapping is 'refuse' or 'merge', not {overlapping!r}.")
    return planned_units([overlap_of(scene) for scene in recipe.scenes], merge=overlapping == "merge")


def _write(result: CrossValidation, out: Path, *, plot: bool) -> None:
    write_whole(out / "result.json", result.to_json().encode())
    write_whole(out / "table.csv", result.table.to_csv(index=False).encode())
    matrix = result.matrix("iou")
    write_whole(out / "matrix.csv", matrix.to_csv().encode())
    if plot:
        last = result.table["class"].iloc[-1]  # the only one, or the mean
        rows = result.table[result.table["class"] == last]
        draw_regions(rows[rows["trained_on"] == ALL_OTHERS], out / "regions.png")
        draw_matrix(matrix, out / "matrix.png")
