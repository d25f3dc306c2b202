"""Choose threshold and least size of outlines together, by object scores on scenes whose truth is known."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import geopandas as gpd
import pandas as pd
import xarray as xr

from rtsx.arguments import typed
from rtsx.errors import EvaluationError
from rtsx.evaluation.cases import EvaluationScene, EvaluationSettings, RasterCase, case_of
from rtsx.evaluation.counts import ObjectPieces, join_pieces
from rtsx.evaluation.dask import count_rasters, least_pixels
from rtsx.evaluation.scoring import listed_scenes
from rtsx.labels import LabelRaster
from rtsx.model import ModelBundle, OutlineChoice
from rtsx.scores import ObjectScores

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 20))
"""Thresholds that are tried where none are given."""
MIN_AREAS_M2 = (0.0, 288.0, 500.0, 1000.0, 2000.0, 5000.0)
"""Least areas that are tried where none are given, m²."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectChoice:
    """Object scores by threshold and least size, and the best of them."""

    table: pd.DataFrame = field(repr=False)
    """A row for each `threshold` and `min_area_m2`: objects `matched`, `found` and `true` of all scenes together, and
    `object_precision`, `object_recall` and `object_f1`."""

    @cached_property
    def best(self) -> "pd.Series[float]":
        """The row of the greatest F1; of several, that of the fewest found objects."""
        return self.table.sort_values(["object_f1", "found"], ascending=[False, True], kind="stable").iloc[0]

    @property
    def threshold(self) -> float:
        """Least probability of the best row."""
        return float(self.best["threshold"])

    @property
    def min_area_m2(self) -> float:
        """Least area of the best row, m²."""
        return float(self.best["min_area_m2"])

    @property
    def outlines(self) -> OutlineChoice:
        """The best, as a bundle keeps it."""
        return OutlineChoice(threshold=self.threshold, min_area_m2=self.min_area_m2)

    def applied_to(self, bundle: ModelBundle) -> ModelBundle:
        """Copy a bundle with the best threshold and least area, which `extract_footprints` and campaigns then take unless told.

        Its `threshold`, by which maps are binary, stays; its digest is another. Save it with `ModelBundle.save`.

        Raises
        ------
        BundleError
            The bundle tells several classes apart.
        """
        scores = {name: float(self.best[f"object_{name}"]) for name in ("f1", "precision", "recall")}
        provenance = {
            **(bundle.provenance or {}),
            "outlines_chosen_by": {**scores, "true_objects": int(self.best["true"])},
        }
        return replace(bundle, outlines=self.outlines, provenance=provenance)

    def __str__(self) -> str:
        """F1 by threshold and least area, and which is best."""
        grid = self.table.pivot_table(index="threshold", columns="min_area_m2", values="object_f1")
        best = self.best
        told = (
            f"best: threshold {self.threshold:g}, least area {self.min_area_m2:g} m²: F1 {best['object_f1']:.3f}, "
            f"precision {best['object_precision']:.3f}, recall {best['object_recall']:.3f}"
        )
        title = "object F1 by threshold (rows) and least area in m² (columns)"
        return "\n".join((title, grid.to_string(float_format="{:.3f}".format), told))


