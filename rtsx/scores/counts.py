"""Scores of a map against the truth, from counts of pixels and objects, from ground that is shared, and along boundaries."""

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from rtsx.parsing import AfterValidator, Written

Counts = Annotated[
    NDArray[np.int64], Written(list[int] | list[list[int]]), AfterValidator(lambda given: np.array(given, np.int64))
]
"""Whole numbers; lists in a JSON document."""

LEVELS_OF_UINT8 = 100
"""Steps between probability 0 and 1 of a stored prediction, which are counted exactly."""
LEVELS_OF_FLOAT = 10_000
"""Steps to which float probabilities are rounded before they are counted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelTally:
    """Counts of pixels by truth and probability: all that pixel scores need, however large the map was.

    Tallies of parts add up to the tally of the whole, so a map is counted chunk by chunk and never held.

    Examples
    --------
    >>> tally = PixelTally.of(np.array([0.9, 0.6, 0.2, 0.7]), np.array([True, True, True, False]), levels=10)
    >>> tally.n_target, tally.n_other
    (3, 1)
    >>> tally.above(0.5)
    (2, 1)
    """

    target: Counts
    """Pixels that are the target by level of probability, int64 (levels + 1,)."""
    other: Counts
    """Pixels that are not, likewise."""

    @classmethod
    def empty(cls, *, levels: int) -> Self:
        """Begin with no pixel."""
        return cls(target=np.zeros(levels + 1, np.int64), other=np.zeros(levels + 1, np.int64))

    @classmethod
    def of(cls, probability: NDArray[np.generic], is_target: NDArray[np.bool_], *, levels: int) -> Self:
        """Count pixels.

        Parameters
        ----------
        probability
            Of the pixels that count and no others, any shape: float 0-1, or unsigned integers from 0 to `levels`.
        is_target
            Truth of the same pixels.
        levels
            Steps between 0 and 1; floats are rounded to the nearest.
        """
        raw = np.asarray(probability).ravel()
        steps = np.rint(raw.astype(np.float64) * levels).astype(np.int64) if raw.dtype.kind == "f" else raw
        truth = np.asarray(is_target, bool).ravel()
        target = np.bincount(steps[truth], minlength=levels + 1).astype(np.int64)
        other = np.bincount(steps[~truth], minlength=levels + 1).astype(np.int64)
        return cls(target=target, other=other)

    @property
    def levels(self) -> int:
        """Steps between probability 0 and 1."""
        return len(self.target) - 1

    @property
    def n_target(self) -> int:
        """Pixels that are the target."""
        return int(self.target.sum())

    @property
    def n_other(self) -> int:
        """Pixels that are not."""
        return int(self.other.sum())

    def above(self, threshold: float) -> tuple[int, int]:
        """Return pixels with at least this probability: those that are the target, and those that are not."""
        # Less a thousandth of a step, because 0.29 * 100 is 28.999999999999996 and the level 29 is meant.
        first = max(int(np.ceil(threshold * self.levels - 1e-3)), 0)
        return int(self.target[first:].sum()), int(self.other[first:].sum())

    def __add__(self, more: Self) -> Self:
        if not isinstance(more, PixelTally) or more.levels != self.levels:
            raise ValueError(f"Tallies of one map have the same levels; got {self.levels} and {more!r}.")
        return type(self)(target=self.target + more.target, other=self.other + more.other)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PixelTally):
            return NotImplemented
        return np.array_equal(self.target, other.target) and np.array_equal(self.other, other.other)

    __hash__ = None  # type: ignore[assignment]  # it holds arrays


class _Scores:
    """Scores that follow from what is shared, false and missed, of pixels or of ground."""

    @property
    def _parts(self) -> tuple[float, float, float]:
        raise NotImplementedError

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where there was nothing to find and nothing was found."""
        shared, false, missed = self._parts
        return _ratio(shared, shared + false + missed)

    @property
    def precision(self) -> float:
        """Part of what was found that is right; 1 where nothing was found."""
        shared, false, _ = self._parts
        return _ratio(shared, shared + false)

    @property
    def recall(self) -> float:
        """Part of what is there that was found; 1 where nothing is."""
        shared, _, missed = self._parts
        return _ratio(shared, shared + missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there was nothing to find and nothing was found."""
        shared, false, missed = self._parts
        return _ratio(2 * shared, 2 * shared + false + missed)


@dataclass(frozen=True, kw_only=True)
class PixelScores(_Scores):
    """Counts of pixels by truth and prediction at one threshold, and the scores that follow.

    Examples
    --------
    >>> scores = PixelScores(hits=6, false_alarms=2, misses=2, rejections=90)
    >>> scores.iou, scores.precision, scores.recall, scores.f1
    (0.6, 0.75, 0.75, 0.75)
    """

    hits: int
    """Pixels that are the target and were found."""
    false_alarms: int
    """Pixels that were found and are not the target."""
    misses: int
    """Pixels that are the target and were not found."""
    rejections: int
    """Pixels that are not the target and were not found."""

    @classmethod
    def at(cls, tally: PixelTally, threshold: float) -> Self:
        """Return scores of everything that has at least this probability."""
        hits, false_alarms = tally.above(threshold)
        return cls(
            hits=hits, false_alarms=false_alarms, misses=tally.n_target - hits, rejections=tally.n_other - false_alarms
        )

    @property
    def _parts(self) -> tuple[int, int, int]:
        return self.hits, self.false_alarms, self.misses


def average_precision(tally: PixelTally) -> float:
    """Sum over thresholds of precision, each weighted by the recall gained there; NaN where nothing is the target.

    The step-wise sum of `sklearn.metrics.average_precision_score`, without interpolation.
    """
    if not tally.n_target:
        return float("nan")
    hits = np.cumsum(tally.target[::-1])
    found = hits + np.cumsum(tally.other[::-1])
    precision = np.divide(hits, found, out=np.zeros(len(hits)), where=found > 0)
    return float((precision * np.diff(hits, prepend=0)).sum() / tally.n_target)


def calibration_error(tally: PixelTally, *, bins: int = 15) -> float:
    """Return the expected calibration error: mean distance of probability and truth over `bins` of equal width.

    Bins are closed on the right, as in Guo et al. 2017 (ICML), "On calibration of modern neural networks", for the
    probability of the target. NaN where there is no pixel.
    """
    total = tally.n_target + tally.n_other
    if not total:
        return float("nan")
    levels = np.arange(tally.levels + 1)
    # In whole numbers, because a level on the border of two bins would otherwise fall to either side.
    bin_of = np.clip(-(-levels * bins // tally.levels) - 1, 0, bins - 1)
    count = tally.target + tally.other
    confidence = np.bincount(bin_of, weights=count * levels / tally.levels, minlength=bins)
    truth = np.bincount(bin_of, weights=tally.target, minlength=bins)
    return float(np.abs(confidence - truth).sum() / total)


def best_threshold(tally: PixelTally) -> tuple[float, float]:
    """Return the threshold with the greatest IoU, and that IoU; the lowest of equals.

    0.5 where nothing is the target, because then no threshold is better than another.

    Examples
    --------
    >>> tally = PixelTally.of(np.array([0.9, 0.4, 0.2]), np.array([True, True, False]), levels=10)
    >>> best_threshold(tally)
    (0.3, 1.0)
    """
    if not tally.n_target:
        return 0.5, PixelScores.at(tally, 0.5).iou
    hits = np.cumsum(tally.target[::-1])[::-1]
    false_alarms = np.cumsum(tally.other[::-1])[::-1]
    iou = hits / (tally.n_target + false_alarms)
    # From 1 on, because a threshold of 0 finds everything, pixels of probability 0 included.
    at = 1 + int(iou[1:].argmax())
    return at / tally.levels, float(iou[at])


@dataclass(frozen=True, kw_only=True)
class AreaScores(_Scores):
    """Areas by truth and prediction, and the scores that follow; a point of ground counts once.

    Examples
    --------
    >>> scores = AreaScores(shared_m2=600.0, false_m2=200.0, missed_m2=200.0)
    >>> scores.iou, scores.precision, scores.recall, scores.f1
    (0.6, 0.75, 0.75, 0.75)
    """

    shared_m2: float
    """Ground that is the target and was found, m²."""
    false_m2: float
    """Ground that was found and is not the target, m²."""
    missed_m2: float
    """Ground that is the target and was not found, m²."""

    @property
    def _parts(self) -> tuple[float, float, float]:
        return self.shared_m2, self.false_m2, self.missed_m2


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
        """Return the intersection over union (k,) of each pair."""
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


def _ratio(part: float, whole: float) -> float:
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
