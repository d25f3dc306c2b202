import numpy as np
import pytest

from rtsx.errors import TrainingError
from rtsx.model.metadata import QUANTILES
from rtsx.training.dataset import TileReader
from rtsx.training.scene_arrays import every_layer
from rtsx.training.statistics import MEASURED_TILES, measured_distributions, measured_inputs, measured_tiles
from rtsx.training.tile_index import index_tiles
from tests.training.little import make_scene


def measure(scenes, *, tile=32):  # type: ignore[no-untyped-def]
    inputs = every_layer(scenes[0])
    index = index_tiles(scenes, inputs=inputs, tile=tile, min_valid=0.05)
    reader = TileReader(scenes, inputs=inputs, tile=tile, cache_bytes=0)
    return measured_inputs(reader, measured_tiles(index), names=["red", "nir"])


def test_mean_and_deviation_are_those_of_the_valid_pixels() -> None:
    scene = make_scene(size=64)
    valid = (scene.cube["red"] != 0).values & (scene.cube["nir"] != 0).values
    layers = measure([scene], tile=64)
    for layer in layers:
        physical = scene.cube[layer.name].values[valid].astype(np.float64) * 1e-4
        assert 1 / layer.scale == pytest.approx(physical.std(), rel=1e-6)
        assert -layer.offset / layer.scale == pytest.approx(physical.mean(), rel=1e-6)


def test_distributions_are_those_of_the_valid_pixels() -> None:
    scene = make_scene(size=64)
    inputs = every_layer(scene)
    tiles = measured_tiles(index_tiles([scene], inputs=inputs, tile=64, min_valid=0.05))
    found = measured_distributions(TileReader([scene], inputs=inputs, tile=64, cache_bytes=0), tiles)
    valid = (scene.cube["red"] != 0).values & (scene.cube["nir"] != 0).values
    physical = scene.cube["nir"].values[valid].astype(np.float64) * 1e-4
    assert found["nir"].mean == pytest.approx(physical.mean(), rel=1e-6)
    assert found["nir"].quantiles == pytest.approx(np.quantile(physical, QUANTILES), rel=1e-6)


def test_what_hides_under_invalid_pixels_changes_nothing() -> None:
    scene = make_scene(size=64)
    before = measure([scene])
    hidden = (scene.cube["red"] == 0).values
    scene.cube["nir"].values[hidden] = 60_000
    assert measure([scene]) == before


def test_a_layer_with_one_value_is_refused() -> None:
    scene = make_scene(size=64)
    scene.cube["red"].values[:] = 700
    with pytest.raises(TrainingError, match=r"Layers \['red'\] have one value.*Leave them out, or say inputs="):
        measure([scene])


def test_large_regions_are_measured_on_some_tiles() -> None:
    scenes = [make_scene(name, size=200) for name in ("one", "two")]
    index = index_tiles(scenes, inputs=None, tile=16, min_valid=0.05)
    tiles = measured_tiles(index)
    assert len(tiles) == len(set(tiles)) == MEASURED_TILES
    assert {tile.scene for tile in tiles} == {0, 1}
