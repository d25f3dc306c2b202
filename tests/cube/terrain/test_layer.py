"""The list of terrain layers, and adding one."""

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.terrain import (
    TERRAIN,
    TerrainGrid,
    TerrainLayer,
    get_terrain,
    terrain_block,
    terrain_halo,
    terrain_layer,
)
from rtsx.errors import CubeError

GROUND = TerrainGrid.from_geobox(GeoBox((9, 8), Affine(2, 0, 1000, 0, -5, 5000), "EPSG:3413"))


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    before = dict(TERRAIN)
    yield
    TERRAIN.clear()
    TERRAIN.update(before)


def spread(dem: NDArray[np.float32], ground: TerrainGrid) -> NDArray[np.float32]:
    return (dem - np.roll(dem, 1, axis=1)) / np.float32(ground.widths_m()[0])


def test_the_layers_of_the_field_are_there() -> None:
    assert {"dem", "relative_elevation", "slope", "aspect", "hillshade", "curvature"} <= set(TERRAIN)
    for layer in TERRAIN.values():
        assert layer.units
        assert layer.long_name
        assert pickle.loads(pickle.dumps(layer)) == layer
    assert [layer.name for layer in TERRAIN.values() if layer.is_angle] == ["aspect"]


def test_a_user_adds_a_layer() -> None:
    assert terrain_layer("spread", units="1", halo_m=30)(spread) is spread
    layer = get_terrain("spread")
    assert layer == TerrainLayer(name="spread", units="1", kernel=spread, long_name="spread", halo_m=30)
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert layer.halo(GROUND) == (6, 15)
    assert terrain_halo(["slope", layer], GROUND) == 15
    assert terrain_halo([], GROUND) == 0
    dem = np.tile(np.arange(8) * 4.0, (9, 1))
    dem[4, 4] = np.nan
    made = terrain_block(dem, np.isfinite(dem), ground=GROUND, layers=["spread"], halo=1)
    assert made.shape == (1, 7, 6)
    assert made[0, 0, 0] == 2
    assert np.isnan(made[0, 3, 3])


def test_a_name_belongs_to_one_function() -> None:
    terrain_layer("spread", units="1")(spread)
    terrain_layer("spread", units="m")(spread)
    assert get_terrain("spread").units == "m"
    with pytest.raises(
        CubeError, match=r"'slope' is taken by rtsx\.cube\.terrain\.layers\.slope; .*spread needs another"
    ):
        terrain_layer("slope", units="1")(spread)


def test_what_is_unknown_or_cannot_be_is_told() -> None:
    with pytest.raises(CubeError, match=r"Known terrain layers are \['aspect', .*got 'slop'. Did you mean 'slope'\?"):
        get_terrain("slop")
    with pytest.raises(CubeError, match="halo_m and halo_px of 0 or more"):
        TerrainLayer(name="x", units="m", kernel=spread, halo_m=-1)
    with pytest.raises(CubeError, match=r"one shape \(y, x\); got \(9, 8\), \(9, 8\) and \(9, 7\)"):
        terrain_block(
            np.zeros((9, 8)),
            np.ones((9, 8), bool),
            ground=GROUND.window(slice(0, 9), slice(0, 7)),
            layers=["dem"],
            halo=0,
        )
    cut = TerrainLayer(name="cut", units="m", kernel=lambda dem, ground: dem[1:])
    with pytest.raises(CubeError, match=r"'cut' returns its input's shape \(9, 8\); got \(8, 8\)"):
        terrain_block(np.zeros((9, 8)), np.ones((9, 8), bool), ground=GROUND, layers=[cut], halo=0)
