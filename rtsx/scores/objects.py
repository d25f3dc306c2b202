"""Scores of objects matched one to one, and boundary IoU, where the area of large objects hides mistakes."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ObjectScores:
    """Counts of objects, and the scores that follow.

    Examples
    --------
    >>> scores = ObjectScores(matched=3, found=4, true=6)
    >>> scores.precision, scores.recall, scores.f1
    (0.75, 0.5, 0.6)
    """

    matched: int
    """Pairs of a found and a true object."""
    found: int
    """Objects that were found."""
    true: int
    """Objects that are there."""

    @property
    def precision(self) -> float:
        """Part of the found objects that are true; 1 where nothing was found."""
        return _ratio(self.matched, self.found)

    @property
    def recall(self) -> float:
        """Part of the true objects that were found; 1 where there are none."""
        return _ratio(self.matched, self.true)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there was nothing to find and nothing was found."""
        return _ratio(2 * self.matched, self.found + self.true)


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectOverlaps:
    """Objects of two maps and how much of each other they cover, in pixels or m².

    Examples
    --------
    Two found halves of one true object: only one of them can be it.

    >>> overlaps = ObjectOverlaps(
    ...     found=np.array([50.0, 50.0]),
    ...     true=np.array([100.0]),
    ...     pairs=np.array([[0, 0], [1, 0]]),
    ...     shared=np.array([50.0, 50.0]),
    ... )
    >>> overlaps.match(0.5)
    ObjectScores(matched=1, found=2, true=1)
    """

    found: NDArray[np.float64]
    """(n,) sizes of the found objects."""
    true: NDArray[np.float64]
    """(m,) sizes of the true objects."""
    pairs: NDArray[np.int64]
    """(k, 2): number of a found and of a true object that share something, each pair once."""
    shared: NDArray[np.float64]
    """(k,) size of what they share."""

    def at_least(self, size: float, *, found: float = 0.0) -> "ObjectOverlaps":
        """Return the objects of at least a size, the found ones also of at least `found`."""
        kept = (self.found >= max(size, found), self.true >= size)
        chosen = kept[0][self.pairs[:, 0]] & kept[1][self.pairs[:, 1]]
        numbers = [np.cumsum(each) - 1 for each in kept]
        pairs = np.column_stack([number[self.pairs[chosen, side]] for side, number in enumerate(numbers)])
        return ObjectOverlaps(
            found=self.found[kept[0]], true=self.true[kept[1]], pairs=pairs, shared=self.shared[chosen]
        )

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union (k,) of each pair."""
        union = self.found[self.pairs[:, 0]] + self.true[self.pairs[:, 1]] - self.shared
        return np.asarray(self.shared / union)

    def match(self, iou: float) -> ObjectScores:
        """Match one to one as many pairs as can be that have at least this IoU, above 0 to 1.

        Above 0.5 an object has at most one partner; at 0.5 and below it may have several, and taking the best first can
        leave two without one that a maximum matching serves. The number of pairs does not depend on ties.
        """
        chosen = self.pairs[self.iou() >= iou]
        links = scipy.sparse.csr_array(
            (np.ones(len(chosen), bool), (chosen[:, 0], chosen[:, 1])), shape=(len(self.found), len(self.true))
        )
        partner = scipy.sparse.csgraph.maximum_bipartite_matching(links, perm_type="column") if len(chosen) else []
        matched = int(np.count_nonzero(np.asarray(partner) >= 0))
        return ObjectScores(matched=matched, found=len(self.found), true=len(self.true))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


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


def boundary_buffer(mask: Mask, counts: Mask, *, distance: int) -> Mask:
    """Return pixels of a mask that lie within `distance` of its outline.

    The band of Cheng et al. 2021 (CVPR), "Boundary IoU: Improving object-centric image segmentation evaluation": the mask
    less its erosion by `distance` steps of a 3 x 3 square, which are king's moves. They take 2 % of the image's diagonal
    for the distance; a map has no diagonal that means anything, so it is given in pixels. They also count the border of
    the image as an outline. Here only a pixel that counts and is not in the mask makes one: where an object meets
    ground that does not count, or the end of the data, its outline is unknown.

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
    >>> int(boundary_buffer(mask, np.ones_like(mask), distance=1).sum())
    16
    """
    inside = mask & counts
    return inside & near_any(np.pad(counts & ~mask, distance), reach=distance) if inside.any() else inside


def near_any(marked: Mask, *, reach: int) -> Mask:
    """Return where a marked pixel is at most `reach` king's moves away, for all pixels but a frame of that width."""
    near = marked
    for axis in (0, 1):
        # Runs of doubling length, instead of a rank filter, because a few whole-array ORs are many times faster.
        run, rows = 1, near if axis == 0 else near.T
        while run < 2 * reach + 1:
            more = min(run, 2 * reach + 1 - run)
            rows = rows[:-more] | rows[more:]
            run += more
        near = rows if axis == 0 else rows.T
    return near
