"""How a result compares with the truth, counted: numbers in, numbers out; nothing here knows a network or a map."""

from rtsx.scores.agreement import AgreementCounts, Kappa, bootstrap_indices, cohens_kappa, majority, percentile_interval
from rtsx.scores.counts import (
    LEVELS_OF_FLOAT,
    LEVELS_OF_UINT8,
    AreaScores,
    BoundaryScores,
    ObjectOverlaps,
    ObjectScores,
    PixelScores,
    PixelTally,
    average_precision,
    best_threshold,
    boundary_buffer,
    calibration_error,
)

__all__ = [
    "LEVELS_OF_FLOAT",
    "LEVELS_OF_UINT8",
    "AgreementCounts",
    "AreaScores",
    "BoundaryScores",
    "Kappa",
    "ObjectOverlaps",
    "ObjectScores",
    "PixelScores",
    "PixelTally",
    "average_precision",
    "best_threshold",
    "bootstrap_indices",
    "boundary_buffer",
    "calibration_error",
    "cohens_kappa",
    "majority",
    "percentile_interval",
]
