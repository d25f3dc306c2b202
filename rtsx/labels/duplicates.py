"""Outlines that were drawn twice on one image."""

from collections.abc import Hashable, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from rtsx.labels.report import Finding

__all__ = ["NEARLY_SAME", "duplicates"]

NEARLY_SAME = 0.95
"""Intersection over union above which two outlines of one class, image and creator are one."""

_SAME = 1 - 1e-9


def duplicates(outlines: NDArray[np.object_], keys: Sequence[Hashable], *, names: Sequence[str]) -> list[Finding]:
    """Find outlines that repeat an earlier one of the same key, exactly or nearly.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(n,)` valid Polygons or MultiPolygons in one CRS.
    keys : sequence
        `(n,)`, equal where two outlines can be one: class, image and creator. The same slump on another date is another.
    names : sequence of str
        `(n,)`, what the finding calls the earlier one.

    Returns
    -------
    list of Finding
        One for each outline to drop; `row` is its place in `outlines`. Of a chain of near repeats the first stays, and each
        is held to those that stay.
    """
    _, codes = np.unique([hash(key) for key in keys], return_inverse=True) if len(keys) else (None, np.empty(0, int))
    area = shapely.area(outlines)
    later, earlier = shapely.STRtree(outlines).query(outlines)
    ratio = np.minimum(area[later], area[earlier]) / np.maximum(area[later], area[earlier])
    possible = (earlier < later) & (codes[later] == codes[earlier]) & (ratio > NEARLY_SAME)
    later, earlier = later[possible], earlier[possible]
    shared = shapely.area(shapely.intersection(outlines[later], outlines[earlier]))
    overlap = shared / (area[later] + area[earlier] - shared)
    order = np.lexsort((earlier, later))
    dropped: dict[int, Finding] = {}
    for row, first, iou in zip(later[order].tolist(), earlier[order].tolist(), overlap[order].tolist(), strict=True):
        if iou > NEARLY_SAME and row not in dropped and first not in dropped and keys[row] == keys[first]:
            problem, how = (
                ("duplicate", "the same as")
                if iou > _SAME
                else ("near duplicate", f"IoU {np.floor(1000 * iou) / 1000:.3f} with")
            )
            detail = f"{how} {names[first]}: same class, image and creator"
            dropped[row] = Finding(row=row, problem=problem, action="dropped", detail=detail)
    return list(dropped.values())
