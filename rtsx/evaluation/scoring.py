"""Evaluate predictions against truth: rasters by pixel and border, outlines by geometry on the ground."""

from collections.abc import Iterable, Sequence
from os import PathLike, fspath

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.arguments import typed
from rtsx.errors import EvaluationError, LabelError
from rtsx.evaluation.cases import EvaluationScene, EvaluationSettings, OutlineCase, RasterCase, case_of
from rtsx.evaluation.counts import ClassCounts, SceneCounts, equal_area, to_plane
from rtsx.evaluation.dask import evaluate_rasters
from rtsx.evaluation.result import Evaluation
from rtsx.labels import LabelRaster, RasterizedLabels, read_labels
from rtsx.scores import ObjectOverlaps


def match_outlines(case: OutlineCase, *, rule: EvaluationSettings) -> tuple[ClassCounts]:
    """Counts of one scene: shared and unshared ground in m², each point once, and objects, each row one.

    Everything is compared in Lambert's azimuthal equal-area projection about the middle of all outlines, where areas are
    those on the ellipsoid; long edges are followed as they run in their own CRS.

    Raises
    ------
    EvaluationError
        There is no outline at all.
    """
    tables = (case.found, case.true)
    outlines = [np.asarray(table.geometry.array, np.object_) for table in tables]
    crss = [CRS.from_user_input(table.crs) for table in tables]
    if not any(map(len, outlines)):
        raise EvaluationError(f"Scene {case.name!r} has neither found nor true outlines: there is nothing to evaluate.")
    some = 0 if len(outlines[0]) else 1
    try:
        plane = equal_area(outlines[some], crss[some])
        found, true = (to_plane(each, crs, plane) for each, crs in zip(outlines, crss, strict=True))
    except LabelError as error:
        raise EvaluationError(f"The outlines of scene {case.name!r} have no place on the ground: {error}") from error
    shared = shapely.area(shapely.intersection(shapely.union_all(found), shapely.union_all(true)))
    all_found, all_true = (float(shapely.area(shapely.union_all(each))) for each in (found, true))
    scores = _overlaps(found, true).at_least(rule.min_object_area_m2).match(rule.object_iou)
    counts = ClassCounts(
        extent=np.array([shared, max(all_found - shared, 0.0), max(all_true - shared, 0.0), 0.0]),
        boundary=np.zeros(2, np.int64),
        objects=np.array([scores.matched, scores.found, scores.true]),
        tally=None,
    )
    return (counts,)


def _overlaps(found: NDArray[np.object_], true: NDArray[np.object_]) -> ObjectOverlaps:
    pairs = shapely.STRtree(true).query(found, predicate="intersects").T
    shared = shapely.area(shapely.intersection(found[pairs[:, 0]], true[pairs[:, 1]]))
    return ObjectOverlaps(
        found=shapely.area(found),
        true=shapely.area(true),
        pairs=pairs[shared > 0].astype(np.int64),
        shared=shared[shared > 0],
    )


@typed(EvaluationError)
def evaluate(
    scenes: EvaluationScene | Iterable[EvaluationScene] | xr.Dataset | gpd.GeoDataFrame,
    truth: LabelRaster | xr.DataArray | gpd.GeoDataFrame | str | PathLike[str] | None = None,
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
        What to evaluate: scenes, or one prediction, whose `truth` then follows.
    truth
        Truth of the one prediction; as in `EvaluationScene`, or the path of its labels, which `read_labels` reads.
    classes
        Which classes to evaluate. None: all; prediction and truth must then know the same ones, besides ``background``. Where
        both know one class they are compared whatever it is called.
    threshold
        Least probability (0-1) of what was found. None: the decision of the prediction itself, in its `binary`.
    object_iou
        Least IoU of a found and a true object that are the same one. An object is what hangs together over edges and corners
        (8 neighbours) among the pixels that count: one that is cut by ground that does not count is evaluated by what is left.
        As many as can be are matched one to one.
    boundary
        Width in pixels of the band for the boundary IoU; see `rtsx.scores.boundary_buffer`.
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
        Nothing to evaluate, nothing that counts, outlines of another place, different grids, a missing CRS, unknown classes, or geometry that is no area.

    Examples
    --------
    >>> import numpy as np
    >>> from rtsx.labels import StubLabelRaster
    >>> probability = np.array([[90, 80, 10], [20, 60, 255]], np.uint8)
    >>> pred = xr.Dataset({"probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": 255})})
    >>> evaluation = evaluate(pred, StubLabelRaster(np.array([[1, 1, 0], [0, 0, 1]], np.uint8)), threshold=0.5)
    >>> evaluation.pooled[["iou", "precision", "recall"]].round(3).to_dict("records")
    [{'iou': 0.667, 'precision': 0.667, 'recall': 1.0}]
    """
    rule = EvaluationSettings(
        threshold=threshold,
        object_iou=object_iou,
        boundary=boundary,
        min_object_area_m2=min_object_area_m2,
        bootstrap=bootstrap,
        seed=seed,
    )
    if isinstance(truth, str | PathLike):
        truth = read_labels(fspath(truth))
    cases = [case_of(scene, classes=classes, threshold=threshold) for scene in listed_scenes(scenes, truth)]
    if not cases:
        raise EvaluationError("There is no scene to evaluate: give at least one.")
    if isinstance(truth, gpd.GeoDataFrame) and len(truth):
        _check_meets(cases[0])
    rasters = iter(evaluate_rasters([case for case in cases if not isinstance(case, OutlineCase)], rule=rule))
    counted = []
    for case in cases:
        counts = match_outlines(case, rule=rule) if isinstance(case, OutlineCase) else next(rasters)
        counted.append(
            SceneCounts(name=case.name, region=case.region, unit=case.unit, classes=case.classes, counts=counts)
        )
    return Evaluation(counts=tuple(counted), rule=rule)


def _check_meets(case: RasterCase | OutlineCase) -> None:
    """Refuse outlines of another place as the truth of a single prediction, which would score 0 without a word.

    Not so for several scenes, of which some may well have no slump.
    """
    if isinstance(case, RasterCase) and isinstance(case.truth, RasterizedLabels) and not case.truth.count:
        raise EvaluationError(
            "No outline of the truth lies on the prediction. Is it the truth of another place, or in another CRS than it says? "
            "A place that is known to have none is evaluated by a table without rows."
        )


def listed_scenes(
    scenes: EvaluationScene | Iterable[EvaluationScene] | xr.Dataset | gpd.GeoDataFrame,
    truth: LabelRaster | xr.DataArray | gpd.GeoDataFrame | None,
) -> list[EvaluationScene]:
    """Return the scenes that `evaluate` was given, one or several.

    Raises
    ------
    EvaluationError
        They are none, share a name, or have two truths.
    """
    if isinstance(scenes, xr.Dataset | gpd.GeoDataFrame):
        if truth is None:
            raise EvaluationError("A prediction is evaluated by a truth: give it as the second argument.")
        return [EvaluationScene(name="scene", prediction=scenes, truth=truth)]
    if truth is not None:
        raise EvaluationError("Scenes hold their own truth: give no second argument with them.")
    listed = [scenes] if isinstance(scenes, EvaluationScene) else list(scenes)
    for scene in listed:
        if not isinstance(scene, EvaluationScene):
            raise EvaluationError(f"A scene to evaluate is an EvaluationScene, not {type(scene).__name__}.")
    names = [scene.name for scene in listed]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise EvaluationError(f"Scenes have names of their own, but {', '.join(repeated)} occurs more than once.")
    return listed
