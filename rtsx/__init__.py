"""Maps retrogressive thaw slumps, or any other object, over satellite data cubes of any size.

The public names load when they are first used, so that `import rtsx` costs next to nothing: no torch, no rasterio, no
distributed until something needs them.

Examples
--------
>>> import rtsx
>>> rtsx.Grid.arctic(resolution=3).crs
'EPSG:3413'
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtsx.campaign import Campaign
    from rtsx.config import build_cube, load_campaign, load_cube_recipe, open_cube, train_bundle
    from rtsx.cube import Layer, export_cog, validate_cube, write_cube
    from rtsx.evaluation import cross_validate, evaluate
    from rtsx.footprints import extract_footprints, track_footprints, validate_footprints, write_footprints
    from rtsx.grid import Cell, Grid
    from rtsx.inference import predict_cube
    from rtsx.labels import read_labels, standardise_labels, validate_labels, write_labels
    from rtsx.model import InputLayer, ModelBundle
    from rtsx.tiling import TilePlan

__version__ = "0.1.0"

__all__ = [
    "Campaign",
    "Cell",
    "Grid",
    "InputLayer",
    "Layer",
    "ModelBundle",
    "TilePlan",
    "__version__",
    "build_cube",
    "cross_validate",
    "evaluate",
    "export_cog",
    "extract_footprints",
    "load_campaign",
    "load_cube_recipe",
    "open_cube",
    "predict_cube",
    "read_labels",
    "standardise_labels",
    "track_footprints",
    "train_bundle",
    "validate_cube",
    "validate_footprints",
    "validate_labels",
    "write_cube",
    "write_footprints",
    "write_labels",
]

_HOMES = {
    "Campaign": "rtsx.campaign",
    "Cell": "rtsx.grid",
    "Grid": "rtsx.grid",
    "InputLayer": "rtsx.model",
    "Layer": "rtsx.cube",
    "ModelBundle": "rtsx.model",
    "TilePlan": "rtsx.tiling",
    "build_cube": "rtsx.config",
    "cross_validate": "rtsx.evaluation",
    "evaluate": "rtsx.evaluation",
    "export_cog": "rtsx.cube",
    "extract_footprints": "rtsx.footprints",
    "load_campaign": "rtsx.config",
    "load_cube_recipe": "rtsx.config",
    "open_cube": "rtsx.config",
    "predict_cube": "rtsx.inference",
    "read_labels": "rtsx.labels",
    "standardise_labels": "rtsx.labels",
    "track_footprints": "rtsx.footprints",
    "train_bundle": "rtsx.config",
    "validate_cube": "rtsx.cube",
    "validate_footprints": "rtsx.footprints",
    "validate_labels": "rtsx.labels",
    "write_cube": "rtsx.cube",
    "write_footprints": "rtsx.footprints",
    "write_labels": "rtsx.labels",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it, once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rtsx' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
