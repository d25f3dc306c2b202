"""How an answer compares with the truth, counted: numbers in, numbers out; nothing here knows a network or a map."""

from rtsx.scores.agreement import AgreementCounts, majority
from rtsx.scores.area import AreaScores
from rtsx.scores.boundary import BoundaryScores, boundary_band
from rtsx.scores.objects import ObjectOverlaps, ObjectScores
from rtsx.scores.pixel import PixelScores, average_precision, best_threshold, calibration_error
from rtsx.scores.resampling import percentile_interval, resamples
from rtsx.scores.tally import LEVELS_OF_FLOAT, LEVELS_OF_UINT8, PixelTally

__all__ = [
    "LEVELS_OF_FLOAT",
    "LEVELS_OF_UINT8",
    "AgreementCounts",
    "AreaScores",
    "BoundaryScores",
    "ObjectOverlaps",
    "ObjectScores",
    "PixelScores",
    "PixelTally",
    "average_precision",
    "best_threshold",
    "boundary_band",
    "calibration_error",
    "majority",
    "percentile_interval",
    "resamples",
]
