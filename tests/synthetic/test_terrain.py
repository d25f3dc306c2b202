"""Areas follow the published outlines, shapes have exactly the area asked for."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from scipy import stats

from rtsx.synthetic.terrain import blob, channels, drain, draw_areas, horseshoe, with_trunk


def test_areas_have_the_published_quantiles():
    areas = draw_areas(200_000, rng=np.random.default_rng(0))
    assert np.median(areas) == pytest.approx(9_534, rel=0.03)
    assert np.quantile(areas, 0.99) == pytest.approx(250_000, rel=0.25)
    assert np.mean(areas < 32 * 9) == pytest.approx(0.012, abs=0.006)
    assert areas.max() <= 870_000


def test_areas_cannot_be_told_from_the_real_outlines(real_data: Path):
    path = real_data / "rts_nitze2021" / "GT_Set_Nitze_etal_2021_TrainingSet_RTS.shp"
    real = geopandas.read_file(path).to_crs("EPSG:6931").geometry.area.to_numpy()
    assert len(real) == 2182
    drawn = draw_areas(200_000, rng=np.random.default_rng(1))
    assert stats.ks_2samp(drawn, real).statistic < 0.035
    # The test can fail: half the size is far outside.
    assert stats.ks_2samp(drawn / 2, real).statistic > 0.15


def test_shapes_resemble_the_real_outlines(real_data: Path):
    path = real_data / "rts_nitze2021" / "GT_Set_Nitze_etal_2021_TrainingSet_RTS.shp"
    real = shapely.make_valid(geopandas.read_file(path).to_crs("EPSG:6931").geometry.to_numpy())
    rng = np.random.default_rng(2)
    made = np.array([shapely.Polygon(horseshoe(9_534, rng=rng)) for _ in range(300)])
    for measure, tolerance in ((roundness, 0.1), (filled_hull, 0.06)):
        assert np.median(measure(made)) == pytest.approx(np.median(measure(real)), abs=tolerance)


def roundness(outlines):
    return 4 * np.pi * shapely.area(outlines) / shapely.length(outlines) ** 2


def filled_hull(outlines):
    return shapely.area(outlines) / shapely.area(shapely.convex_hull(outlines))


@pytest.mark.parametrize("shape", [horseshoe, blob])
@pytest.mark.parametrize("area_m2", [80.0, 9_534.0, 870_000.0])
def test_a_ring_is_simple_and_has_exactly_its_area(shape, area_m2):
    rng = np.random.default_rng(3)
    for _ in range(20):
        polygon = shapely.Polygon(shape(area_m2, rng=rng))
        assert polygon.is_valid
        assert polygon.area == pytest.approx(area_m2, rel=1e-9)


def test_a_horseshoe_opens_at_its_toe():
    rng = np.random.default_rng(4)
    rings = [horseshoe(10_000, rng=rng) for _ in range(100)]
    assert all(ring[:, 0].min() == 0 for ring in rings)
    lower = [np.ptp(ring[ring[:, 0] < 0.2 * ring[:, 0].max(), 1]) for ring in rings]
    upper = [np.ptp(ring[ring[:, 0] > 0.5 * ring[:, 0].max(), 1]) for ring in rings]
    assert np.median(np.array(lower) / np.array(upper)) < 0.85


@pytest.fixture(scope="module")
def hollow():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:50].astype(np.float32)
    pit = 25 * np.exp(-((y - 15) ** 2 + (x - 30) ** 2) / 40)
    return (60 + 0.5 * x + rng.normal(0, 0.2, y.shape) - pit).astype(np.float32)


def test_every_cell_drains_down_to_the_border(hollow):
    drainage = drain(hollow, rng=np.random.default_rng(1))
    filled = drainage.filled.ravel()
    inner = np.flatnonzero(drainage.receiver >= 0)
    assert (filled[drainage.receiver[inner]] < filled[inner]).all()
    assert (drainage.filled >= hollow - 1e-3).all()
    outlets = np.flatnonzero(drainage.receiver == -1)
    assert drainage.area.ravel()[outlets].sum() == hollow.size


def test_the_hollow_is_filled(hollow):
    drainage = drain(hollow, rng=np.random.default_rng(1))
    assert drainage.filled[15, 30] > hollow[15, 30] + 10


def test_a_trunk_river_carries_its_upstream_country_out(hollow):
    drainage = drain(hollow, rng=np.random.default_rng(1))
    trunk = with_trunk(drainage, upstream=1e6, rng=np.random.default_rng(2))
    carried = trunk.area - drainage.area
    assert set(np.unique(carried)) == {0, 1e6}
    assert (carried > 0).sum() > 10


def test_channels_follow_the_receivers_and_meet_at_their_ends(hollow):
    drainage = drain(hollow, rng=np.random.default_rng(1))
    reaches = channels(drainage, least_area=30, smooth=1)
    ends = {tuple(reach.path[-1]) for reach in reaches}
    heads = {tuple(reach.path[0]) for reach in reaches}
    assert len(reaches) > 3
    assert ends & heads
    assert all(reach.area >= 15 for reach in reaches)
