"""What is counted of a scene: all that its scores need, and what adds up to the counts of several."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from rtsx.scores import (
    AreaScores,
    BoundaryScores,
    ObjectScores,
    PixelScores,
    PixelTally,
    average_precision,
    calibration_error,
)

__all__ = ["SCORES", "ClassCounts", "SceneCounts", "Unit"]

Unit = Literal["px", "m2"]

SCORES = (
    "iou",
    "precision",
    "recall",
    "f1",
    "average_precision",
    "calibration_error",
    "boundary_iou",
    "object_precision",
    "object_recall",
    "object_f1",
)
"""Names of the scores, in the order of the tables."""

_SUMS_AT_ONCE = 64
"""Weighted sums that are in memory together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassCounts:
    """Counts of one class on some ground."""

    extent: NDArray[np.float64]
    """Hits, false alarms, misses and rejections, (4,): pixels, or m² of outlines, whose rejections are 0."""
    boundary: NDArray[np.int64]
    """Pixels in both bands and in at least one, (2,)."""
    objects: NDArray[np.int64]
    """Matched, found and true objects, (3,)."""
    tally: PixelTally | None
    """Counts by probability; None where the prediction has none."""

    def __add__(self, other: Self) -> Self:
        return next(self.weighted([self, other], np.ones((1, 2), np.int64)))

    @classmethod
    def weighted(cls, counts: Sequence[Self], weights: NDArray[np.int64]) -> Iterator[Self]:
        """Sums of at least one, (sum, counts): each taken a number of times; no tally where one has none or levels differ."""
        tallies = [each.tally for each in counts if each.tally is not None]
        has_tally = len(tallies) == len(counts) and len({each.levels for each in tallies}) == 1
        pixels = (
            np.stack([[each.target, each.other] for each in tallies]) if has_tally else np.empty((len(counts), 2, 0))
        )
        small = np.stack([np.concatenate((each.extent, each.boundary, each.objects)) for each in counts])
        columns = np.concatenate((small, pixels.reshape(len(counts), -1)), axis=1, dtype=np.float64)
        for start in range(0, len(weights), _SUMS_AT_ONCE):
            # In floating point, because that is many times faster and as exact: no count comes near to 2 ** 53.
            for row in weights[start : start + _SUMS_AT_ONCE].astype(np.float64) @ columns:
                whole = row[4:].astype(np.int64)
                target, other = whole[5:].reshape(2, -1)
                yield cls(
                    extent=row[:4],
                    boundary=whole[:2],
                    objects=whole[2:5],
                    tally=PixelTally(target=target, other=other) if has_tally else None,
                )

    @property
    def occurs(self) -> bool:
        """Whether the class is anywhere, in the truth or in the prediction."""
        return bool(self.extent[:3].any())

    def scores(self, unit: Unit) -> dict[str, float]:
        """Every score of `SCORES`; NaN where there is no such score."""
        extent: PixelScores | AreaScores
        if unit == "px":
            hits, false_alarms, misses, rejections = (int(count) for count in self.extent)
            extent = PixelScores(hits=hits, false_alarms=false_alarms, misses=misses, rejections=rejections)
        else:
            shared, false, missed, _ = (float(area) for area in self.extent)
            extent = AreaScores(shared_m2=shared, false_m2=false, missed_m2=missed)
        matched, found, true = (int(count) for count in self.objects)
        objects = ObjectScores(matched=matched, found=found, true=true)
        shared_band, either = (int(count) for count in self.boundary)
        return {
            "iou": extent.iou,
            "precision": extent.precision,
            "recall": extent.recall,
            "f1": extent.f1,
            "average_precision": float("nan") if self.tally is None else average_precision(self.tally),
            "calibration_error": float("nan") if self.tally is None else calibration_error(self.tally),
            "boundary_iou": BoundaryScores(shared=shared_band, either=either).iou,
            "object_precision": objects.precision,
            "object_recall": objects.recall,
            "object_f1": objects.f1,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneCounts:
    """Counts of all classes of one scene."""

    name: str
    """Of the scene."""
    region: str
    """What it is summed with."""
    unit: Unit
    """What its extent is counted in: pixels, or m² of outlines."""
    classes: tuple[str, ...]
    """What was judged."""
    counts: tuple[ClassCounts, ...]
    """One for each class."""
