"""The ground: repeatable, with slumps where they occur and of the sizes they have."""

import numpy as np
import pytest
import shapely
from scipy import stats

from rtsx.synthetic import Ground, LandscapeSpec, make_ground
from rtsx.synthetic.ground import cut_patch, place_scars
from rtsx.synthetic.terrain import draw_areas, make_terrain


def spec(seed: int, **changes) -> LandscapeSpec:
    return LandscapeSpec(
        **{"seed": seed, "crs": "EPSG:32608", "left": 520_200, "top": 7_482_600, "size": 768, **changes}
    )


@pytest.fixture(scope="module")
def ground() -> Ground:
    return make_ground(spec(11, slumps_per_km2=3.0))


def test_the_same_seed_gives_the_same_ground_and_another_another():
    one, again, other = (make_ground(spec(seed, size=256, slumps_per_km2=9.0)) for seed in (11, 11, 12))
    for name in ("elevation", "reflectance", "water", "trends", "snow"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
    assert len(one.slumps()) > 1
    assert again.slumps().equals(one.slumps())
    assert not np.allclose(other.elevation, one.elevation)


def test_values_are_physical(ground):
    assert np.isfinite(ground.elevation).all()
    assert 0 < ground.reflectance.min() <= ground.reflectance.max() < 0.6
    assert 0 <= ground.trends.min() <= ground.trends.max() <= 255


def test_slumps_lie_apart_and_beside_water_not_in_it(ground):
    slumps = [scar.polygon for scar in ground.scars]
    assert len(ground.slumps()) >= 8
    tree = shapely.STRtree(slumps)
    pairs = tree.query(slumps, predicate="dwithin", distance=2.5)
    assert (pairs[0] == pairs[1]).all()
    for scar in ground.scars:
        x, y = np.array(scar.polygon.representative_point().coords[0]).astype(int)
        assert ground.water[y, x] == 0


def test_an_active_slump_is_a_hollow_bare_and_greyer_than_its_surroundings(ground):
    rng = np.random.default_rng(0)
    large = [scar for scar in ground.scars if scar.is_active and scar.length_m > 60]
    assert len(large) >= 3
    steps, green = [], []
    ndvi = (ground.reflectance[3] - ground.reflectance[2]) / (ground.reflectance[3] + ground.reflectance[2])
    for scar in large:
        patch = cut_patch(scar, size=ground.spec.size, rng=rng)
        height, index = ground.elevation[patch.window], ndvi[patch.window]
        upper = patch.up_m > 0.6 * scar.length_m
        around = ~patch.inside & (ground.water[patch.window] == 0)
        steps.append(height[around & upper].mean() - height[patch.inside & upper & (patch.depth_in_m > 8)].mean())
        green.append(index[patch.inside].mean() - index[around].mean())
    assert np.median(steps) > 1
    assert np.median(green) < -0.1


def test_trends_follow_the_slumps(ground):
    marked = np.zeros(ground.water.shape, bool)
    for scar in ground.scars:
        if scar.is_active and scar.length_m > 60:
            patch = cut_patch(scar, size=ground.spec.size, rng=np.random.default_rng(0))
            marked[patch.window] |= patch.depth_in_m > 12
    inside = marked[2::4, 2::4]
    brightness, greenness, _ = ground.trends
    assert brightness[inside].mean() > brightness[~inside].mean() + 20
    assert greenness[inside].mean() < greenness[~inside].mean() - 20


def test_no_cut_through_one_colour_finds_the_slumps():
    """Split each band and the ndvi at every value, on ground as dense as the demo's."""
    grounds = [make_ground(spec(seed, size=1024)) for seed in (31, 32)]
    truth = np.concatenate([active_mask(ground).ravel() for ground in grounds])
    land = np.concatenate([(ground.water == 0).ravel() for ground in grounds])
    bands = np.concatenate([ground.reflectance.reshape(4, -1) for ground in grounds], axis=1)
    assert truth.mean() > 0.01
    for values in (*bands, (bands[3] - bands[2]) / (bands[3] + bands[2])):
        cuts = np.quantile(values[land], np.linspace(0.02, 0.98, 33))
        number = np.searchsorted(cuts, values, side="right")
        found, hits = (np.bincount(number[where], minlength=34) for where in (land, land & truth))
        for step in (1, -1):  # what lies below each cut, and what lies above
            below, right = (np.cumsum(counts[::step])[:-1] for counts in (found, hits))
            assert (right / (below + truth.sum() - right)).max() < 0.5


def active_mask(ground):
    truth = np.zeros(ground.water.shape, bool)
    for scar in ground.scars:
        if scar.is_active:
            patch = cut_patch(scar, size=ground.spec.size, rng=np.random.default_rng(0))
            truth[patch.window] |= patch.inside
    return truth


def test_placing_keeps_the_distribution_of_sizes():
    """A scar that fits nowhere is dropped; were that common, large ones would go missing."""
    asked, got = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        terrain = make_terrain(1536, height=1.0, rng=rng)
        areas = draw_areas(40, rng=rng, largest_m2=300_000)
        flat = np.zeros(terrain.elevation.shape, np.float32)
        scars = place_scars(areas, terrain=terrain, clusters=flat, is_active=np.ones(40, bool), rng=rng)
        asked.extend(areas)
        got.extend(9 * scar.polygon.area for scar in scars)
    assert len(got) >= 0.93 * len(asked)
    assert stats.ks_2samp(asked, got).statistic < 0.06


def test_density_zero_makes_untouched_tundra():
    assert make_ground(spec(5, size=256, slumps_per_km2=0)).scars == ()
