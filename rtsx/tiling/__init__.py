"""Divide a raster into overlapping tiles, with the weights by which their outputs are blended."""

from rtsx.tiling.plan import BLENDS, Blend, Tile, TileAxis, TilePlan, TileRange, reflect_pad

__all__ = ["BLENDS", "Blend", "Tile", "TileAxis", "TilePlan", "TileRange", "reflect_pad"]
