"""Division of a raster into overlapping tiles, and the weights with which their answers are put together."""

from rtsx.tiling.axis import TileAxis
from rtsx.tiling.plan import TilePlan, TileRange
from rtsx.tiling.reflection import reflected
from rtsx.tiling.tile import Tile
from rtsx.tiling.weights import BLENDS, Blend

__all__ = ["BLENDS", "Blend", "Tile", "TileAxis", "TilePlan", "TileRange", "reflected"]
