"""Evaluate scenes against their truth, and choose threshold and least size of outlines together, by object scores."""

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from os import PathLike, fspath

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.arguments import typed
from rtsx.cube import geobox_of
from rtsx.cube.times import image_years
from rtsx.errors import EvaluationError, LabelDateWarning, LabelError, TruthWarning
from rtsx.evaluation.cases import (
    ALONE,
    EvaluationScene,
    EvaluationSettings,
    OutlineCase,
    RasterCase,
    Truth,
    case_of,
    of_scene,
)
from rtsx.evaluation.counts import ClassCounts, ObjectPieces, SceneCounts, equal_area, join_pieces, to_plane
from rtsx.evaluation.dask import count_rasters, evaluate_rasters, least_pixels
from rtsx.evaluation.result import Evaluation
from rtsx.footprints.extract import default_min_area_m2, stated_number
from rtsx.footprints.geometry import repeats
from rtsx.footprints.schema import dates_of, stated_years
from rtsx.labels import RasterizedLabels, read_labels
from rtsx.labels.label_rasters import read_label_raster
from rtsx.model import ModelBundle, OutlineChoice
from rtsx.scores import ObjectOverlaps, ObjectScores
from rtsx.storage.diagnosis import is_raster

_LEAST_M2 = 0.01
"""Smaller rests of outlines along the border of the mapped ground are noise of the arithmetic, m²."""


def match_outlines(case: OutlineCase, *, rule: EvaluationSettings) -> tuple[ClassCounts]:
    """Counts of one scene: shared and unshared ground in m², each point once, and objects, each row one.

    Everything is compared in Lambert's azimuthal equal-area projection about the middle of all outlines, where areas are
    those on the ellipsoid; long edges are followed as they run in their own CRS. Both are cut to the ground that was mapped.

    Warns
    -----
    TruthWarning
        It is not known what was mapped, and true outlines lie far from all found ones.

    Raises
    ------
    EvaluationError
        There is no outline at all, or none on the ground that was mapped.
    """
    tables = (case.found, case.true)
    outlines = [np.asarray(table.geometry.array, np.object_) for table in tables]
    crss = [CRS.from_user_input(table.crs) for table in tables]
    if not any(map(len, outlines)):
        raise EvaluationError(
            f"There are neither found nor true outlines{of_scene(case.name)}: there is nothing to evaluate."
        )
    some = 0 if len(outlines[0]) else 1
    try:
        plane = equal_area(outlines[some], crss[some])
        found, true = (to_plane(each, crs, plane) for each, crs in zip(outlines, crss, strict=True))
    except LabelError as error:
        raise EvaluationError(f"The outlines{of_scene(case.name)} have no place on the ground: {error}") from error
    if case.mapped is None:
        _warn_of_truth_elsewhere(case, found, true)
    else:
        ground = np.asarray(case.mapped.geometry.array, np.object_)
        whole = shapely.union_all(to_plane(ground, CRS.from_user_input(case.mapped.crs), plane))
        found, true = (_cut_to(whole, each) for each in (found, true))
        if not len(found) + len(true):
            raise EvaluationError(
                f"No outline{of_scene(case.name)}, found or true, lies on the ground that was mapped. Is that of another place?"
            )
    for what, outlines_of in (("prediction", found), ("truth", true)):
        _warn_of_repeats(case, outlines_of, what=what, iou=rule.object_iou)
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


def _cut_to(ground: shapely.Geometry, outlines: NDArray[np.object_]) -> NDArray[np.object_]:
    """Cut valid outlines to a ground in the same equal-area plane; those that lie elsewhere are left out."""
    shapely.prepare(ground)
    cut: NDArray[np.object_] = outlines.copy()
    beyond = ~shapely.covers(ground, outlines)
    cut[beyond] = shapely.intersection(outlines[beyond], ground)
    cut = cut[shapely.area(cut) > _LEAST_M2]
    mixed = shapely.get_type_id(cut) == shapely.GeometryType.GEOMETRYCOLLECTION
    cut[mixed] = shapely.buffer(cut[mixed], 0)  # which leaves the lines and points out where outlines only touch
    return cut


def _warn_of_truth_elsewhere(case: OutlineCase, found: NDArray[np.object_], true: NDArray[np.object_]) -> None:
    around = shapely.box(*shapely.total_bounds(found)) if len(found) else shapely.Point()
    elsewhere = len(true) - int(shapely.intersects(true, around).sum())
    if elsewhere:
        warnings.warn(
            f"{elsewhere} of {len(true)} outlines of the truth{of_scene(case.name)} lie outside the rectangle around all that was "
            "found, and count as missed. If not all of that ground was mapped, say with mapped= what was.",
            TruthWarning,
            stacklevel=3,
        )


