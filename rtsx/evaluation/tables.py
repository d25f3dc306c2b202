"""Counts to tables: scores per scene, and of several scenes together with their intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rtsx.evaluation.counts import SCORES, ClassCounts, SceneCounts, Unit
from rtsx.evaluation.rule import JudgingRule
from rtsx.scores import percentile_interval, resamples

__all__ = ["MEAN", "pooled_table", "region_table", "scene_table"]

MEAN = "mean"
"""Name of the row that holds the mean over classes."""

Row = dict[str, object]


def scene_table(scenes: Sequence[SceneCounts]) -> pd.DataFrame:
    """One row per scene and class, and one for the mean over several classes."""
    rows = []
    for scene in scenes:
        for name, counts, scores in _by_class(scene.classes, scene.counts, scene.unit):
            place = {"scene": scene.name, "region": scene.region, "class": name}
            rows.append(place | _sizes(counts, scene.unit) | scores)
    return pd.DataFrame(rows)


def region_table(scenes: Sequence[SceneCounts], rule: JudgingRule) -> pd.DataFrame:
    """One row per region and class, in the order in which regions first occur."""
    regions = dict.fromkeys(scene.region for scene in scenes)
    tables = [(region, pooled_table([s for s in scenes if s.region == region], rule)) for region in regions]
    for region, table in tables:
        table.insert(0, "region", region)
    return pd.concat([table for _, table in tables], ignore_index=True)


def pooled_table(scenes: Sequence[SceneCounts], rule: JudgingRule) -> pd.DataFrame:
    """One row per class: scores of the sum of all counts, and intervals from scenes drawn anew."""
    unit, classes = scenes[0].unit, scenes[0].classes
    columns = list(zip(*(scene.counts for scene in scenes), strict=True))
    once = np.ones((1, len(scenes)), np.int64)
    whole = _by_class(classes, [next(ClassCounts.weighted(column, once)) for column in columns], unit)
    rows: list[Row] = [
        {"class": name, "scenes": len(scenes)} | _sizes(counts, unit) | scores for name, counts, scores in whole
    ]
    # A scene alone cannot say how scenes differ, and an interval of width 0 would be read as certainty.
    draws = rule.bootstrap if len(scenes) > 1 else 0
    drawn = resamples(len(scenes), draws=draws, seed=rule.seed)
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
    """Scores of each class and, of several, their mean, which has no counts of its own."""
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
    """What was counted: pixels (or area), those of the target, and objects; nothing for a mean."""
    names = (f"judged_{unit}", f"target_{unit}", f"found_{unit}", "objects_true", "objects_found", "objects_matched")
    if counts is None:
        return dict.fromkeys(names, float("nan"))
    hits, false_alarms, misses, _ = counts.extent.tolist()
    matched, found, true = counts.objects.tolist()
    sizes = (float(counts.extent.sum()), hits + misses, hits + false_alarms, true, found, matched)
    return dict(zip(names, sizes, strict=True))
