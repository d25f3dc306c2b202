"""Terrain: relative elevation, slope and others from heights, on any grid, the same however it is cut."""

from rtsx.cube.terrain import layers as _layers  # registers the layers of the field
from rtsx.cube.terrain.grid import Ground
from rtsx.cube.terrain.layers import TERRAIN, TerrainLayer, terrain_block, terrain_halo, terrain_layer, terrain_named
from rtsx.cube.terrain.reader import TerrainReader

__all__ = [
    "TERRAIN",
    "Ground",
    "TerrainLayer",
    "TerrainReader",
    "terrain_block",
    "terrain_halo",
    "terrain_layer",
    "terrain_named",
]

del _layers