def _warn_of_repeats(case: OutlineCase, outlines: NDArray[np.object_], *, what: str, iou: float) -> None:
    """Warn of outlines on others of their own table, as of several dates, of which one alone can be matched."""
    count = int(repeats(outlines, iou=iou).sum())
    if count:
        warnings.warn(
            f"{count} of {len(outlines)} outlines of the {what}{of_scene(case.name)} lie on another of them with an IoU of {iou:g} or more, "
            "as of several dates or authors: each counts as an object, and one of them alone can be matched. Give one set of outlines.",
            TruthWarning,
            stacklevel=4,
        )


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
    truth: Truth | str | PathLike[str] | None = None,
    *,
    mapped: xr.Dataset | gpd.GeoDataFrame | None = None,
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
    result does not depend on chunks. Every chunk is computed once, on the scheduler in force, and only counts, and the
    borders of objects at seams, are kept: rasters may be larger than memory.

    Parameters
    ----------
    scenes
        What to evaluate: scenes, or one prediction, whose `truth` then follows.
    truth
        Truth of the one prediction; as in `EvaluationScene`, or the path of its labels, which `read_labels` reads, or of a
        raster whose first band has its codes.
    mapped
        Ground that the one prediction can be on where it is outlines, as in `EvaluationScene`. None: all of the truth counts.
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

    Warns
    -----
    TruthWarning
        Scores say less than they seem to: true outlines lie far from all found ones, and what was mapped is not known; or a
        raster of truth shows the target everywhere that counts, or nowhere.
    LabelDateWarning
        No outline of the truth is of a year that the prediction is of.

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
        truth = _read_truth(fspath(truth), scenes)
    listed = listed_scenes(scenes, truth)
    warn_of_other_years(listed)
    if mapped is not None:
        if truth is None:
            raise EvaluationError("Scenes say themselves what was mapped: give no mapped= with them.")
        listed = [replace(listed[0], mapped=mapped)]
    cases = [case_of(scene, classes=classes, threshold=threshold) for scene in listed]
    if isinstance(truth, gpd.GeoDataFrame) and len(truth):
        _check_meets(cases[0])
    are_outlines = any(isinstance(scene.truth, gpd.GeoDataFrame) and len(scene.truth) for scene in listed)
    if truth is None and are_outlines and all(isinstance(case, RasterCase) and _has_none(case) for case in cases):
        warnings.warn(
            "No outline of the truth lies on any scene. Is it the truth of another place, or in another CRS than it says?",
            TruthWarning,
            stacklevel=3,
        )
    rasters = iter(evaluate_rasters([case for case in cases if isinstance(case, RasterCase)], rule=rule))
    counted = tuple(
        SceneCounts(
            name=case.name,
            region=case.region,
            unit=case.unit,
            classes=case.classes,
            counts=next(rasters) if isinstance(case, RasterCase) else match_outlines(case, rule=rule),
        )
        for case in cases
    )
    if truth is not None and isinstance(cases[0], RasterCase) and not isinstance(cases[0].truth, RasterizedLabels):
        _warn_of_values(counted[0])
    return Evaluation(counts=counted, rule=rule)


def _read_truth(path: str, prediction: object) -> Truth:
    if not isinstance(prediction, xr.Dataset) or not is_raster(path):
        return read_labels(path)
    return read_label_raster(path, geobox_of(prediction), band=1)


def _warn_of_values(scene: SceneCounts) -> None:
    """Warn where a truth of one class has one value alone, as a raster has where the other is its nodata or not what was expected."""
    if len(scene.classes) > 1:
        return
    (name,), (hits, false_alarms, misses, rest) = scene.classes, scene.counts[0].extent
    if not hits + misses:
        said = f"No pixel that counts is {name!r} in the truth, so nothing can be missed. Is it another value there (rtsx evaluate --class-value), or ignored?"
    elif not false_alarms + rest:
        said = (
            f"Every pixel that counts is {name!r} in the truth, so nothing can be a false alarm. Is everything else its nodata? "
            "gdal_translate -a_nodata none OLD NEW makes that a value."
        )
    else:
        return
    warnings.warn(said, TruthWarning, stacklevel=3)


