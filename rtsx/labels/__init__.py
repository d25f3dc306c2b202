"""Labels: inventories of any CRS and schema as one table, and what they say of every pixel of a raster."""

from rtsx.labels.dask import truth_array
from rtsx.labels.inventory import Inventory, standardise_labels
from rtsx.labels.label_truth import LabelTruth, label_truth
from rtsx.labels.opening import read_labels
from rtsx.labels.raster_truth import RasterTruth, raster_truth
from rtsx.labels.report import Finding, LabelReport
from rtsx.labels.schema import LABEL_COLUMNS, validate_labels
from rtsx.labels.truth import IGNORED, StubTruth, Truth, TruthWindow
from rtsx.labels.writing import write_labels

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