@typed(EvaluationError)
def choose_objects(
    scenes: EvaluationScene | Iterable[EvaluationScene] | xr.Dataset,
    truth: LabelRaster | xr.DataArray | gpd.GeoDataFrame | None = None,
    *,
    class_name: str | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    min_areas_m2: Sequence[float] = MIN_AREAS_M2,
    object_iou: float = 0.5,
    min_object_area_m2: float = 0.0,
) -> ObjectChoice:
    """Choose threshold and least size of outlines together, by object F1.

    A threshold that is chosen by pixels is seldom the best for objects: the pixels of large objects outweigh the many specks
    that each are a false alarm. Choose on scenes that nothing was trained on and nothing is scored on.

    Parameters
    ----------
    scenes, truth
        What is predicted and what is there, as in `evaluate`; rasters, of which `probability` is used. Lazy predictions are
        computed once, whatever the number of thresholds.
    class_name
        Which class of several.
    thresholds
        Probabilities (0-1) to try.
    min_areas_m2
        Least areas to try, m²: smaller found objects are left out. True ones never are, so that they count as missed.
    object_iou
        Least IoU of a found and a true object that are the same one, as in `evaluate`.
    min_object_area_m2
        Objects smaller than this, found or true, are not scored at all.

    Returns
    -------
    ObjectChoice
        A table of all, and the best, for ``extract_footprints(pred, threshold=choice.threshold,
        min_area_m2=choice.min_area_m2)``, or for all maps of a bundle: ``choice.applied_to(bundle).save(path)``.

    Raises
    ------
    EvaluationError
        Nothing to choose among, no true object, outlines instead of rasters, or what `evaluate` refuses.

    Examples
    --------
    >>> import numpy as np
    >>> from rtsx.labels import StubLabelRaster
    >>> probability = np.array([[90, 90, 0, 40, 0], [90, 90, 0, 0, 60]], np.uint8)
    >>> pred = xr.Dataset({"probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": 255})})
    >>> truth = StubLabelRaster(np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]], np.uint8))
    >>> choice = choose_objects(pred, truth, thresholds=[0.3, 0.5, 0.7], min_areas_m2=[0])
    >>> choice.threshold, choice.best["object_f1"].item()
    (0.7, 1.0)
    """
    if not len(thresholds) or not len(min_areas_m2):
        raise EvaluationError("There is nothing to choose among: give at least one threshold and one least area.")
    strange = [area for area in min_areas_m2 if not (math.isfinite(area) and area >= 0)]
    if strange:
        raise EvaluationError(f"min_areas_m2 are finite areas of at least 0 m²; got {strange[0]}.")
    settings = EvaluationSettings(
        threshold=None,
        object_iou=object_iou,
        boundary=1,
        min_object_area_m2=min_object_area_m2,
        bootstrap=0,
        seed=0,
    )
    listed = listed_scenes(scenes, truth)
    for threshold in thresholds:
        replace(settings, threshold=threshold)  # which refuses what is none
        if not threshold:
            raise EvaluationError(
                "An outline is of pixels above a probability of 0, so none is chosen from 0: leave it out."
            )
    classes = None if class_name is None else [class_name]
    cases = [[_case(scene, classes, threshold) for scene in listed] for threshold in thresholds]
    counted = iter(count_rasters([case for some in cases for case in some], rule=settings))
    rows = []
    for threshold, some in zip(thresholds, cases, strict=True):
        scenes_pieces = [(case, ObjectPieces.concatenate(next(counted).pieces[0])) for case in some]
        joined = [(case, join_pieces(pieces, columns=case.decided.sizes["x"])) for case, pieces in scenes_pieces]
        for area in min_areas_m2:
            scores = [
                overlaps.at_least(least_pixels(case, min_object_area_m2), found=least_pixels(case, area)).match(
                    object_iou
                )
                for case, overlaps in joined
            ]
            total = ObjectScores(
                **{name: sum(getattr(each, name) for each in scores) for name in ("matched", "found", "true")}
            )
            rows.append(
                {
                    "threshold": threshold,
                    "min_area_m2": area,
                    "matched": total.matched,
                    "found": total.found,
                    "true": total.true,
                }
                | {"object_precision": total.precision, "object_recall": total.recall, "object_f1": total.f1}
            )
    table = pd.DataFrame(rows)
    if not table["true"].any():
        raise EvaluationError("There is no true object in these scenes, by which thresholds could be chosen.")
    return ObjectChoice(table=table)


def _case(scene: EvaluationScene, classes: Sequence[str] | None, threshold: float) -> RasterCase:
    case = case_of(scene, classes=classes, threshold=threshold)
    if not isinstance(case, RasterCase):
        raise EvaluationError(
            f"Scene {scene.name!r} has outlines, which are found already: give the prediction itself."
        )
    if len(case.classes) > 1:
        raise EvaluationError(
            f"Threshold and least size are chosen for one class, but scene {scene.name!r} has {', '.join(case.classes)}: say class_name."
        )
    # Probabilities are not scored here, and would be tallied again for each threshold.
    return replace(case, probability=None)
