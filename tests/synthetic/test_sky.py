"""Clouds, their shadows and the mask that tells them."""

import datetime as dt

import numpy as np
import pytest

from rtsx.synthetic.scene import UDM2_BANDS, Sun, make_sky, sun_over, usable_data_mask


def band(mask, name):
    return mask[UDM2_BANDS.index(name)].astype(bool)


@pytest.fixture(scope="module")
def sky():
    sun = Sun(azimuth_deg=180, elevation_deg=45)
    return make_sky(600, sun=sun, cloud_cover=0.2, haze=0.1, rng=np.random.default_rng(5))


def test_the_sun_stands_in_the_south_at_noon_and_in_the_east_before():
    noon = sun_over(70, date=dt.date(2024, 6, 21), hour=12)
    morning = sun_over(70, date=dt.date(2024, 6, 21), hour=6)
    assert noon.azimuth_deg == pytest.approx(180, abs=1)
    assert noon.elevation_deg == pytest.approx(20 + 23.4, abs=0.5)
    assert 70 < morning.azimuth_deg < 110


def test_each_seen_pixel_has_one_class(sky):
    footprint = np.ones((600, 600), bool)
    footprint[:, :50] = False
    snow = np.zeros((600, 600), bool)
    snow[300:320] = True
    mask = usable_data_mask(sky, snow=snow, footprint=footprint)
    classes = mask[:6].sum(axis=0)
    assert (classes[footprint] == 1).all()
    assert (mask[:7, ~footprint] == 0).all()
    np.testing.assert_array_equal(band(mask, "unusable"), ~footprint)
    assert mask[6].max() <= 100
    assert band(mask, "snow").any()


def test_the_mask_calls_cloud_what_is_opaque(sky):
    everywhere = np.ones((600, 600), bool)
    mask = usable_data_mask(sky, snow=~everywhere, footprint=everywhere)
    assert sky.cloud[band(mask, "cloud")].min() >= 0.35
    assert max(sky.cloud[band(mask, "clear")].max(), sky.haze[band(mask, "clear")].max()) < 0.05
    assert band(mask, "cloud").mean() == pytest.approx(0.2, abs=0.08)


def test_a_shadow_lies_away_from_the_sun(sky):
    # 700 m of height under a sun at 45 degrees in the south: 233 px to the north, 232 on the lattice of 4 px.
    np.testing.assert_allclose(sky.shadow[20:300], sky.cloud[252:532], atol=1e-5)


def test_without_clouds_nothing_is_hidden():
    clear = make_sky(
        200, sun=Sun(azimuth_deg=150, elevation_deg=30), cloud_cover=0, haze=0, rng=np.random.default_rng(1)
    )
    assert clear.cloud.max() == clear.shadow.max() == clear.haze.max() == 0
