"""Results of evaluations and cross-validations: counts, tables of scores with their intervals, and pictures of them."""

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rtsx.errors import EvaluationError, require_extra
from rtsx.evaluation.cases import EvaluationSettings
from rtsx.evaluation.counts import SCORES, ClassCounts, SceneCounts, Unit
from rtsx.evaluation.folds import ALL_REGIONS, Fold, FoldPlan
from rtsx.parsing import json_value, parsed_json, wrap_damage
from rtsx.scores import bootstrap_indices, percentile_interval
from rtsx.storage import staged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEAN = "mean"
"""Name of the row that holds the mean over classes."""

Row = dict[str, object]


def scene_table(scenes: Sequence[SceneCounts]) -> pd.DataFrame:
    """Return one row per scene and class, and one for the mean over several classes."""
    rows = []
    for scene in scenes:
        for name, counts, scores in _by_class(scene.classes, scene.counts, scene.unit):
            place = {"scene": scene.name, "region": scene.region, "class": name}
            rows.append(place | _sizes(counts, scene.unit) | scores)
    return pd.DataFrame(rows)


def region_table(scenes: Sequence[SceneCounts], rule: EvaluationSettings) -> pd.DataFrame:
    """Return one row per region and class, in the order in which regions first occur."""
    tables = []
    for region in dict.fromkeys(scene.region for scene in scenes):
        tables.append(pooled_table([scene for scene in scenes if scene.region == region], rule))
        tables[-1].insert(0, "region", region)
    return pd.concat(tables, ignore_index=True)


def pooled_table(scenes: Sequence[SceneCounts], rule: EvaluationSettings) -> pd.DataFrame:
    """Return one row per class: scores of the sum of all counts, and intervals from scenes drawn anew."""
    unit, classes = scenes[0].unit, scenes[0].classes
    columns = list(zip(*(scene.counts for scene in scenes), strict=True))
    once = np.ones((1, len(scenes)), np.int64)
    whole = _by_class(classes, [next(ClassCounts.weighted(column, once)) for column in columns], unit)
    rows: list[Row] = [
        {"class": name, "scenes": len(scenes)} | _sizes(counts, unit) | scores for name, counts, scores in whole
    ]
    # A scene alone cannot say how scenes differ, and an interval of width 0 would be read as certainty.
    draws = rule.bootstrap if len(scenes) > 1 else 0
    drawn = bootstrap_indices(len(scenes), draws=draws, seed=rule.seed)
    again = [
        [scores for *_, scores in _by_class(classes, several, unit)]
        for several in zip(*(ClassCounts.weighted(column, drawn) for column in columns), strict=True)
    ]
    for number, row in enumerate(rows):
        for score in SCORES:
            values = np.array([draw[number][score] for draw in again], np.float64)
            row[f"{score}_low"], row[f"{score}_high"] = percentile_interval(values)
    ordered = [name for name in rows[0] if not name.endswith(("_low", "_high")) and name not in SCORES]
    ordered += [name for score in SCORES for name in (score, f"{score}_low", f"{score}_high")]
    return pd.DataFrame(rows, columns=ordered)


def _by_class(
    classes: Sequence[str], counts: Sequence[ClassCounts], unit: Unit
) -> list[tuple[str, ClassCounts | None, dict[str, float]]]:
    """Return scores of each class and, of several, their mean, which has no counts of its own."""
    rows: list[tuple[str, ClassCounts | None, dict[str, float]]] = [
        (name, each, each.scores(unit)) for name, each in zip(classes, counts, strict=True)
    ]
    if len(rows) > 1:
        # Without the classes that do not occur, whose scores of 1 would make any mean look good.
        occurring = [scores for _, each, scores in rows if each is not None and each.occurs]
        rows.append((MEAN, None, {score: _mean([scores[score] for scores in occurring]) for score in SCORES}))
    return rows


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _sizes(counts: ClassCounts | None, unit: Unit) -> Row:
    """Return what was counted: pixels (or area), those of the target, and objects; nothing for a mean."""
    names = (f"evaluated_{unit}", f"target_{unit}", f"found_{unit}", "objects_true", "objects_found", "objects_matched")
    if counts is None:
        return dict.fromkeys(names, float("nan"))
    hits, false_alarms, misses, _ = counts.extent.tolist()
    matched, found, true = counts.objects.tolist()
    sizes = (float(counts.extent.sum()), hits + misses, hits + false_alarms, true, found, matched)
    return dict(zip(names, sizes, strict=True))


