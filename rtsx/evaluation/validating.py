"""The public doors: train on some regions, test on others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rtsx.arguments import typed
from rtsx.errors import EvaluationError
from rtsx.evaluation.claim import FOLDS, claimed
from rtsx.evaluation.cross_validation import CrossValidation, FoldResult
from rtsx.evaluation.distributed import run_jobs
from rtsx.evaluation.evaluation import Evaluation
from rtsx.evaluation.fold_job import FoldJob, slug
from rtsx.evaluation.folds import ALL_OTHERS, FoldPlan, PlannedUnit, transfer_plan
from rtsx.evaluation.ground import ground_of, planned_units
from rtsx.evaluation.matplotlib import check_drawable, draw_matrix, draw_regions
from rtsx.evaluation.rule import JudgingRule
from rtsx.evaluation.trainer import Trainer
from rtsx.evaluation.training import BundleTrainer
from rtsx.storage import local_path, refuse_other_format, write_whole
from rtsx.training import TrainingRecipe, TrainingScene

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["cross_validate", "run_plan", "transfer_matrix"]

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
        scheduler in force; folds of one process wait for each other.
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
    rule = JudgingRule(
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
    return run_plan(
        plan,
        recipe,
        units=units,
        out=_folder(out),
        rule=rule,
        seeds=seeds,
        trainer=BundleTrainer(device=device),
        device=device,
        client=client,
        plot=plot,
    )


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
    rule = JudgingRule(
        threshold=threshold,
        object_iou=object_iou,
        boundary=boundary,
        min_object_area_m2=min_object_area_m2,
        bootstrap=bootstrap,
        seed=seed,
    )
    units = _units(recipe, overlapping)
    return run_plan(
        transfer_plan(units, held_out=held_out, validation=validation, seed=seed),
        recipe,
        units=units,
        out=_folder(out),
        rule=rule,
        seeds=seeds,
        trainer=BundleTrainer(device=device),
        device=device,
        client=client,
        plot=plot,
    )


def run_plan(
    plan: FoldPlan,
    recipe: TrainingRecipe,
    *,
    units: Sequence[PlannedUnit],
    out: Path,
    rule: JudgingRule,
    seeds: Sequence[int] | None,
    trainer: Trainer,
    device: str,
    client: "Client | None",
    plot: bool,
) -> CrossValidation:
    """Run every fold of a plan that has no result yet, and write what all of them give."""
    if plot:
        check_drawable()
    scenes = _grouped(_scenes(recipe), units)
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
            trainer=trainer,
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


def _folder(out: str | Path) -> Path:
    refuse_other_format(out, what="the folder of a cross-validation")
    return local_path(out)


def _units(recipe: TrainingRecipe, overlapping: Overlapping) -> tuple[PlannedUnit, ...]:
    if overlapping not in ("refuse", "merge"):
        raise EvaluationError(f"overlapping is 'refuse' or 'merge', not {overlapping!r}.")
    grounds = [ground_of(scene) for scene in _scenes(recipe)]
    return planned_units(grounds, merge=overlapping == "merge")


def _scenes(recipe: TrainingRecipe) -> tuple[TrainingScene, ...]:
    return (*recipe.training, *recipe.validation, *recipe.test)


def _grouped(scenes: Iterable[TrainingScene], units: Sequence[PlannedUnit]) -> Mapping[str, TrainingScene]:
    """Scenes by name, in the groups of the plan, which may have grown together."""
    group_of = {name: unit.group for unit in units for name in unit.scenes}
    return {scene.name: replace(scene, group=group_of[scene.name]) for scene in scenes}


def _write(result: CrossValidation, out: Path, *, plot: bool) -> None:
    write_whole(out / "result.json", result.to_json().encode())
    write_whole(out / "table.csv", result.table.to_csv(index=False).encode())
    matrix = result.matrix("iou")
    write_whole(out / "matrix.csv", matrix.to_csv().encode())
    if plot:
        last = result.table["class"].iloc[-1]  # the only one, or the mean
        rows = result.table[result.table["class"] == last]
        draw_regions(rows[rows["trained_on"] == ALL_OTHERS], out / "regions.png")
        draw_matrix(matrix, out / "matrix.png", score="IoU")