def _check_meets(case: RasterCase | OutlineCase) -> None:
    """Refuse outlines of another place as the truth of a single prediction, which would score 0 without a word.

    Not so for several scenes, of which some may well have no slump.
    """
    if isinstance(case, RasterCase) and _has_none(case):
        raise EvaluationError(
            "No outline of the truth lies on the prediction. Is it the truth of another place, or in another CRS than it says? "
            "A place that is known to have none is evaluated by a table without rows."
        )


def _has_none(case: RasterCase) -> bool:
    return isinstance(case.truth, RasterizedLabels) and not case.truth.count


def warn_of_other_years(scenes: Sequence[EvaluationScene]) -> None:
    """Warn, once, where outlines of the truth state years of which the prediction is of none.

    Warns
    -----
    LabelDateWarning
        It is so for a scene.
    """
    apart = []
    for scene in scenes:
        pred, truth = scene.prediction, scene.truth
        true = _label_years(truth) if isinstance(truth, gpd.GeoDataFrame) else set()
        made = stated_years(pred) if isinstance(pred, gpd.GeoDataFrame) else _from_to(image_years(pred))
        if true and made and not true & made:
            apart.append((scene.name, *(", ".join(map(str, sorted(years))) for years in (true, made))))
    if apart:
        name, true_years, made_years = apart[0]
        more = f" So it is in {len(apart)} of {len(scenes)} scenes." if len(scenes) > 1 else ""
        warnings.warn(
            f"The truth{of_scene(name)} is of {true_years}, and the prediction of {made_years}: what has changed between counts as wrong.{more} Take "
            "a truth of the year of the images.",
            LabelDateWarning,
            stacklevel=4,
        )


def _label_years(labels: gpd.GeoDataFrame) -> set[int]:
    """Return the years of the images that labels are drawn on, from first to last where they state a period."""
    first, last = (dates_of(labels, name).dt.year for name in ("image_date", "image_date_end"))
    spans = zip(first.dropna(), last.fillna(first)[first.notna()], strict=True)
    return {year for span in {*spans} for year in _from_to(span)}


def _from_to(years: Sequence[int]) -> set[int]:
    return {*range(int(min(years)), int(max(years)) + 1)} if years else set()


def listed_scenes(
    scenes: EvaluationScene | Iterable[EvaluationScene] | xr.Dataset | gpd.GeoDataFrame, truth: Truth | None
) -> list[EvaluationScene]:
    """Return the scenes that `evaluate` was given, one or several.

    Raises
    ------
    EvaluationError
        There is none, they are none, share a name, or have two truths.
    """
    if isinstance(scenes, xr.Dataset | gpd.GeoDataFrame):
        if truth is None:
            raise EvaluationError("A prediction is evaluated by a truth: give it as the second argument.")
        return [EvaluationScene(name=ALONE, prediction=scenes, truth=truth)]
    if isinstance(scenes, xr.DataArray):
        raise EvaluationError(
            "A prediction is a Dataset with `probability` or `binary`, and this is an array alone; in Python, "
            "array.to_dataset(name='probability')."
        )
    if truth is not None:
        raise EvaluationError("Scenes hold their own truth: give no second argument with them.")
    listed = [scenes] if isinstance(scenes, EvaluationScene) else list(scenes)
    if not listed:
        raise EvaluationError("There is no scene to evaluate: give at least one.")
    for scene in listed:
        if not isinstance(scene, EvaluationScene):
            raise EvaluationError(f"A scene to evaluate is an EvaluationScene, not {type(scene).__name__}.")
    names = [scene.name for scene in listed]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise EvaluationError(f"Scenes have names of their own, but {', '.join(repeated)} occurs more than once.")
    return listed


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

    own: "pd.Series[float] | None"
    """Such a row of what the map is outlined by where nobody says anything else, by the same rule; None where the scenes do not
    say one threshold and least size."""
    rule: EvaluationSettings
    """By what objects were scored."""

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
        """Copy a bundle with the best threshold and least area, which `extract_footprints` and campaigns then take unless given others.

        Its `threshold`, by which maps are binary, stays; its digest is another. Save it with `ModelBundle.save`.

        Raises
        ------
        BundleError
            The bundle tells several classes apart.
        """
        scores = {name: float(self.best[f"object_{name}"]) for name in ("f1", "precision", "recall")}
        chosen_by = {**scores, "true_objects": int(self.best["true"])}
        provenance = {**(bundle.provenance or {}), "outlines_chosen_by": chosen_by}
        return replace(bundle, outlines=self.outlines, provenance=provenance)

    def __str__(self) -> str:
        """F1 by threshold and least area, which is best, what it is without a choice, and the rule of objects."""
        grid = self.table.pivot_table(index="threshold", columns="min_area_m2", values="object_f1")
        named = [("best", self.best), *([] if self.own is None else [("the model's own", self.own)])]
        lines = [
            f"{name}: threshold {row['threshold']:g}, least area {row['min_area_m2']:g} m²: F1 {row['object_f1']:.3f}, "
            f"precision {row['object_precision']:.3f}, recall {row['object_recall']:.3f}"
            for name, row in named
        ]
        title = "object F1 by threshold (rows) and least area in m² (columns)"
        of_objects = f"objects: IoU >= {self.rule.object_iou:g}; true ones: {self.rule.sizes}; found ones: from the least area on"
        return "\n".join((title, grid.to_string(float_format="{:.3f}".format), *lines, of_objects))


