"""Terrain: relative elevation, slope and others from heights, on any grid, the same however it is cut."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.cube.recipe import TerrainLayer
    from rtsx.cube.terrain.grid import TerrainGrid
    from rtsx.cube.terrain.layers import TERRAIN, TerrainReader, get_terrain, terrain_block, terrain_halo, terrain_layer

__getattr__ = lazy(__name__)
