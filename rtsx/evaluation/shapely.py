"""Outlines against outlines: exact by geometry, measured on the ground."""

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import EvaluationError, LabelError
from rtsx.evaluation.cases import OutlineCase
from rtsx.evaluation.counts import ClassCounts
from rtsx.evaluation.pyproj import equal_area, to_plane
from rtsx.evaluation.rule import JudgingRule
from rtsx.scores import ObjectOverlaps

__all__ = ["judge_outlines"]


def judge_outlines(case: OutlineCase, *, rule: JudgingRule) -> tuple[ClassCounts]:
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
        raise EvaluationError(f"Scene {case.name!r} has neither found nor true outlines: there is nothing to judge.")
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
