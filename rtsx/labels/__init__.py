"""Labels: inventories of any CRS and schema as one table, and what they say of every pixel of a raster."""

from rtsx.labels.dask import truth_array
from rtsx.labels.label_truth import LabelTruth, label_truth
from rtsx.labels.raster_truth import RasterTruth, raster_truth
from rtsx.labels.truth import IGNORED, StubTruth, Truth, TruthWindow

__all__ = [
    "IGNORED",
    "LabelTruth",
    "RasterTruth",
    "StubTruth",
    "Truth",
    "TruthWindow",
    "label_truth",
    "raster_truth",
    "truth_array",
]