@typed(EvaluationError)
def choose_objects(
    scenes: EvaluationScene | Iterable[EvaluationScene] | xr.Dataset,
    truth: Truth | str | PathLike[str] | None = None,
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
        threshold=None, object_iou=object_iou, boundary=1, min_object_area_m2=min_object_area_m2, bootstrap=0, seed=0
    )
    if isinstance(truth, str | PathLike):
        truth = _read_truth(fspath(truth), scenes)
    listed = listed_scenes(scenes, truth)
    warn_of_other_years(listed)
    for threshold in thresholds:
        replace(settings, threshold=threshold)  # which refuses what is none
        if not threshold:
            raise EvaluationError(
                "An outline is of pixels above a probability of 0, so none is chosen from 0: leave it out."
            )
    classes = None if class_name is None else [class_name]
    tried = [
        (threshold, min_areas_m2, [_case(scene, classes, threshold) for scene in listed]) for threshold in thresholds
    ]
    n_tried = len(thresholds) * len(min_areas_m2)
    tried += _without_choice(listed, classes)
    counted = iter(count_rasters([case for *_, some in tried for case in some], rule=settings))
    rows = []
    for threshold, areas, some in tried:
        scenes_pieces = [(case, ObjectPieces.concatenate(next(counted).pieces[0])) for case in some]
        joined = [(case, join_pieces(pieces, columns=case.decided.sizes["x"])) for case, pieces in scenes_pieces]
        for area in areas:
            kept = [
                overlaps.at_least(least_pixels(case, min_object_area_m2), found=least_pixels(case, area))
                for case, overlaps in joined
            ]
            scores = [asdict(overlaps.match(object_iou)) for overlaps in kept]
            counts = {name: sum(each[name] for each in scores) for name in scores[0]}
            total = ObjectScores(**counts)
            rows.append(
                {"threshold": threshold, "min_area_m2": area}
                | counts
                | {"object_precision": total.precision, "object_recall": total.recall, "object_f1": total.f1}
            )
    table = pd.DataFrame(rows)
    if not table["true"].any():
        raise EvaluationError("There is no true object in these scenes, by which thresholds could be chosen.")
    own = table.iloc[n_tried] if len(table) > n_tried else None
    return ObjectChoice(table=table[:n_tried], own=own, rule=settings)


def _without_choice(
    scenes: Sequence[EvaluationScene], classes: Sequence[str] | None
) -> list[tuple[float, Sequence[float], list[RasterCase]]]:
    """What `extract_footprints` takes where nobody says anything else: threshold, least area and maps, if the scenes agree."""
    stated = []
    for scene in scenes:
        assert isinstance(scene.prediction, xr.Dataset)  # `_case` has looked
        by_objects = stated_number(scene.prediction, "outline_threshold")
        by_pixels = stated_number(scene.prediction, "threshold") if "binary" in scene.prediction else None
        stated.append((by_objects, by_objects or by_pixels, default_min_area_m2(scene.prediction)))
    by_objects, threshold, area = stated[0]
    if threshold is None or len(set(stated)) > 1:
        return []
    return [(threshold, [area], [_case(scene, classes, by_objects) for scene in scenes])]


def _case(scene: EvaluationScene, classes: Sequence[str] | None, threshold: float | None) -> RasterCase:
    case = case_of(scene, classes=classes, threshold=threshold)
    if not isinstance(case, RasterCase):
        raise EvaluationError(
            f"The prediction{of_scene(scene.name)} is outlines, which are found already: give the map itself."
        )
    if len(case.classes) > 1:
        raise EvaluationError(
            f"Threshold and least size are chosen for one class, but the prediction{of_scene(scene.name)} has {', '.join(case.classes)}: say class_name."
        )
    # Probabilities are not scored here, and would be tallied again for each threshold.
    return replace(case, probability=None)
