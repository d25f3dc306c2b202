"""A spec refuses what cannot be made, and says why."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from rtsx.errors import CubeError
from rtsx.synthetic import LANDSCAPES, LandscapeSpec, SceneSpec, make_ground, placed_apart, varied_spec


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
        LandscapeSpec(seed=1, crs="EPSG:32608", left=0, top=0, size=size)


def test_the_ground_surrounds_its_scene():
    spec = SceneSpec(seed=1, size=500, left=600_000, top=7_000_000)
    ground = spec.ground_spec
    assert ground.left < spec.left
    assert ground.top > spec.top
    assert ground.left + 3 * ground.size > spec.left + 3 * spec.size
    assert ground.top - 3 * ground.size < spec.top - 3 * spec.size
    assert spec.on_ground(ground).ground_spec == ground


GROUND = LandscapeSpec(seed=3, crs="EPSG:32608", left=520_200, top=7_482_600, size=512, slumps_per_km2=4.0)


def inside_and_around(landscape: str) -> tuple[float, float, float]:
    """Mean red inside slumps and around them on land, and the spread of elevation."""
    ground = make_ground(replace(GROUND, landscape=landscape))
    inside = np.zeros(ground.water.shape, bool)
    for scar in ground.scars:
        if scar.is_active:
            x, y = np.asarray(scar.polygon.representative_point().coords[0]).astype(int)
            inside[y - 2 : y + 3, x - 2 : x + 3] = True
    red, land = ground.reflectance[2], ground.water == 0
    return float(red[inside & land].mean()), float(red[~inside & land].mean()), float(np.ptp(ground.elevation))


def test_slumps_are_bright_on_lush_ground_and_dark_on_bare_ground() -> None:
    inside, around, _ = inside_and_around("plateau")
    assert inside > around
    inside, around, _ = inside_and_around("polar-desert")
    assert inside < around


def test_lowlands_are_flat() -> None:
    heights = {name: inside_and_around(name)[2] for name in LANDSCAPES}
    assert heights["yedoma"] < heights["polar-desert"] < heights["plateau"]


@pytest.mark.parametrize(
    "make", [lambda: replace(GROUND, landscape="taiga"), lambda: SceneSpec(seed=1, landscape="taiga")]
)
def test_an_unknown_landscape_is_refused(make) -> None:
    with pytest.raises(CubeError, match=r"one of plateau, polar-desert, yedoma; got 'taiga'"):
        make()


def test_scenes_differ_in_day_and_sky() -> None:
    specs = [varied_spec(seed) for seed in range(1000, 1010)]
    assert len({spec.date for spec in specs}) > 5
    assert len({spec.cloud_cover for spec in specs}) == 10
    assert all(0 <= spec.cloud_cover <= 0.08 and 0 <= spec.haze <= 0.06 for spec in specs)
    assert {spec.date.month for spec in specs} <= {7, 8}


def test_a_seed_means_one_scene() -> None:
    spec = varied_spec(1000, size=256, slumps_per_km2=2.0, region="Peel")
    assert spec == varied_spec(1000, size=256, slumps_per_km2=2.0, region="Peel")
    same = SceneSpec(seed=1000, size=256, slumps_per_km2=2.0, region="Peel")
    assert replace(same, date=spec.date, cloud_cover=spec.cloud_cover, haze=spec.haze) == spec


def test_a_thousand_scenes_find_a_place_of_their_own() -> None:
    specs = [placed_apart(varied_spec(seed, size=2048)) for seed in range(3000, 4000)]
    side = 2048 * 3.0
    assert len({(spec.left, spec.top) for spec in specs}) == 1000
    for axis in ("left", "top"):
        places = sorted({getattr(spec, axis) for spec in specs})
        assert min(after - before for before, after in pairwise(places)) > side
    assert max(spec.left for spec in specs) + side < 834_000  # the eastern border of a UTM zone near the equator
    assert {replace(spec, left=SceneSpec.left, top=SceneSpec.top) for spec in specs} == {
        varied_spec(seed, size=2048) for seed in range(3000, 4000)
    }
