"""Cross-validate: train on some regions, test on others; results by fold and the tables that follow."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from rtsx.arguments import typed
from rtsx.errors import EvaluationError
from rtsx.evaluation.cases import EvaluationSettings
from rtsx.evaluation.counts import SCORES
from rtsx.evaluation.fold_task import FOLDS, BundleTrainer, FoldJob, Trainer, claimed, run_jobs, slug
from rtsx.evaluation.folds import (
    ALL_OTHERS,
    ALL_REGIONS,
    Fold,
    FoldPlan,
    FoldUnit,
    overlap_of,
    planned_units,
    transfer_plan,
)
from rtsx.evaluation.result import Evaluation, check_drawable, draw_matrix, draw_regions
from rtsx.parsing import json_value, wrap_damage
from rtsx.storage import local_path, refuse_other_format, write_whole
from rtsx.training import TrainingRecipe, TrainingScene

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldResult:
    """One trained and evaluated fold."""

    fold: Fold
    """What was learnt from and tested on."""
    seed: int
    bundle: str
    """Folder of the bundle, relative to the cross-validation's."""
    evaluation: Evaluation = field(repr=False)
    """Scores of the test scenes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossValidation:
    """What models are worth on ground that they have not learnt from."""

    plan: FoldPlan
    results: tuple[FoldResult, ...] = field(repr=False)
    """One for each fold and seed."""

    def evaluation(self, trained_on: str, *, seed: int) -> Evaluation:
        """All folds of one row of the matrix together: each of their test scenes evaluated by a model that never saw it.

        Raises
        ------
        EvaluationError
            There is no such row or seed.
        """
        found = [r.evaluation for r in self.results if (r.fold.trained_on, r.seed) == (trained_on, seed)]
        if not found:
            rows = sorted({(r.fold.trained_on, r.seed) for r in self.results})
            raise EvaluationError(f"Nothing was trained on {trained_on!r} with seed {seed}; there are {rows}.")
        return Evaluation.pooled_of(found)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Scores by what was learnt from, by region tested (and ``all``), and by class.

        Each is the mean over seeds, as are the bounds of its interval, ``_low`` and ``_high``; ``_std`` is the standard
        deviation among seeds (divided by n - 1), NaN for one seed.
        """
        seeds = list(dict.fromkeys(result.seed for result in self.results))
        rows = list(dict.fromkeys(fold.trained_on for fold in self.plan.folds))
        return pd.concat([self._rows(row, seeds) for row in rows], ignore_index=True)

    def _rows(self, trained_on: str, seeds: Sequence[int]) -> pd.DataFrame:
        tables = []
        for seed in seeds:
            evaluation = self.evaluation(trained_on, seed=seed)
            whole = evaluation.pooled.copy()
            whole.insert(0, "region", ALL_REGIONS)
            tables.append(pd.concat([evaluation.regions, whole], ignore_index=True))
        several = pd.concat(tables, ignore_index=True)
        by = several.groupby(["region", "class"], sort=False)
        numbers = [name for name in several.columns if name not in ("region", "class")]
        table = by[numbers].mean().reset_index()
        spread = by[list(SCORES)].std().reset_index()
        for score in SCORES:
            table.insert(list(table.columns).index(f"{score}_high") + 1, f"{score}_std", spread[score])
        table.insert(0, "trained_on", trained_on)
        table.insert(3, "seeds", len(seeds))
        return table

    def matrix(self, score: str = "iou", *, class_name: str | None = None) -> pd.DataFrame:
        """One score by what was learnt from (rows) and by region tested (columns); NaN where nothing was tested.

        Parameters
        ----------
        score
            One of the scores of `Evaluation`.
        class_name
            Which class; None: the only one, or the mean over several.

        Raises
        ------
        EvaluationError
            There is no such score or class.
        """
        if score not in SCORES:
            raise EvaluationError(f"There are the scores {', '.join(SCORES)}, not {score!r}.")
        names = list(dict.fromkeys(self.table["class"]))
        wanted = names[-1] if class_name is None else class_name
        if wanted not in names:
            raise EvaluationError(f"The classes {', '.join(names)} were evaluated, not {wanted!r}.")
        chosen = self.table[(self.table["class"] == wanted) & (self.table["region"] != ALL_REGIONS)]
        regions = list(dict.fromkeys(chosen["region"]))
        order = [name for name in dict.fromkeys(chosen["trained_on"]) if name in regions]
        wide = chosen.pivot(index="trained_on", columns="region", values=score)
        rows = list(dict.fromkeys(chosen["trained_on"]))
        columns = order + [name for name in regions if name not in order]
        return wide.loc[rows, columns]

    def __str__(self) -> str:
        """IoU, F1 and object F1 by region as a short table, and the rule of objects."""
        shown = self.table[["trained_on", "region", "class", "scenes", "iou", "f1", "average_precision", "object_f1"]]
        if shown["class"].nunique() == 1:
            shown = shown.drop(columns="class")
        # Means over seeds are floats, also of counts.
        counts = {"scenes": "{:g}".format}
        text: str = shown.to_string(index=False, formatters=counts, float_format="{:.3f}".format, na_rep="-")
        return f"{text}\n{self.results[0].evaluation.rule.of_objects}"

    def to_json(self) -> str:
        """Everything as JSON; `from_json` reads it."""
        results = [
            {"fold": r.fold.name, "seed": r.seed, "bundle": r.bundle, "evaluation": json.loads(r.evaluation.to_json())}
            for r in self.results
        ]
        return json.dumps({"folds": [asdict(fold) for fold in self.plan.folds], "results": results})

    @classmethod
    def from_json(cls, document: str) -> "CrossValidation":
        """A result from its JSON.

        Raises
        ------
        EvaluationError
            It is none.
        """
        read = json_value(document, what="The cross-validation", error=EvaluationError)
        with wrap_damage("The cross-validation", EvaluationError):
            plan = FoldPlan.from_json(json.dumps({"folds": read["folds"]}))
            by_name = {fold.name: fold for fold in plan.folds}
            results = tuple(
                FoldResult(
                    fold=by_name[each["fold"]],
                    seed=each["seed"],
                    bundle=each["bundle"],
                    evaluation=Evaluation.from_json(json.dumps(each["evaluation"])),
                )
                for each in read["results"]
            )
            return cls(plan=plan, results=results)


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
    scenes = {scene.name: replace(scene, group=group_of[scene.name]) for scene in _scenes(recipe)}
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
            trainer=trainer or BundleTrainer(device=device),
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
    return planned_units([overlap_of(scene) for scene in _scenes(recipe)], merge=overlapping == "merge")


def _scenes(recipe: TrainingRecipe) -> tuple[TrainingScene, ...]:
    return (*recipe.training, *recipe.validation, *recipe.test)


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
