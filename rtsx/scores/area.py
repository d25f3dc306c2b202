"""Scores of outlines by the ground that they share."""

from dataclasses import dataclass

__all__ = ["AreaScores"]


@dataclass(frozen=True, kw_only=True)
class AreaScores:
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
    def iou(self) -> float:
        """Intersection over union; 1 where there was nothing to find and nothing was found."""
        return _ratio(self.shared_m2, self.shared_m2 + self.false_m2 + self.missed_m2)

    @property
    def precision(self) -> float:
        """Part of the found ground that is right; 1 where nothing was found."""
        return _ratio(self.shared_m2, self.shared_m2 + self.false_m2)

    @property
    def recall(self) -> float:
        """Part of the true ground that was found; 1 where there is none."""
        return _ratio(self.shared_m2, self.shared_m2 + self.missed_m2)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there was nothing to find and nothing was found."""
        return _ratio(2 * self.shared_m2, 2 * self.shared_m2 + self.false_m2 + self.missed_m2)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
