"""The public door: predictions and truth in, scores out."""

from collections.abc import Iterable, Sequence
from os import PathLike, fspath

import geopandas as gpd
import xarray as xr

from rtsx.arguments import typed
from rtsx.errors import EvaluationError
from rtsx.evaluation.cases import OutlineCase, RasterCase, case_of
from rtsx.evaluation.counts import SceneCounts
from rtsx.evaluation.dask import judge_rasters
from rtsx.evaluation.evaluation import Evaluation
from rtsx.evaluation.rule import JudgingRule
from rtsx.evaluation.scene import JudgedScene
from rtsx.evaluation.shapely import judge_outlines
from rtsx.labels import LabelTruth, Truth, read_labels

__all__ = ["evaluate"]


@typed(EvaluationError)
def evaluate(
    scenes: JudgedScene | Iterable[JudgedScene] | xr.Dataset | gpd.GeoDataFrame,
    truth: Truth | xr.DataArray | gpd.GeoDataFrame | str | PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    threshold: float | None = None,
    object_iou: float = 0.5,
    boundary: int = 3,
    min_object_area_m2: float = 0.0,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score predictions against the truth: by pixel, outline and object, per scene, per region and pooled.

    A pixel counts where the prediction is valid and the truth is not 255; what stands anywhere else changes nothing. The
    answer does not depend on chunks. Every chunk is computed once, on the scheduler in force, and only counts, and the
    borders of objects at seams, are kept: rasters may be larger than memory.

    Parameters
    ----------
    scenes
        What to judge: scenes, or one prediction, whose `truth` then follows.
    truth
        Truth of the one prediction; as in `JudgedScene`, or the path of its labels, which `read_labels` reads.
    classes
        Which classes to judge. None: all; prediction and truth must then know the same ones, besides ``background``. Where
        both know one class they are compared whatever it is called.
    threshold
        Least probability (0-1) of what was found. None: the decision of the prediction itself, in its `binary`.
    object_iou
        Least IoU of a found and a true object that are the same one. An object is what hangs together over edges and corners
        (8 neighbours) among the pixels that count: one that is cut by ground that does not count is judged by what is left.
        As many as can be are matched one to one.
    boundary
        Width in pixels of the band for the boundary IoU; see `rtsx.scores.boundary_band`.
    min_object_area_m2
        Objects smaller than this, found or true, are left out of the object scores; by the ground area of the pixel in the
        middle of the raster.
    bootstrap
        Times that scenes are drawn anew, with replacement, for the intervals of regions and of the whole: 95 %, by
        percentiles. One scene alone has none. 0: no intervals.
    seed
        Seed of these draws.

    Returns
    -------
    Evaluation
        Tables `scenes`, `regions` and `pooled`.

    Raises
    ------
    EvaluationError
        Nothing to judge, nothing that counts, outlines of another place, different grids, a missing CRS, unknown classes, or geometry that is no area.

    Examples
    --------
    >>> import numpy as np
    >>> from rtsx.labels import StubTruth
    >>> probability = np.array([[90, 80, 10], [20, 60, 255]], np.uint8)
    >>> pred = xr.Dataset({"probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": 255})})
    >>> evaluation = evaluate(pred, StubTruth(np.array([[1, 1, 0], [0, 0, 1]], np.uint8)), threshold=0.5)
    >>> evaluation.pooled[["iou", "precision", "recall"]].round(3).to_dict("records")
    [{'iou': 0.667, 'precision': 0.667, 'recall': 1.0}]
    """
    rule = JudgingRule(
        threshold=threshold,
        object_iou=object_iou,
        boundary=boundary,
        min_object_area_m2=min_object_area_m2,
        bootstrap=bootstrap,
        seed=seed,
    )
    if isinstance(truth, str | PathLike):
        truth = read_labels(fspath(truth))
    cases = [case_of(scene, classes=classes, threshold=threshold) for scene in _listed(scenes, truth)]
    if not cases:
        raise EvaluationError("There is no scene to judge: give at least one.")
    if isinstance(truth, gpd.GeoDataFrame) and len(truth):
        _check_meets(cases[0])
    rasters = iter(judge_rasters([case for case in cases if not isinstance(case, OutlineCase)], rule=rule))
    counted = []
    for case in cases:
        counts = judge_outlines(case, rule=rule) if isinstance(case, OutlineCase) else next(rasters)
        counted.append(
            SceneCounts(name=case.name, region=case.region, unit=case.unit, classes=case.classes, counts=counts)
        )
    return Evaluation(counts=tuple(counted), rule=rule)


def _check_meets(case: RasterCase | OutlineCase) -> None:
    """Refuse outlines of another place as the truth of a single prediction, which would score 0 without a word.

    Not so for several scenes, of which some may well have no slump.
    """
    if isinstance(case, RasterCase) and isinstance(case.truth, LabelTruth) and not case.truth.count:
        raise EvaluationError(
            "No outline of the truth lies on the prediction. Is it the truth of another place, or in another CRS than it says? "
            "A place that is known to have none is judged by a table without rows."
        )


def _listed(
    scenes: JudgedScene | Iterable[JudgedScene] | xr.Dataset | gpd.GeoDataFrame,
    truth: Truth | xr.DataArray | gpd.GeoDataFrame | None,
) -> list[JudgedScene]:
    if isinstance(scenes, xr.Dataset | gpd.GeoDataFrame):
        if truth is None:
            raise EvaluationError("A prediction is judged by a truth: give it as the second argument.")
        return [JudgedScene(name="scene", prediction=scenes, truth=truth)]
    if truth is not None:
        raise EvaluationError("Scenes hold their own truth: give no second argument with them.")
    listed = [scenes] if isinstance(scenes, JudgedScene) else list(scenes)
    for scene in listed:
        if not isinstance(scene, JudgedScene):
            raise EvaluationError(f"A scene to judge is a JudgedScene, not {type(scene).__name__}.")
    names = [scene.name for scene in listed]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise EvaluationError(f"Scenes have names of their own, but {', '.join(repeated)} occurs more than once.")
    return listed
