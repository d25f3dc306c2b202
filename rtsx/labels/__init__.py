"""Labels: inventories of any CRS and schema as one table, and what they say of every pixel of a raster."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.labels.inventory import Inventory, read_labels, standardise_labels
    from rtsx.labels.io import write_labels
    from rtsx.labels.label_rasters import RasterizedLabels, RasterLabels, open_label_raster, rasterize_labels
    from rtsx.labels.rasterize import IGNORED, LabelRaster, StubLabelRaster, TruthWindow, truth_array
    from rtsx.labels.schema import LABEL_COLUMNS, Issue, LabelReport, validate_labels

__getattr__ = lazy(
    __name__,
    renamed={
        "Finding": "Issue",
        "LabelTruth": "RasterizedLabels",
        "RasterTruth": "RasterLabels",
        "Truth": "LabelRaster",
        "label_truth": "rasterize_labels",
        "raster_truth": "open_label_raster",
    },
)
