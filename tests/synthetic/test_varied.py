"""Scenes of an archive: they differ in day and sky, and follow from their seed."""

from dataclasses import replace
from itertools import pairwise

from rtsx.synthetic import SceneSpec, placed_apart, varied_spec


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
