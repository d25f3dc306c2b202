"""How an answer compares with the truth, counted: numbers in, numbers out; nothing here knows a network or a map."""

from rtsx.scores.pixel import PixelScores, average_precision, best_threshold, calibration_error
from rtsx.scores.tally import LEVELS_OF_FLOAT, LEVELS_OF_UINT8, PixelTally

__all__ = [
    "LEVELS_OF_FLOAT",
    "LEVELS_OF_UINT8",
    "PixelScores",
    "PixelTally",
    "average_precision",
    "best_threshold",
    "calibration_error",
]