_SHOWN = ("iou", "precision", "recall", "f1", "average_precision", "boundary_iou", "object_f1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How good predictions are: counts per scene, from which every table follows.

    Counts add up, so evaluations of different scenes can be pooled afterwards as if they had been evaluated together.

    Raises
    ------
    EvaluationError
        Scenes were counted in different units or for different classes, two share a name, or there is none.
    """

    counts: tuple[SceneCounts, ...] = field(repr=False, metadata={"alias": "scenes"})
    """One for each scene."""
    rule: EvaluationSettings
    """By what they were evaluated."""

    def __post_init__(self) -> None:
        """Refuse what does not add up."""
        if not self.counts:
            raise EvaluationError("An evaluation needs at least one scene; got none.")
        first = self.counts[0]
        for scene in self.counts:
            if scene.unit != first.unit:
                raise EvaluationError(
                    f"Scene {first.name!r} was evaluated in {first.unit} and {scene.name!r} in {scene.unit}: pixels and outlines "
                    "do not add up. Evaluate them apart."
                )
            if scene.classes != first.classes:
                raise EvaluationError(
                    f"Scene {first.name!r} was evaluated for the classes {', '.join(first.classes)}, and {scene.name!r} for "
                    f"{', '.join(scene.classes)}: name those to evaluate with classes=..."
                )
        names = [scene.name for scene in self.counts]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise EvaluationError(f"A scene is evaluated once, but {', '.join(repeated)} came more than once.")

    @classmethod
    def pooled_of(cls, evaluations: Iterable["Evaluation"]) -> "Evaluation":
        """Return scenes of several evaluations as one; they must have been evaluated by one rule.

        Raises
        ------
        EvaluationError
            They do not add up.
        """
        several = list(evaluations)
        if not several:
            raise EvaluationError("An evaluation needs at least one scene; got none.")
        rules = {each.rule for each in several}
        if len(rules) > 1:
            raise EvaluationError(f"Evaluations by different rules do not add up: {', '.join(map(repr, rules))}.")
        return cls(counts=tuple(scene for each in several for scene in each.counts), rule=several[0].rule)

    @property
    def classes(self) -> tuple[str, ...]:
        """What was evaluated."""
        return self.counts[0].classes

    @cached_property
    def scenes(self) -> pd.DataFrame:
        """Scores by scene and class: `scene`, `region`, `class`, what was counted, and a column for each score."""
        return scene_table(self.counts)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """Scores by region and class, of all its scenes together, each with a ``_low`` and a ``_high``."""
        return region_table(self.counts, self.rule)

    @cached_property
    def pooled(self) -> pd.DataFrame:
        """Scores by class of all scenes together, each with a ``_low`` and a ``_high``."""
        return pooled_table(self.counts, self.rule)

    def __str__(self) -> str:
        """Scores of regions and of the whole as a short table, and the rule of objects."""
        regions = self.regions if self.regions["region"].nunique() > 1 else self.regions.iloc[:0]
        whole = self.pooled.copy()
        whole.insert(0, "region", "all")
        rows = pd.concat([regions, whole], ignore_index=True) if len(regions) else whole
        interval = rows["iou_low"].notna()
        shown = rows[["region", "class", "scenes", *_SHOWN]].copy()
        if interval.any():
            bounds = [f"{low:.3f}-{high:.3f}" for low, high in zip(rows["iou_low"], rows["iou_high"], strict=True)]
            shown.insert(4, "95 %", np.where(interval, bounds, "-"))
        if len(self.classes) == 1:
            shown = shown.drop(columns="class")
        table: str = shown.to_string(index=False, float_format="{:.3f}".format, na_rep="-")
        return f"{table}\n{self.rule.of_objects}"

    def _repr_html_(self) -> str:
        tables = {"all scenes together": self.pooled}
        if self.regions["region"].nunique() > 1:
            tables["by region"] = self.regions
        parts = [
            f"<b>{title}</b>" + table.to_html(index=False, float_format="{:.3f}".format, na_rep="-", border=0)
            for title, table in tables.items()
        ]
        return "".join((*parts, html.escape(self.rule.of_objects)))

    def to_json(self) -> str:
        """Return everything as JSON; `from_json` reads it."""

        def stated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            return {name: value for name, value in pairs if (name, value) != ("tally", None)}

        scenes = [asdict(scene, dict_factory=stated) for scene in self.counts]
        return json.dumps({"rule": asdict(self.rule), "scenes": scenes}, default=np.ndarray.tolist)

    @classmethod
    def from_json(cls, document: str) -> "Evaluation":
        """Return an evaluation from its JSON.

        Raises
        ------
        EvaluationError
            It is none.
        """
        return parsed_json(document, cls, what="The evaluation", error=EvaluationError)


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
        """Return all folds of one row of the matrix together: each of their test scenes evaluated by a model that never saw it.

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
        """Return one score by what was learnt from (rows) and by region tested (columns); NaN where nothing was tested.

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
        """Return everything as JSON; `from_json` reads it."""
        results = [
            {"fold": r.fold.name, "seed": r.seed, "bundle": r.bundle, "evaluation": json.loads(r.evaluation.to_json())}
            for r in self.results
        ]
        return json.dumps({"folds": [asdict(fold) for fold in self.plan.folds], "results": results})

    @classmethod
    def from_json(cls, document: str) -> "CrossValidation":
        """Return a result from its JSON.

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


_SCORES = {"iou": "IoU", "f1": "F1", "object_f1": "object F1"}


def check_drawable() -> None:
    """Refuse before anything is trained what could not be drawn afterwards.

    Raises
    ------
    MissingExtraError
        There is no matplotlib.
    """
    with require_extra(
        "Pictures are drawn with matplotlib, which is not installed. Install it with pip install 'rtsx[view]', or leave "
        "them out with plot=False."
    ):
        import matplotlib as mpl  # noqa: F401


def draw_regions(table: pd.DataFrame, path: Path) -> None:
    """Draw IoU, F1 and object F1 of every region with their intervals into a PNG file.

    Parameters
    ----------
    table
        Rows of one class and of one way of training, as in `CrossValidation.table`.
    path
        The file.
    """
    with _drawn(path, (max(6.0, 1.1 * len(table) + 2), 4.2)) as (_, axis):
        middle = np.arange(len(table))
        width = 0.8 / len(_SCORES)
        for number, (name, label) in enumerate(_SCORES.items()):
            values = table[name].to_numpy(float)
            reach = [np.nan_to_num(np.abs(values - table[f"{name}_{end}"].to_numpy(float))) for end in ("low", "high")]
            places = middle + (number - (len(_SCORES) - 1) / 2) * width
            axis.bar(
                places, np.nan_to_num(values), width, yerr=reach, label=label, capsize=2, error_kw={"linewidth": 1}
            )
        axis.set_xticks(middle, [str(name) for name in table["region"]], rotation=20, ha="right")
        axis.set_ylim(0, 1)
        axis.set_ylabel("score, with 95 % interval over scenes")
        axis.grid(axis="y", linewidth=0.4)
        axis.legend(ncols=len(_SCORES), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def draw_matrix(matrix: pd.DataFrame, path: Path) -> None:
    """Draw a transfer matrix of IoU into a PNG file; what was not tested stays white."""
    with _drawn(path, (1.1 * matrix.shape[1] + 3.5, 0.6 * matrix.shape[0] + 2)) as (figure, axis):
        values = matrix.to_numpy(float)
        image = axis.imshow(np.ma.masked_invalid(values), vmin=0, vmax=1, cmap="viridis")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                axis.text(
                    column, row, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.6 else "white"
                )
        axis.set_xticks(range(matrix.shape[1]), [str(name) for name in matrix.columns], rotation=20, ha="right")
        axis.set_yticks(range(matrix.shape[0]), [str(name) for name in matrix.index])
        axis.set_xlabel("tested on")
        axis.set_ylabel("trained on")
        figure.colorbar(image, ax=axis, label="IoU", shrink=0.8)


def draw_estimates(strata: pd.DataFrame, path: Path, *, confidence: float) -> None:
    """Draw the part of every stratum that holds the target, with its interval, into a PNG file; see `Accuracy.strata`."""
    with _drawn(path, (7.0, 0.35 * len(strata) + 1.4)) as (_, axis):
        middle = np.arange(len(strata))[::-1]
        axis.hlines(
            middle, strata["lowest"], strata["highest"], color="0.8", linewidth=6, label="unsure units either way"
        )
        axis.hlines(middle, strata["low"], strata["high"], color="C0", label=f"{confidence:.0%} interval")
        axis.plot(strata["part"], middle, "o", color="C0")
        names = strata["stratum"].where(strata["region"] == "", strata["region"] + ", " + strata["stratum"])
        axis.set_yticks(middle, [f"{name}  (n = {n})" for name, n in zip(names, strata["reviewed"], strict=True)])
        axis.set_xlim(0, 1)
        axis.set_xlabel("part that holds the target")
        axis.grid(axis="x", linewidth=0.4)
        if strata["unsure"].any():
            axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


@contextmanager
def _drawn(path: Path, size: tuple[float, float]) -> Iterator[tuple["Figure", "Axes"]]:
    """Yield a figure of a size, inches, and its axes, written to a PNG file when the block ends."""
    # Not pyplot, because that opens a window system and keeps every figure alive.
    from matplotlib.figure import Figure  # of the extra `view`

    figure = Figure(figsize=size, layout="constrained", dpi=110)
    yield figure, figure.subplots()
    with staged(path, overwrite=True) as draft:
        figure.savefig(draft, metadata={"Software": "rtsx"})
