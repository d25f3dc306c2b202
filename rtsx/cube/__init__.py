"""The cube: sources, layers and masks as one lazy, aligned `xarray.Dataset`, and writing it."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.cube.cog import export_cog
    from rtsx.cube.conventions import as_cube, as_stored, class_names, layer_names, validate_cube
    from rtsx.cube.derived import add_derived, add_ndvi, derived_layer, get_derived
    from rtsx.cube.encoding import packing
    from rtsx.cube.erosion import erode_quality
    from rtsx.cube.file_images import FileImages, StoreImages
    from rtsx.cube.georeference import GRID_MAPPING, geobox_of, lattice_origin, pixel_m
    from rtsx.cube.images import BandRequest, BandSource, GivenImages, Image, ImageSource, Period
    from rtsx.cube.mask_rules import MASK_RULES, MaskRule, mask_rule, quality_level
    from rtsx.cube.open import apply_mask, open_source
    from rtsx.cube.rasters import Layer
    from rtsx.cube.recipe import (
        CubeRecipe,
        DerivedLayer,
        LayerRecipe,
        QualityRecipe,
        SourceRecipe,
        TerrainLayer,
        TrendRecipe,
    )
    from rtsx.cube.sensors import SENSORS, Sensor
    from rtsx.cube.terrain import TERRAIN, get_terrain, terrain_layer
    from rtsx.cube.write import write_cube

__getattr__ = lazy(__name__, renamed={"AssetBands": "BandSource", "Wanted": "BandRequest", "open_cube": "open_source"})
