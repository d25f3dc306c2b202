"""Division of a raster into overlapping tiles, and the weights with which their answers are put together."""

from rtsx.tiling.blending import BLENDS, Blend, reflect_pad
from rtsx.tiling.plan import Tile, TileAxis, TilePlan, TileRange

__all__ = ["BLENDS", "Blend", "Tile", "TileAxis", "TilePlan", "TileRange", "reflect_pad"]
