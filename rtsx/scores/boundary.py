"""Boundary IoU: how well two masks agree near their outlines, where the area of large objects hides mistakes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoundaryScores", "boundary_band"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class BoundaryScores:
    """Pixels of the bands that lie inside the outlines of two masks.

    Examples
    --------
    >>> BoundaryScores(shared=30, either=40).iou
    0.75
    """

    shared: int
    """Pixels in both bands."""
    either: int
    """Pixels in at least one."""

    @property
    def iou(self) -> float:
        """Boundary IoU (Cheng et al. 2021); NaN where neither mask has an outline."""
        return self.shared / self.either if self.either else float("nan")


def boundary_band(mask: Mask, counts: Mask, *, distance: int) -> Mask:
    """Pixels of a mask that lie within `distance` of its outline.

    The band of Cheng et al. 2021 (CVPR), "Boundary IoU: Improving object-centric image segmentation evaluation": the mask
    less its erosion by `distance` steps of a 3 x 3 square, which are king's moves. They take 2 % of the image's diagonal
    for the distance; a map has no diagonal that means anything, so it is given in pixels. They also count the border of
    the image as an outline. Here only a pixel that counts and is not in the mask makes one: where an object meets
    ground that nobody judges, or the end of the data, its outline is unknown.

    Parameters
    ----------
    mask
        (y, x); values where `counts` is False do not matter.
    counts
        (y, x), True where truth and prediction are both known.
    distance
        Pixels, at least 1. The band at a pixel depends on pixels up to this far away.

    Examples
    --------
    >>> mask = np.pad(np.ones((5, 5), bool), 1)
    >>> int(boundary_band(mask, np.ones_like(mask), distance=1).sum())
    16
    """
    inside = mask & counts
    return inside & _near(counts & ~mask, distance) if inside.any() else inside


def _near(marked: Mask, reach: int) -> Mask:
    """Whether a marked pixel is at most `reach` king's moves away."""
    near = np.pad(marked, reach)
    for axis in (0, 1):
        # Runs of doubling length, instead of a rank filter, because a few whole-array ORs are many times faster.
        run, rows = 1, near if axis == 0 else near.T
        while run < 2 * reach + 1:
            more = min(run, 2 * reach + 1 - run)
            rows = rows[:-more] | rows[more:]
            run += more
        near = rows if axis == 0 else rows.T
    return near
