"""Labels: inventories of any CRS and schema as one table, and what they say of every pixel of a raster."""

from rtsx.labels.inventory import Inventory, read_labels, standardise_labels
from rtsx.labels.io import write_labels
from rtsx.labels.label_rasters import LabelTruth, RasterTruth, label_truth, raster_truth
from rtsx.labels.report import Finding, LabelReport
from rtsx.labels.schema import LABEL_COLUMNS, validate_labels
from rtsx.labels.truth import IGNORED, StubTruth, Truth, TruthWindow, truth_array

__all__ = [
    "IGNORED",
    "LABEL_COLUMNS",
    "Finding",
    "Inventory",
    "LabelReport",
    "LabelTruth",
    "RasterTruth",
    "StubTruth",
    "Truth",
    "TruthWindow",
    "label_truth",
    "raster_truth",
    "read_labels",
    "standardise_labels",
    "truth_array",
    "validate_labels",
    "write_labels",
]
