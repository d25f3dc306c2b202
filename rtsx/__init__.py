"""Maps retrogressive thaw slumps, or any other object, over satellite data cubes of any size.

The public names load when they are first used, so that `import rtsx` costs next to nothing: no torch, no rasterio, no
distributed until something needs them.

Examples
--------
>>> import rtsx
>>> rtsx.Grid.arctic(resolution=3).crs
'EPSG:3413'
"""

from typing import TYPE_CHECKING

from rtsx.names import lazy
from rtsx.threads import restart_dask_after_forks

if TYPE_CHECKING:
    from rtsx.campaign import Campaign
    from rtsx.config import build_cube, load_campaign, load_cube_recipe, open_cube, train_bundle, view
    from rtsx.cube import Layer, export_cog, validate_cube, write_cube
    from rtsx.evaluation import cross_validate, evaluate
    from rtsx.footprints import extract_footprints, track_footprints, validate_footprints, write_footprints
    from rtsx.grid import Cell, Grid
    from rtsx.inference import predict_cube
    from rtsx.labels import read_labels, standardise_labels, validate_labels, write_labels
    from rtsx.model import InputLayer, ModelBundle
    from rtsx.progress import show_progress
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
    "show_progress",
    "standardise_labels",
    "track_footprints",
    "train_bundle",
    "validate_cube",
    "validate_footprints",
    "validate_labels",
    "view",
    "write_cube",
    "write_footprints",
    "write_labels",
]

__getattr__ = lazy(__name__)

restart_dask_after_forks()
