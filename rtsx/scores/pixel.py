"""Scores of a map, pixel by pixel: pure functions of a tally."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from rtsx.scores.tally import PixelTally

__all__ = ["PixelScores", "average_precision", "best_threshold", "calibration_error"]


@dataclass(frozen=True, kw_only=True)
class PixelScores:
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
        """Scores of everything that has at least this probability."""
        hits, false_alarms = tally.above(threshold)
        return cls(
            hits=hits,
            false_alarms=false_alarms,
            misses=tally.n_target - hits,
            rejections=tally.n_other - false_alarms,
        )

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where there was nothing to find and nothing was found."""
        return _ratio(self.hits, self.hits + self.false_alarms + self.misses)

    @property
    def precision(self) -> float:
        """Part of the found pixels that are right; 1 where nothing was found."""
        return _ratio(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        """Part of the true pixels that were found; 1 where there are none."""
        return _ratio(self.hits, self.hits + self.misses)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there was nothing to find and nothing was found."""
        return _ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)


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
    """Expected calibration error: mean distance of probability and truth over `bins` of equal width.

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
    """Threshold with the greatest IoU, and that IoU; the lowest of equals.

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


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
