"""The rule of a judgement: what counts as found, as matched, and how sure the scores are."""

import math
from dataclasses import dataclass

from rtsx.errors import EvaluationError

__all__ = ["JudgingRule"]


@dataclass(frozen=True, kw_only=True)
class JudgingRule:
    """Everything that scores depend on besides predictions and truth.

    Raises
    ------
    EvaluationError
        A number is out of its range.
    """

    threshold: float | None
    """Least probability, 0-1, of what counts as found; None: the prediction's own decision, its `binary`."""
    object_iou: float
    """Least IoU of a found and a true object that are the same, above 0 to 1."""
    boundary: int
    """Width of the band inside outlines that the boundary IoU looks at, px, at least 1."""
    min_object_area_m2: float
    """Smaller objects, found or true, are left out of the object scores, m²; 0 keeps all."""
    bootstrap: int
    """Times that scenes are drawn anew for the intervals; 0 gives none."""
    seed: int
    """Seed of these draws."""

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise EvaluationError(
                f"threshold is a probability from 0 to 1, not {self.threshold}: for 50 per cent give 0.5"
            )
        if not 0 < self.object_iou <= 1:
            raise EvaluationError(
                f"object_iou is the least IoU of a match, above 0 to 1, not {self.object_iou}: 0.5 is usual"
            )
        if self.boundary < 1 or self.boundary != int(self.boundary):
            raise EvaluationError(f"boundary is a whole number of pixels from 1, not {self.boundary}")
        if not (math.isfinite(self.min_object_area_m2) and self.min_object_area_m2 >= 0):
            raise EvaluationError(
                f"min_object_area_m2 is a finite area of at least 0 m², not {self.min_object_area_m2}: 0 keeps everything"
            )
        if self.bootstrap < 0 or self.bootstrap != int(self.bootstrap):
            raise EvaluationError(f"bootstrap is a whole number of draws from 0, not {self.bootstrap}")
