"""Divide a raster into overlapping tiles, with the weights by which their outputs are blended."""

from rtsx.tiling.blending import BLENDS, Blend, reflect_pad
from rtsx.tiling.plan import Tile, TileAxis, TilePlan, TileRange

__all__ = ["BLENDS", "Blend", "Tile", "TileAxis", "TilePlan", "TileRange", "reflect_pad"]
