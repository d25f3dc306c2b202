"""A spec refuses what cannot be made, and says why."""

import pytest

from rtsx.errors import CubeError
from rtsx.synthetic import GroundSpec, SceneSpec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 32}, "at least 64 px .* got 32"),
        ({"seed": -1}, "seed of at least 0; got .*-1"),
        ({"tilt_deg": 60}, "tilt_deg 0-45"),
        ({"cloud_cover": 1}, "cloud_cover 0-0.9"),
        ({"dem_resolution_m": 5}, "2, 10 or 32 m; got dem_resolution_m=5"),
    ],
)
def test_a_scene_that_no_sensor_could_see_is_refused(change, message):
    with pytest.raises(CubeError, match=message):
        SceneSpec(**{"seed": 1, **change})


@pytest.mark.parametrize("size", [248, 260])
def test_a_ground_off_the_drainage_lattice_is_refused(size):
    with pytest.raises(CubeError, match=f"multiple of 8 px of at least 256; got {size}"):
        GroundSpec(seed=1, crs="EPSG:32608", left=0, top=0, size=size)


def test_the_ground_surrounds_its_scene():
    spec = SceneSpec(seed=1, size=500, left=600_000, top=7_000_000)
    ground = spec.ground_spec
    assert ground.left < spec.left
    assert ground.top > spec.top
    assert ground.left + 3 * ground.size > spec.left + 3 * spec.size
    assert ground.top - 3 * ground.size < spec.top - 3 * spec.size
    assert spec.on_ground(ground).ground_spec == ground
