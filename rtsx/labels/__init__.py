"""Labels: inventories of any CRS and schema as one table, and what they say of every pixel of a raster."""

from rtsx.labels.truth import IGNORED, StubTruth, Truth, TruthWindow

__all__ = ["IGNORED", "StubTruth", "Truth", "TruthWindow"]
