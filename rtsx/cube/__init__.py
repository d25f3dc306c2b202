"""The cube: sources, layers and masks as one lazy `xarray.Dataset`, and writing it."""

from rtsx.cube.cog import export_cog
from rtsx.cube.georeference import geobox_of, lattice_origin
from rtsx.cube.layer import Layer
from rtsx.cube.masks import MASK_RULES, MaskRule, apply_mask, quality_level
from rtsx.cube.ndvi import add_ndvi
from rtsx.cube.opening import open_cube
from rtsx.cube.packing import packing
from rtsx.cube.sensor import SENSORS, Sensor
from rtsx.cube.validation import layer_names, validate_cube
from rtsx.cube.writing import write_cube

__all__ = [
    "MASK_RULES",
    "SENSORS",
    "Layer",
    "MaskRule",
    "Sensor",
    "add_ndvi",
    "apply_mask",
    "export_cog",
    "geobox_of",
    "lattice_origin",
    "layer_names",
    "open_cube",
    "packing",
    "quality_level",
    "validate_cube",
    "write_cube",
]
